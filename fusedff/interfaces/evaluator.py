"""Energy, forces and stress of one cell at a time, for programs that move its atoms a little between calls."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil, log2
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from fusedff.geometry import neighbors, systems
from fusedff.geometry.halo import with_halo
from fusedff.potential import Evaluation, Potential, require_potential
from fusedff.runtime import devices

SPARE_ROWS = 1.05  # rows over atoms in a part, whose number changes as atoms move
SPARE_SLOTS = 1.15  # slots over neighbours, once there were too few: an atom of a hot crystal has more of them


class Evaluator:
    """Function of an ASE frame that reuses neighbour lists and compiled code for successive frames of one system.

    Pairs within the cut-off plus a skin (Å) are listed on the host by a search whose cost grows linearly with the
    number of atoms. They are listed again only when a pair outside the list could be within the cut-off. The list stays
    valid if atoms jump by lattice vectors, and if the cell changes a little. Numbers of rows and slots of the list are
    rounded up, and slots never decrease, so that code is rarely compiled again. Threads that share an evaluator take
    turns; a copy starts without a list.

    It can evaluate a part of the cell, the energies of some atoms and their derivatives: then only these atoms and
    their halo, within the interaction range of the potential, are copied to the device.

    Several potentials of the same species are a committee, whose mean is returned. They share the list and, if they
    differ only in their parameters, the compiled code. Raises TypeError and ValueError like `as_members`.
    """

    def __init__(self, potentials: Potential | Sequence[Potential], skin: float = 1.0):
        self.members, self.skin = as_members(potentials), skin
        self._cutoff = max(member.cutoff for member in self.members)
        self._interaction_range = max(member.interaction_range for member in self.members)
        self.lock = threading.RLock()
        self.lists_made = 0
        self._candidate_capacity = self._capacity = 4
        self._rows = 0  # rows of the list of a part
        self._frame = self._listed = self._own = self._part = None
        self._warned = False

    def __call__(self, frame: Atoms, own: np.ndarray | None = None) -> Evaluation:
        """Total energy (1,) eV in double precision, forces (n, 3) eV/Å and stress (1, 6) eV/Å^3, periodic or not.

        The energy is the total energy, whose shares (n,) of the atoms are `energies`. With `own` (n,) bool, it is the
        sum over these atoms only, and forces and stress are its derivatives; the results of the parts of a cell add up
        to that of the cell. Raises ValueError for a frame without atoms, an element the potential does not know,
        positions that are not finite, a periodic cell without volume and atoms that overlap; RuntimeError in a process
        forked after jax had started.
        """
        return Evaluation(*(np.mean(values, 0) for values in zip(*self.per_member(frame, own), strict=True)))

    def per_member(self, frame: Atoms, own: np.ndarray | None = None) -> list[Evaluation]:
        """Energy, forces and stress by every member of the committee, see `__call__`."""
        devices.require_unforked()  # first: in a forked process, the lock may be held by a thread that was not copied
        with self.lock:
            return self._results(self._checked(frame), own)

    def list_is_valid(self, frame: Atoms) -> bool:
        """Whether the neighbour list of the last call is complete for this frame."""
        with self.lock:
            return self._positions_for_list(self._checked(frame)) is not None

    def __reduce__(self):
        return Evaluator, (self.members, self.skin)

    def _checked(self, frame):
        self.members[0].require_species(frame.numbers)
        _require_finite(frame)
        return systems.wrapped(_in_a_box(frame))

    def _results(self, frame, own):
        if not np.array_equal(own, self._own) or (positions := self._positions_for_list(frame)) is None:
            self._list(frame, own)
            positions = frame.positions
        if len(self._part) == 0:
            n = len(frame)
            return [Evaluation(np.zeros(1), np.zeros((n, 3)), np.zeros((1, 6)), np.zeros(n))] * len(self.members)
        own = np.ones(len(frame), bool) if own is None else np.array(own, bool)
        system, counted = self._laid_out(frame, positions, own)
        return [self._by_member(member, frame, own, system, counted) for member in self.members]

    def _by_member(self, member, frame, own, system, counted):
        while True:
            result, needed, nearest, fewest = _evaluate(
                # energies counted from zero, so that members with other reference energies share the compiled code
                replace(member, reference=(0.0,) * len(member.numbers), source=""),
                system, self._listed, counted, member.cutoff, self._capacity,
            )  # fmt: skip
            if int(needed) <= self._capacity:
                if nearest < neighbors.MIN_DISTANCE:
                    _refuse_overlap(frame)
                self._mention_extrapolation(member, float(nearest), int(fewest), int(needed))
                forces, energies = np.zeros((len(frame), 3)), np.zeros(len(frame))
                forces[self._part] = np.asarray(result.forces)[: len(self._part)]
                energies[self._part] = np.asarray(result.energies)[: len(self._part)]
                energies = np.where(own, energies + member.reference_energies(frame.numbers), 0)
                return Evaluation(
                    member.total(result.energy, [frame[own]]), forces, np.asarray(result.stress), energies
                )
            self._capacity = _rounded_up(SPARE_SLOTS * int(needed))

    def _laid_out(self, frame, positions, own):
        """The system that the list describes, and the mask of its own atoms; padding atoms have no neighbours."""
        fill = self._listed.source.shape[0] - len(self._part)
        positions = np.pad(positions[self._part], ((0, fill), (0, 0)))
        numbers = np.pad(frame.numbers[self._part], (0, fill), mode="edge")
        counted = np.pad(own[self._part], (0, fill))
        # positions are not wrapped again, since the list refers to these images
        # plain NumPy: operations of jax outside of compiled code would take a tenth of the time of a small cell
        one = np.zeros(len(numbers), np.int32)
        return systems.System(positions, frame.cell.array[None], one, numbers.astype(np.int32)), counted

    def _mention_extrapolation(self, member, *configuration):
        """Warn, once, of a configuration outside the `Coverage` of the training frames."""
        covered = member.coverage
        if covered is None or self._warned or not (violation := covered.describe_violation(*configuration)):
            return
        self._warned = True
        warnings.warn(
            f"the potential extrapolates: {violation}; do not trust its numbers here (said once)", stacklevel=7
        )

    def _positions_for_list(self, frame):
        """Positions in the periodic images that the list refers to, or None if a pair may be missing from it.

        F is the deformation of the cell since the list was made, and u the displacement of an atom beyond F. A pair
        outside the list was further apart than cut-off + skin, so it is now further apart than
        s (cut-off + skin) - 2 max |u|, with s the smallest singular value of F. The same holds for atoms outside a
        halo, with the interaction range in place of the cut-off.
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
        lengths = (self._cutoff,) if self._own is None else (self._cutoff, self._interaction_range)
        served = all(squeeze * (length + self.skin) - 2 * moved >= length for length in lengths)
        return positions if served else None

    def _list(self, frame, own):
        n, reach = len(frame), self._cutoff + self.skin
        part, rows, listed = np.arange(n), _rows_for(n), None
        if own is not None:
            own = np.array(own, bool)
            part = with_halo(frame, own, self._interaction_range + self.skin)
            if len(part) > self._rows:
                self._rows = int(SPARE_ROWS * len(part)) + 1
            rows = min(rows, self._rows)
        if len(part):
            atoms = frame[part]
            try:
                listed = neighbors.from_frames(atoms, reach, self._candidate_capacity, rows)
            except neighbors.NeighborOverflowError:
                self._candidate_capacity = self._enlarged(neighbors.from_frames(atoms, reach).needed)
                listed = neighbors.from_frames(atoms, reach, self._candidate_capacity, rows)
            within = listed.mask[: len(part)] & (_squared(atoms, listed) < self._cutoff**2)
            if (needed := within.sum(1).max(initial=0)) > self._capacity:
                self._capacity = self._enlarged(needed)
        self._frame, self._own, self._part, self._listed = frame.copy(), own, part, jax.device_put(listed)
        self.lists_made += 1

    def _enlarged(self, needed):
        """Slots for a first structure, and more than needed for those that follow, which may need still more."""
        return _rounded_up(needed if self._frame is None else SPARE_SLOTS * int(needed))


def as_members(potentials: Potential | Sequence[Potential]) -> tuple[Potential, ...]:
    """One potential, or several of the same species, as a tuple.

    Raises TypeError for an object that is not a `Potential`, and ValueError for an empty sequence and for potentials of
    different species or with energies of different sources.
    """
    several = isinstance(potentials, Sequence) and not isinstance(potentials, str)  # not a name
    members: tuple[Any, ...] = tuple(potentials) if several else (potentials,)
    for member in members:
        require_potential(member)
    if not members:
        raise ValueError("a committee without members; give at least one potential")
    for n, member in enumerate(members):
        if member.source != members[0].source:
            raise ValueError(
                f"energies of member 0 of the committee count from the zero of source {members[0].source!r}, those of "
                f"member {n} from that of {member.source!r}, so that they have no mean; give potentials of one source, "
                "or change it with label_errors.with_zero_of"
            )
        if member.numbers != members[0].numbers:
            known, other = (", ".join(chemical_symbols[z] for z in m.numbers) for m in (members[0], member))
            raise ValueError(f"member 0 of the committee is of {known}, member {n} of {other}; give potentials of one")
    return members


def force_spread(forces: np.ndarray) -> np.ndarray:
    """Standard deviation over a committee of the force on every atom (n_atoms,), from (n_members, n_atoms, 3), eV/Å.

    For vectors F it is the square root of sum |F - mean F|^2 / (n_members - 1).
    """
    return np.sqrt(np.sum(np.var(forces, 0, ddof=1), -1))


def _squared(frame, listed):
    source, image = listed.source[: len(frame)], listed.image[: len(frame)]
    vectors = frame.positions[source] + image @ frame.cell.array - frame.positions[:, None]
    return np.sum(vectors**2, -1)


@partial(jax.jit, static_argnames=("cutoff", "capacity"))
def _evaluate(potential, system, listed, own, cutoff, capacity):
    near = neighbors.prune(system, listed, cutoff, capacity)
    squared = jnp.sum(neighbors.displacements(system, near) ** 2, -1)
    nearest = jnp.sqrt(jnp.min(jnp.where(near.mask, squared, jnp.inf)))
    filled = jnp.sum(near.mask, 1)
    filled = jnp.where(own, filled, near.capacity)  # neighbours are missing at the rim of the halo
    fewest = jnp.min(filled)
    return potential.evaluate(system, near, own), near.needed, nearest, fewest


def _rounded_up(slots) -> int:
    return ceil(slots / 4) * 4


def _rows_for(n: int) -> int:
    """Number of atoms, rounded up by a seventh at most (by 7 below 56), so that many sizes share compiled code."""
    step = max(8, 2 ** int(log2(max(n, 1) / 8)))
    return ceil(n / step) * step


def _refuse_overlap(frame):
    i, j, distance = neighbors.pairs("ijd", frame, 2 * neighbors.MIN_DISTANCE)
    k = distance.argmin()
    raise ValueError(
        f"atoms {i[k]} and {j[k]} (or their images) are {distance[k]:.3f} Å apart, where no potential means anything; "
        "give lengths in Å; in a relaxation or a simulation, the steps are too long, or the potential has left its "
        "training frames"
    )


def _require_finite(frame):
    if len(frame) == 0:
        raise ValueError("no atoms; give at least one")
    lost = np.flatnonzero(~np.isfinite(frame.positions).all(1))
    if len(lost) or not np.isfinite(frame.cell.array).all():
        what = f"atom {lost[0]} ({chemical_symbols[frame.numbers[lost[0]]]})" if len(lost) else "the cell"
        raise ValueError(f"{what} is not at a finite position; in a simulation, use a shorter timestep")


def _in_a_box(frame):
    """The frame with a cell vector along every open direction that lacks one; its length does not matter."""
    if frame.cell.rank == 3:
        return frame
    if not frame.cell.any(1)[frame.pbc].all():
        raise ValueError(
            f"the cell has no volume along a periodic direction (pbc {frame.pbc.tolist()}); give its vector"
        )
    frame = frame.copy()
    frame.cell = frame.cell.complete()
    return frame
