"""Energy, forces and stress of one cell at a time, for callers who move its atoms a little between calls."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from fusedff.data.validation import units
from fusedff.geometry import neighbors, systems
from fusedff.geometry.halo import with_halo
from fusedff.potential import Evaluation, Potential
from fusedff.runtime import devices

SPARE_ROWS = 1.05  # room for the atoms of a part, whose number changes as atoms move


class Evaluator:
    """Call it with an ASE frame; successive frames of one system reuse neighbours and compiled code.

    Pairs within the cut-off and a skin (Å) are listed on the host by a search whose cost grows like the number of
    atoms, and again when a pair left out could have come within the cut-off. Atoms may jump by lattice vectors
    and the cell may change its shape: the list follows both. Slots are rounded up to a multiple of four and only ever
    grow, so that moving atoms rarely means compiling again. Threads may share one: they take turns. Copies begin anew.

    It can evaluate a part of the cell, the energies of some atoms and their derivatives: then only these atoms and
    their halo, within the reach of the potential, are laid out on the device.

    Several potentials of the same species are a committee, whose mean is returned. They share the list and, if they
    differ in parameters alone, the compiled code. Raises ValueError for none, and for potentials of other species.
    """

    def __init__(self, potentials: Potential | Sequence[Potential], skin: float = 1.0):
        self.members, self.skin = committee(potentials), skin
        self._cutoff = max(member.cutoff for member in self.members)
        self._reach = max(member.reach for member in self.members)
        self.lock = threading.RLock()
        self.lists_made = 0
        self._candidates = self._slots = 4
        self._rows = 0  # atoms there is room for in a part
        self._frame = self._listed = self._own = self._part = None
        self._warned = False

    def __call__(self, frame: Atoms, own: np.ndarray | None = None) -> Evaluation:
        """Total energy (1,) in double precision, forces (n, 3) and stress (1, 6) of the frame, periodic or not.

        With `own` (n,) bool, those of the energies of these atoms alone: sums over the parts of a cell are the whole.
        Raises ValueError for an element the potential does not know, for positions that are not finite, for a periodic
        cell without volume and for atoms that overlap; RuntimeError in a process forked after jax had started.
        """
        return Evaluation(*(np.mean(values, 0) for values in zip(*self.each(frame, own), strict=True)))

    def each(self, frame: Atoms, own: np.ndarray | None = None) -> list[Evaluation]:
        """Energy, forces and stress by every member of the committee, see `__call__`."""
        devices.require_unforked()  # before the lock, which a thread may have held that the fork left behind
        with self.lock:
            return self._results(self._checked(frame), own)

    def follows(self, frame: Atoms) -> bool:
        """Whether the list of the last call serves this frame."""
        with self.lock:
            return self._followed(self._checked(frame)) is not None

    def __reduce__(self):
        return Evaluator, (self.members, self.skin)

    def _checked(self, frame):
        self.members[0].require_species(frame.numbers)
        _require_finite(frame)
        return systems.folded(_in_a_box(frame))

    def _results(self, frame, own):
        if not np.array_equal(own, self._own) or (positions := self._followed(frame)) is None:
            self._list(frame, own)
            positions = frame.positions
        if len(self._part) == 0:
            return [Evaluation(np.zeros(1), np.zeros((len(frame), 3)), np.zeros((1, 6)))] * len(self.members)
        system, counted = self._laid_out(frame, positions)
        return [self._of(member, frame, own, system, counted) for member in self.members]

    def _of(self, member, frame, own, system, counted):
        while True:
            result, needed, nearest, fewest = _evaluate(
                # energies counted from zero, so that members with other reference energies share the compiled code
                replace(member, reference=(0.0,) * len(member.numbers), source=""),
                system, self._listed, counted, member.cutoff, self._slots,
            )  # fmt: skip
            if int(needed) <= self._slots:
                if nearest < units.MIN_DISTANCE:
                    _refuse_overlap(frame)
                self._mention_extrapolation(member, float(nearest), int(fewest), int(needed))
                mine = frame if own is None else frame[own]
                forces = np.zeros((len(frame), 3))
                forces[self._part] = np.asarray(result.forces)[: len(self._part)]
                return Evaluation(member.total(result.energy, [mine]), forces, np.asarray(result.stress))
            self._slots = _rounded_up(needed)

    def _laid_out(self, frame, positions):
        """The system that the list is of, and which of its atoms count; those that fill its rows up have no pairs."""
        fill = self._listed.source.shape[0] - len(self._part)
        positions = np.pad(positions[self._part], ((0, fill), (0, 0)))
        numbers = np.pad(frame.numbers[self._part], (0, fill), mode="edge")
        counted = None if self._own is None else np.pad(self._own[self._part], (0, fill))
        dtype = jnp.zeros(()).dtype  # not folded again: the list knows these images
        cell = jnp.asarray(frame.cell.array[None], dtype)
        return systems.stack(jnp.asarray(positions[None], dtype), cell, numbers), counted

    def _mention_extrapolation(self, member, *configuration):
        """Warn, once, of a configuration far from all that a potential was trained on."""
        covered = member.coverage
        if covered is None or self._warned or not (beyond := covered.beyond(*configuration)):
            return
        self._warned = True
        warnings.warn(f"the potential extrapolates: {beyond}; do not trust its numbers here (said once)", stacklevel=7)

    def _followed(self, frame):
        """Positions in the periodic images that the list knows, or None if a pair may be missing from it.

        With the cell, listed vectors deform by F; what remains of the motion is u. A pair left out was further apart
        than cut-off + skin, so it is now further apart than s (cut-off + skin) - 2 max |u|, s the smallest singular
        value of F. So it is for atoms left out of a halo, with the reach in place of the cut-off.
        """
        then = self._frame
        if then is None or len(then) != len(frame) or (then.pbc != frame.pbc).any():
            return None
        deformation = np.linalg.solve(then.cell.array, frame.cell.array)
        carried = then.positions @ deformation
        jumps = np.rint((frame.positions - carried) @ np.linalg.inv(frame.cell.array)) * frame.pbc
        positions = frame.positions - jumps @ frame.cell.array
        moved = np.linalg.norm(positions - carried, axis=1).max(initial=0)
        squeeze = np.linalg.svd(deformation, compute_uv=False).min()
        lengths = (self._cutoff,) if self._own is None else (self._cutoff, self._reach)
        served = all(squeeze * (length + self.skin) - 2 * moved >= length for length in lengths)
        return positions if served else None

    def _list(self, frame, own):
        n, reach = len(frame), self._cutoff + self.skin
        part, rows, listed = np.arange(n), n, None
        if own is not None:
            own = np.array(own, bool)
            part = with_halo(frame, own, self._reach + self.skin)
            if len(part) > self._rows:
                self._rows = int(SPARE_ROWS * len(part)) + 1
            rows = min(n, self._rows)
        if len(part):
            atoms = frame[part]
            try:
                listed = neighbors.from_frames(atoms, reach, self._candidates, rows)
            except neighbors.NeighborOverflowError:
                self._candidates = _rounded_up(neighbors.from_frames(atoms, reach).needed)
                listed = neighbors.from_frames(atoms, reach, self._candidates, rows)
            within = listed.mask[: len(part)] & (_squared(atoms, listed) < self._cutoff**2)
            self._slots = max(self._slots, _rounded_up(within.sum(1).max(initial=0)))
        self._frame, self._own, self._part, self._listed = frame.copy(), own, part, jax.device_put(listed)
        self.lists_made += 1


def committee(potentials: Potential | Sequence[Potential]) -> tuple[Potential, ...]:
    """One potential, or several of the same species, as a tuple.

    Raises TypeError for what is no potential, and ValueError for none at all and for potentials of other species.
    """
    several = isinstance(potentials, Sequence) and not isinstance(potentials, str)  # not a name
    members: tuple[Any, ...] = tuple(potentials) if several else (potentials,)
    for member in members:
        if not isinstance(member, Potential):
            raise TypeError(f"{member!r} is no potential; give one, as fusedff.load returns it")
    if not members:
        raise ValueError("a committee without members; give at least one potential")
    for n, member in enumerate(members):
        if member.numbers != members[0].numbers:
            known, other = (", ".join(chemical_symbols[z] for z in m.numbers) for m in (members[0], member))
            raise ValueError(f"member 0 of the committee is of {known}, member {n} of {other}; give potentials of one")
    return members


def force_spread(forces: np.ndarray) -> np.ndarray:
    """Standard deviation over a committee of the force on every atom (n_atoms,), from (n_members, n_atoms, 3), eV/Å.

    It is of vectors: the root of sum |F - mean F|^2 / (n_members - 1).
    """
    return np.sqrt(np.sum(np.var(forces, 0, ddof=1), -1))


def _squared(frame, listed):
    source, image = listed.source[: len(frame)], listed.image[: len(frame)]
    vectors = frame.positions[source] + image @ frame.cell.array - frame.positions[:, None]
    return np.sum(vectors**2, -1)


@partial(jax.jit, static_argnames=("cutoff", "slots"))
def _evaluate(potential, system, listed, own, cutoff, slots):
    near = neighbors.prune(system, listed, cutoff, slots)
    squared = jnp.sum(neighbors.displacements(system, near) ** 2, -1)
    nearest = jnp.sqrt(jnp.min(jnp.where(near.mask, squared, jnp.inf)))
    filled = jnp.sum(near.mask, 1)
    if own is not None:
        filled = jnp.where(own, filled, near.capacity)  # neighbours are missing at the rim of the halo
    fewest = jnp.min(filled)
    return potential.evaluate(system, near, own), near.needed, nearest, fewest


def _rounded_up(slots) -> int:
    return -(-int(slots) // 4) * 4


def _refuse_overlap(frame):
    i, j, distance = neighbors.pairs("ijd", frame, 2 * units.MIN_DISTANCE)
    k = distance.argmin()
    raise ValueError(
        f"atoms {i[k]} and {j[k]} (or their images) are {distance[k]:.3f} Å apart, where no potential means anything; "
        "give lengths in Å, or use a shorter timestep"
    )


def _require_finite(frame):
    if len(frame) == 0:
        raise ValueError("no atoms; give at least one")
    lost = np.flatnonzero(~np.isfinite(frame.positions).all(1))
    if len(lost) or not np.isfinite(frame.cell.array).all():
        what = f"atom {lost[0]} ({chemical_symbols[frame.numbers[lost[0]]]})" if len(lost) else "the cell"
        raise ValueError(f"{what} is not at a finite position; the run has blown up, use a shorter timestep")


def _in_a_box(frame):
    """Directions without periodicity may lack a cell vector; any will do, their images are never neighbours."""
    if frame.cell.rank == 3:
        return frame
    if not frame.cell.any(1)[frame.pbc].all():
        raise ValueError(
            f"the cell has no volume along a periodic direction (pbc {frame.pbc.tolist()}); give its vector"
        )
    frame = frame.copy()
    frame.cell = frame.cell.complete()
    return frame
