"""Find frames with the same structure, also after rotation, translation or reordering.

Two frames are the same if their cells have the same lengths and angles and their atoms the same fractional
coordinates, up to a common translation, whole lattice vectors and the order of the atoms: so a rotated, wrapped, sorted
or rounded copy is the same. With other lattice vectors it is another frame; so strains that are equivalent by symmetry,
such as +yz and -yz of hcp, are not duplicates.

Tolerances: 1e-3 Å for atoms, whose positions programs write with three decimals or more, and 3e-4 Å for cell vectors,
with four. Frames that differ on purpose differ by more: in molecular dynamics above 50 K, at least one atom moves by
more than this within 2 fs; finite displacements are 1e-2 Å; cells along an equation of state differ by 3e-3 Å or more
(0.3 % of the volume).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from fusedff.data.labelled_frames import labels
from fusedff.geometry.systems import heights

ATOMS, CELL = 1e-3, 3e-4  # tolerances, Å
NOISE = 1e-5  # eV per atom, by which rounded energies may differ

_WAVES = np.array([h for h in np.ndindex(3, 3, 3) if h > (1, 1, 1)]) - 1  # (13, 3), half of those up to ±1


def check(frames: Sequence[Atoms], where: Sequence[str]) -> None:
    """Raise ValueError if two frames are the same structure, naming a pair; one with different energies comes first.

    `frames` have passed `frame_checks.check_frame`; `where` (n_frames,) names each in messages.
    """
    gaps = {(i, j): abs(labels(frames[i]).energy - labels(frames[j]).energy) / len(frames[i]) for i, j in pairs(frames)}
    if not gaps:
        return
    (i, j), gap = next((found for found in gaps.items() if found[1] > NOISE), next(iter(gaps.items())))
    more = f" (and {len(gaps) - 1} more such pairs)" if len(gaps) > 1 else ""
    if gap > NOISE:
        raise ValueError(
            f"{where[j]}: the same atoms as frame {i}, {gap:.3g} eV per atom apart in energy{more}; keep the right one"
        )
    raise ValueError(f"{where[j]}: the same atoms as frame {i} with the same energy{more}; drop one of them")


def pairs(frames: Sequence[Atoms]) -> Iterator[tuple[int, int]]:
    """Yield (i, j) for every frame j that is the same structure as an earlier frame, with i the first of these.

    Only frames whose invariants agree are compared atom by atom: lengths and angles of the cell, and the moduli of the
    structure factors of 13 waves.
    """
    groups = defaultdict(list)
    for i, frame in enumerate(frames):
        groups[tuple(np.sort(frame.numbers))].append(i)
    for members in (np.array(group) for group in groups.values() if len(group) > 1):
        points = np.array([_invariants(frames[i]) for i in members])
        tree = cKDTree(points)
        for k in range(1, len(members)):
            near = tree.query_ball_point(points[k], 1.0, p=np.inf)
            first = next((m for m in sorted(near) if m < k and same(frames[members[m]], frames[members[k]])), None)
            if first is not None:
                yield int(members[first]), int(members[k])


def same(one: Atoms, two: Atoms, atoms: float = ATOMS, cell: float = CELL) -> bool:
    """Whether two frames of the same composition are the same structure within tolerances (Å)."""
    if np.abs(_gram_lengths(one) - _gram_lengths(two)).max() > cell:
        return False
    first, second = (frame.get_scaled_positions() for frame in (one, two))
    if (one.numbers == two.numbers).all() and np.abs(_from_mean(first - second) @ one.cell.array).max() <= atoms:
        return True
    rarest = min(set(one.numbers.tolist()), key=lambda z: np.sum(one.numbers == z))
    tree = cKDTree(second % 1.0 % 1.0, boxsize=1.0)  # twice, as -1e-17 % 1.0 is 1.0
    # all translations of one atom of the rarest element to those of `two`; most do not fit the first four atoms
    shifts = second[two.numbers == rarest] - first[one.numbers == rarest][0]
    few = (first[:4] + shifts[:, None]) % 1.0 % 1.0
    off = tree.query(few, distance_upper_bound=4 * atoms / heights(one.cell.array).min())[0]
    return any(_lies_on(first + shift, one, tree, second, two, atoms) for shift in shifts[np.isfinite(off).all(1)])


def _lies_on(shifted, one, tree, second, two, atoms) -> bool:
    """Whether every atom of `one`, at the fractional coordinates `shifted`, coincides with one of `two`."""
    _, partner = tree.query(shifted % 1.0 % 1.0)
    if len(set(partner.tolist())) < len(partner) or (one.numbers != two.numbers[partner]).any():
        return False
    off = shifted - second[partner]
    off = (off - np.rint(off)) @ one.cell.array  # the mean is subtracted below, since the shift may be rounded itself
    return bool(np.abs(off - off.mean(0)).max() <= atoms)


def _from_mean(moves):
    """Fractional moves (n, 3) to the nearest image, less their mean."""
    moves = moves - moves[0]
    moves = moves - np.rint(moves)
    return moves - moves.mean(0)


def _gram_lengths(frame) -> np.ndarray:
    """Lengths (6,) in Å of the cell vectors and of their pairwise sums, which determine lengths and angles."""
    a, b, c = frame.cell.array
    return np.linalg.norm([a, b, c, a + b, b + c, c + a], axis=1)


def _invariants(frame) -> np.ndarray:
    """Invariants (19,) under rotation, translation and reordering of atoms; rounding changes each by less than 1."""
    weights = np.sqrt(frame.numbers)
    waves = np.abs(weights @ np.exp(2j * np.pi * frame.get_scaled_positions() @ _WAVES.T))
    # rounding of phases by up to g ATOMS at random: five standard deviations of the sum, but at most its largest value
    wave_vectors = 2 * np.pi * np.linalg.norm(_WAVES @ frame.cell.reciprocal().array, axis=1)
    rounding = wave_vectors * ATOMS * min(3**0.5 * weights.sum(), 2 * np.linalg.norm(weights))
    return np.concatenate([_gram_lengths(frame) / CELL, waves / rounding])
