"""Terms of the loss of DiffTRe, one per measurement: how it is evaluated and differentiated.

A `SampledTerm` belongs to a target that averages over snapshots and has its own simulation; a `StaticTerm` to one
that follows from the potential alone. Both have the same methods: `find` evaluates the target for a potential; from
its result follow the `gradient` of the loss or the `jacobian` of the residuals.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.geometry import neighbors
from fusedff.potential import Potential
from fusedff.simulation import langevin, reweighting, snapshots
from fusedff.training import targets
from fusedff.training.config import SamplingConfig
from fusedff.training.targets import StaticTarget, Target
from fusedff.units import KB


@dataclass(frozen=True, eq=False)
class Simulated:
    """A target whose simulation has settings of its own, e.g. a shorter time step than others.

    If the target reports one number, `name` is its name in the history.
    """

    target: Target
    sampling: SamplingConfig
    name: str | None = None


class TrajectoryBuffer(NamedTuple):
    """The last trajectory, which is kept from update to update, and the state from which the simulation continues."""

    state: langevin.State  # at the end of the trajectory
    trajectory: langevin.Trajectory
    capacity: jax.Array  # (2,) sizes of the neighbour lists, a `ListCapacity`
    params: Any  # with which the trajectory was sampled

    @property
    def list_capacity(self) -> langevin.ListCapacity:
        """`capacity` as numbers, outside jit."""
        return langevin.ListCapacity(*map(int, self.capacity))


class Averages(NamedTuple):
    """Reweighted averages over the snapshots of a buffer, and what their derivatives need."""

    sampled: TrajectoryBuffer
    weights: jax.Array  # (n_snapshots, n_cells)
    observed: jax.Array  # (n_snapshots, n_cells, n_quantities)
    means: jax.Array  # (n_cells, n_quantities)

    @property
    def n_eff(self) -> jax.Array:
        """The smallest N_eff of any cell, as a share of the snapshots."""
        return jnp.min(reweighting.effective_samples(self.weights)) / len(self.weights)

    def every(self, n: int) -> "Averages":
        """Every n-th of the snapshots, whose weights sum up to one, with the means over all."""
        trajectory, w, observed = jax.tree.map(lambda x: x[::n], (self.sampled.trajectory, self.weights, self.observed))
        return Averages(self.sampled._replace(trajectory=trajectory), w / w.sum(0), observed, self.means)


class SampledTerm:
    """A target whose averages come from a simulation: sample or reuse, reweight, differentiate."""

    def __init__(self, target: Target, sampling: SamplingConfig, template: Potential, name: str | None = None):
        self.target, self.sampling, self.template, self.name = target, sampling, template, name
        self.cells = target.cells
        self.simulation = langevin.Simulation(self.cells, sampling.langevin, template.cutoff, target.observe)
        self.beta = 1 / (KB * self.cells.temperature)
        # compiled as a whole: operation by operation they would take seconds to compile
        self.loss = jax.jit(jax.value_and_grad(partial(targets.loss, target)))
        self.residuals = jax.jit(lambda means: (target.residuals(means), jax.jacrev(target.residuals)(means)))
        search = template.cutoff, neighbors.image_offsets(self.cells.lattice, template.cutoff)
        # called with the number of neighbour slots first
        self._evaluate = jax.jit(partial(snapshots.evaluate, target.observe, *search), static_argnums=0)
        self._derivatives = jax.jit(partial(snapshots.derivatives, target.weighted_sum, *search), static_argnums=0)

    def init(self, params, key) -> TrajectoryBuffer:
        """A simulation that has not begun."""
        positions = jnp.zeros((self.sampling.snapshots, *self.cells.sites.shape), self.cells.sites.dtype)
        capacity = self.simulation.capacity
        evaluate = partial(self._evaluate, capacity.neighbors)
        energy, observed = jax.eval_shape(evaluate, self.template, self.cells, positions)
        empty = langevin.Trajectory(positions, *(jnp.zeros(x.shape, x.dtype) for x in (energy, observed, energy)))
        return TrajectoryBuffer(langevin.start(self.cells, key), empty, jnp.asarray(capacity), params)

    def n_residuals(self, params, kept: TrajectoryBuffer) -> int:
        """How many residuals there are."""
        return jax.eval_shape(self.target.residuals, kept.trajectory.observed[0]).size

    def find(self, potential: Potential, kept: TrajectoryBuffer, n: int) -> tuple[TrajectoryBuffer, Averages]:
        """Averages of the n-th update: from new snapshots if N_eff of the last has become too small."""
        sampled, energy, observed = self._snapshots(potential, kept, n)
        w = reweighting.weights(self.beta, energy, sampled.trajectory.energy)
        return sampled, Averages(sampled, w, observed, reweighting.averages(w, observed))

    def gradient(self, potential: Potential, found: Averages):
        """Loss and its gradient with respect to the parameters."""
        value, cotangent = self.loss(found.means)
        gradients = self._derivatives(
            found.sampled.list_capacity.neighbors, potential, self.cells, found.sampled.trajectory.positions,
            found.weights, found.observed, cotangent[None], self.beta,
        )  # fmt: skip
        return value, jax.tree.map(lambda x: x[0], gradients)

    def jacobian(self, potential: Potential, found: Averages, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (n,) and their derivatives (n, n_params), these from every `every`-th snapshot.

        The residuals of a state depend on its own cells alone. A covariance of few snapshots about their own mean is
        too small by the factor 1 - sum w^2 (Bessel's correction, (n - 1) / n for n equal weights), which is undone.
        """
        residuals, slopes = self.residuals(found.means)
        n_states, n, n_cells, _ = slopes.shape
        size, some = n_cells // n_states, found.every(every)
        # at most doubled, as for two snapshots: where one has nearly all of the weight, nothing is known
        unbiased = self.beta / jnp.maximum(1 - jnp.sum(some.weights**2, 0), 0.5)
        blocks = []
        for state in range(n_states):
            own = slice(state * size, (state + 1) * size)
            gradients = self._derivatives(
                some.sampled.list_capacity.neighbors, potential, self.cells.subset(own),
                some.sampled.trajectory.positions[:, own], some.weights[:, own], some.observed[:, own],
                slopes[state][:, own], unbiased[own],
            )  # fmt: skip
            blocks.append(_rows(gradients, n))
        return np.ravel(residuals), np.concatenate(blocks)

    def report(self, found: Averages) -> dict:
        """Name -> number for the history."""
        said = self.target.report(found.means)
        return dict(zip([self.name], said.values(), strict=True)) if self.name else said

    def _snapshots(self, potential, kept, n):
        """Snapshots with the energies and observables of `potential`; new ones if N_eff of the last is too small."""
        s, capacity = self.sampling, kept.list_capacity
        if n > 0 and s.reuse_above < 1:
            energy, observed = self.reevaluate(potential, kept)
            n_eff = reweighting.effective_samples(reweighting.weights(self.beta, energy, kept.trajectory.energy))
            if float(jnp.min(n_eff)) > s.reuse_above * s.snapshots:
                return kept, energy, observed
        warm_up = s.equilibration if n else s.first_equilibration
        name = None if n else f"first trajectory{f' of {self.name}' if self.name else ''}"
        state, trajectory = self.simulation.sample(potential, kept.state, warm_up, s.snapshots, name, capacity)
        return (
            TrajectoryBuffer(state, trajectory, jnp.asarray(self.simulation.capacity), potential.params),
            trajectory.energy,
            trajectory.observed,
        )

    def reevaluate(self, potential: Potential, kept: TrajectoryBuffer) -> tuple[jax.Array, jax.Array]:
        """Energies (n_snapshots, n_cells) and observables of the stored snapshots with `potential`."""
        return self._evaluate(kept.list_capacity.neighbors, potential, self.cells, kept.trajectory.positions)


class StaticTerm:
    """A target that follows from the potential without a trajectory."""

    def __init__(self, target: StaticTarget, template: Potential):
        self.target, self.template = target, template
        self._find = jax.jit(self._values)

    def init(self, params, key) -> tuple:
        """Nothing is kept from update to update."""
        return ()

    def n_residuals(self, params, kept) -> int:
        """How many residuals there are."""
        return jax.eval_shape(self._values, params)[1].size

    def find(self, potential: Potential, kept, n: int):
        """Values, residuals (n,) and their derivatives, with an axis (n,) before those of each leaf of the params."""
        return (), self._find(potential.params)

    def gradient(self, potential: Potential, found):
        """Loss and its gradient with respect to the parameters."""
        _, residuals, rows = found
        return jnp.sum(residuals**2), jax.tree.map(lambda row: 2 * jnp.tensordot(residuals, row, 1), rows)

    def jacobian(self, potential: Potential, found, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (n,) and their derivatives (n, n_params); there are no snapshots to choose from."""
        _, residuals, rows = found
        return np.asarray(residuals), _rows(rows, len(residuals))

    def report(self, found) -> dict:
        """Name -> number for the history."""
        return self.target.report(found[0])

    def _values(self, params):
        def residuals(params):
            return self.target.residuals(self.target.observe(self.template.with_params(params)))

        found = residuals(params)
        # one after the other: the gathers of a potential cannot be vmapped
        rows = jax.lax.map(lambda row: jax.grad(lambda params: row @ residuals(params))(params), jnp.eye(len(found)))
        return self.target.observe(self.template.with_params(params)), found, rows


def _rows(tree, n):
    """Derivatives of n numbers, leaves (n, ...), as one matrix (n, n_params)."""
    return np.concatenate([np.asarray(x).reshape(n, -1) for x in jax.tree.leaves(tree)], 1)
