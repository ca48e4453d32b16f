"""Results of models: deviations from measured values, and tables of them as rows and as text.

Results are dicts, lists and numbers, as in the JSON records. An entry has `value`, `stderr` (standard error of the
sampling) and, if it was measured, `measured`; that of a committee also has `spread`, the training error (see
`average_members`). A point, the results at one temperature, has `elastic`, `pressure`, `stress` and `lattice`, see
`ElasticResult.by_temperature`. A model may have `targets`, entries by name, and `in_training`, their last values in
training. Arguments called `models` are model -> its results, `experiment` is temperature -> point.
"""

import textwrap
from collections.abc import Sequence

import numpy as np

TITLES = {"dft": "DFT-only", "experiment": "experiment-only", "fused": "fused"}
BOUNDS = {"elastic": 5.0, "stress": 0.3, "force": 1.15}  # for the fused model: %, GPa, times the DFT-only force error

LINE = 92  # characters of a line of text, as wide as a page of the book


def average_members(members: Sequence):
    """Combine the results of several trainings, which differ only in their seeds, into one of the same form.

    An entry gets the mean `value`, the standard error `stderr` of that mean from the sampling (about that of one member
    over the square root of their number), and `spread`, the standard deviation over the members: how much another
    training would differ, which includes the sampling error of one member. Other numbers that differ are averaged. An
    entry that is None in one member is None in the result; everything else is taken from the first member.
    """
    if None in members:
        return None
    first = members[0]
    if isinstance(first, dict) and "value" in first:
        values, noise = ([member[key] for member in members] for key in ("value", "stderr"))
        if None in values:
            return first | {"value": None, "stderr": None, "spread": None}
        stderr = None if None in noise else float(np.linalg.norm(noise) / len(noise))
        return first | {"value": float(np.mean(values)), "stderr": stderr, "spread": float(np.std(values, ddof=1))}
    if isinstance(first, dict):
        return {key: average_members([member[key] for member in members]) for key in first}
    if isinstance(first, list):
        return [average_members(entries) for entries in zip(*members, strict=True)]
    if isinstance(first, (int, float)) and any(member != first for member in members):
        return float(np.mean(members))
    return first


def absolute_deviation(entry: dict) -> tuple[float, float]:
    """Deviation from the measured value and its standard error, in the unit of the entry; nan if not measured."""
    return entry["value"] - entry.get("measured", np.nan), entry["stderr"]


def relative_deviation(entry: dict) -> tuple[float, float]:
    """Deviation from the measured value and its standard error, in % of the measured value; nan if not measured."""
    measured = entry.get("measured", np.nan)
    return 100 * (entry["value"] / measured - 1), 100 * entry["stderr"] / abs(measured)


def elastic_deviation(experiment: dict) -> tuple[float, float]:
    """Mean |C - C_exp| / |C_exp| over all temperatures and constants that were measured, in %, and its standard error.

    Both are nan if none was. The error propagates the standard errors of the constants. Noise contributes to the mean
    of absolute values, so that small deviations are upper bounds.
    """
    return _mean_deviation(experiment, "elastic")


def lattice_deviation(experiment: dict) -> tuple[float, float]:
    """Like `elastic_deviation`, for the lattice parameters at which a model has the measured stress."""
    return _mean_deviation(experiment, "lattice")


def _mean_deviation(experiment, kind):
    entries = [e for point in experiment.values() for e in point[kind].values() if "measured" in e]
    if not entries:
        return np.nan, np.nan
    off, noise = np.array([relative_deviation(entry) for entry in entries]).T
    return float(np.mean(np.abs(off))), float(np.sqrt(np.sum(np.square(noise))) / len(noise))


def split_by_training(experiment: dict, train: Sequence[float]) -> dict[str, dict]:
    """Divide the results of a model into 'trained', the temperatures (K) in `train`, and 'held_out', all others."""
    return {
        "trained": {t: point for t, point in experiment.items() if float(t) in train},
        "held_out": {t: point for t, point in experiment.items() if float(t) not in train},
    }


def elastic_rows(models: dict[str, dict]) -> list[dict]:
    """Elastic constants, pressure and stresses of models (GPa), model -> temperature -> point: one row per number."""
    return [
        {"model": model, "temperature_K": t, "quantity": name}
        | {f"{key}_GPa": entry.get(key) for key in _columns(entry)}
        for model, found in models.items()
        for t, point in found.items()
        for name, entry in (point["elastic"] | {"P": point["pressure"]} | stresses(point)).items()
    ]


def stresses(point: dict) -> dict[str, dict]:
    """The independent stresses of a point by name, e.g. σxx and σzz (GPa)."""
    return {f"σ{name}": entry for name, entry in point["stress"].items()}


def largest_stress(experiment: dict) -> tuple[float, float]:
    """Largest absolute deviation of a stress from the measured one at any temperature, and its standard error, GPa."""
    off = (absolute_deviation(entry) for point in experiment.values() for entry in stresses(point).values())
    largest, noise = max(off, key=lambda found: abs(found[0]))
    return abs(largest), noise


def _columns(entry):
    return ("value", "stderr", *(("spread",) if "spread" in entry else ()), "measured")


def table(result: dict) -> str:
    """Table of all results as text: a row per model and temperature, then lines that say which bounds are met.

    ± is one standard error of the sampling; the training error of a committee follows in brackets.
    """
    models = result["models"]
    points = {"measured": next(iter(models.values()))["experiment"]} | {
        TITLES.get(model, model): found["experiment"] for model, found in models.items()
    }
    columns = [(f"{name} / GPa", 1, lambda point, n=name: point["elastic"][n]) for name in _first(points)["elastic"]]
    columns.append(("P / GPa", 2, lambda point: point["pressure"]))
    columns += [(f"{name} / GPa", 2, lambda point, n=name: stresses(point)[n]) for name in stresses(_first(points))]
    columns += [
        (f"{name} / {'Å' if name in 'abc' else '°'}", 4, lambda point, n=name: point["lattice"][n])
        for name in _first(points)["lattice"]
    ]
    rows = [(title, t, point) for title, found in points.items() for t, point in found.items()]
    labels = [f"{'':>15} T / K", *(f"{title:>15} {t:>5}" for title, t, _ in rows)]
    cells = [
        [head, *(_cell(entry_of(point), digits, title == "measured") for title, _, point in rows)]
        for head, digits, entry_of in columns
    ]
    said = [*target_lines(models), *summary_lines(result)]
    if "members" in result:
        said.append(
            f"means over {len(result['members'])} trainings (seeds {', '.join(result['members'])}) ± one standard "
            "error of the sampling; in brackets the training error: the standard deviation over the trainings"
        )
    wrapped = (line for text in said for line in _wrapped(text, ", ", 18) or [""])
    return "\n".join([*format_columns(labels, cells), "", *wrapped])


def format_columns(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table as lines of text: right-aligned columns beside labels of equal length.

    Columns that do not fit into a line of `LINE` characters follow below, with the labels repeated.
    """
    blocks, used = [], LINE
    for column in columns:
        wide = 1 + max(map(len, column))
        if used + wide > LINE:
            blocks.append([])
            used = len(labels[0])
        blocks[-1].append([f"{cell:>{wide}}" for cell in column])
        used += wide
    lines = []
    for block in blocks:
        lines += ["", *(label + "".join(cells) for label, *cells in zip(labels, *block, strict=True))]
    return lines[1:]


def _wrapped(text: str, separator: str, indent: int) -> list[str]:
    """Lines of text, broken after separators or within parts longer than a line, and indented from the second on."""
    tied = separator.join(
        part.replace(" ", "\N{NO-BREAK SPACE}") if len(part) < LINE - indent else part for part in text.split(separator)
    )
    lines = textwrap.wrap(tied, LINE, subsequent_indent=" " * indent, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def target_lines(models: dict[str, dict]) -> list[str]:
    """A line for each target other than elastic constants, with its measured value and those of the models.

    For a curve the number is its root mean square deviation from the measured one. The value in the last update of the
    training follows in square brackets. An empty line ends the list.
    """
    lines = []
    for name, first in _targets(next(iter(models.values()))).items():
        unit, digits = (f" {first['unit']}", 2) if first["unit"] else ("", 3)
        found = ", ".join(
            f"{TITLES.get(model, model)} {_cell(_targets(one)[name], digits, False)}"
            + (f" [{one['in_training'][name]:.{digits}f}]" if name in one["in_training"] else "")
            for model, one in models.items()
        )
        what = f"measured {first['measured']:g}{unit}" if unit else "root mean square deviation from the measured curve"
        lines.append(f"{name:>16}: {what}; {found}")
    return [*lines, ""] if lines else []


def target_rows(models: dict[str, dict]) -> list[dict]:
    """Targets other than elastic constants, a row per model and target, with the value in the last update."""
    return [
        {"model": model, "target": name, "unit": entry["unit"]}
        | {key: entry.get(key) for key in _columns(entry)}
        | {"deviation": None if entry["value"] is None else absolute_deviation(entry)[0]}
        | {"in_training": found["in_training"].get(name)}
        for model, found in models.items()
        for name, entry in _targets(found).items()
    ]


def curve_rows(models: dict[str, dict]) -> list[dict]:
    """Radial distribution functions at the same radii (Å), a row per radius: measured, and of models with errors.

    `models` is model -> {"r_A", "measured", "g", "g_stderr"}.
    """
    first = next(iter(models.values()))
    return [
        {"r_A": r, "measured": g}
        | {f"{model}{kind}": curve[f"g{kind}"][n] for model, curve in models.items() for kind in ("", "_stderr")}
        for n, (r, g) in enumerate(zip(first["r_A"], first["measured"], strict=True))
    ]


def _targets(found):
    return found.get("targets", {})


def _first(models):
    """The point at the first temperature of the first model."""
    return next(iter(next(iter(models.values())).values()))


def _cell(entry, digits, measured):
    if measured:
        return f"{entry['measured']:.{digits}f}" if "measured" in entry else "-"
    return _with_error(entry, digits) + _bracket(entry.get("spread"), digits)


def _bracket(spread, digits):
    """The training error in brackets, if there is one."""
    return "" if spread is None else f" ({spread:.{digits}f})"


def off_target_table(rows: Sequence[dict]) -> str:
    """Table as text of quantities that were not targets, then their references; `?` marks unconfirmed ones.

    A row has quantity, unit, digits, models (name -> value and stderr, None without noise) and references, dicts with
    the fields of `fusedff.measurements.references.Reference`.
    """
    models = list(dict.fromkeys(model for row in rows for model in row["models"]))
    labels = [f"{title:>30} {unit:>10}" for title, unit in [("", "unit"), *((r["quantity"], r["unit"]) for r in rows)]]
    columns = [
        [TITLES[m], *(_with_error(r["models"][m], r["digits"]) if m in r["models"] else "-" for r in rows)]
        for m in models
    ]
    lines = [*format_columns(labels, columns), "", f"{'':>30}  references"]
    for row in rows:
        known = "; ".join(
            f"{r['kind']} {r['value']:g}{'' if r['confirmed'] else '?'} ({r['source'].split(',')[0].split(' (')[0]})"
            for r in row["references"]
        )
        lines += _wrapped(f"{row['quantity']:>30}  {known or '-'}", "; ", 32)
    return "\n".join(lines)


def static_elastic_table(constants: dict[str, dict[str, float]]) -> str:
    """Table as text of elastic constants at 0 K (GPa), title -> constants: measured, DFT and models, a row each."""
    names = list(next(iter(constants.values())))
    lines = [f"{'':>16} " + " ".join(f"{f'{name} / GPa':>10}" for name in names)]
    for title, values in constants.items():
        lines.append(f"{TITLES.get(title, title):>16} " + " ".join(f"{values[name]:>10.1f}" for name in names))
    return "\n".join(lines)


def off_target_rows(rows: Sequence[dict]) -> list[dict]:
    """The rows of `off_target_table` for a table file: one per quantity and model."""
    return [
        {"quantity": row["quantity"], "unit": row["unit"], "model": model, **entry}
        | {"references": "; ".join(f"{r['kind']} {r['value']:g} ({r['source']})" for r in row["references"])}
        for row in rows
        for model, entry in row["models"].items()
    ]


def _with_error(entry, digits):
    if entry["value"] is None:
        return "exploded"
    noise = "" if entry["stderr"] is None else f" ± {entry['stderr']:.{digits}f}"
    return f"{entry['value']:.{digits}f}{noise}"


def summary_lines(result: dict) -> list[str]:
    """One line per model: deviations from experiment and from DFT, and which of `BOUNDS` it meets.

    For a committee, deviations are those of the mean, except that errors on frames are means of the members' errors;
    the training error follows in brackets.
    """
    reference = result["models"]["dft"]["test"]["force_mae_meV_per_A"]
    lines = []
    for model, found in result["models"].items():
        members = [member[model] for member in result.get("members", {}).values()]

        def training_std(of, digits, members=members):
            return _bracket(np.std([of(member) for member in members], ddof=1) if members else None, digits)

        deviation, noise = elastic_deviation(found["experiment"])
        stress, stress_noise = largest_stress(found["experiment"])
        errors = found["test"]
        ratio = errors["force_mae_meV_per_A"] / reference
        marks = [
            _mark(deviation <= BOUNDS["elastic"], f"{BOUNDS['elastic']:g} %"),
            _mark(stress <= BOUNDS["stress"], f"{BOUNDS['stress']:g} GPa"),
            _mark(ratio <= BOUNDS["force"], f"{BOUNDS['force']:g} x"),
        ]
        if model == "dft":
            marks = [""] * 3  # no bounds: it is not trained on experiments, and deviates like its DFT functional
        deviation_std = training_std(lambda member: elastic_deviation(member["experiment"])[0], 1)
        stress_std = training_std(lambda member: largest_stress(member["experiment"])[0], 2)
        energy, force = (
            f"{errors[key]:.{digits}f}{training_std(lambda member, key=key: member['test'][key], digits)}"
            for key, digits in (("energy_mae_meV_per_atom", 1), ("force_mae_meV_per_A", 0))
        )
        lines.append(
            f"{TITLES[model]:>16}: elastic constants off by {deviation:.1f} ± {noise:.1f}{deviation_std} %{marks[0]}, "
            f"stresses by up to {stress:.2f} ± {stress_noise:.2f}{stress_std} GPa{marks[1]}, held-out frames "
            f"{energy} meV/atom, {force} meV/Å{marks[2]}, {stress_error(errors)}"
        )
    return lines


def error_table(models: dict[str, list[dict]]) -> str:
    """Errors on held-out frames by source and family as text, root mean square / mean absolute, a block per model.

    `models` is model -> rows of `label_errors.errors_by_family`; energies of other sources than a model's own are
    relative to a zero that is fitted. `-` means no stress labels.
    """
    quantities = {"energy": "meV_per_atom", "force": "meV_per_A", "stress": "GPa"}
    digits = {"energy": 1, "force": 0, "stress": 2}
    units = {"energy": "meV/atom", "force": "meV/Å", "stress": "GPa"}
    blocks = []
    for model, rows in models.items():
        names = [TITLES.get(model, model), *(f"{row['source']} {row['family']}" for row in rows)]
        counts = ["frames", *(str(row["n_frames"]) for row in rows)]
        labels = [f"{n:>{max(map(len, names))}} {c:>6}" for n, c in zip(names, counts, strict=True)]
        columns = []
        for q, unit in quantities.items():
            pairs = [tuple(row[f"{q}_{kind}_{unit}"] for kind in ("rmse", "mae")) for row in rows]
            cells = ["-" if None in pair else " / ".join(f"{x:.{digits[q]}f}" for x in pair) for pair in pairs]
            columns.append([f"{q} {units[q]}", *cells])
        blocks.append("\n".join(format_columns(labels, columns)))
    return "\n\n".join(blocks)


def stress_error(errors: dict) -> str:
    """Mean absolute stress error of `label_errors.errors` as text, in GPa."""
    found = errors["stress_mae_GPa"]
    return "no stress labels" if found is None else f"{found:.2f} GPa"


def _mark(met: bool, bound: str) -> str:
    return f" (bound {bound}: {'met' if met else 'NOT met'})"
