"""Vacancies, surfaces and stacking faults against bond counting, exact relations of pair potentials, other methods."""

import json

import numpy as np
import pytest
from ase.build import bulk, fcc111, hcp10m10
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE
from pairs import smooth_lennard_jones, springs

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.static import defects, relax
from fusedff.properties.static.relax import RelaxationConfig

NEAREST = 2.8  # Å
FCC = Crystal("Al", "fcc", NEAREST * np.sqrt(2))
BCC = Crystal("Fe", "bcc", NEAREST * 2 / np.sqrt(3))
HCP = Crystal("Ti", "hcp", NEAREST, NEAREST * np.sqrt(8 / 3))
J_PER_M2 = 1 / 16.02176634  # eV/Å^2
BOND = 0.4  # eV


def bonds():
    """Nothing but bonds of BOND between nearest neighbours at rest: springs that cost their breaking."""
    calculator = springs(1.0, NEAREST)
    stretched = calculator.energy
    calculator.energy = lambda r: stretched(r) - BOND
    calculator.cutoff = 1.1 * NEAREST
    return calculator


@pytest.mark.parametrize(
    ("crystal", "facet", "broken", "area"),
    [
        (FCC, "111", 3, np.sqrt(3) / 4),  # bonds cut per surface atom, and its area in a^2
        (FCC, "100", 4, 1 / 2),
        (FCC, "110", 6, 1 / np.sqrt(2)),
        (BCC, "110", 2, 1 / np.sqrt(2)),
        (BCC, "100", 4, 1),
        (BCC, "111", 6, np.sqrt(3)),
        (HCP, "0001", 3, np.sqrt(3) / 2),
        (HCP, "10-10", 6, np.sqrt(8 / 3)),  # four of the top plane, two of the next
    ],
    ids=lambda value: value.structure if isinstance(value, Crystal) else None,
)
def test_a_surface_costs_half_of_the_bonds_it_cuts(crystal, facet, broken, area):
    found = defects.surface(crystal, facet, bonds(), vacuum=5.0, name=None)
    assert found.area == pytest.approx(area * crystal.a**2)
    expected = broken * BOND / 2 / found.area / J_PER_M2
    assert found.unrelaxed_j_per_m2 == pytest.approx(expected, rel=1e-7)
    assert found.energy_j_per_m2 == pytest.approx(expected, rel=1e-7)  # springs at rest: nothing relaxes


def test_a_surface_of_emt_copper_is_the_intercept_of_slabs_of_growing_thickness():
    copper = relax.equilibrium(Crystal("Cu", "fcc", 3.6), EMT())
    found = defects.surface(copper, "111", EMT(), layers=12, name=None)
    thickness, energies = np.array([6, 7, 9]), []
    for layers in thickness:
        slab = fcc111("Cu", (1, 1, int(layers)), a=copper.a, vacuum=9.0)
        slab.calc = EMT()
        FIRE(slab, logfile=None).run(fmax=1e-3)
        energies.append(slab.get_potential_energy())
    _, intercept = np.polyfit(thickness, energies, 1)
    # the slope is the bulk energy to 1e-4 eV, six times that in the intercept
    assert found.energy_j_per_m2 == pytest.approx(intercept / 2 / found.area / J_PER_M2, rel=2e-3)
    assert found.energy_j_per_m2 < found.unrelaxed_j_per_m2
    assert found.unrelaxed_j_per_m2 == pytest.approx(found.energy_j_per_m2, rel=0.01)


def test_a_vacancy_in_a_pair_potential_costs_the_energy_of_an_atom():
    """Taking an atom away cuts all its bonds; putting it back on the surface makes half of them again."""
    calculator = smooth_lennard_jones(2.2)
    argon = relax.equilibrium(Crystal("Ar", "fcc", 1.55), calculator)
    cell = crystals.unit_cell(argon)
    cell.calc = calculator
    found = defects.vacancy(argon, calculator, (2, 2, 2), RelaxationConfig(fmax=1e-3), name=None)
    assert found.unrelaxed_energy == pytest.approx(-cell.get_potential_energy() / 4, rel=1e-9)
    assert 0.9 * found.unrelaxed_energy < found.formation_energy < found.unrelaxed_energy
    assert found.n_atoms == 32
    assert json.loads(json.dumps(found.as_dict()))["crystal"]["structure"] == "fcc"


def test_a_vacancy_of_emt_copper_is_what_one_finds_by_hand():
    copper = Crystal("Cu", "fcc", 3.59)
    found = defects.vacancy(copper, EMT(), (2, 2, 2), RelaxationConfig(fmax=1e-3), name=None)
    perfect = bulk("Cu", "fcc", a=3.59, cubic=True) * (2, 2, 2)
    with_hole = perfect[[n for n in range(32) if n != 17]]
    for atoms in (perfect, with_hole):
        atoms.calc = EMT()
    unrelaxed = with_hole.get_potential_energy() - 31 / 32 * perfect.get_potential_energy()
    assert found.unrelaxed_energy == pytest.approx(unrelaxed, abs=1e-9)
    FIRE(with_hole, logfile=None).run(fmax=1e-3)
    relaxed = with_hole.get_potential_energy() - 31 / 32 * perfect.get_potential_energy()
    assert found.formation_energy == pytest.approx(relaxed, abs=1e-5)  # forces of 1e-3 over 1e-3 Å, some atoms


def test_close_packed_faults_of_a_pair_potential_cost_twice_what_separates_fcc_and_hcp():
    """For pairs that reach less than three planes, the energy counts the planes whose neighbours are alike.

    In hcp all are, in fcc none; the intrinsic fault of fcc makes two of them, I2 of hcp unmakes two.
    """
    calculator = smooth_lennard_jones(2.2)  # three planes are 2.45 distances of 1.1 high
    fcc, hcp = Crystal("Ar", "fcc", 1.1 * np.sqrt(2)), Crystal("Ar", "hcp", 1.1, 1.1 * np.sqrt(8 / 3))
    per_atom = {}
    for crystal in (fcc, hcp):
        cell = crystals.unit_cell(crystal)
        cell.calc = calculator
        per_atom[crystal.structure] = cell.get_potential_energy() / len(cell)
    for crystal, fault, sign in ((fcc, "intrinsic", 1), (hcp, "basal", -1)):
        found = defects.stacking_fault(crystal, fault, calculator, layers=6, name=None)
        expected = sign * 2 * (per_atom["hcp"] - per_atom["fcc"]) / found.area
        assert found.unrelaxed_mj_per_m2 / 1e3 * J_PER_M2 == pytest.approx(expected, rel=1e-7)
        assert np.linalg.norm(found.shift) == pytest.approx(1.1 / np.sqrt(3))


@pytest.mark.parametrize(("crystal", "fault"), [(FCC, "intrinsic"), (HCP, "basal")])
def test_close_packed_faults_leave_every_atom_its_twelve_neighbours(crystal, fault):
    found = defects.stacking_fault(crystal, fault, bonds(), layers=6, name=None)
    assert found.unrelaxed_mj_per_m2 == pytest.approx(0, abs=1e-8)
    assert found.energy_mj_per_m2 == pytest.approx(0, abs=1e-8)


def test_the_prismatic_fault_is_that_of_two_half_crystals_with_surfaces():
    """Upper half of a slab shifted by a/2 where planes are widest apart; surfaces cancel when nothing relaxes."""
    calculator = smooth_lennard_jones(2.2)
    crystal = Crystal("Ar", "hcp", 1.1, 1.1 * np.sqrt(8 / 3))
    found = defects.stacking_fault(crystal, "prismatic", calculator, name=None)
    slab = hcp10m10("Ar", (1, 2, 8), a=crystal.a, c=crystal.c, vacuum=3.0)
    slab.calc = calculator
    height = np.unique(slab.positions[:, 2].round(6))
    gap = np.diff(height)
    cut = next(n for n in range(len(gap) // 2, len(gap)) if gap[n] > gap.mean())
    before = slab.get_potential_energy()
    slab.positions[slab.positions[:, 2] > height[cut] + gap[cut] / 2, 0] += crystal.a / 2
    expected = (slab.get_potential_energy() - before) / found.area
    assert found.unrelaxed_mj_per_m2 / 1e3 * J_PER_M2 == pytest.approx(expected, rel=1e-7)
    assert 0 < found.energy_mj_per_m2 < found.unrelaxed_mj_per_m2  # planes that do not fit move apart
    assert json.loads(json.dumps(found.as_dict()))["fault"] == "prismatic"


def test_blocks_are_the_crystal_from_one_wide_gap_to_the_next():
    block = defects._block(HCP, "10-10", 12)
    assert len(neighbor_list("i", block, 1.1 * NEAREST)) == 12 * len(block)
    below = block.cell[2, 2] - block.positions[:, 2].max()
    assert below == pytest.approx(np.diff(np.unique(block.positions[:, 2].round(6))).max(), rel=1e-5)
    assert block.get_volume() / len(block) == pytest.approx(crystals.unit_cell(HCP).get_volume() / 2)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: defects.surface(FCC, "0001", bonds()), "facet '0001' of fcc is unknown; use one of 111, 100, 110"),
        (lambda: defects.surface(HCP, "0001", bonds(), vacuum=1.0), "vacuum = 1 Å on .*; give 3 Å or more"),
        (lambda: defects.surface(HCP, "10-10", bonds(), layers=10), "10 layers of hcp 10-10: .* a multiple of that, 8"),
        (lambda: defects.stacking_fault(BCC, "basal", bonds()), "'basal' of bcc is unknown; there are hcp basal, "),
        (
            lambda: defects.surface(Crystal("Si", "diamond", 5.43), "111", bonds()),
            "surfaces and faults of diamond are not known; there are fcc, bcc, hcp",
        ),
        (lambda: defects.vacancy(Crystal("NiAl", "cesiumchloride", 2.88), bonds()), "NiAl is a compound"),
    ],
)
def test_unknown_defects_are_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call()
