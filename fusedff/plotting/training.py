"""Figures of a training: losses, and simulated properties that approach the measured ones."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusedff.plotting import style


def curves(
    history: Sequence[Mapping], keys: Sequence[str], title: str = "", log: bool = True, ax: Axes | None = None
) -> Figure:
    """Numbers of a training history against the epoch (the unit is part of a key: `force_rmse_meV_A`)."""
    with style.context():
        fig, ax = style.axes(ax)
        for key in keys:
            entries = [(record.get("epoch", n), record[key]) for n, record in enumerate(history) if key in record]
            if not entries:
                raise ValueError(f"the history has no {key!r}; it has {', '.join(history[0])}")
            epoch, value = np.array(entries, float).T
            ax.plot(epoch, value, label=_spoken(key), marker="o" if len(epoch) < 12 else None)
        if log:
            ax.set_yscale("log")
        ax.locator_params(axis="x", integer=True)
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
    """How the constants and stresses of a DiffTRe or fused history move towards the measured ones (dashed).

    `updates` makes the axes long enough for all that is to come.
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
            ax.set_xlabel("update")
        handles = [Line2D([], [], color=shades[t], label=f"{t:g} K") for t in temperatures]
        handles.append(Line2D([], [], color=style.FAINT, ls=(0, (4, 2)), lw=1.1, label="measured"))
        fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return fig
