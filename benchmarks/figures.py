"""Figures of the benchmarks, in the style of fusedff.plotting."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from benchmarks import cells as cells_
from benchmarks import starts as starts_
from benchmarks.compare import Row
from benchmarks.report import NAMES
from benchmarks.scaling import Cost
from benchmarks.snapshots import MemoryUse
from benchmarks.work import LABELS
from fusedff import results
from fusedff.measurements import references
from fusedff.plotting import properties, style

COLORS = {"fusedff": "#0072B2", "tight": "#E69F00", "example": "#D55E00"}
MARKERS = {"fusedff": "o", "tight": "s", "example": "^"}
QUANTITIES = {"forces": "energy and forces", "step": "one Langevin step"}


def comparison(rows: list[Row]) -> Figure:
    """Time of every quantity at every size, all sides in one row; ratios are those of the paired rounds."""
    with style.context():
        fig, ax = plt.subplots(figsize=(7.5, 1.1 + 0.44 * len(rows)))
        for y, row in enumerate(reversed(rows)):
            medians = [seconds.median for seconds in row.seconds.values()]
            ax.plot([min(medians), max(medians)], [y, y], color="#CCCCCC", linewidth=1, zorder=1)
            for name, (low, median, high) in row.seconds.items():
                ax.plot([low, high], [y, y], color=COLORS[name], linewidth=5, alpha=0.35, zorder=2)
                ax.plot(median, y, marker=MARKERS[name], color=COLORS[name], zorder=3)
            for name, ratio in row.ratio.items():
                place = (row.seconds[name].median, y)
                look = {"ha": "center", "fontsize": 8.5, "color": COLORS[name]}
                ax.annotate(f"{ratio.median:.1f}×", place, (0, 6), textcoords="offset points", **look)
        ax.set_yticks(range(len(rows)), [f"{LABELS[row.quantity]}, {row.n_atoms} atoms" for row in reversed(rows)])
        ax.set_ylim(-0.6, len(rows) - 0.3)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{1e3 * s:g} ms" if s < 1 else f"{s:g} s"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        present = [name for name in COLORS if any(name in row.seconds for row in rows)]
        keys = [plt.Line2D([], [], color=COLORS[n], marker=MARKERS[n], linestyle="", label=NAMES[n]) for n in present]
        fig.legend(handles=keys, loc="outside upper right", ncols=len(keys))
    return fig


def atoms(costs: list[Cost]) -> Figure:
    """Cost per atom of one cell against its size: constant where the cost grows linearly."""
    fig = _costs(costs, lambda cost: cost.n_atoms, "atoms in the cell", "milliseconds per atom")
    fig.axes[0].set_title("Cost per atom as the cell grows")
    return fig


def replicas(costs: list[Cost]) -> Figure:
    """Cost per cell against the number of cells simulated together."""
    label = f"cells of {costs[0].n_atoms} atoms simulated together"
    fig = _costs(costs, lambda cost: cost.n_cells, label, "milliseconds per cell")
    fig.axes[0].set_title("Cost per cell as replicas are added")
    fig.axes[0].set_xticks([c.n_cells for c in costs], [str(c.n_cells) for c in costs])
    return fig


def _costs(costs, units, xlabel, ylabel):
    with style.context():
        fig, ax = plt.subplots(figsize=(5.6, 3.6))
        x = np.array([units(cost) for cost in costs])
        for marker, (name, label) in zip("os", QUANTITIES.items(), strict=True):
            low, median, high = 1e3 * np.array([getattr(cost, name) for cost in costs]).T / x
            ax.errorbar(x, median, (median - low, high - median), marker=marker, label=label)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}".replace(",", " ")))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(0)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        ax.legend()
    return fig


def cells(costs: list[cells_.Cost]) -> Figure:
    """Time per atom and memory of one cell against its size."""
    with style.context():
        fig, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6))
        x = np.array([cost.n_atoms for cost in costs])
        labels = {"step": "Langevin step", "processor": "its processor time", "lists": "one search for neighbours"}
        for marker, (name, label) in zip("os^", labels.items(), strict=True):
            low, median, high = 1e6 * np.array([getattr(cost, name) for cost in costs]).T / x
            time.errorbar(x, median, (median - low, high - median), marker=marker, label=label)
        memory.loglog(x, [cost.memory for cost in costs], marker="o")
        time.set_ylabel("microseconds per atom")
        memory.set_ylabel("memory (MiB)")
        for ax in (time, memory):
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}".replace(",", " ")))
            ax.set_xlabel("atoms in the cell")
        time.set_ylim(0)
        time.legend()
    return fig


def memory(uses: list[MemoryUse]) -> Figure:
    """Peak memory of a DiffTRe update against the number of snapshots."""
    with style.context():
        fig, ax = plt.subplots(figsize=(5.6, 3.6))
        x = [use.snapshots for use in uses]
        ax.plot(x, [use.update for use in uses], marker="o", label="peak of an update")
        ax.plot(x, [use.stored for use in uses], marker="s", label="the snapshots themselves")
        ax.set_xscale("log")
        ax.set_xticks(x, [str(n) for n in x])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(0)
        ax.set_xlabel("snapshots")
        ax.set_ylabel("MiB")
        ax.set_title("Memory of a DiffTRe update")
        ax.legend()
    return fig


def gpu_forces(found: dict) -> Figure:
    """Time of energy and forces per atom, and operations per second, against the number of atoms.

    Horizontal lines are the operations per second of large matrix products on the same card.
    """
    with style.context():
        fig, (cost, rate) = plt.subplots(1, 2, figsize=(9, 3.6))
        rows = found["forces"]["rows"]
        for marker, label, chosen in (
            ("o", "one cell", [row for row in rows if row["n_cells"] == 1]),
            ("s", "many cells", [row for row in rows if row["n_cells"] > 1]),
        ):
            x = [row["n_atoms"] for row in chosen]
            cost.plot(x, [row["us_per_atom"] for row in chosen], marker=marker, label=label)
            rate.plot(x, [row["TFLOPs_per_s"] for row in chosen], marker=marker, label=label)
        for name, dashes in (("float32", "--"), ("tf32", ":")):
            peak = found["machine"][f"matmul_{name}_TFLOPs"]
            rate.axhline(peak, color="#8a8a8a", linestyle=dashes, label=f"large products, {name}")
        cost.set_ylabel("energy and forces (µs per atom)")
        rate.set_ylabel("TFLOP/s")
        for ax in (cost, rate):
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlabel("atoms in all")
            ax.legend()
    return fig


def gpu_dynamics(found: dict) -> Figure:
    """Time of a Langevin step per atom against the number of atoms."""
    with style.context():
        fig, ax = plt.subplots(figsize=(5.6, 3.6))
        rows = found["dynamics"]["rows"]
        for marker, size in zip("os^vD", sorted({row["n_atoms"] for row in rows}), strict=False):
            chosen = [row for row in rows if row["n_atoms"] == size]
            x = [row["n_atoms"] * row["n_cells"] for row in chosen]
            ax.plot(x, [row["us_per_atom_step"] for row in chosen], marker=marker, label=f"cells of {size} atoms")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("atoms in all")
        ax.set_ylabel("one Langevin step (µs per atom)")
        ax.legend()
    return fig


def learning(curve: list[dict]) -> Figure:
    """Mean absolute errors on test frames of each source against the number of training frames."""
    with style.context():
        fig, panels = plt.subplots(1, 2, figsize=(7.5, 3.2))
        n = [row["n_frames"] for row in curve]
        quantities = {"force_mae_meV_per_A": "forces, meV/Å", "energy_mae_meV_per_atom": "energies, meV/atom"}
        for ax, (key, label) in zip(panels, quantities.items(), strict=True):
            for k, source in enumerate(curve[-1]["test"]):
                ax.plot(n, [row["test"][source][key] for row in curve], "os"[k % 2] + "-", label=source.upper())
            ax.set(xscale="log", yscale="log", xlabel="training frames", ylabel=f"error of {label}")
            for axis, ticks in (
                (ax.xaxis, n),
                (ax.yaxis, [step * ten for ten in (1, 10, 100) for step in (1, 1.5, 2, 3, 5, 7)]),
            ):
                axis.set_major_locator(FixedLocator(ticks))
                axis.set_minor_locator(NullLocator())
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panels[0].legend()
    return fig


def independent(found: dict) -> Figure:
    """Deviations of elastic constants and of lattice parameters from the measured ones against temperature."""
    by_temperature = {float(t): point for t, point in found["by_temperature_K"].items()}
    panels = {
        "elastic": "elastic constants: deviation from\nmeasured (%)",
        "lattice": "lattice parameters at zero stress:\ndeviation from measured (%)",
    }
    with style.context():
        fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.4))
        for ax, (kind, label) in zip(axes, panels.items(), strict=True):
            ax.axhline(0, color=style.COLORS["measured"], lw=1, zorder=0)
            names = list(next(iter(by_temperature.values()))[kind])
            for k, name in enumerate(names):
                off = [results.relative_deviation(point[kind][name]) for point in by_temperature.values()]
                shifted = np.array([*by_temperature]) + 7 * (k - (len(names) - 1) / 2)
                ax.errorbar(shifted, *zip(*off, strict=True), fmt="osD^v"[k], ms=4, lw=1, label=name)
            ax.set(xlabel="T (K)", ylabel=label)
            ax.margins(y=0.2)  # room for the legend
            ax.legend(ncols=len(names), fontsize=7)
        axes[0].axhspan(-2, 2, color="0.93", zorder=-1)
    return fig


def liquids(found: dict) -> dict[str, Figure]:
    """g(r) of the models that have a liquid at each temperature, beside the one measured near the melting point."""
    models = {model: result for model, result in found["models"].items() if "g" in result}
    temperatures = next(iter(models.values()))["by_temperature_K"] if models else {}
    drawn = {}
    for t, temperature in enumerate(temperatures):
        lines = {
            model: (np.array(result["r_A"]), *(np.array(g[t]) for g in result["g"].values()))
            for model, result in models.items()
        }
        drawn[f"liquids-{temperature}"] = properties.curves(
            lines, "r (Å)", "g(r)", references.load_curve("titanium liquid g(r)"), f"liquid titanium, {temperature} K"
        )
    return drawn


def next_measurement(found: dict) -> Figure:
    """Per cent of the variance of each quantity (row) that an exact measurement of another (column) removes."""
    names = found["names"]
    with style.context():
        fig, panels = plt.subplots(1, 2, figsize=(10.5, 4.6), sharey=True)
        for ax, title in zip(panels, ("without labels", "with labels"), strict=True):
            percent = 100 * np.array(found[title]["removed"])
            ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
            for (y, x), value in np.ndenumerate(percent):
                ax.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value > 50 else "0.2")
            ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
            ax.set_title(f"known: elastic constants{' and DFT labels' if title == 'with labels' else ''}")
            ax.set_xlabel("measured as well")
            ax.grid(visible=False)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylabel("% of its variance removed")
    return fig


def starts(models: list[dict]) -> Figure:
    """Models trained on the same elastic constants from several starts, see `_trainings`.

    Models trained on a phonon are left out.
    """
    rows = [row for row in models if not row["start"].endswith(starts_.WITH_PHONON)]
    look = {"marker": style.MARKERS["experiment"], "color": style.COLORS["experiment"], "mfc": "white"}
    other = plt.Line2D([], [], ls="", **look, label="experiment-only, began as Lennard-Jones")
    return _trainings(rows, "trained on: C at 323 K\nrelative to measured", ["experiment", "fused"], [other])


def committee(members: dict[str, dict]) -> Figure:
    """Models of several seeds, see `_trainings`; `members` is seed -> model -> results of `committee.run`."""
    rows = []
    for seed, member in members.items():
        for model, found in member.items():
            beyond = {name: entry["value"] for name, entry in found["beyond"].items() if entry["value"] is not None}
            elastic = _mean_over_temperatures(found["experiment"])
            rows.append({"start": seed, "model": model, "elastic": elastic, "beyond": beyond})
    return _trainings(rows, "C, mean over 23 to 973 K,\nrelative to measured", list(results.TITLES), [])


def _mean_over_temperatures(experiment):
    """Means of values and measured values by name; none if the simulations of the model exploded."""
    points = [point["elastic"] for point in experiment.values()]
    return {
        name: {key: np.mean([point[name][key] for point in points]) for key in ("value", "measured")}
        for name in dict.fromkeys(name for point in points for name in point)
    }


def _trainings(rows, of_elastic, models, more_keys):
    """A point for each of several trainings: elastic constants, and quantities without target.

    A row has the start, the model, elastic (entries by name) and beyond (numbers by name). Elastic constants are
    relative to the measured ones, energies above hcp in meV/atom, force errors relative to the smallest, and other
    quantities relative to PBE (`references.csv`).
    """
    known = references.select(references.load(), "Ti")
    shown = [name for name in starts_.QUANTITIES if any(name in row["beyond"] for row in rows)]
    energies = [name for name in shown if "energy_above" in name]
    others = [name for name in shown if name not in energies]
    units = {name: starts_.value_of_pbe(known, name) for name in others if name != "forces"}
    units["forces"] = min(row["beyond"]["forces"] for row in rows if "forces" in row["beyond"])
    panels = [
        (of_elastic, list(dict.fromkeys(name for row in rows for name in row["elastic"])), 1.0,
         lambda row, name: row["elastic"][name]["value"] / row["elastic"][name]["measured"]
         if name in row["elastic"] else None),
        ("not trained on: energy\nabove hcp (meV/atom)", energies, 0.0, lambda row, name: row["beyond"].get(name)),
        ("not trained on: relative to\nPBE (forces: to the best)", others, 1.0,
         lambda row, name: row["beyond"][name] / units[name] if name in row["beyond"] else None),
    ]  # fmt: skip
    with style.context():
        fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.9))
        for ax, (title, names, zero, value) in zip(axes, panels, strict=True):
            ax.axvline(zero, color=style.COLORS["measured"], lw=1, zorder=0)
            for k, model in enumerate(models):
                for row in (row for row in rows if row["model"] == model):
                    shift = 0.55 * (k / (len(models) - 1) - 0.5)
                    found = [(value(row, name), y + shift) for y, name in enumerate(names)]
                    look = {"mfc": "white"} if row["start"] == starts_.LENNARD_JONES else {}
                    x, y = zip(*found, strict=True) if found else ((), ())
                    ax.plot(np.array(x, float), y, style.MARKERS[model], color=style.COLORS[model], ms=5, **look)
            if names is energies:
                for y, name in enumerate(names):
                    ax.plot(starts_.value_of_pbe(known, name), y, ms=5, **style.REFERENCE["DFT"])
            ax.set_yticks(
                range(len(names)), [name.replace("_energy_above_hcp", "").replace("_", " ") for name in names]
            )
            ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
            ax.set_xlabel(title)
        pbe = plt.Line2D([], [], ls="", ms=5, label="PBE", **style.REFERENCE["DFT"])
        keys = [*style.legend_of(models), pbe, *more_keys]
        fig.legend(handles=keys, loc="outside upper center", ncols=len(keys))
    return fig
