"""Reference values from the literature, by experiment and by DFT, one number per row.

A table is CSV with `#` comments and the columns material, phase, quantity, temperature_K, value, unit, uncertainty,
kind (experiment or DFT), confirmed (yes or no) and source. Temperature and uncertainty may be empty.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedff.data import FILES
from fusedff.measurements import csv, curves

REFERENCES = FILES / "references.csv"
CURVES = {  # measured curves that ship, by name
    "titanium liquid g(r)": FILES / "titanium_liquid_rdf.csv",
    "titanium hcp phonon density of states": FILES / "titanium_hcp_phonon_dos.csv",
}
COLUMNS = (
    "material", "phase", "quantity", "temperature_K", "value", "unit", "uncertainty", "kind", "confirmed", "source",
)  # fmt: skip
KINDS = ("experiment", "DFT")


@dataclass(frozen=True)
class Reference:
    """One number from the literature, in `unit`; `confirmed` is whether it was looked up in its source."""

    material: str
    phase: str
    quantity: str
    temperature: float | None  # K; None where the number belongs to no single temperature
    value: float
    unit: str
    uncertainty: float | None  # in the same unit; None where there is none
    kind: str  # "experiment" or "DFT"
    confirmed: bool
    source: str  # authors, journal, year

    def __str__(self):
        spread = "" if self.uncertainty is None else f" ± {self.uncertainty:g}"
        at = "" if self.temperature is None else f" at {self.temperature:g} K"
        return f"{self.phase} {self.material} {self.quantity}{at}: {self.value:g}{spread} {self.unit} ({self.source})"


def load(path=None) -> tuple[Reference, ...]:
    """The references of a table in its order; the default is the packaged one, of titanium and aluminium.

    Raises FileNotFoundError, or ValueError naming file, line and remedy: columns or words unknown, text for numbers,
    a quantity in two units, a number without a source, the same number twice.
    """
    path = REFERENCES if path is None else Path(path)
    (line, columns), *rows = csv.read_rows(path)
    if sorted(columns) != sorted(COLUMNS):
        raise ValueError(f"{path.name}, line {line}: the columns are {', '.join(columns)}; give {', '.join(COLUMNS)}")
    references, unit_of, line_of = [], {}, {}
    for line, row in rows:
        where = f"{path.name}, line {line}"
        reference = _reference(csv.cells(columns, row, where), where)
        unit, first = unit_of.setdefault(reference.quantity, (reference.unit, line))
        if reference.unit != unit:
            raise ValueError(
                f"{where}: {reference.quantity} is in {reference.unit}, on line {first} in {unit}; use one"
            )
        if reference in line_of:
            raise ValueError(f"{where}: repeats line {line_of[reference]}; keep one")
        line_of[reference] = line
        references.append(reference)
    return tuple(references)


def select(references, material=None, phase=None, quantity=None, kind=None) -> tuple[Reference, ...]:
    """The references that agree with every word given (None: any), in their order.

    Raises ValueError if there is none, naming what the last word could have been.
    """
    left = tuple(references)
    wanted = {"material": material, "phase": phase, "quantity": quantity, "kind": kind}
    for name, word in wanted.items():
        if word is None:
            continue
        known = sorted({getattr(reference, name) for reference in left})
        left = tuple(reference for reference in left if getattr(reference, name) == word)
        if not left:
            before = " ".join(w for n, w in wanted.items() if w and n != name)
            raise ValueError(f"no reference has {name} {word!r}; {before or 'the table'} has {', '.join(known)}")
    return left


def load_curve(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The two columns of one of `CURVES`: r in Å and g(r), or frequencies in THz and a density per THz of integral 1.

    Where they come from stands at the top of the file. Raises ValueError for an unknown name.
    """
    if name not in CURVES:
        raise ValueError(f"no curve is called {name!r}; there are {', '.join(map(repr, CURVES))}")
    x, y = curves.load(CURVES[name]).values()
    return x, y


def _reference(cells, where: str) -> Reference:
    for name in ("material", "phase", "quantity", "unit", "source"):
        if not cells[name]:
            raise ValueError(f"{where}: {name} is empty; fill it in or drop the row")
    _one_of(KINDS, cells, "kind", where)
    _one_of(("yes", "no"), cells, "confirmed", where)
    temperature = csv.number(cells["temperature_K"], "temperature_K", where) if cells["temperature_K"] else None
    if temperature is not None and temperature < 0:
        raise ValueError(f"{where}: temperature_K is {temperature:g}; give Kelvin, not Celsius")
    return Reference(
        material=cells["material"],
        phase=cells["phase"],
        quantity=cells["quantity"],
        temperature=temperature,
        value=csv.number(cells["value"], "value", where),
        unit=cells["unit"],
        uncertainty=csv.positive(cells["uncertainty"], "uncertainty", where) if cells["uncertainty"] else None,
        kind=cells["kind"],
        confirmed=cells["confirmed"] == "yes",
        source=cells["source"],
    )


def _one_of(words, cells, name: str, where: str) -> None:
    if cells[name] not in words:
        raise ValueError(f"{where}: {name} {cells[name]!r} is unknown; use one of {', '.join(words)}")
