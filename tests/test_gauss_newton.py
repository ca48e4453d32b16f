"""Gauss-Newton steps against the pseudo-inverse, with and without noise."""

import numpy as np
import pytest

from fusedff.training import gauss_newton


@pytest.fixture
def linear(rng):
    """Residuals of 4 linear observables of 60 parameters; one of them answers a thousand times less."""
    slopes = rng.normal(size=(4, 60)) * np.array([1, 1, 1, 1e-3])[:, None]
    return slopes, rng.normal(size=4)


def test_a_whole_step_is_the_smallest_that_removes_the_residuals(linear, monkeypatch):
    monkeypatch.setattr(gauss_newton, "DAMPING", 1e-15)
    slopes, residuals = linear
    step, state = gauss_newton.step(gauss_newton.init(4, 60), 0, slopes, residuals)
    np.testing.assert_allclose(step, -np.linalg.pinv(slopes) @ residuals, rtol=1e-4)  # the state is in float32
    np.testing.assert_array_equal(state.jacobian, slopes.astype(np.float32))


def test_what_hardly_answers_is_left_alone(linear):
    slopes, residuals = linear
    step, _ = gauss_newton.step(gauss_newton.init(4, 60), 0, slopes, residuals)
    left = residuals + slopes @ step
    assert np.abs(left[:3]).max() < 0.05 * np.abs(residuals).max()
    assert left[3] == pytest.approx(residuals[3], rel=0.05)


def test_noisy_jacobians_are_averaged_and_old_ones_forgotten(linear, rng):
    slopes, residuals = linear
    state, noise = gauss_newton.init(4, 60), 0.5
    for n in range(100):
        found = slopes if n < 50 else 2 * slopes
        _, state = gauss_newton.step(state, n, found + noise * rng.normal(size=slopes.shape), residuals)
        if n == 5:  # a mean of six
            assert np.std(state.jacobian - slopes) == pytest.approx(noise / 6**0.5, rel=0.2)
    weight = gauss_newton.FRESH
    # the standard deviation of an exponential average, and 2 % of its mean are left of the old one
    assert np.std(state.jacobian - 2 * slopes) == pytest.approx(noise * (weight / (2 - weight)) ** 0.5, rel=0.2)


def test_noise_in_the_residuals_averages_out_as_steps_become_shorter(linear, rng):
    """With shares 1/(n+1) of whole steps, what is left is the mean of all noise."""
    slopes, target = linear[0][:3], linear[1][:3]
    ends = []
    for _ in range(200):
        params, state = np.zeros(60), gauss_newton.init(3, 60)
        for n in range(25):
            noisy = slopes @ params - target + rng.normal(size=3)
            step, state = gauss_newton.step(state, n, slopes, noisy)
            params = params + step / (n + 1)
        ends.append(slopes @ params - target)
    assert np.std(ends) == pytest.approx(1 / 25**0.5, rel=0.1)
