"""Free energies of crystals against those of harmonic crystals, which are known."""

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.geometry import neighbors, systems
from fusedff.potential import Potential
from fusedff.properties.thermal import free_energy, transition
from fusedff.properties.thermal.free_energy import HBAR, FreeEnergyConfig
from fusedff.properties.thermal.lattice import LatticeConfig
from fusedff.properties.thermal.transition import TransitionConfig
from fusedff.simulation import langevin
from fusedff.simulation.cells import Springs, replicate
from fusedff.simulation.langevin import LangevinConfig
from fusedff.simulation.statistics import Estimate, jackknife
from fusedff.units import KB, KJ_MOL

OPTIMIZED = True  # long dynamics, see conftest.py
MODEL = argon(cutoff=7.12)  # of this Lennard-Jones crystal, fcc has the lower energy and hcp the softer modes
FCC, HCP = Crystal("Ar", "fcc", 5.243), Crystal("Ar", "hcp", 3.705, 6.114)
EDGES = np.linspace(5.22, 5.30, 5)  # Å
REPEATS = ((2, 1, 1), (2, 2, 1))
LANGEVIN = LangevinConfig(timestep_fs=8.0, friction_per_ps=10.0, steps_per_snapshot=10, skin=0.4)
SETTINGS = TransitionConfig(
    repeats=REPEATS[0], second_repeats=REPEATS[1], replicas=4, langevin=LANGEVIN, equilibration=20, snapshots=300,
    lattice=LatticeConfig(replicas=2, passes=2, equilibration=10, approach=20, snapshots=100, blocks=5), seed=1,
)  # fmt: skip


@jax.jit
def energy_and_hessian(positions, system, near):
    def energy(r):
        return MODEL.energies(system._replace(positions=r), near)[0]

    return energy(positions), jax.hessian(energy)(positions)


def vibrations(curvatures, temperature):
    """Free energy of the modes that are no translations, from squared frequencies (eV/Å^2/amu)."""
    kt = KB * temperature
    return kt * np.log(HBAR * np.sqrt(np.sort(curvatures)[3:]) / kt).sum()


def harmonic(atoms, temperature):
    """Free energy per atom of harmonic vibrations about the sites, as `free_energy` counts it."""
    system, near = systems.from_atoms(atoms), neighbors.from_frames(atoms, MODEL.cutoff, 160)
    energy, hessian = energy_and_hessian(system.positions, system, jax.tree.map(jnp.asarray, near))
    n = len(atoms)
    curvatures = np.linalg.eigvalsh(np.asarray(hessian).reshape(3 * n, -1)) / atoms.get_masses()[0]
    return float(energy) / n + vibrations(curvatures, temperature) / (n - 1)


def test_the_einstein_crystal_has_the_free_energy_of_its_modes_when_the_centre_of_mass_rests(rng):
    """Springs of different strength on different masses: modes in mass-weighted coordinates without the centre."""
    k, m, temperature = rng.uniform(1, 9, 5), rng.uniform(10, 90, 5), 300.0
    away = np.eye(5) - np.outer(np.sqrt(m), np.sqrt(m)) / m.sum()
    curvatures = np.repeat(np.linalg.eigvalsh(away @ np.diag(k / m) @ away), 3)
    expected = vibrations(curvatures, temperature)
    assert free_energy.einstein(k, m, temperature) == pytest.approx(expected, rel=1e-12)


def test_gibbs_energy_follows_from_the_enthalpy_of_a_classical_harmonic_crystal():
    """U0 + 3 kT ln(hbar omega / kT) at 500 K gives that at all other temperatures: H = U0 + 3 kT is a straight line."""
    t, u0, omega = np.array([300.0, 450.0, 500.0, 900.0]), -3.0, 0.9

    def exact(t):
        return u0 + 3 * KB * t * np.log(HBAR * omega / (KB * t))

    found = free_energy.along_temperature(t, u0 + 3 * KB * t, 2, exact(500.0))
    np.testing.assert_allclose(found, exact(t), rtol=1e-12)


def test_phases_are_in_equilibrium_where_their_gibbs_energies_cross():
    """Latent heat L and equilibrium at T0: the difference is L (1 - T / T0)."""
    t, heat, t0 = np.array([900.0, 1100.0, 1300.0]), 0.043, 1155.0
    found = transition.equilibrium(t, heat * (1 - t / t0), np.full(3, heat))
    assert found == pytest.approx((t0, heat), rel=1e-12)
    assert np.isnan(transition.equilibrium(t, heat * (1 - t / 1500), np.full(3, heat))).all()


def test_atoms_on_springs_alone_hold_half_kt_per_degree_of_freedom_and_their_centre_rests():
    """Whatever the masses and springs; the potential is not felt but its energy is what the trajectory records."""
    frame = crystals.supercell(FCC, (1, 1, 1))
    frame.set_masses([20.0, 40.0, 60.0, 80.0])
    cells = replicate([frame], [6.0], replicas=24, dtype=float)
    stiffness = jnp.broadcast_to(jnp.array([0.1, 0.3, 0.2, 0.4]), (24, 4))
    cells = cells._replace(springs=Springs(jnp.zeros(24), stiffness))
    simulation = langevin.Simulation(cells, LANGEVIN, MODEL.cutoff)
    _, found = simulation.sample(MODEL, langevin.start(cells, jax.random.PRNGKey(0)), 20, 100)
    moved = found.positions - cells.sites
    np.testing.assert_allclose(jnp.einsum("a,scax->scx", cells.masses[0], moved), 0, atol=1e-9)
    energy = np.asarray(jnp.sum(stiffness[..., None] / 2 * moved**2, (2, 3))).mean(0)
    expected = 9 / 2 * KB * 6.0  # 3 (N - 1) degrees of freedom
    error = energy.std(ddof=1) / np.sqrt(24)
    assert error < 0.03 * expected
    assert abs(energy.mean() - expected) < 4 * error
    last = frame.copy()
    last.positions = np.asarray(found.positions[-1, 0])
    system, near = systems.from_atoms(last), neighbors.from_frames(last, MODEL.cutoff)
    assert found.energy[-1, 0] == pytest.approx(float(jax.jit(Potential.energies)(MODEL, system, near)[0]), abs=1e-9)


CUBE = FreeEnergyConfig(
    repeats=(1, 1, 1), replicas=4, langevin=LANGEVIN, equilibration=20, snapshots=300, nodes=6, seed=2
)


def cubes(temperatures, settings=CUBE, edges=(FCC.a, FCC.a)):
    """The 4-atom cube of fcc argon, sampled at two temperatures and along the path at the second."""
    frames = [crystals.unit_cell(replace(FCC, a=a)) for a in edges]
    return free_energy.sample(argon(cutoff=7.12, dtype=jnp.float32), frames, temperatures, settings, name=None)


def test_the_free_energy_is_that_of_the_modes_whatever_the_spring_constant():
    """Springs of half and of twice the strength that the displacements suggest give one free energy."""
    matched = cubes([3.0, 6.0])
    expected = harmonic(matched.frames[1], 6.0)
    for found in (matched, *(cubes([3.0, 6.0], replace(CUBE, spring=f * matched.springs[0])) for f in (0.5, 2.0))):
        estimate = jackknife(
            found.observed, lambda means, found=found: free_energy.energies(found, means, np.zeros((3, 3))).free_energy
        )
        assert estimate.stderr < 0.02 * KB * 6.0
        # 0.01 kT for anharmonicity, which is of second order in T: kT is 5 % of epsilon
        assert abs(estimate.value - expected) < 4 * estimate.stderr + 0.01 * KB * 6.0


def test_the_enthalpy_of_zero_stress_is_that_of_any_cell_nearby():
    """Cells 0.5 % too long and too short; the thermal strain is that of the harmonic crystal."""

    def edge(temperature):
        at = [harmonic(crystals.unit_cell(replace(FCC, a=a)), temperature) for a in EDGES]
        curvature, slope, _ = np.polyfit(EDGES, at, 2)
        return -slope / (2 * curvature)

    low, middle, high = (edge(t) for t in (3.0, 6.0, 9.0))
    found = cubes([6.0, 6.0], replace(CUBE, spring=0.2), (0.995 * middle, 1.005 * middle))

    def difference(means, strain):
        return np.diff(free_energy.energies(found, means, strain * np.eye(3)).enthalpy)[0]

    raw, corrected = (
        jackknife(found.observed, lambda means, a=a: difference(means, a)) for a in (0, (high - low) / 6 / middle)
    )
    assert raw.value > 6 * raw.stderr
    # where the stress is no longer linear in the strain: an eighth of what is corrected
    assert abs(corrected.value) < 4 * corrected.stderr + raw.value / 8


def test_a_crystal_that_melts_has_no_free_energy():
    said = r"cell \d+ at \d+ K: on average, atoms are \d\.\d\d Å from their sites, so it has melted"
    with pytest.warns(UserWarning, match="no longer the crystal"), pytest.raises(ValueError, match=said):
        cubes([1000.0, 2000.0])


@pytest.fixture(scope="module")
def result():
    """Three temperatures around that at which the harmonic crystals are in equilibrium, 6.6 K."""
    return transition.run(argon(cutoff=7.12, dtype=jnp.float32), (FCC, HCP), [3.0, 6.0, 9.0], SETTINGS, name=None)


@pytest.fixture(scope="module")
def expected(result):
    """Free energies (2, n_temperatures) of harmonic crystals in the cells of zero stress."""
    found = np.empty((2, 3))
    for p, (crystal, repeats) in enumerate(zip((FCC, HCP), REPEATS, strict=True)):
        for t, lengths in enumerate(result.lattices[p].lengths):
            cell = replace(crystal, **dict(zip(result.lattices[p].names, map(float, lengths), strict=True)))
            found[p, t] = harmonic(crystals.supercell(cell, repeats), result.temperature[t])
    return found


def test_gibbs_energies_are_those_of_harmonic_crystals_at_the_temperature_of_integration_and_at_others(
    result, expected
):
    """At 6 K by integration from the Einstein crystal, at 3 and 9 K from there with the enthalpies."""
    kt = KB * result.temperature
    assert (result.gibbs.stderr < 0.02 * kt).all()
    # anharmonicity is of second order in T: (kT)^2 / epsilon, times a number of order one
    assert (np.abs(result.gibbs.value - expected) < 4 * result.gibbs.stderr + kt**2 / 0.0104).all()
    # and much the same in two close-packed crystals
    difference = expected[1] - expected[0]
    assert difference[0] > 10 * result.difference.stderr[0]
    assert (np.abs(result.difference.value - difference) < 4 * result.difference.stderr + 0.2 * kt**2 / 0.0104).all()


def test_the_phases_are_in_equilibrium_where_harmonic_crystals_are_and_the_heat_is_that_of_their_entropies(
    result, expected
):
    difference = expected[1] - expected[0]
    where, _ = transition.equilibrium(result.temperature, difference, np.zeros(3))
    assert 0 < result.transition.stderr < 0.5
    assert abs(result.transition.value - where) < 4 * result.transition.stderr + 0.1
    heat = -where * np.polyfit(result.temperature, difference, 1)[0]
    assert result.latent_heat.stderr < 0.15 * heat
    assert abs(result.latent_heat.value - heat) < 4 * result.latent_heat.stderr


def test_a_transition_is_plain_data_with_errors(result):
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["transition_K"]["value"] == pytest.approx(float(result.transition.value))
    assert plain["latent_heat_kJ_per_mol"]["stderr"] == pytest.approx(float(result.latent_heat.stderr) / KJ_MOL)
    row = plain["by_temperature_K"]["6"]
    assert row["hcp"]["gibbs_eV_per_atom"]["value"] - row["fcc"]["gibbs_eV_per_atom"]["value"] == pytest.approx(
        row["difference_eV_per_atom"]["value"]
    )
    assert plain["n_atoms"] == {"fcc": 8, "hcp": 8}
    assert plain["settings"]["lattice"]["passes"] == 2
    nowhere = replace(result, transition=Estimate(np.array(np.nan), np.array(np.nan)))
    assert nowhere.as_dict()["transition_K"] is nowhere.as_dict()["latent_heat_kJ_per_mol"] is None


@pytest.mark.parametrize(
    ("phases", "temperatures", "says"),
    [
        ((FCC, HCP), [6.0], "temperatures [6.0] K: the transition is sought between two or more"),
        ((FCC,), [3.0, 6.0], "1 phases; a transition is between two"),
        ((FCC, Crystal("Al", "fcc", 4.05)), [3.0, 6.0], "are no phases of one substance"),
    ],
)
def test_what_is_no_transition_is_refused(phases, temperatures, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        transition.run(MODEL, phases, temperatures, SETTINGS, name=None)


@pytest.mark.parametrize(("name", "value"), [("nodes", 1), ("nodes", 65), ("spring", 0.0), ("spring", -1.0)])
def test_settings_have_ranges(name, value):
    with pytest.raises(ValueError, match=f"TransitionConfig: {name} = {value}"):
        TransitionConfig(**{name: value})
