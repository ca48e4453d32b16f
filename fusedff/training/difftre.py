"""Top-down training: a potential whose simulated elastic constants and pressure match measured ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fusedff import devices, dynamics, neighbors, potential, reweighting
from fusedff.dynamics import Langevin
from fusedff.elasticity import CoupledStrains, StressFluctuation
from fusedff.experiments import StatePoint, measured_gpa
from fusedff.potential import Potential
from fusedff.training import loop
from fusedff.units import GPA, KB


@dataclass(frozen=True)
class DiffTRe:
    """Settings. The loss is the mean squared deviation of elastic constants and pressure, in GPa, weighted."""

    updates: int = 200
    learning_rate: float = 2e-4
    final_learning_rate: float = 2e-5  # reached by exponential decay
    b1: float = 0.1  # Adam: short memories, because gradients are noisy and the target moves
    b2: float = 0.4
    elastic_weight: float = 1.0  # per GPa^2
    pressure_weight: float = 10.0  # per GPa^2
    estimator: CoupledStrains | StressFluctuation = field(default_factory=CoupledStrains)
    repeats: tuple[int, int, int] = (5, 5, 3)
    replicas: int = 1
    langevin: Langevin = field(default_factory=Langevin)
    first_equilibration: int = 100  # snapshots before the first trajectory
    equilibration: int = 10  # snapshots before every further one
    snapshots: int = 700
    reuse_above: float = 0.9  # sample again when N_eff / n_snapshots falls below this in any cell
    seed: int = 0


class Sampled(NamedTuple):
    """A simulation between updates: where it stands, and the snapshots in use with their energies."""

    state: dynamics.State
    trajectory: dynamics.Trajectory
    rooms: jax.Array  # (2,) sizes of the neighbour lists


class Teacher:
    """One DiffTRe update: sample or reuse, reweight, differentiate, step."""

    def __init__(
        self, settings: DiffTRe, template: Potential, points: Sequence[StatePoint], updates: int | None = None
    ):
        self.settings, self.template, self.points = settings, template, tuple(points)
        self.updates = updates or settings.updates
        self.ensemble = settings.estimator.ensemble(points, settings.repeats, settings.replicas)
        self.simulation = dynamics.Simulation(
            self.ensemble, settings.langevin, template.cutoff, settings.estimator.observe
        )
        self.names, self.measured, self.measured_pressure = measured_gpa(self.points)
        self.beta = 1 / (KB * self.ensemble.temperature)

    def init(self, params) -> loop.Learner:
        """Optimizer state and a simulation that has yet to start."""
        key = jax.random.PRNGKey(self.settings.seed)
        positions = jnp.zeros((self.settings.snapshots, *self.ensemble.sites.shape), self.ensemble.sites.dtype)
        energy, observed = jax.eval_shape(partial(self._reevaluate, self.template), positions)
        empty = dynamics.Trajectory(positions, *(jnp.zeros(x.shape, x.dtype) for x in (energy, observed, energy)))
        sampled = Sampled(dynamics.start(self.ensemble, key), empty, jnp.asarray(self.simulation.rooms))
        return loop.Learner(params, self.optimizer().init(params), key, sampled)

    def optimizer(self) -> optax.GradientTransformation:
        s = self.settings
        decay = s.final_learning_rate / s.learning_rate
        return optax.adam(optax.exponential_decay(s.learning_rate, max(self.updates, 1), decay), b1=s.b1, b2=s.b2)

    def update(self, learner: loop.Learner, n: int) -> tuple[loop.Learner, dict]:
        """The learner after one optimizer step, and what the properties were before it."""
        candidate = self.template.with_params(learner.params)
        sampled, energy, observed = self._snapshots(candidate, learner.extra, n)
        w = reweighting.weights(self.beta, energy, sampled.trajectory.energy)
        means = reweighting.averages(w, observed)
        value, cotangent = jax.value_and_grad(self.loss)(means)
        gradient = _gradient(
            self.settings.estimator, self.template.cutoff, self.simulation.rooms, self.simulation.images,
            candidate, self.ensemble, sampled.trajectory.positions, w, observed, cotangent, self.beta,
        )  # fmt: skip
        updates, state = self.optimizer().update(gradient, learner.optimizer, learner.params)
        params = optax.apply_updates(learner.params, updates)
        record = {
            "loss": value,
            "n_eff": jnp.min(reweighting.effective_samples(w)) / len(w),
            **self.report(means),
        }
        return learner._replace(params=params, optimizer=state, extra=sampled), record

    def _snapshots(self, candidate, sampled, n):
        """Snapshots to learn from, with energies and observables of `candidate`; sampled anew when they wore out."""
        s = self.settings
        self.simulation.rooms = dynamics.Rooms(*(int(x) for x in sampled.rooms))
        if n > 0 and s.reuse_above < 1:
            energy, observed = self._reevaluate(candidate, sampled.trajectory.positions)
            n_eff = reweighting.effective_samples(reweighting.weights(self.beta, energy, sampled.trajectory.energy))
            if float(jnp.min(n_eff)) > s.reuse_above * s.snapshots:
                return sampled, energy, observed
        warm_up = s.equilibration if n else s.first_equilibration
        state = sampled.state
        if warm_up:
            state, _ = self.simulation.run(candidate, state, warm_up, None if n else "equilibration")
        state, trajectory = self.simulation.run(candidate, state, s.snapshots)
        return (
            Sampled(state, trajectory, jnp.asarray(self.simulation.rooms)),
            trajectory.energy,
            trajectory.observed,
        )

    def _reevaluate(self, candidate, positions):
        return _reevaluate(
            self.settings.estimator, self.template.cutoff, self.simulation.rooms, self.simulation.images,
            candidate, self.ensemble, positions,
        )  # fmt: skip

    def properties(self, means):
        """Elastic constants (n_points, n_constants) and pressure (n_points,), GPa, averaged over replicas."""
        found = self.settings.estimator.properties(means, self.ensemble, self.points, self.settings.replicas)
        return found.elastic.mean(1) / GPA, found.pressure.mean(1) / GPA

    def loss(self, means):
        """Weighted mean squared deviation from the measured values."""
        elastic, pressure = self.properties(means)
        present = np.isfinite(self.measured)
        deviation = jnp.where(present, elastic - jnp.asarray(np.where(present, self.measured, 0)), 0)
        of_elastic = jnp.sum(deviation**2) / jnp.maximum(jnp.sum(present), 1)
        of_pressure = jnp.mean((pressure - jnp.asarray(self.measured_pressure)) ** 2)
        return self.settings.elastic_weight * of_elastic + self.settings.pressure_weight * of_pressure

    def report(self, means) -> dict:
        """Name -> GPa for the history: every constant and the pressure at every temperature."""
        elastic, pressure = self.properties(means)
        record = {}
        for point, constants, p in zip(self.points, np.asarray(elastic), np.asarray(pressure), strict=True):
            record |= {
                f"{name}@{point.temperature:g}K": value for name, value in zip(self.names, constants, strict=True)
            }
            record[f"P@{point.temperature:g}K"] = p
        return record


def _near(cutoff, rooms, images, system):
    return neighbors.search_cells(system, cutoff, rooms.slots, np.asarray(images))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _reevaluate(estimator, cutoff, rooms, images, candidate, ensemble, positions):
    """Energies (n_snapshots, n_cells) and observables of stored snapshots, one snapshot at a time."""

    def cells(candidate, ensemble, positions):
        def one(r):
            system = ensemble.system(r)
            near = _near(cutoff, rooms, images, system)
            evaluation = potential.evaluate(candidate, system, near)
            return evaluation.energy, estimator.observe(candidate, system, near, evaluation)

        return jax.lax.map(one, positions)

    spread = devices.spread(cells, takes=(None, dynamics.PER_CELL, 1), gives=1, n=ensemble.n_cells)
    return spread(candidate, ensemble, positions)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gradient(estimator, cutoff, rooms, images, candidate, ensemble, positions, w, observed, cotangent, beta):
    """d loss / d params from the snapshots (n_snapshots, n_cells, n, 3) and `cotangent`, d loss / d averages."""

    def cells(candidate, ensemble, positions, w, observed, cotangent, beta):
        def scalar(params, r, along, against):
            model = candidate.with_params(params)
            system = ensemble.system(r)
            near = _near(cutoff, rooms, images, system)
            first = estimator.contract(model, system, near, along)
            return jnp.sum(first) + jnp.sum(against * potential.energies(model, system, near))

        gradient = reweighting.gradient(scalar, candidate.params, positions, w, observed, cotangent, beta)
        return devices.total(gradient)

    takes = (None, dynamics.PER_CELL, 1, 1, 1, 0, 0)
    spread = devices.spread(cells, takes, gives=None, n=ensemble.n_cells)
    return spread(candidate, ensemble, positions, devices.without_repeats(w, 1), observed, cotangent, beta)


def train(
    start: Potential, points: Sequence[StatePoint], settings: DiffTRe, checkpoint: str | Path | None = None
) -> tuple[Potential, list[dict]]:
    """Teach `start` the measured state points; returns the last potential and the history (GPa per temperature)."""
    teacher = Teacher(settings, start, points)
    result = loop.train(
        teacher.update, teacher.init(start.params), settings.updates, name="DiffTRe",
        settings=asdict(settings), checkpoint=checkpoint, shown=("loss", "n_eff"),
    )  # fmt: skip
    return start.with_params(result.params), result.history
