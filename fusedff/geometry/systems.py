"""Periodic cells of atoms as flat arrays: any number of cells, each with its own box, in one batch."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms


class System(NamedTuple):
    """One or more periodic cells, concatenated along the axis of atoms.

    Cells of different sizes share a batch without being padded to one size; `cell_index` is the cell of each atom.
    Padding atoms, at the end of the batch, have `cell_index == n_cells`.
    """

    positions: jax.Array  # (n_atoms, 3) Å, in or near the cell
    cells: jax.Array  # (n_cells, 3, 3) Å, rows are lattice vectors
    cell_index: jax.Array  # (n_atoms,) int32
    numbers: jax.Array  # (n_atoms,) int32, atomic numbers

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.cells.shape[0]

    @property
    def volumes(self) -> jax.Array:
        """Cell volumes (n_cells,), Å^3."""
        return jnp.abs(jnp.linalg.det(self.cells))

    def per_cell(self, per_atom: jax.Array) -> jax.Array:
        """Sum a per-atom array (n_atoms, ...) over the atoms of each cell: (n_cells, ...)."""
        return jax.ops.segment_sum(per_atom, self.cell_index, self.n_cells + 1)[: self.n_cells]

    def per_atom(self, per_cell: jax.Array) -> jax.Array:
        """Give every atom the entry of its cell in (n_cells, ...): (n_atoms, ...); padding atoms get the last one."""
        return per_cell[jnp.minimum(self.cell_index, self.n_cells - 1)]


def heights(cells: np.ndarray) -> np.ndarray:
    """Distances (..., 3) between opposite faces of cells (..., 3, 3), in the same unit.

    1e-90 for a flat cell, so that one can divide by them.
    """
    a, b, c = np.moveaxis(np.asarray(cells, float), -2, 0)
    faces = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], -2)
    volume = np.abs(np.sum(a * faces[..., 0, :], -1))[..., None]
    return np.maximum(volume / np.maximum(np.linalg.norm(faces, axis=-1), 1e-300), 1e-90)


def lattice_points(reach) -> np.ndarray:
    """Integer vectors (n, 3), components up to `reach` (3,) in size; the negative of entry m is entry n - 1 - m."""
    return np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1).reshape(-1, 3)


def wrapped(frame: Atoms) -> Atoms:
    """The frame with its atoms shifted by whole lattice vectors into or near the cell, in double precision.

    At 10^4 lattice vectors from the origin, single precision resolves only 0.002 Å. Atoms in the cell, or outside by
    less than half a lattice vector, stay where they are; along an open direction all atoms shift alike. Returns the
    frame itself if nothing shifts. All code that copies positions of frames to a device calls this function, and so
    does the search for neighbours, so that both refer to the same periodic images.
    """
    cell = frame.cell.complete()
    if not np.linalg.det(cell.array):
        return frame  # the search for its neighbours raises an error
    fractional = np.linalg.solve(cell.array.T, frame.positions.T).T
    fractional[:, ~frame.pbc] = fractional[:, ~frame.pbc].mean(0)
    shift = np.trunc(fractional - 0.5)
    if not shift.any():
        return frame
    frame = frame.copy()
    frame.positions -= shift @ cell.array
    return frame


def from_atoms(frames: Sequence[Atoms] | Atoms, dtype=None) -> System:
    """One `System` of the given ASE frames, `wrapped`; `dtype` defaults to jax's default float."""
    frames = [wrapped(frame) for frame in ([frames] if isinstance(frames, Atoms) else frames)]
    dtype = dtype or jnp.zeros(()).dtype
    sizes = [len(frame) for frame in frames]
    return System(
        jnp.asarray(np.concatenate([frame.positions for frame in frames]), dtype),
        jnp.asarray(np.stack([frame.cell.array for frame in frames]), dtype),
        jnp.asarray(np.repeat(np.arange(len(frames)), sizes), jnp.int32),
        jnp.asarray(np.concatenate([frame.numbers for frame in frames]), jnp.int32),
    )


@jax.jit
def stack(positions: jax.Array, cells: jax.Array, numbers: jax.Array) -> System:
    """One `System` of cells of the same atoms: positions (n_cells, n, 3) Å, cells (n_cells, 3, 3) Å, numbers (n,)."""
    n_cells, n, _ = positions.shape
    cell_index = jnp.repeat(jnp.arange(n_cells, dtype=jnp.int32), n)
    return System(
        positions.reshape(n_cells * n, 3), cells, cell_index, jnp.tile(jnp.asarray(numbers, jnp.int32), n_cells)
    )
