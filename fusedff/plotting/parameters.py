"""Figures against the parameters of a model: reweighted averages, deviations from targets, steps that remove them."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusedff.plotting import style


def reweighted(
    values: np.ndarray, exact: np.ndarray, estimates: np.ndarray, n_eff: np.ndarray, reuse_above: float,
    xlabel: str, ylabel: str,
) -> Figure:  # fmt: skip
    """Reweighted averages (logarithmic) and effective sample sizes against a parameter (logarithmic), in two panels.

    `values` and `exact` are (n_values,); `estimates` and `n_eff`, a fraction of the snapshots, (n_values, n_repeats).
    The band is one standard deviation over the repeats. Below the dashed `reuse_above`, new snapshots are sampled.
    """
    with style.context():
        fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3))
        mean, spread = estimates.mean(1), estimates.std(1)
        left.plot(values, exact, color=style.COLORS["measured"], label="exact")
        left.fill_between(values, mean - spread, mean + spread, color=style.COLORS["fused"], alpha=0.3, lw=0)
        left.plot(values, mean, color=style.COLORS["fused"], label="reweighted (band: one standard deviation)")
        left.set(yscale="log", ylabel=ylabel)
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        right.plot(values, n_eff.mean(1), color=style.COLORS["fused"])
        right.axhline(reuse_above, color=style.FAINT, ls="--", lw=1)
        right.set(ylim=(0, 1.03), ylabel="$N_\\mathrm{eff}/N$")
        ticks = 2.0 ** np.arange(np.ceil(np.log2(values.min())), np.floor(np.log2(values.max())) + 1)
        for ax in (left, right):
            ax.set(xscale="log", xlabel=xlabel)
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
    return fig


def zero_lines(
    x: np.ndarray, y: np.ndarray, deviations: Mapping[str, np.ndarray], points: Mapping[str, Sequence[float]],
    xlabel: str, ylabel: str, unit: str,
) -> Figure:  # fmt: skip
    """Deviations from targets in the plane of two parameters: the first as colours, for each the line where it is zero.

    `deviations` is target -> (n_y, n_x), simulated minus measured, the first in `unit`; `points` is name -> (x, y).
    """
    first, shown = next(iter(deviations.items()))
    most = np.abs(shown).max()
    scale = 10 ** np.floor(np.log10(most))
    most = scale * np.ceil(most / scale)
    with style.context():
        fig, ax = plt.subplots(figsize=(6.6, 4.2))
        colors = ax.contourf(x, y, shown, np.linspace(-most, most, 21), cmap="PuOr")
        bar = fig.colorbar(colors, label=f"{first}, simulated - measured ({unit})")
        bar.set_ticks(np.linspace(-most, most, 5))
        keys = []
        for (name, values), line in zip(deviations.items(), style.LINES, strict=False):
            ax.contour(x, y, values, [0], colors="black", linestyles=[line], linewidths=1.8)
            keys.append(Line2D([], [], color="black", ls=line, lw=1.8, label=f"{name} as measured"))
        for (name, place), marker in zip(points.items(), "*os^D", strict=False):
            look = {"marker": marker, "ms": 12 if marker == "*" else 7, "mec": "black", "ls": ""}
            keys += ax.plot(*place, **look, color=style.EXTRA_COLORS[len(keys) % len(style.EXTRA_COLORS)], label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.grid(visible=False)
        fig.legend(handles=keys, loc="outside upper center", ncols=3)
    return fig


def steps(slopes: np.ndarray, residual: float, labels: np.ndarray, steps: Mapping[str, np.ndarray]) -> Figure:
    """Steps of two parameters that remove a residual, and the increase of the DFT loss by each.

    `slopes` (2,) are the derivatives of the residual, which vanishes on a line. `labels` (k, 2) is the matrix G in the
    increase |G step|^2 of the loss of the DFT labels. An ellipse of equal loss goes through the end of every step, and
    a dotted circle of equal length through that of the shortest. `steps` is name -> (2,).
    """
    ends = np.array(list(steps.values()), float)
    reach = 1.35 * np.abs(ends).max()
    right = 1.35 * reach  # space for the annotations
    plane = np.stack(np.meshgrid(np.linspace(-reach, right, 201), np.linspace(-reach, reach, 201)), -1)
    loss = ((plane @ np.asarray(labels, float).T) ** 2).sum(-1)
    through = np.sort(((ends @ np.asarray(labels, float).T) ** 2).sum(-1))
    with style.context():
        fig, ax = plt.subplots(figsize=(6.4, 4.9))
        ax.contour(plane[..., 0], plane[..., 1], loss, through, colors=[style.COLORS["dft"]], linewidths=1.6)
        more = through[-1] * np.array([0.25, 2.25, 4, 6.25])
        ax.contour(plane[..., 0], plane[..., 1], loss, np.sort(more), colors=[style.COLORS["dft"]], linewidths=0.5)
        left = residual + plane @ np.asarray(slopes, float)
        ax.contour(plane[..., 0], plane[..., 1], left, [0], colors=[style.COLORS["experiment"]], linewidths=2.4)
        shortest = np.linalg.norm(ends, axis=1).min()
        around = np.linspace(0, 2 * np.pi, 200)
        ax.plot(shortest * np.cos(around), shortest * np.sin(around), color=style.FAINT, ls=":", lw=1.2)
        for k, (name, end) in enumerate(zip(steps, ends, strict=True)):
            color = ("black", style.COLORS["fused"])[k % 2]
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 2, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", end, (0, 0), arrowprops=arrow)
            cost = float(np.sum((np.asarray(labels, float) @ end) ** 2))
            said = f"{name}\nlength {np.linalg.norm(end):.2f}, cost {cost:.2g}"
            side = 1 if end[0] >= 0 else -1
            ax.annotate(
                said, end, (10 * side, 5), textcoords="offset points", color=color, fontsize=9,
                ha="left" if side > 0 else "right", va="bottom", bbox={"fc": "white", "ec": "none", "alpha": 0.8},
            )  # fmt: skip
        ax.plot(0, 0, "o", color=style.COLORS["dft"], ms=6)
        ax.set(xlabel="change of parameter 1", ylabel="change of parameter 2", aspect="equal")
        ax.set(xlim=(-reach, right), ylim=(-reach, reach))
        ax.grid(visible=False)
        keys = [
            Line2D([], [], color=style.COLORS["experiment"], lw=2.4, label="no deviation from the measured number"),
            Line2D([], [], color=style.COLORS["dft"], lw=1.6, label="equal DFT loss"),
            Line2D([], [], color=style.FAINT, ls=":", lw=1.2, label="equal length"),
        ]
        fig.legend(handles=keys, loc="outside upper center", ncols=3)
    return fig
