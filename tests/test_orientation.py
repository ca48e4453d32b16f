"""Standard axes of a crystal are found in any cell and any orientation."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from pairs import smooth_lennard_jones
from scipy.spatial.transform import Rotation

from fusedff.crystallography import orientation
from fusedff.crystallography.crystals import Crystal, prototype, supercell, unit_cell
from fusedff.properties.static import elastic, relax
from fusedff.properties.static.relax import RelaxationConfig

TITANIUM = Crystal("Ti", "hcp", 2.95, 4.68)
COPPER = {"C11": 172.5, "C12": 115.4, "C44": 89.8}  # GPa, of EMT at a = 3.59 Å
TURNS = Rotation.random(3, rng=0).as_matrix()


def cells():
    return {
        "fcc cube": (bulk("Cu", "fcc", a=3.6, cubic=True), "cubic"),
        "fcc primitive": (bulk("Cu", "fcc", a=3.6), "cubic"),
        "fcc [111] along z": (fcc111("Cu", (1, 1, 3), a=3.6, periodic=True), "cubic"),
        "bcc primitive": (bulk("Ti", "bcc", a=3.25), "cubic"),
        "hcp": (unit_cell(TITANIUM), "hexagonal"),
        "hcp repeated": (supercell(TITANIUM, (3, 2, 1)), "hexagonal"),
        "omega": (prototype("Ti", "omega", 17.0), "hexagonal"),
        "tin": (bulk("Sn", "bct", a=5.83, c=3.18), "tetragonal"),
    }


@pytest.mark.parametrize("name", cells())
def test_a_turned_crystal_comes_back_to_axes_that_its_symmetry_makes_equal(name):
    atoms, system = cells()[name]
    atoms.pbc = True
    standard = orientation.of_atoms(atoms)
    standard = orientation.rotated_atoms(atoms, standard.rotation)
    assert orientation.of_atoms(standard).rotation == pytest.approx(np.eye(3), abs=1e-6)
    for turn in TURNS:
        found = orientation.of_atoms(orientation.rotated_atoms(atoms, turn))
        assert found.system == system
        assert np.linalg.det(found.rotation) == pytest.approx(1)
        back = found.rotation @ turn
        assert stars(orientation.rotated_atoms(atoms, back)) == pytest.approx(stars(standard), abs=1e-5)


def stars(atoms):
    """Fourth moments of the vectors between atoms: a tensor of rank four with the symmetry of the crystal."""
    vectors = neighbor_list("D", atoms, 4.5)
    return np.einsum("na,nb,nc,nd->abcd", *[vectors] * 4) / len(atoms)


def test_crystals_in_the_axes_of_this_project_stay_as_they_are():
    for atoms in (unit_cell(TITANIUM), supercell(TITANIUM, (2, 2, 2)), unit_cell(Crystal("Cu", "fcc", 3.6))):
        np.testing.assert_array_equal(orientation.of_atoms(atoms).rotation, np.eye(3))


@pytest.mark.parametrize("name", ["fcc cube", "fcc primitive", "fcc [111] along z"])
def test_copper_has_the_same_constants_in_any_axes(name):
    atoms, _ = cells()[name]
    atoms.set_cell(atoms.cell.array * (3.59 / 3.6), scale_atoms=True)
    atoms.pbc = True
    turn = np.eye(3) if "111" in name else TURNS[0]
    found = elastic.run(orientation.rotated_atoms(atoms, turn), EMT(), "cubic", name=None)
    assert found.constants_gpa == pytest.approx(COPPER, abs=0.1)


def test_a_hexagonal_crystal_has_the_same_five_constants_in_any_axes():
    tight, calculator = RelaxationConfig(fmax=1e-5), smooth_lennard_jones(1.9)
    rest = relax.relax_crystal(bulk("Ar", "hcp", a=1.09, c=1.78), calculator, tight)
    found = [
        elastic.run(orientation.rotated_atoms(rest, turn), calculator, "hexagonal", relaxation=tight, name=None)
        for turn in (np.eye(3), TURNS[1])
    ]
    for name, value in found[0].constants_gpa.items():
        assert found[1].constants_gpa[name] == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(found[1].stiffness_gpa, found[0].stiffness_gpa, atol=1e-3 * found[0].bulk_modulus_gpa)


def test_a_symmetry_that_the_crystal_does_not_have_is_refused():
    stretched = bulk("Cu", "fcc", a=3.6, cubic=True)
    stretched.set_cell(stretched.cell.array * [[1], [1], [1.01]], scale_atoms=True)
    with pytest.raises(ValueError, match=r"Cu4 is tetragonal 4/mmm \(I4/mmm\), not cubic; name its own"):
        elastic.run(stretched, EMT(), "cubic", name=None)
    with pytest.raises(ValueError, match=r"Ti2 is hexagonal \(P6_3/mmc\), not cubic"):
        elastic.run(unit_cell(TITANIUM), smooth_lennard_jones(3.0), "cubic", name=None)
