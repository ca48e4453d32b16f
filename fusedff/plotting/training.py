"""Figures of a training: losses, and simulated properties beside the measured ones."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusedff.plotting import style


def curves(
    history: Sequence[Mapping], keys: Sequence[str], title: str = "", log: bool = True, ax: Axes | None = None,
    step: str = "epoch",
) -> Figure:  # fmt: skip
    """Numbers of a training history against the `step` (the unit is part of a key: `force_rmse_meV_A`).

    Raises ValueError for a key that is in no record.
    """
    with style.context():
        fig, ax = style.axes(ax)
        for key in keys:
            entries = [(record.get("epoch", n), record[key]) for n, record in enumerate(history) if key in record]
            if not entries:
                raise ValueError(f"the history has no {key!r}; it has {', '.join(history[0])}")
            epoch, value = np.array(entries, float).T
            ax.plot(epoch, value, label=_axis_label(key), marker="o" if len(epoch) < 12 else None)
        if log:
            ax.set_yscale("log")
        ax.locator_params(axis="x", integer=True)
        ax.set_xlabel(step)
        if len(keys) == 1:
            ax.set_ylabel(_axis_label(keys[0]))
        else:
            ax.set_ylabel("unit as in the legend" if any("(" in _axis_label(key) for key in keys) else "loss")
            ax.legend()
        ax.set_title(title)
    return fig


_UNITS = {"meV_A": "meV/Å", "meV_per_A": "meV/Å", "meV_per_atom": "meV/atom", "meV": "meV/atom", "GPa": "GPa"}


def _axis_label(key: str) -> str:
    """Label of a key: `force_rmse_meV_A` -> 'force rmse (meV/Å)'."""
    for ending, unit in _UNITS.items():
        if key.endswith("_" + ending):
            return f"{key.removesuffix('_' + ending).replace('_', ' ')} ({unit})"
    return key.replace("_", " ")


def convergence(history: Sequence[Mapping], points, updates: int | None = None, step: str = "update") -> Figure:
    """Elastic constants and stresses (GPa) of a DiffTRe or fused history by update, with the measured ones dashed.

    `points` are the `StatePoint`s of the experiment. Axes extend to the last of `updates`, if given;
    `step` is what one of them is called.
    """
    names = list(dict.fromkeys(key.split("@")[0] for key in history[0] if "@" in key))
    temperatures = sorted({float(key.split("@")[1][:-1]) for key in history[0] if "@" in key})
    measured = {
        p.temperature: p.elastic_gpa
        | {f"σ{name}": stress for name, stress in p.stress_gpa.items()}
        | {"P": p.pressure_gpa}
        for p in points
    }
    shades = dict(zip(temperatures, plt.cm.plasma(np.linspace(0, 0.82, len(temperatures))), strict=True))
    with style.context():
        fig, axes = style.panels(len(names), 3)
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
            ax.locator_params(axis="x", integer=True)
            ax.set_title("pressure" if name == "P" else name)
            ax.set_ylabel("GPa")
            ax.set_xlabel(step)
        handles = [Line2D([], [], color=shades[t], label=f"{t:g} K") for t in temperatures]
        handles.append(Line2D([], [], color=style.FAINT, ls=(0, (4, 2)), lw=1.1, label="measured"))
        fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return fig


def running_totals(history: Sequence[Mapping], *keys: str) -> list[dict]:
    """The records of a history with the sums so far of `keys`, e.g. of the number of simulations in every update."""
    totals = {key: np.cumsum([record[key] for record in history]) for key in keys}
    return [{**record, **{key: float(total[n]) for key, total in totals.items()}} for n, record in enumerate(history)]


def trainings_compared(
    histories: Mapping[str, Sequence[Mapping]], against: Mapping[str, str], keys: Mapping[str, str],
    known: Mapping[str, float],
) -> Figure:  # fmt: skip
    """Several trainings of the same model: a column per quantity, a row per measure of computational cost.

    `histories` is training -> records. `against` (the horizontal axes) and `keys` map entries of the records to labels,
    e.g. {"simulations": "simulations"} and {"sigma": "sigma (Å)"}. `known` values, by entry, are dashed.
    """
    with style.context():
        fig, grid = plt.subplots(
            len(against), len(keys), figsize=(3.6 * len(keys), 2.8 * len(against)), squeeze=False, sharey="col"
        )
        for row, (x, xlabel) in zip(grid, against.items(), strict=True):
            for ax, (key, label) in zip(row, keys.items(), strict=True):
                if key in known:
                    ax.axhline(known[key], color=style.COLORS["measured"], ls=(0, (4, 2)), lw=1.1)
                for k, (name, history) in enumerate(histories.items()):
                    ax.plot([record[x] for record in history], [record[key] for record in history],
                            "os^D"[k % 4] + "-", ms=3.5, color=style.color_of(name, 2 * k), label=name)  # fmt: skip
                ax.set(xlabel=xlabel, ylabel=label)
                ax.locator_params(axis="x", integer=True)
        if len(histories) > 1:
            fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=len(histories))
    return fig
