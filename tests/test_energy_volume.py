"""Energy-volume curves against lattice sums of Lennard-Jones crystals."""

import json

import numpy as np
import pytest
from ase.build import bulk
from pairs import lennard_jones, lennard_jones_crystal, smooth_lennard_jones

from fusedff.crystallography import crystals
from fusedff.properties.static import elastic as static_elastic
from fusedff.properties.static import energy_volume, relax
from fusedff.properties.static.relax import NotRelaxedError, RelaxationConfig
from fusedff.units import GPA

RELAXATION = RelaxationConfig(fmax=1e-5)


@pytest.fixture(scope="module")
def argon():
    structures = {"fcc": bulk("Ar", "fcc", a=1.55), "bcc": bulk("Ar", "bcc", a=1.25)}
    return energy_volume.run(structures, lennard_jones(6.0), 0.04, 7, RELAXATION, name=None)


def test_volume_and_bulk_modulus_are_those_of_the_lattice_sums(argon):
    _, _, volume, bulk_modulus = lennard_jones_crystal("fcc")
    fcc = argon.curves["fcc"]
    assert fcc.volume == pytest.approx(volume, rel=2e-3)  # neighbours beyond the cut-off squeeze by 1.3e-3
    assert fcc.bulk_modulus_gpa * GPA == pytest.approx(bulk_modulus, rel=1e-2)  # and stiffen by several times that
    assert fcc.bulk_modulus_slope == pytest.approx((12 + 6) / 3 + 2, rel=0.03)  # of exponents m, n: (m + n)/3 + 2
    np.testing.assert_allclose(fcc.fitted, fcc.energies, atol=2e-4)


def test_bcc_lies_above_fcc_by_the_difference_of_the_lattice_sums(argon):
    expected = lennard_jones_crystal("bcc")[1] - lennard_jones_crystal("fcc")[1]
    assert argon.most_stable == "fcc"
    # 0.004 of 0.37 are neighbours beyond the cut-off, fewer in bcc as it is less dense
    assert argon.relative_energies == pytest.approx({"fcc": 0.0, "bcc": expected}, abs=8e-3)


def test_the_shape_of_an_hcp_cell_is_relaxed_at_every_volume():
    """Its bulk modulus is then the one of the relaxed elastic tensor, and c/a that of the relaxed crystal."""
    calculator = smooth_lennard_jones(2.2)
    start = bulk("Ar", "hcp", a=1.10, c=1.75)
    found = energy_volume.run({"hcp": start}, calculator, 0.03, 5, RELAXATION, name=None).curves["hcp"]
    rest = relax.relax_crystal(start, calculator, RELAXATION)
    assert found.c_over_a == pytest.approx(rest.cell.lengths()[2] / rest.cell.lengths()[0], rel=1e-6)
    assert found.energy == pytest.approx(rest.get_potential_energy() / 2, rel=1e-5)  # of the fit
    elastic = static_elastic.run(rest, calculator, "hexagonal", relaxation=RELAXATION, name=None)
    assert found.bulk_modulus_gpa == pytest.approx(elastic.bulk_modulus_gpa, rel=0.02)  # volumes of 3 %


def test_results_become_json(argon):
    plain = json.loads(json.dumps(argon.as_dict()))
    assert plain["relative_energies_meV_per_atom"]["bcc"] == pytest.approx(1e3 * argon.relative_energies["bcc"])
    assert len(plain["structures"]["fcc"]["volumes_A3_per_atom"]) == plain["n_volumes"] == 7


def test_bad_input_is_refused_by_name():
    structures = {"squeezed": crystals.prototype("Ar", "fcc", 0.8)}
    with pytest.raises(ValueError, match="n_volumes = 4"):
        energy_volume.run(structures, lennard_jones(3.0), n_volumes=4)
    with pytest.raises(NotRelaxedError, match=r"^squeezed: relaxation of Ar4: after 1 steps"):
        energy_volume.run(structures, lennard_jones(3.0), relaxation=RelaxationConfig(steps=1), name=None)
