"""Elastic constants and stress of a potential at measured state points, with standard errors.

Isothermal constants are given, and adiabatic ones, since ultrasound is too fast for heat to flow. The difference is
C^S - C^T = (T V / C_V) lambda lambda with lambda = d stress / dT at constant strain (Wallace, Thermodynamics of
Crystals, 1972); lambda and the heat capacity C_V are fluctuations of the same trajectories.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import jax.numpy as jnp
import numpy as np

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential
from fusedff.properties.thermal.config import SolidConfig, warn_if_blocks_are_short
from fusedff.properties.thermal.lattice import relaxed_lengths
from fusedff.simulation.elasticity import CoupledStrains, Estimator, of_means
from fusedff.simulation.sampling import sample_crystal
from fusedff.simulation.statistics import entry, jackknife
from fusedff.units import GPA, KB


@dataclass(frozen=True)
class ElasticConfig(SolidConfig):
    """Settings of the simulations from which elastic constants are read."""

    estimator: Estimator = field(default_factory=CoupledStrains)


@dataclass(frozen=True)
class ElasticResult:
    """Constants and stress per state point in GPa, with standard errors, and what was measured there.

    `lengths` are the lattice parameters at which the stress would be that of the state point. They are those of the
    cell, strained by the compliance times the difference of the stresses, which is accurate for strains of a fraction
    of a per cent.
    """

    points: tuple[StatePoint, ...]
    names: tuple[str, ...]
    elastic: np.ndarray  # (n_points, n_constants) GPa, isothermal
    elastic_stderr: np.ndarray
    adiabatic: np.ndarray  # (n_points, n_constants) GPa
    adiabatic_stderr: np.ndarray
    pressure: np.ndarray  # (n_points,) GPa
    pressure_stderr: np.ndarray
    stress: np.ndarray  # (n_points, n_stresses) GPa, in the order of `elastic_symmetry.stress_names`
    stress_stderr: np.ndarray
    lengths: np.ndarray  # (n_points, n_lengths) Å or degrees, in the order of `Crystal.parameters`
    lengths_stderr: np.ndarray
    settings: ElasticConfig

    @property
    def temperature(self) -> np.ndarray:
        """Temperatures (n_points,) in K."""
        return np.array([point.temperature for point in self.points])

    def as_dict(self) -> dict:
        """Plain data for JSON: all numbers by temperature, and the settings."""
        estimator = {"kind": type(self.settings.estimator).__name__} | asdict(self.settings.estimator)
        settings = asdict(self.settings) | {"estimator": estimator}
        return {"by_temperature_K": self.by_temperature(), "unit": "GPa", "settings": settings}

    def by_temperature(self) -> dict:
        """The numbers as nested plain data: temperature -> elastic, difference, pressure, stress (GPa) and lattice.

        `elastic` are adiabatic constants where the measured ones are, else isothermal ones, as `condition` says;
        `difference` is adiabatic minus isothermal. Only quantities that were measured have an entry `measured`.
        """
        return {f"{point.temperature:g}": self._at(t, point) for t, point in enumerate(self.points)}

    def _at(self, t: int, point: StatePoint) -> dict:
        adiabatic = point.condition == "adiabatic"
        elastic = (self.adiabatic, self.adiabatic_stderr) if adiabatic else (self.elastic, self.elastic_stderr)
        return {
            "condition": point.condition,
            "elastic": _entries(self.names, elastic[0][t], elastic[1][t], point.elastic_gpa),
            "difference": dict(zip(self.names, (self.adiabatic - self.elastic)[t].tolist(), strict=True)),
            "pressure": _entries(
                ("P",), self.pressure[t : t + 1], self.pressure_stderr[t : t + 1], {"P": point.pressure_gpa}
            )["P"],
            "stress": _entries(point.stress_gpa, self.stress[t], self.stress_stderr[t], point.stress_gpa),
            "lattice": _entries(
                point.crystal.parameters, self.lengths[t], self.lengths_stderr[t], point.crystal.parameters
            ),
        }


def _entries(names, values, stderr, measured) -> dict:
    return {
        name: entry(value, noise) | ({"measured": float(measured[name])} if name in measured else {})
        for name, value, noise in zip(names, values, stderr, strict=True)
    }


def run(
    potential: Potential,
    points: Sequence[StatePoint],
    settings: ElasticConfig,
    name: str | None = "elastic constants",
) -> ElasticResult:
    """Simulate `potential` at every state point and average; trajectories depend on `settings.seed` alone."""
    warn_if_blocks_are_short(settings)
    estimator, replicas = settings.estimator, settings.replicas
    cells = estimator.cells(points, settings.repeats, replicas)
    trajectory = sample_crystal(
        potential, cells, settings.langevin, equilibration=settings.equilibration, snapshots=settings.snapshots,
        seed=settings.seed, observe=_StressBeside(estimator), name=name,
    )  # fmt: skip
    stress, observed = np.split(np.asarray(trajectory.observed, float), [6], -1)
    symmetry = crystals.symmetry(points[0].crystal)
    names, stresses = elastic_symmetry.elastic_names(symmetry), elastic_symmetry.stress_names(symmetry)
    ends = np.cumsum([len(names), 1, len(stresses)])
    properties = of_means(estimator, cells, points, replicas)

    def statistic(means):
        found = properties(means)
        stress = elastic_symmetry.independent_stress(found.stress, symmetry)
        in_gpa = np.concatenate([found.elastic, found.pressure[..., None], stress], -1) / GPA
        return np.concatenate([in_gpa, relaxed_lengths(found, points)], -1)

    estimate = jackknife(observed, statistic, settings.blocks)
    stderr = np.split(np.sqrt((estimate.stderr**2).sum(1)) / replicas, ends, axis=1)
    (elastic, pressure, mean_stress, lengths), errors = np.split(estimate.value.mean(1), ends, axis=1), stderr
    of_heat = with_energy(trajectory.energy, stress)
    shift = jackknife(of_heat, partial(adiabatic_shift, cells=cells, points=points), settings.blocks)
    return ElasticResult(
        tuple(points), names, elastic, errors[0],
        elastic + shift.value / GPA, np.hypot(errors[0], shift.stderr / GPA),
        pressure[:, 0], errors[1][:, 0], mean_stress, errors[2], lengths, errors[3], settings,
    )  # fmt: skip


@dataclass(frozen=True)
class _StressBeside:
    """Records the configurational stress (6), and what an estimator records. Equal ones share what is compiled."""

    estimator: Estimator

    def __call__(self, potential, system, near, evaluation):
        observed = self.estimator.observe(potential, system, near, evaluation)
        return jnp.concatenate([evaluation.stress, observed], 1)


def with_energy(energy: np.ndarray, stress: np.ndarray) -> np.ndarray:
    """U, U^2, the stress, and U times the stress of snapshots, (n_snapshots, n_cells, 14).

    From energies (n_snapshots, n_cells) in eV and configurational stresses (n_snapshots, n_cells, 6) in eV/Å^3. U is
    counted from its mean over the trajectory, so that U^2 loses no digits.
    """
    energy = np.asarray(energy, float)[..., None]
    energy, stress = energy - energy.mean(0), np.asarray(stress, float)
    return np.concatenate([energy, energy**2, stress, energy * stress], -1)


def adiabatic_shift(means, cells, points: Sequence[StatePoint]) -> np.ndarray:
    """C^S - C^T (n_points, n_constants) in eV/Å^3 from means (n_cells, 14) of `with_energy`.

    The formula is that of the module. Averages are over all cells of a point; the strains of pairs of cells are
    opposite, so the error is of second order in the strain. Kinetic energy and pressure are those of N atoms, although
    the centre of mass rests, as in `elasticity`.
    """
    means, symmetry = np.asarray(means, float), crystals.symmetry(points[0].crystal)
    energy, square, stress, product = means[:, :1], means[:, 1:2], means[:, 2:8], means[:, 8:]
    n, temperature = len(cells.numbers), np.asarray(cells.temperature, float)[:, None]
    volume = cells.volumes[:, None]
    heat = (square - energy**2) / (KB * temperature**2) + 1.5 * n * KB
    thermal = (product - energy * stress) / (KB * temperature**2) - n * KB / volume * np.array([1, 1, 1, 0, 0, 0])
    heat, thermal, volume, temperature = (
        x.reshape(len(points), -1, x.shape[1]).mean(1) for x in (heat, thermal, volume, temperature)
    )
    lam = elastic_symmetry.reduce_stress(thermal, symmetry)
    shift = (temperature * volume / heat)[..., None] * lam[:, :, None] * lam[:, None, :]
    constants = elastic_symmetry.reduce_stiffness(shift, symmetry)
    return np.stack(list(constants.values()), -1)
