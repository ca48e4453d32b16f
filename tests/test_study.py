"""Summary of a study: it says which bounds are met and which are not."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest

import fusedff
from fusedff import results, tables
from fusedff.study import comparison, presets
from fusedff.training import label_errors


def point(deviation, pressure, stderr=1.0):
    """Constants off by `deviation` (relative), alternately up and down."""
    measured = {"C11": 160.0, "C12": 90.0, "C13": 66.0, "C33": 181.0, "C44": 46.0}
    elastic = {
        name: {"value": value * (1 + deviation * (-1) ** n), "stderr": stderr, "measured": value}
        for n, (name, value) in enumerate(measured.items())
    }
    noise = {"stderr": 0.05, "measured": 0.0}
    return {
        "elastic": elastic,
        "pressure": {"value": pressure} | noise,
        "stress": {"xx": {"value": -pressure} | noise, "zz": {"value": -pressure / 2} | noise},
        "lattice": {},
    }


def entry(value, stderr, measured):
    return {"value": value, "stderr": stderr, "measured": measured}


def model(deviation, pressure, force):
    errors = {"energy_mae_meV_per_atom": 2.0, "force_mae_meV_per_A": force, "stress_mae_GPa": 0.3}
    return {
        "test": errors,
        "experiment": {"23": point(deviation, pressure), "923": point(deviation, -pressure / 2)},
    }


@pytest.fixture
def result():
    models = {
        "dft": model(0.2, 1.5, 60.0),
        "experiment": model(0.01, 0.1, 300.0),
        "fused": model(0.02, -0.2, 63.0),
    }
    smoke = presets.get("smoke")
    return comparison.summary(models, smoke, comparison.frames(smoke), 12.0)


def test_deviation_is_the_mean_relative_error_with_propagated_noise():
    deviation, noise = results.elastic_deviation({"23": point(0.04, 0.0, stderr=0.0)})
    assert deviation == pytest.approx(4.0)
    assert noise == 0.0
    _, noise = results.elastic_deviation({"23": {"elastic": {"C11": {"value": 9, "stderr": 1, "measured": 10}}}})
    assert noise == pytest.approx(10.0)
    negative = {"23": {"elastic": {"C14": {"value": -9, "stderr": 1, "measured": -10}}}}
    assert results.elastic_deviation(negative) == pytest.approx((10, 10))
    assert np.isnan(results.elastic_deviation({"23": {"elastic": {"C14": {"value": -9, "stderr": 1}}}})).all()
    zero = {"value": 0.2, "stderr": 0.1, "measured": 0.0}
    with_zero = {"23": {"elastic": negative["23"]["elastic"] | {"C15": zero}}}
    assert results.elastic_deviation(with_zero) == pytest.approx((10, 10))
    assert np.isnan(results.relative_deviation(zero)).all()


def test_a_constant_that_was_not_measured_is_shown_and_not_judged(result):
    deviation = results.elastic_deviation(result["models"]["fused"]["experiment"])
    for found in result["models"].values():
        for at_temperature in found["experiment"].values():
            at_temperature["elastic"]["C66"] = {"value": 35.0, "stderr": 0.5}
    assert results.elastic_deviation(result["models"]["fused"]["experiment"]) == deviation
    lines = tables.comparison_table(result).splitlines()
    measured, fused = (next(line for line in lines if line.strip().startswith(m)) for m in ("measured", "fused"))
    assert measured.split()[-1] == "-"
    assert "35.0 ± 0.5" in fused
    row = next(
        r for r in results.elastic_rows({"fused": result["models"]["fused"]["experiment"]}) if r["quantity"] == "C66"
    )
    assert row["measured_GPa"] is None


def test_the_table_shows_every_stress_and_lattice_parameter(result):
    for found in result["models"].values():
        for at_temperature in found["experiment"].values():
            at_temperature["stress"] = {"xx": entry(0.41, 0.02, 0.0), "zz": entry(-0.78, 0.03, 0.0)}
            at_temperature["lattice"] = {"a": entry(2.9534, 0.0003, 2.9670), "c": entry(4.7366, 0.0004, 4.6943)}
    above, below, *_ = tables.comparison_table(result).split("\n\n")
    assert above.splitlines()[0].split()[-3:] == ["P", "/", "GPa"]
    head, measured, *_, fused = below.splitlines()
    assert head.split()[3:] == ["σxx", "/", "GPa", "σzz", "/", "GPa", "a", "/", "Å", "c", "/", "Å"]
    assert measured.split()[-4:] == ["0.00", "0.00", "2.9670", "4.6943"]
    assert "0.41 ± 0.02" in fused
    assert "4.7366 ± 0.0004" in fused
    experiment = result["models"]["fused"]["experiment"]
    assert results.largest_stress(experiment) == (pytest.approx(0.78), 0.03)
    row = next(r for r in results.elastic_rows({"fused": experiment}) if r["quantity"] == "σzz")
    assert row["value_GPa"] == -0.78


@pytest.mark.parametrize(
    ("stderr", "digits", "said"),
    [
        (0.2, 1, "171.9 ± 0.2"), (0.0135, 1, "171.90 ± 0.01"), (0.00058, 1, "171.8979 ± 0.0006"),
        (9.9e-6, 4, "171.897900 ± 0.000010"), (0.0, 1, "171.9 ± 0.0"), (np.nan, 1, "171.9 ± nan"),
    ],
)  # fmt: skip
def test_a_standard_error_is_not_rounded_to_zero(stderr, digits, said):
    assert tables.value_and_error(171.8979, stderr, digits) == said


def test_a_table_is_as_wide_as_a_page_and_says_every_number_once(result):
    columns = [[f"C{n}", f"{n:.3f} ± 0.001"] for n in range(11, 23)]
    lines = tables.format_columns(["        ", "measured"], columns)
    assert max(map(len, lines)) <= tables.LINE
    assert lines.count("") == 2  # beside a label of 8 characters, there is room for five of these twelve columns of 16
    assert " ".join(lines).count("measured") == 3
    assert [cell for line in lines for cell in line.split() if "." in cell and cell != "0.001"] == [
        f"{n:.3f}" for n in range(11, 23)
    ]
    said = tables.comparison_table(result).split("DFT-only: ")[1]
    assert max(map(len, said.splitlines())) <= tables.LINE


def test_a_preset_trains_on_isothermal_constants_and_compares_what_was_measured():
    """But for the paper's, which takes the measured constants as they are."""
    (hot,) = (p for p in comparison.targets(presets.get("demo")) if p.temperature == 923)
    (measured,) = (p for p in comparison.measured(presets.get("demo")) if p.temperature == 923)
    assert (hot.condition, measured.condition) == ("isothermal", "adiabatic")
    assert measured.elastic_gpa["C11"] - hot.elastic_gpa["C11"] == pytest.approx(2.2, abs=0.2)
    (paper,) = (p for p in comparison.targets(presets.get("paper")) if p.temperature == 923)
    assert paper.elastic == measured.elastic
    assert {p.condition for p in comparison.measured(presets.get("paper"))} == {"isothermal"}


def test_largest_stress_is_the_worst_in_magnitude_of_all_axes_and_temperatures():
    assert results.largest_stress({"a": point(0, 0.1), "b": point(0, -0.4)}) == (pytest.approx(0.4), 0.05)


def test_every_bound_that_is_met_or_not_is_said_to_be(result):
    dft, experiment, fused = tables.summary_lines(result)
    assert "bound" not in dft  # never shown an experiment
    assert "off by 20.0 ± " in dft
    assert "off by 1.0 ± " in experiment
    assert "(bound 5 %: met)" in experiment
    assert "(bound 0.3 GPa: met)" in experiment
    assert "(bound 1.15 x: NOT met)" in experiment  # it forgot the DFT forces
    assert "NOT met" not in fused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (model(0.06, 0.1, 60.0), "(bound 5 %: NOT met)"),
        (model(0.01, 0.31, 60.0), "(bound 0.3 GPa: NOT met)"),
        (model(0.01, 0.1, 70.0), "(bound 1.15 x: NOT met)"),
    ],
)
def test_each_bound_can_fail_alone(result, change, said):
    result = copy.deepcopy(result)
    result["models"]["fused"] = change
    line = tables.summary_lines(result)[-1]
    assert said in line
    assert line.count("NOT met") == 1


def test_the_table_has_a_row_per_model_and_temperature_with_error_bars(result):
    text = tables.comparison_table(result)
    rows = text.split("\n\n")[0].splitlines()[1:]
    assert len([row for row in rows if row.split()[0] in ("DFT-only", "experiment-only", "fused")]) == 6
    assert len([row for row in rows if row.strip().startswith("measured")]) == 2
    assert "192.0 ± 1.0" in text  # C11 of the DFT-only model
    assert " ".join(text.split()).endswith(" ".join(" ".join(tables.summary_lines(result)).split()))


def test_the_summary_says_what_it_takes_to_get_it_again(result):
    assert result["preset"] == "smoke"
    assert set(result["seeds"]) == {"training", "evaluation"}
    assert result["settings"]["kind"] == "Preset"
    assert "jax" in result["versions"]


def test_a_committee_has_a_mean_and_two_errors():
    """Three trainings find 10, 12 and 17 GPa, each known to 3 GPa from its sampling."""
    members = [
        {"experiment": {"elastic": {"C11": entry(value, 3.0, 11.0)}, "condition": "adiabatic"}, "force": force}
        for value, force in ((10.0, 40.0), (12.0, 44.0), (17.0, 60.0))
    ]
    found = results.average_members(members)
    c11 = found["experiment"]["elastic"]["C11"]
    assert c11["value"] == pytest.approx(13.0)
    assert c11["stderr"] == pytest.approx(3 / 3**0.5)
    assert c11["spread"] == pytest.approx(13**0.5)  # (9 + 1 + 16) / 2
    assert c11["measured"] == 11.0
    assert found["experiment"]["condition"] == "adiabatic"
    assert found["force"] == pytest.approx(48.0)
    assert results.average_members([entry(1.0, None, 2.0)] * 2)["stderr"] is None


def test_the_table_of_a_committee_shows_the_training_error_apart_from_the_sampling_error(result):
    other = copy.deepcopy(result["models"])
    for found in other.values():
        found["test"]["force_mae_meV_per_A"] += 4.0
        for at_temperature in found["experiment"].values():
            at_temperature["elastic"]["C11"]["value"] += 6.0
    committee = {
        "models": results.average_members([result["models"], other]),
        "members": {"0": result["models"], "7": other},
    }
    c11 = committee["models"]["fused"]["experiment"]["23"]["elastic"]["C11"]
    said = tables.comparison_table(committee)
    assert f"{c11['value']:.1f} ± 0.7 (4.2)" in said  # 1 / sqrt(2); 6 / sqrt(2)
    assert "65 (3) meV/Å" in said
    assert "means over 2 trainings (seeds 0, 7)" in said
    row = next(iter(results.elastic_rows({"fused": committee["models"]["fused"]["experiment"]})))
    assert (row["stderr_GPa"], row["spread_GPa"]) == pytest.approx((1 / 2**0.5, 6 / 2**0.5))
    assert "(" not in tables.comparison_table(result).split("bound")[0].splitlines()[1]


def test_a_committee_of_tables_is_a_table_of_means():
    members = [[{"family": "all", "n_frames": 7, "energy": 1.0 + seed, "stress": None}] for seed in range(3)]
    assert results.average_members(members) == [{"family": "all", "n_frames": 7, "energy": 2.0, "stress": None}]


def test_frames_with_large_forces_are_in_no_mean_and_have_a_row_of_their_own(monkeypatch):
    smoke, potential = presets.get("smoke"), fusedff.load("titanium-dft")
    frames = comparison.frames(smoke).test[:12]
    monkeypatch.setattr(comparison.elastic, "run", lambda *arguments: SimpleNamespace(by_temperature=dict))
    forces = sorted(abs(frame.get_forces()).max() for frame in frames)
    bound = (forces[-2] + forces[-1]) / 2
    usual, (extreme,) = comparison.below(frames, bound)
    assert abs(extreme.get_forces()).max() == forces[-1]
    found = comparison.evaluate_model(potential, frames, (), smoke, "a model", bound)
    assert found["test"] == label_errors.errors(potential, usual)
    *_, last = found["by_family"]
    assert (last["family"], last["n_frames"]) == (f"above {bound:g} eV/Å", 1)
    assert last["force_mae_meV_per_A"] == pytest.approx(
        label_errors.errors(potential, [extreme])["force_mae_meV_per_A"]
    )
    whole = comparison.evaluate_model(potential, frames, (), smoke, "a model")
    assert whole["test"] == label_errors.errors(potential, frames)
