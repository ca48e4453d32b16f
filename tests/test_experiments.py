"""Tables of measured state points."""

import numpy as np
import pytest

from fusedff import crystals, experiments
from fusedff.units import GPA

HEADER = "temperature_K,a_A,c_A,C11_GPa,C12_GPa,C13_GPa,C33_GPa,C44_GPa,role"
ROW = "323,2.95125,4.67942,160.9,92.5,69.1,179.5,46.2,train"


def test_the_packaged_table_is_titanium_at_22_temperatures_of_which_the_paper_trains_on_four():
    points = experiments.load_state_points()
    assert len(points) == 22
    assert [p.temperature for p in experiments.select(points, role="train")] == [23.0, 323.0, 623.0, 923.0]
    assert len(experiments.select(points, role="held-out")) == 18
    assert all(p.crystal.symbol == "Ti" and p.crystal.structure == "hcp" for p in points)
    assert all(p.pressure == 0.0 for p in points)


def test_elastic_constants_are_gpa_in_the_table_in_the_papers_order_and_ev_per_cubic_angstrom_once_loaded():
    (point,) = experiments.select(experiments.load_state_points(), [323])
    assert list(point.elastic) == ["C11", "C12", "C13", "C33", "C44"]
    assert point.elastic_gpa == pytest.approx({"C11": 160.9, "C12": 92.5, "C13": 69.1, "C33": 179.5, "C44": 46.2})
    assert point.elastic["C33"] == pytest.approx(179.5 * GPA)
    for p in experiments.load_state_points():
        assert 100 < p.elastic_gpa["C11"] < 200  # not the published file's units of 100 GPa
        assert p.elastic["C33"] > p.elastic["C11"] > p.elastic["C12"] > p.elastic["C13"] > p.elastic["C44"]


def test_the_73_K_row_interpolates_its_neighbours_instead_of_the_published_outlier():
    cold, here, warm = experiments.select(experiments.load_state_points(), [23, 73, 123])
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
        assert crystals.born_stability(p.elastic, "hexagonal")


def test_selection_keeps_the_asked_order_and_combines_with_roles():
    points = experiments.load_state_points()
    assert [p.temperature for p in experiments.select(points, [923, 4])] == [923.0, 4.0]
    assert experiments.select(points) == points
    with pytest.raises(ValueError, match=r"no state point is left with role 'train'.*973"):
        experiments.select(points, [973], role="train")
    with pytest.raises(ValueError, match=r"300 K; the table has 4, 23, 73"):
        experiments.select(points, [300])
    with pytest.raises(ValueError, match="role 'test' is unknown; use one of train, held-out"):
        experiments.select(points, role="test")


def test_a_cubic_table_of_another_metal_needs_no_c(table):
    path = table("temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa", "300,4.0496,106.7,60.4,28.3")
    (point,) = experiments.load_state_points(path, "Al", "fcc")
    assert point.crystal == crystals.Crystal("Al", "fcc", 4.0496)
    assert point.role == "train"
    assert point.elastic_gpa == pytest.approx({"C11": 106.7, "C12": 60.4, "C44": 28.3})


def test_a_row_without_elastic_constants_gives_only_the_pressure(table):
    path = table(HEADER + ",pressure_GPa", ROW + ",0.5", "# a note", "", "350,2.95,4.68,,,,,,held-out,")
    first, second = experiments.load_state_points(path)
    assert first.pressure_gpa == pytest.approx(0.5)
    assert second.elastic == {}
    assert second.pressure == 0.0
    assert hash(first) != hash(second)


PAPER_HEADER = "Temp[K] C11[GPa] C12[GPa] C13[GPa] C33[GPa] C44[GPa]"
PAPER_ROW = "323 4.5022 1.6090 0.9250 0.6910 1.7950 0.4620"


def test_the_papers_elastic_file_is_in_100_gpa_and_its_second_number_is_a_density(table):
    read = experiments.load_paper_elastic(table(PAPER_HEADER, PAPER_ROW))
    (packaged,) = experiments.select(experiments.load_state_points(), [323])
    assert read[323.0] == pytest.approx(dict(packaged.elastic))
    mass, n = 47.867 * 1.66053907e-24, 2  # g
    a, c = packaged.crystal.a, packaged.crystal.c
    assert n * mass / (np.sqrt(3) / 2 * a * a * c * 1e-24) == pytest.approx(4.5022, rel=0.005)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (PAPER_ROW.replace("4.5022 ", ""), ["line 2", "6 numbers", "as published"]),
        (PAPER_ROW.replace("4.5022", "2.9513"), ["line 2", "2.9513", "density"]),
        ("323 4.5022 160.9 92.5 69.1 179.5 46.2", ["line 2", "179.5", "load_state_points"]),
        (PAPER_ROW.replace("0.9250", "x"), ["line 2", "'x'", "correct"]),
        ("", ["no rows", "as published"]),
    ],
)
def test_a_changed_elastic_file_of_the_paper_is_never_read_with_the_old_meaning(row, named, table):
    with pytest.raises(ValueError, match=r"^mine\.csv") as error:
        experiments.load_paper_elastic(table(PAPER_HEADER, row))
    for text in named:
        assert text in str(error.value)
