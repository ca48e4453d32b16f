"""Compiled programs: how many there are, and how long they live."""

import gc
import subprocess
import sys
import weakref
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from argon import argon, labelled
from ase.build import bulk
from jax.extend.core import jaxprs_in_params

from fusedff.crystallography.crystals import Crystal
from fusedff.measurements.state_points import StatePoint
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.properties.thermal import elastic
from fusedff.simulation import langevin
from fusedff.simulation.cells import replicate
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.training import difftre, force_matching
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, SamplingConfig
from fusedff.training.optimizers import Adam
from fusedff.training.targets import ElasticTarget, PressureTarget


def test_trainings_with_new_settings_leave_nothing_behind():
    """Each used to leave what was compiled for it, 10 to 40 MiB with a network, and with it its settings."""
    frames = [labelled(bulk("Ar", "fcc", a=a, cubic=True), argon()) for a in (5.2, 5.3)]
    start, trained = argon(epsilon=0.0085), []
    for n in range(3):
        settings = ForceMatchingConfig(epochs=1, batch=2, learning_rate=1e-4 * (n + 1))
        force_matching.train(start, frames, frames, settings)
        trained.append(weakref.ref(settings))
    del settings
    gc.collect()
    assert not any(alive() for alive in trained)


def test_programs_of_many_targets_are_compiled_once_and_go_with_them(monkeypatch):
    """With more targets than a cache of programs holds, every update compiled everything anew."""
    traced = []

    class Traced(PressureTarget):
        def observe(self, *arguments):
            traced.append(self)
            return super().observe(*arguments)

    def pressure(temperature):
        crystal = bulk("Ar", "fcc", a=5.3, cubic=True)
        return Traced(replicate([crystal], [temperature], 1, jnp.float64), np.zeros(1))

    monkeypatch.setattr(langevin, "_compiled", lru_cache(maxsize=1)(langevin._compiled.__wrapped__))
    sampling = SamplingConfig(langevin.LangevinConfig(4.0, 2.0, 1), 0, equilibration=0, snapshots=2)
    targets, so_far = [pressure(2.0), pressure(3.0)], []
    settings = DiffTReConfig(updates=3, optimizer=Adam(1e-6, 1e-6), sampling=sampling)
    difftre.train(argon(), targets, settings, on_epoch=lambda history: so_far.append(len(traced)))
    assert so_far[0] > 0
    assert so_far == [so_far[0]] * 3
    alive = list(map(weakref.ref, targets))
    del targets
    traced.clear()
    gc.collect()
    assert [target() is not None for target in alive] == [False, True]  # the cache holds the last program


class Marked(LennardJones):
    """A potential with an operation that occurs nowhere else."""

    def atomic_energies(self, params, displacements, neighbors, species):
        return jnp.sinh(super().atomic_energies(params, displacements, neighbors, species))


def occurrences(jaxpr, operation):
    """How often an operation is in a program and in all that it calls."""
    inner = (occurrences(called, operation) for eqn in jaxpr.eqns for called in jaxprs_in_params(eqn.params))
    return sum(eqn.primitive.name == operation for eqn in jaxpr.eqns) + sum(inner)


def test_the_program_of_the_dynamics_holds_the_potential_once():
    """It is most of what is compiled: to find the first forces outside the loop would take almost twice as long."""
    params = {"epsilon": jnp.array([0.01]), "sigma": jnp.array([3.4])}
    potential = Potential(params, Marked(5.0), (18,), (0.0,))
    cells = replicate([bulk("Ar", "fcc", a=5.3, cubic=True)], [40.0])
    simulation = langevin.Simulation(cells, langevin.LangevinConfig(), potential.cutoff)
    state = langevin.start(cells, jax.random.PRNGKey(0))
    program = simulation._advance(simulation.capacity)
    assert occurrences(program.trace(potential, cells, state, 1).jaxpr, "sinh") == 1


def n_compiled(caplog):
    """How many programs were compiled under `jax.log_compiles()`."""
    return sum("Finished XLA compilation" in record.getMessage() for record in caplog.records)


def test_elastic_constants_take_few_programs(caplog):
    """Arithmetic of a few numbers that is compiled operation by operation takes longer than the dynamics."""
    point = StatePoint(40.0, Crystal("Ar", "hcp", 3.75, 6.12))
    dynamics = langevin.LangevinConfig(timestep_fs=4.0, steps_per_snapshot=2)
    settings = elastic.ElasticConfig(
        repeats=(2, 2, 1), replicas=1, langevin=dynamics, equilibration=1, snapshots=5, blocks=5
    )
    jax.clear_caches()
    with jax.log_compiles():
        elastic.run(argon(), [point], settings, name=None)
    assert 5 < n_compiled(caplog) < 40  # some twenty; a hundred and ten without compiling them together


def test_what_a_training_reports_of_elastic_constants_takes_one_program(caplog):
    point = StatePoint(40.0, Crystal("Ar", "hcp", 3.75, 6.12))
    target = ElasticTarget([point], CoupledStrains(), (2, 2, 1), 1, 1.0, 1.0, pressure_weight=1.0)
    means = jnp.zeros((target.cells.n_cells, 6))
    jax.clear_caches()
    with jax.log_compiles():
        said = target.report(means)
    assert n_compiled(caplog) == 1
    assert set(said) == {f"{name}@40K" for name in ("C11", "C12", "C13", "C33", "C44", "σxx", "σzz", "P")}


IMPORTS = """
import sys
from fusedff.simulation.integrator import jax_md_simulate
simulate = jax_md_simulate()
assert not [name for name in sys.modules if name.startswith("jax_md")]
assert "e3nn_jax" not in sys.modules  # of jax-md's networks
assert jax_md_simulate() is simulate
import jax_md, jax_md.quantity
assert jax_md.energy and jax_md.quantity and jax_md.simulate.nvt_langevin
"""


def test_the_integrator_comes_without_the_rest_of_jax_md_which_can_still_be_imported():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
