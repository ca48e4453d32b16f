"""Neighbour lists: complete in cells of any shape, with correct reverse slots; lost pairs are reported."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedff.geometry import neighbors, systems
from fusedff.geometry.neighbors import NeighborOverflowError

SKEWED = np.array([[4.0, 0.3, 0.0], [-1.9, 3.6, 0.2], [1.7, -1.2, 4.4]])


def crystal_of_one():
    return ase.Atoms("Ti", cell=2.6 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0.1]]), pbc=True)


def hcp_pair():
    return bulk("Ti", "hcp", a=2.95, c=4.68)


def rattled_eight():
    frame = bulk("Ti", "hcp", a=2.95, c=4.68) * (2, 2, 1)
    frame.rattle(0.2, seed=1)
    return frame


def skewed_with_atoms_outside():
    scaled = np.random.default_rng(2).uniform(-1.5, 2.5, (5, 3))  # positions need not be wrapped
    return ase.Atoms("Ti5", scaled_positions=scaled, cell=SKEWED, pbc=True)


def large():
    frame = bulk("Ti", "hcp", a=2.95, c=4.68) * (5, 5, 3)
    frame.rattle(0.1, seed=3)
    return frame


CELLS = [crystal_of_one, hcp_pair, rattled_eight, skewed_with_atoms_outside, large]


def pairs_of(system, near):
    """All filled slots as a sorted table of i, j and the displacement, rounded to what a float64 sum keeps."""
    vectors, mask = np.asarray(displacements(system, near)), np.asarray(near.mask)
    i, slot = np.nonzero(mask)
    table = np.column_stack([i, np.asarray(near.source)[i, slot], vectors[i, slot]])
    return _sorted(table)


def ase_pairs(frame, cutoff):
    i, j, vector = neighbor_list("ijD", frame, float(cutoff))
    return _sorted(np.column_stack([i, j, vector]))


def _sorted(table):
    table = np.round(table, 8) + 0.0
    return table[np.lexsort(table.T[::-1])]


_search = jax.jit(neighbors.search, static_argnums=(2, 3, 4))


def search(frame, cutoff, capacity=None, plan=neighbors.image_offsets):
    """System and neighbours of one frame; `capacity` defaults to exactly what is needed."""
    system = systems.from_atoms(frame)
    if capacity is None:
        capacity = max(1, np.bincount(neighbor_list("i", frame, cutoff), minlength=1).max())
    return system, _search(system.positions, system.cells[0], cutoff, int(capacity), plan(frame.cell.array, cutoff))


prune = jax.jit(neighbors.prune, static_argnums=(2, 3))
displacements = jax.jit(neighbors.displacements)


def assert_reversible(system, near):
    """The reverse of the reverse is the slot itself, and it holds the same vector backwards."""
    reverse, slots = np.asarray(near.reverse).ravel(), np.arange(near.reverse.size)
    np.testing.assert_array_equal(reverse[reverse], slots)
    empty = ~np.asarray(near.mask).ravel()
    np.testing.assert_array_equal(reverse[empty], slots[empty])
    vectors = np.asarray(displacements(system, near)).reshape(-1, 3)
    np.testing.assert_allclose(vectors[reverse], -vectors, atol=1e-12)  # rounding of coordinates of ~10 Å
    receiver = np.repeat(np.arange(near.source.shape[0]), near.capacity)
    np.testing.assert_array_equal(receiver[reverse], np.asarray(near.source).ravel())


@pytest.mark.parametrize("make", CELLS)
@pytest.mark.parametrize("cutoff", [3.3, 5.0])
def test_search_and_from_frames_find_the_pairs_that_ase_finds(make, cutoff):
    frame = make()
    expected = ase_pairs(frame, cutoff)
    for system, near in [
        search(frame, cutoff),
        (systems.from_atoms(frame), neighbors.from_frames(frame, cutoff)),
    ]:
        np.testing.assert_array_equal(pairs_of(system, near), expected)
        assert_reversible(system, near)


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 0, 1), (0, 0, 1), (0, 0, 0)])
def test_all_pairs_of_small_cells_are_those_of_ase_with_their_images_and_vectors(pbc):
    """Of atoms far outside of a skewed cell that is open along any directions."""
    frame = skewed_with_atoms_outside()
    frame.pbc = pbc
    for cutoff in (1.0, 4.1, 7.0):
        found, expected = (
            np.column_stack([i, j, shift, vector, distance])
            for i, j, shift, vector, distance in (
                search("ijSDd", frame, cutoff) for search in (neighbors.pairs, neighbor_list)
            )
        )
        np.testing.assert_array_equal(_sorted(found), _sorted(expected))
    np.testing.assert_array_equal(neighbors.pairs("i", frame, 7.0), neighbor_list("i", frame, 7.0))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    st.integers(0, 2**16),
)
def test_no_pair_is_missed_in_any_skewed_cell(entries, seed):
    cell = 3.5 * np.eye(3) + 2.0 * np.reshape(entries, (3, 3))
    if abs(np.linalg.det(cell)) < 8:  # flat to the point of no material
        return
    scaled = np.random.default_rng(seed).uniform(-0.5, 1.5, (3, 3))
    frame = ase.Atoms("Ti3", scaled_positions=scaled, cell=cell, pbc=True)
    system, near = search(frame, 4.0, capacity=120)
    assert int(near.needed) <= near.capacity
    np.testing.assert_array_equal(pairs_of(system, near), ase_pairs(frame, 4.0))
    assert_reversible(system, near)


def test_pruning_a_larger_list_gives_the_smaller_one_also_after_atoms_moved():
    frame = rattled_eight()
    system, wide = search(frame, 6.0)
    moved = frame.copy()
    moved.rattle(0.15, seed=9)  # every atom by less than half of the 1.5 Å between the radii
    system = system._replace(positions=jnp.asarray(moved.positions))
    near = prune(system, wide, 4.5, 40)
    assert int(near.needed) <= near.capacity
    np.testing.assert_array_equal(pairs_of(system, near), ase_pairs(moved, 4.5))
    assert_reversible(system, near)


def test_a_batch_of_cells_is_searched_like_each_cell_alone():
    frames = [bulk("Ti", "hcp", a=a, c=4.6) * (2, 1, 1) for a in (2.8, 3.0, 3.2)]
    for n, frame in enumerate(frames):
        frame.rattle(0.1, seed=n)
    system = systems.from_atoms(frames)
    images = neighbors.image_offsets(frames[0].cell.array, 5.0)
    near = jax.jit(lambda system: neighbors.search_cells(system, 5.0, 80, images))(system)
    assert int(near.needed) <= near.capacity
    expected = np.concatenate([ase_pairs(frame, 5.0) + [4 * n, 4 * n, 0, 0, 0] for n, frame in enumerate(frames)])
    np.testing.assert_array_equal(pairs_of(system, near), _sorted(expected))
    np.testing.assert_array_equal(pairs_of(system, neighbors.from_frames(frames, 5.0)), pairs_of(system, near))
    assert_reversible(system, near)
    counted = neighbors.max_neighbors(system, 5.0, neighbors.image_offsets(system.cells, 5.0))
    assert counted == near.needed == np.bincount(expected[:, 0].astype(int)).max()


def test_image_offsets_are_one_for_a_cell_of_twice_the_radius_and_come_in_opposite_pairs():
    assert neighbors.image_offsets(10.1 * np.eye(3), 5.0) == ((0, 0, 0),)
    images = np.array(neighbors.image_offsets(SKEWED, 5.0))
    np.testing.assert_array_equal(images, -images[::-1])


def test_image_offsets_of_several_cells_serve_each_of_them():
    short_x, short_y = np.diag([4.0, 20, 20]), np.diag([20, 4.0, 20])
    images = neighbors.image_offsets(np.stack([short_x, short_y]), 5.0)
    for cell in (short_x, short_y):
        assert all(offset in images for offset in neighbors.image_offsets(cell, 5.0))


def test_pairs_that_do_not_fit_are_reported_not_dropped_in_silence():
    frame = rattled_eight()
    needed = int(search(frame, 5.0)[1].needed)
    _, near = search(frame, 5.0, capacity=needed - 1)
    assert int(near.needed) == needed
    with pytest.raises(NeighborOverflowError, match=f"a capacity of {needed}, not {needed - 1}"):
        neighbors.from_frames(frame, 5.0, needed - 1)
    system, wide = search(frame, 5.0)
    assert int(prune(system, wide, 5.0, needed - 3).needed) == needed


def test_an_isolated_atom_has_no_neighbours():
    near = neighbors.from_frames(ase.Atoms("Ti", cell=20 * np.eye(3), pbc=True), 5.0)
    assert int(near.needed) == 0
    _, near = search(ase.Atoms("Ti", cell=20 * np.eye(3), pbc=True), 5.0, capacity=4)
    assert not near.mask.any()


@pytest.fixture(scope="module")
def turned():
    """Slot data x, the reverse slots and the gather written out, which jax differentiates by scattering."""
    _, near = search(rattled_eight(), 4.0)
    x = jnp.asarray(np.random.default_rng(4).normal(size=(*near.mask.shape, 3)))

    def plain(x):
        return x.reshape(-1, 3)[near.reverse.reshape(-1)].reshape(x.shape)

    return x, near.reverse, plain


def test_turning_around_is_its_own_inverse_and_linear(turned):
    x, reverse, plain = turned
    turn = lambda x: neighbors.swap_direction(x, reverse)  # noqa: E731
    np.testing.assert_array_equal(turn(x), plain(x))
    np.testing.assert_array_equal(turn(turn(x)), x)
    y = jnp.cos(x)
    np.testing.assert_allclose(turn(2 * x - 3 * y), 2 * turn(x) - 3 * turn(y), rtol=1e-14)


def test_turning_around_has_the_derivatives_of_the_plain_gather_to_second_order(turned):
    x, reverse, plain = turned
    y = jnp.sin(x)

    def scalar(gather):
        return lambda x: jnp.sum(jnp.exp(-(gather(x * x) ** 2)) * y)

    ours, theirs = scalar(lambda x: neighbors.swap_direction(x, reverse)), scalar(plain)
    # the same sums in another order: a few units in the last place
    close = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(theirs)(x), **close)
    forward_over_reverse = [jax.jvp(jax.grad(f), (x,), (y,))[1] for f in (ours, theirs)]
    np.testing.assert_allclose(*forward_over_reverse, **close)
    reverse_over_reverse = [jax.grad(lambda x, f=f: jnp.sum(jax.grad(f)(x) * y))(x) for f in (ours, theirs)]
    np.testing.assert_allclose(*reverse_over_reverse, **close)
