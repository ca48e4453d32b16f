"""Gauss-Newton steps against the pseudo-inverse, with and without noise, alone and in fused training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusedff.training import gauss_newton


@pytest.fixture
def linear(rng):
    """Residuals of 4 linear observables of 60 parameters; one of them answers a thousand times less."""
    slopes = rng.normal(size=(4, 60)) * np.array([1, 1, 1, 1e-3])[:, None]
    return slopes, rng.normal(size=4)


def step(state, n, relaxation, params, slopes, residuals, damping=1e-9, labels=None):
    return gauss_newton.step(state, n, relaxation, damping, params, params, slopes, residuals, labels)


def test_a_whole_step_is_the_smallest_that_removes_the_residuals(linear):
    slopes, residuals = linear
    start = np.zeros(60)
    state = step(gauss_newton.init(4, start), 0, 1.0, start, slopes, residuals, 1e-15)
    np.testing.assert_allclose(state.params, -np.linalg.pinv(slopes) @ residuals, rtol=1e-4)  # J is in float32
    np.testing.assert_array_equal(state.jacobian, slopes.astype(np.float32))


def naive_step(slopes, residuals, labels, damping):
    """-M^-1 J^T (J M^-1 J^T + damping)^-1 r with the dense M (n, n) and its inverse."""
    metric = np.eye(slopes.shape[1]) + labels.T @ labels / (gauss_newton.PENALTY_FLOOR * np.sum(labels**2))
    kernel = slopes @ np.linalg.inv(metric) @ slopes.T
    damped = kernel + damping * np.median(np.diag(kernel)) * np.eye(len(kernel))
    return -np.linalg.inv(metric) @ slopes.T @ np.linalg.inv(damped) @ residuals


@pytest.mark.parametrize("damping", [1e-6, 0.03])
def test_a_damped_step_with_labels_is_that_of_the_dense_formula(linear, rng, damping):
    slopes, residuals = linear
    labels = rng.normal(size=(20, 60))
    state = step(gauss_newton.init(4, np.zeros(60), 20), 0, 1.0, np.zeros(60), slopes, residuals, damping, labels)
    expected = naive_step(slopes, residuals, labels, damping)
    np.testing.assert_allclose(state.params, expected, rtol=0, atol=1e-4 * np.abs(expected).max())  # J, G: float32


def test_what_hardly_answers_is_left_alone(linear):
    slopes, residuals = linear
    start = np.zeros(60)
    state = step(gauss_newton.init(4, start), 0, 1.0, start, slopes, residuals, damping=0.01)
    left = residuals + slopes @ state.params
    assert np.abs(left[:3]).max() < 0.05 * np.abs(residuals).max()
    assert left[3] == pytest.approx(residuals[3], rel=0.05)


def test_residuals_of_what_was_not_measured_change_nothing(linear):
    """They are zero, and so are their derivatives: most constants of a triclinic crystal, say."""
    slopes, residuals = linear
    start, none = np.zeros(60), np.zeros((9, 60))
    alone = step(gauss_newton.init(4, start), 0, 1.0, start, slopes, residuals, damping=0.01)
    state = gauss_newton.init(13, start)
    beside = step(state, 0, 1.0, start, np.concatenate([none, slopes]), np.append(np.zeros(9), residuals), damping=0.01)
    np.testing.assert_allclose(beside.params, alone.params, rtol=1e-6)


def test_where_nothing_answers_the_parameters_stay(linear):
    start = np.ones(60)
    state = step(gauss_newton.init(4, start), 0, 1.0, start, np.zeros((4, 60)), linear[1])
    np.testing.assert_array_equal(state.params, start)


def test_with_labels_a_whole_step_is_the_cheapest_that_removes_the_residuals(linear, rng):
    """Against the dense solution: minimize |d|^2 + |G d|^2 / f where J d = -r, by Lagrange's multipliers."""
    slopes, residuals = (x[:3] for x in linear)
    start, labels = np.zeros(60), rng.normal(size=(20, 60)) * np.logspace(0, -4, 20)[:, None]
    spared = step(gauss_newton.init(3, start, 20), 0, 1.0, start, slopes, residuals, 1e-15, labels).params
    metric = np.eye(60) + labels.T @ labels / (gauss_newton.PENALTY_FLOOR * np.sum(labels**2))
    stationary = np.block([[metric, slopes.T], [slopes, np.zeros((3, 3))]])
    expected = np.linalg.solve(stationary, np.concatenate([start, -residuals]))[:60]
    np.testing.assert_allclose(spared, expected, rtol=1e-4, atol=1e-7)  # J and G are in float32
    blind = step(gauss_newton.init(3, start), 0, 1.0, start, slopes, residuals, 1e-15).params
    assert np.linalg.norm(labels @ spared) < 0.1 * np.linalg.norm(labels @ blind)


def test_labels_are_averaged_as_the_jacobian_is(linear, rng):
    """Rows with random signs: not their mean is kept, but that of their products."""
    slopes, residuals = linear
    exact, state = rng.normal(size=(6, 60)), gauss_newton.init(4, np.zeros(60), 2000)
    for n in range(4):
        labels = (n + 1) * rng.choice([-1, 1], size=(2000, 6)) @ exact / 2000**0.5
        state = step(state, n, 0.1, state.params, slopes, residuals, 0.01, labels)
    expected = np.mean([1, 4, 9, 16]) * exact.T @ exact
    assert np.linalg.norm(state.sketch.T @ state.sketch - expected) < 0.1 * np.linalg.norm(expected)


def test_arrays_of_jax_give_the_same_step_to_the_last_bit(linear, rng):
    """A checkpoint gives back single precision, in which these equations must not be solved."""
    slopes, residuals = linear
    labels = rng.normal(size=(20, 60)).astype(np.float32)
    state = step(gauss_newton.init(4, np.zeros(60), 20), 0, 1.0, np.zeros(60), slopes, residuals, 1e-3, labels)
    with jax.enable_x64(False):
        restored = gauss_newton.GaussNewtonState(*map(jnp.asarray, state))
        found = step(restored, 1, 1.0, np.float32(state.params), slopes, residuals, 1e-3, labels)
    kept = state._replace(params=np.float32(state.params))
    expected = step(kept, 1, 1.0, kept.params, slopes, residuals, 1e-3, labels)
    np.testing.assert_array_equal(found.params, expected.params)


def test_noisy_jacobians_are_averaged_and_old_ones_forgotten(linear, rng):
    slopes, residuals = linear
    state, noise = gauss_newton.init(4, np.zeros(60)), 0.5
    for n in range(100):
        found = slopes if n < 50 else 2 * slopes
        state = step(state, n, 0.1, state.params, found + noise * rng.normal(size=slopes.shape), residuals)
        if n == 5:  # a mean of six
            assert np.std(state.jacobian - slopes) == pytest.approx(noise / 6**0.5, rel=0.2)
    weight = gauss_newton.MIN_AVERAGING_WEIGHT
    # the standard deviation of an exponential average, and 2 % of its mean are left of the old one
    assert np.std(state.jacobian - 2 * slopes) == pytest.approx(noise * (weight / (2 - weight)) ** 0.5, rel=0.2)


def test_noise_in_the_residuals_averages_out_as_less_of_it_is_believed(linear, rng):
    """With relaxation 1/(n+1), what is left is the mean of all noise, even if others move the parameters in between."""
    slopes, target = linear[0][:3], linear[1][:3]
    ends = []
    for _ in range(200):
        state = gauss_newton.init(3, np.zeros(60))
        for n in range(25):
            params = state.params + 0.1 * np.ones(60)
            noisy = slopes @ params - target + rng.normal(size=3)
            state = step(state, n, 1 / (n + 1), params, slopes, noisy)
        ends.append(slopes @ state.params - target)
    assert np.std(ends) == pytest.approx(1 / 25**0.5, rel=0.1)


def test_others_move_what_the_residuals_do_not_speak_of(linear):
    """A pull that never tires: across the residuals nothing of it is left, along all else it goes unhindered."""
    slopes, target = linear[0][:3], linear[1][:3]
    pull, state = np.ones(60), gauss_newton.init(3, np.zeros(60))
    for n in range(50):
        params = state.params + pull
        state = step(state, n, 0.2, params, slopes, slopes @ params - target)
    assert np.abs(slopes @ state.params - target).max() < 1e-3 * np.abs(slopes @ pull).max()
    beside = pull - np.linalg.pinv(slopes) @ slopes @ pull
    np.testing.assert_allclose(state.params @ beside, 50 * pull @ beside, rtol=1e-3)


def test_a_way_that_was_retraced_is_not_gone_again(linear):
    """What was measured halfway counts from there; only the way of others is expected to have moved the residuals."""
    slopes, target = linear[0][:3], linear[1][:3]
    start = gauss_newton.init(3, np.zeros(60))
    whole = step(start, 0, 1.0, start.params, slopes, -target)
    half = whole.params / 2
    after = gauss_newton.step(whole, 1, 0.5, 1e-9, whole.params, half, slopes, slopes @ half - target)
    np.testing.assert_allclose(after.params, 0.75 * whole.params, rtol=1e-4, atol=1e-7)
