"""Training of a potential on measured averages by differentiable trajectory reweighting (DiffTRe).

Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021). What was measured is a `targets.Target`. It has the cells to simulate,
says what to record of a snapshot, and gives the deviation of the averages from the measurement. One update samples
snapshots (or uses the last ones again), reweights them to the present parameters, differentiates the deviations through
the weighted averages, and takes one optimizer step.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
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
from fusedff.simulation import checks, reweighting, snapshots
from fusedff.simulation import langevin as dynamics
from fusedff.training import checkpoints, gauss_newton, loop, targets
from fusedff.training.config import DiffTReConfig
from fusedff.training.optimizers import Adam, GaussNewton
from fusedff.training.targets import ElasticTarget, StaticTarget, Target
from fusedff.units import KB

MAX_HALVINGS = 4  # of a step whose trajectory explodes, before the training stops with an error


class TrajectoryBuffer(NamedTuple):
    """The last trajectory, which is kept from update to update, and where its simulation goes on."""

    state: dynamics.State  # at the end of the trajectory
    trajectory: dynamics.Trajectory
    capacity: jax.Array  # (2,) sizes of the neighbour lists, a `ListCapacity`
    params: Any  # with which the trajectory was sampled


def elastic_target(points: Sequence[StatePoint], settings: DiffTReConfig) -> ElasticTarget:
    """Elastic constants and stresses of measured state points as a target, with the weights of `settings`."""
    s = settings
    weights = s.elastic_weight, s.stress_weight, s.pressure_weight
    return ElasticTarget(points, s.estimator, s.repeats, s.replicas, *weights)


class DiffTReTrainer:
    """Updates of DiffTRe: sample or reuse, reweight, differentiate, step.

    `target` is any `Target`, or measured state points, of which `elastic_target` is taken. `static` are further
    measurements that follow from the potential without a trajectory. In fused training `label_sketch` is
    `ForceMatchingTrainer.gauss_newton_sketch`: of all steps that correct the residuals, Gauss-Newton then takes the one
    that raises the loss of the DFT labels least.
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
        self.cells = self.target.cells
        self.simulation = dynamics.Simulation(
            self.cells, settings.sampling.langevin, template.cutoff, self.target.observe
        )
        self.images = neighbors.static_offsets(self.cells.lattice, template.cutoff)
        self.beta = 1 / (KB * self.cells.temperature)
        # compiled as a whole: operation by operation they would take seconds to compile
        self.loss = jax.jit(jax.value_and_grad(partial(targets.loss, self.target)))
        self.residuals = jax.jit(lambda means: (self.target.residuals(means), jax.jacrev(self.target.residuals)(means)))
        self.static_terms = jax.jit(self._static_terms)

    @property
    def learned_from(self) -> dict:
        """The measurements by name; a checkpoint is refused for a training on others."""
        return {"target": self.target} | ({"static targets": self.static} if self.static else {})

    def init(self, params) -> loop.TrainState:
        """Train state before the first update: the optimizer's, and a simulation that has not begun."""
        key = jax.random.PRNGKey(self.settings.seed)
        positions = jnp.zeros((self.settings.sampling.snapshots, *self.cells.sites.shape), self.cells.sites.dtype)
        capacity = self.simulation.capacity
        evaluate = partial(self._evaluate, self.template, slots=capacity.slots)
        energy, observed = jax.eval_shape(evaluate, positions)
        empty = dynamics.Trajectory(positions, *(jnp.zeros(x.shape, x.dtype) for x in (energy, observed, energy)))
        sampled = TrajectoryBuffer(dynamics.start(self.cells, key), empty, jnp.asarray(capacity), params)
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
        arrays = train_state, potential, n, sampled, w, observed, means, static
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

    def _adam(self, settings: Adam, train_state, potential, n, sampled, w, observed, means, static):
        """Loss before, parameters after and optimizer state after a step."""
        value, cotangent = self.loss(means)
        gradient = self._gradient(potential, sampled, w, observed, cotangent)
        if static:
            value, gradient = _with_static(value, gradient, *static)
        return value, *_step(settings, self.updates, potential.params, train_state.optimizer, gradient)

    def _gauss_newton(self, settings: GaussNewton, train_state, potential, n, sampled, w, observed, means, static):
        """Loss before, parameters after and optimizer state after a step."""
        residuals, slopes = self.residuals(means)
        jacobian = self._jacobian(potential, *_every(settings.jacobian_every, sampled, w, observed), slopes)
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
        """Values of each static target, residuals (n,) of all of them, and the derivatives of the residuals.

        The derivatives have the structure of params, with an axis (n,) before those of each leaf.
        """

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
        """Snapshots with the energies and observables of `potential`; new ones if N_eff of the last is too small."""
        s = self.settings.sampling
        capacity = dynamics.ListCapacity(*(int(x) for x in sampled.capacity))
        if n > 0 and s.reuse_above < 1:
            energy, observed = self._reevaluate(potential, sampled)
            n_eff = reweighting.effective_samples(reweighting.weights(self.beta, energy, sampled.trajectory.energy))
            if float(jnp.min(n_eff)) > s.reuse_above * s.snapshots:
                return sampled, energy, observed
        warm_up = s.equilibration if n else s.first_equilibration
        name = None if n else "first trajectory"
        state, trajectory = self.simulation.sample(potential, sampled.state, warm_up, s.snapshots, name, capacity)
        return (
            TrajectoryBuffer(state, trajectory, jnp.asarray(self.simulation.capacity), potential.params),
            trajectory.energy,
            trajectory.observed,
        )

    def _reevaluate(self, potential, sampled):
        """Energies (n_snapshots, n_cells) and observables of the stored snapshots with `potential`."""
        return self._evaluate(potential, sampled.trajectory.positions, int(sampled.capacity[1]))

    def _evaluate(self, potential, positions, slots):
        return snapshots.evaluate(
            self.target.observe, self.template.cutoff, slots, self.images, potential, self.cells, positions
        )

    def _gradient(self, potential, sampled, w, observed, cotangent):
        """d loss / d params from d loss / d averages."""
        positions = sampled.trajectory.positions
        gradients = self._derivatives(
            sampled, potential, self.cells, positions, w, observed, cotangent[None], self.beta
        )
        return jax.tree.map(lambda x: x[0], gradients)

    def _jacobian(self, potential, sampled, w, observed, slopes):
        """d residuals / d params (n_residuals, n_params) from d residuals / d averages, by the cells of each state."""
        n_states, n, n_cells, _ = slopes.shape
        size, positions = n_cells // n_states, sampled.trajectory.positions
        rows = []
        for state in range(n_states):
            own = slice(state * size, (state + 1) * size)
            gradients = self._derivatives(
                sampled, potential, self.cells.subset(own), positions[:, own], w[:, own], observed[:, own],
                slopes[state][:, own], self.beta[own],
            )  # fmt: skip
            rows.append(_rows(gradients, n))
        return np.concatenate(rows)

    def _derivatives(self, sampled, *arrays):
        """`snapshots.derivatives` of the target, with as many neighbour slots as the trajectory had."""
        return snapshots.derivatives(
            self.target.weighted_sum, self.template.cutoff, int(sampled.capacity[1]), self.images, *arrays
        )


def _every(n, sampled, w, observed):
    """Every n-th snapshot, with weights that sum up to one."""
    trajectory, w, observed = jax.tree.map(lambda x: x[::n], (sampled.trajectory, w, observed))
    return sampled._replace(trajectory=trajectory), w / w.sum(0), observed


@jax.jit
def _with_static(value, gradient, residuals, rows):
    """Loss and its gradient after adding the sum of the squared residuals (n,) of static targets."""
    more = jax.tree.map(lambda row: 2 * jnp.tensordot(residuals, row, 1), rows)
    return value + jnp.sum(residuals**2), jax.tree.map(lambda g, m: g + m.astype(g.dtype), gradient, more)


@compilation.jit(n_static=2)
def _step(adam, updates, params, state, gradient):
    step, state = adam.transformation(updates).update(gradient, state, params)
    return optax.apply_updates(params, step), state


def _rows(tree, n):
    """Derivatives of n numbers, leaves (n, ...), as one matrix (n, n_params)."""
    return np.concatenate([np.asarray(x).reshape(n, -1) for x in jax.tree.leaves(tree)], 1)


def warn_if_lost(difftre_trainer: DiffTReTrainer, train_state: loop.TrainState) -> None:
    """Warn if the last snapshots of a training are far from all DFT frames or no longer those of the crystal."""
    trajectory = train_state.extra.trajectory
    checks.warn_if_far(difftre_trainer.template, difftre_trainer.cells, trajectory.positions[-1])
    if isinstance(difftre_trainer.target, ElasticTarget):  # others may be about liquids
        checks.warn_if_lost(difftre_trainer.cells, trajectory)


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
    reports (for state points: GPa per temperature). `on_epoch(history)` is called after every update, and on resume
    from `checkpoint`. Raises `ExplodedTrajectoryError` if a trajectory explodes although the step was halved
    `MAX_HALVINGS` times, and what `loop.train` raises.
    """
    difftre_trainer = DiffTReTrainer(settings, start, target, static=static)
    result = loop.train(
        difftre_trainer.update, difftre_trainer.init(start.params), settings.updates, name="DiffTRe",
        settings=asdict(settings), learned_from=checkpoints.data_of_potential(start) | difftre_trainer.learned_from,
        checkpoint=checkpoint, shown=shown, on_epoch=on_epoch,
    )  # fmt: skip
    warn_if_lost(difftre_trainer, result.train_state)
    return start.with_params(result.params), result.history
