"""Figures that compare models with experiment, with DFT on held-out frames, and in properties that were not targets."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fusedff import results
from fusedff.plotting import style


def models_compared(record: Mapping) -> Figure:
    """All results in one figure: deviations of each model from experiment, from DFT and from other references.

    `record` is what `fusedff.study.comparison.summary` returns. If it has "temperatures" (results of notebook 07), all
    of them are shown; if it has "off_target" (rows of notebook 08), so are quantities that were not targets, beside
    their references. Hollow points are temperatures that no model was trained on; error bars are one standard error;
    the grey bands are the bounds of `fusedff.results.BOUNDS`.
    """
    tests = {model: found["test"] for model, found in record["models"].items()}
    if "temperatures" in record:
        models, trained = record["temperatures"]["models"], record["temperatures"]["train"]
    else:
        models = {model: found["experiment"] for model, found in record["models"].items()}
        trained = record.get("settings", {}).get("train_temperatures")
    rows = record.get("off_target")
    with style.context():
        fig = plt.figure(figsize=(11, 7.4 if rows else 6.4))
        above, below = fig.subfigures(2, 1, height_ratios=[1.15 if rows else 1.35, 1], hspace=0.04)  # ty: ignore[not-iterable]
        _against_experiment(above, models, trained)
        if rows:
            below, beyond = below.subfigures(1, 2, width_ratios=[1, 1.5], wspace=0.03)
            _beyond_the_targets(beyond, rows, list(models), [])
        below.suptitle("Against DFT: errors on held-out frames", x=0.01, ha="left")
        _held_out_bars(below.subplots(1, 3, gridspec_kw={"wspace": 0.06}), tests)
    return fig


def two_questions(record: Mapping) -> Figure:
    """Mean deviations of each model from experiment (held-out temperatures) and from DFT (held-out frames), a bar each.

    `record` is that of `models_compared`, with "temperatures". Error bars are one standard error of the sampling.
    """
    found, train = record["temperatures"]["models"], record["temperatures"]["train"]
    held_out = [results.split_by_training(one, train)["held_out"] for one in found.values()]
    deviations, noise = zip(*(results.elastic_deviation(part) for part in held_out), strict=True)
    panels = {
        "How far from experiment?": (
            deviations, noise, "elastic constants at held-out temperatures,\nmean deviation (%)", "{:.1f} %",
        ),
        "How far from DFT?": (
            [record["models"][model]["test"]["force_mae_meV_per_A"] for model in found], None,
            "forces on held-out frames,\nmean absolute error (meV/Å)", "{:.0f} meV/Å",
        ),
    }  # fmt: skip
    with style.context():
        fig, axes = plt.subplots(1, 2, figsize=(8.4, 2.5))
        for ax, (question, (values, errors, quantity, form)) in zip(axes, panels.items(), strict=True):
            _bars(ax, list(found), values, [form.format(value) for value in values], 0.3, errors)
            ax.set_title(question)
            ax.set_xlabel(quantity)
        axes[1].tick_params(labelleft=False)
    return fig


def off_target(rows: Sequence[Mapping], models: Sequence[str]) -> Figure:
    """Quantities that were not targets, and their references; `rows` are those of `fusedff.tables.off_target_table`.

    Energies of structures are in meV/atom; other quantities are divided by the first DFT value, or if there is none by
    the first measured one.
    """
    with style.context():
        fig = plt.figure(figsize=(9, 1.6 + 0.24 * len(rows)))
        _beyond_the_targets(fig, rows, models, style.legend_of(models))
    return fig


def _against_experiment(fig, models, trained):
    """Deviations of elastic constants and stresses; `models` is name -> temperature -> results."""
    temperatures = next(iter(models.values()))
    first = next(iter(temperatures.values()))
    names, stresses = list(first["elastic"]), list(results.stresses(first))
    fig.suptitle("Against experiment: deviations of simulated from measured properties", x=0.01, ha="left")
    grid = fig.add_gridspec(1, len(names) + 2, width_ratios=[*[1] * len(names), 0.12, 1.15])
    shared = None
    for c, name in enumerate(names):
        ax = shared = fig.add_subplot(grid[c], sharey=shared)
        _deviations(ax, models, lambda point, n=name: results.relative_deviation(point["elastic"][n]), trained)
        ax.axhspan(-results.BOUNDS["elastic"], results.BOUNDS["elastic"], color="#EDEDED", zorder=0)
        ax.set_title(name)
        if c:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel("simulated - measured (%)")
    ax = fig.add_subplot(grid[-1])
    for name in stresses:
        _deviations(ax, models, lambda point, n=name: results.absolute_deviation(results.stresses(point)[n]), trained)
    ax.axhspan(-results.BOUNDS["stress"], results.BOUNDS["stress"], color="#EDEDED", zorder=0)
    ax.set_title(" and ".join(stresses))
    ax.set_ylabel("simulated - measured (GPa)")
    held_out = trained and any(float(t) not in set(map(float, trained)) for t in temperatures)
    handles = style.legend_of(models)
    for handle, found in zip(handles, models.values(), strict=True):
        part = results.split_by_training(found, trained)["held_out"] if held_out else found
        handle.set_label("{} ({:.1f} ± {:.1f} %)".format(handle.get_label(), *results.elastic_deviation(part)))
    handles.append(Patch(color="#EDEDED", label=f"±{results.BOUNDS['elastic']:g} %, ±{results.BOUNDS['stress']:g} GPa"))
    if held_out:
        hollow = {"color": style.FAINT, "marker": "o", "ls": "", "mfc": "white"}
        handles.append(Line2D([], [], **hollow, label="held-out temperatures"))
    which = " at held-out temperatures" if held_out else ""
    fig.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.3, handletextpad=0.4,
        title=f"in brackets: mean absolute deviation of the elastic constants{which}; bars: one standard error",
        title_fontsize=9,
    )  # fmt: skip


def _beyond_the_targets(fig, rows, models, keys):
    energies = [row for row in rows if row["unit"] == "meV/atom"]
    others = [row for row in rows if row["unit"] != "meV/atom"]
    fig.suptitle("Other quantities, not trained on: against DFT and experiment", x=0.01, ha="left")
    left, right = fig.subplots(1, 2, width_ratios=[1, 1.6])
    _beside_references(left, energies, models, [1.0] * len(energies))
    left.axvline(0, color=style.COLORS["measured"], lw=1, zorder=0)
    left.set_xlabel("energy above hcp (meV/atom)")
    left.set_yticklabels([row["quantity"].removesuffix(" above hcp") for row in energies])
    _beside_references(right, others, models, [_yardstick(row["references"]) for row in others])
    right.axvline(1, color=style.COLORS["measured"], lw=1, zorder=0)
    right.set_xlabel("relative to DFT\n(if none: to experiment)")
    for kind, look in style.REFERENCE.items():
        keys = [*keys, Line2D([], [], ls="", ms=4, label=kind, **look)]
    fig.legend(handles=keys, loc="outside lower center", ncols=len(keys))


def _yardstick(references):
    return min(references, key=lambda r: r["kind"] != "DFT")["value"]


def _beside_references(ax, rows, models, units):
    for y, (row, unit) in enumerate(zip(rows, units, strict=True)):
        for reference in row["references"]:
            ax.plot(reference["value"] / unit, y, ms=4.5, **style.REFERENCE[reference["kind"]])
        for k, model in enumerate(models):
            if model in row["models"]:
                entry = row["models"][model]
                ax.errorbar(
                    entry["value"] / unit, y + 0.22 * (k - (len(models) - 1) / 2), xerr=(entry["stderr"] or 0) / unit,
                    **style.look_of(model, k), ms=5, ls="",
                )  # fmt: skip
    ax.set_yticks(range(len(rows)), [row["quantity"] for row in rows])
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)


_HELD_OUT = (
    ("energy_mae_meV_per_atom", "energy", "meV/atom"),
    ("force_mae_meV_per_A", "forces", "meV/Å"),
    ("stress_mae_GPa", "stress", "GPa"),
)


def held_out(errors: Mapping[str, Mapping[str, float]]) -> Figure:
    """Errors on held-out frames, a bar per model: model -> what `fusedff.training.label_errors.errors` returns."""
    with style.context():
        fig, axes = plt.subplots(1, 3, figsize=(9, 0.9 + 0.4 * len(errors)))
        _held_out_bars(axes, errors)
    return fig


def _held_out_bars(axes, errors):
    for ax, (key, quantity, unit) in zip(axes, _HELD_OUT, strict=True):
        values = [np.nan if found[key] is None else found[key] for found in errors.values()]
        _bars(ax, list(errors), values, ["no labels" if np.isnan(v) else f"{v:.3g}" for v in values], margin=0.16)
        ax.set_title(quantity)
        ax.set_xlabel(unit)
        if quantity != "energy":
            ax.tick_params(labelleft=False)


def _bars(ax, models, values, labels, margin, errors=None):
    """A bar per model with its value as text, the first model on top, and error bars if there are `errors`."""
    colors = [style.color_of(model, k) for k, model in enumerate(models)]
    look = {"xerr": errors, "error_kw": {"elinewidth": 1.2, "capsize": 2.5}} if errors is not None else {}
    bars = ax.barh([style.title_of(model) for model in models], values, color=colors, height=0.62, **look)
    ax.bar_label(bars, labels=labels, padding=4, fontsize=9)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=margin)


def _deviations(ax, models, of, trained):
    """Deviation against temperature; models are shifted a little so that their error bars do not overlap."""
    ax.axhline(0, color=style.COLORS["measured"], lw=1.2, zorder=1)
    for k, (model, found) in enumerate(models.items()):
        temperature = np.array([float(t) for t in found])
        value, stderr = np.array([of(point) for point in found.values()]).T
        shift = 0.018 * (np.ptp(temperature) or 1000.0) * (k - (len(models) - 1) / 2)
        look = style.look_of(model, k) | {"ls": "", "ms": 5.5 if len(found) < 10 else 4}
        seen = np.isin(temperature, trained) if trained else np.ones(len(temperature), bool)
        for part, fill in ((seen, {}), (~seen, {"mfc": "white"})):
            ax.errorbar(temperature[part] + shift, value[part], stderr[part], **look, **fill)
    ax.set_xlabel("temperature (K)")
