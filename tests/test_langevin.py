"""Trajectories: the right temperature, reproducible numbers, and errors instead of wrong trajectories."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import FCC, argon, laid_out

from fusedff.crystallography import crystals
from fusedff.interfaces.ase import FusedCalculator
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential
from fusedff.simulation import checks, langevin, sampling
from fusedff.simulation.cells import replicate
from fusedff.simulation.langevin import (
    ExplodedTrajectoryError,
    LangevinConfig,
    ListCapacity,
    Simulation,
    SimulationCells,
)
from fusedff.units import FS, KB

OPTIMIZED = True  # long dynamics, see conftest.py
MODEL = argon()
SETTINGS = LangevinConfig(timestep_fs=8.0, friction_per_ps=5.0, steps_per_snapshot=20, skin=0.6)


def cells(temperatures, streams, repeats=(2, 2, 2), a=FCC.a):
    atoms = crystals.supercell(crystals.Crystal("Ar", "fcc", a), repeats)
    n = len(temperatures)
    return SimulationCells(
        jnp.asarray(np.stack([atoms.positions] * n)),
        jnp.asarray(np.stack([atoms.cell.array] * n)),
        jnp.asarray(temperatures, float),
        jnp.asarray(streams, jnp.int32),
        jnp.asarray(atoms.numbers, jnp.int32),
        jnp.asarray(np.stack([atoms.get_masses()] * n)),
    )


def simulate(ensemble, snapshots, settings=SETTINGS, capacity=None, seed=0):
    simulation = Simulation(ensemble, settings, MODEL.cutoff)
    state = langevin.start(ensemble, jax.random.PRNGKey(seed))
    state, trajectory = simulation.run(MODEL, state, snapshots, capacity=capacity)
    return simulation, state, trajectory


@pytest.fixture(scope="module")
def cold():
    """Eight independent crystals at 2 K, where argon is harmonic to a percent, equilibrated."""
    ensemble = cells([2.0] * 8, range(8))
    simulation = Simulation(ensemble, SETTINGS, MODEL.cutoff)
    state = langevin.start(ensemble, jax.random.PRNGKey(0))
    state, _ = simulation.run(MODEL, state, 20)
    state, trajectory = simulation.run(MODEL, state, 60)
    return ensemble, state, trajectory


def mean_with_error(per_cell):
    """Mean over snapshots and cells with the standard error from the independent cells."""
    means = np.asarray(per_cell).mean(0)
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))


def test_momenta_have_the_temperature_of_the_bath(cold):
    _, _, trajectory = cold
    mean, error = mean_with_error(trajectory.temperature)
    assert error < 0.06  # K: the test has the power to see a missing degree of freedom in a hundred
    assert abs(mean - 2.0) < 4 * error


def test_a_harmonic_crystal_holds_half_kt_of_potential_energy_per_degree_of_freedom(cold):
    ensemble, _, trajectory = cold
    rest = crystals.supercell(FCC, (2, 2, 2))
    at_rest = jax.jit(Potential.energies)(MODEL, *laid_out(rest, MODEL.cutoff))[0]
    degrees = 3 * len(ensemble.numbers) - 3  # the centre of mass is at rest
    mean, error = mean_with_error((trajectory.energy - at_rest) / (degrees * KB / 2))
    # anharmonicity adds about T / (ten times the melting point): a percent at 2 K
    assert abs(mean - 2.0) < 4 * error + 0.02


def test_the_centre_of_mass_stays_at_rest(cold):
    ensemble, state, trajectory = cold
    np.testing.assert_allclose(state.momenta.sum(1), 0, atol=1e-10)
    drift = trajectory.positions.mean(2) - ensemble.sites.mean(1)
    np.testing.assert_allclose(drift, 0, atol=1e-10)


def test_momenta_start_with_the_temperature_and_without_drift():
    ensemble = cells([300.0] * 40, range(40))
    state = langevin.start(ensemble, jax.random.PRNGKey(3))
    mass = ensemble.masses[..., None]
    t = np.asarray(langevin.kinetic_temperature(state.momenta, mass))
    assert abs(t.mean() - 300) < 4 * 300 * np.sqrt(2 / (93 * 40))  # relative variance of a chi^2 is 2 / freedom
    np.testing.assert_allclose(state.momenta.sum(1), 0, atol=1e-10)


def test_isotopes_move_with_their_own_masses():
    """At one temperature momenta grow as the root of the mass, and atoms are slower by it."""
    natural = crystals.supercell(FCC, (1, 1, 1))
    heavy, mixed = natural.copy(), natural.copy()
    heavy.set_masses([400.0] * 4)
    mixed.set_masses([36.0, 40.0, 36.0, 40.0])
    ensemble = replicate([natural, heavy, mixed], [50.0] * 3, replicas=2, dtype=float)
    masses = np.repeat([natural.get_masses(), heavy.get_masses(), mixed.get_masses()], 2, axis=0)
    np.testing.assert_array_equal(ensemble.masses, masses)
    ensemble = ensemble._replace(noise_id=jnp.zeros(6, jnp.int32))  # the same random numbers for all
    momenta = np.asarray(langevin.start(ensemble, jax.random.PRNGKey(0)).momenta)
    np.testing.assert_allclose(momenta[2] / momenta[0], np.sqrt(400.0 / natural.get_masses()[0]), rtol=1e-10)
    ensemble = cells([40.0] * 8, [0] * 8)
    ensemble = ensemble._replace(masses=ensemble.masses.at[4:].multiply(10.0))
    _, state, _ = simulate(ensemble, 1)
    moved = np.sqrt(np.mean((state.positions - ensemble.sites) ** 2, (1, 2)))
    assert 2.2 < moved[0] / moved[4] < 3.2  # after 160 fs, the root of ten but for forces, which turn light atoms first
    natural.set_masses([0.0, 40, 40, 40])
    with pytest.raises(ValueError, match="frame 0: mass of atom 0 is 0; give positive masses"):
        replicate([natural], [50.0])


def test_cells_of_one_stream_move_alike_and_others_do_not():
    _, _, trajectory = simulate(cells([40.0] * 8, [5, 5, 6, 0, 1, 2, 3, 4]), 4)
    first, twin, other = jnp.moveaxis(trajectory.positions, 1, 0)[:3]
    np.testing.assert_array_equal(first, twin)
    assert np.abs(first - other).max() > 0.05


def test_a_run_in_two_pieces_is_bit_for_bit_the_run_in_one():
    ensemble = cells([40.0] * 8, range(8))
    simulation, end, whole = simulate(ensemble, 7)
    state = langevin.start(ensemble, jax.random.PRNGKey(0))
    again = Simulation(ensemble, SETTINGS, MODEL.cutoff)
    parts = []
    for snapshots in (3, 4):
        state, part = again.run(MODEL, state, snapshots)
        parts.append(part)
    assert again.capacity == simulation.capacity
    for one, two in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(two))
    for one, two in zip(end, state, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def roomy():
    """A hot crystal with lists that hold every pair, renewed almost never."""
    settings = LangevinConfig(timestep_fs=8.0, friction_per_ps=5.0, steps_per_snapshot=10, skin=3.0)
    return simulate(cells([60.0], [1]), 3, settings, ListCapacity(300, 100))[2]


@pytest.mark.parametrize(
    ("skin", "capacity"),
    [
        pytest.param(0.6, ListCapacity(3, 3), id="lists that are too small"),
        pytest.param(0.05, None, id="a skin so thin that lists are renewed every few steps"),
    ],
)
def test_neither_list_sizes_nor_the_skin_change_the_trajectory(roomy, skin, capacity):
    settings = LangevinConfig(timestep_fs=8.0, friction_per_ps=5.0, steps_per_snapshot=10, skin=skin)
    simulation, _, trajectory = simulate(cells([60.0], [1]), 3, settings, capacity)
    # other orders of summation: 1e-16 relative, grown by 30 steps of dynamics
    np.testing.assert_allclose(trajectory.positions, roomy.positions, atol=1e-9)
    np.testing.assert_allclose(trajectory.energy, roomy.energy, rtol=1e-10)
    np.testing.assert_allclose(trajectory.observed, roomy.observed, atol=1e-10)
    if capacity:
        assert simulation.capacity.candidates > 50
        assert simulation.capacity.neighbors > 30


def test_every_cell_of_an_ensemble_gets_the_images_it_needs():
    """One cell is short in x and the other in y: the images of either alone would lose pairs of the other."""
    cube, n = crystals.supercell(FCC, (1, 1, 1)), 2
    lengths = np.array([[6.0, 16.0, 16.0], [16.0, 6.0, 16.0]])
    boxes = np.stack([np.diag(l) for l in lengths])
    sites = np.stack([cube.get_scaled_positions() @ box for box in boxes])
    ensemble = SimulationCells(
        jnp.asarray(sites),
        jnp.asarray(boxes),
        jnp.full(n, 1e-9),
        jnp.arange(n),
        jnp.asarray(cube.numbers),
        jnp.asarray(np.stack([cube.get_masses()] * n)),
    )
    _, _, trajectory = simulate(ensemble, 1, LangevinConfig(timestep_fs=0.01, steps_per_snapshot=1, skin=0.5))
    # fcc looks the same along x and y
    assert abs(trajectory.energy[0, 0]) > 1e-3
    assert float(trajectory.energy[0, 0]) == pytest.approx(float(trajectory.energy[0, 1]), rel=1e-9)


def test_an_exploding_crystal_is_reported_with_temperature_step_and_remedy():
    """The step is counted from the beginning of the run, however often a snapshot was taken before it."""
    steps = []
    for per_snapshot in (1, 50):
        reckless = LangevinConfig(timestep_fs=180.0, friction_per_ps=0.1, steps_per_snapshot=per_snapshot, skin=0.6)
        with pytest.raises(
            ExplodedTrajectoryError, match=r"at 80 K exploded: after \d+ steps .*180.0 fs.*shorter timestep"
        ) as caught:
            simulate(cells([80.0], [0], repeats=(1, 1, 1)), 50 // per_snapshot, reckless, ListCapacity(110, 110))
        assert caught.value.cell == 0
        steps.append(int(re.search(r"after (\d+) steps", str(caught.value))[1]))
    assert steps[0] == steps[1] > 1


def test_a_potential_that_does_not_know_the_element_is_refused():
    ensemble = cells([10.0], [0])._replace(numbers=jnp.full(32, 22))
    with pytest.raises(ValueError, match="knows Ar but not Ti"):
        Simulation(ensemble, SETTINGS, MODEL.cutoff).run(MODEL, langevin.start(ensemble, jax.random.PRNGKey(0)), 1)


# ---- potentials and states that cannot go well ----


def wild():
    """A network that was never trained, loud enough to be heard."""
    size = DimeNet(5.0, 8, 1, 4, 3, 4, 4, 4, 8, 1, 0, 1)
    made = Potential.create(jax.random.key(0), size, {"Ar": 0.0}, scale=100.0)
    rng = np.random.default_rng(0)
    return made.with_params(jax.tree.map(lambda x: x + rng.normal(size=x.shape), made.params))


@pytest.mark.parametrize(
    ("bad", "temperature", "overlap"),
    [
        pytest.param(wild, 40.0, 0.0, id="random weights"),
        pytest.param(lambda: argon(epsilon=964.85 * 0.0104), 40.0, 0.0, id="energies in kJ/mol/10"),
        pytest.param(lambda: argon(sigma=5.4), 40.0, 0.0, id="atoms too large for the cell"),
        pytest.param(argon, 40.0, 3.0, id="atoms that overlap"),
        pytest.param(argon, 3e5, 0.0, id="a plasma"),
    ],
)
def test_a_bad_potential_or_state_is_reported_with_temperature_step_force_and_remedy(bad, temperature, overlap):
    ensemble = cells([temperature], [0], repeats=(1, 1, 1))
    ensemble = ensemble._replace(sites=ensemble.sites.at[0, 1, 1].add(overlap * np.sqrt(0.5)).at[0, 1, 2].add(-overlap))
    model = bad()
    simulation = Simulation(ensemble, SETTINGS, model.cutoff)
    roomy = ListCapacity(200, 100)  # lists that grow with the disorder would be compiled again and again
    report = (
        rf"at {temperature:.0f} K exploded: after \d+ steps .*largest force .*eV/Å .*8.0 fs.*shorter timestep, or train"
    )
    with pytest.raises(ExplodedTrajectoryError, match=report):
        simulation.run(model, langevin.start(ensemble, jax.random.PRNGKey(0)), 20, capacity=roomy)


def test_solid_titanium_at_3000_kelvin_explodes_or_melts_and_either_is_reported(recwarn):
    """A trained network, far above the 973 K that it is good for: what comes of it is open, but not that it is told."""
    hot = replicate([crystals.supercell(crystals.Crystal("Ti", "hcp", 2.95, 4.68), (3, 3, 2))], [3000.0])
    model, settings = Potential.load("titanium-fused"), LangevinConfig(8.0, 10.0, 10, 2.0)
    simulation = Simulation(hot, settings, model.cutoff)
    try:
        _, trajectory = simulation.run(
            model, langevin.start(hot, jax.random.PRNGKey(0)), 30, capacity=ListCapacity(160, 56)
        )
        checks.warn_if_lost(hot, trajectory)
        told = str(recwarn.pop().message)
    except ExplodedTrajectoryError as error:
        told = str(error)
    assert re.match(r"cell 0 at 3000 K (exploded: after \d+ steps|is no longer the crystal)", told)


def test_one_slot_too_few_is_noticed_and_made_good(roomy):
    settings = LangevinConfig(timestep_fs=8.0, friction_per_ps=5.0, steps_per_snapshot=10, skin=0.6)
    simulation, _, _ = simulate(cells([60.0], [1]), 3, settings, ListCapacity(3, 3))
    short = ListCapacity(*(size - 3 for size in simulation.capacity))  # they grow to what is needed and two more
    again, _, trajectory = simulate(cells([60.0], [1]), 3, settings, short)
    assert again.capacity.candidates > short.candidates
    np.testing.assert_allclose(trajectory.positions, roomy.positions, atol=1e-9)


def test_a_crystal_that_melts_is_reported_and_one_that_vibrates_is_not(cold):
    ensemble, _, trajectory = cold
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.warn_if_lost(ensemble, trajectory)
    hot = cells([1500.0], [0])
    settings = LangevinConfig(timestep_fs=2.0, friction_per_ps=5.0, steps_per_snapshot=40, skin=1.0)
    _, _, trajectory = simulate(hot, 12, settings)
    with pytest.warns(UserWarning, match=r"cell 0 at 1500 K is no longer the crystal.*lower the temperature"):
        checks.warn_if_lost(hot, trajectory)


def test_a_time_step_too_long_is_told_from_the_kinetic_temperature(cold):
    """BAOAB leaves a harmonic mode the kinetic temperature T (1 - (w dt)^2 / 4); the mean w^2 is a trace of forces."""
    ensemble, _, trajectory = cold
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.warn_if_cold(ensemble, SETTINGS, trajectory)
    atoms, h = crystals.supercell(FCC, (2, 2, 2)), 1e-3  # Å
    atoms.calc = FusedCalculator(MODEL)
    force = []
    for sign in (1, -1):  # along x: all atoms and axes are equal
        atoms.positions[0, 0] += sign * h
        force.append(atoms.get_forces()[0, 0])
        atoms.positions[0, 0] -= sign * h
    per_mass = (force[1] - force[0]) / (2 * h) / atoms.get_masses()[0]
    mean_square = per_mass * len(atoms) / (len(atoms) - 1)  # three modes, of the whole crystal, have none
    step = np.sqrt(4 * 0.15 / mean_square) / FS  # 15 % too cold
    settings = LangevinConfig(timestep_fs=float(step), friction_per_ps=5.0, steps_per_snapshot=5, skin=0.6)
    _, _, trajectory = simulate(ensemble, 120, settings)
    mean, error = mean_with_error(trajectory.temperature[20:] / 2.0)
    assert error < 0.01
    assert abs(mean - 0.85) < 4 * error
    with pytest.warns(UserWarning, match=r"1\d % below that of the thermostat: the time step of .* fs is too long"):
        checks.warn_if_cold(ensemble, settings, trajectory)


@pytest.mark.parametrize("friction", [0.0, 0.01])
def test_a_thermostat_that_hardly_acts_is_told_from_the_kinetic_temperature(friction):
    """Crystals start at their sites: half of the kinetic energy becomes potential energy, and nothing replaces it."""
    ensemble = cells([2.0] * 8, range(8))
    settings = LangevinConfig(timestep_fs=8.0, friction_per_ps=friction, steps_per_snapshot=20, skin=0.6)
    with pytest.warns(UserWarning, match=rf"[45]\d % below .* hardly acts with friction_per_ps = {friction:g}; use 1"):
        sampling.sample(MODEL, ensemble, settings, equilibration=5, snapshots=20, seed=0)


@pytest.mark.parametrize("equilibration", [0, 2])
def test_sampling_drops_the_equilibration_and_nothing_else(equilibration):
    simulation, _, whole = simulate(cells([60.0], [1]), equilibration + 3)
    start = langevin.start(simulation.cells, jax.random.PRNGKey(0))
    _, sampled = simulation.sample(MODEL, start, equilibration, 3)
    np.testing.assert_allclose(sampled.positions, whole.positions[equilibration:], atol=1e-9)
