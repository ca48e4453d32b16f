"""Conversion of adiabatic to isothermal constants: thermodynamic identities, and a crystal with known expansion."""

from dataclasses import replace

import numpy as np
import pytest

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.measurements import adiabatic, experiments
from fusedff.measurements.state_points import StatePoint
from fusedff.units import GPA, KB, strain_to_voigt


def row(temperature, crystal, stiff=1.0, **settings):
    """A row with constants of a stable crystal of that symmetry."""
    symmetry = crystals.symmetry(crystal)
    isotropic = np.diag([100.0, 100, 100, 30, 30, 30]) + 40 * (np.kron([[1, 0], [0, 0]], np.ones((3, 3))))
    constants = elastic_symmetry.reduce_stiffness(isotropic * stiff * GPA, symmetry)
    return StatePoint(
        temperature, crystal, {k: float(v) for k, v in constants.items()}, condition="adiabatic", **settings
    )


@pytest.mark.parametrize("pressure_gpa", [0.0, 30.0])
def test_the_bulk_modulus_of_a_cubic_crystal_differs_by_its_textbook_amount(pressure_gpa):
    """K_S - K_T = T V (3 alpha K_T)^2 / C_V, with K = (C11 + 2 C12 + p) / 3 of constants in Lagrangian strain."""
    alpha, p = 2.4e-5, pressure_gpa * GPA
    crystals_ = {t: Crystal("Al", "fcc", 4.05 * np.exp(alpha * (t - 500))) for t in (300.0, 400.0, 500.0, 600.0)}
    table = [row(t, crystal, pressure=p) for t, crystal in crystals_.items()]
    (found,) = adiabatic.isothermal([table[2]], table)
    bulk, isothermal = ((point.elastic["C11"] + 2 * point.elastic["C12"] + p) / 3 for point in (table[2], found))
    expected = 500.0 * (4.05**3 / 4) * (3 * alpha * isothermal) ** 2 / (3 * KB)
    assert bulk - isothermal == pytest.approx(expected, rel=0.01)  # the expansion of a straight line through four rows
    assert found.elastic["C44"] == table[2].elastic["C44"]
    assert found.condition == "isothermal"
    assert adiabatic.isothermal([found]) == (found,)


def test_compliances_of_a_hexagonal_crystal_differ_by_the_expansion_alone():
    """s^T - s^S = (T V / C_P) alpha alpha with C_P = C_V + T V alpha C^T alpha: another way to the same numbers."""
    along = {"a": 9e-6, "c": 15e-6}
    table = [
        row(t, Crystal("Zn", "hcp", *(x * (1 + along[n] * (t - 400)) for n, x in (("a", 2.66), ("c", 4.95)))))
        for t in (300.0, 400.0, 500.0)
    ]
    (found,) = adiabatic.isothermal([table[1]], table)
    alpha = np.array([along["a"], along["a"], along["c"], 0, 0, 0])
    np.testing.assert_allclose(strain_to_voigt(adiabatic.expansion(table[1], table)), alpha, atol=1e-15)
    compliance = [np.linalg.inv(elastic_symmetry.stiffness(p.elastic, "hexagonal")) for p in (found, table[1])]
    volume = crystals.unit_cell(table[1].crystal).get_volume()  # of two atoms
    stiffness = np.linalg.inv(compliance[0])
    heat = 6 * KB + 400 * volume * alpha @ stiffness @ alpha
    np.testing.assert_allclose(compliance[0] - compliance[1], 400 * volume / heat * np.outer(alpha, alpha), atol=1e-9)


def test_the_shipped_tables_differ_as_far_as_is_known():
    """Titanium at 973 K: up to 2.4 GPa; aluminium: some nine GPa near its melting point, and nothing of shear."""
    titanium = experiments.load_state_points()
    hottest = {name: value / GPA for name, value in adiabatic.difference(titanium[-1], titanium).items()}
    assert hottest["C11"] == hottest["C12"] == pytest.approx(2.3, abs=0.2)
    assert (hottest["C33"], hottest["C44"]) == (pytest.approx(1.7, abs=0.2), 0)
    assert max(adiabatic.difference(titanium[0], titanium).values()) < 0.01 * GPA
    aluminium = experiments.load_state_points(experiments.ALUMINIUM_TABLE, "Al", "fcc")
    assert adiabatic.difference(aluminium[-1], aluminium)["C11"] / GPA == pytest.approx(8.6, abs=0.5)


def test_a_row_that_the_table_lacks_expands_as_the_line_through_it_and_the_others():
    alpha, far = 2.4e-5, row(300.0, Crystal("Al", "fcc", 4.05))
    for distance in (-200.0, 1e-3, 200.0):
        hot = row(500.0, Crystal("Al", "fcc", 4.05 * (1 + alpha * 200)))
        near = row(500.0 + distance, Crystal("Al", "fcc", 4.05 * (1 + alpha * (200 + distance))))
        found = adiabatic.expansion(hot, [near])
        np.testing.assert_allclose(found, alpha / (1 + alpha * 200) * np.eye(3), atol=1e-9)
        (one,), (other,) = adiabatic.isothermal([hot], [far]), adiabatic.isothermal([hot], [far, hot])
        assert one == other


def test_what_cannot_be_converted_is_refused():
    alone = row(300.0, Crystal("Al", "fcc", 4.05))
    with pytest.raises(ValueError, match="300 K: .*another temperature at the same"):
        adiabatic.isothermal([alone])
    partial = replace(alone, elastic={"C11": 100 * GPA})
    with pytest.raises(ValueError, match="300 K: .*without C12, C44; give all constants"):
        adiabatic.isothermal([partial])
    assert adiabatic.isothermal([replace(partial, condition="isothermal")])[0].elastic == partial.elastic
    pressed = row(400.0, Crystal("Al", "fcc", 3.9), pressure=GPA)  # another isobar says nothing of this one
    with pytest.raises(ValueError, match=r"another temperature at the same pressure \(0 GPa\); add a row"):
        adiabatic.isothermal([alone], [alone, pressed])
    in_air = row(400.0, Crystal("Al", "fcc", 4.06), pressure=1e-4 * GPA)  # an atmosphere
    assert adiabatic.isothermal([alone], [alone, in_air])[0].elastic["C11"] < alone.elastic["C11"]
