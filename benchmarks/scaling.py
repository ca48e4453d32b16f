"""Time of fusedff per atom against the size of the cell, and per cell against the number of replicas."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import titanium
from benchmarks.case import FRICTION_PER_PS, TEMPERATURE, TIMESTEP_FS
from benchmarks.statistics import Spread, timed
from fusedff.geometry import neighbors, systems
from fusedff.potential import Potential
from fusedff.simulation import cells, langevin

SIZES = ((4, 4, 3), (6, 6, 4), (9, 9, 6), (13, 13, 9), (20, 20, 13))  # 96 to 10 400 atoms
REPLICAS = (1, 2, 4, 8, 16, 32, 64)
REPLICATED = (3, 3, 3)  # 54 atoms
STEPS = 10  # from one snapshot to the next; every snapshot begins with a search for neighbours
LANGEVIN = langevin.LangevinConfig(timestep_fs=TIMESTEP_FS, friction_per_ps=FRICTION_PER_PS, steps_per_snapshot=STEPS)


class Cost(NamedTuple):
    """Seconds for all cells together."""

    n_atoms: int  # in one cell
    n_cells: int
    forces: Spread  # energy and forces, with given neighbours
    step: Spread  # one step of Langevin dynamics


def run(report=print) -> tuple[list[Cost], list[Cost]]:
    """Costs of one cell of increasing size, and of an increasing number of cells."""
    model = titanium.with_forces(titanium.network(), titanium.frames(SIZES[0], 1)[0])
    sizes = [_cost(model, repeats, 1, report) for repeats in SIZES]
    return sizes, [_cost(model, REPLICATED, n_cells, report) for n_cells in REPLICAS]


def _cost(model, repeats, n_cells, report):
    frames = titanium.frames(repeats, n_cells)
    near = neighbors.from_frames(frames, model.cutoff)
    evaluate = jax.jit(Potential.evaluate)
    forces, _ = timed(partial(evaluate, model, systems.from_atoms(frames), near), warm_up=5)

    ensemble = cells.SimulationCells(
        jnp.asarray(np.stack([atoms.positions for atoms in frames]), jnp.float32),
        jnp.asarray(np.stack([atoms.cell.array for atoms in frames]), jnp.float32),
        jnp.full(n_cells, TEMPERATURE, jnp.float32),
        jnp.arange(n_cells, dtype=jnp.int32),
        jnp.asarray(frames[0].numbers, jnp.int32),
        jnp.asarray(np.stack([atoms.get_masses() for atoms in frames]), jnp.float32),
    )
    simulation = langevin.Simulation(ensemble, LANGEVIN, model.cutoff)
    state = langevin.start(ensemble, jax.random.PRNGKey(0))
    steps, _ = timed(lambda: simulation.run(model, state, 1)[0])  # no more warm-up: a call is many evaluations
    cost = Cost(len(frames[0]), n_cells, forces, Spread(*(seconds / STEPS for seconds in steps)))
    report(f"{cost.n_atoms} atoms x {n_cells}: {1e3 * forces.median:.1f} ms, step {1e3 * cost.step.median:.1f} ms")
    return cost
