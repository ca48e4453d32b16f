"""Numbers from paired rounds: in each round every side was timed once, one right after the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(*(float(q) for q in np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75))))


def paired_ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times as long they took, round by round: what slows the machine for a while slows both of a pair."""
    if len(theirs) != len(ours):
        raise ValueError(f"{len(theirs)} rounds of one side cannot be paired with {len(ours)} of the other")
    return spread(np.asarray(theirs, float) / np.asarray(ours, float))
