"""Times of calls, their spread, and ratios from paired rounds, in each of which every side was timed once."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of values."""
    return Spread(*(float(q) for q in np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75))))


def timed(
    run: Callable, warm_up: int = 1, at_least: int = 3, about: float = 4.0, most: int = 30
) -> tuple[Spread, Spread]:
    """Seconds of a call, by the clock and of the processor: `at_least` to `most` calls, for `about` so many seconds.

    `warm_up` calls come first: one to compile, and a few more in which the heap grows to the size that a call needs
    (`fusedff.runtime.jax_setup`), with page faults.
    """
    import jax  # here, since a process that only measures others does not need it

    for _ in range(warm_up):
        jax.block_until_ready(run())
    clock, processor = [], []
    while len(clock) < at_least or (sum(clock) < about and len(clock) < most):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        clock.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return spread(clock), spread(processor)


def paired_ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Spread of the ratio theirs / ours, round by round: other work on the machine slows both of a pair.

    Raises ValueError unless both have equally many rounds.
    """
    if len(theirs) != len(ours):
        raise ValueError(f"{len(theirs)} rounds of one side cannot be paired with {len(ours)} of the other")
    return spread(np.asarray(theirs, float) / np.asarray(ours, float))
