"""fusedff's side of the comparison: functions case -> `Work` for every quantity of `work.LABELS`, as users get it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from benchmarks import titanium
from benchmarks.case import (
    BATCHES,
    CELLS,
    EVALUATIONS,
    FRICTION_PER_PS,
    STEPS,
    TEMPERATURE,
    TIMESTEP_FS,
    Case,
)
from benchmarks.work import Work, in_scan
from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.data.batching import FrameStore
from fusedff.geometry import neighbors, systems
from fusedff.measurements.state_points import StatePoint
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential
from fusedff.simulation import langevin
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import difftre, force_matching_loss
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, SamplingConfig
from fusedff.units import GPA

LANGEVIN = LangevinConfig(timestep_fs=TIMESTEP_FS, friction_per_ps=FRICTION_PER_PS, steps_per_snapshot=STEPS)


def _potential(case):
    return Potential(jax.tree.map(jnp.asarray, case.params), DimeNet(), (22,), (0.0,))


def _from_positions(case: Case, function):
    """`function(potential, system, neighbors)` of one snapshot, as a function of the potential and positions (n, 3)."""
    cells = jnp.asarray(case.cell, jnp.float32)[None]
    numbers = np.full(case.n_atoms, 22)
    images = neighbors.image_offsets(case.cell, DimeNet().cutoff)

    def of_positions(model, positions):
        system = systems.stack(positions[None], cells, numbers)
        near = neighbors.search_cells(system, model.cutoff, int(case.neighbors) + 2, images)
        return function(model, system, near)

    return of_positions


def _single(case, function):
    run = jax.jit(_from_positions(case, function))
    return Work(partial(run, _potential(case), jnp.asarray(case.positions[0], jnp.float32)))


def energy(case: Case) -> Work:
    return _single(case, Potential.energies)


def forces(case: Case) -> Work:
    return _single(case, Potential.evaluate)


def born(case: Case) -> Work:
    return _single(case, Potential.born)


def forces_in_scan(case: Case) -> Work:
    evaluate = _from_positions(case, Potential.evaluate)
    run = jax.jit(lambda model, stack: jax.lax.map(partial(evaluate, model), stack))
    stack = np.resize(case.positions, (EVALUATIONS, case.n_atoms, 3))
    return Work(partial(run, _potential(case), jnp.asarray(stack, jnp.float32)), EVALUATIONS)


def _points():
    """One state point with arbitrary targets, which do not affect the time."""
    constants = dict.fromkeys(elastic_symmetry.elastic_names("hexagonal"), 100 * GPA)
    return (StatePoint(TEMPERATURE, titanium.CRYSTAL, constants),)


def md(case: Case) -> Work:
    ensemble = StressFluctuation().cells(_points(), titanium.REPEATS[case.n_atoms])
    ensemble = ensemble._replace(sites=jnp.asarray(case.positions[:1], jnp.float32))
    model = _potential(case)
    simulation = langevin.Simulation(ensemble, LANGEVIN, model.cutoff)
    state = langevin.start(ensemble, jax.random.PRNGKey(0))
    return Work(lambda: simulation.run(model, state, 1)[0].positions, STEPS)


def _force_matching(case):
    """Function that returns loss and parameter gradient, initial parameters, and a batch."""
    frames = []
    for positions, energy, forces, stress in zip(case.positions, case.energy, case.forces, case.stress, strict=True):
        frame = Atoms("Ti" * case.n_atoms, positions, cell=case.cell, pbc=True)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
        frames.append(frame)
    model = _potential(case)
    store = FrameStore(frames[:CELLS], model.cutoff)
    batch = store.batch(np.arange(CELLS), CELLS, CELLS * case.n_atoms)
    settings = ForceMatchingConfig()

    def gradient(params, batch):
        return jax.value_and_grad(lambda p: force_matching_loss.loss(settings, model.with_params(p), batch))(params)

    return gradient, model.params, batch


def force_matching_(case: Case) -> Work:
    gradient, params, batch = _force_matching(case)
    return Work(partial(jax.jit(gradient), params, batch))


def force_matching_in_scan(case: Case) -> Work:
    gradient, params, batch = _force_matching(case)
    return in_scan(gradient, params, batch, BATCHES)


def difftre_(case: Case, estimator) -> Work:
    update = stored_update(_potential(case), titanium.REPEATS[case.n_atoms], case.positions, estimator)
    return Work(update, len(case.positions))


def stored_update(model: Potential, repeats, positions, estimator):
    """Function that does a DiffTRe update, optimizer included, from stored snapshots (snapshots, n, 3) in Å.

    The snapshots are of the unstrained cell.
    """
    settings = DiffTReConfig(
        estimator=estimator,
        repeats=repeats,
        sampling=SamplingConfig(LANGEVIN, snapshots=len(positions), reuse_above=1e-6),
    )
    difftre_trainer = difftre.DiffTReTrainer(settings, model, _points())
    train_state, (term,) = difftre_trainer.init(model.params), difftre_trainer.terms
    unstrained = crystals.supercell(titanium.CRYSTAL, repeats).cell.array
    to_each = jnp.linalg.inv(jnp.asarray(unstrained, jnp.float32)) @ term.cells.lattice
    positions = jnp.einsum("sax,cxy->scay", jnp.asarray(positions, jnp.float32), to_each)
    sampled = train_state.extra[0]._replace(trajectory=langevin.Trajectory(positions, (), (), ()))
    energy, observed = term.reevaluate(model, sampled)
    sampled = sampled._replace(trajectory=langevin.Trajectory(positions, energy, observed, energy))
    train_state = train_state._replace(extra=(sampled,))
    return lambda: difftre_trainer.update(train_state, 1)[0].params


def answers(case: Case) -> dict:
    """Energy and forces (n, 3) of the first snapshot, eV and Å."""
    found = forces(case).run()
    return {"energy": found.energy[0], "forces": found.forces}


QUANTITIES = {
    "energy": energy,
    "forces": forces,
    "forces_in_scan": forces_in_scan,
    "md": md,
    "force_matching": force_matching_,
    "force_matching_in_scan": force_matching_in_scan,
    "born": born,
    "difftre": partial(difftre_, estimator=StressFluctuation()),
    "difftre_default": partial(difftre_, estimator=CoupledStrains()),
}
