"""Langevin dynamics (NVT) of many cells in one batch, with the pieces of jax-md's integrator.

All cells (state points x replicas x strains) advance together. Cells with the same `noise_id` get the same random
numbers, so that most of the thermal noise cancels in differences between them. Neighbour lists are renewed when an atom
has moved by half the skin, and enlarged when they overflow. A non-finite energy, or a kinetic temperature or force that
is far too large, raises `ExplodedTrajectoryError`. Cells with springs move on the mixture of potential and springs
(`cells.Springs`); their energies and observables are those of the potential alone.

The scheme is BAOAB: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.geometry import neighbors
from fusedff.potential import Potential
from fusedff.runtime import devices, limits, progress
from fusedff.runtime.failures import FailedComputationError
from fusedff.simulation.cells import PER_CELL, SimulationCells
from fusedff.simulation.integrator import jax_md_simulate
from fusedff.units import FS, KB, PS


@dataclass(frozen=True)
class LangevinConfig:
    """Settings of the integrator (BAOAB) and of the neighbour search; defaults are the titanium paper's."""

    timestep_fs: float = 0.5
    friction_per_ps: float = 4.0
    steps_per_snapshot: int = 200
    skin: float = 2.0  # Å beyond the cut-off within which neighbour candidates are listed

    def __post_init__(self):
        limits.require(
            self, positive=["timestep_fs"], count=["steps_per_snapshot"], not_negative=["friction_per_ps", "skin"]
        )
        why = "give femtoseconds, 0.1 to 10 (1 ps = 1000 fs); no solid is stable above 200"
        limits.between(self, "timestep_fs", 0.01, 200, why)

    @property
    def ps_per_snapshot(self) -> float:
        """Time between two snapshots, ps."""
        return self.timestep_fs * self.steps_per_snapshot / 1000


class State(NamedTuple):
    """Positions, momenta and random-number keys at one time.

    Positions are not wrapped into the cell, so that diffusion can be measured. Single precision resolves 1e-4 Å up to
    1000 Å from the origin. An atom of a liquid, which diffuses by about 1 Å^2/ps, moves so far in 0.2 microseconds.
    """

    positions: jax.Array  # (n_cells, n, 3) Å
    momenta: jax.Array  # (n_cells, n, 3) in ASE's units, sqrt(eV amu)
    key: jax.Array  # (n_cells, 2), equal for cells with the same noise_id


class Trajectory(NamedTuple):
    """Snapshots, with energies and observables of the potential that sampled them."""

    positions: jax.Array  # (n_snapshots, n_cells, n, 3) Å
    energy: jax.Array  # (n_snapshots, n_cells) eV, binding energy
    observed: jax.Array  # (n_snapshots, n_cells, n_quantities), whatever `observe` returned
    temperature: jax.Array  # (n_snapshots, n_cells) K, kinetic


class ListCapacity(NamedTuple):
    """Sizes of the neighbour lists, per atom. A simulation enlarges them when they overflow, and never shrinks them."""

    candidates: int  # slots for atoms within cut-off + skin
    neighbors: int  # slots for those within the cut-off


STEPS_PER_CALL = 100  # of compiled code: its start costs about two steps, and between calls progress is shown


class ExplodedTrajectoryError(FailedComputationError):
    """Energy, temperature or force of a cell, whose index is `cell`, became non-finite or far too large."""

    def __init__(self, message: str, cell: int):
        super().__init__(message)
        self.cell = cell


def observe_stress(potential, system, near, evaluation) -> jax.Array:
    """The default observable: the configurational stress (n_cells, 6), eV/Å^3."""
    return evaluation.stress


@jax.jit
def start(cells: SimulationCells, key: jax.Array) -> State:
    """Atoms on their sites with Maxwell-Boltzmann momenta, the same for cells with one noise_id; not equilibrated."""
    shape, dtype = cells.sites.shape, cells.sites.dtype
    keys = jax.vmap(lambda noise_id: jax.random.split(jax.random.fold_in(key, noise_id)))(cells.noise_id)
    normal = jax.lax.map(lambda k: jax.random.normal(k, shape[1:], dtype), keys[:, 0])  # vmap takes long to compile
    mass = cells.masses[..., None]
    momenta = normal * jnp.sqrt(mass * KB * cells.temperature[:, None, None])
    return State(cells.sites, _without_drift(momenta, mass), keys[:, 1])


class Simulation:
    """Dynamics of the cells of one batch. The state is an argument and a result of every run, and no part of this.

    `observe(potential, system, near, evaluation)` returns what to record of a snapshot, (n_cells, n_quantities);
    `cutoff` (Å) is the potential's. `capacity` holds the present sizes of the neighbour lists.
    """

    def __init__(
        self, cells: SimulationCells, settings: LangevinConfig, cutoff: float, observe: Callable = observe_stress
    ):
        jax_md_simulate()  # imported here: not in jit, and only where something is simulated
        self.cells, self.settings, self.cutoff, self.observe = cells, settings, cutoff, observe
        devices.warn_if_idle(cells.n_cells)
        reach = cutoff + settings.skin
        self.plan = neighbors.search_plan(cells.lattice, reach)
        # a first guess for atoms that vibrate: what slightly displaced sites need, and a little more
        shaken = cells.sites + 0.15 * np.random.default_rng(0).standard_normal(cells.sites.shape, np.float32)
        system = cells.system(shaken)
        candidates, near = (
            neighbors.required_capacity(system, reach, self.plan), neighbors.max_neighbors(system, cutoff, self.plan)
        )  # fmt: skip
        # Rounded up, so that a slightly larger cell, as in the next pass of a search for lattice constants, often needs
        # no other compiled code. Slots of neighbours cost more than that, those of candidates little.
        self.capacity = ListCapacity(8 * -(-int(1.1 * candidates + 2) // 8), near + 2)
        self._advance = lru_cache(maxsize=2)(partial(_compiled, settings, cutoff, self.plan, observe))

    def run(
        self,
        potential: Potential,
        state: State,
        snapshots: int,
        name: str | None = None,
        capacity: ListCapacity | None = None,
    ) -> tuple[State, Trajectory]:
        """Advance by `snapshots` times `steps_per_snapshot` steps and record every snapshot.

        `capacity` are the sizes of the neighbour lists to begin with; by default those that the last run ended with. A
        piece of up to `STEPS_PER_CALL` steps in which a list overflowed is repeated with larger lists. Raises
        ExplodedTrajectoryError with cell, step and cause when a cell explodes. `name` shows progress.
        """
        devices.require_unforked()
        self.capacity = capacity or self.capacity
        potential.require_species(self.cells.numbers)
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
        self,
        potential: Potential,
        state: State,
        equilibration: int,
        snapshots: int,
        name: str | None = None,
        capacity: ListCapacity | None = None,
    ) -> tuple[State, Trajectory]:
        """Run for `equilibration` snapshots, which are dropped, then for `snapshots`, which are returned.

        Arguments and errors are those of `run`.
        """
        if equilibration:
            state, _ = self.run(potential, state, equilibration, name and f"{name}, equilibration", capacity)
            capacity = None
        return self.run(potential, state, snapshots, name, capacity)

    def _piece(self, potential, state, number, steps_before):
        """The state after `number` snapshots, and these."""
        while True:
            after, records, needed, exploded = self._advance(self.capacity)(potential, self.cells, state, number)
            needed = ListCapacity(*(int(n) for n in needed))
            if needed.candidates <= self.capacity.candidates and needed.neighbors <= self.capacity.neighbors:
                self._require_stable(exploded, steps_before)
                return after, _first(number, records)
            self.capacity = ListCapacity(
                *(max(have, need + 2) for have, need in zip(self.capacity, needed, strict=True))
            )

    def _require_stable(self, exploded, steps_before):
        step, temperature, force = (np.asarray(x) for x in exploded)
        bad = np.flatnonzero(step >= 0)
        if len(bad):
            cell = int(bad[np.argmin(step[bad])])
            wanted, steps = float(self.cells.temperature[cell]), steps_before + int(step[cell]) + 1
            raise ExplodedTrajectoryError(
                f"cell {cell} at {wanted:.0f} K exploded: after {steps} steps its kinetic temperature was "
                f"{temperature[cell]:.3g} K and its largest force {force[cell]:.3g} eV/Å (timestep "
                f"{self.settings.timestep_fs} fs); use a shorter timestep, or train the potential on frames like these",
                cell,
            )


def _without_drift(momenta, mass):
    """Momenta with the centre of mass of every cell at rest."""
    return momenta - mass * (momenta.sum(1, keepdims=True) / mass.sum(1, keepdims=True))


def _mixed(cells, positions, forces):
    """Forces (n_cells, n, 3) of the mixture of potential and springs, which leave the centre of mass at rest."""
    if cells.springs is None:
        return forces
    share, stiffness = cells.springs.coupling[:, None, None], cells.springs.stiffness[..., None]
    mixed = share * forces - (1 - share) * stiffness * (positions - cells.sites)
    return _without_drift(mixed, cells.masses[..., None])


def kinetic_temperature(momenta: jax.Array, mass: jax.Array) -> jax.Array:
    """Temperature (n_cells,) in K from momenta (n_cells, n, 3); the centre of mass is at rest."""
    return jnp.sum(momenta**2 / mass, (1, 2)) / (3 * (momenta.shape[1] - 1) * KB)


def _per_call(settings):
    return max(1, STEPS_PER_CALL // settings.steps_per_snapshot)


@partial(jax.jit, static_argnums=0)
def _first(number, records):
    return jax.tree.map(lambda x: x[:number], records)


@lru_cache(maxsize=8)
def _compiled(settings, cutoff, plan, observe, capacity):
    """`_advance`, compiled; the same for equal arguments, so that simulations that follow one another share it.

    Each `Simulation` also holds the programs that it uses, so this cache may drop them.
    """
    return jax.jit(partial(_advance, settings, cutoff, plan, observe, capacity))


def _advance(settings, cutoff, plan, observe, capacity, potential, cells, state, number):
    """`number` snapshots further: new state, records, list sizes needed and, per cell, the first exploded step (or -1).

    There is room for as many records as a call may have, so that no `number` of them is compiled for itself.
    """
    advance = partial(_advance_cells, settings, cutoff, plan, observe, capacity)
    on_devices = devices.shard_map_cells(
        advance, in_axes=(None, PER_CELL, 0, None), out_axes=(0, 1, None, 0), n=cells.n_cells
    )
    return on_devices(potential, cells, state, number)


class _Carry(NamedTuple):
    """What one step of the dynamics hands to the next."""

    integrator: Any  # jax-md's NVTLangevinState
    listed: neighbors.Neighbors  # within cut-off + skin, of the positions `listed_at`
    listed_at: jax.Array
    needed: ListCapacity  # so far
    exploded: tuple  # per cell: first exploded step or -1, temperature and largest force there
    records: Trajectory  # with room for as many snapshots as a call may have


def _exploded(before, step, energy, temperature, force, wanted):
    """`_Carry.exploded` after a step: cells with a non-finite energy, or far too large a temperature or force."""
    stable = jnp.isfinite(energy) & (temperature < 10 * wanted + 1000) & (force < 1e3)
    now = (jnp.broadcast_to(step, stable.shape), temperature, force)
    first = ~stable & (before[0] < 0)
    return tuple(jnp.where(first, new, old) for new, old in zip(now, before, strict=True))


def _advance_cells(settings, cutoff, plan, observe, capacity, potential, cells, state, number):
    simulate = jax_md_simulate()
    dt, friction = settings.timestep_fs * FS, settings.friction_per_ps / PS
    kt = KB * cells.temperature
    mass = cells.masses[..., None]

    def candidates(positions):
        system = cells.system(positions)
        return neighbors.search_cells(system, cutoff + settings.skin, capacity.candidates, plan)

    # `forces` and `record` are jitted so that they are traced once: for their shapes, and again in the loop
    @jax.jit
    def forces(positions, listed):
        near = neighbors.prune(cells.system(positions), listed, cutoff, capacity.neighbors)
        return near, potential.evaluate(cells.system(positions), near)

    @jax.jit
    def record(langevin, near, evaluation):
        position, momentum = langevin.position, langevin.momentum
        observed = observe(potential, cells.system(position), near, evaluation)
        return Trajectory(position, evaluation.energy, observed, kinetic_temperature(momentum, mass))

    def move(langevin):
        """A step of BAOAB up to the forces at its end."""
        langevin = simulate.momentum_step(langevin, dt / 2)
        langevin = simulate.position_step(langevin, lambda r, dr: r + dr, dt / 2)
        langevin = jax.vmap(lambda cell, t: simulate.stochastic_step(cell, dt, t, friction))(langevin, kt)
        langevin = langevin.set(momentum=_without_drift(langevin.momentum, mass))
        return simulate.position_step(langevin, lambda r, dr: r + dr, dt / 2)

    def step(n, carry):
        """The n-th step. Step 0 moves nothing and finds the first forces: most of what is compiled is the potential."""
        moves = n > 0
        langevin = jax.tree.map(partial(jnp.where, moves), move(carry.integrator), carry.integrator)
        r, listed, listed_at = langevin.position, carry.listed, carry.listed_at
        stale = jnp.max(jnp.sum((r - listed_at) ** 2, -1)) > (settings.skin / 2) ** 2
        listed, listed_at = jax.lax.cond(stale, lambda: (candidates(r), r), lambda: (listed, listed_at))
        near, evaluation = forces(r, listed)
        langevin = langevin.set(force=_mixed(cells, r, evaluation.forces.reshape(r.shape)))
        langevin = simulate.momentum_step(langevin, jnp.where(moves, dt / 2, 0))
        needed = jax.tree.map(jnp.maximum, carry.needed, ListCapacity(listed.needed, near.needed))
        temperature, force = kinetic_temperature(langevin.momentum, mass), jnp.max(jnp.abs(langevin.force), (1, 2))
        exploded = _exploded(carry.exploded, n - 1, evaluation.energy, temperature, force, cells.temperature)

        def recorded():
            put = n // settings.steps_per_snapshot - 1
            found = record(langevin, near, evaluation)
            return jax.tree.map(lambda all_of_them, one: all_of_them.at[put].set(one), carry.records, found)

        due = moves & (n % settings.steps_per_snapshot == 0)
        records = jax.lax.cond(due, recorded, lambda: carry.records)
        return _Carry(langevin, listed, listed_at, needed, exploded, records)

    nowhere = jnp.full_like(state.positions, jnp.inf)  # so that step 0 searches
    arrays = state.positions, state.momenta, jnp.zeros_like(state.positions), mass, state.key
    langevin = simulate.NVTLangevinState(*arrays)
    listed = jax.eval_shape(candidates, state.positions)
    near, evaluation = jax.eval_shape(forces, state.positions, listed)
    shapes = jax.eval_shape(record, langevin, near, evaluation)
    records = jax.tree.map(lambda x: jnp.zeros((_per_call(settings), *x.shape), x.dtype), shapes)
    listed = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), listed)
    none = (jnp.full(cells.n_cells, -1), jnp.zeros_like(kt), jnp.zeros_like(kt))
    carry = _Carry(langevin, listed, nowhere, ListCapacity(jnp.int32(0), jnp.int32(0)), none, records)
    carry = jax.lax.fori_loop(0, number * settings.steps_per_snapshot + 1, step, carry)
    end = carry.integrator
    needed = devices.max_over_devices(carry.needed)
    return State(end.position, end.momentum, end.rng), carry.records, needed, carry.exploded
