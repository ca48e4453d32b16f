"""Detect extrapolation: configurations outside the range of a potential's training frames.

The range is described by three numbers: the smallest distance of two atoms, and the smallest and largest number of
neighbours. They cost almost nothing, but a configuration within the range may still be unlike any training frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms

from fusedff.geometry.neighbors import Neighbors
from fusedff.geometry.systems import wrapped

SLACK_DISTANCE = 0.05  # Å; atoms may be this much closer than in any training frame without a warning
SLACK_NEIGHBORS = 2  # and an atom may have this many neighbours more or fewer


class Coverage(NamedTuple):
    """Smallest distance (Å), fewest and most neighbours of an atom within the cut-off, in a set of frames."""

    nearest: float
    fewest: int
    most: int

    def merged(self, other: "Coverage | None") -> "Coverage":
        """Coverage of both sets of frames together."""
        if other is None:
            return self
        return Coverage(min(self.nearest, other.nearest), min(self.fewest, other.fewest), max(self.most, other.most))

    def describe_violation(self, nearest: float, fewest: int, most: int) -> str | None:
        """Phrase for a warning that names the first number outside the coverage (nearest in Å), or None."""
        if nearest < self.nearest - SLACK_DISTANCE:
            return f"atoms are {nearest:.2f} Å apart, in its training frames at least {self.nearest:.2f} Å"
        if most > self.most + SLACK_NEIGHBORS:
            return f"an atom has {most} neighbours within the cut-off, in its training frames at most {self.most}"
        if fewest < self.fewest - SLACK_NEIGHBORS:
            return f"an atom has {fewest} neighbours within the cut-off, in its training frames at least {self.fewest}"
        return None


def of_frames(frames: Sequence[Atoms], neighbors: Sequence[Neighbors]) -> Coverage:
    """Coverage of frames, given the neighbours within the cut-off of each (`neighbors.from_frames`)."""
    nearest, counts = np.inf, []
    for frame, near in zip(map(wrapped, frames), neighbors, strict=True):
        counts.append(np.sum(near.mask, 1))
        vectors = frame.positions[near.source] + near.image @ frame.cell.array - frame.positions[:, None]
        if near.mask.any():
            nearest = min(nearest, np.linalg.norm(vectors[near.mask], axis=1).min())
    counts = np.concatenate(counts)
    return Coverage(float(nearest), int(counts.min()), int(counts.max()))
