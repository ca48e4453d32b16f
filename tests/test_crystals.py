"""Crystals, their symmetry and their elastic constants."""

from dataclasses import replace

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from ase.spacegroup.symmetrize import check_symmetry
from hypothesis import given
from hypothesis import strategies as st
from laue import Bonds, structure

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.static import relax
from fusedff.runtime import storage

TITANIUM = Crystal("Ti", "hcp", 2.95, 4.68)
TRICLINIC = crystals.from_structure(structure("triclinic"))
CONSTANTS = {
    "hexagonal": {"C11": 160.9, "C12": 92.5, "C13": 69.1, "C33": 179.5, "C44": 46.2},
    "cubic": {"C11": 107.0, "C12": 60.0, "C44": 28.0},
}
SYMMETRIES = sorted(CONSTANTS)


def rotated(stiffness, rotation):
    """A (6, 6) stiffness after rotating the crystal, through the full fourth-rank tensor."""
    slot = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    full = stiffness[slot[:, :, None, None], slot[None, None]]
    full = np.einsum("ai,bj,ck,dl,ijkl->abcd", *[rotation] * 4, full)
    pairs = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    return np.array([[full[i, j, k, m] for k, m in pairs] for i, j in pairs])


def turn_about_z(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def test_the_papers_titanium_cell_has_150_atoms():
    assert len(crystals.supercell(TITANIUM, (5, 5, 3))) == 150


@pytest.mark.parametrize(
    ("crystal", "n_atoms", "neighbours", "distance"),
    [
        (Crystal("Ti", "hcp", 3.0, 3.0 * np.sqrt(8 / 3)), 2, 12, 3.0),
        (Crystal("Fe", "bcc", 2.87), 2, 8, 2.87 * np.sqrt(3) / 2),
        (Crystal("Al", "fcc", 4.05), 4, 12, 4.05 / np.sqrt(2)),
        (Crystal("Si", "diamond", 5.43), 8, 4, 5.43 * np.sqrt(3) / 4),
        (Crystal("NaCl", "rocksalt", 5.64), 8, 6, 5.64 / 2),
        (Crystal("NiAl", "cesiumchloride", 2.88), 2, 8, 2.88 * np.sqrt(3) / 2),
        (Crystal("GaAs", "zincblende", 5.65), 8, 4, 5.65 * np.sqrt(3) / 4),
    ],
    ids=["hcp", "bcc", "fcc", "diamond", "B1", "B2", "zincblende"],
)
def test_unit_cells_have_the_coordination_of_their_structure(crystal, n_atoms, neighbours, distance):
    cell = crystals.unit_cell(crystal)
    assert len(cell) == n_atoms
    assert cell.pbc.all()
    assert np.linalg.det(cell.cell.array) > 0
    d = neighbor_list("d", cell, distance * 1.01)
    assert len(d) == n_atoms * neighbours
    np.testing.assert_allclose(d, distance)


@pytest.mark.parametrize("file", ["POSCAR", "mine.cif", "mine.extxyz", "mine.traj", "mine.json"])
@pytest.mark.parametrize("name", elastic_symmetry.SYMMETRIES)
def test_a_crystal_comes_back_from_a_file(name, file, tmp_path):
    """Digits of a file (CIF: seven) move atoms by less than 1e-5 Å and keep the symmetry."""
    atoms = structure(name)
    write(tmp_path / file, atoms)
    crystal = crystals.from_structure(str(tmp_path / file))
    assert crystals.symmetry(crystal) == name
    assert tuple(crystal.parameters) == {
        "triclinic": ("a", "b", "c", "alpha", "beta", "gamma"),
        "monoclinic": ("a", "b", "c", "beta"),
        "orthorhombic": ("a", "b", "c"),
        "cubic": ("a",),
    }.get(name, ("a", "c"))
    lengths = dict(zip(crystals.PARAMETERS, atoms.cell.cellpar(), strict=True))
    assert crystal.parameters == pytest.approx({key: lengths[key] for key in crystal.parameters}, abs=1e-5)
    cell = crystals.unit_cell(crystal)
    assert sorted(cell.numbers) == sorted(atoms.numbers)
    i, j = (neighbor_list("ij", a, 3.2) for a in (cell, atoms))
    assert len(i[0]) == len(j[0])
    again = crystals.from_structure(cell)
    np.testing.assert_allclose(crystals.unit_cell(again).cell.array, cell.cell.array, atol=1e-9)
    assert check_symmetry(cell, 1e-3).international == crystal.structure.space_group == str(crystal.structure)


@pytest.mark.parametrize(("file", "kind"), [
    ("POSCAR@300K", "vasp"), ("cu@2.cif", "cif"), ("cu@.xyz", "extxyz"), ("cu@9.traj", "traj"), ("cu@:.json", "json"),
])  # fmt: skip
def test_the_name_of_a_file_may_have_an_at_sign(file, kind, tmp_path):
    write(tmp_path / file, bulk("Cu", "fcc", a=3.6, cubic=True), format=kind)
    assert crystals.from_structure(tmp_path / file).parameters == pytest.approx({"a": 3.6})


def test_a_crystal_of_a_file_is_a_value():
    """Equal, hashable and told apart by what is in it: it is kept in sets, settings and digests of checkpoints."""
    one, other = crystals.from_structure(structure("cubic")), crystals.from_structure(structure("cubic"))
    assert one == other
    assert hash(one) == hash(other)
    assert storage.digest(one) == storage.digest(other)
    assert one.symbol == "FeS2"
    hot = replace(one, a=5.45)
    assert len({one, hot}) == 2
    assert storage.digest(hot) != storage.digest(one)
    moved = replace(one.structure, sites=((0.01, 0, 0), *one.structure.sites[1:]))
    assert storage.digest(replace(one, structure=moved)) != storage.digest(one)
    np.testing.assert_allclose(crystals.unit_cell(hot).get_scaled_positions(), one.structure.sites, atol=1e-12)
    assert len(crystals.supercell(hot, (2, 1, 3))) == 6 * 12


def test_a_crystal_is_called_by_its_structure_and_lattice_parameters():
    assert str(TITANIUM) == "hcp Ti with a = 2.95, c = 4.68"
    assert str(TRICLINIC) == "P-1 Ar with a = 3.1, b = 3.6, c = 4.1, alpha = 82, beta = 77, gamma = 71"


def test_a_primitive_or_repeated_cell_is_the_conventional_one():
    silicon = Crystal("Si", "diamond", 5.43)
    for atoms in (
        bulk("Si", "diamond", a=5.43),
        bulk("Si", "diamond", a=5.43) * (2, 1, 3),
        crystals.unit_cell(silicon),
    ):
        atoms.rotate(30, (1, 2, 3), rotate_cell=True)
        made = crystals.from_structure(atoms)
        assert (made.symbol, str(made.structure), crystals.symmetry(made)) == ("Si", "Fd-3m", "cubic")
        assert made.a == pytest.approx(5.43)
        np.testing.assert_allclose(crystals.unit_cell(made).cell.array, 5.43 * np.eye(3), atol=1e-9)


def test_an_element_in_hcp_bcc_or_fcc_is_called_so_wherever_it_is_from():
    for right in (TITANIUM, Crystal("Fe", "bcc", 2.87), Crystal("Al", "fcc", 4.05)):
        atoms = crystals.unit_cell(right) * (1, 2, 1)
        atoms.translate([0.1, 0.2, 0.3])
        atoms.rotate(30, (1, 2, 3), rotate_cell=True)
        found = crystals.named(crystals.from_structure(atoms))
        assert (found.symbol, found.structure) == (right.symbol, right.structure)
        assert found.parameters == pytest.approx(right.parameters)
    sites = [(0, 0, 0), (1 / 3, 2 / 3, 0.25)]
    double = crystal(["La", "La"], sites, spacegroup=194, cellpar=[3.77, 3.77, 12.14, 90, 90, 120])
    for atoms in (double, bulk("Si", "diamond", a=5.43), bulk("NaCl", "rocksalt", a=5.64), structure("triclinic")):
        other = crystals.from_structure(atoms)
        assert crystals.named(other) is other


def test_a_relaxed_crystal_keeps_its_structure_and_takes_new_lengths_and_places():
    """A rutile-like crystal of bonds, given with its parameter x and c off by a few per cent."""
    right = structure("tetragonal 4/mmm")
    bonds = Bonds(right, 4.9)
    cell = (1.01 * 4.59, 1.01 * 4.59, 0.98 * 2.96, 90, 90, 90)
    off = crystal(["Ti", "O"], [(0, 0, 0), (0.315, 0.315, 0)], spacegroup=136, cellpar=cell)
    found = relax.equilibrium(crystals.from_structure(off), bonds, relax.RelaxationConfig(fmax=1e-5))
    assert found.parameters == pytest.approx({"a": 4.59, "c": 2.96}, abs=1e-5)
    np.testing.assert_allclose(crystals.unit_cell(found).positions, right.positions, atol=1e-4)


def test_hcp_lies_with_c_along_z_and_a_along_x():
    cell = crystals.unit_cell(TITANIUM).cell.array
    np.testing.assert_allclose(cell[0], [2.95, 0, 0])
    np.testing.assert_allclose(cell[2], [0, 0, 4.68])


@pytest.mark.parametrize(
    ("structure", "group", "n_atoms"), [("hcp", 194, 2), ("bcc", 229, 2), ("fcc", 225, 4), ("omega", 191, 3)]
)
def test_prototypes_have_the_volume_asked_for_and_the_space_group_of_their_structure(structure, group, n_atoms):
    cell = crystals.prototype("Ti", structure, 17.3)
    assert len(cell) == n_atoms
    assert cell.get_volume() / n_atoms == pytest.approx(17.3)
    assert check_symmetry(cell, 1e-6).number == group


def test_omega_is_bcc_of_which_two_of_three_111_planes_have_collapsed_into_one():
    """With c/a = sqrt(3/8) and its two inner atoms back at 1/3 and 2/3 of c, it is bcc in another cell."""
    cell = crystals.prototype("Ti", "omega", 17.3)
    cell.set_cell(cell.cell.array * (1, 1, np.sqrt(3 / 8) / 0.613), scale_atoms=True)
    cell.positions[1:, 2] = cell.cell[2, 2] * np.array([1, 2]) / 3
    assert check_symmetry(cell, 1e-6).number == 229


def test_hexagonal_stiffness_has_c66_of_half_c11_minus_c12():
    c = CONSTANTS["hexagonal"]
    assert elastic_symmetry.stiffness(c, "hexagonal")[5, 5] == pytest.approx((c["C11"] - c["C12"]) / 2)


@pytest.mark.parametrize(
    ("symmetry", "rotations"),
    [
        (
            "hexagonal",
            [turn_about_z(0.3), turn_about_z(np.pi / 3)],
        ),  # elastically, hexagonal is isotropic in plane
        ("cubic", [turn_about_z(np.pi / 2), np.roll(np.eye(3), 1, axis=0)]),
    ],
)
def test_stiffness_is_invariant_under_its_symmetry(symmetry, rotations):
    c = elastic_symmetry.stiffness(CONSTANTS[symmetry], symmetry)
    np.testing.assert_array_equal(c, c.T)
    for rotation in rotations:
        np.testing.assert_allclose(rotated(c, rotation), c, atol=1e-10)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_reducing_inverts_building(symmetry):
    reduced = elastic_symmetry.reduce_stiffness(elastic_symmetry.stiffness(CONSTANTS[symmetry], symmetry), symmetry)
    assert reduced == pytest.approx(CONSTANTS[symmetry])
    assert tuple(reduced) == elastic_symmetry.elastic_names(symmetry)


def test_reducing_averages_every_equivalent_entry_and_leaves_c66_as_a_check():
    c = np.arange(36.0).reshape(6, 6)
    assert elastic_symmetry.reduce_stiffness(c, "hexagonal") == {
        "C11": (c[0, 0] + c[1, 1]) / 2,
        "C12": (c[0, 1] + c[1, 0]) / 2,
        "C13": (c[0, 2] + c[1, 2] + c[2, 0] + c[2, 1]) / 4,
        "C33": c[2, 2],
        "C44": (c[3, 3] + c[4, 4]) / 2,
    }


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_strain_patterns_determine_every_constant(symmetry):
    patterns = np.stack(elastic_symmetry.strain_patterns(symmetry))
    responses = patterns @ elastic_symmetry.stiffness(CONSTANTS[symmetry], symmetry)
    assert elastic_symmetry.constants_from_response(responses, symmetry) == pytest.approx(CONSTANTS[symmetry])


def test_one_strained_cell_suffices_for_cubic_and_two_for_hexagonal():
    assert len(elastic_symmetry.strain_patterns("cubic")) == 1
    assert len(elastic_symmetry.strain_patterns("hexagonal")) == 2


@given(st.integers(0, 2**32 - 1))
def test_constants_from_noisy_responses_are_the_least_squares_ones(seed):
    responses = np.random.default_rng(seed).normal(size=(2, 6))
    found = elastic_symmetry.constants_from_response(responses, "hexagonal")
    best = np.sum((responses - np.stack(elastic_symmetry.strain_patterns("hexagonal")) @ _c(found)) ** 2)
    for name in found:
        for step in (-1e-3, 1e-3):
            other = {**found, name: found[name] + step}
            misfit = responses - np.stack(elastic_symmetry.strain_patterns("hexagonal")) @ _c(other)
            assert np.sum(misfit**2) > best


def _c(constants):
    return elastic_symmetry.stiffness(constants, "hexagonal")


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_reduction_and_response_are_linear_batched_and_differentiable_in_jax(symmetry):
    n = len(elastic_symmetry.strain_patterns(symmetry))
    batch = np.random.default_rng(0).normal(size=(3, n, 6)).astype(np.float32)
    on_jax = jax.jit(lambda r: elastic_symmetry.constants_from_response(r, symmetry))(jnp.asarray(batch))
    for name, values in elastic_symmetry.constants_from_response(batch, symmetry).items():
        assert values.shape == (3,)
        assert on_jax[name].dtype == jnp.float32
        np.testing.assert_allclose(on_jax[name], values, rtol=1e-5, atol=1e-6)
    stiffness = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6, 6)).astype(np.float32))
    gradient = jax.grad(lambda c: elastic_symmetry.reduce_stiffness(c, symmetry)["C11"].sum())(stiffness)
    assert gradient.sum() == pytest.approx(3.0)


def test_titanium_is_stable_and_the_born_criteria_are_sharp():
    c = CONSTANTS["hexagonal"]
    assert elastic_symmetry.born_stability(c, "hexagonal")
    edge = np.sqrt(c["C33"] * (c["C11"] + c["C12"]) / 2)
    for change in ({"C44": -1.0}, {"C12": c["C11"]}, {"C13": edge * 1.001}, {"C33": -10.0}):
        assert not elastic_symmetry.born_stability({**c, **change}, "hexagonal")
    assert elastic_symmetry.born_stability({**c, "C13": edge * 0.999}, "hexagonal")
    c = CONSTANTS["cubic"]
    assert elastic_symmetry.born_stability(c, "cubic")
    for change in ({"C44": 0.0}, {"C12": 110.0}, {"C12": -54.0}):
        assert not elastic_symmetry.born_stability({**c, **change}, "cubic")


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@given(data=st.data())
def test_born_stability_means_a_positive_definite_stiffness(symmetry, data):
    number = st.floats(-100, 100)
    constants = {name: data.draw(number) for name in elastic_symmetry.elastic_names(symmetry)}
    lowest = np.linalg.eigvalsh(elastic_symmetry.stiffness(constants, symmetry)).min()
    if abs(lowest) > 1e-6:
        assert elastic_symmetry.born_stability(constants, symmetry) == (lowest > 0)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Crystal("Ti", "sc", 3.0), ["'sc'", "hcp"]),
        (lambda: Crystal("Titanium", "hcp", 3.0, 4.7), ["'Titanium'", "'Ti'"]),
        (lambda: Crystal("Ti", "hcp", 3.0), ["hcp Ti", "give c"]),
        (lambda: Crystal("Al", "fcc", 4.05, 4.05), ["fcc Al", "4.05", "leave out c"]),
        (lambda: Crystal("Al", "fcc", -4.05), ["a = -4.05", "Å"]),
        (lambda: Crystal("Ti", "hcp", 2.9, float("nan")), ["c = nan", "Å"]),
        (lambda: Crystal("NiAl", "bcc", 2.88), ["'NiAl' is a compound", "one element, like 'Fe'", "POSCAR"]),
        (lambda: Crystal("Ti", "rocksalt", 4.2), ["'Ti' is an element", "two elements, like 'NaCl'"]),
        (lambda: Crystal("XxO", "rocksalt", 4.2), ["'XxO' is unknown", "'NaCl'"]),
        (lambda: replace(TRICLINIC, alpha=None), ["P-1 Ar", "give alpha in degrees"]),
        (lambda: replace(TRICLINIC, alpha=190.0), ["alpha = 190.0 is not an angle", "degrees"]),
        (lambda: replace(TRICLINIC, alpha=160.0), ["160, 77, 71 degrees make no cell"]),
        (lambda: crystals.from_structure(ase.Atoms("Ti", cell=[3, 3, 3])), ["1 atoms", "periodic along [False"]),
        (lambda: crystals.from_structure(ase.Atoms("Ti2", cell=[3, 3, 3], pbc=True)), ["Ti2", "no symmetry"]),
        (lambda: crystals.prototype("Ti", "hcp", 0.0), ["hcp Ti", "volume per atom", "Å^3"]),
        (lambda: crystals.prototype("Ti", "sc", 17.0), ["'sc'", "hcp"]),
        (lambda: crystals.supercell(TITANIUM, (5, 5)), ["(5, 5)", "three"]),
        (lambda: crystals.supercell(TITANIUM, (5, 0, 3)), ["(5, 0, 3)", "positive"]),
        (lambda: crystals.supercell(TITANIUM, (5, 2.5, 3)), ["(5, 2.5, 3)", "whole"]),
        (lambda: elastic_symmetry.elastic_basis("trigonal"), ["'trigonal'", "cubic", "hexagonal"]),
        (lambda: elastic_symmetry.stiffness({"C11": 1.0, "C66": 1.0}, "cubic"), ["C12, C44", "C66", "exactly"]),
        (lambda: elastic_symmetry.constants_from_response(np.zeros((1, 6)), "hexagonal"), ["(1, 6)", "(..., 2, 6)"]),
    ],
)
def test_bad_input_is_refused_by_name_and_with_a_remedy(make, named):
    with pytest.raises(ValueError, match=".") as error:
        make()
    for text in named:
        assert text in str(error.value)


def test_files_that_hold_no_crystal_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"POSCAR does not exist; give a POSCAR, CIF"):
        crystals.from_structure(tmp_path / "POSCAR")
    (tmp_path / "POSCAR").write_text("nothing\n")
    with pytest.raises(ValueError, match=r"POSCAR: cannot be read as vasp .*; give a POSCAR, CIF"):
        crystals.from_structure(tmp_path / "POSCAR")
    cif = tmp_path / "alloy.cif"
    write(cif, bulk("Fe", "bcc", a=2.87, cubic=True))
    cif.write_text(cif.read_text().replace(" 1.0000\n", " 0.5000\n"))
    with pytest.raises(ValueError, match=r"alloy\.cif: a site is occupied by 0\.5 of an atom; give whole atoms"):
        crystals.from_structure(cif)
