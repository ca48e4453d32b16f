"""Cost per atom of a search for neighbours and of a Langevin step, and memory, from 1000 to 100 000 atoms."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from benchmarks.statistics import Spread, timed

SIZES = ((9, 9, 6), (13, 13, 9), (20, 20, 13), (28, 28, 19), (45, 45, 25))  # 972 to 101 250 atoms
DRY = ((3, 3, 2), (32, 3, 2))  # all pairs, and bins
FEW = {"at_least": 2, "about": 1.5}  # calls that are timed
STEPS = 5  # from one snapshot to the next; every snapshot begins with a search for neighbours


class Cost(NamedTuple):
    """Cost of one cell, measured in a process of its own."""

    n_atoms: int
    search: str  # method: 'bins' or 'all pairs'
    lists: Spread  # seconds of one search
    step: Spread  # seconds of a Langevin step, with its share of the search
    processor: Spread  # processor seconds of such a step, all cores together: depends less on other work on the machine
    memory: float  # MiB, peak beyond what the process holds after its imports


def run(sizes=SIZES, report=print):
    """Yield the costs of one cell of each of `sizes` (repeats), with a network so small that minutes are enough."""
    for repeats in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            cost = pool.submit(_cost, repeats).result()
        lists, step = (1e6 * seconds.median / cost.n_atoms for seconds in (cost.lists, cost.step))
        report(f"{cost.n_atoms} atoms: search {lists:.1f} µs, step {step:.1f} µs per atom, {cost.memory:.0f} MiB")
        yield cost


def network():
    """DimeNet++ with the cut-off of the titanium paper, one block and few channels; random weights."""
    from benchmarks import titanium
    from fusedff.network.dimenet import DimeNet

    small = DimeNet(embedding=4, blocks=1, radial=3, spherical=2, interaction=2, basis=2, type_embedding=2, output=4,
                    output_layers=1, layers_after_skip=1)  # fmt: skip
    return titanium.with_forces(titanium.network(small), titanium.frames((4, 4, 3), 1)[0])


def _cost(repeats):
    from functools import partial

    import jax

    import fusedff
    from benchmarks import memory, titanium
    from benchmarks.case import FRICTION_PER_PS, TEMPERATURE, TIMESTEP_FS
    from fusedff.geometry import neighbors
    from fusedff.simulation import langevin
    from fusedff.simulation.cells import replicate

    fusedff.setup()
    model, (atoms,) = network(), titanium.frames(repeats, 1)
    settings = langevin.LangevinConfig(TIMESTEP_FS, FRICTION_PER_PS, STEPS)
    found = {}

    def measure():
        simulated = replicate([atoms], [TEMPERATURE])
        simulation = langevin.Simulation(simulated, settings, model.cutoff)
        state = langevin.start(simulated, jax.random.PRNGKey(0))
        found["step"], found["processor"] = timed(lambda: simulation.run(model, state, 1)[0], **FEW)
        search = partial(jax.jit(neighbors.search_cells, static_argnums=(1, 2, 3)), simulated.system(state.positions))
        reach, slots = model.cutoff + settings.skin, simulation.capacity.candidates
        found["lists"], _ = timed(lambda: search(reach, slots, simulation.plan), **FEW)
        found["search"] = "bins" if isinstance(simulation.plan, neighbors.Bins) else "all pairs"

    needed = memory.peak(measure)
    step, processor = (Spread(*(seconds / STEPS for seconds in found[name])) for name in ("step", "processor"))
    return Cost(len(atoms), found["search"], found["lists"], step, processor, needed)
