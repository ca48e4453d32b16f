"""Figures: one style, one colour per model, units on every axis, error bars on every estimate.

The style is applied inside each function and nowhere else; importing this module changes nothing. Every
function returns a matplotlib Figure: hand it to `show` with a sentence for readers who cannot see it.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fusedff import datasets, study
from fusedff.observables import Estimate
from fusedff.units import GPA

STYLE = Path(__file__).with_name("fusedff.mplstyle")

# Okabe & Ito: the same colour and marker for the same thing in every figure.
COLORS = {"dft": "#0072B2", "experiment": "#E69F00", "fused": "#009E73", "measured": "#000000"}
MARKERS = {"dft": "s", "experiment": "^", "fused": "o", "measured": "D"}
STRUCTURES = {
    "hcp": "#0072B2",
    "bcc": "#D55E00",
    "fcc": "#009E73",
    "omega": "#CC79A7",
    "disordered": "#777777",
}
_OTHERS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_FAINT = "#8a8a8a"


def style():
    """Context manager under which figures look like the ones here: `with plots.style(): ...`."""
    return plt.style.context(STYLE)


def show(fig: Figure, alt: str, dpi: int = 150) -> None:
    """Display a figure in a notebook as an image with alternative text, and close it.

    JupyterLab drops the alternative text of a plain PNG, so an HTML image comes first; the PNG lies beside
    it for front ends that show no HTML, and the text for those that show neither.
    """
    data = bundle(fig, alt, dpi)
    if get_ipython() is None:  # a plain script, in which a picture cannot be seen
        print(alt)
        return
    display(data, raw=True)


def bundle(fig: Figure, alt: str, dpi: int = 150) -> dict[str, str]:
    """What `show` displays, by MIME type; closes the figure."""
    width = int(100 * fig.get_figwidth())
    encoded = base64.b64encode(png(fig, dpi)).decode()
    plt.close(fig)
    image = (
        f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(alt, quote=True)}" '
        f'style="width:{width}px; max-width:100%; background:white">'
    )
    return {"text/html": image, "image/png": encoded, "text/plain": alt}


def png(fig: Figure, dpi: int = 150) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def color_of(name: str, position: int = 0) -> str:
    """The fixed colour of a model, or one of the others for a name that is none."""
    return COLORS.get(name, _OTHERS[position % len(_OTHERS)])


def title_of(name: str) -> str:
    """How a model is called in figures."""
    return study.TITLES.get(name, name)


def _axes(ax: Axes | None, size=(5.6, 3.6)) -> tuple[Figure, Axes]:
    """The given axes with their figure, or a new single panel."""
    if ax is not None:
        return ax.figure, ax
    return plt.subplots(figsize=size)


def _panels(n: int, columns: int, size=(3.0, 2.6), **kwargs) -> tuple[Figure, np.ndarray]:
    """A grid with `n` visible panels, flat."""
    rows = -(-n // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, **kwargs)
    for spare in axes.flat[n:]:
        spare.set_visible(False)
    return fig, axes.flat[:n]


# --- training ------------------------------------------------------------------------------------------------


def training(
    history: Sequence[Mapping], keys: Sequence[str], title: str = "", log: bool = True, ax: Axes | None = None
) -> Figure:
    """Numbers of a training history against the epoch (the unit is part of a key: `force_rmse_meV_A`)."""
    with style():
        fig, ax = _axes(ax)
        for key in keys:
            entries = [(record.get("epoch", n), record[key]) for n, record in enumerate(history) if key in record]
            if not entries:
                raise ValueError(f"the history has no {key!r}; it has {', '.join(history[0])}")
            epoch, value = np.array(entries, float).T
            ax.plot(epoch, value, label=_spoken(key), marker="o" if len(epoch) < 12 else None)
        if log:
            ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("epoch")
        if len(keys) == 1:
            ax.set_ylabel(_spoken(keys[0]))
        else:
            ax.set_ylabel("value, unit as in the legend")
            ax.legend()
        ax.set_title(title)
    return fig


_UNITS = {"meV_A": "meV/Å", "meV_per_A": "meV/Å", "meV_per_atom": "meV/atom", "meV": "meV/atom", "GPa": "GPa"}


def _spoken(key: str) -> str:
    """`force_rmse_meV_A` -> 'force rmse / meV/Å'."""
    for ending, unit in _UNITS.items():
        if key.endswith("_" + ending):
            return f"{key.removesuffix('_' + ending).replace('_', ' ')} ({unit})"
    return key.replace("_", " ")


def approach(history: Sequence[Mapping], points, updates: int | None = None) -> Figure:
    """How the constants and the pressure of a DiffTRe or fused history move towards the measured ones (dashed).

    `updates` makes the axes long enough for all that is to come.
    """
    names = list(dict.fromkeys(key.split("@")[0] for key in history[0] if "@" in key))
    temperatures = sorted({float(key.split("@")[1][:-1]) for key in history[0] if "@" in key})
    measured = {p.temperature: {**p.elastic_gpa, "P": p.pressure_gpa} for p in points}
    shades = dict(zip(temperatures, plt.cm.plasma(np.linspace(0, 0.82, len(temperatures))), strict=True))
    with style():
        fig, axes = _panels(len(names), 3)
        for ax, name in zip(axes, names, strict=True):
            for t in temperatures:
                key = f"{name}@{t:g}K"
                epoch = [record.get("epoch", n) for n, record in enumerate(history) if key in record]
                value = [record[key] for record in history if key in record]
                ax.plot(epoch, value, color=shades[t], marker="o" if len(epoch) < 12 else None, ms=3)
                if name in measured.get(t, {}):
                    ax.axhline(measured[t][name], color=shades[t], ls=(0, (4, 2)), lw=1.1)
            if updates is not None:
                ax.set_xlim(-0.03 * updates, 1.03 * max(updates - 1, 1))
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.set_title("pressure" if name == "P" else name)
            ax.set_ylabel("GPa")
            ax.set_xlabel("update")
        handles = [Line2D([], [], color=shades[t], label=f"{t:g} K") for t in temperatures]
        handles.append(Line2D([], [], color=_FAINT, ls=(0, (4, 2)), lw=1.1, label="measured"))
        fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return fig


# --- predictions against references --------------------------------------------------------------------------


def parity(
    reference: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    model: str = "dft",
) -> Figure:
    """Predicted against reference, one panel per quantity, with the mean absolute error."""
    with style():
        fig, axes = _panels(len(reference), min(3, len(reference)), size=(3.2, 3.45))
        for ax, name in zip(axes, reference, strict=True):
            x, y = np.ravel(reference[name]), np.ravel(predicted[name])
            ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
            ends = ends + 0.05 * np.ptp(ends) * np.array([-1, 1])
            ax.plot(ends, ends, color=COLORS["measured"], lw=0.9, zorder=1)
            ax.scatter(x, y, s=16, color=color_of(model), alpha=0.75 if len(x) < 300 else 0.35, lw=0, rasterized=True)
            ax.set(xlim=ends, ylim=ends, aspect="equal", title=name)
            ax.set_xlabel(f"DFT ({units[name]})")
            ax.set_ylabel(f"{title_of(model)} model ({units[name]})")
            ax.text(
                0.05, 0.95, f"mean absolute error\n{np.mean(np.abs(x - y)):.3g} {units[name]}",
                transform=ax.transAxes, va="top", fontsize=9,
            )  # fmt: skip
    return fig


def elastic_against_temperature(models: Mapping[str, Mapping], points) -> Figure:
    """Constants and pressure of models (error bars: one standard error) against measured ones (black).

    A model comes as the table that `ElasticResult.by_temperature` returns and records keep.
    """
    points = sorted(points, key=lambda p: p.temperature)
    tables = [list(table.values()) for table in models.values()]
    names = list(tables[0][0]["elastic"] if tables else points[0].elastic_gpa)
    with style():
        fig, axes = _panels(len(names) + 1, 3)
        for ax, name in zip(axes, [*names, "P"], strict=True):
            known = [
                (p.temperature, p.pressure_gpa if name == "P" else p.elastic_gpa[name])
                for p in points
                if name == "P" or name in p.elastic_gpa
            ]
            ax.plot(*zip(*known, strict=True), color=COLORS["measured"], marker="D", ms=2.5, lw=1, zorder=1)
            for m, (model, table) in enumerate(models.items()):
                entries = [at["pressure"] if name == "P" else at["elastic"][name] for at in table.values()]
                ax.errorbar(
                    [float(t) for t in table], [e["value"] for e in entries], [e["stderr"] for e in entries],
                    color=color_of(model, m), marker=MARKERS.get(model, "o"), ls=":", lw=1,
                )  # fmt: skip
            _at_least(ax, 1.0 if name == "P" else 0.15 * abs(np.mean([value for _, value in known])))
            ax.set_title("pressure" if name == "P" else name)
            ax.set_xlabel("temperature (K)")
            ax.set_ylabel("GPa")
        fig.legend(handles=legend_of(["measured", *models]), loc="outside upper center", ncols=len(models) + 1)
    return fig


def _at_least(ax, span):
    """Widen the y axis to `span`, so that small differences are not blown up."""
    low, high = ax.get_ylim()
    if high - low < span:
        ax.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def legend_of(models) -> list[Line2D]:
    """Keys of a legend: markers in the models' colours, a line for 'measured', which comes first."""
    return [
        Line2D(
            [], [], color=color_of(m, k - 1), marker=MARKERS.get(m, "o"), ls="-" if m == "measured" else "", ms=5, lw=1,
            label=title_of(m),
        )
        for k, m in enumerate(models)
    ]  # fmt: skip


def models_compared(record: Mapping) -> Figure:
    """The study in one figure: how far each model is from experiment, from DFT and, where known, from the rest.

    `record` is what `fusedff.study.summary` returns. With what notebook 07 found under "temperatures", all of those
    temperatures are shown; with the rows of notebook 08 under "off_target", quantities beyond the targets, beside
    their references. Hollow points are temperatures no model was trained on; error bars are one standard error; the
    grey bands are the bounds of `fusedff.study.BOUNDS`.
    """
    tests = {model: found["test"] for model, found in record["models"].items()}
    if "temperatures" in record:
        models, trained = record["temperatures"]["models"], record["temperatures"]["train"]
    else:
        models = {model: found["experiment"] for model, found in record["models"].items()}
        trained = record.get("settings", {}).get("train_temperatures")
    rows = record.get("off_target")
    with style():
        fig = plt.figure(figsize=(11, 7.4 if rows else 6.4))
        above, below = fig.subfigures(2, 1, height_ratios=[1.15 if rows else 1.35, 1], hspace=0.04)
        _against_experiment(above, models, trained)
        if rows:
            below, beyond = below.subfigures(1, 2, width_ratios=[1, 1.5], wspace=0.03)
            _beyond_the_targets(beyond, rows, list(models), [])
        below.suptitle("Against DFT: mean errors on held-out frames", x=0.01, ha="left")
        _held_out_bars(below.subplots(1, 3, gridspec_kw={"wspace": 0.06}), tests)
    return fig


def off_target(rows: Sequence[Mapping], models: Sequence[str]) -> Figure:
    """What was no target, beside its references: rows as `fusedff.study.off_target_table` takes them.

    Energies of structures as they are; other quantities in units of the first DFT value, or of the first measured one.
    """
    with style():
        fig = plt.figure(figsize=(9, 1.6 + 0.24 * len(rows)))
        _beyond_the_targets(fig, rows, models, legend_of(models))
    return fig


def _against_experiment(fig, models, trained):
    """Deviations of elastic constants and pressure; `models` is name -> temperature -> what was found."""
    temperatures = next(iter(models.values()))
    names = list(next(iter(temperatures.values()))["elastic"])
    fig.suptitle("Against experiment: how far is each simulated property from the measured one?", x=0.01, ha="left")
    grid = fig.add_gridspec(1, len(names) + 2, width_ratios=[*[1] * len(names), 0.12, 1.15])
    shared = None
    for c, name in enumerate(names):
        ax = shared = fig.add_subplot(grid[c], sharey=shared)
        _deviations(ax, models, lambda point, n=name: study.relative(point["elastic"][n]), trained)
        ax.axhspan(-study.BOUNDS["elastic"], study.BOUNDS["elastic"], color="#EDEDED", zorder=0)
        ax.set_title(name)
        if c:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel("simulated - measured (%)")
    ax = fig.add_subplot(grid[-1])
    _deviations(ax, models, lambda point: study.absolute(point["pressure"]), trained)
    ax.axhspan(-study.BOUNDS["pressure"], study.BOUNDS["pressure"], color="#EDEDED", zorder=0)
    ax.set_title("pressure")
    ax.set_ylabel("simulated - measured (GPa)")
    held_out = trained and any(float(t) not in set(map(float, trained)) for t in temperatures)
    handles = legend_of(models)
    for handle, found in zip(handles, models.values(), strict=True):
        parts = study.by_role(found, trained).values() if held_out else [found]
        means = ", ".join("{:.1f} ± {:.1f}".format(*study.elastic_deviation(part)) for part in parts)
        handle.set_label(f"{handle.get_label()} ({means} %)")
    handles.append(Patch(color="#EDEDED", label=f"±{study.BOUNDS['elastic']:g} %, ±{study.BOUNDS['pressure']:g} GPa"))
    if held_out:
        hollow = {"color": _FAINT, "marker": "o", "ls": "", "mfc": "white"}
        handles.append(Line2D([], [], **hollow, label="not trained here"))
    which = " (where trained, and not)" if held_out else ""
    fig.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.3, handletextpad=0.4,
        title=f"in brackets: mean deviation of all elastic constants{which}, sign ignored; bars: one standard error",
        title_fontsize=9,
    )  # fmt: skip


_REFERENCE = {"experiment": {"marker": "D", "mfc": "#000000"}, "DFT": {"marker": "D", "mfc": "white"}}


def _beyond_the_targets(fig, rows, models, keys):
    energies = [row for row in rows if row["unit"] == "meV/atom"]
    others = [row for row in rows if row["unit"] != "meV/atom"]
    fig.suptitle("Beyond the targets: as DFT and experiment have it?", x=0.01, ha="left")
    left, right = fig.subplots(1, 2, width_ratios=[1, 1.6])
    _beside_references(left, energies, models, [1.0] * len(energies))
    left.axvline(0, color=COLORS["measured"], lw=1, zorder=0)
    left.set_xlabel("energy above hcp (meV/atom)")
    left.set_yticklabels([row["quantity"].removesuffix(" above hcp") for row in energies])
    _beside_references(right, others, models, [_yardstick(row["references"]) for row in others])
    right.axvline(1, color=COLORS["measured"], lw=1, zorder=0)
    right.set_xlabel("relative to DFT\n(or else to experiment)")
    for kind, look in _REFERENCE.items():
        keys = [*keys, Line2D([], [], color=COLORS["measured"], ls="", ms=4, label=kind, **look)]
    fig.legend(handles=keys, loc="outside lower center", ncols=len(keys))


def _yardstick(references):
    return min(references, key=lambda r: r["kind"] != "DFT")["value"]


def _beside_references(ax, rows, models, units):
    for y, (row, unit) in enumerate(zip(rows, units, strict=True)):
        for reference in row["references"]:
            ax.plot(reference["value"] / unit, y, color=COLORS["measured"], ms=4.5, **_REFERENCE[reference["kind"]])
        for k, model in enumerate(models):
            if model in row["models"]:
                entry = row["models"][model]
                ax.errorbar(
                    entry["value"] / unit, y + 0.22 * (k - (len(models) - 1) / 2), xerr=(entry["stderr"] or 0) / unit,
                    color=color_of(model, k), marker=MARKERS.get(model, "o"), ms=5, ls="",
                )  # fmt: skip
    ax.set_yticks(range(len(rows)), [row["quantity"] for row in rows])
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)


_HELD_OUT = (
    ("energy_mae_meV_per_atom", "energy", "meV/atom"),
    ("force_mae_meV_per_A", "forces", "meV/Å"),
    ("stress_mae_GPa", "stress", "GPa"),
)


def held_out(errors: Mapping[str, Mapping[str, float]]) -> Figure:
    """Errors on held-out frames side by side: model -> what `fusedff.training.force_matching.errors` returns."""
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(9, 0.9 + 0.4 * len(errors)))
        _held_out_bars(axes, errors)
    return fig


def _held_out_bars(axes, errors):
    for ax, (key, quantity, unit) in zip(axes, _HELD_OUT, strict=True):
        values = [found[key] for found in errors.values()]
        colors = [color_of(m, k) for k, m in enumerate(errors)]
        bars = ax.barh([title_of(m) for m in errors], values, color=colors, height=0.62)
        ax.bar_label(bars, labels=[f"{value:.3g}" for value in values], padding=4, fontsize=9)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.16)
        ax.set_title(quantity)
        ax.set_xlabel(unit)
        if quantity != "energy":
            ax.tick_params(labelleft=False)


def _deviations(ax, models, of, trained):
    """Deviation against temperature, the models a little apart so that their error bars do not overlap."""
    ax.axhline(0, color=COLORS["measured"], lw=1.2, zorder=1)
    for k, (model, found) in enumerate(models.items()):
        temperature = np.array([float(t) for t in found])
        value, stderr = np.array([of(point) for point in found.values()]).T
        shift = 0.018 * (np.ptp(temperature) or 1000.0) * (k - (len(models) - 1) / 2)
        look = {
            "color": color_of(model, k),
            "marker": MARKERS.get(model, "o"),
            "ls": "",
            "ms": 5.5 if len(found) < 10 else 4,
        }
        seen = np.isin(temperature, trained) if trained else np.ones(len(temperature), bool)
        for part, fill in ((seen, {}), (~seen, {"mfc": "white"})):
            ax.errorbar(temperature[part] + shift, value[part], stderr[part], **look, **fill)
    ax.set_xlabel("temperature (K)")


# --- data ----------------------------------------------------------------------------------------------------


def family(frame: Atoms) -> str:
    """The structure a frame descends from: 'hcp-rattled-16' -> 'hcp'."""
    return str(frame.info.get("config_type", "unlabelled")).split("-")[0]


def eos(curves: Mapping[str, tuple], marks: Mapping[str, float] | None = None, ax: Axes | None = None) -> Figure:
    """Energy per atom against volume per atom: name -> (volumes, energies, fit), Å^3, eV, and fit(volume) or None.

    Energies are shown from the lowest fitted or given one. `marks` draws labelled vertical lines at volumes.
    """
    with style():
        fig, ax = _axes(ax, (7.4, 3.9))
        lowest = min(np.min(energies) for _, energies, _ in curves.values())
        for k, (name, (volumes, energies, fit)) in enumerate(curves.items()):
            color = STRUCTURES.get(name, color_of(name, k))
            ax.plot(volumes, 1e3 * (np.asarray(energies) - lowest), "o", color=color, label=name)
            if fit is not None:
                fine = np.linspace(min(volumes), max(volumes), 100)
                ax.plot(fine, 1e3 * (fit(fine) - lowest), color=color, lw=1.2)
        for label, volume in (marks or {}).items():
            ax.axvline(volume, color=COLORS["measured"], lw=1, ls="--", label=label)
        ax.set_xlabel("volume (Å³/atom)")
        ax.set_ylabel("energy above the lowest (meV/atom)")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def frames_overview(frames: Sequence[Atoms]) -> Figure:
    """What labelled frames hold: how many of which type, energies, force components and pressures."""
    kinds = list(dict.fromkeys(str(f.info.get("config_type", "unlabelled")) for f in frames))
    labels = [datasets.labels(frame) for frame in frames]
    with style():
        fig, (count, energy, force, stress) = plt.subplots(
            1, 4, figsize=(11.5, 0.9 + 0.28 * len(kinds)), sharey=True, width_ratios=[0.8, 1, 1, 1]
        )
        for row, kind in enumerate(kinds):
            mine = [k for k, f in enumerate(frames) if str(f.info.get("config_type", "unlabelled")) == kind]
            color = STRUCTURES.get(kind.split("-")[0], _FAINT)
            count.barh(row, len(mine), color=color, height=0.7)
            count.text(len(mine), row, f" {len(mine)}", va="center", fontsize=9)
            energy.plot([labels[k].energy / len(frames[k]) for k in mine], [row] * len(mine), "|", color=color, ms=11)
            sizes = np.concatenate([np.linalg.norm(labels[k].forces, axis=1) for k in mine])
            force.plot(sizes, [row] * len(sizes), "|", color=color, ms=11, alpha=0.5)
            pressure = [-labels[k].stress[:3].mean() / GPA for k in mine]
            stress.plot(pressure, [row] * len(mine), "|", color=color, ms=11)
        count.set_yticks(range(len(kinds)), kinds)
        count.invert_yaxis()
        count.margins(x=0.2)
        for ax, label in ((count, "frames"), (energy, "energy (eV/atom)"), (force, "force on an atom (eV/Å)"),
                          (stress, "pressure (GPa)")):  # fmt: skip
            ax.set_xlabel(label)
            ax.grid(axis="y", visible=False)
    return fig


# --- trajectories --------------------------------------------------------------------------------------------


def block_errors(errors: Mapping[int, float], snapshots: int, unit: str, ax: Axes | None = None) -> Figure:
    """Standard error (in `unit`) against block length in snapshots: it rises until blocks are independent.

    The bars say how well an error from `snapshots / length` blocks is itself known, 1 / sqrt(2 (blocks - 1)).
    """
    with style():
        fig, ax = _axes(ax, (5.2, 3.4))
        length, error = np.array(list(errors.items()), float).T
        ax.errorbar(
            length, error, error / np.sqrt(2 * (snapshots // length - 1)), color=COLORS["dft"], marker="o", lw=1
        )
        ax.set_xscale("log")
        ax.set_xticks(length, [f"{n:g}" for n in length])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel("block length (snapshots)")
        ax.set_ylabel(f"standard error ({unit})")
    return fig


VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
_DIRECTIONS = ("#0072B2", "#56B4E9", "#D55E00")  # a and b alike, c apart


def stress_trace(clock: Sequence[float], stress_gpa: np.ndarray) -> tuple[Figure, Callable[[int], None]]:
    """The stress (n, 6) in GPa, Voigt order, against `clock` in ps, means dashed; and a function that marks a frame.

    Normal components above, shears below, on one scale.
    """
    with style():
        fig, axes = plt.subplots(2, 1, figsize=(6.4, 4.2), sharex=True, sharey=True)
        lines, dots = [ax.axvline(clock[0], color=_FAINT, lw=1, visible=False) for ax in axes], []
        for k, (name, values) in enumerate(zip(VOIGT, stress_gpa.T, strict=True)):
            ax, color = axes[k // 3], _DIRECTIONS[k % 3]
            ax.axhline(values.mean(), color=color, ls=(0, (4, 2)), lw=0.9)
            ax.plot(clock, values, color=color, lw=1.2, label=rf"$\sigma_{{{name}}}$")
            dots += ax.plot([], [], "o", color=color, ms=5)
        for ax in axes:
            ax.set_ylabel("stress (GPa)")
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        axes[1].set_xlabel("time (ps)")

    def mark(n):
        for line in lines:
            line.set(xdata=[clock[n]] * 2, visible=True)
        for dot, values in zip(dots, stress_gpa.T, strict=True):
            dot.set_data([clock[n]], [values[n]])
        now = ", ".join(f"{name} {value:+.2f}" for name, value in zip(VOIGT[:3], stress_gpa[n], strict=False))
        axes[0].set_title(f"at {clock[n]:.2f} ps: {now} GPa", weight="normal")

    return fig, mark


def estimates(
    results: Mapping[str, Estimate], names: Sequence[str], reference: Sequence[float] | None = None, unit: str = "GPa"
) -> Figure:
    """The same quantities `names` by several estimators: values, and differences from their weighted mean.

    Error bars are one standard error; `reference` is drawn in black.
    """
    with style():
        fig, (values, differences) = plt.subplots(1, 2, figsize=(10, 3.7))
        places = np.arange(len(names))
        weights = {title: 1 / np.maximum(np.square(e.stderr), 1e-30) for title, e in results.items()}
        mean = sum(weights[title] * e.value for title, e in results.items()) / sum(weights.values())
        for k, (title, estimate) in enumerate(results.items()):
            shift = 0.2 * (k - (len(results) - 1) / 2)
            look = {"ls": "", "marker": "os^D"[k % 4], "color": _OTHERS[k % 4], "label": title}
            values.errorbar(places + shift, estimate.value, estimate.stderr, **look)
            differences.errorbar(places + shift, estimate.value - mean, estimate.stderr, **look)
        if reference is not None:
            values.hlines(reference, places - 0.4, places + 0.4, color=COLORS["measured"], label="measured", zorder=1)
        differences.axhline(0, color=_FAINT, lw=1)
        for ax, label in ((values, unit), (differences, f"difference from their mean ({unit})")):
            ax.set_xticks(places, names)
            ax.set_ylabel(label)
            ax.grid(axis="x", visible=False)
        handles, titles = values.get_legend_handles_labels()
        fig.legend(handles, titles, loc="outside upper center", ncols=len(titles))
    return fig
