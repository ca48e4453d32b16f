"""Lattice constants and thermal expansion: the cell in which the mean stress of the dynamics is the wanted pressure.

Every pass runs the crystal at the present lattice constants under coupled strains, which gives stress and stiffness
together; the next cell is the present one strained by compliance times what is left of the stress. The last such
correction is part of the result. Cells do not fluctuate, so a few hundred atoms and no barostat suffice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np

from fusedff import crystals
from fusedff.crystals import Crystal
from fusedff.data.experiments import StatePoint
from fusedff.potential import Potential
from fusedff.properties.thermal.sampling import SolidConfig
from fusedff.runtime import settings as ranges
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.simulation.sampling import sample_crystal
from fusedff.simulation.statistics import entry, jackknife
from fusedff.units import GPA


@dataclass(frozen=True)
class LatticeConfig(SolidConfig):
    """Settings. The small strain keeps the pressure of the strained cells, which is too high by its square, right."""

    estimator: CoupledStrains = field(default_factory=partial(CoupledStrains, 0.001))
    passes: int = 3
    equilibration: int = 50  # snapshots, in every pass
    approach: int = 50  # snapshots of every pass but the last
    snapshots: int = 400  # of the last pass

    def __post_init__(self):
        super().__post_init__()
        ranges.require(self, count=["passes", "approach"])


@dataclass(frozen=True)
class LatticeResult:
    """Lattice constants at every temperature and their thermal expansion, with standard errors.

    `lengths` are in Å, a and, for hcp, c. `expansion` is (1/a) da/dT (and for c), from differences between
    neighbouring temperatures; nan when there is one temperature only.
    """

    temperature: np.ndarray  # (n_temperatures,) K
    names: tuple[str, ...]  # ("a",) or ("a", "c")
    lengths: np.ndarray  # (n_temperatures, n_names) Å
    lengths_stderr: np.ndarray
    volume: np.ndarray  # (n_temperatures,) Å^3 per atom
    volume_stderr: np.ndarray
    expansion: np.ndarray  # (n_temperatures, n_names) 1/K
    expansion_stderr: np.ndarray
    pressure: float  # eV/Å^3, at which the crystal is
    residual_gpa: np.ndarray  # (n_temperatures, n_names) stress left in the last cell before its correction
    settings: LatticeConfig

    def as_dict(self) -> dict:
        """Plain data for JSON: all numbers by temperature, the pressure and the settings."""
        table = {}
        for t, temperature in enumerate(self.temperature):
            row = {"volume_A3_per_atom": entry(self.volume[t], self.volume_stderr[t])}
            for n, name in enumerate(self.names):
                row[f"{name}_A"] = entry(self.lengths[t, n], self.lengths_stderr[t, n])
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
    `settings.seed` alone. Raises ValueError for temperatures that are not ascending, or when a correction does not
    stay below a tenth: the guess is far off, or the crystal is not stable there.
    """
    ascending = np.asarray(temperatures, float)
    if ascending.ndim != 1 or not len(ascending) or (np.diff(ascending) <= 0).any():
        raise ValueError(f"temperatures {ascending.tolist()} K are not ascending; give each once, in order")
    points = [StatePoint(float(t), crystal) for t in ascending]
    for n in range(settings.passes):
        snapshots = settings.snapshots if n == settings.passes - 1 else settings.approach
        said = name and f"{name}, pass {n + 1} of {settings.passes}"
        ensemble = settings.estimator.ensemble(points, settings.repeats, settings.replicas)
        trajectory = sample_crystal(
            potential, ensemble, settings.langevin, equilibration=settings.equilibration, snapshots=snapshots,
            seed=settings.seed + n, observe=settings.estimator.observe, name=said,
        )  # fmt: skip
        correct = partial(_correct, ensemble=ensemble, points=points, settings=settings, pressure=pressure)
        found = jackknife(trajectory.observed, correct, settings.blocks)
        points = [
            replace(p, crystal=_with_lengths(p.crystal, row[1:3])) for p, row in zip(points, found.value, strict=True)
        ]
    columns = slice(1, 3 if crystal.c else 2)
    lengths, lengths_stderr = found.value[:, columns], found.stderr[:, columns]
    expansion, expansion_stderr = _expansion(ascending, lengths, lengths_stderr)
    residual = found.value[:, 3:5] if crystal.c else found.value[:, 3:4]
    return LatticeResult(
        ascending, ("a", "c")[: lengths.shape[1]], lengths, lengths_stderr, found.value[:, 0], found.stderr[:, 0],
        expansion, expansion_stderr, pressure, residual / GPA, settings,
    )  # fmt: skip


def _correct(means, ensemble, points, settings, pressure):
    """Volume per atom, the two lengths and the two stresses beyond the pressure: (n_points, 5) from mean observables.

    The stress has its kinetic part N kT / V: the centre of mass counts as an atom, although it rests (see
    `elasticity`), because the free energy that pressure and stiffness derive from is that of all N atoms.
    """
    found = settings.estimator.properties(means, ensemble, points, settings.replicas)
    stress, constants = np.asarray(found.stress.mean(1), float), np.asarray(found.elastic.mean(1), float)
    symmetry, rows = crystals.symmetry(points[0].crystal), []
    for point, sigma, values in zip(points, stress, constants, strict=True):
        c = dict(zip(crystals.elastic_names(symmetry), values, strict=True))
        if symmetry == "hexagonal":
            excess = np.array([sigma[:2].mean(), sigma[2]]) + pressure
            stiffness = np.array([[c["C11"] + c["C12"], c["C13"]], [2 * c["C13"], c["C33"]]])
        else:
            excess = np.full(2, sigma[:3].mean() + pressure)
            stiffness = (c["C11"] + 2 * c["C12"]) * np.eye(2)
        strain = -np.linalg.solve(stiffness, excess)
        if not np.abs(strain).max() < 0.1:
            raise ValueError(
                f"{point.crystal} at {point.temperature:g} K: the stress {excess / GPA} GPa asks for a strain of "
                f"{strain}; start nearer to the equilibrium, or at a temperature at which the crystal is stable"
            )
        lengths = np.array([point.crystal.a, point.crystal.c or point.crystal.a]) * (1 + strain)
        volume = crystals.unit_cell(_with_lengths(point.crystal, lengths))
        rows.append([volume.get_volume() / len(volume), *lengths, *excess])
    return np.array(rows)


def _with_lengths(crystal, lengths):
    a, c = (float(length) for length in lengths)
    return replace(crystal, a=a, c=c if crystal.c else None)


def _expansion(temperatures, lengths, stderr):
    """(1/a) da/dT by finite differences (second order inside, first order at the ends), and its error."""
    if len(temperatures) < 2:
        return np.full_like(lengths, np.nan), np.full_like(lengths, np.nan)
    slope = np.gradient(np.eye(len(temperatures)), temperatures, axis=0)  # da/dT as a matrix
    return slope @ lengths / lengths, np.sqrt(slope**2 @ stderr**2) / lengths
