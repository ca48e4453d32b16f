"""Elastic constants of a crystal at 0 K with relaxed ions, for any ASE calculator that computes stress."""

from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from fusedff.crystallography import elastic_symmetry, orientation
from fusedff.properties.static.relax import DEFAULT, RelaxationConfig, relax_ions
from fusedff.runtime import progress
from fusedff.simulation import elasticity
from fusedff.units import GPA, VOIGT, from_voigt, strain_from_voigt, to_voigt


@dataclass(frozen=True)
class StaticElastic:
    """Elastic tensors in GPa, (6, 6) in Voigt order; compliances follow from them."""

    stiffness_gpa: np.ndarray  # ions relaxed; in standard axes where a symmetry was named, else in those of the crystal
    clamped_gpa: np.ndarray  # ions not relaxed: displaced homogeneously with the strain
    pressure_gpa: float  # of the crystal as it was given
    symmetry: str | None  # which independent constants `constants_gpa` holds
    strain: float
    relaxation: RelaxationConfig

    @property
    def constants_gpa(self) -> dict[str, float]:
        """Independent constants, means over the entries that symmetry makes equal; none without a symmetry."""
        if self.symmetry is None:
            return {}
        found = elastic_symmetry.reduce_stiffness(self.stiffness_gpa, self.symmetry)
        return {name: float(c) for name, c in found.items()}

    @property
    def bulk_modulus_gpa(self) -> float:
        """-V dp/dV under uniform pressure (Reuss), GPa: what an energy-volume curve with relaxed cells has."""
        return float(1 / np.linalg.inv(self._of_cauchy_stress)[:3, :3].sum())

    @property
    def stable(self) -> bool:
        """Whether every small strain costs energy (under pressure enthalpy; Born): a positive definite stiffness."""
        return bool(np.linalg.eigvalsh(self._of_cauchy_stress).min() > 0)

    @property
    def _of_cauchy_stress(self) -> np.ndarray:
        """Slopes (6, 6) of the Cauchy stress against strain at the crystal's pressure, GPa."""
        return self.stiffness_gpa + self.pressure_gpa * elastic_symmetry.PRESSURE_CORRECTION

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "constants_GPa": self.constants_gpa,
            "stiffness_GPa": self.stiffness_gpa.tolist(),
            "clamped_GPa": self.clamped_gpa.tolist(),
            "bulk_modulus_GPa": self.bulk_modulus_gpa,
            "pressure_GPa": self.pressure_gpa,
            "stable": self.stable,
            "symmetry": self.symmetry,
            "strain": self.strain,
            "relaxation": asdict(self.relaxation),
        }


def run(
    atoms: Atoms,
    calculator,
    symmetry: str | None = None,
    strain: float = 2e-3,
    relaxation: RelaxationConfig = DEFAULT,
    name: str | None = "elastic constants",
) -> StaticElastic:
    """C_ij = dS_i/d eta_j of a crystal by central differences, S the second Piola-Kirchhoff stress, ions relaxed.

    eta is the Lagrangian strain, as in `fusedff.simulation.elasticity`, whose constants have these as the limit T -> 0.
    At zero pressure all definitions of elastic constants agree. The cell of `atoms` is not relaxed. `symmetry` is that
    of `crystals.symmetry`, one of `elastic_symmetry.SYMMETRIES`; the crystal may have any orientation and is first
    turned into the standard axes of `orientation`. `name` shows progress.

    Raises NotRelaxedError, and ValueError for an unknown symmetry, one that the crystal does not have, or a strain
    outside (0, 0.05].
    """
    if not 0 < strain <= 0.05:
        raise ValueError(f"strain = {strain:g} is no small strain; use one between 1e-4 and 1e-2")
    if symmetry is not None:
        elastic_symmetry.elastic_names(symmetry)  # an unknown one is refused before the work
    rest = relax_ions(atoms, calculator, relaxation)
    pressure = -rest.get_stress()[:3].mean() / GPA
    if symmetry is not None:
        rest = _in_standard_axes(rest, symmetry)
    slopes = np.zeros((2, 6, 6))
    with progress.bar(name, 2 * len(VOIGT)) as report:
        for j, direction in enumerate(np.eye(6)):
            for sign in (1, -1):
                stretch = elasticity.stretch(sign * strain * strain_from_voigt(direction))
                slopes[:, :, j] += sign * _stresses(rest, stretch, calculator, relaxation) / (2 * strain)
                report()
    relaxed, clamped = (slopes + slopes.swapaxes(1, 2)) / 2 / GPA
    return StaticElastic(relaxed, clamped, float(pressure), symmetry, strain, relaxation)


def _in_standard_axes(rest, symmetry):
    found = orientation.of_atoms(rest)
    if found.symmetry != symmetry:
        raise ValueError(
            f"{rest.get_chemical_formula()} is {found.symmetry} ({found.space_group}), not {symmetry}; name its own "
            "symmetry, relax it if it is distorted (relax.relax_crystal), or leave `symmetry` out for the whole tensor"
        )
    return orientation.rotated_atoms(rest, found.rotation)


def _stresses(rest, stretch, calculator, relaxation):
    """Piola-Kirchhoff stress (2, 6) of the stretched crystal: ions relaxed, ions carried along."""
    frame = rest.copy()
    frame.set_cell(rest.cell.array @ stretch, scale_atoms=True)
    frame.calc = calculator
    clamped = frame.get_stress()
    relaxed = relax_ions(frame, calculator, relaxation).get_stress()
    inverse = np.linalg.inv(stretch)
    return np.stack([to_voigt(np.linalg.det(stretch) * inverse @ from_voigt(s) @ inverse) for s in (relaxed, clamped)])
