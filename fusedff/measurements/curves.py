"""Measured curves from tables, and a check that the columns of a table are smooth."""

from pathlib import Path

import numpy as np
from scipy.stats import t as student

from fusedff.measurements import csv


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a CSV table of numbers by name, each (n_rows,).

    Raises FileNotFoundError, or ValueError naming file, line and remedy.
    """
    path = Path(path)
    (line, columns), *rows = csv.read_rows(path)
    if len(set(columns)) < len(columns) or not rows:
        raise ValueError(f"{path.name}, line {line}: give a header of different names and at least one row of numbers")
    found = []
    for line, row in rows:
        where = f"{path.name}, line {line}"
        cells = csv.cells(columns, row, where)
        found.append([csv.number(cells[column], column, where) for column in columns])
    return dict(zip(columns, np.array(found).T, strict=True))


def off_curve(x: np.ndarray, y: np.ndarray) -> dict[int, float]:
    """Rows of y (n,) that do not lie on a smooth curve over x (n,), each with the value of that curve there.

    A polynomial is fitted to most rows, without the fifth that fits worst. Rows of that fifth are added one by one, as
    long as they lie within the scatter of the others (Student's t at 1 %, for all rows together). A row that is still
    left out is off if it deviates by more than 15 % of what the curve spans and 0.5 % of its value, since no polynomial
    is exact. Needs five rows.
    """
    if len(x) < 5 or np.ptp(x) == 0:
        return {}
    powers = np.polynomial.chebyshev.chebvander(2 * (x - x.min()) / np.ptp(x) - 1, 1 + (len(x) > 6) + (len(x) > 11))
    rows = np.arange(len(x))
    alone = [_surprise(powers, y, rows != row)[0][row] for row in rows]
    kept = np.ones(len(x), bool)
    kept[np.argsort(alone)[-max(1, len(x) // 5) :]] = False
    while not kept.all():
        surprise, curve = _surprise(powers, y, kept)
        nearest = min(np.flatnonzero(~kept), key=lambda row: surprise[row])
        if surprise[nearest] > student.isf(0.005 / len(x), kept.sum() - powers.shape[1]):
            least = np.maximum(0.15 * np.ptp(curve[kept]), 5e-3 * np.abs(curve))
            return {int(row): float(curve[row]) for row in np.flatnonzero(~kept & (np.abs(y - curve) > least))}
        kept[nearest] = True
    return {}


def _surprise(powers, y, fitted):
    """Standard errors by which rows are off the fit through `fitted` others, and that fit: both (n,)."""
    fit = np.linalg.pinv(powers[fitted])
    curve = powers @ fit @ y[fitted]
    scatter = np.sum((y - curve)[fitted] ** 2) / max(fitted.sum() - powers.shape[1], 1)
    scatter = max(scatter, (1e-5 * np.abs(y).max()) ** 2)  # tables are rounded
    return np.abs(y - curve) / np.sqrt(scatter * (1 + np.sum((powers @ fit) ** 2, 1))), curve
