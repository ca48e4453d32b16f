"""Units and Voigt order."""

import ase.units
import jax.numpy as jnp
import numpy as np
import pytest
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from fusedff import units


def test_constants_have_their_textbook_values():
    assert pytest.approx(8.617333e-5, rel=1e-6) == units.KB
    assert pytest.approx(1 / 160.21766, rel=1e-6) == units.GPA
    assert pytest.approx(1 / 96.4853, rel=1e-5) == units.KJ_MOL
    assert units.NM == 10.0
    assert pytest.approx(1000 * units.FS) == units.PS
    assert pytest.approx(ase.units.fs) == units.FS


def test_the_papers_unit_of_elastic_constants_is_its_own_conversion_factor():
    paper = 1e3 / 1.66054  # GPa -> kJ/mol/nm^3
    assert pytest.approx(paper, rel=1e-5) == units.GPA / (units.KJ_MOL / units.NM**3)


def test_voigt_order_is_that_of_ase():
    stress = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    assert units.to_voigt(stress).tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(units.to_voigt(stress), full_3x3_to_voigt_6_stress(stress))
    np.testing.assert_array_equal(units.from_voigt(np.arange(6.0)), voigt_6_to_full_3x3_stress(np.arange(6.0)))
    assert [stress[i, j] for i, j in units.VOIGT] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_voigt_vectors_and_tensors_invert_each_other_in_any_batch(xp):
    vectors = xp.asarray(np.random.default_rng(0).normal(size=(4, 2, 6)).astype(np.float32))
    for there, back in (
        (units.from_voigt, units.to_voigt),
        (units.strain_from_voigt, units.strain_to_voigt),
    ):
        tensors = there(vectors)
        assert tensors.shape == (4, 2, 3, 3)
        assert tensors.dtype == vectors.dtype
        assert isinstance(tensors, type(vectors))
        np.testing.assert_array_equal(np.swapaxes(tensors, -1, -2), tensors)
        np.testing.assert_array_equal(back(tensors), vectors)


def test_engineering_shear_is_twice_the_tensor_entry_so_that_work_is_a_dot_product():
    rng = np.random.default_rng(1)
    stress, strain = (m + m.T for m in rng.normal(size=(2, 3, 3)))
    work = np.tensordot(stress, strain)
    assert units.to_voigt(stress) @ units.strain_to_voigt(strain) == pytest.approx(work)


def test_whole_numbers_become_floats_before_shears_are_halved():
    assert units.strain_from_voigt([0, 0, 0, 1, 0, 0])[1, 2] == 0.5
    assert units.strain_from_voigt(np.array([0, 0, 0, 1, 0, 0]))[1, 2] == 0.5
