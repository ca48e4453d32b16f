"""Relaxed structures against lattice sums of Lennard-Jones crystals."""

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from pairs import Pairs, lennard_jones, lennard_jones_crystal, lennard_jones_tail, smooth_lennard_jones

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.static import relax
from fusedff.properties.static.relax import NotRelaxedError, RelaxationConfig

TIGHT = RelaxationConfig(fmax=1e-6)


@pytest.mark.parametrize("wrong", [{"fmax": 0.0}, {"fmax": -1e-4}, {"steps": 0}])
def test_limits_of_a_relaxation_that_no_relaxation_reaches_are_refused(wrong):
    with pytest.raises(ValueError, match="RelaxationConfig: .*give a"):
        RelaxationConfig(**wrong)


def test_the_fcc_lennard_jones_crystal_has_its_published_distance_and_energy():
    distance, energy, volume, _ = lennard_jones_crystal("fcc")
    found = relax.equilibrium(Crystal("Ar", "fcc", 1.6), lennard_jones(7.0), TIGHT)
    # what lies beyond the cut-off, of the energy -alpha / V, would squeeze the volume by alpha / (V B) = 8e-4
    assert found.a / np.sqrt(2) == pytest.approx(distance, rel=4e-4)
    rest = relax.relax_crystal(crystals.unit_cell(found), lennard_jones(7.0), TIGHT)
    # neighbours far away are smeared out to a few 1e-4
    found_energy = rest.get_potential_energy() / 4 + lennard_jones_tail(7.0, volume)
    assert found_energy == pytest.approx(energy, rel=5e-4)


def test_a_crystal_on_a_saddle_point_keeps_its_symmetry_and_a_less_symmetric_one_falls():
    """Along Bain's path from bcc (c/a = 1) to fcc (c/a = sqrt 2) the energy of a Lennard-Jones crystal only falls."""
    calculator = smooth_lennard_jones(2.6)
    bcc = crystals.prototype("Ar", "bcc", 0.95)
    held = relax.relax_crystal(bcc, calculator, TIGHT)
    np.testing.assert_allclose(held.cell.lengths(), held.cell.lengths()[0], rtol=1e-9)
    stretched = bcc.copy()
    stretched.set_cell(bcc.cell.array * (1, 1, 1.02), scale_atoms=True)
    fallen = relax.relax_crystal(stretched, calculator, TIGHT)
    assert fallen.cell.lengths()[2] / fallen.cell.lengths()[0] == pytest.approx(np.sqrt(2), rel=1e-4)
    assert fallen.get_potential_energy() < held.get_potential_energy() - 0.1


def test_at_fixed_volume_only_c_over_a_changes_until_stress_is_isotropic():
    start = bulk("Ar", "hcp", a=1.1, c=1.75)
    found = relax.relax_crystal(start, smooth_lennard_jones(2.6), TIGHT, fixed_volume=True)
    assert found.get_volume() == pytest.approx(start.get_volume(), rel=1e-9)
    stress = found.get_stress()
    assert abs(stress[0]) > 0.1  # far from zero pressure
    np.testing.assert_allclose(stress, [*[stress[:3].mean()] * 3, 0, 0, 0], atol=1e-5)
    assert found.cell.lengths()[2] / found.cell.lengths()[0] != pytest.approx(1.75 / 1.1, rel=1e-3)


def test_normal_relaxation_moves_nothing_sideways():
    start = bulk("Ar", "fcc", a=1.5, cubic=True) * (1, 1, 3)
    start.positions[:2] += (0.02, 0.03, 0.04)
    found = relax.relax_normal(start, smooth_lennard_jones(2.6), TIGHT)
    np.testing.assert_allclose(found.positions[:, :2], start.positions[:, :2], atol=1e-12)
    np.testing.assert_allclose(found.cell.array[:2], start.cell.array[:2], atol=1e-12)
    assert abs(found.get_stress()[2]) < 1e-4 * abs(found.get_stress()[0])
    np.testing.assert_allclose(found.get_forces()[:, 2], 0, atol=1e-6)


def test_constraints_hold_and_results_travel_with_the_structure():
    start = bulk("Ar", "fcc", a=1.6, cubic=True) * (2, 1, 1)
    start.rattle(0.02, seed=3)
    start.set_constraint(FixAtoms([0, 1]))
    before = start.positions.copy()
    calculator = smooth_lennard_jones(2.6)
    found = relax.relax_ions(start, calculator)
    np.testing.assert_array_equal(found.positions[:2], before[:2])
    np.testing.assert_array_equal(start.positions, before)  # the argument is left alone
    calculator.calculate = None  # nothing is computed again
    assert np.linalg.norm(found.get_forces()[2:], axis=1).max() < 1e-4
    assert np.linalg.norm(found.get_forces()[0]) > 1e-3  # held, but not free of force


def test_what_does_not_come_to_rest_is_an_error_that_says_where_and_what_to_do():
    start = bulk("Ar", "fcc", a=1.6, cubic=True) * (2, 1, 1)
    start.rattle(0.05, seed=3)
    with pytest.raises(NotRelaxedError, match=r"argon of Ar8: after 2 steps .* on atom \d is .* allow more steps"):
        relax.relax_ions(start, smooth_lennard_jones(2.6), RelaxationConfig(steps=2), "argon")
    with pytest.raises(NotRelaxedError, match="Ar4: after 1 steps the largest force is the cell's"):
        relax.relax_crystal(bulk("Ar", "fcc", a=1.5, cubic=True), smooth_lennard_jones(2.6), RelaxationConfig(steps=1))


def test_a_calculator_that_returns_nan_is_stopped_at_once():
    broken = Pairs(lambda r: r * np.nan, lambda r: r * np.nan, 2.0)
    with pytest.raises(NotRelaxedError, match="a force is nan after 0 steps"):
        relax.relax_ions(ase.Atoms("Ar2", positions=[[0, 0, 0], [1, 0, 0]], cell=9 * np.eye(3), pbc=True), broken)
