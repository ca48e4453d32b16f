"""Sampling of a canonical ensemble from scratch: Maxwell-Boltzmann momenta, equilibration, a trajectory."""

from collections.abc import Callable

import jax

from fusedff.potential import Potential, require_potential
from fusedff.simulation import checks, langevin
from fusedff.simulation.cells import SimulationCells
from fusedff.simulation.langevin import LangevinConfig, Trajectory


def sample(
    potential: Potential,
    cells: SimulationCells,
    settings: LangevinConfig,
    *,
    equilibration: int,
    snapshots: int,
    seed: int,
    observe: Callable = langevin.observe_stress,
    name: str | None = None,
) -> Trajectory:
    """Trajectory of cells that start at their sites; lengths are in snapshots.

    `observe` and `name` are those of `langevin.Simulation`. Random numbers come from `seed` alone. Warns if the last
    snapshot is far from all frames that the potential was trained on, or if the time step is too long. Raises
    `ExplodedTrajectoryError`, and TypeError for anything but a `Potential`, e.g. for a calculator.
    """
    require_potential(potential)
    simulation = langevin.Simulation(cells, settings, potential.cutoff, observe)
    state = langevin.start(cells, jax.random.PRNGKey(seed))
    _, trajectory = simulation.sample(potential, state, equilibration, snapshots, name)
    checks.warn_if_far(potential, cells, trajectory.positions[-1], stacklevel=5)
    checks.warn_if_cold(cells, settings, trajectory, stacklevel=5)
    return trajectory


def sample_crystal(potential: Potential, cells: SimulationCells, settings: LangevinConfig, **options) -> Trajectory:
    """`sample` of crystals, whose keyword arguments it takes; also warns if atoms have left their lattice sites."""
    trajectory = sample(potential, cells, settings, **options)
    checks.warn_if_lost(cells, trajectory, stacklevel=4)
    return trajectory
