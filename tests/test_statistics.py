"""Error bars of averages, by the jackknife: they cover the true value as often as they should."""

import numpy as np
import pytest

from fusedff.simulation.statistics import jackknife


def test_for_a_mean_the_jackknife_is_the_standard_error_of_block_means(rng):
    x = rng.normal(size=(100, 3))
    found = jackknife(x, lambda mean: mean, blocks=10)
    blocks = x.reshape(10, 10, 3).mean(1)
    np.testing.assert_allclose(found.value, x.mean(0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.stderr, blocks.std(0, ddof=1) / np.sqrt(10), rtol=1e-10)


def test_samples_that_do_not_divide_evenly_all_count(rng):
    x = rng.normal(size=(23, 1))
    found = jackknife(x, lambda mean: mean, blocks=5)
    np.testing.assert_allclose(found.value, x.mean(0), rtol=1e-12)


def correlated(rng, n, steps):
    """An autoregressive series of unit variance with a correlation time of `steps`."""
    memory = np.exp(-1 / steps) if steps else 0.0
    x = np.empty(n)
    x[0] = rng.normal()
    for i in range(1, n):
        x[i] = memory * x[i - 1] + np.sqrt(1 - memory**2) * rng.normal()
    return x


@pytest.mark.parametrize("steps", [0, 3], ids=["uncorrelated", "correlated over 3 snapshots"])
def test_two_standard_errors_cover_the_truth_about_as_often_as_they_should(steps):
    rng, hits, trials = np.random.default_rng(7), 0, 150
    for _ in range(trials):
        x = correlated(rng, 400, steps)
        # a covariance, as in the stress-fluctuation formula: <x^2> - <x>^2, truly 1
        found = jackknife(np.stack([x, x**2], 1), lambda m: m[1] - m[0] ** 2, blocks=10)
        hits += abs(found.value - 1.0) < 2 * found.stderr
    # nine degrees of freedom: 92 %; fewer where blocks still know each other; binomial error 2.2 %
    assert 0.84 < hits / trials < 0.99


def test_blocks_shorter_than_the_correlation_time_would_have_said_too_small_an_error():
    rng = np.random.default_rng(8)
    x = correlated(rng, 2000, 20)[:, None]
    short, long = (jackknife(x, lambda m: m, blocks=b).stderr[0] for b in (200, 20))
    assert long > 1.5 * short


def test_too_few_snapshots_for_the_blocks_are_refused(rng):
    with pytest.raises(ValueError, match="4 snapshots cannot be cut into 5 blocks; sample for longer"):
        jackknife(rng.normal(size=(4, 2)), lambda m: m, blocks=5)
