"""Memory of a DiffTRe update against the number of its snapshots (fusedff only)."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

NUMBERS = (10, 100, 1000)
N_ATOMS = 54


class MemoryUse(NamedTuple):
    """Memory of one update beyond what the process held before."""

    snapshots: int
    update: float  # MiB, peak
    stored: float  # MiB, of the snapshots themselves: positions and 79 numbers each


def run(report=print) -> list[MemoryUse]:
    """Memory for each number of snapshots, each in a new process."""
    # large blocks are returned to the system as soon as they are freed: slow, but the peak is then that of one update
    os.environ |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    needs = []
    for number in NUMBERS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            needs.append(pool.submit(_need, number).result())
        report(f"{number} snapshots: {needs[-1].update:.0f} MiB")
    return needs


def _need(number):
    import jax

    from benchmarks import fusedff_side, memory, titanium
    from fusedff.simulation.elasticity import StressFluctuation
    from fusedff.study import presets

    model = titanium.network(presets.DEMO.network)  # smaller than the paper's, for the sake of time
    positions = np.stack([atoms.positions for atoms in titanium.frames(titanium.REPEATS[N_ATOMS], number)])
    update = fusedff_side.stored_update(model, titanium.REPEATS[N_ATOMS], positions, StressFluctuation())
    jax.block_until_ready(update())
    stored = number * 4 * (3 * N_ATOMS + 79) / 2**20
    return MemoryUse(number, memory.peak(lambda: jax.block_until_ready(update())), stored)
