"""Phonons against the dispersion of springs, exact Grueneisen parameters, and known force constants."""

import json

import ase
import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import FCC, argon
from ase.build import bulk
from pairs import power_law, smooth_lennard_jones, springs

from fusedff.crystallography import crystals
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.properties.static import gruneisen, phonons
from fusedff.simulation import langevin as dynamics
from fusedff.simulation.elasticity import StressFluctuation
from fusedff.simulation.langevin import LangevinConfig
from fusedff.units import PLANCK

A, STIFFNESS = 4.0, 1.5  # Å, eV/Å^2
SPRINGS = springs(STIFFNESS, A / np.sqrt(2))
CUBE = bulk("Al", "fcc", a=A, cubic=True)
MASS = CUBE.get_masses()[0]
TOP = np.sqrt(8 * STIFFNESS / MASS) / (2 * np.pi) * 1e3 * ase.units.fs  # THz, of longitudinal waves at X


@pytest.fixture(scope="module")
def found():
    return phonons.run(CUBE, SPRINGS, (2, 2, 2), 0.005, (0.0, 20.0, 3000.0), name=None)


def test_fcc_springs_have_the_dispersion_of_the_textbook(found):
    """Along [100], M w^2 = 8 K sin^2 (ka/4) for longitudinal waves and half of that for transverse ones."""
    gamma, x = found.special_points["G"], found.special_points["X"]
    along = found.qpoints - gamma
    part = along @ (x - gamma) / ((x - gamma) @ (x - gamma))
    line = np.flatnonzero(np.linalg.norm(along - part[:, None] * (x - gamma), axis=1) < 1e-9)
    line = line[(part[line] >= 0) & (part[line] <= 1 + 1e-9)]
    assert len(line) > 20
    wave = np.sin(part[line] * np.pi / 2) * TOP
    expected = np.stack([wave / np.sqrt(2), wave / np.sqrt(2), wave], 1)
    # springs turn as their ends move: (0.005 / 2.8)^2
    np.testing.assert_allclose(found.frequencies[line], expected, atol=1e-4 * TOP)
    np.testing.assert_allclose(found.at("X"), expected[part[line].argmax()], rtol=1e-4)
    assert found.stable


def test_a_left_handed_cell_has_the_same_phonons(found):
    mirrored = CUBE.copy()
    mirrored.set_cell(CUBE.cell.array[[1, 0, 2]])
    assert np.linalg.det(mirrored.cell.array) < 0
    other = phonons.run(mirrored, SPRINGS, (2, 2, 2), 0.005, (0.0, 20.0, 3000.0), name=None)
    np.testing.assert_allclose(other.at("X"), found.at("X"), atol=1e-6 * TOP)
    np.testing.assert_allclose(other.heat_capacity, found.heat_capacity, atol=1e-6)
    assert other.frequencies.shape[1] == 3


def test_heat_capacity_goes_from_nothing_to_dulong_and_petit(found):
    # at 3000 K, hot and cold, 1 - (hv/kT)^2 / 12 averaged; the three acoustic modes at Gamma are left out
    x = found.dos_frequencies * PLANCK / (8.617333e-5 * 3000)
    limit = np.trapezoid(found.dos * (1 - x**2 / 12), found.dos_frequencies)
    assert np.trapezoid(found.dos, found.dos_frequencies) == pytest.approx(3, rel=2e-3)
    assert found.heat_capacity[2] == pytest.approx(limit, rel=1e-3)
    assert 2.99 < found.heat_capacity[2] < 3
    assert found.heat_capacity[0] == 0
    assert 0 < found.heat_capacity[1] < 0.5


def test_isotopes_vibrate_with_their_own_masses(found):
    """The mean square of all frequencies is the mean of (curvature / mass) over atoms: it goes as that of 1 / mass."""
    isotopes = CUBE.copy()
    isotopes.set_masses([MASS, 2 * MASS, 3 * MASS, 2 * MASS])
    mixed = phonons.run(isotopes, SPRINGS, (2, 2, 2), 0.005, (0.0,), name=None)
    square, of_one = (np.trapezoid(f.dos * f.dos_frequencies**2, f.dos_frequencies) for f in (mixed, found))
    assert mixed.frequencies.shape[1] == 12  # four atoms that are not equivalent
    assert square / of_one == pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 2]), rel=5e-3)  # of the mesh


@pytest.mark.parametrize("exponent", [6, 12])
def test_a_power_law_has_the_same_gruneisen_parameter_in_every_mode(exponent):
    """Forces scale with the distance: frequencies with r^-(n + 2)/2, hence (n + 2)/6. Two shells within the cut-off."""
    calculator = power_law(exponent, 2.5, 1.1 * A)
    found = gruneisen.run(CUBE, calculator, (2, 2, 2), 2e-3, 0.005, (0.0, 100.0), 20.0, name=None)
    # the finite changes of volume and position
    moving = np.isfinite(found.parameters)
    assert moving.sum() == found.parameters.size - 3
    np.testing.assert_allclose(found.parameters[moving], (exponent + 2) / 6, rtol=2e-3)
    assert found.classical_mean == pytest.approx((exponent + 2) / 6, rel=1e-3)
    np.testing.assert_allclose(found.mean, [np.nan, (exponent + 2) / 6], rtol=1e-3)
    json.dumps(found.as_dict())


def test_an_unstable_crystal_shows_negative_frequencies_and_has_no_heat_capacity():
    cell = crystals.prototype("Ar", "bcc", 0.95)
    calculator = smooth_lennard_jones(2.2)
    found = phonons.run(cell, calculator, (2, 2, 2), 1e-3, (100.0,), 10.0, name=None)
    assert not found.stable
    assert found.frequencies.min() < -1
    assert np.isnan(found.heat_capacity).all()
    with pytest.raises(ValueError, match="Ar2: lowest frequency .* is imaginary"):
        gruneisen.run(cell, calculator, (2, 2, 2), 1e-3, 1e-3, (100.0,), 10.0, name=None)


def hcp_snapshots(rng, n_snapshots, noise):
    """Random displacements of an hcp crystal of springs, and the forces that are linear in them: exactly harmonic."""
    a = 3.0
    cell = bulk("Ti", "hcp", a=a, c=np.sqrt(8 / 3) * a)
    crystal = cell * (3, 3, 2)
    i, j, vectors = ase.neighborlist.neighbor_list("ijD", crystal, 1.1 * a)
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    displacements = 0.1 * rng.normal(size=(n_snapshots, len(crystal), 3))
    forces = np.zeros_like(displacements)
    for u, f in zip(displacements, forces, strict=True):
        np.add.at(f, i, STIFFNESS * unit * ((u[j] - u[i]) * unit).sum(1)[:, None])
    return cell, displacements, forces + noise * rng.normal(size=forces.shape)


def test_a_fit_to_harmonic_snapshots_recovers_the_force_constants(rng):
    """In the order of atoms that ASE gives a repeated cell, which is not phonopy's."""
    cell, displacements, forces = hcp_snapshots(rng, 6, 0.0)
    found = phonons.effective(cell, (3, 3, 2), displacements, forces, (300.0,), 20.0, blocks=3, name=None)
    expected = phonons.run(cell, springs(STIFFNESS, 3.0), (3, 3, 2), 1e-3, (300.0,), 20.0, name=None)
    np.testing.assert_allclose(found.force_constants, expected.force_constants, atol=1e-5)
    np.testing.assert_allclose(found.frequencies, expected.frequencies, atol=1e-4 * expected.frequencies.max())
    strongest = np.linalg.eigvalsh(found.force_constants[0, 1:]).min()
    assert strongest == pytest.approx(-STIFFNESS, rel=1e-6)
    np.testing.assert_allclose(found.frequencies_stderr, 0, atol=1e-4)
    assert found.n_snapshots == 6
    shifted = displacements + 0.05 * rng.normal(size=displacements.shape[1:])  # hot sites are elsewhere
    around = phonons.effective(cell, (3, 3, 2), shifted, forces, (300.0,), 20.0, blocks=3, name=None)
    np.testing.assert_allclose(around.frequencies, expected.frequencies, atol=1e-4 * expected.frequencies.max())


def test_standard_errors_of_a_fit_say_how_far_off_it_is(rng):
    cell, displacements, forces = hcp_snapshots(rng, 20, 0.1)
    exact = phonons.effective(cell, (3, 3, 2), *hcp_snapshots(rng, 6, 0.0)[1:], (300.0,), 20.0, blocks=2, name=None)
    found = phonons.effective(cell, (3, 3, 2), displacements, forces, (300.0,), 20.0, blocks=10, name=None)
    moving = exact.frequencies > 1
    pull = ((found.frequencies - exact.frequencies) / found.frequencies_stderr)[moving]
    # a ratio of normal to chi with 9 degrees of freedom, strongly correlated along the path: of unit size
    assert 0.4 < np.sqrt(np.mean(pull**2)) < 2
    assert json.loads(json.dumps(found.as_dict()))["n_snapshots"] == 20


def test_effective_phonons_of_a_cold_crystal_are_its_phonons():
    """Molecular dynamics of this project at 1 K, with its order of atoms and its forces."""
    model, point = argon(), StatePoint(1.0, FCC)
    cells = StressFluctuation().cells([point], (2, 2, 2), 1, jnp.float64)
    langevin = LangevinConfig(timestep_fs=10.0, friction_per_ps=5.0, steps_per_snapshot=20, skin=0.6)
    simulation = dynamics.Simulation(cells, langevin, model.cutoff, phonons.observe_forces)
    state, _ = simulation.run(model, dynamics.start(cells, jax.random.PRNGKey(0)), 10)
    _, trajectory = simulation.run(model, state, 15)
    displacements = np.asarray(trajectory.positions - cells.sites)[:, 0]
    forces = np.asarray(trajectory.observed)[:, 0].reshape(displacements.shape)
    cell = crystals.unit_cell(FCC)
    found = phonons.effective(cell, (2, 2, 2), displacements, forces, (1.0,), 20.0, name=None)
    expected = phonons.run(cell, FusedCalculator(model), (2, 2, 2), 0.01, (1.0,), 20.0, name=None)
    # what remains is anharmonic: 1 K is 1 % of melting
    np.testing.assert_allclose(found.frequencies, expected.frequencies, atol=0.01 * expected.frequencies.max())


def test_bad_input_is_refused_by_name(found, rng):
    cell, displacements, forces = hcp_snapshots(rng, 4, 0.0)
    for arrays, blocks, named in (
        ((displacements[:, 1:], forces), 2, r"displacements have shape \(4, 35, 3\)"),
        ((displacements, forces[1:]), 2, r"forces have shape \(3, 36, 3\)"),
        ((displacements, np.where(np.arange(4)[:, None, None] == 2, np.nan, forces)), 2, "forces of snapshot 2"),
        (
            (displacements + (cell * (3, 3, 2)).positions, forces),
            2,
            "are up to .* Å apart; give displacements from the",
        ),
        ((displacements, forces), 5, "4 snapshots cannot be cut into 5 blocks"),
    ):
        with pytest.raises(ValueError, match=named):
            phonons.effective(cell, (3, 3, 2), *arrays, blocks=blocks)
    for repeats in (2, (2, 2), (2, 2, -2)):
        with pytest.raises(ValueError, match=r"repeats = .*: give three positive whole numbers"):
            phonons.run(cell, FusedCalculator(argon()), repeats)
    for run in (phonons.run, gruneisen.run):
        with pytest.raises(ValueError, match=r"temperatures \[-100.0, 100.0\] K; give Kelvin, from 0 on"):
            run(cell, FusedCalculator(argon()), temperatures=(-100, 100))
    with pytest.raises(ValueError, match="'Q' is no special point of this path; it has G, X"):
        found.at("Q")
