"""Measured state points: temperature, crystal, elastic constants and pressure. `experiments` reads them from tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.runtime import limits
from fusedff.units import GPA

ROLES = ("train", "held-out")
CONDITIONS = ("isothermal", "adiabatic")
MAX_STIFFNESS = 90.0  # eV, elastic constant times volume of an atom: 75 in osmium
STIFFEST_PRESSURE = 0.5  # of C11: compressed crystals stiffen


@dataclass(frozen=True)
class StatePoint:
    """One temperature (K), the crystal measured there, its elastic constants name -> eV/Å^3 (some, all or none).

    `pressure` is in eV/Å^3, `role` is 'train' or 'held-out', `elastic_stderr` holds what is known of standard errors.
    `condition` says whether the constants are 'isothermal' or 'adiabatic'. They are those in Lagrangian strain; at zero
    pressure all definitions agree. Raises ValueError for constants that the symmetry of the crystal lacks, and for
    numbers that are not finite or so large that they are in GPa.
    """

    temperature: float
    crystal: Crystal
    elastic: Mapping[str, float] = field(default_factory=dict, hash=False)
    pressure: float = 0.0
    role: str = "train"
    elastic_stderr: Mapping[str, float] = field(default_factory=dict, hash=False)  # eV/Å^3
    condition: str = "isothermal"

    def __post_init__(self):
        limits.require(self, positive=["temperature"])
        limits.one_of(self, "condition", CONDITIONS)
        limits.one_of(self, "role", ROLES)
        names = elastic_symmetry.elastic_names(crystals.symmetry(self.crystal))
        if unknown := [name for name in self.elastic if name not in names]:
            limits.raise_invalid(self, "elastic", f"{unknown[0]} is none of the constants {', '.join(names)}")
        if alone := [name for name in self.elastic_stderr if name not in self.elastic]:
            limits.raise_invalid(self, "elastic_stderr", f"{alone[0]} has no constant; give both or neither")
        if not all(0 < value < np.inf for value in self.elastic_stderr.values()):
            limits.raise_invalid(self, "elastic_stderr", "give positive numbers in eV/Å^3, or none")
        cell = crystals.unit_cell(self.crystal)
        most = MAX_STIFFNESS * len(cell) / cell.get_volume()
        for what, values, limit in (
            ("elastic", self.elastic.values(), most),
            ("pressure", [self.pressure], STIFFEST_PRESSURE * most),
        ):
            if not all(abs(value) < limit for value in values):
                limits.raise_invalid(self, what, "give eV/Å^3: multiply GPa by fusedff.units.GPA")

    @property
    def elastic_gpa(self) -> dict[str, float]:
        """Elastic constants name -> GPa."""
        return {name: value / GPA for name, value in self.elastic.items()}

    @property
    def pressure_gpa(self) -> float:
        """Pressure in GPa."""
        return self.pressure / GPA

    @property
    def stress_gpa(self) -> dict[str, float]:
        """The independent stresses of the crystal at its pressure, name -> GPa: of hexagonal ones xx and zz."""
        names = elastic_symmetry.stress_names(crystals.symmetry(self.crystal))
        return {name: 0.0 - self.pressure_gpa if name in ("xx", "yy", "zz") else 0.0 for name in names}


def select(points, temperatures=None, role=None) -> tuple[StatePoint, ...]:
    """The state points at these temperatures (K, in this order; None: all) with this role (None: any).

    Raises ValueError for a temperature or role that no point has, naming those that exist.
    """
    points = tuple(points)
    available = ", ".join(f"{p.temperature:g}" for p in points)
    if temperatures is not None:
        at = {p.temperature: p for p in points}
        for temperature in temperatures:
            if temperature not in at:
                raise ValueError(f"no state point at {temperature} K; the table has {available} K")
        points = tuple(at[temperature] for temperature in temperatures)
    if role is not None:
        if role not in ROLES:
            raise ValueError(f"role {role!r} is unknown; use one of {', '.join(ROLES)}")
        points = tuple(p for p in points if p.role == role)
    if not points:
        raise ValueError(f"no state point is left with role {role!r}; the table has {available} K")
    return points


def measured_gpa(points) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names of the elastic constants, their values (n_points, n_constants) and the pressures (n_points,), in GPa.

    All points are of one elastic symmetry; a constant that was not measured is nan.
    """
    names = elastic_symmetry.elastic_names(crystals.symmetry(points[0].crystal))
    elastic = np.array([[point.elastic_gpa.get(name, np.nan) for name in names] for point in points])
    return names, elastic, np.array([point.pressure_gpa for point in points])


def stderr_gpa(points) -> np.ndarray:
    """Standard errors (n_points, n_constants) of `measured_gpa` in GPa, nan where none is known."""
    names = elastic_symmetry.elastic_names(crystals.symmetry(points[0].crystal))
    return np.array([[point.elastic_stderr.get(name, np.nan) / GPA for name in names] for point in points])
