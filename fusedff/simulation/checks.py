"""Checks of a trajectory: do its atoms form the crystal, does the potential extrapolate, does the thermostat act?"""

import warnings

import jax
import numpy as np
from ase import Atoms

from fusedff.geometry import coverage, neighbors
from fusedff.potential import Potential
from fusedff.runtime import devices
from fusedff.simulation.cells import SimulationCells
from fusedff.simulation.langevin import LangevinConfig, Trajectory

LOST = 0.3  # of the distance between neighbours
SETTLED = 1.0  # ps, in which vibrations share their energy between motion and potential
COLD = 0.1  # by which the kinetic temperature may be too low, as a fraction of the temperature that was set


def warn_if_lost(cells: SimulationCells, trajectory: Trajectory, stacklevel: int = 3) -> None:
    """Warn if atoms have left their lattice sites (melting or a phase change).

    The limit is a root mean square distance from the sites of `LOST` times the distance between neighbours
    (`SimulationCells.spacing`). By Lindemann's criterion crystals melt at 0.10 to 0.15. The second half
    of the trajectory counts.
    """
    late = trajectory.positions[len(trajectory.positions) // 2 :] - cells.sites
    distance = np.sqrt(np.mean(np.sum(np.asarray(late, float) ** 2, -1), (0, 2)))
    cell = int(np.argmax(distance / cells.spacing))
    if distance[cell] > LOST * cells.spacing[cell] and devices.is_first_process():
        warnings.warn(
            f"cell {cell} at {float(cells.temperature[cell]):.0f} K is no longer the crystal it began as: atoms are "
            f"{distance[cell]:.2f} Å from their sites; its averages are of something else, lower the temperature, or "
            "train the potential on frames like these",
            stacklevel=stacklevel,
        )


def warn_if_far(potential: Potential, cells: SimulationCells, positions: jax.Array, stacklevel: int = 3) -> None:
    """Warn if a cell is far from all training frames: closer pairs or other numbers of neighbours than any of them.

    `positions` (n_cells, n, 3) in Å are the last of a run. Nothing is checked without `Potential.coverage`, which a
    training sets.
    """
    if potential.coverage is None or not devices.is_first_process():
        return
    numbers, lattices = np.asarray(cells.numbers), np.asarray(cells.lattice, float)
    for n, (sites, cell) in enumerate(zip(np.asarray(positions, float), lattices, strict=True)):
        frame = Atoms(numbers, sites, cell=cell, pbc=True)
        found = coverage.of_frames([frame], [neighbors.from_frames(frame, potential.cutoff)])
        if violation := potential.coverage.describe_violation(*found):
            warnings.warn(
                f"cell {n} at {float(cells.temperature[n]):.0f} K: the potential extrapolates: {violation}; do not "
                "trust its averages, or train the potential on frames like these",
                stacklevel=stacklevel,
            )
            return


def warn_if_cold(cells: SimulationCells, settings: LangevinConfig, trajectory: Trajectory, stacklevel: int = 3) -> None:
    """Warn if the kinetic temperature is more than `COLD` below that of the thermostat, with the reason.

    Crystals start at their sites without potential energy, and have half the temperature until the thermostat has
    acted for some times 1 / friction; if it has, the time step is too long.

    With BAOAB, a harmonic mode of angular frequency w has the kinetic temperature T (1 - (w dt)^2 / 4), though its
    displacements are right; those of anharmonic modes are not (Leimkuhler & Matthews, J. Chem. Phys. 138, 174102,
    2013). The mean over all cells and the second half of the trajectory counts, less four standard errors; halves
    shorter than three times 1 / friction and `SETTLED` ps are not judged.
    """
    late = np.asarray(trajectory.temperature[len(trajectory.temperature) // 2 :], float)
    elapsed = len(late) * settings.ps_per_snapshot
    damping_times = elapsed * settings.friction_per_ps
    if (damping_times < 3 and elapsed < SETTLED) or not devices.is_first_process():
        return
    ratio = float(np.mean(late / np.asarray(cells.temperature, float)))
    # kinetic energies of 3 (n - 1) degrees of freedom, independent after one damping time or one snapshot
    independent = len(np.unique(np.asarray(cells.noise_id))) * max(1, min(len(late), damping_times))
    error = np.sqrt(2 / (3 * max(1, len(cells.numbers) - 1)) / independent)
    if ratio < 1 - COLD - 4 * error:
        reason = (
            f"the time step of {settings.timestep_fs:g} fs is too long for these atoms; use "
            f"{settings.timestep_fs / 2:g} fs"
            if damping_times >= 3
            else f"in {elapsed:.3g} ps it hardly acts with friction_per_ps = {settings.friction_per_ps:g}; use 1 to 10 "
            "(ASE's 0.01 / fs is 10 / ps), or equilibrate for longer"
        )
        warnings.warn(
            f"the kinetic temperature is {100 * (1 - ratio):.0f} % below that of the thermostat: {reason}",
            stacklevel=stacklevel,
        )
