"""Elastic constants and pressure of a potential at measured state points, with standard errors.

Constants are isothermal, and adiabatic beside them: ultrasound is too fast for heat to flow. The difference is
C^S - C^T = (T V / C_V) lambda lambda with lambda = d stress / dT at constant strain (Wallace, Thermodynamics of
Crystals, 1972); lambda and the heat capacity C_V are fluctuations of the same trajectories.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np

from fusedff import crystals, elastic_symmetry
from fusedff.data.experiments import StatePoint, measured_gpa
from fusedff.potential import Potential
from fusedff.properties.thermal.sampling import SolidConfig
from fusedff.simulation.elasticity import CoupledStrains, Estimator
from fusedff.simulation.langevin import Trajectory
from fusedff.simulation.sampling import sample_crystal
from fusedff.simulation.statistics import entry, jackknife
from fusedff.units import GPA, KB


@dataclass(frozen=True)
class ElasticConfig(SolidConfig):
    """Settings of the simulations from which elastic constants are read."""

    estimator: Estimator = field(default_factory=CoupledStrains)


@dataclass(frozen=True)
class ElasticResult:
    """Constants and pressure per state point in GPa, with standard errors and what was measured."""

    temperature: np.ndarray  # (n_points,) K
    names: tuple[str, ...]
    elastic: np.ndarray  # (n_points, n_constants) GPa
    elastic_stderr: np.ndarray
    pressure: np.ndarray  # (n_points,) GPa
    pressure_stderr: np.ndarray
    measured: np.ndarray  # (n_points, n_constants) GPa, nan where there is no measurement
    measured_pressure: np.ndarray  # (n_points,) GPa
    adiabatic: np.ndarray  # (n_points, n_constants) GPa
    adiabatic_stderr: np.ndarray
    settings: ElasticConfig

    def as_dict(self) -> dict:
        """Plain data for JSON: all numbers by temperature, and the settings."""
        estimator = {"kind": type(self.settings.estimator).__name__} | asdict(self.settings.estimator)
        settings = asdict(self.settings) | {"estimator": estimator}
        return {"by_temperature_K": self.by_temperature(), "unit": "GPa", "settings": settings}

    def by_temperature(self) -> dict:
        """The numbers in GPa as nested plain data: temperature -> elastic, pressure and adiabatic.

        What was not measured has no entry `measured`.
        """
        table = {}
        for t, row in enumerate(self.temperature):
            elastic = {
                name: _entry(self.elastic[t, c], self.elastic_stderr[t, c], self.measured[t, c])
                for c, name in enumerate(self.names)
            }
            pressure = _entry(self.pressure[t], self.pressure_stderr[t], self.measured_pressure[t])
            adiabatic = {
                name: entry(self.adiabatic[t, c], self.adiabatic_stderr[t, c]) for c, name in enumerate(self.names)
            }
            table[f"{row:g}"] = {"elastic": elastic, "pressure": pressure, "adiabatic": adiabatic}
        return table


def _entry(value, stderr, measured):
    return entry(value, stderr) | ({} if np.isnan(measured) else {"measured": float(measured)})


def run(
    potential: Potential,
    points: Sequence[StatePoint],
    settings: ElasticConfig,
    name: str | None = "elastic constants",
) -> ElasticResult:
    """Simulate `potential` at every state point and average; trajectories depend on `settings.seed` alone."""
    estimator, replicas = settings.estimator, settings.replicas
    ensemble = estimator.ensemble(points, settings.repeats, replicas)
    trajectory = sample_crystal(
        potential, ensemble, settings.langevin, equilibration=settings.equilibration, snapshots=settings.snapshots,
        seed=settings.seed, observe=estimator.observe, name=name,
    )  # fmt: skip

    def statistic(means):
        found = estimator.properties(means, ensemble, points, replicas)
        return np.concatenate([found.elastic, found.pressure[..., None]], -1) / GPA

    estimate = jackknife(trajectory.observed, statistic, settings.blocks)
    value = estimate.value.mean(1)
    stderr = np.sqrt((estimate.stderr**2).sum(1)) / replicas
    names, measured, measured_pressure = measured_gpa(points)
    shift = jackknife(
        with_energy(trajectory), partial(adiabatic_shift, ensemble=ensemble, points=points), settings.blocks
    )
    elastic, error = value[:, :-1], stderr[:, :-1]
    return ElasticResult(
        np.array([p.temperature for p in points]), names, elastic, error, value[:, -1], stderr[:, -1],
        measured, measured_pressure, elastic + shift.value / GPA, np.hypot(error, shift.stderr / GPA), settings,
    )  # fmt: skip


def with_energy(trajectory: Trajectory) -> np.ndarray:
    """Of every snapshot and cell, U, U^2, the configurational stress and U times it: (n_snapshots, n_cells, 14).

    U is counted from its mean over the trajectory, so that nothing is lost in single precision.
    """
    energy = np.asarray(trajectory.energy, float)[..., None]
    energy, stress = energy - energy.mean(0), np.asarray(trajectory.observed[..., :6], float)
    return np.concatenate([energy, energy**2, stress, energy * stress], -1)


def adiabatic_shift(means, ensemble, points: Sequence[StatePoint]) -> np.ndarray:
    """C^S - C^T (n_points, n_constants) in eV/Å^3 from means (n_cells, 14) of `with_energy`.

    Averages over all cells of a point: strained up and down, they err by the square of the strain. The kinetic parts
    count N atoms, the centre of mass among them, as the pressure does.
    """
    means, symmetry = np.asarray(means, float), crystals.symmetry(points[0].crystal)
    energy, square, stress, product = means[:, :1], means[:, 1:2], means[:, 2:8], means[:, 8:]
    n, temperature = len(ensemble.numbers), np.asarray(ensemble.temperature, float)[:, None]
    volume = np.abs(np.linalg.det(np.asarray(ensemble.cells, float)))[:, None]
    heat = (square - energy**2) / (KB * temperature**2) + 1.5 * n * KB
    thermal = (product - energy * stress) / (KB * temperature**2) - n * KB / volume * np.array([1, 1, 1, 0, 0, 0])
    heat, thermal, volume, temperature = (
        x.reshape(len(points), -1, x.shape[1]).mean(1) for x in (heat, thermal, volume, temperature)
    )
    lam = elastic_symmetry.reduce_stress(thermal, symmetry)
    shift = (temperature * volume / heat)[..., None] * lam[:, :, None] * lam[:, None, :]
    constants = elastic_symmetry.reduce_stiffness(shift, symmetry)
    return np.stack([constants[name] for name in elastic_symmetry.elastic_names(symmetry)], -1)
