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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusedff.data import frames as labelled
from fusedff.runtime import progress, storage
from fusedff.simulation.statistics import Estimate
from fusedff.study import comparison
from fusedff.units import GPA

STYLE = Path(__file__).with_name("fusedff.mplstyle")

# Okabe & Ito: the same colour and marker for the same thing in every figure.
COLORS = {"dft": "#0072B2", "experiment": "#E69F00", "fused": "#009E73", "measured": "#000000"}
MARKERS = {"dft": "s", "experiment": "^", "fused": "o", "measured": "D"}
REFERENCE = {"experiment": {"marker": "D", "mfc": "#000000"}, "DFT": {"marker": "D", "mfc": "white"}}  # by its kind
STRUCTURES = {
    "hcp": "#0072B2",
    "bcc": "#D55E00",
    "fcc": "#009E73",
    "omega": "#CC79A7",
    "disordered": "#777777",
}
_OTHERS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
FAINT = "#8a8a8a"


def style():
    """Context manager under which figures look like the ones here: `with plots.style(): ...`."""
    return plt.style.context(STYLE)


def show(fig: Figure, alt: str, dpi: int = 150) -> None:
    """Display a figure in a notebook as an image with alternative text, and close it.

    JupyterLab drops the alternative text of a plain PNG, so an HTML image comes first; the PNG lies beside
    it for front ends that show no HTML, and the text for those that show neither.
    """
    data = bundle(fig, alt, dpi)
    alt = data["text/plain"]
    if progress.shell() is None:  # a plain script, in which a picture cannot be seen
        print(alt)
        return
    from IPython.display import display

    display(data, raw=True)


def bundle(fig: Figure, alt: str, dpi: int = 150) -> dict[str, str]:
    """What `show` displays, by MIME type; closes the figure."""
    alt = f"{alt} ({_watermark})" if _watermark else alt
    width = int(100 * fig.get_figwidth())
    encoded = base64.b64encode(png(fig, dpi)).decode()
    plt.close(fig)
    image = (
        f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(alt, quote=True)}" '
        f'style="width:{width}px; max-width:100%; background:white">'
    )
    return {"text/html": image, "image/png": encoded, "text/plain": alt}


_watermark: str | None = None


def watermark(text: str | None) -> None:
    """Write `text` across every figure that is shown or saved from now on, and into its words; None ends that."""
    global _watermark
    _watermark = text


def png(fig: Figure, dpi: int = 150) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    mark = _watermark and fig.text(
        0.5, 0.5, _watermark.replace("; ", "\n"), rotation=15, ha="center", va="center", fontsize=14, color="#D55E00",
        alpha=0.35, zorder=100,
    )  # fmt: skip
    fig.savefig(buffer, format="png", dpi=dpi)
    if mark:
        mark.remove()  # the figure may be drawn again
    return buffer.getvalue()


def save(fig: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure to a PNG file, whole or not at all."""
    storage.write_bytes(path, png(fig, dpi))


def color_of(name: str, position: int = 0) -> str:
    """The fixed colour of a model, or one of the others for a name that is none."""
    return COLORS.get(name, _OTHERS[position % len(_OTHERS)])


def title_of(name: str) -> str:
    """How a model is called in figures."""
    return comparison.TITLES.get(name, name)


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
        handles.append(Line2D([], [], color=FAINT, ls=(0, (4, 2)), lw=1.1, label="measured"))
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
    labels = [labelled.labels(frame) for frame in frames]
    with style():
        fig, (count, energy, force, stress) = plt.subplots(
            1, 4, figsize=(11.5, 0.9 + 0.28 * len(kinds)), sharey=True, width_ratios=[0.8, 1, 1, 1]
        )
        for row, kind in enumerate(kinds):
            mine = [k for k, f in enumerate(frames) if str(f.info.get("config_type", "unlabelled")) == kind]
            color = STRUCTURES.get(kind.split("-")[0], FAINT)
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


def outliers(scores: Mapping[str, tuple], threshold: float, names: Sequence[str] = (), marked: int = 5) -> Figure:
    """How far every frame lies from its family: `scores` as `fusedff.training.outliers.scores` returns them.

    One panel per quantity, score against the place of the frame; the `marked` highest above `threshold` carry their
    place, or their name from `names`.
    """
    with style():
        fig, axes = plt.subplots(1, len(scores), figsize=(3.2 * len(scores), 2.9), sharey=True, squeeze=False)
        for ax, (quantity, (_, score)) in zip(axes[0], scores.items(), strict=True):
            over = np.nan_to_num(score) > threshold
            place = np.arange(len(score))
            ax.plot(place[~over], score[~over], ".", color=COLORS["dft"])
            ax.plot(place[over], score[over], "o", color=STRUCTURES["bcc"])
            for n in sorted(place[over], key=lambda n: -score[n])[:marked]:
                text = names[n] if len(names) else n
                ax.annotate(text, (n, score[n]), (4, 3), textcoords="offset points", fontsize=7)
            ax.axhline(threshold, color=FAINT, lw=1, ls="--")
            ax.set_yscale("symlog", linthresh=threshold)
            ax.set_ylim(bottom=0)
            ax.set_title(quantity)
            ax.set_xlabel("frame")
        axes[0][0].set_ylabel("robust standard deviations")
    return fig


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
        lines, dots = [ax.axvline(clock[0], color=FAINT, lw=1, visible=False) for ax in axes], []
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
        differences.axhline(0, color=FAINT, lw=1)
        for ax, label in ((values, unit), (differences, f"difference from their mean ({unit})")):
            ax.set_xticks(places, names)
            ax.set_ylabel(label)
            ax.grid(axis="x", visible=False)
        handles, titles = values.get_legend_handles_labels()
        fig.legend(handles, titles, loc="outside upper center", ncols=len(titles))
    return fig
