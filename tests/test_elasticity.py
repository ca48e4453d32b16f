"""Elastic constants of Lennard-Jones crystals: two estimators from dynamics, against values without dynamics."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import HCP, argon
from ase.optimize import BFGS

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.geometry import neighbors, systems
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.properties.thermal import elastic
from fusedff.properties.thermal.elastic import ElasticConfig
from fusedff.simulation import langevin
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation, of_means
from fusedff.simulation.langevin import LangevinConfig
from fusedff.simulation.statistics import jackknife
from fusedff.units import GPA, KB, strain_from_voigt

OPTIMIZED = True  # long dynamics, see conftest.py
MODEL = argon()
SQUEEZED = Crystal("Ar", "fcc", 5.15)  # at about 1 kbar
LANGEVIN = LangevinConfig(timestep_fs=8.0, friction_per_ps=5.0, steps_per_snapshot=20, skin=0.6)


def static_constants(crystal, relax=True):
    """Second Lagrangian strain derivatives of the energy of a crystal at rest, ions relaxed or not, and its pressure.

    Nothing but energies of strained unit cells, GPa.
    """
    atoms, h, calculator = crystals.unit_cell(crystal), 1e-3, FusedCalculator(MODEL)
    volume = atoms.get_volume()

    def energy(voigt):
        values, vectors = np.linalg.eigh(np.eye(3) + 2 * strain_from_voigt(np.asarray(voigt, float)))
        frame = atoms.copy()
        frame.set_cell(atoms.cell.array @ (vectors @ np.diag(np.sqrt(values)) @ vectors.T), scale_atoms=True)
        frame.calc = calculator
        if relax:
            BFGS(frame, logfile=None, alpha=5.0).run(fmax=1e-7)
        return frame.get_potential_energy()

    rest, eye = energy(np.zeros(6)), np.eye(6)

    def second(direction):
        return (energy(h * direction) + energy(-h * direction) - 2 * rest) / h**2 / volume / GPA

    found = {"C11": second(eye[0]), "C44": second(eye[3])}
    if crystals.symmetry(crystal) == "hexagonal":
        found["C12"] = second(eye[0] + eye[1]) / 2 - found["C11"]
        found["C33"], found["C66"] = second(eye[2]), second(eye[5])
        found["C13"] = (second(eye[0] + eye[2]) - found["C11"] - found["C33"]) / 2
    else:
        found["C12"] = second(eye[0] + eye[1]) / 2 - found["C11"]
    uniform = np.array([1, 1, 1, 0, 0, 0.0])
    slope = (energy(h * uniform) - energy(-h * uniform)) / (2 * h)
    return found, -slope / 3 / volume / GPA


def sample(estimator, points, repeats, replicas, equilibration, snapshots, seed=0):
    """An equilibrated trajectory of the estimator's cells in double precision."""
    cells = estimator.cells(points, repeats, replicas, jnp.float64)
    simulation = langevin.Simulation(cells, LANGEVIN, MODEL.cutoff, estimator.observe)
    state = langevin.start(cells, jax.random.PRNGKey(seed))
    state, _ = simulation.run(MODEL, state, equilibration)
    return cells, simulation.run(MODEL, state, snapshots)[1]


def measure(estimator, points, repeats, replicas, equilibration, snapshots, seed=0):
    """Constants and, last, pressure in GPa (n_points, n_constants + 1), with standard errors."""
    cells, trajectory = sample(estimator, points, repeats, replicas, equilibration, snapshots, seed)

    properties = of_means(estimator, cells, points, replicas)

    def statistic(means):
        found = properties(means)
        return np.concatenate([found.elastic, found.pressure[..., None]], -1).mean(1) / GPA

    return jackknife(trajectory.observed, statistic, blocks=10)


def ideal_gas(crystal, temperature):
    cell = crystals.unit_cell(crystal)
    return len(cell) * KB * temperature / cell.get_volume() / GPA


@pytest.mark.parametrize("estimator", [CoupledStrains(0.002), StressFluctuation()], ids=["coupled", "fluctuation"])
def test_a_squeezed_fcc_crystal_near_zero_kelvin_has_its_static_constants_and_pressure(estimator):
    """Off equilibrium, so that every term with the pressure in it counts."""
    point = StatePoint(0.5, SQUEEZED)
    static, pressure = static_constants(SQUEEZED)
    assert pressure > 0.05  # GPa
    found = measure(estimator, [point], (1, 1, 1), 1, 10, 20)
    names = elastic_symmetry.elastic_names("cubic")
    # what is left: thermal softening at 1/200 of the melting point, and the strain squared
    np.testing.assert_allclose(found.value[0, :-1], [static[name] for name in names], rtol=0.01)
    # three of four atoms vibrate, with a Grueneisen parameter of about 2.9 each way: 2e-4 of C11 in all
    expected = pressure + (1 + 9 * 2.9) / 4 * ideal_gas(SQUEEZED, point.temperature)
    assert found.value[0, -1] == pytest.approx(expected, abs=1e-4 * static["C11"])


def test_what_is_compiled_for_one_estimator_serves_others_of_its_kind():
    """Simulations are compiled for the functions that observe them, which therefore belong to the class."""
    for one, other in ((CoupledStrains(0.002), CoupledStrains(0.01)), (StressFluctuation(), StressFluctuation())):
        assert (one.observe, one.weighted_sum) == (other.observe, other.weighted_sum)


def test_hcp_near_zero_kelvin_has_the_static_constants_of_relaxed_ions():
    """hcp is not centrosymmetric about its atoms: they move when it is strained, and the dynamics must find that."""
    relaxed, _ = static_constants(HCP)
    clamped, _ = static_constants(HCP, relax=False)
    names = elastic_symmetry.elastic_names("hexagonal")
    assert relaxed["C12"] > 1.1 * clamped["C12"]  # the test can tell
    assert relaxed["C66"] == pytest.approx((relaxed["C11"] - relaxed["C12"]) / 2, rel=1e-3)
    found = measure(CoupledStrains(0.002), [StatePoint(0.5, HCP)], (1, 1, 1), 1, 20, 20)
    np.testing.assert_allclose(found.value[0, :-1], [relaxed[name] for name in names], rtol=0.015)


@pytest.fixture(scope="module")
def warm():
    """The squeezed crystal at 40 K, half way to melting; what the estimators say must agree for any number of atoms."""
    points = [StatePoint(40.0, SQUEEZED)]
    coupled = measure(CoupledStrains(0.01), points, (1, 1, 1), 4, 10, 80, seed=1)
    fluctuation = measure(StressFluctuation(), points, (1, 1, 1), 4, 10, 150, seed=2)
    return coupled, fluctuation


def test_both_estimators_agree_at_a_temperature_where_the_crystal_is_soft(warm):
    coupled, fluctuation = warm
    error = np.hypot(coupled.stderr, fluctuation.stderr)
    assert error[0, 0] < 0.02 * coupled.value[0, 0]  # tight enough to mean something
    difference = np.abs(coupled.value - fluctuation.value)[0]
    # three standard errors, and the finite strain: third-order constants are about -10 to -15 times C11, which
    # moves the mean pressure of the strained cells by 0.1 % of C11 at a strain of 0.01, fourth-order ones the
    # constants by up to half a percent
    allowance = np.append(np.full(3, 0.005), 0.0015) * coupled.value[0, 0]
    assert (difference < 3 * error[0] + allowance).all(), difference / error


def test_the_thermal_pressure_is_that_of_gruneisen_with_the_ideal_gas_in_it(warm):
    """Each of the 3 N - 3 vibrations adds gamma kT / V, and the centre of mass, a gas of one atom, kT / V."""
    _, fluctuation = warm
    _, static = static_constants(SQUEEZED)
    atoms = 4
    thermal = (fluctuation.value[0, -1] - static) / (ideal_gas(SQUEEZED, 40.0) / atoms)
    # argon: 2.5 to 3.3 in this range of volumes; the virial without the ideal gas would make it 0.44 less
    assert 2.5 < (thermal - 1) / (3 * (atoms - 1)) < 3.3


def test_the_library_call_gives_the_same_constants_in_single_precision(warm):
    coupled, _ = warm
    settings = ElasticConfig(
        CoupledStrains(0.01),
        repeats=(1, 1, 1),
        replicas=4,
        langevin=LANGEVIN,
        equilibration=10,
        snapshots=60,
        blocks=6,
        seed=5,
    )
    point = StatePoint(40.0, SQUEEZED, {"C11": 5 * GPA}, pressure=0.1 * GPA)
    single = argon(dtype=jnp.float32)
    result = elastic.run(single, [point], settings, name=None)
    assert result.names == ("C11", "C12", "C44")
    found = np.append(result.elastic[0], result.pressure[0])
    error = np.hypot(np.append(result.elastic_stderr[0], result.pressure_stderr[0]), coupled.stderr[0])
    assert (np.abs(found - coupled.value[0]) < 4 * error + 0.005).all()
    shift = result.adiabatic[0] - result.elastic[0]
    assert 0 < shift[0] < 0.3 * found[0]  # a few per cent of C11 and C12 alike, nothing of C44
    np.testing.assert_allclose(shift, [shift[0], shift[0], 0], atol=1e-9)
    assert (result.adiabatic_stderr >= result.elastic_stderr).all()
    plain = result.as_dict()
    assert plain["settings"]["estimator"] == {"kind": "CoupledStrains", "strain": 0.01}
    assert plain["settings"]["langevin"]["timestep_fs"] == 8.0
    entry = plain["by_temperature_K"]["40"]
    assert entry["difference"]["C11"] == pytest.approx(shift[0])
    assert entry["stress"]["xx"]["value"] == pytest.approx(-result.pressure[0])
    assert entry["stress"]["xx"]["measured"] == pytest.approx(-0.1)
    assert entry["lattice"]["a"]["measured"] == SQUEEZED.a
    # stretched by what is missing to the pressure, over three times the bulk modulus
    bulk = (result.elastic[0, 0] + 2 * result.elastic[0, 1]) / 3
    strain = (result.pressure[0] - 0.1) / (3 * bulk)
    assert result.lengths[0, 0] / SQUEEZED.a - 1 == pytest.approx(strain, rel=0.02)
    assert result.lengths_stderr[0, 0] / SQUEEZED.a < 3 * result.pressure_stderr[0] / (3 * bulk)
    warmer = elastic.ElasticResult(**{**vars(result), "points": (replace(point, condition="adiabatic"),)})
    assert warmer.by_temperature()["40"]["elastic"]["C11"]["value"] == pytest.approx(result.adiabatic[0, 0])
    assert entry["elastic"]["C11"]["measured"] == pytest.approx(5.0)
    assert "measured" not in entry["elastic"]["C12"]
    assert entry["pressure"]["measured"] == pytest.approx(0.1)


def test_full_stiffness_of_a_warm_hcp_crystal_has_c66_of_half_c11_minus_c12():
    points, estimator = [StatePoint(20.0, HCP)], StressFluctuation()
    cells, trajectory = sample(estimator, points, (2, 2, 1), 4, 10, 60)

    def violation(means):
        """C66 - (C11 - C12) / 2 in GPa, from the formula written out."""
        means = means.mean(0)
        stress, square, born = means[:6], means[6:42].reshape(6, 6), means[42:].reshape(6, 6)
        volume, kt = abs(np.linalg.det(cells.lattice[0])), KB * 20.0
        kinetic = len(cells.numbers) * kt / volume * np.diag([2, 2, 2, 1, 1, 1])
        c = (born - volume / kt * (square - np.outer(stress, stress)) + kinetic) / GPA
        return np.array([c[5, 5] - (c[0, 0] - c[0, 1]) / 2, c[0, 0]])

    found = jackknife(trajectory.observed, violation, blocks=10)
    assert found.stderr[0] < 0.1 * found.value[1]
    assert abs(found.value[0]) < 4 * found.stderr[0]


@pytest.mark.parametrize("estimator", [CoupledStrains(), StressFluctuation()], ids=["coupled", "fluctuation"])
def test_contracted_observables_are_the_weighted_sum_of_the_observables(estimator, rng):
    cells = estimator.cells([StatePoint(20.0, HCP)], (1, 1, 1), 1, jnp.float64)
    system = cells.system(cells.sites + 0.1 * rng.normal(size=cells.sites.shape))
    images = neighbors.image_offsets(cells.lattice, MODEL.cutoff)

    @jax.jit
    def both(system, coefficients):
        near = neighbors.search_cells(system, MODEL.cutoff, 110, images)
        observed = estimator.observe(MODEL, system, near, MODEL.evaluate(system, near))
        return observed, *estimator.weighted_sum(MODEL, system, near, coefficients), MODEL.energies(system, near)

    size = 6 if isinstance(estimator, CoupledStrains) else 78
    coefficients = jnp.asarray(rng.normal(size=(cells.n_cells, size)))
    observed, contracted, energy, alone = both(system, coefficients)
    np.testing.assert_allclose(contracted, jnp.sum(observed * coefficients, -1), rtol=1e-10)
    np.testing.assert_allclose(energy, alone, rtol=1e-12)


def test_the_cells_of_one_replica_share_their_random_numbers_and_no_others_do():
    points = [StatePoint(20.0, HCP), StatePoint(40.0, HCP)]
    cells = CoupledStrains().cells(points, (1, 1, 1), 3)
    np.testing.assert_array_equal(cells.noise_id, np.repeat(np.arange(6), 4))
    np.testing.assert_array_equal(cells.temperature, np.repeat([20.0, 40.0], 12))


def test_different_crystals_cannot_be_simulated_together():
    points = [StatePoint(20.0, HCP), StatePoint(20.0, SQUEEZED)]
    with pytest.raises(ValueError, match="different crystals .* train them apart"):
        CoupledStrains().cells(points, (1, 1, 1))


@pytest.mark.parametrize(("crystal", "repeats"), [(SQUEEZED, (1, 1, 1)), (HCP, (2, 2, 1))], ids=["fcc", "hcp"])
def test_adiabatic_constants_of_a_cold_crystal_follow_from_its_frequencies(crystal, repeats):
    """Every vibration carries k of heat and pushes with its Grueneisen parameters, the centre of mass like a gas."""
    temperature, n = 5.0, len(crystals.supercell(crystal, repeats))

    @jax.jit
    def curvatures(system, near):
        energy = jax.hessian(lambda r: MODEL.energies(system._replace(positions=r), near)[0])
        return jnp.linalg.eigvalsh(energy(system.positions).reshape(3 * n, 3 * n))[3:]

    def log_frequencies(**deformed_cells):
        """Sum of ln omega over the vibrations of the periodic cell, from second derivatives of its energy."""
        atoms = crystals.supercell(replace(crystal, **deformed_cells), repeats)
        near = jax.tree.map(jnp.asarray, neighbors.from_frames(atoms, MODEL.cutoff, 110))
        return float(jnp.sum(jnp.log(curvatures(systems.from_atoms(atoms), near)))) / 2

    def slope(name, h=1e-4):
        length = getattr(crystal, name)
        up, down = (log_frequencies(**{name: length * (1 + s * h)}) for s in (1, -1))
        return (up - down) / (2 * h)

    volume, heat = crystals.supercell(crystal, repeats).get_volume(), (3 * n - 1.5) * KB
    if crystal.c:
        along_a, along_c = KB / volume * (slope("a") / 2 - 1), KB / volume * (slope("c") - 1)
    else:
        along_a = along_c = KB / volume * (slope("a") / 3 - 1)
    factor = temperature * volume / heat / GPA
    expected = factor * np.array([along_a**2, along_a**2, along_a * along_c, along_c**2, 0])
    if not crystal.c:
        expected = expected[[0, 1, 4]]

    point, strains = StatePoint(temperature, crystal), CoupledStrains(0.002)
    cells, trajectory = sample(strains, [point], repeats, 6, 10, 100, seed=3)
    found = jackknife(
        elastic.with_energy(trajectory.energy, trajectory.observed[..., :6]),
        lambda means: elastic.adiabatic_shift(means, cells, [point]) / GPA,
        10,
    )
    assert (found.stderr[0] < 0.1 * expected.max()).all()
    # beside the noise, a few per cent of anharmonicity
    assert (np.abs(found.value[0] - expected) <= 4 * found.stderr[0] + 0.05 * expected).all(), (found, expected)
