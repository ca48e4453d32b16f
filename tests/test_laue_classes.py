"""Elastic constants of every Laue class: which are independent, in which axes, and their values if known."""

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.spacegroup import Spacegroup
from keating import Keating
from laue import SPECIAL, Bonds, structure
from scipy.spatial.transform import Rotation

from fusedff.crystallography import crystals, elastic_symmetry, orientation
from fusedff.crystallography.crystals import Crystal
from fusedff.crystallography.elastic_symmetry import SYMMETRIES
from fusedff.properties.static import elastic
from fusedff.properties.static.relax import RelaxationConfig
from fusedff.units import GPA

NUMBER = dict(zip(SYMMETRIES, (21, 13, 9, 7, 6, 7, 6, 5, 3), strict=True))
# Nye, Physical Properties of Crystals, table 9, in the order of its rows
TEXTBOOK = {
    "monoclinic": "C11 C12 C13 C15 C22 C23 C25 C33 C35 C44 C46 C55 C66",
    "orthorhombic": "C11 C12 C13 C22 C23 C33 C44 C55 C66",
    "tetragonal 4/m": "C11 C12 C13 C16 C33 C44 C66",
    "tetragonal 4/mmm": "C11 C12 C13 C33 C44 C66",
    "trigonal -3": "C11 C12 C13 C14 C15 C33 C44",
    "trigonal -3m": "C11 C12 C13 C14 C33 C44",
    "hexagonal": "C11 C12 C13 C33 C44",
    "cubic": "C11 C12 C44",
}
TURNS = Rotation.random(3, rng=0).as_matrix()
REACH = 4.9  # Å, no shell of neighbours lies there
CASES = {name: name for name in SYMMETRIES} | {name: symmetry for name, (symmetry, _) in SPECIAL.items()}


def some_stiffness(symmetry, seed=0):
    """A stable stiffness of this symmetry, from random constants."""
    random = np.random.default_rng(seed).normal(size=(6, 6))
    constants = elastic_symmetry.reduce_stiffness(random @ random.T + 10 * np.eye(6), symmetry)
    return elastic_symmetry.stiffness(constants, symmetry)


def fourth_moments(atoms):
    """A tensor of rank four with the symmetry of the crystal, (6, 6)."""
    return Bonds(atoms, REACH).stiffness_tensors()[1]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_laue_class_has_the_constants_of_the_textbook(symmetry):
    names = elastic_symmetry.elastic_names(symmetry)
    assert len(names) == NUMBER[symmetry]
    assert symmetry == "triclinic" or names == tuple(TEXTBOOK[symmetry].split())


@pytest.mark.parametrize("name", CASES)
def test_the_basis_is_invariant_under_every_operation_of_the_point_group_and_complete(name):
    """Of the space group as the International Tables list it, in standard axes: nothing of it is used by the basis."""
    symmetry, atoms = CASES[name], structure(name)
    cell = orientation.rotated_atoms(atoms, orientation.of_atoms(atoms).rotation).cell.array
    operations = [cell.T @ r @ np.linalg.inv(cell.T) for r in Spacegroup(atoms.info["spacegroup"]).get_rotations()]
    basis = np.stack(list(elastic_symmetry.elastic_basis(symmetry).values()))
    for operation in operations:
        np.testing.assert_allclose(elastic_symmetry.rotated(basis, operation), basis, atol=1e-12)
    # what all operations leave of a tensor without symmetry has no part outside the basis
    random = np.random.default_rng(0).normal(size=(6, 6))
    average = np.mean([elastic_symmetry.rotated(random + random.T, operation) for operation in operations], 0)
    flat = basis.reshape(len(basis), 36).T
    np.testing.assert_allclose(
        flat @ np.linalg.lstsq(flat, average.ravel(), rcond=None)[0], average.ravel(), atol=1e-12
    )


def test_relations_between_entries_are_those_of_the_textbook():
    c = {name: n + 1.0 for n, name in enumerate(elastic_symmetry.elastic_names("trigonal -3"))}
    full = elastic_symmetry.stiffness(c, "trigonal -3")
    assert (full[1, 3], full[4, 5]) == (-c["C14"], c["C14"])
    assert (full[1, 4], full[3, 5]) == (-c["C15"], -c["C15"])
    assert full[5, 5] == (c["C11"] - c["C12"]) / 2
    assert elastic_symmetry.elastic_basis("tetragonal 4/m")["C16"][1, 5] == -1


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_the_strain_patterns_determine_every_constant_and_are_the_fewest(symmetry):
    patterns, full = np.stack(elastic_symmetry.strain_patterns(symmetry)), some_stiffness(symmetry)
    found = elastic_symmetry.constants_from_response(patterns @ full, symmetry)
    assert found == pytest.approx(elastic_symmetry.reduce_stiffness(full, symmetry))
    # random patterns have the highest rank that so many patterns can have
    fewer = np.random.default_rng(1).normal(size=(len(patterns) - 1, 6))
    design = np.array([(fewer @ matrix).ravel() for matrix in elastic_symmetry.elastic_basis(symmetry).values()])
    assert len(patterns) == 1 or np.linalg.matrix_rank(design) < NUMBER[symmetry]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_stability_is_a_positive_definite_stiffness_and_what_is_known_decides(symmetry):
    constants = elastic_symmetry.reduce_stiffness(some_stiffness(symmetry), symmetry)
    assert elastic_symmetry.born_stability(constants, symmetry)
    assert elastic_symmetry.born_stability({}, symmetry)
    assert not elastic_symmetry.born_stability({"C44": -1.0}, symmetry)
    assert elastic_symmetry.born_stability({"C11": 1.0}, symmetry)
    assert not elastic_symmetry.born_stability({"C11": 1.0, "C12": 2.0, "C22": 1.0} if symmetry in SYMMETRIES[:3]
                                               else {"C11": 1.0, "C12": 2.0}, symmetry)  # fmt: skip
    assert not elastic_symmetry.born_stability(constants | {"C33" if "C33" in constants else "C11": 0.0}, symmetry)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_stress_averaged_over_the_class_is_one_that_its_rotations_leave(symmetry):
    stress = np.arange(1.0, 7.0)
    average = elastic_symmetry.reduce_stress(stress, symmetry)
    np.testing.assert_allclose(elastic_symmetry.reduce_stress(average, symmetry), average, rtol=1e-12)
    assert average[:3].sum() == pytest.approx(6)
    shear = {"triclinic": [4, 5, 6], "monoclinic": [0, 5, 0]}
    np.testing.assert_allclose(average[3:], shear.get(symmetry, [0, 0, 0]), atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_turned_crystal_of_any_class_comes_back_into_the_same_standard_axes(name):
    """Given by its conventional cell: even signs and the order of axes, which symmetry leaves open, follow the cell."""
    atoms, symmetry = structure(name), CASES[name]
    found = orientation.of_atoms(atoms)
    standard = fourth_moments(orientation.rotated_atoms(atoms, found.rotation))
    assert found.symmetry == symmetry
    of_class = elastic_symmetry.stiffness(elastic_symmetry.reduce_stiffness(standard, symmetry), symmetry)
    np.testing.assert_allclose(standard, of_class, atol=1e-12)
    for turn in TURNS:
        other = orientation.rotated_atoms(atoms, turn)
        back = orientation.rotated_atoms(other, orientation.of_atoms(other).rotation)
        np.testing.assert_allclose(fourth_moments(back), standard, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_primitive_cell_has_the_axes_of_its_class(name):
    atoms, symmetry = structure(name), CASES[name]
    cell = spglib.find_primitive((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers))
    primitive = orientation.rotated_atoms(Atoms(cell[2], cell=cell[0], scaled_positions=cell[1], pbc=True), TURNS[0])
    standard = fourth_moments(orientation.rotated_atoms(primitive, orientation.of_atoms(primitive).rotation))
    of_class = elastic_symmetry.stiffness(elastic_symmetry.reduce_stiffness(standard, symmetry), symmetry)
    np.testing.assert_allclose(standard, of_class, atol=1e-12)
    # the same numbers as from the conventional cell
    assert standard[0, 0] == pytest.approx(fourth_moments(crystals.unit_cell(crystals.from_structure(atoms)))[0, 0])


def test_axes_are_those_of_ieee():
    """Std 176 (1987): z along c, b along y in monoclinic crystals, two-fold axes of trigonal ones along x."""
    cell = crystals.unit_cell(crystals.from_structure(structure("monoclinic"))).cell.array
    np.testing.assert_allclose(cell[1], [0, 4.2, 0], atol=1e-12)
    np.testing.assert_allclose(cell[2], [0, 0, 4.7], atol=1e-12)
    assert cell[0, 0] > 0 > cell[0, 2]  # an obtuse angle
    cell = crystals.unit_cell(crystals.from_structure(structure("triclinic"))).cell.array
    np.testing.assert_allclose(cell[2], [0, 0, 4.1], atol=1e-12)
    np.testing.assert_allclose(cell[0, 1], 0, atol=1e-12)
    half_turn = np.diag([1.0, -1.0, -1.0])
    for name in ("trigonal -3m", "rhombohedral", "trigonal, two-fold axes between the edges"):
        tensor = fourth_moments(crystals.unit_cell(crystals.from_structure(structure(name))))
        np.testing.assert_allclose(elastic_symmetry.rotated(tensor, half_turn), tensor, atol=1e-12)


def test_a_rhombohedral_crystal_in_the_reverse_setting_is_brought_to_the_obverse_one():
    """Else C14 would have the other sign: the same crystal by other edges, and turned by half a turn about c."""
    obverse = structure("rhombohedral")
    c14 = elastic_symmetry.reduce_stiffness(fourth_moments(obverse), "trigonal -3m")["C14"]
    assert abs(c14) > 0.01 * fourth_moments(obverse)[0, 0]
    reverse = obverse.copy()
    reverse.set_cell(reverse.cell.array * [[-1], [-1], [1]])  # positions stay
    made = crystals.unit_cell(crystals.from_structure(orientation.rotated_atoms(reverse, np.diag([-1.0, -1.0, 1.0]))))
    np.testing.assert_allclose(fourth_moments(made), fourth_moments(obverse), atol=1e-12)


def test_the_settings_of_an_orthorhombic_crystal_keep_their_own_axes():
    """Constants of Pbnm are those of Pnma with c, a, b along x, y, z, and a table describes the cell that one gives."""
    pnma = structure("orthorhombic")
    pbnm = Atoms(pnma.numbers, cell=pnma.cell.array[[2, 0, 1]],
                 scaled_positions=pnma.get_scaled_positions()[:, [2, 0, 1]], pbc=True)  # fmt: skip
    one, other = (crystals.from_structure(atoms) for atoms in (pnma, pbnm))
    assert (other.a, other.b, other.c) == pytest.approx((one.c, one.a, one.b))
    tensors = [fourth_moments(crystals.unit_cell(crystal)) for crystal in (one, other)]
    assert tensors[1][0, 0] == pytest.approx(tensors[0][2, 2])
    assert tensors[1][3, 3] == pytest.approx(tensors[0][5, 5])


LAYERS = Atoms("CuPtAuCu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
               cell=[4.1, 3.95, 3.8], pbc=True)  # fmt: skip


@pytest.mark.parametrize("name", [*CASES, "Pmmm, a > b > c"])
@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 3, 2)])
def test_a_supercell_describes_the_cell_that_it_repeats(name, repeats):
    atoms = structure(name) if name in CASES else LAYERS
    one, many = (crystals.from_structure(cell) for cell in (atoms, atoms * repeats))
    assert many.parameters == pytest.approx(one.parameters)
    one, many = map(crystals.unit_cell, (one, many))
    np.testing.assert_array_equal(many.numbers, one.numbers)
    np.testing.assert_allclose(fourth_moments(many), fourth_moments(one), atol=1e-12)


def test_a_left_handed_cell_keeps_its_own_edges():
    mirrored = LAYERS.copy()
    mirrored.set_cell(LAYERS.cell.array * [[1], [1], [-1]])  # positions stay
    found = crystals.unit_cell(crystals.from_structure(mirrored))
    np.testing.assert_allclose(fourth_moments(found), fourth_moments(LAYERS), atol=1e-12)


def test_a_cell_that_leaves_the_setting_open_is_refused():
    """The primitive cell of a centred lattice, and a monoclinic one whose two-fold axis is not b."""
    centred = Atoms("Ar4", scaled_positions=[[0, y, z] for y, z in ((0.1, 0.25), (0.9, 0.75))]
                    + [[0.5, y, z] for y, z in ((0.6, 0.25), (0.4, 0.75))], cell=[3.1, 5.9, 5.0], pbc=True)  # fmt: skip
    assert crystals.from_structure(centred).parameters == pytest.approx({"a": 3.1, "b": 5.9, "c": 5.0})
    cell, sites, numbers = spglib.find_primitive((centred.cell.array, centred.get_scaled_positions(), centred.numbers))
    unusual = structure("monoclinic")
    unusual = Atoms(unusual.numbers, cell=unusual.cell.array[[2, 0, 1]],
                    scaled_positions=unusual.get_scaled_positions()[:, [2, 0, 1]], pbc=True)  # fmt: skip
    for atoms, says in (
        (Atoms(numbers, cell=cell, scaled_positions=sites, pbc=True), r"Ar2 \(Cmcm\): .* which orthorhombic crystals"),
        (unusual, r"\(P2_1/m\): its cell is not .* of which monoclinic .* give the cell that you mean"),
    ):
        with pytest.raises(ValueError, match=says):
            crystals.from_structure(atoms)


@pytest.mark.parametrize("name", CASES)
def test_static_constants_of_any_class_are_those_of_harmonic_bonds(name):
    """In closed form, with atoms at rest, in arbitrary axes; constants in standard axes make up all of the tensor."""
    atoms, symmetry = orientation.rotated_atoms(structure(name), TURNS[0]), CASES[name]
    bonds = Bonds(atoms, REACH)
    relaxed, clamped = bonds.stiffness_tensors()
    rotation = orientation.of_atoms(atoms).rotation
    expected = elastic_symmetry.rotated(relaxed, rotation)
    assert elastic_symmetry.born_stability(elastic_symmetry.reduce_stiffness(expected, symmetry), symmetry)
    found = elastic.run(atoms, bonds, symmetry, 1e-3, RelaxationConfig(fmax=1e-5), name=None)
    # the geometry of the bonds is anharmonic (the square of the strain), and forces of fmax are left
    size = np.abs(expected).max() / GPA
    np.testing.assert_allclose(found.stiffness_gpa, expected / GPA, atol=1e-4 * size)
    np.testing.assert_allclose(found.clamped_gpa, elastic_symmetry.rotated(clamped, rotation) / GPA, atol=1e-5 * size)
    assert tuple(found.constants_gpa) == elastic_symmetry.elastic_names(symmetry)
    full = elastic_symmetry.stiffness(found.constants_gpa, symmetry)
    np.testing.assert_allclose(found.stiffness_gpa, full, atol=1e-4 * size)


def test_the_sublattices_of_diamond_move_and_soften_c44_and_those_of_b2_stay():
    diamond = Crystal("Si", "diamond", 5.43)
    bonds = Bonds(crystals.unit_cell(diamond), 4.2)  # two shells: with one alone, C11 - C12 would vanish
    found = elastic.run(crystals.unit_cell(diamond), bonds, crystals.symmetry(diamond), name=None)
    assert found.stiffness_gpa[0, 0] == pytest.approx(found.clamped_gpa[0, 0], rel=1e-4)
    assert found.stiffness_gpa[3, 3] < 0.95 * found.clamped_gpa[3, 3]
    assert found.stiffness_gpa[3, 3] == pytest.approx(bonds.stiffness_tensors()[0][3, 3] / GPA, rel=1e-4)
    b2 = Crystal("NiAl", "cesiumchloride", 2.88)
    found = elastic.run(crystals.unit_cell(b2), Bonds(crystals.unit_cell(b2), 3.3), crystals.symmetry(b2), name=None)
    np.testing.assert_allclose(found.stiffness_gpa, found.clamped_gpa, rtol=1e-6, atol=1e-6)
    assert found.constants_gpa["C12"] == pytest.approx(found.constants_gpa["C44"], rel=1e-4)  # Cauchy, no pressure


def test_diamond_of_keating_has_the_constants_of_its_closed_form():
    """With the sublattices at rest: C44 is a harmonic mean of alpha and beta; carried along, it would be their sum."""
    silicon = Keating(alpha=3.03, beta=0.86, bond=2.351)
    a = 4 * silicon.bond / np.sqrt(3)
    found = elastic.run(crystals.unit_cell(Crystal("Si", "diamond", a)), silicon, "cubic", name=None)
    assert found.constants_gpa == pytest.approx({name: c / GPA for name, c in silicon.constants.items()}, rel=1e-4)
    assert found.clamped_gpa[3, 3] == pytest.approx((silicon.alpha + silicon.beta) / a / GPA, rel=1e-3)
