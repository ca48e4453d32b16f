"""How far a configuration is from all that a potential was trained on: closest pair and numbers of neighbours.

A network says something of every configuration. What it says of atoms that are closer together, or have more or fewer
neighbours, than in any training frame is extrapolation. Three numbers cannot tell all of it, but cost nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SLACK_DISTANCE = 0.05  # Å; closer than in any frame by less is not worth a warning
SLACK_NEIGHBORS = 2


class Coverage(NamedTuple):
    """Closest pair (Å), fewest and most neighbours of an atom within the cut-off, in a set of frames."""

    nearest: float
    fewest: int
    most: int

    def merged(self, other: "Coverage | None") -> "Coverage":
        """What both sets cover."""
        if other is None:
            return self
        return Coverage(min(self.nearest, other.nearest), min(self.fewest, other.fewest), max(self.most, other.most))

    def beyond(self, nearest: float, fewest: int, most: int) -> str | None:
        """What of a configuration lies outside, as half a sentence; None if nothing does."""
        if nearest < self.nearest - SLACK_DISTANCE:
            return f"atoms are {nearest:.2f} Å apart, in its training frames at least {self.nearest:.2f} Å"
        if most > self.most + SLACK_NEIGHBORS:
            return f"an atom has {most} neighbours within the cut-off, in its training frames at most {self.most}"
        if fewest < self.fewest - SLACK_NEIGHBORS:
            return f"an atom has {fewest} neighbours within the cut-off, in its training frames at least {self.fewest}"
        return None


def of_frames(frames: Sequence, neighbors: Sequence) -> Coverage:
    """Coverage of frames with positions (folded), cells and their `Neighbors` of one frame each."""
    nearest, counts = np.inf, []
    for (positions, cell), near in zip(frames, neighbors, strict=True):
        counts.append(np.sum(near.mask, 1))
        vectors = positions[near.source] + near.image @ cell - positions[:, None]
        if near.mask.any():
            nearest = min(nearest, np.linalg.norm(vectors[near.mask], axis=1).min())
    counts = np.concatenate(counts)
    return Coverage(float(nearest), int(counts.min()), int(counts.max()))
