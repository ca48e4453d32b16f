"""Batches of labelled frames as arrays: cells laid end to end, padded to one shape, dealt to the devices."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.data import frames as labelled
from fusedff.geometry import neighbors, systems
from fusedff.geometry.neighbors import Neighbors
from fusedff.geometry.systems import System
from fusedff.runtime import devices


class Labels(NamedTuple):
    """DFT labels of a batch: nan-free; weights are 0 where a label is missing or the frame is padding."""

    energy: jax.Array  # (n_frames,) eV
    forces: jax.Array  # (n_atoms, 3) eV/Å
    stress: jax.Array  # (n_frames, 6) eV/Å^3
    atoms: jax.Array  # (n_frames,) number of atoms, 0 for padding frames
    has_virial: jax.Array  # (n_frames,) 0 or 1


class Batch(NamedTuple):
    system: System
    neighbors: Neighbors
    labels: Labels


class FrameStore:
    """Frames with neighbours found once; batches of one shape are cut from it, so nothing is compiled twice."""

    def __init__(self, frames: Sequence[Atoms], cutoff: float):
        self.frames = list(frames)
        if not self.frames:
            raise ValueError("no frames: force matching needs at least one labelled frame")
        for n, frame in enumerate(self.frames):
            labelled.check_labels(frame, f"frame {n}")
        pairs = [neighbors.from_frames(frame, cutoff) for frame in self.frames]
        self.capacity = max(int(p.needed) for p in pairs)
        self.neighbors = [neighbors.from_frames(f, cutoff, self.capacity) for f in self.frames]
        self.sizes = np.array([len(frame) for frame in self.frames])
        found = [labelled.labels(frame) for frame in self.frames]
        self.energy = np.array([label.energy for label in found])
        self.forces = [label.forces for label in found]
        self.stress = np.nan_to_num([label.stress for label in found])
        self.has_virial = np.array([float(labelled.use_virial(f)) for f in self.frames])

    def partition(self, indices) -> list[np.ndarray]:
        """The frames `indices` in one share for every device: equally many frames, about as many atoms."""
        by_size, n = np.argsort(-self.sizes[indices], kind="stable"), devices.count()
        return [indices[np.sort(by_size[k::n])] for k in range(n)]

    def fullest(self, batches: Sequence[np.ndarray]) -> int:
        """Atoms of the fullest share of any of `batches`."""
        return max(int(self.sizes[share].sum()) for indices in batches for share in self.partition(indices))

    def device_batches(self, indices, n_frames: int, n_atoms: int) -> list[Batch]:
        """A batch of up to `n_frames` frames in NumPy arrays, as one batch of `n_atoms` atoms for every device."""
        n_frames = -(-n_frames // devices.count())
        return [self.collate(share, n_frames, n_atoms) for share in self.partition(indices)]

    def batch(self, indices, n_frames: int, n_atoms: int) -> Batch:
        """The frames `indices` laid end to end, padded to `n_frames` cells and `n_atoms` atoms."""
        return jax.tree.map(jnp.asarray, self.collate(indices, n_frames, n_atoms))

    def collate(self, indices, n_frames, n_atoms):
        starts = np.cumsum([0, *self.sizes[indices]])
        used, capacity = starts[-1], self.capacity
        positions, forces = np.zeros((2, n_atoms, 3))
        cells = np.tile(np.eye(3), (n_frames, 1, 1))
        cell_index = np.full(n_atoms, n_frames, np.int32)
        numbers = np.full(n_atoms, self.frames[0].numbers[0], np.int32)
        source = np.repeat(np.arange(n_atoms, dtype=np.int32)[:, None], capacity, 1)
        image = np.zeros((n_atoms, capacity, 3), np.int32)
        reverse = np.arange(n_atoms * capacity, dtype=np.int32).reshape(n_atoms, capacity)
        mask = np.zeros((n_atoms, capacity), bool)
        for cell, (index, start) in enumerate(zip(indices, starts[:-1], strict=True)):
            frame, near, here = (
                self.frames[index],
                self.neighbors[index],
                slice(start, start + self.sizes[index]),
            )
            positions[here], forces[here] = systems.folded(frame).positions, self.forces[index]
            cells[cell], cell_index[here], numbers[here] = frame.cell.array, cell, frame.numbers
            source[here], image[here], mask[here] = near.source + start, near.image, near.mask
            reverse[here] = near.reverse + start * capacity
        pad = n_frames - len(indices)
        labels = Labels(
            np.pad(self.energy[indices], (0, pad)),
            forces,
            np.pad(self.stress[indices], ((0, pad), (0, 0))),
            np.pad(self.sizes[indices], (0, pad)).astype(float),
            np.pad(self.has_virial[indices], (0, pad)),
        )
        system = System(positions, cells, cell_index, numbers)
        dtype = jnp.zeros(()).dtype
        batch = Batch(system, Neighbors(source, image, reverse, mask, np.int32(capacity)), labels)
        assert used <= n_atoms
        return jax.tree.map(lambda x: np.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None), batch)
