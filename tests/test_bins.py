"""Cell lists: they find the same pairs as a search over all pairs, at a cost linear in the number of atoms."""

import ase
import jax
import numpy as np
import pytest
from argon import FCC, argon
from test_neighbors import ase_pairs, assert_reversible, pairs_of, search

from fusedff.crystallography import crystals
from fusedff.geometry import bins, neighbors, systems
from fusedff.simulation import langevin
from fusedff.simulation.cells import replicate
from fusedff.simulation.langevin import LangevinConfig, ListCapacity, Simulation
from fusedff.units import KB


def gas(n, cell, seed=0):
    """Atoms anywhere in and around a cell: bins are filled as unevenly as it gets."""
    scaled = np.random.default_rng(seed).uniform(-1, 2, (n, 3))
    return ase.Atoms(f"Ar{n}", scaled_positions=scaled, cell=cell, pbc=True)


def skewed(n, seed, volume=17.0):
    """A random triclinic cell with so much volume (Å^3) per atom."""
    sheared = np.eye(3) + np.random.default_rng(seed).normal(scale=0.25, size=(3, 3))
    return sheared * (n * volume / abs(np.linalg.det(sheared))) ** (1 / 3)


def search_in_bins(frame, cutoff, capacity=None):
    """As `search`, with the capacity that the fullest bin needs."""
    divided = bins.divide(frame.cell.array, cutoff)
    needed = search(frame, cutoff, capacity, lambda *_: divided)[1].needed
    return search(frame, cutoff, int(needed), lambda *_: divided)


def assert_same_pairs(found, expected):
    """Tables of `test_neighbors`, rounded to 1e-8 Å, of which rounding may move a number by one."""
    np.testing.assert_array_equal(found[:, :2], expected[:, :2])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.1e-8)


@pytest.mark.parametrize(("n", "cutoff"), [(500, 6.0), (1000, 4.0), (3000, 5.0)])
def test_pairs_in_random_triclinic_cells_are_those_that_ase_finds(n, cutoff):
    frame = gas(n, skewed(n, seed=n))
    system, near = search_in_bins(frame, cutoff)
    assert int(near.needed) <= near.capacity
    assert_same_pairs(pairs_of(system, near), ase_pairs(frame, cutoff))
    assert_reversible(system, near)


@pytest.mark.parametrize(
    ("lengths", "shape"),
    [
        pytest.param([40.0, 3.0, 8.0], (7, 1, 1), id="shorter than the cut-off: several images of one neighbour"),
        pytest.param([40.0, 11.0, 5.1], (7, 2, 1), id="two bins and one"),
        pytest.param([4.0, 4.0, 4.0], (1, 1, 1), id="one bin"),
    ],
)
def test_pairs_across_short_axes_are_those_that_ase_finds(lengths, shape):
    cell = np.diag(lengths) @ [[1, 0.2, 0], [0, 1, 0], [0, 0.1, 1]]
    frame = gas(int(np.prod(lengths) / 17), cell)
    assert bins.divide(cell, 5.0).shape == shape
    system, near = search_in_bins(frame, 5.0)
    assert_same_pairs(pairs_of(system, near), ase_pairs(frame, 5.0))
    assert_reversible(system, near)


def test_atoms_on_faces_between_bins_are_found():
    """On a simple cubic lattice that is commensurate with the bins, rounding decides about the bin of every atom."""
    frame = ase.Atoms("Ar", cell=2.5 * np.eye(3), pbc=True) * (8, 8, 8)
    frame.positions += np.repeat([[0.0, -1e-16, 1e-16], [20.0, 0, -20.0]], 256, 0)
    system, near = search_in_bins(frame, 5.0 - 1e-9)
    assert np.all(near.mask.sum(1) == 26)  # shells of 6, 12 and 8
    assert_same_pairs(pairs_of(system, near), ase_pairs(frame, 5.0 - 1e-9))
    assert_reversible(system, near)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strained_cells_side_by_side_have_the_pairs_of_the_dense_search(dtype):
    crystal = crystals.supercell(FCC, (5, 5, 5))
    frames = []
    for n, strain in enumerate([-0.03, 0.0, 0.03]):
        frame = crystal.copy()
        frame.set_cell(frame.cell.array @ (np.eye(3) + strain * np.array([[0, 1, 0], [0, 1, 0], [0, 0, -1]])), True)
        frame.rattle(0.3, seed=n)
        frames.append(frame)
    system, cutoff = systems.from_atoms(frames, dtype), 5.0
    found = []
    for plan in (bins.divide(system.cells, cutoff), neighbors.image_offsets(system.cells, cutoff)):
        near = jax.jit(neighbors.search_cells, static_argnums=(1, 2, 3))(system, cutoff, 40, plan)
        assert int(near.needed) <= near.capacity
        slots = np.arange(near.reverse.size).reshape(near.reverse.shape)
        np.testing.assert_array_equal(np.asarray(near.reverse).ravel()[near.reverse], slots)
        found.append(pairs_of(system, near)[:, :2])
        assert neighbors.max_neighbors(system, cutoff, plan) == near.needed
    # single precision knows distances to 1e-6 Å, which moves a few of 30 000 pairs across the cut-off
    different = set(map(tuple, found[0])) ^ set(map(tuple, found[1]))
    assert len(different) <= (4 if dtype == np.float32 else 0)


def test_a_bin_that_overflows_is_reported_as_slots_needed():
    """A drop of liquid in a large box: no atom has more neighbours than slots, but one bin holds all atoms."""
    frame = ase.Atoms("Ar30", np.random.default_rng(0).uniform(1, 8, (30, 3)), cell=80 * np.eye(3), pbc=True)
    divided, cutoff = bins.divide(frame.cell.array, 9.0), 9.0
    slots = np.bincount(neighbors.pairs("i", frame, cutoff)).max()
    assert divided.bin_capacity(int(slots)) < 30
    _, short = search(frame, cutoff, slots, lambda *_: divided)
    assert int(short.needed) > short.capacity
    assert neighbors.required_capacity(systems.from_atoms(frame), cutoff, divided) == int(short.needed)
    system, near = search(frame, cutoff, short.needed, lambda *_: divided)
    assert int(near.needed) <= near.capacity
    assert_same_pairs(pairs_of(system, near), ase_pairs(frame, cutoff))


def test_more_pairs_than_can_be_counted_are_refused():
    positions, cell = jax.ShapeDtypeStruct((50_000, 3), float), jax.ShapeDtypeStruct((3, 3), float)
    with pytest.raises(ValueError, match="50000 atoms with 50000 candidates each are more pairs than 32 bits count"):
        jax.eval_shape(lambda r, c: neighbors.search(r, c, 5.0, 40, ((0, 0, 0),)), positions, cell)


def test_bins_serve_large_cells_and_all_pairs_small_ones():
    small, large = (crystals.supercell(FCC, (n, n, n)).cell.array for n in (3, 12))
    assert not isinstance(neighbors.search_plan(small, 7.0), bins.Bins)
    assert isinstance(neighbors.search_plan(large, 7.0), bins.Bins)
    assert isinstance(neighbors.search_plan(np.stack([large, 0.95 * large]), 7.0), bins.Bins)


def crystal_in_motion(plan, capacity=None, **settings):
    """15 steps of a crystal of 108 atoms at 60 K, searched by one plan."""
    cells = replicate([crystals.supercell(FCC, (3, 3, 3))], [60.0], dtype=float)
    settings = LangevinConfig(**{"timestep_fs": 8.0, "steps_per_snapshot": 5, "skin": 0.1} | settings)
    simulation = Simulation(cells, settings, CUTOFF)
    simulation.plan = plan(cells.lattice, CUTOFF + settings.skin)
    state = langevin.start(cells, jax.random.PRNGKey(0))
    return simulation, *simulation.run(argon(cutoff=CUTOFF), state, 3, capacity=capacity)


CUTOFF = 5.0  # Å, a third of the cell


def test_dynamics_in_bins_are_those_over_all_pairs_also_from_lists_that_are_too_small():
    _, _, dense = crystal_in_motion(neighbors.image_offsets)
    simulation, _, binned = crystal_in_motion(bins.divide, ListCapacity(12, 12))
    assert simulation.plan.shape == (3, 3, 3)
    assert simulation.capacity.candidates > 12
    # slots come in another order, sums round to 1e-16; 15 steps amplify that
    np.testing.assert_allclose(binned.positions, dense.positions, atol=1e-10)
    np.testing.assert_allclose(binned.energy, dense.energy, rtol=1e-11)
    np.testing.assert_allclose(binned.observed, dense.observed, atol=1e-11)


def test_without_friction_energy_is_conserved_while_lists_are_made_anew():
    """A pair that is lost from one list would be a jump of some percent of the thermal energy."""
    simulation, state, trajectory = crystal_in_motion(bins.divide, timestep_fs=2.0, friction_per_ps=0.0)
    kinetic = 1.5 * (len(state.momenta[0]) - 1) * KB * trajectory.temperature
    # Verlet's error is of order (w dt)^2 / 24 of the thermal energy: 5e-5 for argon's fastest vibration, 0.5 ps
    assert np.ptp(trajectory.energy + kinetic, 0).max() < 3e-4 * kinetic.mean()
