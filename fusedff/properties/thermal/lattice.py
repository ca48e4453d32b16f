"""Lattice constants and thermal expansion: the cell in which the mean stress is that of a given pressure.

Every pass simulates the crystal in a fixed cell under coupled strains (`elasticity.CoupledStrains`), which gives stress
and stiffness together. The cell of the next pass is the present one, strained by the compliance times the stress that
is left. The last such correction is part of the result. No barostat is needed, and cells of a few hundred atoms
suffice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
from ase import Atoms

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import PARAMETERS, Crystal
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential
from fusedff.properties.thermal.config import SolidConfig, warn_if_blocks_are_short
from fusedff.runtime import limits
from fusedff.simulation.elasticity import CoupledStrains, Properties, of_means
from fusedff.simulation.sampling import sample_crystal
from fusedff.simulation.statistics import entry, jackknife
from fusedff.units import GPA, strain_from_voigt

MAX_STRAIN = 0.1  # of one correction


@dataclass(frozen=True)
class LatticeConfig(SolidConfig):
    """Settings. Strains are small because the mean pressure of the strained cells has an error of second order."""

    estimator: CoupledStrains = field(default_factory=partial(CoupledStrains, 0.001))
    passes: int = 3
    equilibration: int = 50  # snapshots, in every pass
    approach: int = 50  # snapshots of every pass but the last
    snapshots: int = 400  # of the last pass

    def __post_init__(self):
        super().__post_init__()
        limits.require(self, count=["passes", "approach"])
        if self.passes > 1:
            limits.between(self, "approach", low=self.blocks, why="every pass is cut into `blocks` blocks")


@dataclass(frozen=True)
class LatticeResult:
    """Lattice constants at every temperature and their thermal expansion, with standard errors.

    `lengths` are the lattice parameters that the symmetry leaves free: edges in Å, angles in degrees. `expansion` is
    (1/a) da/dT of edges and d alpha/dT of angles in radians, from differences between neighbouring temperatures; nan
    when there is one temperature only.
    """

    temperature: np.ndarray  # (n_temperatures,) K
    names: tuple[str, ...]  # ("a",) of cubic, ("a", "c") of hexagonal crystals, see `Crystal.parameters`
    lengths: np.ndarray  # (n_temperatures, n_names) Å or degrees
    lengths_stderr: np.ndarray
    volume: np.ndarray  # (n_temperatures,) Å^3 per atom
    volume_stderr: np.ndarray
    expansion: np.ndarray  # (n_temperatures, n_names) 1/K
    expansion_stderr: np.ndarray
    pressure: float  # eV/Å^3, at which the crystal is
    residual_gpa: np.ndarray  # (n_temperatures, n_names) stress left in the last cell before its correction; of angles
    # alpha, beta, gamma the shear stresses yz, xz, xy
    settings: LatticeConfig

    def as_dict(self) -> dict:
        """Plain data for JSON: all numbers by temperature, the pressure and the settings."""
        table = {}
        for t, temperature in enumerate(self.temperature):
            row = {"volume_A3_per_atom": entry(self.volume[t], self.volume_stderr[t])}
            for n, name in enumerate(self.names):
                row[f"{name}_{'A' if name in 'abc' else 'deg'}"] = entry(self.lengths[t, n], self.lengths_stderr[t, n])
                if len(self.temperature) > 1:
                    row[f"expansion_{name}_per_K"] = entry(self.expansion[t, n], self.expansion_stderr[t, n])
            row["residual_GPa"] = dict(zip(self.names, self.residual_gpa[t].tolist(), strict=True))
            table[f"{temperature:g}"] = row
        return {"by_temperature_K": table, "pressure_GPa": self.pressure / GPA, "settings": asdict(self.settings)}


def run(
    potential: Potential,
    crystal: Crystal,
    temperatures: Sequence[float],
    settings: LatticeConfig,
    pressure: float = 0.0,
    name: str | None = "lattice constants",
) -> LatticeResult:
    """Lattice constants of `crystal` at ascending temperatures (K) and a pressure (eV/Å^3).

    `crystal` is a first guess within a few per cent. All temperatures run in one batch; trajectories depend on
    `settings.seed` alone. Raises ValueError for temperatures that are not ascending, or when a correction is a strain
    of 0.1 or more: the guess is far from the equilibrium, or the crystal is not stable at this temperature.
    """
    ascending = np.asarray(temperatures, float)
    if ascending.ndim != 1 or not len(ascending) or (np.diff(ascending) <= 0).any():
        raise ValueError(f"temperatures {ascending.tolist()} K are not ascending; give each once, in order")
    points = [StatePoint(float(t), crystal, pressure=pressure) for t in ascending]
    warn_if_blocks_are_short(settings)
    names = tuple(crystal.parameters)
    for n in range(settings.passes):
        snapshots = settings.snapshots if n == settings.passes - 1 else settings.approach
        said = name and f"{name}, pass {n + 1} of {settings.passes}"
        cells = settings.estimator.cells(points, settings.repeats, settings.replicas)
        trajectory = sample_crystal(
            potential, cells, settings.langevin, equilibration=settings.equilibration, snapshots=snapshots,
            seed=settings.seed + n, observe=settings.estimator.observe, name=said,
        )  # fmt: skip
        properties = of_means(settings.estimator, cells, points, settings.replicas)
        correct = partial(_correct, properties=properties, points=points, pressure=pressure)
        found = jackknife(trajectory.observed, correct, settings.blocks)
        _, lengths, residual = np.split(found.value, [1, 1 + len(names)], axis=1)
        points = [
            replace(p, crystal=crystals.with_parameters(crystal, row)) for p, row in zip(points, lengths, strict=True)
        ]
    lengths_stderr = found.stderr[:, 1 : 1 + len(names)]
    expansion, expansion_stderr = _expansion(names, ascending, lengths, lengths_stderr)
    return LatticeResult(
        ascending, names, lengths, lengths_stderr, found.value[:, 0], found.stderr[:, 0],
        expansion, expansion_stderr, pressure, residual / GPA, settings,
    )  # fmt: skip


def _correct(means, properties, points, pressure):
    """Volume per atom, lattice parameters and excess stresses of each point, from mean observables: (n_points, n).

    The stress has its kinetic part N kT / V: the centre of mass counts as an atom, although it rests (see
    `elasticity`), because the free energy that pressure and stiffness derive from is that of all N atoms.
    """
    found = properties(means)
    stress, constants = np.asarray(found.stress.mean(1), float), np.asarray(found.elastic.mean(1), float)
    rows = []
    for point, sigma, values in zip(points, stress, constants, strict=True):
        cell, excess = relaxed(point.crystal, sigma, values, pressure)
        if cell is None:
            raise ValueError(
                f"{point.crystal} at {point.temperature:g} K: the stress {excess / GPA} GPa asks for a strain of more "
                f"than {MAX_STRAIN:g}; start nearer to the equilibrium, or at a temperature at which the crystal is "
                "stable"
            )
        parameters = crystals.with_cell(point.crystal, cell).parameters
        residual = [excess[PARAMETERS.index(name)] for name in parameters]  # xx by a, ... xy by gamma
        rows.append([cell.get_volume() / len(cell), *parameters.values(), *residual])
    return np.array(rows)


def relaxed(crystal: Crystal, stress, constants, pressure: float = 0.0) -> tuple[Atoms | None, np.ndarray]:
    """The cell with the stress of the given pressure, to first order, and the excess stress (6,) of the present one.

    `stress` (6,) is the mean stress in the cell of `crystal` and `constants` are its elastic constants, all in eV/Å^3.
    None instead of the cell if the strain would be 0.1 or more.
    """
    symmetry = crystals.symmetry(crystal)
    excess = elastic_symmetry.reduce_stress(np.asarray(stress, float), symmetry) + pressure * np.array(
        [1, 1, 1, 0, 0, 0]
    )
    names = elastic_symmetry.elastic_names(symmetry)
    stiffness = elastic_symmetry.stiffness(dict(zip(names, np.asarray(constants, float), strict=True)), symmetry)
    stiffness = stiffness + pressure * elastic_symmetry.PRESSURE_CORRECTION  # of the Cauchy stress against strain
    strain = -np.linalg.solve(stiffness, excess) if np.linalg.cond(stiffness) < 1e12 else np.full(6, np.inf)
    if not np.abs(strain).max() < MAX_STRAIN:
        return None, excess
    cell = crystals.unit_cell(crystal)
    cell.set_cell(cell.cell.array @ (np.eye(3) + strain_from_voigt(strain)), scale_atoms=True)
    return cell, excess


def relaxed_lengths(found: Properties, points: Sequence[StatePoint]) -> np.ndarray:
    """Lattice parameters (n_points, replicas, n_lengths) at the pressures of the points; nan where `relaxed` fails."""
    lengths = np.full((*found.pressure.shape, len(points[0].crystal.parameters)), np.nan)
    for p, replica in np.ndindex(*found.pressure.shape):
        crystal = points[p].crystal
        cell, _ = relaxed(crystal, found.stress[p, replica], found.elastic[p, replica], points[p].pressure)
        if cell is not None:
            lengths[p, replica] = list(crystals.with_cell(crystal, cell).parameters.values())
    return lengths


def _expansion(names, temperatures, lengths, stderr):
    """(1/a) da/dT, of angles in radians, by finite differences (second order inside, first at the ends); and errors."""
    if len(temperatures) < 2:
        return np.full_like(lengths, np.nan), np.full_like(lengths, np.nan)
    slope = np.gradient(np.eye(len(temperatures)), temperatures, axis=0)  # da/dT as a matrix
    unit = np.where([name in "abc" for name in names], lengths, np.degrees(1))
    return slope @ lengths / unit, np.sqrt(slope**2 @ stderr**2) / unit
