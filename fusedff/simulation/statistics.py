"""Means over correlated snapshots and their standard errors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def entry(value, stderr) -> dict:
    """A number with its standard error as plain data for JSON."""
    return {"value": float(value), "stderr": float(stderr)}


class Estimate(NamedTuple):
    """A mean and its standard error, arrays of one shape."""

    value: np.ndarray
    stderr: np.ndarray


def jackknife(samples, statistic: Callable, blocks: int = 5) -> Estimate:
    """`statistic(mean of samples)` with its standard error from a block jackknife over the first axis.

    Samples (n_snapshots, ...) are cut into `blocks` consecutive ones, which must be longer than the correlation time.
    The statistic need not be linear in the mean; it may be a covariance. Efron & Stein, Ann. Stat. 9, 586 (1981).
    Raises ValueError for fewer samples than blocks.
    """
    if len(samples) < blocks:
        raise ValueError(f"{len(samples)} snapshots cannot be cut into {blocks} blocks; sample for longer")
    # by NumPy: operation by operation JAX would compile for seconds
    parts = np.array_split(np.asarray(samples, float), blocks)
    means, sizes = np.stack([part.mean(0) for part in parts]), np.array([len(part) for part in parts])
    total = np.tensordot(sizes / sizes.sum(), means, 1)
    without = [(sizes.sum() * total - n * mean) / (sizes.sum() - n) for n, mean in zip(sizes, means, strict=True)]
    left_out = np.stack([np.asarray(statistic(mean)) for mean in without])
    spread = (blocks - 1) / blocks * np.sum((left_out - left_out.mean(0)) ** 2, 0)
    return Estimate(np.asarray(statistic(total)), np.sqrt(spread))
