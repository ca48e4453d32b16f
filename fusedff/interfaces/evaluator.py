"""Energy, forces and stress of one cell at a time, for callers who move its atoms a little between calls."""

import threading
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from fusedff.data.validation import units
from fusedff.geometry import neighbors, systems
from fusedff.potential import Evaluation, Potential
from fusedff.runtime import devices


class Evaluator:
    """Call it with an ASE frame; successive frames of one system reuse neighbours and compiled code.

    Pairs within the cut-off and a skin (Å) are listed on the host by a search whose cost grows like the number of
    atoms, and again when a pair left out could have come within the cut-off. Atoms may jump by lattice vectors
    and the cell may change its shape: the list follows both. Slots are rounded up to a multiple of four and only ever
    grow, so that moving atoms rarely means compiling again. Threads may share one: they take turns. Copies begin anew.
    """

    def __init__(self, potential: Potential, skin: float = 1.0):
        self.potential, self.skin = potential, skin
        self.lock = threading.RLock()
        self.lists_made = 0
        self._candidates = self._slots = 4
        self._frame = self._listed = None
        self._warned = False

    def __call__(self, frame: Atoms) -> Evaluation:
        """Total energy (1,) in double precision, forces (n, 3) and stress (1, 6) of the frame, periodic or not.

        Raises ValueError for an element the potential does not know, for positions that are not finite, for a periodic
        cell without volume and for atoms that overlap; RuntimeError in a process forked after jax had started.
        """
        devices.require_unforked()  # before the lock, which a thread may have held that the fork left behind
        with self.lock:
            return self._result(frame)

    def __reduce__(self):
        return Evaluator, (self.potential, self.skin)

    def _result(self, frame):
        self.potential.require_species(frame.numbers)
        _require_finite(frame)
        frame = systems.folded(_in_a_box(frame))
        if self._listed is None or (positions := self._followed(frame)) is None:
            self._list(frame)
            positions = frame.positions
        dtype = jnp.zeros(()).dtype  # not folded again: the list knows these images
        system = systems.stack(
            jnp.asarray(positions[None], dtype), jnp.asarray(frame.cell.array[None], dtype), frame.numbers
        )
        while True:
            result, needed, nearest, fewest = _evaluate(
                self.potential, system, self._listed, self.potential.cutoff, self._slots
            )
            if int(needed) <= self._slots:
                if nearest < units.MIN_DISTANCE:
                    _refuse_overlap(frame)
                self._mention_extrapolation(float(nearest), int(fewest), int(needed))
                return result._replace(energy=self.potential.total(result.energy, [frame]))
            self._slots = _rounded_up(needed)

    def _mention_extrapolation(self, *configuration):
        """Warn, once, of a configuration far from all that the potential was trained on."""
        covered = self.potential.coverage
        if covered is None or self._warned or not (beyond := covered.beyond(*configuration)):
            return
        self._warned = True
        warnings.warn(f"the potential extrapolates: {beyond}; do not trust its numbers here (said once)", stacklevel=5)

    def _followed(self, frame):
        """Positions in the periodic images that the list knows, or None if a pair may be missing from it.

        With the cell, listed vectors deform by F; what remains of the motion is u. A pair left out was further apart
        than cut-off + skin, so it is now further apart than s (cut-off + skin) - 2 max |u|, s the smallest singular
        value of F.
        """
        then = self._frame
        if len(then) != len(frame) or (then.pbc != frame.pbc).any():
            return None
        deformation = np.linalg.solve(then.cell.array, frame.cell.array)
        carried = then.positions @ deformation
        jumps = np.rint((frame.positions - carried) @ np.linalg.inv(frame.cell.array)) * frame.pbc
        positions = frame.positions - jumps @ frame.cell.array
        moved = np.linalg.norm(positions - carried, axis=1).max(initial=0)
        cutoff, squeeze = self.potential.cutoff, np.linalg.svd(deformation, compute_uv=False).min()
        return positions if squeeze * (cutoff + self.skin) - 2 * moved >= cutoff else None

    def _list(self, frame):
        reach = self.potential.cutoff + self.skin
        try:
            listed = neighbors.from_frames(frame, reach, self._candidates)
        except neighbors.NeighborOverflowError:
            self._candidates = _rounded_up(neighbors.from_frames(frame, reach).needed)
            listed = neighbors.from_frames(frame, reach, self._candidates)
        vectors = frame.positions[listed.source] + listed.image @ frame.cell.array - frame.positions[:, None]
        within = listed.mask & (np.sum(vectors**2, -1) < self.potential.cutoff**2)
        self._slots = max(self._slots, _rounded_up(within.sum(1).max(initial=0)))
        self._frame, self._listed = frame.copy(), jax.device_put(listed)
        self.lists_made += 1


@partial(jax.jit, static_argnames=("cutoff", "slots"))
def _evaluate(potential, system, listed, cutoff, slots):
    near = neighbors.prune(system, listed, cutoff, slots)
    squared = jnp.sum(neighbors.displacements(system, near) ** 2, -1)
    nearest = jnp.sqrt(jnp.min(jnp.where(near.mask, squared, jnp.inf)))
    fewest = jnp.min(jnp.sum(near.mask, 1))
    return potential.evaluate(system, near), near.needed, nearest, fewest


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
