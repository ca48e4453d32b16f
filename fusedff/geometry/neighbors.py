"""Dense neighbour slots with explicit periodic images, for cells of any shape and size.

Every atom has `capacity` slots; slot `b` of atom `i` holds one neighbour `j` in one periodic image.
The same pair seen from `j` sits in the *reverse slot*. With both at hand, everything that would be a
scatter becomes a gather, and nothing can overflow but the slots themselves, which `needed` reports.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from jax.custom_derivatives import linear_call

from fusedff.geometry.systems import System, folded


class Neighbors(NamedTuple):
    """Neighbour slots of all atoms of a `System`; empty slots point at their own atom and at themselves."""

    source: jax.Array  # (n_atoms, capacity) int32, the neighbour in each slot
    image: jax.Array  # (n_atoms, capacity, 3) int32, its periodic image in lattice vectors
    reverse: jax.Array  # (n_atoms, capacity) int32, flat index of the slot that holds the reversed pair
    mask: jax.Array  # (n_atoms, capacity) bool, whether the slot is filled
    needed: jax.Array  # () int32, slots the fullest atom needs; more than `capacity` means pairs were lost

    @property
    def capacity(self) -> int:
        return self.source.shape[1]


class NeighborOverflowError(RuntimeError):
    """An atom has more neighbours than slots."""


def require_room(neighbors: Neighbors) -> None:
    """Raise `NeighborOverflowError` if any pair was lost (call it outside jit)."""
    if int(neighbors.needed) > neighbors.capacity:
        raise NeighborOverflowError(
            f"an atom has {int(neighbors.needed)} neighbours but only {neighbors.capacity} slots; "
            f"rebuild with capacity >= {int(neighbors.needed)}"
        )


def displacements(system: System, neighbors: Neighbors) -> jax.Array:
    """Vectors from each atom to its neighbours, r_j + image - r_i: (n_atoms, capacity, 3), Å."""
    positions = system.positions
    cells = system.cells[jnp.minimum(system.cell_index, system.n_cells - 1)]
    images = jnp.einsum("abx,axy->aby", neighbors.image.astype(positions.dtype), cells)
    return positions[neighbors.source] + images - positions[:, None, :]


def swap_direction(x: jax.Array, reverse: jax.Array) -> jax.Array:
    """Give every slot what its reverse slot holds: x (n_atoms, capacity, ...).

    The map is its own inverse and its own transpose, so differentiating it is another gather, at any
    order, where jax would scatter. It cannot be vmapped: lay cells end to end in one System instead.
    """
    flat = x.reshape(reverse.size, -1)

    def gather(index, values):
        return jnp.take(values, index, axis=0, mode="clip", unique_indices=True)

    return linear_call(gather, gather, reverse.reshape(-1), flat).reshape(x.shape)


def image_offsets(cells: np.ndarray, cutoff: float) -> np.ndarray:
    """Lattice translations (n_images, 3) to search beyond the nearest image, enough for each of `cells` (..., 3, 3).

    (0, 0, 0) alone for large cells. Sorted so that the negative of entry `m` is entry `n_images - 1 - m`.
    """
    reach = np.floor(cutoff / _heights(cells) + 0.5).reshape(-1, 3).max(0)
    _require_few(cells, cutoff, np.prod(2 * reach + 1))
    reach = reach.astype(int)
    return np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1).reshape(-1, 3)


MOST_IMAGES, MOST_NEIGHBORS = 30_000, 10_000  # of a cell and of an atom; more is another unit, or a flat cell
LARGEST_CELL = 1e6  # Å


def pairs(quantities: str, frame: Atoms, cutoff: float, where: str = ""):
    """ASE's `neighbor_list` of a frame, for cells of which it comes to its end.

    Raises ValueError, which `where` begins, for a cell so small or so flat that more than `MOST_IMAGES` images or
    `MOST_NEIGHBORS` atoms lie within the cut-off (Å) of an atom, and for one longer than `LARGEST_CELL`.
    """
    if (longest := frame.cell.lengths().max()) > LARGEST_CELL:
        raise ValueError(f"{where}the cell is {longest:.3g} Å long; give lengths in Å")
    if frame.pbc.any():
        cell = frame.cell.complete().array
        images = np.prod((2 * np.ceil(cutoff / _heights(cell)) + 1)[frame.pbc])
        _require_few(cell, cutoff, images, where)
        if frame.pbc.all():
            _require_few(cell, cutoff, len(frame) * 4 / 3 * np.pi * cutoff**3 / frame.get_volume(), where, "atoms")
    return neighbor_list(quantities, frame, float(cutoff))


def _heights(cells):
    """Distances (..., 3) between opposite faces of cells, 0 where they are flat."""
    a, b, c = np.moveaxis(np.asarray(cells, float), -2, 0)
    faces = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], -2)
    volume = np.abs(np.sum(a * faces[..., 0, :], -1))[..., None]
    return np.maximum(volume / np.maximum(np.linalg.norm(faces, axis=-1), 1e-300), 1e-90)


def _require_few(cells, cutoff, number, where="", of="images"):
    if not number <= (MOST_IMAGES if of == "images" else MOST_NEIGHBORS):
        lowest = _heights(cells).min()
        raise ValueError(
            f"{where}the cell is {lowest:.3g} Å high, with {number:.3g} periodic {of} within {cutoff:g} Å of an atom; "
            "give lengths in Å and three lattice vectors that are not nearly in a plane"
        )


def static_offsets(cells: np.ndarray, cutoff: float) -> tuple[tuple[int, int, int], ...]:
    """`image_offsets` in a form that can be hashed, as static arguments of compiled functions must be."""
    return tuple(map(tuple, image_offsets(cells, cutoff).tolist()))


def _compact(within, reverse, capacity):
    """Gather the True columns of `within` (n, m) into `capacity` slots: column, mask, reverse, needed.

    `reverse` (n, m) holds the flat index, in `within`, of every candidate's reversed pair.
    """
    n, m = within.shape
    running = jnp.cumsum(within.astype(jnp.int32), axis=1)
    wanted = jnp.arange(1, capacity + 1, dtype=jnp.int32)
    column = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(running).astype(jnp.int32)
    column = jnp.minimum(column, m - 1)
    mask = wanted[None, :] <= running[:, -1:]
    there = jnp.take_along_axis(reverse, column, axis=1)  # flat index of the reversed candidate
    slot = running.reshape(-1)[there] - 1
    own = jnp.arange(n * capacity, dtype=jnp.int32).reshape(n, capacity)
    reverse_slot = jnp.where(mask & (slot < capacity), there // m * capacity + slot, own)
    return column, mask, reverse_slot, jnp.max(running[:, -1])


def _within(positions, cell, cutoff, images):
    """Of all n^2 pairs in every image, which are closer than `cutoff` (n, n * n_images), and the nearest images."""
    n, n_images = positions.shape[0], len(images)
    fractional = positions @ jnp.linalg.inv(cell)
    delta = fractional[None, :, :] - fractional[:, None, :]
    nearest = -jnp.round(delta)
    # one axis of space after the other: over (n, n, n_images) as innermost dimension, three numbers are no vector
    pair, image = (delta + nearest) @ cell, jnp.asarray(images, positions.dtype) @ cell
    squared = sum((pair[:, :, None, axis] + image[:, axis]) ** 2 for axis in range(3))
    itself = jnp.eye(n, dtype=bool)[:, :, None] & jnp.asarray((images == 0).all(1))
    return ((squared < cutoff**2) & ~itself).reshape(n, n * n_images), nearest


@partial(jax.jit, static_argnames="images")
def fullest(system: System, cutoff: float, images: tuple[tuple[int, int, int], ...]) -> jax.Array:
    """Neighbours within `cutoff` (Å) of the atom that has most, in any of cells with as many atoms each: ()."""
    positions = system.positions.reshape(system.n_cells, -1, 3)
    within, _ = jax.vmap(lambda r, cell: _within(r, cell, cutoff, np.asarray(images)))(positions, system.cells)
    return jnp.max(jnp.sum(within, 2))


def search(positions: jax.Array, cell: jax.Array, cutoff: float, capacity: int, images: np.ndarray) -> Neighbors:
    """All neighbours within `cutoff` (Å) of one cell: positions (n, 3), cell (3, 3), images from `image_offsets`.

    Tests all n^2 pairs in every image; jit- and vmap-able.
    """
    n, n_images = positions.shape[0], len(images)
    within, nearest = _within(positions, cell, cutoff, images)
    atom = jnp.arange(n, dtype=jnp.int32)
    # the pair (i, j, +image) is (j, i, -image) seen from the other end
    m = jnp.arange(n_images, dtype=jnp.int32)
    reverse = (atom[None, :, None] * n + atom[:, None, None]) * n_images + (n_images - 1 - m)
    column, mask, reverse, needed = _compact(within, reverse.reshape(n, -1), capacity)
    source, which = jnp.where(mask, column // n_images, atom[:, None]), column % n_images
    image = nearest[atom[:, None], source].astype(jnp.int32) + jnp.asarray(images, jnp.int32)[which]
    return Neighbors(source, jnp.where(mask[..., None], image, 0), reverse, mask, needed)


def search_cells(system: System, cutoff: float, capacity: int, images: np.ndarray) -> Neighbors:
    """`search` for a batch of cells that all hold the same number of atoms."""
    n_cells = system.n_cells
    n = system.positions.shape[0] // n_cells
    find = partial(search, cutoff=cutoff, capacity=capacity, images=images)
    local = jax.vmap(find)(system.positions.reshape(n_cells, n, 3), system.cells)
    cell = jnp.arange(n_cells, dtype=jnp.int32)[:, None, None]
    return Neighbors(
        (local.source + cell * n).reshape(-1, capacity),
        local.image.reshape(-1, capacity, 3),
        (local.reverse + cell * n * capacity).reshape(-1, capacity),
        local.mask.reshape(-1, capacity),
        jnp.max(local.needed),
    )


def prune(system: System, neighbors: Neighbors, cutoff: float, capacity: int) -> Neighbors:
    """Keep the pairs that are within `cutoff` (Å) now, out of a complete list made with a larger radius."""
    squared = jnp.sum(displacements(system, neighbors) ** 2, -1)
    within = neighbors.mask & (squared < cutoff**2)
    column, mask, reverse, needed = _compact(within, neighbors.reverse, capacity)
    atom = jnp.arange(within.shape[0], dtype=jnp.int32)[:, None]
    source = jnp.where(mask, jnp.take_along_axis(neighbors.source, column, axis=1), atom)
    image = jnp.where(mask[..., None], jnp.take_along_axis(neighbors.image, column[..., None], axis=1), 0)
    return Neighbors(source, image, reverse, mask, needed)


def from_frames(frames: Sequence[Atoms] | Atoms, cutoff: float, capacity: int | None = None) -> Neighbors:
    """Neighbours of frames of any sizes, found by ASE on the host; `capacity` defaults to what is needed.

    Images are those of the frames as `systems.folded` has them, which is what `systems.from_atoms` lays out.
    """
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    receivers, sources, images, offset = [], [], [], 0
    for frame in map(folded, frames):
        i, j, shift = pairs("ijS", frame, cutoff)
        receivers.append(i + offset)
        sources.append(j + offset)
        images.append(shift)
        offset += len(frame)
    return _from_pairs(np.concatenate(receivers), np.concatenate(sources), np.concatenate(images), offset, capacity)


def _from_pairs(i, j, image, n, capacity) -> Neighbors:
    order = np.lexsort((image[:, 2], image[:, 1], image[:, 0], j, i))
    i, j, image = i[order], j[order], image[order]
    count = np.bincount(i, minlength=n)
    needed = int(count.max(initial=0))
    capacity = max(needed, 1) if capacity is None else capacity  # arrays without slots would break reshapes
    if needed > capacity:
        raise NeighborOverflowError(f"an atom has {needed} neighbours but only {capacity} slots")
    slot = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    # sorted by (i, j, image) and by (j, i, -image), a pair and its reverse have the same rank
    rank = np.lexsort((-image[:, 2], -image[:, 1], -image[:, 0], i, j))
    reverse_pair = np.empty(len(i), np.int64)
    reverse_pair[rank] = np.arange(len(i))
    source = np.repeat(np.arange(n)[:, None], capacity, 1).astype(np.int32)
    images = np.zeros((n, capacity, 3), np.int32)
    reverse = np.arange(n * capacity, dtype=np.int32).reshape(n, capacity)
    mask = np.zeros((n, capacity), bool)
    source[i, slot], images[i, slot], mask[i, slot] = j, image, True
    reverse[i, slot] = i[reverse_pair] * capacity + slot[reverse_pair]
    return Neighbors(source, images, reverse, mask, np.int32(needed))
