"""Results on one NVIDIA GPU equal those on the CPU: `JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu`.

In double precision, where another order of summation changes the thirteenth digit. The errors of single precision on
the GPU are measured by `python -m benchmarks gpu`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import titanium
from fusedff.crystallography import elastic_symmetry
from fusedff.geometry import neighbors, systems
from fusedff.measurements.state_points import StatePoint
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential
from fusedff.simulation import langevin
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation
from fusedff.training import difftre
from fusedff.training.config import DiffTReConfig, SamplingConfig
from fusedff.units import GPA

pytestmark = pytest.mark.gpu

NETWORK = DimeNet(embedding=8, blocks=2, radial=4, spherical=4, interaction=4, basis=4, type_embedding=4, output=8)
LANGEVIN = langevin.LangevinConfig(timestep_fs=4.0, friction_per_ps=10.0, steps_per_snapshot=5)


def on_both(function, *arguments):
    """The results of a compiled function on the CPU and on the GPU, as NumPy arrays."""
    results = []
    for platform in ("cpu", "gpu"):
        device = jax.devices(platform)[0]
        with jax.default_device(device):
            found = jax.jit(function)(*jax.device_put(arguments, device))
            results.append(jax.tree.map(np.asarray, found))
    return results


def require_equal(cpu, gpu, relative):
    for a, b in zip(jax.tree.leaves(cpu), jax.tree.leaves(gpu), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=relative * max(np.abs(a).max(), 1e-12))


@pytest.fixture(scope="module")
def problem():
    """A network with random weights in double precision, and two displaced cells of 16 atoms."""
    frames = titanium.frames((2, 2, 2), 2)
    network = titanium.with_forces(titanium.network(NETWORK), frames[0])
    network = network.with_params(jax.tree.map(lambda x: np.asarray(x, float), network.params))
    return network, systems.from_atoms(frames), neighbors.from_frames(frames, network.cutoff)


def test_energy_forces_and_stress_are_those_of_the_cpu(problem):
    require_equal(*on_both(Potential.evaluate, *problem), 1e-10)


def test_born_stiffness_is_that_of_the_cpu(problem):
    require_equal(*on_both(Potential.born, *problem), 1e-9)


def test_parameter_gradient_of_squared_forces_is_that_of_the_cpu(problem):
    network, system, near = problem

    def loss(params, system, near):
        found = network.with_params(params).evaluate(system, near)
        return jnp.sum(found.forces**2) + jnp.sum(found.stress**2)

    require_equal(*on_both(jax.grad(loss), network.params, system, near), 1e-8)


def test_neighbours_found_on_the_gpu_are_those_found_on_the_cpu():
    frames = titanium.frames((3, 3, 2), 2)
    images = neighbors.image_offsets(np.stack([frame.cell.array for frame in frames]), 5.0)
    search = partial(neighbors.search_cells, cutoff=5.0, capacity=40, plan=images)
    cpu, gpu = on_both(search, systems.from_atoms(frames))
    assert all(np.array_equal(a, b) for a, b in zip(cpu, gpu, strict=True))


@pytest.mark.parametrize("estimator", [CoupledStrains(), StressFluctuation()])
def test_difftre_update_lowers_the_loss_as_on_the_cpu(estimator):
    """Same seed, same random numbers: the first loss agrees while trajectories have not yet diverged."""
    point = StatePoint(323.0, titanium.CRYSTAL, dict.fromkeys(elastic_symmetry.elastic_names("hexagonal"), 100 * GPA))
    settings = DiffTReConfig(
        updates=1, estimator=estimator, repeats=(2, 2, 1), sampling=SamplingConfig(LANGEVIN, 1, snapshots=2)
    )
    losses = []
    for platform in ("cpu", "gpu"):
        with jax.default_device(jax.devices(platform)[0]):
            network = titanium.with_forces(titanium.network(NETWORK), titanium.frames((2, 2, 1), 1)[0])
            _, history = difftre.train(network, (point,), settings)
            losses.append(history[0]["loss"])
    assert np.isclose(*losses, rtol=1e-3)
