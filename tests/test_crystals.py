"""Crystals, their symmetry and their elastic constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.spacegroup.symmetrize import check_symmetry
from hypothesis import given
from hypothesis import strategies as st

from fusedff import crystals
from fusedff.crystals import Crystal

TITANIUM = Crystal("Ti", "hcp", 2.95, 4.68)
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
    ],
    ids=["hcp", "bcc", "fcc"],
)
def test_unit_cells_have_the_coordination_of_their_structure(crystal, n_atoms, neighbours, distance):
    from ase.neighborlist import neighbor_list

    cell = crystals.unit_cell(crystal)
    assert len(cell) == n_atoms
    assert cell.pbc.all()
    assert np.linalg.det(cell.cell.array) > 0
    d = neighbor_list("d", cell, distance * 1.01)
    assert len(d) == n_atoms * neighbours
    np.testing.assert_allclose(d, distance)


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
    assert crystals.stiffness(c, "hexagonal")[5, 5] == pytest.approx((c["C11"] - c["C12"]) / 2)


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
    c = crystals.stiffness(CONSTANTS[symmetry], symmetry)
    np.testing.assert_array_equal(c, c.T)
    for rotation in rotations:
        np.testing.assert_allclose(rotated(c, rotation), c, atol=1e-10)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_reducing_inverts_building(symmetry):
    reduced = crystals.reduce_stiffness(crystals.stiffness(CONSTANTS[symmetry], symmetry), symmetry)
    assert reduced == pytest.approx(CONSTANTS[symmetry])
    assert tuple(reduced) == crystals.elastic_names(symmetry)


def test_reducing_averages_every_equivalent_entry_and_leaves_c66_as_a_check():
    c = np.arange(36.0).reshape(6, 6)
    assert crystals.reduce_stiffness(c, "hexagonal") == {
        "C11": (c[0, 0] + c[1, 1]) / 2,
        "C12": (c[0, 1] + c[1, 0]) / 2,
        "C13": (c[0, 2] + c[1, 2] + c[2, 0] + c[2, 1]) / 4,
        "C33": c[2, 2],
        "C44": (c[3, 3] + c[4, 4]) / 2,
    }


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_strain_patterns_determine_every_constant(symmetry):
    patterns = np.stack(crystals.strain_patterns(symmetry))
    responses = patterns @ crystals.stiffness(CONSTANTS[symmetry], symmetry)
    assert crystals.constants_from_response(responses, symmetry) == pytest.approx(CONSTANTS[symmetry])


def test_one_strained_cell_suffices_for_cubic_and_two_for_hexagonal():
    assert len(crystals.strain_patterns("cubic")) == 1
    assert len(crystals.strain_patterns("hexagonal")) == 2


@given(st.integers(0, 2**32 - 1))
def test_constants_from_noisy_responses_are_the_least_squares_ones(seed):
    responses = np.random.default_rng(seed).normal(size=(2, 6))
    found = crystals.constants_from_response(responses, "hexagonal")
    best = np.sum((responses - np.stack(crystals.strain_patterns("hexagonal")) @ _c(found)) ** 2)
    for name in found:
        for step in (-1e-3, 1e-3):
            other = {**found, name: found[name] + step}
            misfit = responses - np.stack(crystals.strain_patterns("hexagonal")) @ _c(other)
            assert np.sum(misfit**2) > best


def _c(constants):
    return crystals.stiffness(constants, "hexagonal")


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_reduction_and_response_are_linear_batched_and_differentiable_in_jax(symmetry):
    n = len(crystals.strain_patterns(symmetry))
    batch = np.random.default_rng(0).normal(size=(3, n, 6)).astype(np.float32)
    on_jax = jax.jit(lambda r: crystals.constants_from_response(r, symmetry))(jnp.asarray(batch))
    for name, values in crystals.constants_from_response(batch, symmetry).items():
        assert values.shape == (3,)
        assert on_jax[name].dtype == jnp.float32
        np.testing.assert_allclose(on_jax[name], values, rtol=1e-5, atol=1e-6)
    stiffness = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6, 6)).astype(np.float32))
    gradient = jax.grad(lambda c: crystals.reduce_stiffness(c, symmetry)["C11"].sum())(stiffness)
    assert gradient.sum() == pytest.approx(3.0)


def test_titanium_is_stable_and_the_born_criteria_are_sharp():
    c = CONSTANTS["hexagonal"]
    assert crystals.born_stability(c, "hexagonal")
    edge = np.sqrt(c["C33"] * (c["C11"] + c["C12"]) / 2)
    for change in ({"C44": -1.0}, {"C12": c["C11"]}, {"C13": edge * 1.001}, {"C33": -10.0}):
        assert not crystals.born_stability({**c, **change}, "hexagonal")
    assert crystals.born_stability({**c, "C13": edge * 0.999}, "hexagonal")
    c = CONSTANTS["cubic"]
    assert crystals.born_stability(c, "cubic")
    for change in ({"C44": 0.0}, {"C12": 110.0}, {"C12": -54.0}):
        assert not crystals.born_stability({**c, **change}, "cubic")


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@given(data=st.data())
def test_born_stability_means_a_positive_definite_stiffness(symmetry, data):
    number = st.floats(-100, 100)
    constants = {name: data.draw(number) for name in crystals.elastic_names(symmetry)}
    lowest = np.linalg.eigvalsh(crystals.stiffness(constants, symmetry)).min()
    if abs(lowest) > 1e-6:
        assert crystals.born_stability(constants, symmetry) == (lowest > 0)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Crystal("Ti", "sc", 3.0), ["'sc'", "hcp"]),
        (lambda: Crystal("Titanium", "hcp", 3.0, 4.7), ["'Titanium'", "'Ti'"]),
        (lambda: Crystal("Ti", "hcp", 3.0), ["hcp Ti", "give c"]),
        (lambda: Crystal("Al", "fcc", 4.05, 4.05), ["fcc Al", "4.05", "leave out c"]),
        (lambda: Crystal("Al", "fcc", -4.05), ["a = -4.05", "Å"]),
        (lambda: Crystal("Ti", "hcp", 2.9, float("nan")), ["c = nan", "Å"]),
        (lambda: crystals.prototype("Ti", "hcp", 0.0), ["hcp Ti", "volume per atom", "Å^3"]),
        (lambda: crystals.prototype("Ti", "sc", 17.0), ["'sc'", "hcp"]),
        (lambda: crystals.supercell(TITANIUM, (5, 5)), ["(5, 5)", "three"]),
        (lambda: crystals.supercell(TITANIUM, (5, 0, 3)), ["(5, 0, 3)", "positive"]),
        (lambda: crystals.supercell(TITANIUM, (5, 2.5, 3)), ["(5, 2.5, 3)", "whole"]),
        (lambda: crystals.elastic_basis("trigonal"), ["'trigonal'", "cubic", "hexagonal"]),
        (lambda: crystals.stiffness({"C11": 1.0, "C66": 1.0}, "cubic"), ["C12, C44", "C66", "exactly"]),
        (lambda: crystals.constants_from_response(np.zeros((1, 6)), "hexagonal"), ["(1, 6)", "(..., 2, 6)"]),
    ],
)
def test_bad_input_is_refused_by_name_and_with_a_remedy(make, named):
    with pytest.raises(ValueError, match=".") as error:
        make()
    for text in named:
        assert text in str(error.value)
