"""Grueneisen parameters: how phonon frequencies change with the volume, from which thermal expansion follows.

The parameter of a mode is gamma = -d ln(frequency) / d ln(volume), here by central differences between two volumes.
Their mean, weighted with the heat capacity of every mode, gives the thermal expansion of the volume in the
quasi-harmonic approximation: (1/V) dV/dT = gamma C_V / (B V), with the heat capacity C_V at constant volume and the
bulk modulus B (G. Grimvall, Thermophysical Properties of Materials, 1999).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from fusedff.properties.static import force_constants
from fusedff.properties.static.phonons import IMAGINARY, TEMPERATURES
from fusedff.properties.static.relax import DEFAULT, RelaxationConfig, relax_crystal, with_calculator
from fusedff.units import KB, PLANCK


@dataclass(frozen=True)
class Gruneisen:
    """Mode Grueneisen parameters -dln(frequency)/dln(volume) on a mesh, and their mean."""

    frequencies: np.ndarray  # (n_qpoints, n_branches) THz
    parameters: np.ndarray  # (n_qpoints, n_branches); nan for the acoustic modes at Gamma
    weights: np.ndarray  # (n_qpoints,), of sum 1
    temperatures: np.ndarray  # (n_temperatures,) K
    mean: np.ndarray  # (n_temperatures,), weighted with the heat capacity of every mode; nan at 0 K
    classical_mean: float  # all modes alike: the limit of high temperature
    volume_strain: float
    displacement: float  # Å
    repeats: tuple[int, int, int]
    mesh: float
    relaxation: RelaxationConfig

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "frequencies_THz": self.frequencies.tolist(),
            "parameters": self.parameters.tolist(),
            "weights": self.weights.tolist(),
            "temperatures_K": self.temperatures.tolist(),
            "mean": self.mean.tolist(),
            "classical_mean": self.classical_mean,
            "volume_strain": self.volume_strain,
            "displacement_A": self.displacement,
            "repeats": list(self.repeats),
            "mesh_A": self.mesh,
            "relaxation": asdict(self.relaxation),
        }


def run(
    atoms: Atoms,
    calculator,
    repeats: tuple[int, int, int] = (4, 4, 3),
    volume_strain: float = 0.01,
    displacement: float = 0.01,
    temperatures: Sequence[float] = TEMPERATURES,
    mesh: float = 50.0,
    relaxation: RelaxationConfig = DEFAULT,
    name: str | None = "Grueneisen parameters",
) -> Gruneisen:
    """Mode Grueneisen parameters of a crystal at rest, from phonons at (1 +- volume_strain) times its volume.

    Arguments are those of `phonons.run`. The shape of the cell and the ions are relaxed at either volume. Raises
    NotRelaxedError, and ValueError for a crystal with imaginary frequencies: harmonic phonons give it no thermal
    expansion.
    """
    from phonopy.api_gruneisen import PhonopyGruneisen  # not at the top: `force_constants` reports a missing phonopy

    at, lattices = force_constants.kelvin(temperatures), []
    for sign in (0, 1, -1):
        frame = with_calculator(atoms, calculator)
        frame.set_cell(atoms.cell.array * (1 + sign * volume_strain) ** (1 / 3), scale_atoms=True)
        if sign:
            frame = relax_crystal(frame, calculator, relaxation, fixed_volume=True)
        which = name and f"{name}, volume {1 + sign * volume_strain:g}"
        lattices.append(force_constants.finite_displacements(frame, calculator, repeats, displacement, which))
    modes = PhonopyGruneisen(*lattices)
    modes.set_mesh(lattices[0].run_mesh(mesh).mesh_numbers, is_gamma_center=True)
    _, counts, frequencies, _, parameters = modes.get_mesh()  # ty: ignore[not-iterable]  # it was set
    if frequencies.min() < -IMAGINARY:
        raise ValueError(
            f"{atoms.get_chemical_formula()}: lowest frequency {frequencies.min():.2f} THz is imaginary; Grueneisen "
            "parameters need a stable crystal, relax it or take another structure"
        )
    moving = frequencies > IMAGINARY
    weights = counts / counts.sum()
    mean = [_mean(parameters, moving, weights, _mode_heat_capacity(frequencies, moving, t)) for t in at]
    return Gruneisen(
        frequencies, np.where(moving, parameters, np.nan), weights, at, np.array(mean),
        _mean(parameters, moving, weights, np.ones_like(frequencies)), volume_strain, displacement, tuple(repeats),
        mesh, relaxation,
    )  # fmt: skip


def _mean(parameters, moving, weights, heat):
    """Mean of the parameters of all modes that are no translations, weighted with their heat capacities."""
    heat = np.where(moving, heat, 0) * weights[:, None]
    return float((heat * np.where(moving, parameters, 0)).sum() / heat.sum()) if heat.sum() > 0 else float("nan")


def _mode_heat_capacity(frequencies, moving, temperature):
    """Heat capacities of harmonic oscillators in k_B: (x / (2 sinh(x/2)))^2 with x = h frequency / kT."""
    if temperature == 0:
        return np.zeros_like(frequencies)
    half = np.where(moving, frequencies, 1) * PLANCK / (2 * KB * temperature)
    return (half / np.sinh(np.minimum(half, 300))) ** 2
