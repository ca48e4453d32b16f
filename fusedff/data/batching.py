"""Batches of labelled frames as arrays: cells concatenated, padded to a common shape, distributed over the devices."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.data import labelled_frames
from fusedff.data.validation import frame_checks
from fusedff.geometry import coverage, neighbors, systems
from fusedff.geometry.coverage import Coverage
from fusedff.geometry.neighbors import Neighbors
from fusedff.geometry.systems import System
from fusedff.runtime import devices


class BatchLabels(NamedTuple):
    """DFT labels of a batch: without nan, 0 where a label is missing or the frame is padding."""

    energy: jax.Array  # (n_frames,) eV
    forces: jax.Array  # (n_atoms, 3) eV/Å
    stress: jax.Array  # (n_frames, 6) eV/Å^3
    n_atoms: jax.Array  # (n_frames,) number of atoms, 0 for padding frames
    use_virial: jax.Array  # (n_frames,) 0 or 1
    weight: jax.Array  # (n_frames,) of the squared errors
    offset_counts: jax.Array  # (n_frames, n_offsets) numbers of atoms per source and element, see `FrameStore`


class Batch(NamedTuple):
    """Frames of a batch as one `System`, with neighbours and labels."""

    system: System
    neighbors: Neighbors
    labels: BatchLabels


class FrameStore:
    """Labelled frames with their neighbour lists, made once; its batches have few shapes, so that little is compiled.

    The energies of a source other than `main` have another zero, which is fitted per element: `offset_of` lists the
    pairs (source, atomic number) of these sources, and `offset_counts` (n_frames, n_offsets) the numbers of atoms of
    each pair. Without `main`, all frames have the same zero. `weight` (n_frames,), of the squared errors, is 1 and may
    be set. `cutoff` is in Å. Raises ValueError for no frames, and like `frame_checks.check_labels`.
    """

    def __init__(self, frames: Sequence[Atoms], cutoff: float, main: str = "", offset_of: Sequence | None = None):
        self.frames = list(frames)
        if not self.frames:
            raise ValueError("no frames: force matching needs at least one labelled frame")
        for n, frame in enumerate(self.frames):
            frame_checks.check_labels(frame, f"frame {n}")
        self.neighbors = [neighbors.from_frames(frame, cutoff) for frame in self.frames]
        self.needed = np.array([near.capacity for near in self.neighbors])  # slots per atom, of each frame
        self.capacity = int(self.needed.max())
        self.sizes = np.array([len(frame) for frame in self.frames])
        self.positions = [systems.wrapped(frame).positions for frame in self.frames]
        found = [labelled_frames.labels(frame) for frame in self.frames]
        self.energy = np.array([label.energy for label in found])
        self.forces = [label.forces for label in found]
        self.stress = np.nan_to_num([label.stress for label in found])
        self.use_virial = np.array([float(labelled_frames.use_virial(f)) for f in self.frames])
        self.sources = [labelled_frames.source(frame) for frame in self.frames]
        self.weight = np.ones(len(self.frames))
        found = {(s, int(z)) for s, f in zip(self.sources, self.frames, strict=True) for z in f.numbers if s != main}
        self.offset_of = sorted(found if main else ()) if offset_of is None else list(offset_of)
        self.offset_counts = labelled_frames.count_atoms(self.frames, self.offset_of)

    def labels(self) -> list[labelled_frames.Labels]:
        """Labels of every frame; energies as this store has them (reference energies may have been subtracted).

        The stress is nan where it is not used.
        """
        stress = np.where(self.use_virial[:, None] > 0, self.stress, np.nan)
        return [labelled_frames.Labels(*one) for one in zip(self.energy, self.forces, stress, strict=True)]

    def coverage(self) -> Coverage:
        """Smallest distance (Å) and numbers of neighbours in all frames."""
        return coverage.of_frames(self.frames, self.neighbors)

    def capacities(self) -> np.ndarray:
        """Slots per atom to use for each frame (n_frames,): at most two values, with the smallest sum of atoms x slots.

        Frames of compressed cells need twice the slots of others, and the cost of a batch grows with its slots.
        """
        candidates = np.unique(self.needed)
        cost = [self.sizes @ np.where(self.needed <= low, low, self.capacity) for low in candidates]
        low = candidates[int(np.argmin(cost))]
        return np.where(self.needed <= low, low, self.capacity)

    def partition(self, indices) -> list[np.ndarray]:
        """Divide the frames `indices` among the devices: numbers of frames differ by one at most, atoms by little."""
        by_size, n = np.argsort(-self.sizes[indices], kind="stable"), devices.device_count()
        return [indices[np.sort(by_size[k::n])] for k in range(n)]

    def max_atoms_per_device(self, batches: Sequence[np.ndarray]) -> int:
        """Largest number of atoms that any of `batches` (indices) gives to a device."""
        return max(int(self.sizes[share].sum()) for indices in batches for share in self.partition(indices))

    def balanced(self, indices, n_batches: int, rng: np.random.Generator | None = None) -> list[np.ndarray]:
        """Divide the frames `indices` into `n_batches` batches of about equally many atoms, shuffled by `rng`.

        Frames are assigned from the largest to the smallest, each to the batch that has fewest atoms so far.
        """
        indices = np.asarray(indices) if rng is None else rng.permutation(indices)
        batches, queue = [[] for _ in range(n_batches)], [(0, n) for n in range(n_batches)]
        for index in indices[np.argsort(-self.sizes[indices], kind="stable")]:
            atoms, n = heapq.heappop(queue)
            batches[n].append(index)
            heapq.heappush(queue, (atoms + int(self.sizes[index]), n))
        return [np.array(batch) for batch in batches]

    def device_batches(self, indices, n_frames: int, n_atoms: int, capacity: int | None = None) -> list[Batch]:
        """One batch for every device, in NumPy arrays, from up to `n_frames` frames; each is padded to `n_atoms` atoms.

        `capacity` is that of `collate`.
        """
        n_frames = -(-n_frames // devices.device_count())
        return [self.collate(share, n_frames, n_atoms, capacity) for share in self.partition(indices)]

    def batch(self, indices, n_frames: int, n_atoms: int) -> Batch:
        """Batch of the frames `indices` in JAX arrays, padded to `n_frames` cells and `n_atoms` atoms."""
        return jax.tree.map(jnp.asarray, self.collate(indices, n_frames, n_atoms))

    def collate(self, indices, n_frames, n_atoms, capacity=None) -> Batch:
        """`batch` in NumPy arrays; `capacity` is the number of slots per atom, by default enough for all frames.

        `n_atoms` and `capacity` must suffice for these frames.
        """
        starts = np.cumsum([0, *self.sizes[indices]])
        capacity = self.capacity if capacity is None else int(capacity)
        assert starts[-1] <= n_atoms
        assert self.needed[indices].max(initial=0) <= capacity
        positions, forces = np.zeros((2, n_atoms, 3))
        cells = np.tile(np.eye(3), (n_frames, 1, 1))
        cell_index = np.full(n_atoms, n_frames, np.int32)
        numbers = np.full(n_atoms, self.frames[0].numbers[0], np.int32)
        source = np.repeat(np.arange(n_atoms, dtype=np.int32)[:, None], capacity, 1)
        image = np.zeros((n_atoms, capacity, 3), np.int32)
        reverse = np.arange(n_atoms * capacity, dtype=np.int32).reshape(n_atoms, capacity)
        mask = np.zeros((n_atoms, capacity), bool)
        for cell, (index, start) in enumerate(zip(indices, starts[:-1], strict=True)):
            frame, near, here = self.frames[index], self.neighbors[index], slice(start, start + self.sizes[index])
            positions[here], forces[here] = self.positions[index], self.forces[index]
            # a molecule needs no cell; its volume, by which stresses are divided, does not matter
            cells[cell], cell_index[here], numbers[here] = frame.cell.complete().array, cell, frame.numbers
            own = near.capacity  # of this frame, not more than in the batch
            source[here, :own] = near.source + start
            image[here, :own], mask[here, :own] = near.image, near.mask
            reverse[here, :own] = (near.reverse // own + start) * capacity + near.reverse % own
        pad = n_frames - len(indices)
        labels = BatchLabels(
            np.pad(self.energy[indices], (0, pad)),
            forces,
            np.pad(self.stress[indices], ((0, pad), (0, 0))),
            np.pad(self.sizes[indices], (0, pad)).astype(float),
            np.pad(self.use_virial[indices], (0, pad)),
            np.pad(self.weight[indices], (0, pad)),
            np.pad(self.offset_counts[indices], ((0, pad), (0, 0))),
        )
        system = System(positions, cells, cell_index, numbers)
        dtype = jnp.zeros(()).dtype
        batch = Batch(system, Neighbors(source, image, reverse, mask, np.int32(capacity)), labels)
        return jax.tree.map(lambda x: np.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None), batch)
