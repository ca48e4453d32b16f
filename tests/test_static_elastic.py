"""Elastic constants at 0 K against lattice sums, energies of strained cells, and exact relations."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS
from pairs import lennard_jones, lennard_jones_crystal, smooth_lennard_jones

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.static import elastic, relax
from fusedff.properties.static.relax import RelaxationConfig
from fusedff.properties.thermal import lattice
from fusedff.units import GPA, strain_from_voigt

TIGHT = RelaxationConfig(fmax=1e-6)
SMOOTH = smooth_lennard_jones(2.6)


def curvatures(atoms, calculator, directions, step=2e-3):
    """Second derivative of the energy along Lagrangian strains, ions relaxed, over the volume: nothing but energies."""

    def energy(eta):
        values, vectors = np.linalg.eigh(np.eye(3) + 2 * strain_from_voigt(eta))
        frame = atoms.copy()
        frame.set_cell(atoms.cell.array @ (vectors * np.sqrt(values)) @ vectors.T, scale_atoms=True)
        frame.calc = calculator
        BFGS(frame, logfile=None).run(fmax=2e-5)  # an error of the square of that in the energy
        return frame.get_potential_energy()

    rest = energy(np.zeros(6))
    both = np.array([energy(step * d) + energy(-step * d) for d in directions])
    return (both - 2 * rest) / step**2 / atoms.get_volume() / GPA


def lattice_sum(atoms, cutoff):
    """C11 and C12 of a Lennard-Jones crystal of inversion centres at zero pressure (Born), eV/Å^3."""
    r, d = neighbor_list("dD", atoms, cutoff)
    second = 4 * (12 * 13 * r**-14 - 6 * 7 * r**-8) - 4 * (-12 * r**-14 + 6 * r**-8)
    weight = second / r**2 / 2 / atoms.get_volume()
    return [(weight * d[:, 0] ** 2 * d[:, k] ** 2).sum() for k in (0, 1)]


def test_a_lennard_jones_crystal_obeys_cauchy_and_its_lattice_sums():
    cell = relax.relax_crystal(bulk("Ar", "fcc", a=1.54), lennard_jones(8.0), TIGHT)
    found = elastic.run(cell, lennard_jones(8.0), "cubic", strain=2e-4, relaxation=TIGHT, name=None)
    c = {name: value * GPA for name, value in found.constants_gpa.items()}
    # a strain carries neighbours of this potential, which has no switch, across its cut-off
    assert c["C12"] == pytest.approx(c["C44"], rel=2e-3)
    c11, c12 = lattice_sum(cell, 8.0)
    assert c["C11"] == pytest.approx(c11, rel=2e-3)
    assert c["C12"] == pytest.approx(c12, rel=2e-3)
    # neighbours beyond the cut-off add 0.1 % to the published bulk modulus
    assert found.bulk_modulus_gpa * GPA == pytest.approx(lennard_jones_crystal("fcc")[3], rel=5e-3)
    assert found.stable


@pytest.mark.parametrize("a", [1.5, 1.58])
def test_the_bulk_modulus_of_a_crystal_under_pressure_is_the_slope_of_the_pressure(a):
    """Compressed and stretched fcc Lennard-Jones: -V dp/dV by differences of the pressure alone."""
    cell = bulk("Ar", "fcc", a=a)

    def pressure(factor):
        frame = cell.copy()
        frame.set_cell(cell.cell.array * factor ** (1 / 3), scale_atoms=True)
        frame.calc = SMOOTH
        return -frame.get_stress()[:3].mean() / GPA

    found = elastic.run(cell, SMOOTH, "cubic", strain=2e-4, name=None)
    slope = (pressure(1 - 1e-3) - pressure(1 + 1e-3)) / 2e-3
    assert abs(found.pressure_gpa) > 0.03 * slope  # else nothing is shown
    assert found.bulk_modulus_gpa == pytest.approx(slope, rel=1e-3)
    # the same constants take the crystal to a pressure nearby
    stress = -found.pressure_gpa * GPA * np.array([1, 1, 1, 0, 0, 0])
    constants = [value * GPA for value in found.constants_gpa.values()]
    wanted, _ = lattice.relaxed(Crystal("Ar", "fcc", a), stress, constants, pressure(1.0003) * GPA)
    assert wanted.get_volume() / a**3 - 1 == pytest.approx(3e-4, rel=3e-3)


def test_the_tensor_is_the_second_derivative_of_the_energy_with_ions_relaxed():
    """Of an askew crystal under stress, in random directions of strain: all of the tensor and its definition count."""
    atoms = bulk("Ar", "hcp", a=1.09, c=1.80)
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    found = elastic.run(atoms, SMOOTH, strain=1e-3, relaxation=TIGHT, name=None)
    directions = np.random.default_rng(0).normal(size=(7, 6)) / 2
    expected = curvatures(atoms, SMOOTH, directions)
    # finite strains of 1e-3 in the stresses, and of 2e-3 in the energies
    np.testing.assert_allclose(
        np.einsum("ki,ij,kj->k", directions, found.stiffness_gpa, directions), expected, rtol=2e-3
    )


def test_ions_of_hcp_soften_c11_and_those_of_a_lattice_of_inversion_centres_do_not():
    hcp = relax.relax_crystal(bulk("Ar", "hcp", a=1.09, c=1.78), SMOOTH, TIGHT)
    found = elastic.run(hcp, SMOOTH, "hexagonal", relaxation=TIGHT, name=None)
    assert found.stiffness_gpa[0, 0] < 0.97 * found.clamped_gpa[0, 0]
    assert abs(found.pressure_gpa) < 1e-4 * found.bulk_modulus_gpa
    c66 = (found.constants_gpa["C11"] - found.constants_gpa["C12"]) / 2
    assert found.stiffness_gpa[5, 5] == pytest.approx(c66, rel=1e-3)
    fcc = elastic.run(bulk("Ar", "fcc", a=1.54), SMOOTH, relaxation=TIGHT, name=None)
    np.testing.assert_allclose(fcc.stiffness_gpa, fcc.clamped_gpa, rtol=1e-9)


def test_emt_copper_in_any_cell_and_orientation():
    """The energy route for the primitive cell; the cube of four atoms gives the same."""
    copper = relax.equilibrium(Crystal("Cu", "fcc", 3.6), EMT(), RelaxationConfig(fmax=1e-5))
    primitive = bulk("Cu", "fcc", a=copper.a)
    found = elastic.run(primitive, EMT(), "cubic", name=None)
    cube = elastic.run(crystals.unit_cell(copper), EMT(), "cubic", name=None)
    for name, value in found.constants_gpa.items():
        assert cube.constants_gpa[name] == pytest.approx(value, rel=1e-4)
    c = found.constants_gpa
    expected = [c["C11"], 2 * c["C11"] + 2 * c["C12"], c["C44"]]
    energies = curvatures(
        primitive, EMT(), np.array([[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]), 4e-3
    )
    np.testing.assert_allclose(energies, expected, rtol=5e-3)  # of finite strain


def test_an_unstable_crystal_is_called_so_and_results_become_json():
    bcc = relax.relax_crystal(crystals.prototype("Ar", "bcc", 1.0), SMOOTH, TIGHT)
    found = elastic.run(bcc, SMOOTH, "cubic", relaxation=TIGHT, name=None)
    assert not found.stable
    assert found.constants_gpa["C11"] < found.constants_gpa["C12"]
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["constants_GPa"]["C11"] == found.constants_gpa["C11"]
    assert plain["relaxation"] == {"fmax": 1e-6, "steps": 500}
    assert np.shape(plain["stiffness_GPa"]) == (6, 6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"strain": 0.2}, "strain = 0.2"), ({"strain": 0.0}, "strain = 0"), ({"symmetry": "round"}, "'round' is unknown")],
)
def test_unfit_settings_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        elastic.run(bulk("Ar", "fcc", a=1.54), SMOOTH, name=None, **settings)
