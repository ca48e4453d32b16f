"""Reweighting: averages at other parameters from the same snapshots, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import FCC, argon

from fusedff.crystallography import crystals
from fusedff.geometry import neighbors, systems
from fusedff.simulation import reweighting
from fusedff.units import KB


def test_unchanged_parameters_leave_all_snapshots_at_equal_weight():
    energy = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)))
    w = reweighting.weights(jnp.array([1.0, 10.0, 40.0]), energy, energy)
    np.testing.assert_allclose(w, 1 / 50, rtol=1e-14)
    np.testing.assert_allclose(reweighting.effective_samples(w), 50, rtol=1e-12)


def test_weights_are_normalized_boltzmann_factors_of_the_energy_change_in_every_cell():
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(2, 20, 2))
    beta = np.array([0.5, 2.0])
    w = np.asarray(reweighting.weights(jnp.asarray(beta), jnp.asarray(new), jnp.asarray(old)))
    factors = np.exp(-beta * (new - old))
    np.testing.assert_allclose(w, factors / factors.sum(0), rtol=1e-12)


def test_one_dominant_snapshot_leaves_one_effective_sample_and_no_nan():
    energy = jnp.zeros((10, 1)).at[3, 0].set(-1e5)
    w = reweighting.weights(jnp.array([40.0]), energy, jnp.zeros((10, 1)))
    assert reweighting.effective_samples(w)[0] == pytest.approx(1.0)
    assert np.isfinite(w).all()


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snapshots():
    """Rattled argon cells standing for a trajectory, with U and O of any parameters, and their gradient sum."""
    rng, cube = np.random.default_rng(2), crystals.supercell(FCC, (1, 1, 1))
    n_snapshots, n_cells = 6, 2
    box = np.stack([cube.cell.array, 1.03 * cube.cell.array])
    sites = np.stack([cube.positions, 1.03 * cube.positions])
    positions = jnp.asarray(sites + 0.08 * rng.normal(size=(n_snapshots, n_cells, 4, 3)))
    model, beta = argon(), 1 / (KB * jnp.array([60.0, 90.0]))
    images = neighbors.image_offsets(box[0], model.cutoff)

    def of(params, r):
        system = systems.stack(r, jnp.asarray(box), cube.numbers)
        near = neighbors.search_cells(system, model.cutoff, 90, images)
        found = model.with_params(params).evaluate(system, near)
        return found.energy, found.stress

    both = jax.jit(lambda params: jax.lax.map(lambda r: of(params, r), positions))

    def scalar(params, r, along, against):
        energy, stress = of(params, r)
        return jnp.sum(along * stress) + jnp.sum(against * energy)

    return model.params, positions, beta, both, scalar


def objective(means):
    """Not linear, and different for every cell and component."""
    return jnp.sum(jnp.sin(1e3 * means) * jnp.arange(1, 13).reshape(2, 6)) + jnp.sum(1e4 * means**2)


@pytest.mark.parametrize("shift", [1.0, 1.01], ids=["at the sampled parameters", "away from them"])
def test_the_gradient_is_that_of_the_reweighted_average_itself(snapshots, shift):
    sampled, positions, beta, both, scalar = snapshots
    reference = both(sampled)[0]
    here = {"epsilon": shift * sampled["epsilon"], "sigma": sampled["sigma"] * (1 + (shift - 1) / 10)}

    def reweighted(params):
        energy, stress = both(params)
        return objective(reweighting.averages(reweighting.weights(beta, energy, reference), stress))

    energy, observed = both(here)
    w = reweighting.weights(beta, energy, reference)
    cotangent = jax.grad(objective)(reweighting.averages(w, observed))
    found = jax.jit(lambda *a: reweighting.gradient(scalar, *a))(here, positions, w, observed, cotangent, beta)
    for name, h in [("epsilon", 1e-7), ("sigma", 1e-5)]:
        up, down = ({**here, name: here[name] + s * h} for s in (1, -1))
        slope = (reweighted(up) - reweighted(down)) / (2 * h)
        # an identity: only h^2 and 1e-16 / h separate the two
        assert float(found[name][0]) == pytest.approx(float(slope), rel=1e-5)


def test_streaming_over_snapshots_is_the_sum_over_all_at_once(snapshots):
    sampled, positions, beta, both, scalar = snapshots
    reference, observed = both(sampled)
    w = reweighting.weights(beta, 1.001 * reference, reference)
    cotangent = jnp.ones((2, 6))
    streamed = reweighting.gradient(scalar, sampled, positions, w, observed, cotangent, beta)
    centred = observed - reweighting.averages(w, observed)
    against = -beta * w * jnp.sum(centred * cotangent, -1)

    def all_at_once(params):
        energy, stress = both(params)
        return jnp.sum(w[..., None] * cotangent * stress) + jnp.sum(against * energy)

    expected = jax.grad(all_at_once)(sampled)
    for name in expected:
        np.testing.assert_allclose(streamed[name], expected[name], rtol=1e-10)


# --- a problem with an answer: x^2 of a harmonic oscillator -----------------------------------------------------


@pytest.fixture(scope="module")
def oscillator():
    """Positions drawn exactly from exp(-k x^2 / 2 kT); <x^2> = kT / k."""
    k, kt, n = 3.0, 0.5, 20_000
    x = jnp.asarray(np.random.default_rng(3).normal(size=(n, 1)) * np.sqrt(kt / k))
    return k, kt, x


def test_reweighting_a_harmonic_oscillator_gives_the_fluctuation_of_another_spring(oscillator):
    k, kt, x = oscillator
    stiffer = 1.1 * k
    w = reweighting.weights(jnp.array([1 / kt]), stiffer * x**2 / 2, k * x**2 / 2)
    mean = float(reweighting.averages(w, (x**2)[..., None])[0, 0])
    # relative standard error of a variance: sqrt(2 / n), a little more after reweighting
    assert mean == pytest.approx(kt / stiffer, rel=4 * 1.1 * np.sqrt(2 / len(x)))


def test_the_gradient_of_x2_with_respect_to_the_spring_is_minus_kt_over_k2(oscillator):
    k, kt, x = oscillator

    def scalar(params, x, along, against):
        return jnp.sum(along * x[:, None] ** 2) + jnp.sum(against * params * x**2 / 2)

    w = jnp.full((len(x), 1), 1 / len(x))
    found = reweighting.gradient(scalar, jnp.array(k), x, w, (x**2)[..., None], jnp.ones((1, 1)), jnp.array([1 / kt]))
    # d<x^2>/dk = -var(x^2) / 2kT; the relative error of a variance of x^2 is sqrt(14 / n) for a gaussian x
    assert float(found) == pytest.approx(-kt / k**2, rel=4 * np.sqrt(14 / len(x)))
