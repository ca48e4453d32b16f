"""Isothermal from adiabatic elastic constants, by the thermal expansion that follows from a table of measurements.

Ultrasound is too fast for heat to flow: it measures adiabatic constants, simulations at constant temperature give
isothermal ones. C^S - C^T = (T V / C_V) λ λ with λ = -C^T α, the change of stress with temperature at constant strain
(Wallace, Thermodynamics of Crystals, 1972, §§ 2, 5). C_V is 3 k_B per atom, that of classical atoms; below the Debye
temperature that of real ones is smaller, but there the difference is small itself.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.measurements.state_points import StatePoint
from fusedff.units import GPA, KB, strain_to_voigt

NEIGHBOURS = 2  # rows on either side, by whose lattice parameters the expansion of a row is judged
SAME_PRESSURE = 0.001 * GPA  # strains by less than a hundredth of the expansion over 100 K
ITERATIONS = 10  # each adds some per cent of the last one's correction


def isothermal(points: Sequence[StatePoint], table: Sequence[StatePoint] | None = None) -> tuple[StatePoint, ...]:
    """The points with isothermal constants; those of rows that are isothermal already, or hold none, stay as they are.

    `table` has the lattice parameters at all measured temperatures (default: the points themselves). Raises ValueError
    where a row lacks one of the constants of its class, or the table another temperature at the same pressure.
    """
    points = tuple(points)
    return tuple(_isothermal(point, points if table is None else table) for point in points)


def difference(point: StatePoint, table: Sequence[StatePoint]) -> dict[str, float]:
    """C^S - C^T of a row with adiabatic constants, name -> eV/Å^3."""
    return {name: value - _isothermal(point, table).elastic[name] for name, value in point.elastic.items()}


def _isothermal(point, table) -> StatePoint:
    if point.condition != "adiabatic" or not point.elastic:
        return replace(point, condition="isothermal")
    symmetry, cell = crystals.symmetry(point.crystal), crystals.unit_cell(point.crystal)
    if missing := [name for name in elastic_symmetry.elastic_names(symmetry) if name not in point.elastic]:
        raise ValueError(
            f"{point.temperature:g} K: what is adiabatic cannot be made isothermal without {', '.join(missing)}; give "
            "all constants, or condition `isothermal` to compare them as they are"
        )
    alpha = strain_to_voigt(expansion(point, table))
    scale = point.temperature * cell.get_volume() / (3 * KB * len(cell))
    found = dict(point.elastic)
    for _ in range(ITERATIONS):
        lagrangian = elastic_symmetry.stiffness(found, symmetry)
        stress = (lagrangian + point.pressure * elastic_symmetry.PRESSURE_CORRECTION) @ alpha  # of Cauchy, per kelvin
        shift = elastic_symmetry.reduce_stiffness(scale * np.outer(stress, stress), symmetry)
        found = {name: value - float(shift[name]) for name, value in point.elastic.items()}
    return replace(point, elastic=found, condition="isothermal")


def expansion(point: StatePoint, table: Sequence[StatePoint]) -> np.ndarray:
    """Thermal expansion (3, 3), 1/K, in standard axes: the slope of a line through the row and those next to it."""
    others = [
        row for row in table
        if abs(row.pressure - point.pressure) < SAME_PRESSURE and row.temperature != point.temperature
    ]  # fmt: skip
    rows = sorted([point, *others], key=lambda row: row.temperature)
    temperatures = [row.temperature for row in rows]
    if not others:
        raise ValueError(
            f"{point.temperature:g} K: what is adiabatic cannot be made isothermal without the lattice parameters of "
            f"another temperature at the same pressure ({point.pressure / GPA:.3g} GPa); add a row, or give condition "
            "`isothermal` to compare the constants as they are"
        )
    at = int(np.searchsorted(temperatures, point.temperature))
    near = rows[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS + 1]
    inverse = np.linalg.inv(crystals.unit_cell(point.crystal).cell.array)
    strains = np.array([inverse @ crystals.unit_cell(row.crystal).cell.array for row in near]).reshape(-1, 9)
    slope = np.polyfit([row.temperature for row in near], strains, 1)[0].reshape(3, 3)
    return (slope + slope.T) / 2
