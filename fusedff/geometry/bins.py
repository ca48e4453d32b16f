"""Cell lists: atoms sorted into bins as wide as the cut-off, so that neighbours are searched only in adjacent bins.

Bins are parallelepipeds that divide the lattice vectors, so cells may be triclinic. Bins adjacent across the boundary
belong to periodic images, also where an axis holds only one or two bins and a neighbour occurs in several images.
jax-md's `partition.cell_list` cannot be used here: it needs three bins along every axis, and its lists hold neither
periodic images nor reverse slots.
"""

from math import ceil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.geometry.systems import heights, lattice_points

SLACK = 1.5  # slots of a bin over its mean number of atoms at full capacity: lattice planes fill bins unevenly


class Bins(NamedTuple):
    """Division of a cell into bins, and which bins to search; static and hashable."""

    shape: tuple[int, int, int]  # bins along each lattice vector
    offsets: tuple[tuple[int, int, int], ...]  # of bins to search; the negative of entry m is entry -1 - m
    volume_ratio: float  # volume of a bin over that of a sphere whose radius is the cut-off

    def bin_capacity(self, capacity: int) -> int:
        """Slots to allocate per bin if atoms have up to `capacity` neighbours."""
        return ceil(SLACK * self.volume_ratio * capacity)

    def list_capacity(self, bin_capacity: jax.Array) -> jax.Array:
        """Capacity of neighbour lists, () int32, for which every bin gets at least `bin_capacity` slots."""
        return jnp.ceil(bin_capacity / (SLACK * self.volume_ratio)).astype(jnp.int32) + 1


class Candidates(NamedTuple):
    """Atoms in the bins around each atom: m = n_offsets * bin_capacity columns, ordered by offset."""

    within: jax.Array  # (n, m) bool, whether the slot is filled, by another atom, closer than the cut-off
    source: jax.Array  # (n, m) int32, index of the atom
    image: jax.Array  # (n, n_offsets, 3) int32, periodic images of the bins
    cell_shift: jax.Array  # (n, 3) int32, lattice vectors by which each atom lies outside of the cell
    rank: jax.Array  # (n,) int32, slot of each atom in its bin
    max_in_bin: jax.Array  # () int32, atoms in the fullest bin; if more than `bin_capacity`, some atoms were lost


def divide(cells: np.ndarray, cutoff: float) -> Bins:
    """One division for all of `cells` (..., 3, 3) Å, with bins at least as wide as `cutoff` (Å).

    An axis along which the cell is lower than the cut-off gets a single bin.
    """
    height = heights(cells).reshape(-1, 3).min(0)
    wide = cutoff * (1 + 1e-4)  # single precision may sort an atom into the next bin
    shape = np.maximum(height // wide, 1)
    reach = np.ceil(wide * shape / height - 1e-9).astype(int)
    offsets = lattice_points(reach)
    volume = np.abs(np.linalg.det(np.asarray(cells, float))).max() / shape.prod()
    volume_ratio = float(volume / (4 / 3 * np.pi * cutoff**3))
    return Bins(tuple(shape.astype(int).tolist()), tuple(map(tuple, offsets.tolist())), volume_ratio)


def candidates(positions: jax.Array, cell: jax.Array, cutoff: float, bin_capacity: int, bins: Bins) -> Candidates:
    """Neighbour candidates in one cell: positions (n, 3) Å, cell (3, 3) Å, at most `bin_capacity` atoms in a bin.

    Raises nothing if a bin overflows; compare `max_in_bin` with `bin_capacity`.
    """
    n, shape, offsets = len(positions), jnp.array(bins.shape, jnp.int32), jnp.array(bins.offsets, jnp.int32)
    fractional = positions @ jnp.linalg.inv(cell)
    cell_shift = jnp.floor(fractional)
    bin_index = jnp.clip(((fractional - cell_shift) * shape).astype(jnp.int32), 0, shape - 1)  # (n, 3)
    atom, n_bins = jnp.arange(n, dtype=jnp.int32), int(np.prod(bins.shape))
    bin_of = _flat(bin_index, bins.shape)
    order = jnp.argsort(bin_of)
    first = jnp.searchsorted(bin_of[order], jnp.arange(n_bins)).astype(jnp.int32)
    rank = jnp.zeros(n, jnp.int32).at[order].set(atom - first[bin_of[order]])
    members = jnp.full((n_bins, bin_capacity), n, jnp.int32).at[bin_of, rank].set(atom, mode="drop")

    neighbor = bin_index[:, None] + offsets
    image = jnp.floor_divide(neighbor, shape)
    neighbor = _flat(neighbor - image * shape, bins.shape)  # (n, n_offsets)
    source = members[neighbor]
    # computed once: both atoms of a pair must see the same bits
    wrapped = jax.lax.optimization_barrier(positions - cell_shift @ cell)
    shift = image.astype(cell.dtype) @ cell
    squared = 0
    for axis in range(3):  # r_j - r_i first: for the reversed pair, every number is exactly the negative
        there = wrapped[:, axis].at[members].get(mode="clip")[neighbor]
        squared += (there - wrapped[:, axis, None, None] + shift[..., axis, None]) ** 2
    itself = (source == atom[:, None, None]) & (offsets == 0).all(1)[:, None]
    within = (source < n) & (squared < cutoff**2) & ~itself
    max_in_bin = jnp.max(rank) + 1
    return Candidates(
        within.reshape(n, -1), source.reshape(n, -1), image, cell_shift.astype(jnp.int32), rank, max_in_bin
    )


def _flat(index, shape):
    return (index[..., 0] * shape[1] + index[..., 1]) * shape[2] + index[..., 2]
