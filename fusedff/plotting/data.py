"""Figures of DFT frames: overview, energy against volume, predictions against labels, outliers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from fusedff.data import labelled_frames
from fusedff.plotting import style
from fusedff.units import GPA

MARKED = 5  # outliers of a panel that are labelled
LINEAR_GPA = 20.0  # the axis of pressures is linear up to here and logarithmic beyond


def structure_of(frame: Atoms) -> str:
    """Crystal structure from which a frame was made, the first word of its family: 'hcp-rattled-16' -> 'hcp'."""
    return _structure(labelled_frames.family(frame))


def _structure(family: str) -> str:
    return family.split("-")[0]


def frames_overview(frames: Sequence[Atoms]) -> Figure:
    """Overview of labelled frames by family: number, energies (eV/atom), forces (eV/Å) and pressures (GPa)."""
    of_structure = {name: n for n, name in enumerate(style.STRUCTURES)}
    families = list(map(labelled_frames.family, frames))
    names = sorted(dict.fromkeys(families), key=lambda name: of_structure.get(_structure(name), len(of_structure)))
    labels = [labelled_frames.labels(frame) for frame in frames]
    with style.context():
        fig, (count, energy, force, stress) = plt.subplots(
            1, 4, figsize=(11.5, 0.9 + 0.28 * len(names)), sharey=True, width_ratios=[0.8, 1, 1, 1]
        )
        for row, name in enumerate(names):
            mine = [k for k, of_frame in enumerate(families) if of_frame == name]
            color = style.STRUCTURES.get(_structure(name), style.FAINT)
            count.barh(row, len(mine), color=color, height=0.7)
            count.text(len(mine), row, f" {len(mine)}", va="center", fontsize=9)
            energy.plot([labels[k].energy / len(frames[k]) for k in mine], [row] * len(mine), "|", color=color, ms=11)
            sizes = np.concatenate([np.linalg.norm(labels[k].forces, axis=1) for k in mine])
            force.plot(sizes, [row] * len(sizes), "|", color=color, ms=11, alpha=0.5)
            pressure = [-labels[k].stress[:3].mean() / GPA for k in mine]
            stress.plot(pressure, [row] * len(mine), "|", color=color, ms=11)
        count.set_yticks(range(len(names)), names)
        count.set_ylim(len(names) - 0.4, -0.6)
        count.margins(x=0.2)
        if any(abs(x) > LINEAR_GPA for line in stress.lines for x in line.get_xdata()):  # nan: has no stress
            stress.set_xscale("symlog", linthresh=LINEAR_GPA, linscale=1.5)
            stress.xaxis.set_major_locator(FixedLocator([-100, -20, -10, 0, 10, 20, 100, 1000]))
            stress.xaxis.set_major_formatter("{x:g}")
        for ax, label in ((count, "frames"), (energy, "energy (eV/atom)"), (force, "force on an atom (eV/Å)"),
                          (stress, "pressure (GPa)")):  # fmt: skip
            ax.set_xlabel(label)
            ax.grid(axis="y", visible=False)
    return fig


def eos(curves: Mapping[str, tuple], marks: Mapping[str, float] | None = None) -> Figure:
    """Energy against volume per atom: name -> (volumes, energies, fit), Å^3, eV, and a function fit(volume) or None.

    Energies are relative to the lowest given one of all curves. `marks` draws labelled vertical lines at volumes.
    """
    with style.context():
        fig, ax = plt.subplots(figsize=(7.4, 3.9))
        lowest = min(np.min(energies) for _, energies, _ in curves.values())
        for k, (name, (volumes, energies, fit)) in enumerate(curves.items()):
            color = style.STRUCTURES.get(name, style.color_of(name, k))
            ax.plot(volumes, 1e3 * (np.asarray(energies) - lowest), "o", color=color, label=name)
            if fit is not None:
                fine = np.linspace(min(volumes), max(volumes), 100)
                ax.plot(fine, 1e3 * (fit(fine) - lowest), color=color, lw=1.2)
        for label, volume in (marks or {}).items():
            ax.axvline(volume, color=style.COLORS["measured"], lw=1, ls="--", label=label)
        ax.set_xlabel("volume (Å³/atom)")
        ax.set_ylabel("energy above the lowest (meV/atom)")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def parity(
    reference: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    model: str = "dft",
) -> Figure:
    """Predicted against reference values, one panel per quantity, with the mean absolute error.

    `reference` and `predicted` are quantity -> array of any shape, `units` quantity -> unit; `model` sets the colour.
    """
    with style.context():
        fig, axes = style.panels(len(reference), min(3, len(reference)), size=(3.2, 3.45))
        for ax, name in zip(axes, reference, strict=True):
            x, y = np.ravel(reference[name]), np.ravel(predicted[name])
            ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
            ends = ends + 0.05 * np.ptp(ends) * np.array([-1, 1])
            ax.plot(ends, ends, color=style.COLORS["measured"], lw=0.9, zorder=1)
            ax.scatter(
                x, y, s=16, color=style.color_of(model), alpha=0.75 if len(x) < 300 else 0.35, lw=0, rasterized=True
            )
            ax.set(xlim=ends, ylim=ends, aspect="equal", title=name)
            ax.set_xlabel(f"DFT ({units[name]})")
            ax.set_ylabel(f"{style.title_of(model)} model ({units[name]})")
            ax.text(
                0.05, 0.95, f"mean absolute error\n{np.mean(np.abs(x - y)):.3g} {units[name]}",
                transform=ax.transAxes, va="top", fontsize=9,
            )  # fmt: skip
    return fig


def outliers(scores: Mapping[str, tuple], threshold: float, names: Sequence[str] = ()) -> Figure:
    """Outlier scores of frames within their families: `scores` as `fusedff.training.outliers.scores` returns them.

    One panel per quantity, score against the index of the frame; the `MARKED` highest above `threshold` are labelled
    with their index, or with their entry of `names`.
    """
    with style.context():
        fig, axes = plt.subplots(1, len(scores), figsize=(3.2 * len(scores), 2.9), sharey=True, squeeze=False)
        for ax, (quantity, (_, score)) in zip(axes[0], scores.items(), strict=True):
            over = np.nan_to_num(score) > threshold
            place = np.arange(len(score))
            ax.plot(place[~over], score[~over], ".", color=style.COLORS["dft"])
            ax.plot(place[over], score[over], "o", color=style.STRUCTURES["bcc"])
            for n in sorted(place[over], key=lambda n: -score[n])[:MARKED]:
                text = names[n] if len(names) else n
                ax.annotate(text, (n, score[n]), (4, 3), textcoords="offset points", fontsize=7)
            ax.axhline(threshold, color=style.FAINT, lw=1, ls="--")
            ax.set_yscale("symlog", linthresh=threshold)
            ax.set_ylim(bottom=0)
            ax.set_title(quantity)
            ax.set_xlabel("frame")
        axes[0][0].set_ylabel("robust standard deviations")
    return fig
