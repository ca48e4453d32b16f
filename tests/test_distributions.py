"""Radial and angular distributions of structures whose neighbours are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from fusedff.geometry import neighbors, systems
from fusedff.simulation import distributions


def gas(rng, n_cells=40, n=50, cell=None):
    """Independent atoms in cells of any shape."""
    cell = 12.0 * np.eye(3) if cell is None else cell
    positions = rng.uniform(size=(n_cells, n, 3)) @ cell + 20 * rng.integers(-2, 3, size=(n_cells, n, 1)) * cell[0]
    return systems.stack(jnp.asarray(positions), jnp.tile(cell, (n_cells, 1, 1)), np.full(n, 18))


@pytest.mark.parametrize("cell", [12.0 * np.eye(3), np.array([[11.0, 0, 0], [3, 12, 0], [-2, 4, 13]])])
def test_g_of_independent_atoms_is_one_in_cells_of_any_shape(rng, cell):
    system = gas(rng, cell=cell)
    r = np.arange(0.5, distributions.largest_radius(cell[None]) - 0.5, 0.5)
    distributions.require_radii(r, cell[None])
    g = np.asarray(distributions.radial_distribution(system, r))
    error = g.std(0, ddof=1) / np.sqrt(len(g))
    assert error[-1] < 0.02
    assert (np.abs(g.mean(0) - 1) < 4 * error + 1e-6).all()


@pytest.mark.parametrize(
    ("kind", "shells"),
    [("fcc", [(1 / np.sqrt(2), 12), (1, 6), (np.sqrt(1.5), 24)]), ("bcc", [(np.sqrt(0.75), 8), (1, 6)])],
)
def test_a_crystal_has_its_coordination_numbers(kind, shells):
    a = 4.0
    atoms = bulk("Ar", kind, a=a, cubic=True) * (4, 4, 4)
    r = 0.1 * np.arange(1, 79)
    g = np.asarray(distributions.radial_distribution(systems.from_atoms(atoms), r))[0]
    density, expected = (len(atoms) - 1) / atoms.get_volume(), 0
    for distance, count in shells:
        expected += count
        found = distributions.coordination(r, g, density, distance * a + 0.15)
        assert found == pytest.approx(expected, rel=1e-10)  # counted, not sampled


@pytest.mark.parametrize("spacing", [0.05, 0.1, 0.2])
def test_of_an_even_spread_the_neighbours_within_a_sphere_are_its_volume_times_the_density(spacing):
    r = spacing * np.arange(1, round(8 / spacing))
    for within in (4.0, 4.0 + spacing / 3):
        found = distributions.coordination(r, np.ones(len(r)), 0.05, within)
        volume = 4 / 3 * np.pi * within**3
        assert found == pytest.approx(0.05 * volume, rel=1.1 * (spacing / within) ** 2)  # of the rounded edge


def test_a_moving_atom_never_makes_g_jump():
    r = 0.5 * np.arange(1, 12)

    def g_of(x):
        positions = jnp.array([[[0.0, 0, 0], [x, 0, 0]]])
        return distributions.radial_distribution(
            systems.stack(positions, 12.0 * jnp.eye(3)[None], np.array([18, 18])), r
        )

    g = np.asarray(jax.vmap(g_of)(jnp.linspace(2.0, 3.0, 101)))[:, 0]
    assert np.abs(np.diff(g, axis=0)).max() < 0.025 * g.max()  # 50 steps from one centre to the next


def test_neighbours_in_fcc_meet_at_60_90_120_and_180_degrees():
    atoms = bulk("Ar", "fcc", a=4.0, cubic=True) * (2, 2, 2)
    near = neighbors.from_frames(atoms, 3.5)
    found = np.asarray(distributions.angular_distribution(systems.from_atoms(atoms), near, 3.0))[0]
    count = found * 3.0
    count[[0, -1]] /= 2  # half intervals at either end
    expected = np.zeros(61)
    expected[[20, 30, 40, 60]] = 12 * np.array([4, 2, 4, 1])
    # the arc cosine is steep at its ends: 1e-8 in the angle of 180 degrees, and 1e-6 in its share
    np.testing.assert_allclose(count, expected, atol=1e-5)
    assert np.trapezoid(found, distributions.ANGLES) == pytest.approx(12 * 11, rel=1e-6)


def test_independent_neighbours_make_angles_like_the_sine(rng):
    system = gas(rng, 40, 60)
    near = neighbors.search_cells(system, 5.0, 60, neighbors.image_offsets(system.cells, 5.0))
    found = np.asarray(distributions.angular_distribution(system, near, 5.0))
    found = found / np.trapezoid(found, distributions.ANGLES)[:, None]
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    # the sine seen through the kernel of 3 degrees is lower by its curvature, 2e-4, but at the ends
    expected = np.radians(1) * np.sin(np.radians(distributions.ANGLES)) / 2
    assert (np.abs(found.mean(0) - expected)[1:-1] < 4 * error[1:-1] + 3e-4 * expected.max()).all()


@pytest.mark.parametrize(
    ("r", "message"),
    [
        (np.array([1.0, 2.0, 4.0]), "evenly spaced"),
        (0.5 * np.arange(3), "first is at least one step"),
        (np.arange(1.0, 7.0), "half the smallest height"),
    ],
)
def test_radii_that_mean_nothing_are_refused(r, message):
    with pytest.raises(ValueError, match=message):
        distributions.require_radii(r, 12.0 * np.eye(3)[None])
