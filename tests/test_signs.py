"""Signs of C14: those of measured crystals, in the cells and standard axes to which published numbers refer."""

import numpy as np
import pytest
from ase.spacegroup import crystal
from ionic import alumina, silica

from fusedff.crystallography import elastic_symmetry, orientation
from fusedff.properties.static import elastic, relax


def reflection(atoms, index):
    """|F|^2 of a reflection, with atomic numbers as form factors."""
    return abs(np.sum(atoms.numbers * np.exp(2j * np.pi * atoms.get_scaled_positions() @ index))) ** 2


# P3_121, Levien, Prewitt & Weidner, Am. Mineral. 65, 920 (1980)
QUARTZ = crystal(["Si", "O"], [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2142)], spacegroup=152,
                 cellpar=[4.916, 4.916, 5.405, 90, 90, 120])  # fmt: skip


def test_c14_of_corundum_is_positive_as_measured():
    """+23 GPa in the obverse cell, whatever the axes: Gladden et al., Appl. Phys. Lett. 85, 392 (2004).

    Earlier tables have -23, with x reversed.
    """
    corundum = crystal(["Al", "O"], [(0, 0, 0.3522), (0.3064, 0, 0.25)], spacegroup=167,
                       cellpar=[4.759, 4.759, 12.991, 90, 90, 120], primitive_cell=True)  # fmt: skip
    turn = elastic_symmetry.rotation_about("x", 0.3) @ elastic_symmetry.rotation_about("z", 2.0)
    found = elastic.run(orientation.rotated_atoms(corundum, turn), alumina(), "trigonal -3m", name=None).constants_gpa
    measured = {"C11": 497, "C12": 163, "C13": 116, "C14": 23, "C33": 501, "C44": 147}
    for name, value in measured.items():
        assert found[name] == pytest.approx(value, rel=0.4), name  # rigid ions of one charge


def test_c14_of_quartz_is_negative_where_the_cell_has_the_stronger_reflection_10_11():
    """-18 GPa, the sign of McSkimin et al., J. Appl. Phys. 36, 1624 (1965); +18 half a turn about c away.

    Settings r(+) and z(+) of Donnay & Le Page, Acta Cryst. A34, 584 (1978).
    """
    assert reflection(QUARTZ, (1, 0, 1)) > 2 * reflection(QUARTZ, (0, 1, 1))
    rest = relax.relax_crystal(QUARTZ, silica())
    found = elastic.run(rest, silica(), "trigonal -3m", name=None)
    published = {"C11": 90.5, "C12": 8.1, "C13": 15.2, "C14": -17.6, "C33": 107.0, "C44": 50.2}  # of this potential
    assert found.constants_gpa == pytest.approx(published, abs=4)
    other = rest.copy()  # the same atoms, edges a and b reversed
    other.set_cell(rest.cell.array * [[-1], [-1], [1]])
    assert reflection(other, (1, 0, 1)) < reflection(other, (0, 1, 1)) / 2
    turned = elastic_symmetry.rotated(found.stiffness_gpa, orientation.of_atoms(other).rotation)
    assert elastic_symmetry.reduce_stiffness(turned, "trigonal -3m")["C14"] == pytest.approx(17.6, abs=4)
