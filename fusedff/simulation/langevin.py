"""Langevin dynamics (NVT) of many cells in one batch, with the pieces of jax-md's integrator.

All cells (state points x replicas x strains) advance together. Cells with the same `noise_id` get the same random
numbers, so that most of the thermal noise cancels in differences between them. Neighbour lists are renewed when an atom
has moved by half the skin, and enlarged when they overflow. A cell with a non-finite energy, a kinetic temperature or a
force out of all proportion raises `ExplodedTrajectoryError`. Where cells have springs, atoms move on the mixture of
potential and springs (`cells.Springs`), while energies and observables are those of the potential alone.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.geometry import coverage, neighbors, systems
from fusedff.potential import Evaluation, Potential
from fusedff.runtime import devices, progress
from fusedff.runtime import settings as ranges
from fusedff.simulation.cells import PER_CELL, SimulationCells
from fusedff.units import FS, KB, PS


@dataclass(frozen=True)
class LangevinConfig:
    """Settings of the integrator (BAOAB) and of the neighbour search; defaults are the titanium paper's."""

    timestep_fs: float = 0.5
    friction_per_ps: float = 4.0
    steps_per_snapshot: int = 200
    skin: float = 2.0  # Å beyond the cut-off within which neighbour candidates are listed

    def __post_init__(self):
        ranges.require(
            self, positive=["timestep_fs"], count=["steps_per_snapshot"], not_negative=["friction_per_ps", "skin"]
        )
        ranges.between(self, "timestep_fs", 1e-3, 200, "give femtoseconds, 0.1 to 10; no solid is stable above 200 fs")

    @property
    def ps_per_snapshot(self) -> float:
        """Time between two snapshots, ps."""
        return self.timestep_fs * self.steps_per_snapshot / 1000


class State(NamedTuple):
    """Where a simulation stands.

    Positions are not wrapped, so that diffusion can be measured. It takes 1000 Å until single precision resolves no
    better than 1e-4 Å; in a liquid, where atoms diffuse by some Å^2/ps, that is a microsecond.
    """

    positions: jax.Array  # (n_cells, n, 3) Å
    momenta: jax.Array  # (n_cells, n, 3)
    key: jax.Array  # (n_cells, 2), equal for cells with the same noise_id


class Trajectory(NamedTuple):
    """Snapshots, with energies and observables of the potential that sampled them."""

    positions: jax.Array  # (n_snapshots, n_cells, n, 3) Å
    energy: jax.Array  # (n_snapshots, n_cells) eV, binding energy
    observed: jax.Array  # (n_snapshots, n_cells, n_quantities), whatever `observe` returned
    temperature: jax.Array  # (n_snapshots, n_cells) K, kinetic


class ListCapacity(NamedTuple):
    """Sizes of the neighbour lists. They only ever grow."""

    candidates: int  # slots within cut-off + skin
    slots: int  # slots within the cut-off


LOST = 0.3  # of the distance between neighbours
STEPS_PER_CALL = 100  # of compiled code: its start costs about two steps, and between calls progress is shown


class ExplodedTrajectoryError(RuntimeError):
    """Energy, temperature or force of a cell, whose index is `cell`, became non-finite or far too large."""

    def __init__(self, message: str, cell: int):
        super().__init__(message)
        self.cell = cell


def observe_stress(potential, system, near, evaluation) -> jax.Array:
    """The default observable: the configurational stress (n_cells, 6), eV/Å^3."""
    return evaluation.stress


def start(ensemble: SimulationCells, key: jax.Array) -> State:
    """Atoms on their sites with Maxwell-Boltzmann momenta, the same for cells with one noise_id; not equilibrated."""
    shape, dtype = ensemble.sites.shape, ensemble.sites.dtype
    keys = jax.vmap(lambda noise_id: jax.random.split(jax.random.fold_in(key, noise_id)))(ensemble.noise_id)
    normal = jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys[:, 0])
    mass = ensemble.masses[..., None]
    momenta = normal * jnp.sqrt(mass * KB * ensemble.temperature[:, None, None])
    return State(ensemble.sites, _without_drift(momenta, mass), keys[:, 1])


class Simulation:
    """Dynamics of one ensemble: settings and list sizes; the state is passed in and comes back."""

    def __init__(
        self, ensemble: SimulationCells, settings: LangevinConfig, cutoff: float, observe: Callable = observe_stress
    ):
        import jax_md  # noqa: F401 - takes seconds, which only simulations should cost

        self.ensemble, self.settings, self.cutoff, self.observe = ensemble, settings, cutoff, observe
        devices.warn_if_idle(ensemble.n_cells)
        reach = cutoff + settings.skin
        self.plan = neighbors.search_plan(ensemble.cells, reach)
        # a first guess for atoms that vibrate: what slightly displaced sites need, and a little more
        shaken = ensemble.sites + 0.15 * jax.random.normal(jax.random.PRNGKey(0), ensemble.sites.shape)
        candidates, slots = (neighbors.fullest(ensemble.system(shaken), r, self.plan) for r in (reach, cutoff))
        self.capacity = ListCapacity(int(1.1 * candidates) + 2, slots + 2)

    def run(
        self, potential: Potential, state: State, snapshots: int, name: str | None = None
    ) -> tuple[State, Trajectory]:
        """Advance by `snapshots` times `steps_per_snapshot` steps and record every snapshot.

        A piece of up to `STEPS_PER_CALL` steps in which a neighbour list overflowed is repeated with larger lists.
        Raises ExplodedTrajectoryError with state point, step and cause when a cell blows up. `name` shows progress.
        """
        devices.require_unforked()
        potential.require_species(self.ensemble.numbers)
        pieces, done = [], 0
        with progress.bar(name, snapshots) as report:
            while done < snapshots:
                number = min(_per_call(self.settings), snapshots - done)
                state, piece = self._piece(potential, state, number, done * self.settings.steps_per_snapshot)
                pieces.append(piece)
                done += number
                report(advance=number)
        return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)

    def sample(
        self, potential: Potential, state: State, equilibration: int, snapshots: int, name: str | None = None
    ) -> tuple[State, Trajectory]:
        """Run for `equilibration` snapshots, which are dropped, then for `snapshots`, which are returned."""
        if equilibration:
            state, _ = self.run(potential, state, equilibration, name and f"{name}, equilibration")
        return self.run(potential, state, snapshots, name)

    def _piece(self, potential, state, number, steps_before):
        """The state after `number` snapshots, and these."""
        while True:
            after, records, needed, first_insane = _advance(
                self.settings,
                self.cutoff,
                self.capacity,
                self.plan,
                self.observe,
                potential,
                self.ensemble,
                state,
                number,
            )
            needed = ListCapacity(*(int(n) for n in needed))
            if needed.candidates <= self.capacity.candidates and needed.slots <= self.capacity.slots:
                self._require_sane(first_insane, steps_before)
                return after, jax.tree.map(lambda x: x[:number], records)
            self.capacity = ListCapacity(
                *(max(have, need + 2) for have, need in zip(self.capacity, needed, strict=True))
            )

    def _require_sane(self, first_insane, steps_before):
        step, temperature, force = (np.asarray(x) for x in first_insane)
        bad = np.flatnonzero(step >= 0)
        if len(bad):
            cell = int(bad[np.argmin(step[bad])])
            wanted, steps = float(self.ensemble.temperature[cell]), steps_before + int(step[cell]) + 1
            raise ExplodedTrajectoryError(
                f"cell {cell} at {wanted:.0f} K exploded: after {steps} steps its kinetic temperature was "
                f"{temperature[cell]:.3g} K and its largest force {force[cell]:.3g} eV/Å (timestep "
                f"{self.settings.timestep_fs} fs); use a shorter timestep, or train the potential on frames like these",
                cell,
            )


def warn_if_lost(ensemble: SimulationCells, trajectory: Trajectory, stacklevel: int = 3) -> None:
    """Warn if atoms have left their lattice sites (melting or a phase change).

    Crystals melt when the root mean square distance from the sites is a tenth to a seventh of that between neighbours,
    which is about the cube root of the volume of an atom.
    """
    late = trajectory.positions[len(trajectory.positions) // 2 :] - ensemble.sites
    distance = np.sqrt(np.mean(np.sum(np.asarray(late, float) ** 2, -1), (0, 2)))
    spacing = np.abs(np.linalg.det(np.asarray(ensemble.cells, float)) / len(ensemble.numbers)) ** (1 / 3)
    cell = int(np.argmax(distance / spacing))
    if distance[cell] > LOST * spacing[cell] and devices.first():
        warnings.warn(
            f"cell {cell} at {float(ensemble.temperature[cell]):.0f} K is no longer the crystal it began as: atoms are "
            f"{distance[cell]:.2f} Å from their sites; its averages are of something else, lower the temperature, or "
            "train the potential on frames like these",
            stacklevel=stacklevel,
        )


def warn_if_far(potential: Potential, ensemble: SimulationCells, positions: jax.Array, stacklevel: int = 3) -> None:
    """Warn if a cell has come far from all training frames, as `Potential.coverage` knows them.

    `positions` (n_cells, n, 3) are the last of a run. A potential that does not know its training frames says nothing.
    """
    if potential.coverage is None or not devices.first():
        return
    cells, numbers = np.asarray(ensemble.cells, float), np.asarray(ensemble.numbers)
    for n, (sites, cell) in enumerate(zip(np.asarray(positions, float), cells, strict=True)):
        frame = systems.folded(Atoms(numbers, sites, cell=cell, pbc=True))
        near = neighbors.from_frames(frame, potential.cutoff)
        found = coverage.of_frames([(frame.positions, cell)], [near])
        if beyond := potential.coverage.beyond(*found):
            warnings.warn(
                f"cell {n} at {float(ensemble.temperature[n]):.0f} K: the potential extrapolates: {beyond}; do not "
                "trust its averages, or train the potential on frames like these",
                stacklevel=stacklevel,
            )
            return


def _without_drift(momenta, mass):
    """Momenta with the centre of mass of every cell at rest."""
    return momenta - mass * (momenta.sum(1, keepdims=True) / mass.sum(1, keepdims=True))


def _mixed(ensemble, positions, forces):
    """Forces (n_cells, n, 3) of potential and springs in their shares, without what would move the centre of mass."""
    if ensemble.springs is None:
        return forces
    share, stiffness = ensemble.springs.coupling[:, None, None], ensemble.springs.stiffness[..., None]
    mixed = share * forces - (1 - share) * stiffness * (positions - ensemble.sites)
    return _without_drift(mixed, ensemble.masses[..., None])


def kinetic_temperature(momenta: jax.Array, mass: jax.Array) -> jax.Array:
    """Temperature (n_cells,) in K from momenta (n_cells, n, 3); the centre of mass is at rest."""
    return jnp.sum(momenta**2 / mass, (1, 2)) / (3 * (momenta.shape[1] - 1) * KB)


def _per_call(settings):
    return max(1, STEPS_PER_CALL // settings.steps_per_snapshot)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _advance(settings, cutoff, capacity, plan, observe, potential, ensemble, state, number):
    """`number` snapshots further: new state, records, list sizes needed and, per cell, the first insane step (or -1).

    There is room for as many records as a call may have, so that no `number` of them is compiled for itself.
    """
    advance = partial(_advance_cells, settings, cutoff, capacity, plan, observe)
    on_devices = devices.shard_map_cells(
        advance, in_axes=(None, PER_CELL, 0, None), out_axes=(0, 1, None, 0), n=ensemble.n_cells
    )
    return on_devices(potential, ensemble, state, number)


class _Carry(NamedTuple):
    """What one step of the dynamics hands to the next."""

    integrator: Any  # jax-md's NVTLangevinState
    listed: neighbors.Neighbors  # within cut-off + skin, of the positions `listed_at`
    listed_at: jax.Array
    near: neighbors.Neighbors  # within the cut-off, of the present positions
    evaluation: Evaluation
    needed: ListCapacity  # so far
    insane: tuple  # per cell: first insane step or -1, temperature and largest force there
    count: jax.Array  # steps


def _first_insane(carry, evaluation, temperature, force, wanted):
    """`carry.insane` after this step: non-finite energy, far too hot, or a force that no integrator follows."""
    sane = jnp.isfinite(evaluation.energy) & (temperature < 10 * wanted + 1000) & (force < 1e3)
    now = (jnp.broadcast_to(carry.count, sane.shape), temperature, force)
    first = ~sane & (carry.insane[0] < 0)
    return tuple(jnp.where(first, new, old) for new, old in zip(now, carry.insane, strict=True))


def _advance_cells(settings, cutoff, capacity, plan, observe, potential, ensemble, state, number):
    from jax_md import simulate  # imported by `Simulation`, outside of jit: it computes while it is imported

    dt, friction = settings.timestep_fs * FS, settings.friction_per_ps / PS
    kt = KB * ensemble.temperature
    mass = ensemble.masses[..., None]

    def candidates(positions):
        system = ensemble.system(positions)
        return neighbors.search_cells(system, cutoff + settings.skin, capacity.candidates, plan)

    def forces(positions, listed):
        near = neighbors.prune(ensemble.system(positions), listed, cutoff, capacity.slots)
        return near, potential.evaluate(ensemble.system(positions), near)

    def baoab(langevin, listed, listed_at):
        langevin = simulate.momentum_step(langevin, dt / 2)
        langevin = simulate.position_step(langevin, lambda r, dr: r + dr, dt / 2)
        langevin = jax.vmap(lambda cell, t: simulate.stochastic_step(cell, dt, t, friction))(langevin, kt)
        langevin = langevin.set(momentum=_without_drift(langevin.momentum, mass))
        langevin = simulate.position_step(langevin, lambda r, dr: r + dr, dt / 2)
        r = langevin.position
        stale = jnp.max(jnp.sum((r - listed_at) ** 2, -1)) > (settings.skin / 2) ** 2
        listed, listed_at = jax.lax.cond(stale, lambda: (candidates(r), r), lambda: (listed, listed_at))
        near, evaluation = forces(r, listed)
        langevin = langevin.set(force=_mixed(ensemble, r, evaluation.forces.reshape(r.shape)))
        return simulate.momentum_step(langevin, dt / 2), listed, listed_at, near, evaluation

    def step(carry, _):
        langevin, listed, listed_at, near, evaluation = baoab(carry.integrator, carry.listed, carry.listed_at)
        needed = jax.tree.map(jnp.maximum, carry.needed, ListCapacity(listed.needed, near.needed))
        temperature, force = kinetic_temperature(langevin.momentum, mass), jnp.max(jnp.abs(langevin.force), (1, 2))
        insane = _first_insane(carry, evaluation, temperature, force, ensemble.temperature)
        return _Carry(langevin, listed, listed_at, near, evaluation, needed, insane, carry.count + 1), None

    @jax.jit  # so that it is traced once: for its shapes, and again in the loop
    def record(carry):
        position, momentum = carry.integrator.position, carry.integrator.momentum
        observed = observe(potential, ensemble.system(position), carry.near, carry.evaluation)
        return Trajectory(position, carry.evaluation.energy, observed, kinetic_temperature(momentum, mass))

    def snapshot(n, carry):
        now, records = carry
        now, _ = jax.lax.scan(step, now, None, length=settings.steps_per_snapshot)
        return now, jax.tree.map(lambda all_of_them, one: all_of_them.at[n].set(one), records, record(now))

    listed = candidates(state.positions)
    near, evaluation = forces(state.positions, listed)
    force = _mixed(ensemble, state.positions, evaluation.forces.reshape(state.positions.shape))
    arrays = state.positions, state.momenta, force, mass, state.key
    langevin = simulate.NVTLangevinState(*arrays)  # ty: ignore[too-many-positional-arguments]
    none = (jnp.full(ensemble.n_cells, -1), jnp.zeros_like(kt), jnp.zeros_like(kt))
    needed = ListCapacity(listed.needed, near.needed)
    carry = _Carry(langevin, listed, state.positions, near, evaluation, needed, none, jnp.int32(0))
    room = jax.tree.map(lambda x: jnp.zeros((_per_call(settings), *x.shape), x.dtype), jax.eval_shape(record, carry))
    carry, records = jax.lax.fori_loop(0, number, snapshot, (carry, room))
    end = carry.integrator
    return State(end.position, end.momentum, end.rng), records, devices.largest(carry.needed), carry.insane
