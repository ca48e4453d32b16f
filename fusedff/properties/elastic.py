"""Elastic constants and pressure of a potential at measured state points, with standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from fusedff import dynamics
from fusedff.dynamics import Langevin
from fusedff.elasticity import CoupledStrains, StressFluctuation
from fusedff.experiments import StatePoint, measured_gpa
from fusedff.observables import jackknife
from fusedff.potential import Potential
from fusedff.units import GPA


@dataclass(frozen=True)
class ElasticRun:
    """Settings of the simulations from which elastic constants are read."""

    estimator: CoupledStrains | StressFluctuation = field(default_factory=CoupledStrains)
    repeats: tuple[int, int, int] = (5, 5, 3)
    replicas: int = 4
    langevin: Langevin = field(default_factory=Langevin)
    equilibration: int = 100  # snapshots
    snapshots: int = 700
    blocks: int = 10  # for standard errors
    seed: int = 1


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

    def as_dict(self) -> dict:
        """Nested plain data by temperature, for JSON."""
        table = {}
        for t, row in enumerate(self.temperature):
            elastic = {
                name: _entry(self.elastic[t, c], self.elastic_stderr[t, c], self.measured[t, c])
                for c, name in enumerate(self.names)
            }
            pressure = _entry(self.pressure[t], self.pressure_stderr[t], self.measured_pressure[t])
            table[f"{row:g}"] = {"elastic": elastic, "pressure": pressure}
        return table


def _entry(value, stderr, measured):
    return {"value": float(value), "stderr": float(stderr), "measured": float(measured)}


def run(
    candidate: Potential,
    points: Sequence[StatePoint],
    settings: ElasticRun,
    name: str | None = "elastic constants",
) -> ElasticResult:
    """Simulate `candidate` at every state point and average; trajectories depend on `settings.seed` alone."""
    estimator, replicas = settings.estimator, settings.replicas
    ensemble = estimator.ensemble(points, settings.repeats, replicas)
    simulation = dynamics.Simulation(ensemble, settings.langevin, candidate.cutoff, estimator.observe)
    state = dynamics.start(ensemble, jax.random.PRNGKey(settings.seed))
    state, _ = simulation.run(candidate, state, settings.equilibration, name and f"{name}, equilibration")
    _, trajectory = simulation.run(candidate, state, settings.snapshots, name)

    def statistic(means):
        found = estimator.properties(means, ensemble, points, replicas)
        return np.concatenate([found.elastic, found.pressure[..., None]], -1) / GPA

    estimate = jackknife(trajectory.observed, statistic, settings.blocks)
    value = estimate.value.mean(1)
    stderr = np.sqrt((estimate.stderr**2).sum(1)) / replicas
    names, measured, measured_pressure = measured_gpa(points)
    return ElasticResult(
        np.array([p.temperature for p in points]), names, value[:, :-1], stderr[:, :-1], value[:, -1], stderr[:, -1],
        measured, measured_pressure,
    )  # fmt: skip
