"""Tables of measured state points."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from laue import structure

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.measurements import experiments, state_points
from fusedff.runtime import storage
from fusedff.units import GPA

HEADER = "temperature_K,a_A,c_A,C11_GPa,C12_GPa,C13_GPa,C33_GPa,C44_GPa,role"
ROW = "323,2.95125,4.67942,160.9,92.5,69.1,179.5,46.2,train"


def test_the_packaged_table_is_titanium_at_22_temperatures_of_which_the_paper_trains_on_four():
    points = experiments.load_state_points()
    assert len(points) == 22
    assert [p.temperature for p in state_points.select(points, role="train")] == [23.0, 323.0, 623.0, 923.0]
    assert len(state_points.select(points, role="held-out")) == 18
    assert all(p.crystal.symbol == "Ti" and p.crystal.structure == "hcp" for p in points)
    assert all(p.pressure == 0.0 for p in points)


def test_elastic_constants_are_gpa_in_the_table_in_the_papers_order_and_ev_per_cubic_angstrom_once_loaded():
    (point,) = state_points.select(experiments.load_state_points(), [323])
    assert list(point.elastic) == ["C11", "C12", "C13", "C33", "C44"]
    assert point.elastic_gpa == pytest.approx({"C11": 160.9, "C12": 92.5, "C13": 69.1, "C33": 179.5, "C44": 46.2})
    assert point.elastic["C33"] == pytest.approx(179.5 * GPA)
    for p in experiments.load_state_points():
        assert 100 < p.elastic_gpa["C11"] < 200  # not the published file's units of 100 GPa
        assert p.elastic["C33"] > p.elastic["C11"] > p.elastic["C12"] > p.elastic["C13"] > p.elastic["C44"]


def test_the_73_K_row_interpolates_its_neighbours_instead_of_the_published_outlier():
    cold, here, warm = state_points.select(experiments.load_state_points(), [23, 73, 123])
    for name in ("a", "c"):
        middle = (getattr(cold.crystal, name) + getattr(warm.crystal, name)) / 2
        assert getattr(here.crystal, name) == pytest.approx(middle, abs=1e-5)
    assert here.crystal.a != pytest.approx(2.95, abs=1e-3)


def test_titanium_expands_smoothly_and_softens_in_shear():
    points = experiments.load_state_points()
    a = np.array([p.crystal.a for p in points])
    assert (np.diff(a) > 0).all()
    assert np.abs(np.diff(a, 2)).max() < 2e-3
    assert (np.diff([p.elastic["C44"] for p in points]) <= 0).all()
    for p in points:
        assert elastic_symmetry.born_stability(p.elastic, "hexagonal")


def test_selection_keeps_the_asked_order_and_combines_with_roles():
    points = experiments.load_state_points()
    assert [p.temperature for p in state_points.select(points, [923, 4])] == [923.0, 4.0]
    assert state_points.select(points) == points
    with pytest.raises(ValueError, match=r"no state point is left with role 'train'.*973"):
        state_points.select(points, [973], role="train")
    with pytest.raises(ValueError, match=r"300 K; the table has 4, 23, 73"):
        state_points.select(points, [300])
    with pytest.raises(ValueError, match="role 'test' is unknown; use one of train, held-out"):
        state_points.select(points, role="test")


def test_a_cubic_table_of_another_metal_needs_no_c(table):
    path = table("temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa", "300,4.0496,106.7,60.4,28.3")
    (point,) = experiments.load_state_points(path, "Al", "fcc")
    assert point.crystal == crystals.Crystal("Al", "fcc", 4.0496)
    assert point.role == "train"
    assert point.elastic_gpa == pytest.approx({"C11": 106.7, "C12": 60.4, "C44": 28.3})


def test_a_cubic_crystal_may_be_given_by_its_density(table):
    """4.2110 Å is what Isaak, Anderson and Goto's density of MgO at 300 K, 3.585 g/cm^3, comes to (to 4 digits)."""
    (mgo,) = experiments.load_state_points(
        table("temperature_K,density_g_cm3,C44_GPa", "300,3.585,"), "MgO", "rocksalt"
    )
    assert mgo.crystal.a == pytest.approx(4.2110, abs=2e-4)  # half the last digit of the density: 0.0002 Å
    (pyrite,) = experiments.load_state_points(
        table("temperature_K,density_g_cm3", "300,5.0"), structure=structure("cubic")
    )
    cell = crystals.unit_cell(pyrite.crystal)
    assert cell.get_masses().sum() / (0.602214076 * cell.get_volume()) == pytest.approx(5.0, rel=1e-6)
    for header, row, says in (
        ("temperature_K,a_A,density_g_cm3", "300,4.211,3.585", "unknown column 'density_g_cm3'"),
        ("temperature_K,density_g_cm3", "300,3585", r"density_g_cm3 is 3585; give g/cm\^3"),
    ):
        with pytest.raises(ValueError, match=says):
            experiments.load_state_points(table(header, row), "MgO", "rocksalt")
    with pytest.raises(ValueError, match="unknown column 'density_g_cm3'"):
        experiments.load_state_points(table("temperature_K,density_g_cm3", "300,4.5"), "Ti", "hcp")


def test_a_row_without_elastic_constants_gives_only_the_pressure(table):
    path = table(HEADER + ",pressure_GPa", ROW + ",0.5", "# a note", "", "350,2.95,4.68,,,,,,held-out,")
    first, second = experiments.load_state_points(path, "Ti")
    assert first.pressure_gpa == pytest.approx(0.5)
    at_rest, _ = experiments.load_state_points(table(HEADER, ROW, "350,2.95,4.68,,,,,,held-out"), "Ti")
    added = {name: first.elastic_gpa[name] - at_rest.elastic_gpa[name] for name in first.elastic}
    assert added == pytest.approx({"C11": 0.5, "C12": -0.5, "C13": -0.5, "C33": 0.5, "C44": 0.5})  # Lagrangian strain
    assert second.elastic == {}
    assert second.pressure == 0.0
    assert hash(first) != hash(second)


def test_some_constants_of_a_b2_compound_with_their_errors(table):
    """NiAl (Wasilewski, Trans. AIME 236, 455 (1966), and others): of a named structure, no constant is required."""
    header = "temperature_K,a_A,C11_GPa,C44_GPa,C11_stderr_GPa,C44_stderr_GPa,role"
    path = table(header, "298,2.887,204.6,116.8,1.5,,train", "600,2.899,,109.0,,0.5,held-out", "900,2.911,,,,,train")
    points = experiments.load_state_points(path, "NiAl", "cesiumchloride")
    assert [len(crystals.unit_cell(p.crystal)) for p in points] == [2, 2, 2]
    assert points[0].elastic_gpa == pytest.approx({"C11": 204.6, "C44": 116.8})
    assert points[0].elastic_stderr == pytest.approx({"C11": 1.5 * GPA})
    assert points[2].elastic == {}
    names, measured, _ = state_points.measured_gpa(points)
    assert names == ("C11", "C12", "C44")
    np.testing.assert_allclose(measured, [[204.6, np.nan, 116.8], [np.nan, np.nan, 109.0], [np.nan] * 3])
    np.testing.assert_allclose(
        state_points.stderr_gpa(points), [[1.5, np.nan, np.nan], [np.nan, np.nan, 0.5], [np.nan] * 3]
    )


def test_a_diamond_element_from_a_table_in_another_unit(table):
    path = table("temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa,C44_stderr_GPa", "298,5.431,1.658,0.639,0.796,0.002")
    (point,) = experiments.load_state_points(path, "Si", "diamond", units="Mbar")
    assert len(crystals.unit_cell(point.crystal)) == 8
    assert point.elastic_gpa == pytest.approx({"C11": 165.8, "C12": 63.9, "C44": 79.6})
    assert point.elastic_stderr["C44"] == pytest.approx(0.2 * GPA)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_table_about_a_structure_has_the_lattice_parameters_of_its_system(as_file, table, tmp_path):
    atoms = structure("monoclinic")
    write(tmp_path / "mine.cif", atoms)
    described = tmp_path / "mine.cif" if as_file else atoms
    path = table("temperature_K,a_A,b_A,c_A,beta_deg,C22_GPa,C15_GPa,C46_GPa", "300,3.92,4.21,4.73,104.5,55,-3.5,1.2")
    (point,) = experiments.load_state_points(path, structure=described)
    assert point.crystal.parameters == {"a": 3.92, "b": 4.21, "c": 4.73, "beta": 104.5}
    assert crystals.symmetry(point.crystal) == "monoclinic"
    assert point.crystal.symbol == "Ar"
    assert point.elastic_gpa == pytest.approx({"C22": 55, "C15": -3.5, "C46": 1.2})
    assert crystals.unit_cell(point.crystal).cell.cellpar() == pytest.approx([3.92, 4.21, 4.73, 90, 104.5, 90])
    assert storage.digest(point) == storage.digest(experiments.load_state_points(path, structure=described)[0])


@pytest.mark.parametrize(
    ("header", "row", "named"),
    [
        ("a_A,b_A,c_A,beta_deg", "4.73,4.21,3.92,104.5", [r"a_A is 4\.73 where the structure has 3\.9;", "order of"]),
        ("a_A,b_A,c_A,beta_deg", "3.92,4.21,4.73,75.5", [r"beta_deg is 75\.5 where the structure has 104"]),
        ("a_A,b_A,c_A,beta_deg", "3.9,4.2,4.7,190", ["beta = 190", "an angle"]),
        ("a_A,b_A,c_A", "3.9,4.2,4.7", ["missing column 'beta_deg'", "a table for P2_1/m has temperature_K, a_A, b_A"]),
        ("a_A,b_A,c_A,beta_deg,C14_GPa", "3.9,4.2,4.7,104,1", ["unknown column 'C14_GPa'"]),
        ("a_A,b_A,c_A,beta_deg,C11_GPa,C15_GPa,C55_GPa", "3.9,4.2,4.7,104,50,30,10", ["unstable for a monoclinic"]),
    ],
)
def test_a_table_that_cannot_be_about_the_structure_is_refused(header, row, named, table):
    path = table(f"temperature_K,{header}", f"300,{row}")
    with pytest.raises(ValueError, match=r"^mine\.csv, line [12]: ") as error:
        experiments.load_state_points(path, structure=structure("monoclinic"))
    for text in named:
        assert re.search(text, str(error.value)), str(error.value)


def test_a_symbol_that_is_not_that_of_the_structure_is_refused(table):
    path = table("temperature_K,a_A", "300,5.42")
    with pytest.raises(ValueError, match="the structure is of FeS2, not NiS2"):
        experiments.load_state_points(path, "NiS2", structure("cubic"))
    (point,) = experiments.load_state_points(path, "FeS2", structure("cubic"))
    assert point.crystal.a == 5.42
    with pytest.raises(ValueError, match=r"a = 0\.542 is no lattice constant in Å; it looks like nm"):
        experiments.load_state_points(table("temperature_K,a_A", "300,0.542"), structure=structure("cubic"))


def test_small_constants_alone_say_nothing_of_their_unit(table):
    path = table("temperature_K,a_A,c_A,C14_GPa", "300,3.14,4.2,-0.9")
    (point,) = experiments.load_state_points(path, structure=structure("trigonal -3m"))
    assert point.elastic_gpa == pytest.approx({"C14": -0.9})


CUBIC = "temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa"
HEXAGONAL = "temperature_K,a_A,c_A,C11_GPa,C12_GPa,C13_GPa,C33_GPa,C44_GPa"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("symbol", "structure", "row"),
    [
        ("Ne", "fcc", "5,4.464,1.69,0.97,1.00"),
        ("Ne", "fcc", "24,4.52,1.17,0.74,0.60"),
        ("Ar", "fcc", "10,5.314,4.24,2.39,2.25"),
        ("Ar", "fcc", "82.3,5.46,2.38,1.56,1.12"),
        ("Kr", "fcc", "114,5.87,2.66,1.69,1.26"),
        ("Xe", "fcc", "156,6.35,2.98,1.90,1.48"),
        ("Cs", "bcc", "295,6.14,2.47,2.06,1.48"),
        ("Zn", "hcp", "295,2.665,4.947,163.7,36.4,53.0,63.5,38.8"),
    ],
)
def test_correct_constants_of_soft_crystals_are_accepted_without_a_word(symbol, structure, row, table):
    (point,) = experiments.load_state_points(table(HEXAGONAL if structure == "hcp" else CUBIC, row), symbol, structure)
    assert point.elastic_gpa["C11"] == pytest.approx(float(row.split(",")[3 if structure == "hcp" else 2]))


def test_a_doubt_about_the_unit_is_a_warning_and_units_ends_it(table, recwarn):
    helium = table(HEXAGONAL, "1.3,3.67,5.99,0.0405,0.0213,0.0105,0.0554,0.0124")
    with pytest.warns(UserWarning, match=r"line 2: C11 = 0.0405.*100 GPa.*or say units='GPa'"):
        (point,) = experiments.load_state_points(helium, "He", "hcp")
    assert point.elastic_gpa["C33"] == pytest.approx(0.0554)
    recwarn.clear()
    experiments.load_state_points(helium, "He", "hcp", units="GPa")
    assert not recwarn
    megabar = table(CUBIC, "300,4.0496,1.067,0.604,0.283")
    with pytest.raises(ValueError, match="or say units='GPa'"):
        experiments.load_state_points(megabar, "Al", "fcc")
    (point,) = experiments.load_state_points(megabar, "Al", "fcc", units="Mbar")
    assert point.elastic_gpa["C11"] == pytest.approx(106.7)
    with pytest.raises(ValueError, match="units 'psi' are unknown; use one of GPa, Pa"):
        experiments.load_state_points(megabar, "Al", "fcc", units="psi")


def rows_of_titanium(every):
    """Header and every so many rows of the packaged table, as text."""
    lines = [line for line in experiments.TITANIUM_TABLE.read_text().splitlines() if not line.startswith("#")]
    return [lines[0], *lines[1::every]]


def at(lines, temperature):
    return next(n for n, line in enumerate(lines) if line.startswith(f"{temperature},"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_packaged_tables_lie_on_smooth_curves(every, table):
    experiments.load_state_points(table(*rows_of_titanium(every)), "Ti")
    experiments.load_state_points(experiments.ALUMINIUM_TABLE, "Al", "fcc")


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("Celsius", "C11_GPa 144.2 where"),
        ("C12 and C13 exchanged", r"C12_GPa 69\.1 where the other rows suggest 97.*C13_GPa 97\.3"),
        ("a 5 % off", r"a_A 3\.1071 where the other rows suggest 2\.959"),
    ],
)
def test_a_row_that_is_off_the_curve_through_the_others_is_named_with_its_line(what, named, every, table):
    lines = rows_of_titanium(every)
    n = at(lines, 623 if every == 1 else 523)
    cells = lines[n].split(",")
    named = named if every == 1 else named.split()[0]
    if what == "Celsius":
        cells[0] = f"{float(cells[0]) - 273.15:.2f}"
    elif "exchanged" in what:
        cells[4], cells[5] = cells[5], cells[4]
    else:
        cells[1] = f"{1.05 * float(cells[1]):.5f}"
    lines[n] = ",".join(cells)
    with pytest.warns(UserWarning, match="the other rows suggest") as caught:
        points = experiments.load_state_points(table(*lines), "Ti")
    assert len(points) == len(lines) - 1
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"mine.csv, line {n + 1}: at {float(cells[0]):g} K, ")
    assert message.endswith("check the row, its temperature (K) and the order of its columns")
    assert re.search(named, message)


def test_a_cell_turned_by_45_degrees_is_named(table):
    """L1_0: the usual cell of four atoms is not a conventional cell of its space group."""
    alloy = Atoms("Cu2Au2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
                  cell=[3.96, 3.96, 3.67], pbc=True)  # fmt: skip
    path = table("temperature_K,a_A,c_A", "300,3.96,3.67")
    with pytest.raises(ValueError, match=r"a_A is 3\.96 where the structure has 2\.8.*turned by 45 degrees"):
        experiments.load_state_points(path, structure=alloy)


def test_the_symmetry_of_a_structure_that_is_not_quite_relaxed_is_named(table):
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.005, seed=1)
    with pytest.raises(ValueError, match=r"missing column.*To within 0\.05 Å the structure has the symmetry Fm-3m"):
        experiments.load_state_points(table("temperature_K,a_A", "300,3.61"), structure=rattled)


@pytest.mark.parametrize(("row", "says"), [
    ("300,3.61,168,1e-9", "C11_stderr_GPa is 1e-09, so small that C11 would decide the whole loss"),
    ("300,3.61,-,", "C11_GPa is '-', not a number; correct it, leave the cell empty if nothing was measured"),
])  # fmt: skip
def test_cells_that_say_nothing_or_too_much_are_refused(row, says, table):
    with pytest.raises(ValueError, match=says):
        experiments.load_state_points(table("temperature_K,a_A,C11_GPa,C11_stderr_GPa", row), "Cu", "fcc")
