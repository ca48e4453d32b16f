"""Figures: labels with units, fixed colours, error bars, alternative text, and no side effects."""

import base64
import sys
from dataclasses import replace

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from fusedff import results
from fusedff.data import datasets
from fusedff.measurements import experiments, state_points
from fusedff.plotting import comparison as comparison_plots
from fusedff.plotting import data as data_plots
from fusedff.plotting import parameters, properties, style, trajectories
from fusedff.plotting import training as training_plots
from fusedff.properties.thermal.deformation import DeformationConfig, DeformationResult
from fusedff.properties.thermal.elastic import ElasticConfig, ElasticResult
from fusedff.simulation.statistics import Estimate

NAMES = ("C11", "C12", "C13", "C33", "C44")
MODELS = ("dft", "experiment", "fused")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def points():
    return experiments.load_state_points()


def result(points, factor, pressure=0.0):
    """A made-up result: measured constants times a factor."""
    measured = np.array([[p.elastic_gpa[name] for name in NAMES] for p in points])
    n, noise = len(points), np.full(measured.shape, 2.0)
    stress, lengths = np.full((n, 2), -pressure), np.array([[p.crystal.a, p.crystal.c] for p in points])
    return ElasticResult(
        tuple(points), NAMES, factor * measured - 1, noise, factor * measured, noise,
        np.full(n, pressure), np.full(n, 0.05), stress, np.full((n, 2), 0.05),
        lengths + 0.001, np.full((n, 2), 0.0005), ElasticConfig(),
    )  # fmt: skip


@pytest.fixture
def summary(points):
    points = state_points.select(points, (23, 173, 323))
    test = {"energy_mae_meV_per_atom": 2.0, "force_mae_meV_per_A": 60.0, "stress_mae_GPa": 0.3}
    factors = {"dft": 0.9, "experiment": 1.0, "fused": 1.02}
    models = {m: {"test": test, "experiment": result(points, factors[m], 0.1).by_temperature()} for m in MODELS}
    return {"models": models, "settings": {"train_temperatures": [23, 323]}}


def history(points, updates=5):
    return [
        {"epoch": n, "loss": 10.0**-n}
        | {f"{name}@{p.temperature:g}K": p.elastic_gpa[name] + 5 - n for p in points for name in NAMES}
        | {f"{name}@{p.temperature:g}K": 1.0 - 0.2 * n for p in points for name in ("σxx", "σzz")}
        for n in range(updates)
    ]


def visible(fig):
    """The axes a reader sees, those of subfigures included."""
    return [ax for ax in fig.get_axes() if ax.get_visible()]


def require_labels(fig):
    fig.draw_without_rendering()
    for ax in visible(fig):
        assert ax.get_xlabel(), "an x axis without a label"
        shares_its_y_axis = not any(label.get_text() for label in ax.get_yticklabels()) or ax.get_ylabel() == ""
        assert ax.get_ylabel() or shares_its_y_axis


def colours(artists):
    return {to_hex(artist.get_color()).upper() for artist in artists}


def legend_texts(fig):
    figures = [fig, *fig.subfigs, *(inner for sub in fig.subfigs for inner in sub.subfigs)]
    legends = [legend for part in figures for legend in part.legends]
    legends += [ax.get_legend() for ax in visible(fig) if ax.get_legend()]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_a_model_has_one_colour_and_one_marker_everywhere_and_measurements_are_black():
    assert set(style.COLORS) == set(style.MARKERS) == {*MODELS, "measured"}
    assert len(set(style.COLORS.values())) == len(set(style.MARKERS.values())) == 4
    assert style.COLORS["measured"] == "#000000"


def test_figures_leave_the_settings_of_matplotlib_alone(points):
    before = dict(matplotlib.rcParams)
    properties.elastic_against_temperature({"fused": result(points, 1.1).by_temperature()}, points)
    training_plots.curves([{"epoch": 0, "loss": 1.0}], ["loss"])
    assert dict(matplotlib.rcParams) == before


def test_training_shows_every_key_against_the_epoch_with_its_unit():
    records = [{"epoch": n, "loss": 10.0**-n, "force_rmse_meV_A": 100.0 / (n + 1)} for n in range(20)]
    fig = training_plots.curves(records, ["loss", "force_rmse_meV_A"], title="DFT-only")
    (ax,) = visible(fig)
    assert (ax.get_xlabel(), ax.get_yscale(), ax.get_title(loc="left")) == ("epoch", "log", "DFT-only")
    assert legend_texts(fig) == ["loss", "force rmse (meV/Å)"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [record["loss"] for record in records])
    assert training_plots.curves(records, ["loss"], log=False).axes[0].get_yscale() == "linear"


def test_training_names_the_keys_there_are_when_one_is_missing():
    with pytest.raises(ValueError, match="no 'los'; it has epoch, loss"):
        training_plots.curves([{"epoch": 0, "loss": 1.0}], ["los"])


def test_training_draws_into_the_axes_it_is_given():
    fig, ax = plt.subplots()
    assert training_plots.curves([{"epoch": 0, "loss": 1.0}], ["loss"], ax=ax) is fig


def test_approach_has_a_panel_per_property_and_dashed_measured_values(points):
    points = state_points.select(points, (23, 923))
    fig = training_plots.convergence(history(points), points)
    require_labels(fig)
    assert [ax.get_title(loc="left") for ax in visible(fig)] == [*NAMES, "σxx", "σzz"]
    assert {ax.get_ylabel() for ax in visible(fig)} == {"GPa"}
    dashed = [line for line in visible(fig)[0].lines if line.is_dashed()]
    assert sorted(line.get_ydata()[0] for line in dashed) == pytest.approx([129.9, 175.9])
    assert legend_texts(fig) == ["23 K", "923 K", "measured"]


def test_trainings_are_compared_by_each_measure_of_their_cost():
    adam = [{"simulations": 1, "gradients": n + 1, "sigma": 3.5 - 0.01 * n} for n in range(5)]
    newton = [{"simulations": n + 1, "gradients": 4 * (n + 1), "sigma": 3.4} for n in range(2)]
    against = {"simulations": "simulations", "gradients": "gradients"}
    fig = training_plots.trainings_compared(
        {"Adam": adam, "Gauss-Newton": newton}, against, {"sigma": "sigma (Å)"}, {"sigma": 3}
    )
    require_labels(fig)
    assert [ax.get_xlabel() for ax in visible(fig)] == ["simulations", "gradients"]
    assert legend_texts(fig) == ["Adam", "Gauss-Newton"]
    known, *lines = visible(fig)[1].lines
    assert known.get_ydata()[0] == 3
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 3, 4, 5], [4, 8]]


def test_a_reweighted_average_is_beside_the_exact_one_and_its_effective_share():
    k, noise = np.geomspace(0.25, 4, 9), np.array([0.9, 1.1])
    fig = parameters.reweighted(k, 1 / k, noise / k[:, None], np.full((9, 2), 0.5), 0.9, "k", "$x^2$ (Å²)")
    require_labels(fig)
    average, share = visible(fig)
    for line in average.lines:  # exact, and the mean of the repeats
        np.testing.assert_allclose(line.get_ydata(), 1 / k)
    assert [label.get_text() for label in average.get_xticklabels()] == ["0.25", "0.5", "1", "2", "4"]
    assert {float(line.get_ydata()[0]) for line in share.lines} == {0.5, 0.9}


def test_each_target_is_met_on_a_line_and_both_lines_meet_in_the_truth():
    x, y = np.linspace(0.5, 1.5, 5), np.linspace(3.3, 3.5, 3)
    pressure, c11 = np.broadcast_to(y[:, None] - 3.4, (3, 5)), np.broadcast_to(x - 1, (3, 5))
    targets, points = {"pressure": pressure, "C11": c11}, {"truth": (1, 3.4)}
    fig = parameters.zero_lines(x, y, targets, points, "epsilon", "sigma (Å)", "GPa")
    fig.draw_without_rendering()
    ax, bar = visible(fig)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epsilon", "sigma (Å)")
    assert bar.get_ylabel() == "pressure, simulated - measured (GPa)"
    _, along, across = ax.collections
    np.testing.assert_allclose(along.get_paths()[0].vertices[:, 1], 3.4)
    np.testing.assert_allclose(across.get_paths()[0].vertices[:, 0], 1)
    assert legend_texts(fig) == ["pressure as measured", "C11 as measured", "truth"]


def test_steps_that_remove_a_residual_end_on_its_line_and_say_what_they_cost_the_labels():
    labels, steps = np.diag([2.0, 0.5]), {"shortest": np.array([0.5, 0.5]), "cheapest": np.array([1 / 17, 16 / 17])}
    fig = parameters.steps(np.array([1.0, 1.0]), -1.0, labels, steps)
    require_labels(fig)
    (ax,) = visible(fig)
    ellipses, _, met = ax.collections
    np.testing.assert_allclose(met.get_paths()[0].vertices.sum(1), 1)
    costs = sorted([1 + 1 / 16, 4 / 17**2 + 64 / 17**2])
    for path, cost in zip(ellipses.get_paths(), costs, strict=True):
        np.testing.assert_allclose(np.sum((path.vertices @ labels) ** 2, 1), cost, rtol=0.01)  # drawn as polygons
    assert [text.get_text() for text in ax.texts if text.get_text()] == [
        "shortest\nlength 0.71, cost 1.1", "cheapest\nlength 0.94, cost 0.24"
    ]  # fmt: skip


def test_parity_reports_the_mean_absolute_error_in_the_unit_of_each_panel():
    reference = {"energy": np.zeros(4), "force": np.zeros((4, 3))}
    predicted = {"energy": np.array([1.0, -1, 1, -1]), "force": np.full((4, 3), 0.25)}
    fig = data_plots.parity(reference, predicted, {"energy": "eV/atom", "force": "eV/Å"})
    require_labels(fig)
    texts = [ax.texts[0].get_text() for ax in visible(fig)]
    assert texts == ["mean absolute error\n1 eV/atom", "mean absolute error\n0.25 eV/Å"]
    assert visible(fig)[1].get_xlabel() == "DFT (eV/Å)"
    assert to_hex(visible(fig)[0].collections[0].get_facecolor()[0]).upper() == style.COLORS["dft"]


def test_elastic_constants_are_drawn_in_the_colour_of_their_model_with_error_bars(points):
    few = state_points.select(points, (23, 923))
    results = {"dft": result(few, 0.9).by_temperature(), "fused": result(few, 1.01).by_temperature()}
    fig = properties.elastic_against_temperature(results, points)
    require_labels(fig)
    assert [ax.get_title(loc="left") for ax in visible(fig)] == [*NAMES, "pressure", "σxx", "σzz"]
    assert all(len(ax.containers) == 2 for ax in visible(fig))  # one set of error bars per model
    assert colours(visible(fig)[0].lines) == {style.COLORS[m] for m in ("measured", "dft", "fused")}
    assert len(visible(fig)[0].lines[0].get_xdata()) == len(points)
    assert legend_texts(fig) == ["measured", "DFT-only", "fused"]
    assert {ax.get_xlabel() for ax in visible(fig)} == {"temperature (K)"}


def test_elastic_constants_may_be_drawn_without_any_model(points):
    require_labels(properties.elastic_against_temperature({}, points))


def test_constants_that_were_not_measured_have_a_panel_without_points(points):
    partial = [replace(p, elastic={"C11": p.elastic["C11"]}) for p in points]
    fig = properties.elastic_against_temperature({}, partial)
    assert [len(ax.lines) for ax in visible(fig)] == [1, 0, 0, 0, 0, 1]
    few = state_points.select(partial, (23, 923))
    fig = properties.elastic_against_temperature({"fused": result(points[:1], 1.0).by_temperature()}, few)
    assert [len(ax.containers) for ax in visible(fig)] == [1] * 8


def test_models_compared_says_how_far_each_model_is_from_both_references(summary):
    fig = comparison_plots.models_compared(summary)
    fig.draw_without_rendering()
    titles = [ax.get_title(loc="left") for ax in visible(fig)]
    assert titles == [*NAMES, "σxx and σzz", "energy", "forces", "stress"]
    assert [ax.get_xlabel() for ax in visible(fig)[-3:]] == ["meV/atom", "meV/Å", "GPa"]
    texts = legend_texts(fig)
    parts = results.split_by_training(summary["models"]["dft"]["experiment"], summary["settings"]["train_temperatures"])
    assert texts[0] == f"DFT-only (10.0 ± {results.elastic_deviation(parts['held_out'])[1]:.1f} %)"
    assert texts[-1] == "held-out temperatures"
    bars = visible(fig)[-1].patches
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [style.COLORS[m] for m in MODELS]
    assert [bar.get_width() for bar in bars] == [0.3] * 3


def test_the_bars_of_the_front_page_have_the_standard_errors_of_the_deviations_from_experiment(summary, points):
    found = {model: result(points, 1.03).by_temperature() for model in MODELS}
    fig = comparison_plots.two_questions(summary | {"temperatures": {"train": [23, 323], "models": found}})
    from_experiment, from_dft = visible(fig)
    deviation, noise = results.elastic_deviation(results.split_by_training(found["dft"], [23, 323])["held_out"])
    (bars,) = [container.errorbar for container in from_experiment.containers if hasattr(container, "errorbar")]
    (lines,) = bars.lines[2]
    np.testing.assert_allclose(lines.get_segments()[0][:, 0], [deviation - noise, deviation + noise])
    assert all(getattr(container, "errorbar", None) is None for container in from_dft.containers)


def test_models_compared_shows_relative_deviations_in_percent(summary):
    c11 = visible(comparison_plots.models_compared(summary))[0]
    for model, deviation in zip(MODELS, (-10, 0, 2), strict=True):
        mine = [c.lines[0] for c in c11.containers if to_hex(c.lines[0].get_color()).upper() == style.COLORS[model]]
        assert len(mine) == 2  # temperatures that were trained on, and the others
        np.testing.assert_allclose(np.concatenate([line.get_ydata() for line in mine]), deviation, atol=1e-9)


def row(quantity, unit, value, **references):
    return {
        "quantity": quantity, "unit": unit, "digits": 1,
        "models": {"dft": {"value": value, "stderr": None}, "fused": {"value": 2 * value, "stderr": 0.1 * value}},
        "references": [{"kind": kind, "value": number} for kind, number in references.items()],
    }  # fmt: skip


OFF_TARGET = [
    row("bcc above hcp", "meV/atom", 110.0, DFT=100.0), row("vacancy formation", "eV", 1.5, experiment=1.2, DFT=2.0),
    row("self-diffusion", "1e-9 m^2/s", 4.0, experiment=5.0),
]  # fmt: skip


def positions(ax, model):
    """Where the markers of a model are along x, from the topmost row down."""
    mine = [c.lines[0] for c in ax.containers if to_hex(c.lines[0].get_color()).upper() == style.COLORS[model]]
    return [float(line.get_xdata()[0]) for line in mine]


def test_what_was_no_target_is_relative_to_dft_or_else_to_experiment_and_energies_are_themselves():
    fig = comparison_plots.off_target(OFF_TARGET, ["dft", "fused"])
    require_labels(fig)
    energies, others = visible(fig)
    assert [label.get_text() for label in energies.get_yticklabels()] == ["bcc"]
    assert positions(energies, "dft") == [110]
    assert positions(others, "dft") == pytest.approx([0.75, 0.8])
    assert positions(others, "fused") == pytest.approx([1.5, 1.6])
    assert {0.6, 1.0} <= {round(float(line.get_xdata()[0]), 9) for line in others.lines}  # experiment, DFT
    assert legend_texts(fig) == ["DFT-only", "fused", "experiment", "DFT"]


def test_models_compared_takes_what_notebooks_07_and_08_found(summary, points):
    found = {model: result(points, 1.03).by_temperature() for model in MODELS}
    record = summary | {"temperatures": {"train": [23, 323], "models": found}, "off_target": OFF_TARGET}
    fig = comparison_plots.models_compared(record)
    fig.draw_without_rendering()
    c11 = visible(fig)[0]
    assert sum(len(c.lines[0].get_xdata()) for c in c11.containers) == 3 * len(points)
    labels = {ax.get_xlabel() for ax in visible(fig)}
    assert {"meV/Å", "energy above hcp (meV/atom)"} <= labels
    assert legend_texts(fig)[0].startswith("DFT-only (3.0 ± ")


def test_stresses_of_deformed_cells_are_drawn_with_their_parabolas():
    strains = (-0.01, -0.005, 0.005, 0.01)
    parabola, noise = np.array([[[0.5, 0, 0], [100, 50, 20], [1000, 0, 0]]]), np.full((1, 3), 0.1)
    stress = np.array(strains)[:, None] ** np.arange(3) @ parabola
    settings = DeformationConfig(strains)
    found = DeformationResult(
        np.array([300.0]), ("C11", "C12", "C44"), parabola, 70 * noise, stress, noise, noise, settings
    )
    fig = properties.stress_against_strain(found)
    require_labels(fig)
    c11 = visible(fig)[0]
    (drawn,) = c11.containers[0].lines[:1]
    np.testing.assert_allclose(drawn.get_ydata(), [-0.4, 0.025, 1.025, 1.6])
    curve = c11.lines[-1]
    np.testing.assert_allclose(curve.get_ydata()[[0, -1]], [-0.4, 1.6])
    assert curve.get_ydata().min() == pytest.approx(-0.4)
    assert c11.get_title(loc="left").startswith("C11 = 100.0 ± 7.0 GPa")


def test_equations_of_state_are_drawn_from_the_lowest_energy_in_meV():
    fig = data_plots.eos({"hcp": (np.array([16.0, 17, 18]), np.array([-6.4, -6.5, -6.45]), None)}, {"measured": 17.5})
    require_labels(fig)
    (ax,) = visible(fig)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [100, 0, 50])
    assert "measured" in legend_texts(fig)


def test_the_overview_of_frames_has_a_row_per_family():
    frames = datasets.load_frames()
    fig = data_plots.frames_overview(frames)
    require_labels(fig)
    rows = [label.get_text() for label in visible(fig)[0].get_yticklabels()]
    families = list(dict.fromkeys(f.info["config_type"] for f in frames))
    assert sorted(rows) == sorted(families)
    of_hcp = [family for family in families if family.startswith("hcp")]  # first, in the order of the file
    assert rows[: len(of_hcp)] == of_hcp


def test_estimators_are_shown_beside_each_other_with_the_measured_values():
    results = {t: Estimate(np.arange(5.0) + 1, np.full(5, 0.1)) for t in ("coupled strains", "stress fluctuation")}
    fig = trajectories.estimates(results, NAMES, np.arange(5.0))
    assert legend_texts(fig) == ["measured", "coupled strains", "stress fluctuation"]
    assert [label.get_text() for label in visible(fig)[0].get_xticklabels()] == list(NAMES)
    assert [ax.get_ylabel() for ax in visible(fig)] == ["GPa", "difference from their mean (GPa)"]


def test_block_errors_carry_their_own_error():
    fig = trajectories.block_errors({1: 0.1, 2: 0.2, 10: 0.2}, 40, "GPa")
    require_labels(fig)
    assert visible(fig)[0].get_ylabel() == "standard error (GPa)"
    assert len(visible(fig)[0].containers) == 1


def test_show_gives_a_notebook_an_image_with_alternative_text(monkeypatch):
    shown = []
    monkeypatch.setattr("fusedff.runtime.progress.shell", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    fig, _ = plt.subplots()
    style.show(fig, 'energy < 0 and "more"')
    (bundle,) = shown
    assert 'alt="energy &lt; 0 and &quot;more&quot;"' in bundle["text/html"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == 'energy < 0 and "more"'
    assert not plt.fignum_exists(fig.number)


def test_show_says_in_a_script_what_it_would_have_shown(capsys):
    assert "ipykernel" not in sys.argv[0]
    style.show(plt.subplots()[0], "a line that falls")
    assert capsys.readouterr().out == "a line that falls\n"


def test_a_watermark_lies_across_every_figure_and_in_its_words_and_goes_again(tmp_path):
    fig, _ = style.plt.subplots()
    plain = style.png(fig)
    style.watermark("means nothing")
    try:
        marked = style.png(fig)
        style.save(fig, tmp_path / "deep" / "figure.png")
        assert style.bundle(fig, "A figure.")["text/plain"] == "A figure. (means nothing)"
    finally:
        style.watermark(None)
    assert marked != plain
    assert (tmp_path / "deep" / "figure.png").read_bytes() == marked
    assert style.png(fig) == plain
