"""Neighbour lists of fixed capacity with explicit periodic images, for cells of any shape and size.

Every atom has `capacity` slots; slot `b` of atom `i` holds one neighbour `j` in one periodic image.
The slot that holds the same pair in the list of `j` is its *reverse slot*. With the indices of reverse slots, every
operation that would be a scatter is a gather. If an atom has more neighbours than slots, `needed` exceeds `capacity`.

`search` tests all pairs of atoms or, in large cells, those in adjacent bins (`geometry.bins`); `search_plan` chooses.
"""

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from jax.custom_derivatives import linear_call

from fusedff.geometry import bins as cell_lists
from fusedff.geometry.bins import Bins
from fusedff.geometry.systems import System, heights, lattice_points, wrapped


class Neighbors(NamedTuple):
    """Neighbour lists of all atoms of a `System`; an empty slot has its own atom as `source`, itself as `reverse`."""

    source: jax.Array  # (n_atoms, capacity) int32, the neighbour in each slot
    image: jax.Array  # (n_atoms, capacity, 3) int32, its periodic image in lattice vectors
    reverse: jax.Array  # (n_atoms, capacity) int32, flat index of the slot that holds the reversed pair
    mask: jax.Array  # (n_atoms, capacity) bool, whether the slot is filled
    needed: jax.Array  # () int32, slots per atom that suffice; if more than `capacity`, pairs were lost

    @property
    def capacity(self) -> int:
        """Number of slots per atom."""
        return self.source.shape[1]


class NeighborOverflowError(RuntimeError):
    """An atom has more neighbours than slots."""


def displacements(system: System, neighbors: Neighbors) -> jax.Array:
    """Vectors from each atom to its neighbours, r_j - r_i + image: (n_atoms, capacity, 3), Å.

    In this order of the sum, the vector of the reversed pair is exactly the negative one, so that rounding cannot put
    one of the two within a radius and the other one outside (`prune`).
    """
    positions = system.positions
    images = jnp.einsum("abx,axy->aby", neighbors.image.astype(positions.dtype), system.per_atom(system.cells))
    return positions[neighbors.source] - positions[:, None, :] + images


def swap_direction(x: jax.Array, reverse: jax.Array) -> jax.Array:
    """Gather, for every slot, the entry of x (n_atoms, capacity, ...) in its reverse slot.

    The map is its own inverse and its own transpose, so its derivatives of any order are gathers, where jax would
    scatter. It cannot be vmapped: concatenate cells in one `System` instead.
    """
    flat = x.reshape(reverse.size, -1)

    def gather(index, values):
        return jnp.take(values, index, axis=0, mode="clip", unique_indices=True)

    return linear_call(gather, gather, reverse.reshape(-1), flat).reshape(x.shape)


Images = tuple[tuple[int, int, int], ...]  # hashable, as static arguments of compiled functions must be
Plan = Images | Bins  # images of all pairs, or bins


def image_offsets(cells: np.ndarray, cutoff: float) -> Images:
    """Lattice translations from the nearest image of a pair to all images that may be within `cutoff`.

    They suffice for each of `cells` (..., 3, 3) Å; for large cells (0, 0, 0) alone. Sorted so that the negative of
    entry `m` is entry `n_images - 1 - m`. Raises ValueError for cells that are too small or too flat.
    """
    height = heights(cells)
    reach = np.floor(cutoff / height + 0.5).reshape(-1, 3).max(0)
    _require_few(height, cutoff, np.prod(2 * reach + 1))
    return tuple(map(tuple, lattice_points(reach.astype(int)).tolist()))


MAX_IMAGES, MAX_NEIGHBORS = 30_000, 10_000  # of a cell and of an atom; more: lengths in another unit, or a flat cell
MIN_DISTANCE = 0.5  # Å, less than the distance of any two nuclei in matter
MIN_HEIGHT = 0.1  # Å, of periodic cells: in lower ones an atom has thousands of neighbours, or the vectors are skewed
MAX_CELL_LENGTH = 1e6  # Å
MAX_TESTED_PAIRS = 1_000_000  # in all images; up to this number, testing each takes a tenth of the time of ASE's search


def pairs(quantities: str, frame: Atoms, cutoff: float, where: str = ""):
    """ASE's `neighbor_list` of a frame, sorted by i, after a check that it can be computed.

    `quantities` are some of `ijdDS`, with ASE's meaning: indices i and j, distance d, vector D and lattice shift S.
    Raises ValueError, with `where` at the beginning of its message, for a cell so small or so flat that more than
    `MAX_IMAGES` images or `MAX_NEIGHBORS` atoms lie within the cut-off (Å) of an atom, for one lower than
    `MIN_HEIGHT` along a periodic direction, and for one longer than `MAX_CELL_LENGTH`.
    """
    if (longest := frame.cell.lengths().max()) > MAX_CELL_LENGTH:
        raise ValueError(f"{where}the cell is {longest:.3g} Å long; give lengths in Å")
    reach = np.zeros(3)  # images beyond the nearest
    if frame.pbc.any():
        height = heights(frame.cell.complete().array)[frame.pbc]
        _require_few(height, cutoff, np.prod(2 * np.ceil(cutoff / height) + 1), where)
        if frame.pbc.all():
            _require_few(height, cutoff, len(frame) * 4 / 3 * np.pi * cutoff**3 / frame.get_volume(), where, "atoms")
        reach[frame.pbc] = np.floor(cutoff / height + 0.5)
    if len(frame) ** 2 * np.prod(2 * reach + 1) > MAX_TESTED_PAIRS:
        return neighbor_list(quantities, frame, float(cutoff))
    found = _all_pairs(frame, cutoff, lattice_points(reach.astype(int)))
    return found[quantities] if len(quantities) == 1 else tuple(found[quantity] for quantity in quantities)


def _all_pairs(frame, cutoff, images) -> dict[str, np.ndarray]:
    """The i, j, d, D and S of `neighbor_list`, of every pair in its nearest image and in those `images` from there."""
    r, cell = frame.positions, frame.cell.complete().array
    fractional = r @ np.linalg.inv(cell)
    delta = fractional[None] - fractional[:, None]
    nearest = -np.round(delta) * frame.pbc
    squared = np.sum((((delta + nearest) @ cell)[:, :, None] + images @ cell) ** 2, -1)
    i, j, image = np.nonzero(squared < (cutoff + 1e-6) ** 2)
    shift = nearest[i, j].astype(int) + images[image]
    vector = r[j] - r[i] + shift @ cell
    distance = np.linalg.norm(vector, axis=1)
    kept = (distance < cutoff) & ((i != j) | shift.any(1))
    return {name: x[kept] for name, x in zip("ijdDS", (i, j, distance, vector, shift), strict=True)}


def _require_few(height, cutoff, number, where="", of="images"):
    if height.min() < MIN_HEIGHT or not number <= (MAX_IMAGES if of == "images" else MAX_NEIGHBORS):
        raise ValueError(
            f"{where}the cell is {height.min():.3g} Å high, with {number:.3g} periodic {of} within {cutoff:g} Å of an "
            "atom; give lengths in Å and three lattice vectors that are not nearly in a plane"
        )


def search_plan(cells: np.ndarray, cutoff: float) -> Plan:
    """The faster way to search `cells` (..., 3, 3) Å for all pairs within `cutoff` (Å), static and hashable.

    For each of n atoms, a search of all pairs tests n n_images candidates, one in bins n n_offsets / n_bins, times a
    factor for slots that stay empty. On a CPU, the measured times are equal where n_images = n_offsets / n_bins: with
    about 30 bins, or 900 atoms of titanium at a cut-off of 7 Å. Raises ValueError like `image_offsets`.
    """
    images, bins = image_offsets(cells, cutoff), cell_lists.divide(cells, cutoff)
    return bins if len(bins.offsets) < len(images) * np.prod(bins.shape) else images


def _compact(within, reversed_of, capacity):
    """Gather the True columns of `within` (n, m) into `capacity` slots: column, mask, reverse, needed.

    `reversed_of(column)` gives, for columns (n, capacity) of the rows, the flat index in `within` of the reversed pair.
    """
    n, m = within.shape
    if n * m >= 2**31:
        raise ValueError(f"{n} atoms with {m} candidates each are more pairs than 32 bits count; take smaller cells")
    running = jnp.cumsum(within.astype(jnp.int32), axis=1)
    wanted = jnp.arange(1, capacity + 1, dtype=jnp.int32)
    column = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(running).astype(jnp.int32)
    column = jnp.minimum(column, m - 1)
    mask = wanted[None, :] <= running[:, -1:]
    there = reversed_of(column)
    slot = running.reshape(-1)[there] - 1
    own = jnp.arange(n * capacity, dtype=jnp.int32).reshape(n, capacity)
    reverse_slot = jnp.where(mask & (slot < capacity), there // m * capacity + slot, own)
    return column, mask, reverse_slot, jnp.max(running[:, -1])


def _within(positions, cell, cutoff, images):
    """Which of all n^2 pairs are closer than `cutoff`, in every image (n, n * n_images), and the nearest images."""
    n, n_images = positions.shape[0], len(images)
    fractional = positions @ jnp.linalg.inv(cell)
    delta = fractional[None, :, :] - fractional[:, None, :]
    nearest = -jnp.round(delta)
    # axis by axis: an innermost dimension of three numbers is too short for vector instructions
    pair, image = (delta + nearest) @ cell, jnp.asarray(images, positions.dtype) @ cell
    squared = sum((pair[:, :, None, axis] + image[:, axis]) ** 2 for axis in range(3))
    itself = jnp.eye(n, dtype=bool)[:, :, None] & jnp.asarray((images == 0).all(1))
    return ((squared < cutoff**2) & ~itself).reshape(n, n * n_images), nearest


def max_neighbors(system: System, cutoff: float, plan: Plan) -> int:
    """Largest number of neighbours within `cutoff` (Å) of any atom; all cells of `system` have equally many atoms."""
    return _counted(system, cutoff, plan)[0]


def required_capacity(system: System, cutoff: float, plan: Plan) -> int:
    """Capacity with which `search` finds all neighbours in the cells of a `system`, also those in its fullest bin."""
    neighbors, atoms_in_bin = _counted(system, cutoff, plan)
    return max(neighbors, int(plan.list_capacity(atoms_in_bin))) if isinstance(plan, Bins) else neighbors


def _counted(system, cutoff, plan) -> tuple[int, int]:
    """Most neighbours of an atom and most atoms in a bin."""
    n_bins = np.prod(plan.shape) if isinstance(plan, Bins) else np.inf
    bin_capacity = ceil(2 * len(system.positions) / system.n_cells / n_bins)
    while True:
        neighbors, atoms_in_bin = (int(n) for n in _max_neighbors(system, cutoff, plan, bin_capacity))
        if atoms_in_bin <= bin_capacity:
            return neighbors, atoms_in_bin
        bin_capacity = atoms_in_bin


@partial(jax.jit, static_argnums=(2, 3))
def _max_neighbors(system, cutoff, plan, bin_capacity):
    """Most neighbours of an atom and most atoms in a bin; only the first `bin_capacity` atoms of a bin are searched."""
    positions = system.positions.reshape(system.n_cells, -1, 3)

    def count(r, cell):
        if not isinstance(plan, Bins):
            return jnp.sum(_within(r, cell, cutoff, np.asarray(plan))[0], 1), jnp.int32(0)
        found = cell_lists.candidates(r, cell, cutoff, bin_capacity, plan)
        return jnp.sum(found.within, 1), found.max_in_bin

    return jax.tree.map(jnp.max, jax.vmap(count)(positions, system.cells))


def search(positions: jax.Array, cell: jax.Array, cutoff: float, capacity: int, plan: Plan) -> Neighbors:
    """All neighbours within `cutoff` (Å) in one cell: positions (n, 3) Å, cell (3, 3) Å, `plan` from `search_plan`.

    jit- and vmap-able. The slots of a bin are in proportion to `capacity`; if a bin overflows, `needed` is at least the
    capacity that gives bins enough slots.
    """
    return (_search_bins if isinstance(plan, Bins) else _search_all)(positions, cell, cutoff, capacity, plan)


def _search_bins(positions, cell, cutoff, capacity, bins):
    found = cell_lists.candidates(positions, cell, cutoff, bins.bin_capacity(capacity), bins)
    n, m = found.within.shape
    bin_capacity = m // len(bins.offsets)

    def reversed_of(column):
        there = jnp.take_along_axis(found.source, column, axis=1)
        # the opposite offset leads back to the bin of atom i, where it has its rank
        return there * m + (len(bins.offsets) - 1 - column // bin_capacity) * bin_capacity + found.rank[:, None]

    column, mask, reverse, needed = _compact(found.within, reversed_of, capacity)
    atom = jnp.arange(n, dtype=jnp.int32)[:, None]
    source = jnp.where(mask, jnp.take_along_axis(found.source, column, axis=1), atom)
    image = jnp.take_along_axis(found.image, column[..., None] // bin_capacity, axis=1)
    image = image + found.cell_shift[:, None] - found.cell_shift[source]
    overflow = jnp.where(found.max_in_bin > bin_capacity, bins.list_capacity(found.max_in_bin), 0)
    return Neighbors(source, jnp.where(mask[..., None], image, 0), reverse, mask, jnp.maximum(needed, overflow))


def _search_all(positions, cell, cutoff, capacity, images):
    """Test all n^2 pairs in every image."""
    n, images = positions.shape[0], np.asarray(images)
    n_images = len(images)
    within, nearest = _within(positions, cell, cutoff, images)
    atom = jnp.arange(n, dtype=jnp.int32)

    # the reverse of the pair (i, j, +image) is (j, i, -image)
    def reversed_of(column):
        return (column // n_images * n + atom[:, None]) * n_images + (n_images - 1 - column % n_images)

    column, mask, reverse, needed = _compact(within, reversed_of, capacity)
    source, which = jnp.where(mask, column // n_images, atom[:, None]), column % n_images
    image = nearest[atom[:, None], source].astype(jnp.int32) + jnp.asarray(images, jnp.int32)[which]
    return Neighbors(source, jnp.where(mask[..., None], image, 0), reverse, mask, needed)


def search_cells(system: System, cutoff: float, capacity: int, plan: Plan) -> Neighbors:
    """`search` in every cell of a `System` whose cells have equally many atoms."""
    n_cells = system.n_cells
    n = system.positions.shape[0] // n_cells
    find = partial(search, cutoff=cutoff, capacity=capacity, plan=plan)
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
    """Keep the pairs that are within `cutoff` (Å) at the present positions, of a list made with a larger radius."""
    squared = jnp.sum(displacements(system, neighbors) ** 2, -1)
    within = neighbors.mask & (squared < cutoff**2)
    reversed_of = partial(jnp.take_along_axis, neighbors.reverse, axis=1)
    column, mask, reverse, needed = _compact(within, reversed_of, capacity)
    atom = jnp.arange(within.shape[0], dtype=jnp.int32)[:, None]
    source = jnp.where(mask, jnp.take_along_axis(neighbors.source, column, axis=1), atom)
    image = jnp.where(mask[..., None], jnp.take_along_axis(neighbors.image, column[..., None], axis=1), 0)
    return Neighbors(source, image, reverse, mask, needed)


def from_frames(
    frames: Sequence[Atoms] | Atoms, cutoff: float, capacity: int | None = None, n_atoms: int | None = None
) -> Neighbors:
    """Neighbours within `cutoff` (Å) in frames of any sizes, found on the host; `capacity` defaults to what is needed.

    The list has `n_atoms` rows, by default as many as the frames have atoms; rows beyond are empty. Images refer to the
    frames as `systems.wrapped` returns them, which is how `systems.from_atoms` stores them. Raises
    `NeighborOverflowError` if `capacity` is too small, and ValueError like `pairs`.
    """
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    receivers, sources, images, offset = [], [], [], 0
    for frame in map(wrapped, frames):
        i, j, shift = pairs("ijS", frame, cutoff)
        receivers.append(i + offset)
        sources.append(j + offset)
        images.append(shift)
        offset += len(frame)
    return _from_pairs(
        np.concatenate(receivers), np.concatenate(sources), np.concatenate(images), n_atoms or offset, capacity
    )


def _from_pairs(i, j, image, n, capacity) -> Neighbors:
    order = np.lexsort((image[:, 2], image[:, 1], image[:, 0], j, i))
    i, j, image = i[order], j[order], image[order]
    count = np.bincount(i, minlength=n)
    needed = int(count.max(initial=0))
    capacity = max(needed, 1) if capacity is None else capacity  # arrays without slots would break reshapes
    if needed > capacity:
        raise NeighborOverflowError(f"an atom has {needed} neighbours; give a capacity of {needed}, not {capacity}")
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
