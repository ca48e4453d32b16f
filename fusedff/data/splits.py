"""Training, validation and test frames: split by run, stratified by source and family, unchanged when a dataset grows.

Snapshots of one simulation are nearly the same. If they were divided among the parts, the test part would contain
copies of training frames, and its errors would be too small. So whole runs are assigned to a part, together with runs
that repeat one of their snapshots, as published sets have some; a frame that is not a snapshot is a run of its own.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ase
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fusedff.data import labelled_frames
from fusedff.data.validation import duplicates

AT_REST = 1e-3  # eV/Å, of the largest force component
_BLOCK = 10  # consecutive runs of one source and family that are divided among the parts together


class Split(NamedTuple):
    """Three disjoint parts of a dataset, each in file order."""

    train: tuple[ase.Atoms, ...]
    validation: tuple[ase.Atoms, ...]
    test: tuple[ase.Atoms, ...]


def assign(families, validation=0.1, test=0.2, runs=None, sources=None, seed=0) -> list[str]:
    """'train', 'validation' or 'test' for each frame, given the family (`config_type`) of all frames in file order.

    `runs` names the run of each frame (None: a run of its own); frames of one run stay together, in the part of the
    first of them. `sources` names the source of each frame.
    The runs of each source and family are taken in blocks of 10 in file order. The places of a block that are
    validation and test follow from sha256 of (family, block number). So every family contributes to each part, and
    appending frames, of any family, never moves an earlier one; inserting or deleting does. A family with fewer than 10
    runs may lack validation or test. Another `seed` takes the next places for validation (cross-validation); the test
    frames are the same for all seeds. Raises ValueError for fractions that are not whole tenths, or that leave no
    training frames.
    """
    families = list(families)
    runs, sources = runs or [None] * len(families), sources or [""] * len(families)
    n_validation, n_test = _tenths(validation, "validation"), _tenths(test, "test")
    if n_validation + n_test >= _BLOCK:
        raise ValueError(f"validation = {validation} and test = {test} leave no training frames; lower them")
    seen, parts, part_of_run = defaultdict(int), [], {}
    for family, run, source in zip(families, runs, sources, strict=True):
        if run in part_of_run:
            parts.append(part_of_run[run])
            continue
        block, place = divmod(seen[source, family], _BLOCK)
        seen[source, family] += 1
        rank = _shuffled_places(family, block).index(place)
        after = (rank - n_test - seed * n_validation) % (_BLOCK - n_test)
        part = "test" if rank < n_test else "validation" if after < n_validation else "train"
        parts.append(part)
        if run is not None:
            part_of_run[run] = part
    return parts


def split(frames, validation=0.1, test=0.2, seed=0) -> Split:
    """Split frames with `assign`: by run, stratified by source and family.

    Runs that share the same structure (`duplicates.same`) count as one. So the split is unchanged if frames are
    appended, unless they connect two runs. Raises ValueError for fractions that are not whole tenths, and, naming the
    part, if one is left without frames.
    """
    frames = tuple(frames)
    families, sources = ([of(f) for f in frames] for of in (labelled_frames.family, labelled_frames.source))
    runs = connected(frames, duplicates.pairs(frames))
    parts = assign(families, validation, test, runs, sources, seed)
    wanted = {"train": True, "validation": validation > 0, "test": test > 0}
    if empty := [name for name in wanted if wanted[name] and name not in parts]:
        raise ValueError(
            f"{len(frames)} frames leave none for {' and '.join(empty)}: ten runs of one source and config_type give "
            f"each part its share, and here are {_most_runs(runs, families, sources)} at most; add frames, give frames "
            "of one calculation the same source, or cut long runs (`fusedff convert --run-length`)"
        )
    return Split(*(tuple(f for f, p in zip(frames, parts, strict=True) if p == name) for name in Split._fields))


def paper_split(frames) -> Split:
    """The titanium paper's split, in file order: first 70 % train, next 10 % validation, last 20 % test.

    Raises ValueError for fewer than 3 frames.
    """
    frames = tuple(frames)
    n_validation, n_test = max(1, len(frames) // 10), max(1, len(frames) // 5)
    n_train = len(frames) - n_validation - n_test
    if n_train < 1:
        raise ValueError(f"{len(frames)} frames are too few for a 70:10:20 split; give at least 3")
    return Split(frames[:n_train], frames[n_train : n_train + n_validation], frames[n_train + n_validation :])


def _most_runs(runs, families, sources) -> int:
    """Largest number of runs of one source and family."""
    different = {(run, family, source) for run, family, source in zip(runs, families, sources, strict=True)}
    return max(Counter((family, source) for _, family, source in different).values())


def connected(frames: Sequence[ase.Atoms], same: Iterable[tuple[int, int]]) -> list[int]:
    """A number for each frame: the same one for frames of one run, and of runs that share a structure.

    `same` are the `duplicates.pairs` of the frames. A crystal without forces does not connect runs: simulations may
    begin with it and have nothing else in common.
    """
    first_of, pairs = {}, [(i, j) for i, j in same if not _at_rest(frames[i])]
    for n, frame in enumerate(frames):
        if (run := labelled_frames.run(frame)) is not None:
            pairs.append((first_of.setdefault((labelled_frames.source(frame), run), n), n))
    one, other = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (one, other)), shape=(len(frames), len(frames)))
    return connected_components(graph, directed=False)[1].tolist()


def _at_rest(frame) -> bool:
    forces = labelled_frames.calculator_results(frame).get("forces") if frame.calc else None
    return forces is not None and np.abs(forces).max() < AT_REST


def _tenths(fraction: float, name: str) -> int:
    tenths = round(fraction * _BLOCK)
    if abs(tenths - fraction * _BLOCK) > 1e-9 or not 0 <= tenths < _BLOCK:
        raise ValueError(f"{name} = {fraction}: give a whole number of tenths from 0 to 0.9, e.g. 0.1")
    return tenths


def _shuffled_places(family: str, block: int) -> list[int]:
    digest = hashlib.sha256(f"{family}\n{block}".encode()).digest()
    return sorted(range(_BLOCK), key=lambda place: (digest[2 * place : 2 * place + 2], place))
