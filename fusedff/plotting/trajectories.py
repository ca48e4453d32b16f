"""Figures of a trajectory: stress against time, standard errors by block length, one quantity by several estimators."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fusedff.crystallography.elastic_symmetry import VOIGT_NAMES
from fusedff.plotting import style
from fusedff.simulation.statistics import Estimate


def block_errors(errors: Mapping[int, float], snapshots: int, unit: str) -> Figure:
    """Standard error (in `unit`) against block length in snapshots: it rises until blocks are independent.

    `errors` is block length -> standard error, of a trajectory of `snapshots`. Bars are the uncertainty of the standard
    error itself, a fraction 1 / sqrt(2 (n_blocks - 1)) of it with n_blocks = snapshots / length.
    """
    with style.context():
        fig, ax = plt.subplots(figsize=(5.2, 3.4))
        length, error = np.array(list(errors.items()), float).T
        ax.errorbar(
            length, error, error / np.sqrt(2 * (snapshots // length - 1)), color=style.COLORS["dft"], marker="o", lw=1
        )
        ax.set_xscale("log")
        ax.set_xticks(length, [f"{n:g}" for n in length])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel("block length (snapshots)")
        ax.set_ylabel(f"standard error ({unit})")
    return fig


_DIRECTIONS = ("#0072B2", "#56B4E9", "#D55E00")  # similar colours for the first two, another one for the third


def stress_trace(clock: Sequence[float], stress_gpa: np.ndarray) -> tuple[Figure, Callable[[int], None]]:
    """Figure of the stress (n, 6) in GPa, Voigt order, against `clock` (n,) in ps; and a function that marks a frame.

    Normal components are above, shears below, on the same scale; means are dashed.
    """
    with style.context():
        fig, axes = plt.subplots(2, 1, figsize=(6.4, 4.2), sharex=True, sharey=True)
        lines, dots = [ax.axvline(clock[0], color=style.FAINT, lw=1, visible=False) for ax in axes], []
        for k, (name, values) in enumerate(zip(VOIGT_NAMES, stress_gpa.T, strict=True)):
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
        now = ", ".join(f"{name} {value:+.2f}" for name, value in zip(VOIGT_NAMES[:3], stress_gpa[n], strict=False))
        axes[0].set_title(f"at {clock[n]:.2f} ps: {now} GPa", weight="normal")

    return fig, mark


def estimates(
    results: Mapping[str, Estimate], names: Sequence[str], reference: Sequence[float] | None = None
) -> Figure:
    """Constants `names` (n,) in GPa by several estimators: values, and differences from their weighted mean.

    Weights are the inverse squared standard errors; error bars are one standard error; `reference` (n,) is in black.
    """
    with style.context():
        fig, (values, differences) = plt.subplots(1, 2, figsize=(10, 3.7))
        places = np.arange(len(names))
        weights = {title: 1 / np.maximum(np.square(e.stderr), 1e-30) for title, e in results.items()}
        mean = sum(weights[title] * e.value for title, e in results.items()) / sum(weights.values())
        for k, (title, estimate) in enumerate(results.items()):
            shift = 0.2 * (k - (len(results) - 1) / 2)
            look = {"ls": "", "marker": "os^D"[k % 4], "color": style.EXTRA_COLORS[k % 4], "label": title}
            values.errorbar(places + shift, estimate.value, estimate.stderr, **look)
            differences.errorbar(places + shift, estimate.value - mean, estimate.stderr, **look)
        if reference is not None:
            values.hlines(
                reference, places - 0.4, places + 0.4, color=style.COLORS["measured"], label="measured", zorder=1
            )
        differences.axhline(0, color=style.FAINT, lw=1)
        for ax, label in ((values, "GPa"), (differences, "difference from their mean (GPa)")):
            ax.set_xticks(places, names)
            ax.set_ylabel(label)
            ax.grid(axis="x", visible=False)
        handles, titles = values.get_legend_handles_labels()
        fig.legend(handles, titles, loc="outside upper center", ncols=len(titles))
    return fig
