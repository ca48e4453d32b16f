"""Training of a potential on measured averages by differentiable trajectory reweighting (DiffTRe).

Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021). The measurement is a `targets.Target`: cells to simulate, what to
record of a snapshot, and the deviation of the averages from the measurement.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from fusedff.geometry import neighbors
from fusedff.measurements.experiments import StatePoint
from fusedff.potential import Potential
from fusedff.runtime import compilation, devices
from fusedff.runtime import settings as ranges
from fusedff.simulation import langevin as dynamics
from fusedff.simulation import reweighting
from fusedff.simulation.cells import PER_CELL
from fusedff.simulation.elasticity import CoupledStrains, Estimator
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import gauss_newton, loop, targets
from fusedff.training.optimizers import Adam, GaussNewton
from fusedff.training.targets import ElasticTarget, StaticTarget, Target
from fusedff.units import KB


@dataclass(frozen=True)
class SamplingConfig:
    """How trajectories are sampled between updates, and how long they are used; lengths are in snapshots."""

    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    first_equilibration: int = 100  # before the first trajectory
    equilibration: int = 10  # before every further one
    snapshots: int = 700
    reuse_above: float = 0.9  # sample again when N_eff / n_snapshots falls below this in any cell

    def __post_init__(self):
        ranges.require(
            self,
            count=["snapshots"],
            whole=["first_equilibration", "equilibration"],
            not_negative=["reuse_above"],
        )


@dataclass(frozen=True)
class DiffTReConfig:
    """Settings of a training from measurements.

    The fields from `elastic_weight` to `replicas` make measured state points a target (`elastic_target`). Any other
    target brings its own cells and weights.
    """

    updates: int = 200
    optimizer: Adam | GaussNewton = field(default_factory=Adam)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    elastic_weight: float = 1.0  # per GPa^2
    stress_weight: float = 10.0  # per GPa^2, of every independent stress
    pressure_weight: float = 0.0  # per GPa^2; the paper has it, and not the stresses
    estimator: Estimator = field(default_factory=CoupledStrains)
    repeats: tuple[int, int, int] = (5, 5, 3)
    replicas: int = 1
    seed: int = 0

    def __post_init__(self):
        ranges.require(
            self, count=["updates", "replicas"], not_negative=["elastic_weight", "stress_weight", "pressure_weight"]
        )


MAX_HALVINGS = 4  # times that a step is halved before the state point counts as lost


class TrajectoryBuffer(NamedTuple):
    """State of the simulation between updates, and the snapshots in use with their energies."""

    state: dynamics.State
    trajectory: dynamics.Trajectory
    capacity: jax.Array  # (2,) sizes of the neighbour lists
    params: Any  # with which the snapshots were sampled


def elastic_target(points: Sequence[StatePoint], settings: DiffTReConfig) -> ElasticTarget:
    """Elastic constants and stresses of measured state points as a target."""
    s = settings
    weights = s.elastic_weight, s.stress_weight, s.pressure_weight
    return ElasticTarget(points, s.estimator, s.repeats, s.replicas, *weights)


class DiffTReTrainer:
    """One DiffTRe update: sample or reuse, reweight, differentiate, step.

    `target` is what to match: any `Target`, or measured state points, which mean their `elastic_target`. In fused
    training `label_sketch` is `ForceMatchingTrainer.gauss_newton_sketch`: among the steps that correct the residuals,
    Gauss-Newton then takes the one that raises the loss of the labels least. `static` are further measurements, which
    need no snapshots.
    """

    def __init__(
        self,
        settings: DiffTReConfig,
        template: Potential,
        target: Target | Sequence[StatePoint],
        updates: int | None = None,
        label_sketch: Callable | None = None,
        static: Sequence[StaticTarget] = (),
    ):
        self.settings, self.template, self.label_sketch = settings, template, label_sketch
        self.static = tuple(static)
        self.target = elastic_target(target, settings) if isinstance(target, Sequence) else target
        self.updates = updates or settings.updates
        self.ensemble = self.target.ensemble
        self.simulation = dynamics.Simulation(
            self.ensemble, settings.sampling.langevin, template.cutoff, self.target.observe
        )
        self.images = neighbors.static_offsets(self.ensemble.cells, template.cutoff)
        self.beta = 1 / (KB * self.ensemble.temperature)
        # op by op, these would compile for seconds
        self.loss = jax.jit(jax.value_and_grad(partial(targets.loss, self.target)))
        self.residuals = jax.jit(lambda means: (self.target.residuals(means), jax.jacrev(self.target.residuals)(means)))
        self.static_terms = jax.jit(self._static_terms)

    @property
    def learned_from(self) -> dict:
        """The measurements, by which a checkpoint knows what it belongs to."""
        return {"target": self.target} | ({"static targets": self.static} if self.static else {})

    def init(self, params) -> loop.TrainState:
        """Optimizer state and a simulation that has yet to start."""
        key = jax.random.PRNGKey(self.settings.seed)
        positions = jnp.zeros((self.settings.sampling.snapshots, *self.ensemble.sites.shape), self.ensemble.sites.dtype)
        energy, observed = jax.eval_shape(partial(self._reevaluate, self.template), positions)
        empty = dynamics.Trajectory(positions, *(jnp.zeros(x.shape, x.dtype) for x in (energy, observed, energy)))
        sampled = TrajectoryBuffer(
            dynamics.start(self.ensemble, key), empty, jnp.asarray(self.simulation.capacity), params
        )
        if isinstance(self.settings.optimizer, Adam):
            state = self.settings.optimizer.transformation(self.updates).init(params)
        else:
            residuals = jax.eval_shape(self.target.residuals, empty.observed[0])
            n_labels = gauss_newton.ROWS if self.label_sketch else 0
            n_static = jax.eval_shape(self._static_terms, params)[1].size if self.static else 0
            state = gauss_newton.init(residuals.size + n_static, ravel_pytree(params)[0], n_labels)
        return loop.TrainState(params, state, key, sampled)

    def update(self, train_state: loop.TrainState, n: int) -> tuple[loop.TrainState, dict]:
        """Train state after one optimizer step, and the record of the averages before it."""
        potential, halvings, (sampled, energy, observed) = self._sample_with_backtracking(train_state, n)
        w = reweighting.weights(self.beta, energy, sampled.trajectory.energy)
        means = reweighting.averages(w, observed)
        values, *static = self.static_terms(potential.params) if self.static else ((),)
        arrays = train_state, potential, n, sampled.trajectory.positions, w, observed, means, static
        if isinstance(self.settings.optimizer, Adam):
            value, params, state = self._adam(self.settings.optimizer, *arrays)
        else:
            value, params, state = self._gauss_newton(self.settings.optimizer, *arrays)
        record = {
            "loss": value,
            "n_eff": jnp.min(reweighting.effective_samples(w)) / len(w),
            "halvings": halvings,
            **self.target.report(means),
        }
        for target, value in zip(self.static, values, strict=True):
            record |= target.report(value)
        return train_state._replace(params=params, optimizer=state, extra=sampled), record

    def _adam(self, settings: Adam, train_state, potential, n, positions, w, observed, means, static):
        """Loss before, parameters after and optimizer state after a step."""
        value, cotangent = self.loss(means)
        gradient = self._gradient(potential, positions, w, observed, cotangent)
        if static:
            value, gradient = _with_static(value, gradient, *static)
        return value, *_step(settings, self.updates, potential.params, train_state.optimizer, gradient)

    def _gauss_newton(self, settings: GaussNewton, train_state, potential, n, positions, w, observed, means, static):
        """Loss before, parameters after and optimizer state after a step."""
        residuals, slopes = self.residuals(means)
        jacobian = self._jacobian(potential, positions, w, observed, slopes)
        residuals = np.ravel(residuals)
        if static:
            more, rows = static
            residuals, jacobian = np.append(residuals, more), np.concatenate([jacobian, _rows(rows, len(more))])
        relaxation, damping = settings.relaxation_at(n, self.updates), settings.damping
        params, unravel = ravel_pytree(train_state.params)
        measured = np.asarray(ravel_pytree(potential.params)[0])
        state = gauss_newton.step(
            train_state.optimizer, n, relaxation, damping, np.asarray(params), measured, jacobian, residuals,
            self.label_sketch and self.label_sketch(potential.params, n, gauss_newton.ROWS),
        )  # fmt: skip
        return np.sum(residuals**2), unravel(state.params), state

    def _static_terms(self, params):
        """Of the static targets: their values, all residuals (n,), and derivatives, params with an axis before (n,)."""

        def values(params):
            return [target.observe(self.template.with_params(params)) for target in self.static]

        def residuals(params):
            found = [target.residuals(value) for target, value in zip(self.static, values(params), strict=True)]
            return jnp.concatenate(found)

        found = residuals(params)
        # one after the other: the gathers of a potential cannot be vmapped
        rows = jax.lax.map(lambda row: jax.grad(lambda params: row @ residuals(params))(params), jnp.eye(len(found)))
        return values(params), found, rows

    def _sample_with_backtracking(self, train_state, n):
        """Potential, number of halvings, and snapshots with energies and observables.

        If a trajectory explodes, the last step is halved, back towards the parameters of the last stable simulation, up
        to `MAX_HALVINGS` times.
        """
        params, sampled = train_state.params, train_state.extra
        for halvings in range(MAX_HALVINGS + 1):
            potential = self.template.with_params(params)
            try:
                return potential, halvings, self._snapshots(potential, sampled, n)
            except dynamics.ExplodedTrajectoryError as error:
                if n == 0 or halvings == MAX_HALVINGS:
                    raise
                if devices.first():
                    warnings.warn(f"update {n}: {error}. Going half of the step back", stacklevel=2)
            params = jax.tree.map(lambda held, lost: (held + lost) / 2, sampled.params, params)

    def _snapshots(self, potential, sampled, n):
        """Snapshots with energies and observables of `potential`; new ones if too few of the old are effective."""
        s = self.settings.sampling
        self.simulation.capacity = dynamics.ListCapacity(*(int(x) for x in sampled.capacity))
        if n > 0 and s.reuse_above < 1:
            energy, observed = self._reevaluate(potential, sampled.trajectory.positions)
            n_eff = reweighting.effective_samples(reweighting.weights(self.beta, energy, sampled.trajectory.energy))
            if float(jnp.min(n_eff)) > s.reuse_above * s.snapshots:
                return sampled, energy, observed
        warm_up = s.equilibration if n else s.first_equilibration
        name = None if n else "first trajectory"
        state, trajectory = self.simulation.sample(potential, sampled.state, warm_up, s.snapshots, name)
        return (
            TrajectoryBuffer(state, trajectory, jnp.asarray(self.simulation.capacity), potential.params),
            trajectory.energy,
            trajectory.observed,
        )

    def _reevaluate(self, potential, positions):
        return _reevaluate(
            self.target.observe, self.template.cutoff, self.simulation.capacity, self.images,
            potential, self.ensemble, positions,
        )  # fmt: skip

    def _gradient(self, potential, positions, w, observed, cotangent):
        gradients = self._gradients(potential, self.ensemble, positions, w, observed, cotangent[None], self.beta)
        return jax.tree.map(lambda x: x[0], gradients)

    def _jacobian(self, potential, positions, w, observed, slopes):
        """d residuals / d params (n_residuals, n_params) from d residuals / d averages, by the cells of each state."""
        n_states, n, n_cells, _ = slopes.shape
        size = n_cells // n_states
        rows = []
        for state in range(n_states):
            cells = slice(state * size, (state + 1) * size)
            gradients = self._gradients(
                potential, self.ensemble.subset(cells), positions[:, cells], w[:, cells], observed[:, cells],
                slopes[state][:, cells], self.beta[cells],
            )  # fmt: skip
            rows.append(_rows(gradients, n))
        return np.concatenate(rows)

    def _gradients(self, *arrays):
        return _gradients(
            self.target.weighted_sum, self.template.cutoff, self.simulation.capacity, self.images, *arrays
        )  # fmt: skip


@jax.jit
def _with_static(value, gradient, residuals, rows):
    """Loss and gradient with those of the static targets added."""
    more = jax.tree.map(lambda row: 2 * jnp.tensordot(residuals, row, 1), rows)
    return value + jnp.sum(residuals**2), jax.tree.map(lambda g, m: g + m.astype(g.dtype), gradient, more)


@compilation.jit(n_static=2)
def _step(adam, updates, params, state, gradient):
    step, state = adam.transformation(updates).update(gradient, state, params)
    return optax.apply_updates(params, step), state


def _rows(tree, n):
    """Derivatives of n numbers as a matrix (n, n_params)."""
    return np.concatenate([np.asarray(x).reshape(n, -1) for x in jax.tree.leaves(tree)], 1)


def _near(cutoff, capacity, images, system):
    return neighbors.search_cells(system, cutoff, capacity.slots, np.asarray(images))


@compilation.jit(n_static=4)
def _reevaluate(observe, cutoff, capacity, images, potential, ensemble, positions):
    """Energies (n_snapshots, n_cells) and observables of stored snapshots, one snapshot at a time."""

    def cells(potential, ensemble, positions):
        def one(r):
            system = ensemble.system(r)
            near = _near(cutoff, capacity, images, system)
            evaluation = potential.evaluate(system, near)
            return evaluation.energy, observe(potential, system, near, evaluation)

        return jax.lax.map(one, positions)

    on_devices = devices.shard_map_cells(cells, in_axes=(None, PER_CELL, 1), out_axes=1, n=ensemble.n_cells)
    return on_devices(potential, ensemble, positions)


@compilation.jit(n_static=4)
def _gradients(weighted_sum, cutoff, capacity, images, potential, ensemble, positions, w, observed, cotangents, beta):
    """d f / d params for every f in `cotangents` (n, n_cells, n_quantities), which are d f / d averages.

    The snapshots are positions (n_snapshots, n_cells, n_atoms, 3).
    """

    def cells(potential, ensemble, positions, w, observed, cotangents, beta):
        def scalar(params, r, along, against):
            model = potential.with_params(params)
            system = ensemble.system(r)
            near = _near(cutoff, capacity, images, system)
            contracted, energy = weighted_sum(model, system, near, along)
            return jnp.sum(contracted + against * energy)

        def gradient(cotangent):
            return reweighting.gradient(scalar, potential.params, positions, w, observed, cotangent, beta)

        return devices.total(jax.lax.map(gradient, cotangents))

    in_axes = (None, PER_CELL, 1, 1, 1, 1, 0)
    on_devices = devices.shard_map_cells(cells, in_axes, out_axes=None, n=ensemble.n_cells)
    return on_devices(potential, ensemble, positions, devices.zero_for_repeats(w, 1), observed, cotangents, beta)


def warn_if_lost(difftre_trainer: DiffTReTrainer, train_state: loop.TrainState) -> None:
    """Warn if the last snapshots of a training are far from all DFT frames, or of a crystal that has been lost."""
    trajectory = train_state.extra.trajectory
    dynamics.warn_if_far(difftre_trainer.template, difftre_trainer.ensemble, trajectory.positions[-1])
    if isinstance(difftre_trainer.target, ElasticTarget):  # others may be about liquids
        dynamics.warn_if_lost(difftre_trainer.ensemble, trajectory)


def shown(record: dict) -> dict:
    """Entries of a record to show: losses, N_eff, the target's report on the state nearest to 300 K, and phonons."""
    temperatures = [float(key.split("@")[1].rstrip("K")) for key in record if "@" in key]
    nearest = f"@{min(temperatures, key=lambda t: abs(t - 300)):g}K" if temperatures else "@"
    of_all = [key for key in ("loss", "dft_loss", "n_eff") if key in record]
    return {key: record[key] for key in [*of_all, *(key for key in record if key.endswith((nearest, "_THz")))]}


def train(
    start: Potential,
    target: Target | Sequence[StatePoint],
    settings: DiffTReConfig,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
    static: Sequence[StaticTarget] = (),
) -> tuple[Potential, list[dict]]:
    """Train `start` on a target or measured state points, and on `static` targets; returns potential and history.

    The history holds, for every update, the loss, the smallest N_eff / n_snapshots of any cell and what the target
    reports (for state points: GPa per temperature). `on_epoch(history)` is called after every update, and on resume.
    """
    difftre_trainer = DiffTReTrainer(settings, start, target, static=static)
    result = loop.train(
        difftre_trainer.update, difftre_trainer.init(start.params), settings.updates, name="DiffTRe",
        settings=asdict(settings), learned_from=loop.start_of(start) | difftre_trainer.learned_from,
        checkpoint=checkpoint, shown=shown, on_epoch=on_epoch,
    )  # fmt: skip
    warn_if_lost(difftre_trainer, result.train_state)
    return start.with_params(result.params), result.history
