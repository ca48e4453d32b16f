"""Energy as a function of volume of crystal structures at 0 K, for any ASE calculator."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms
from ase.eos import EquationOfState

from fusedff.properties.static.relax import DEFAULT, NotRelaxedError, RelaxationConfig, relax_crystal
from fusedff.runtime import progress
from fusedff.units import GPA


@dataclass(frozen=True)
class EnergyVolume:
    """Energies of one structure at several volumes, and the Birch-Murnaghan equation of state fitted to them."""

    volumes: np.ndarray  # (n_volumes,) Å^3 per atom
    energies: np.ndarray  # (n_volumes,) eV per atom, cell shape and ions relaxed
    fitted: np.ndarray  # (n_volumes,) eV per atom, the equation of state at the volumes
    lengths: np.ndarray  # (3,) Å, cell lengths a, b, c at equilibrium
    volume: float  # Å^3 per atom at equilibrium
    energy: float  # eV per atom at equilibrium
    bulk_modulus_gpa: float
    bulk_modulus_slope: float  # dB/dp

    @property
    def c_over_a(self) -> float:
        """Height of the cell over its first edge, at equilibrium."""
        return float(self.lengths[2] / self.lengths[0])

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "volume_A3_per_atom": self.volume,
            "energy_eV_per_atom": self.energy,
            "bulk_modulus_GPa": self.bulk_modulus_gpa,
            "bulk_modulus_slope": self.bulk_modulus_slope,
            "cell_lengths_A": self.lengths.tolist(),
            "fit_rms_meV_per_atom": 1e3 * float(np.sqrt(np.mean((self.fitted - self.energies) ** 2))),
            "volumes_A3_per_atom": self.volumes.tolist(),
            "energies_eV_per_atom": self.energies.tolist(),
        }


@dataclass(frozen=True)
class EnergyVolumeResult:
    """Curves by name of the structure, and the settings."""

    curves: dict[str, EnergyVolume]
    span: float
    n_volumes: int
    relaxation: RelaxationConfig

    @property
    def most_stable(self) -> str:
        """Name of the structure with the lowest energy."""
        return min(self.curves, key=lambda name: self.curves[name].energy)

    @property
    def relative_energies(self) -> dict[str, float]:
        """Energy above the most stable structure, each at its own equilibrium, eV per atom."""
        lowest = self.curves[self.most_stable].energy
        return {name: curve.energy - lowest for name, curve in self.curves.items()}

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "structures": {name: curve.as_dict() for name, curve in self.curves.items()},
            "most_stable": self.most_stable,
            "relative_energies_meV_per_atom": {n: 1e3 * e for n, e in self.relative_energies.items()},
            "span": self.span,
            "n_volumes": self.n_volumes,
            "relaxation": asdict(self.relaxation),
        }


def run(
    structures: Mapping[str, Atoms],
    calculator,
    span: float = 0.06,
    n_volumes: int = 9,
    relaxation: RelaxationConfig = DEFAULT,
    name: str | None = "energy and volume",
) -> EnergyVolumeResult:
    """Energies from (1 - span) to (1 + span) times the equilibrium volume of every structure, and their fits.

    `structures` are cells near equilibrium, e.g. of `crystals.prototype`. Each is relaxed to zero pressure in its own
    space group; at every volume, the shape of its cell (c/a) and its ions are relaxed. Equation of state: Birch, Phys.
    Rev. 71, 809 (1947).
    Raises NotRelaxedError, and ValueError for fewer than five volumes or a span that is not in (0, 0.3].
    """
    if n_volumes < 5 or not 0 < span <= 0.3:
        raise ValueError(
            f"n_volumes = {n_volumes}, span = {span:g}: a fit of four parameters needs five volumes or more, "
            "over a span between 0 and 0.3"
        )
    curves = {}
    with progress.bar(name, len(structures) * n_volumes) as report:
        for structure, start in structures.items():
            try:
                curves[structure] = _curve(start, calculator, span, n_volumes, relaxation, report)
            except NotRelaxedError as error:
                raise NotRelaxedError(f"{structure}: {error}") from error
    return EnergyVolumeResult(curves, span, n_volumes, relaxation)


def _curve(start, calculator, span, n_volumes, relaxation, report):
    rest = relax_crystal(start, calculator, relaxation)
    volumes, energies = [], []
    for factor in np.linspace(1 - span, 1 + span, n_volumes):
        frame = rest.copy()
        frame.set_cell(rest.cell.array * factor ** (1 / 3), scale_atoms=True)
        frame = relax_crystal(frame, calculator, relaxation, fixed_volume=True)
        volumes.append(frame.get_volume() / len(frame))
        energies.append(frame.get_potential_energy() / len(frame))
        report()
    volumes, energies = np.array(volumes), np.array(energies)
    lowest = energies.min()  # taken off: the fit starts from orders of magnitude
    equation = EquationOfState(volumes, energies - lowest, eos="birchmurnaghan")
    volume, energy, bulk_modulus = equation.fit()
    fitted = lowest + equation.func(volumes, *equation.eos_parameters)
    slope = float(equation.eos_parameters[2])
    lengths = rest.cell.lengths()
    return EnergyVolume(
        volumes, energies, fitted, lengths, float(volume), float(lowest + energy), float(bulk_modulus / GPA), slope
    )
