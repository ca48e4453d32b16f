"""Figures of simulated properties: elastic constants, energies, phonons, lattices; every function returns a Figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusedff.measurements.references import Reference
from fusedff.measurements.state_points import measured_gpa
from fusedff.plotting import style
from fusedff.properties.static.energy_volume import EnergyVolumeResult
from fusedff.properties.thermal.deformation import DeformationResult

if TYPE_CHECKING:  # not at run time: all other figures work without phonopy
    from fusedff.properties.static.phonons import Phonons


def energy_volume(results: Mapping[str, EnergyVolumeResult], dft: Mapping[str, tuple]) -> Figure:
    """Energies (meV/atom) of every structure relative to the model's hcp minimum against volume, one panel per model.

    `dft` is structure -> (volumes, energies), Å^3 and eV per atom, shown as open circles in every panel, relative to
    the lowest hcp energy of DFT.
    """
    with style.context():
        fig, axes = plt.subplots(
            1, len(results), figsize=(max(4.4, 3.1 * len(results)), 3.6), squeeze=False, sharey=True
        )
        for ax, (model, result) in zip(axes[0], results.items(), strict=True):
            zero = result.curves["hcp"].energy
            for structure, curve in result.curves.items():
                color = style.STRUCTURES.get(structure, "#777777")
                fine = np.linspace(curve.volumes[0], curve.volumes[-1], 100)
                smooth = np.polynomial.Polynomial.fit(curve.volumes, curve.fitted - zero, 4)(fine)
                ax.plot(fine, 1e3 * smooth, color=color, lw=1.5)
            for structure, (volumes, energies) in dft.items():
                above = 1e3 * (np.asarray(energies) - np.min(dft["hcp"][1]))
                ax.plot(volumes, above, "o", mfc="none", ms=4, color=style.STRUCTURES.get(structure, "#777777"))
            ax.set_title(style.title_of(model))
            ax.set_xlabel("volume (Å³/atom)")
        axes[0, 0].set_ylabel("energy above hcp (meV/atom)")
        keys = [Line2D([], [], color=style.STRUCTURES.get(s, "#777777"), label=s) for s in result.curves]
        keys.append(Line2D([], [], color="#777777", marker="o", mfc="none", ls="", label="DFT"))
        fig.legend(handles=keys, loc="outside upper center", ncols=len(keys))
    return fig


def dispersion(results: Mapping[str, "Phonons"], known: Mapping[str, Sequence[Reference]], heading: str) -> Figure:
    """Phonon branches of several models along one path, and their densities of states.

    `known` is label of a special point -> references in THz, shown as diamonds, filled if measured, open if from DFT.
    """
    with style.context():
        fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), width_ratios=(3, 1), sharey=True)
        for k, (model, found) in enumerate(results.items()):
            color = style.color_of(model, k)
            # no line from the end of one segment of the path to the beginning of the next
            jump = np.append(np.diff(found.distances) == 0, False)[:, None]
            left.plot(found.distances, np.where(jump, np.nan, found.frequencies), color=color, lw=1.1)
            if found.frequencies_stderr is not None:
                low, high = found.frequencies - found.frequencies_stderr, found.frequencies + found.frequencies_stderr
                for branch in range(low.shape[1]):
                    left.fill_between(found.distances, low[:, branch], high[:, branch], color=color, alpha=0.25, lw=0)
            right.plot(found.dos, found.dos_frequencies, color=color, lw=1.1)
        for label, references in known.items():
            for place, reference in itertools.product((at for at, name in found.ticks if name == label), references):
                left.plot(place, reference.value, **style.REFERENCE[reference.kind], ls="", ms=4, zorder=3)
        for place, _ in found.ticks:
            left.axvline(place, color="#CCCCCC", lw=0.8, zorder=0)
        left.axhline(0, color="#777777", lw=0.8)
        labels = {}
        for place, name in found.ticks:
            labels.setdefault(round(place, 6), []).append(_spelled(name))
        left.set_xticks(list(labels), ["|".join(names) for names in labels.values()])
        left.set_xlim(found.distances[0], found.distances[-1])
        left.set_ylabel("frequency (THz)")
        left.set_title(heading)
        right.set_xlabel("states per THz and atom")
        keys = [Line2D([], [], color=style.color_of(m, k), label=style.title_of(m)) for k, m in enumerate(results)]
        kinds = sorted({reference.kind for references in known.values() for reference in references}, reverse=True)
        keys += [Line2D([], [], **style.REFERENCE[kind], ls="", ms=4, label=kind) for kind in kinds]
        fig.legend(handles=keys, loc="outside upper center", ncols=len(keys))
    return fig


def _spelled(label):
    return "Γ" if label == "G" else label


def curves(
    results: Mapping[str, tuple], xlabel: str, ylabel: str, measured: tuple | None = None, heading: str = ""
) -> Figure:
    """Curves of models, model -> (x, y, standard error of y or None), as lines with bands; `measured` (x, y) in black.

    Every model has its own line style, so that curves that coincide can be told apart.
    """
    with style.context():
        fig, ax = plt.subplots(figsize=(5.6, 3.5))
        for k, (model, (x, y, stderr)) in enumerate(results.items()):
            color = style.color_of(model, k)
            ax.plot(x, y, color=color, ls=style.LINES[k % len(style.LINES)], label=style.title_of(model))
            if stderr is not None:
                ax.fill_between(x, y - stderr, y + stderr, color=color, alpha=0.25, lw=0)
        if measured is not None:
            ax.plot(*measured, color=style.COLORS["measured"], marker="D", ms=2, lw=0.8, zorder=1, label="measured")
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        ax.set_title(heading)
        ax.legend()
    return fig


def against_temperature(results: Mapping[str, Mapping], measured: Mapping[str, tuple], labels: Mapping[str, str]):
    """Quantities of models against temperature, a panel each: model -> quantity -> (T in K, value, standard error).

    `measured` is quantity -> (T, value); `labels` is quantity -> label of its axis, in the order of the panels.
    """
    with style.context():
        fig, axes = plt.subplots(1, len(labels), figsize=(3.3 * len(labels), 3.4), squeeze=False)
        for ax, (quantity, label) in zip(axes[0], labels.items(), strict=True):
            if quantity in measured:
                ax.plot(*measured[quantity], color=style.COLORS["measured"], marker="D", ms=2.5, lw=1, zorder=1)
            for k, (model, found) in enumerate(results.items()):
                ax.errorbar(*found[quantity], **style.look_of(model, k), ls=":", lw=1, ms=4)
            ax.set_xlabel("temperature (K)")
            ax.set_ylabel(label)
        keys = style.legend_of(["measured", *results])
        fig.legend(handles=keys, loc="outside upper center", ncols=len(keys))
    return fig


def stress_against_strain(result: DeformationResult) -> Figure:
    """Mean stresses (GPa) of deformed cells and the parabolas fitted to them, a panel per constant.

    Of several state points the first is shown.
    """
    strain = np.array(result.settings.strains)
    fine = np.linspace(strain.min(), strain.max(), 50)
    with style.context():
        fig, axes = plt.subplots(1, len(result.names), figsize=(2.3 * len(result.names), 2.9), squeeze=False)
        for c, (ax, name) in enumerate(zip(axes[0], result.names, strict=True)):
            stress, slope = result.stress[0, :, c], result.elastic[0, c]
            ax.errorbar(100 * strain, stress, result.stress_stderr[0, c], color=style.COLORS["dft"], marker="o", ls="")
            ax.plot(100 * fine, np.polyval(result.parabola[0, ::-1, c], fine), color=style.COLORS["measured"], lw=1)
            stderr, chi_squared = result.elastic_stderr[0, c], result.chi_squared[0, c]
            ax.set_title(f"{name} = {slope:.1f} ± {stderr:.1f} GPa\n$\\chi^2$ = {chi_squared:.1f}", fontsize=9)
            ax.set_xlabel("strain (%)")
        axes[0, 0].set_ylabel("stress (GPa)")
    return fig


def elastic_against_temperature(models: Mapping[str, Mapping], points) -> Figure:
    """Elastic constants, pressure and stresses (GPa) of models against temperature, with the measured ones in black.

    `models` is model -> the table that `ElasticResult.by_temperature` returns, empty if there are no results; `points`
    are the measured state points.
    Bars are one standard error; pale bars are the training error of a committee, the standard deviation over its
    members.
    """
    points = sorted(points, key=lambda p: p.temperature)
    tables = [list(table.values()) for table in models.values() if table]
    names = list(tables[0][0]["elastic"] if tables else measured_gpa(points)[0])
    stresses = list(tables[0][0]["stress"]) if tables else []
    with style.context():
        fig, axes = style.panels(len(names) + 1 + len(stresses), 3)
        for ax, name in zip(axes, [*names, "P", *stresses], strict=True):
            measured = [(p.temperature, p.elastic_gpa | {"P": p.pressure_gpa} | p.stress_gpa) for p in points]
            known = [(t, values[name]) for t, values in measured if name in values]
            if known:
                ax.plot(*zip(*known, strict=True), color=style.COLORS["measured"], marker="D", ms=2.5, lw=1, zorder=1)
            for m, (model, table) in enumerate(models.items()):
                entries = [(at["elastic"] | {"P": at["pressure"]} | at["stress"])[name] for at in table.values()]
                ax.errorbar(
                    [float(t) for t in table], [e["value"] for e in entries], [e["stderr"] for e in entries],
                    **style.look_of(model, m), ls=":", lw=1,
                )  # fmt: skip
                for t, entry in zip(table, entries, strict=True):
                    if "spread" in entry:
                        low, high = (entry["value"] + sign * entry["spread"] for sign in (-1, 1))
                        ax.vlines(float(t), low, high, color=style.color_of(model, m), lw=5, alpha=0.3)
            elastic = known and name in names
            _at_least(ax, 0.15 * abs(np.mean([value for _, value in known])) if elastic else 1.0)
            ax.set_title({"P": "pressure"}.get(name, f"σ{name}" if name in stresses else name))
            ax.set_xlabel("temperature (K)")
            ax.set_ylabel("GPa")
        fig.legend(handles=style.legend_of(["measured", *models]), loc="outside upper center", ncols=len(models) + 1)
    return fig


def _at_least(ax, span):
    """Widen the y axis to `span` if it is narrower, so that small differences do not look large."""
    low, high = ax.get_ylim()
    if high - low < span:
        ax.set_ylim((low + high - span) / 2, (low + high + span) / 2)
