"""Single precision suffices, for any zero of energy and any positions of the atoms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import EPSILON, SIGMA
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.geometry import systems
from fusedff.interfaces.ase import FusedCalculator
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.simulation import cells
from fusedff.study import comparison
from fusedff.training import label_errors

ZEROS = (0.0, -1605.0, -14_380.0)  # eV per atom: none, titanium with semicore states, argon with all electrons


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


def argon(zero=0.0) -> Potential:
    params = {"epsilon": jnp.array([EPSILON]), "sigma": jnp.array([SIGMA])}
    return Potential(params, LennardJones(7.0), (18,), (zero,))


def rattled(seed, a=5.3):
    frame = bulk("Ar", "fcc", a=a, cubic=True)
    frame.rattle(0.1, seed=seed)
    return frame


def said(frame, model):
    frame = frame.copy()
    frame.calc = FusedCalculator(model)
    return frame.get_potential_energy(), frame.get_forces(), frame.get_stress()


@pytest.mark.parametrize("zero", ZEROS)
def test_the_model_that_made_the_labels_is_exact_whatever_the_zero_of_energy(zero):
    frames = []
    for seed, a in enumerate((5.25, 5.3, 5.35)):
        frame = rattled(seed, a)
        energy, forces, stress = said(frame, argon())
        frame.calc = SinglePointCalculator(frame, energy=energy + zero * len(frame), forces=forces, stress=stress)
        frames.append(frame)
    assert label_errors.errors(argon(zero), frames)["energy_mae_meV_per_atom"] < 0.01
    label, found = comparison.predictions(argon(zero), frames)
    np.testing.assert_allclose(found["energy"], label["energy"], rtol=0, atol=1e-5)


def test_the_vacancy_of_argon_costs_as_much_whatever_the_zero_of_energy():
    energies = []
    for zero in ZEROS[:2]:
        crystal = bulk("Ar", "fcc", a=5.25, cubic=True) * 3
        crystal.calc = FusedCalculator(argon(zero))
        n, perfect = len(crystal), crystal.get_potential_energy()
        del crystal[0]
        energies.append(crystal.get_potential_energy() - (n - 1) / n * perfect)
    assert energies[0] == pytest.approx(0.0724, abs=2e-4)
    np.testing.assert_allclose(energies, energies[0], atol=1e-5)  # 108 atoms of 0.08 eV in single precision


def far_away(frame, turns):
    frame = frame.copy()
    frame.positions += turns @ frame.cell.array
    return frame


def test_forces_do_not_depend_on_which_periodic_image_an_atom_is(rng):
    frame = bulk("Ar", "hcp", a=3.72, c=6.1) * (2, 2, 1)
    frame.rattle(0.1, seed=1)
    moved = far_away(frame, rng.integers(-10_000, 10_000, (len(frame), 3)))
    near, far = said(frame, argon()), said(moved, argon())
    # forces of 0.1 eV/Å in single precision: off by 0.02 to 0.15 eV/Å if positions are rounded first
    np.testing.assert_allclose(far[1], near[1], atol=2e-6)
    assert far[0] == pytest.approx(near[0], abs=1e-6)
    for one, other in zip(
        comparison.evaluate(argon(), [moved, frame]).forces.reshape(2, -1), near[1:2] * 2, strict=True
    ):
        np.testing.assert_allclose(one, other.ravel(), atol=2e-6)


def test_training_and_dynamics_see_atoms_in_or_near_their_cell(rng):
    frame = rattled(0)
    energy, forces, stress = said(frame, argon())
    moved = far_away(frame, rng.integers(-10_000, 10_000, (len(frame), 3)))
    moved.calc = SinglePointCalculator(moved, energy=energy, forces=forces, stress=stress)
    assert label_errors.errors(argon(), [moved])["force_mae_meV_per_A"] < 0.01
    ensemble = cells.replicate([moved], [10.0])
    fractional = np.asarray(ensemble.sites[0]) @ np.linalg.inv(frame.cell.array)
    assert np.abs(fractional).max() < 1.51
    apart = fractional - frame.get_scaled_positions(wrap=False)
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-6)


def test_a_cluster_far_from_the_origin_is_shifted_as_a_whole():
    dimer = Atoms("Ar2", [[0, 0, 0], [3.5, 0, 0]])
    here = said_of_cluster(dimer)
    dimer.positions += [1e5, -3e5, 2e5]
    for one, other in zip(said_of_cluster(dimer), here, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    slab = rattled(3)
    slab.pbc = (True, True, False)
    moved = slab.copy()
    moved.positions[:, 2] += 12_345.6
    np.testing.assert_allclose(said_of_cluster(moved)[1], said_of_cluster(slab)[1], atol=5e-6)


def said_of_cluster(frame):
    frame = frame.copy()
    frame.calc = FusedCalculator(argon())
    return frame.get_potential_energy(), frame.get_forces()


def test_atoms_in_or_near_the_cell_stay_where_they_are():
    frame = rattled(1)
    assert systems.wrapped(frame) is frame
    frame.positions -= 0.4 * frame.cell.array[0]
    assert systems.wrapped(frame) is frame
