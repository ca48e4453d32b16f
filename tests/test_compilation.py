"""Compiled programs: one for every value of the static arguments, of which only the last ones are kept."""

import gc
import subprocess
import sys
import weakref
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from argon import argon, labelled
from ase.build import bulk
from jax.extend.core import jaxprs_in_params

from fusedff.crystallography.crystals import Crystal
from fusedff.measurements.state_points import StatePoint
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.properties.thermal import elastic
from fusedff.runtime import compilation
from fusedff.simulation import langevin
from fusedff.simulation.cells import replicate
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.training import force_matching
from fusedff.training.config import ForceMatchingConfig
from fusedff.training.targets import ElasticTarget


@dataclass(frozen=True)
class Factor:
    value: float


def test_a_function_is_compiled_once_for_every_static_value_and_forgets_the_oldest():
    traced = []

    @compilation.jit(n_static=1, kept=2)
    def times(factor, x):
        traced.append(factor.value)
        return factor.value * x

    assert [float(times(Factor(f), 2.0)) for f in (2.0, 3.0, 2.0, 4.0, 2.0, 3.0)] == [4, 6, 4, 8, 4, 6]
    assert traced == [2.0, 3.0, 4.0, 3.0]  # 2 stays in use, 3 was the oldest when 4 came


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
    assert [alive() is not None for alive in trained] == [False, True, True]


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
    settings = simulation.settings, simulation.cutoff, simulation.capacity, simulation.plan, simulation.observe
    assert occurrences(langevin._advance.trace(*settings, potential, cells, state, 1).jaxpr, "sinh") == 1


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
