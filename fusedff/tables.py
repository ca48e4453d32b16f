"""Tables of results as text, of the dicts that `results` describes."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from fusedff import results

LINE = 92  # characters of a line of text, as wide as a page of the book
NO_RESULTS = {"elastic": {}, "stress": {}, "lattice": {}}  # of a temperature, where every simulation exploded


def comparison_table(result: dict) -> str:
    """Table of all results as text: a row per model and temperature, then lines that say which bounds are met.

    ± is one standard error of the sampling; the training error of a committee follows in brackets.
    """
    models = result["models"]
    points = {results.title_of(model): found["experiment"] for model, found in models.items()}
    simulated = next((found for found in points.values() if found), {})  # those of other models may have exploded
    points, first = {"measured": simulated, **points}, next(iter(simulated.values()), NO_RESULTS)
    columns = [(f"{name} / GPa", 1, lambda point, n=name: point["elastic"][n]) for name in first["elastic"]]
    columns.append(("P / GPa", 2, lambda point: point["pressure"]))
    columns += [
        (f"{name} / GPa", 2, lambda point, n=name: results.stresses(point)[n]) for name in results.stresses(first)
    ]
    columns += [
        (f"{name} / {'Å' if name in 'abc' else '°'}", 4, lambda point, n=name: point["lattice"][n])
        for name in first["lattice"]
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

    Columns that do not fit into a line of `LINE` characters follow below, with the labels repeated; none stands alone.
    """
    blocks, used = [], LINE
    for column in columns:
        wide = 1 + max(map(len, column))
        if used + wide > LINE:
            blocks.append([])
            used = len(labels[0])
        blocks[-1].append([f"{cell:>{wide}}" for cell in column])
        used += wide
    if len(blocks) > 1 and len(blocks[-1]) == 1 < len(blocks[-2]) - 1:
        blocks[-1].insert(0, blocks[-2].pop())
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
    for name, first in results.targets(next(iter(models.values()))).items():
        unit, digits = (f" {first['unit']}", 2) if first["unit"] else ("", 3)
        found = ", ".join(
            f"{results.title_of(model)} {_cell(results.targets(one)[name], digits, False)}"
            + (f" [{one['in_training'][name]:.{digits}f}]" if name in one["in_training"] else "")
            for model, one in models.items()
        )
        what = f"measured {first['measured']:g}{unit}" if unit else "root mean square deviation from the measured curve"
        lines.append(f"{name:>16}: {what}; {found}")
    return [*lines, ""] if lines else []


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
    the fields of `fusedff.measurements.references.Reference`. A temperature follows a measured reference, unless the
    quantity names it.
    """
    models = list(dict.fromkeys(model for row in rows for model in row["models"]))
    labels = [f"{title:>30} {unit:>10}" for title, unit in [("", "unit"), *((r["quantity"], r["unit"]) for r in rows)]]
    columns = [
        [results.title_of(m), *(_with_error(r["models"][m], r["digits"]) if m in r["models"] else "-" for r in rows)]
        for m in models
    ]
    lines = [*format_columns(labels, columns), "", f"{'':>30}  references"]
    for row in rows:
        known = "; ".join(
            f"{r['kind']} {r['value']:g}{'' if r['confirmed'] else '?'}{_temperature(r, row['quantity'])}"
            f" ({r['source'].split(',')[0].split(' (')[0]})"
            for r in row["references"]
        )
        lines += _wrapped(f"{row['quantity']:>30}  {known or '-'}", "; ", 32)
    return "\n".join(lines)


def _temperature(reference, quantity):
    """At which temperature a reference was measured; nothing if that is unknown or part of the name of the quantity."""
    at = "" if reference["temperature"] is None else f" at {reference['temperature']:g} K"
    return at if reference["kind"] == "experiment" and at not in quantity else ""


def static_elastic_table(constants: dict[str, dict[str, float]]) -> str:
    """Table as text of elastic constants at 0 K (GPa), title -> constants: measured, DFT and models, a row each."""
    names = list(next(iter(constants.values())))
    titles = {key: results.title_of(key) for key in constants}
    wide = max(map(len, titles.values()))
    lines = [" " * (wide + 1) + " ".join(f"{f'{name} / GPa':>10}" for name in names)]
    for key, values in constants.items():
        lines.append(f"{titles[key]:>{wide}} " + " ".join(f"{values[name]:>10.1f}" for name in names))
    return "\n".join(lines)


def _with_error(entry, digits):
    if entry["value"] is None:
        return "exploded"
    if entry["stderr"] is None:
        return f"{entry['value']:.{digits}f}"
    return value_and_error(entry["value"], entry["stderr"], digits)


def value_and_error(value: float, stderr: float, digits: int, sign: str = "-") -> str:
    """A value and its standard error with `digits` decimals, or more: at least one digit of the error is not zero.

    `sign` is that of a format specification: "+" writes it for positive values as well.
    """
    if stderr > 0 and round(stderr, digits) == 0:
        digits = -math.floor(math.log10(stderr))
    return f"{value:{sign}.{digits}f} ± {stderr:.{digits}f}"


def summary_lines(result: dict) -> list[str]:
    """One line per model: deviations from experiment and from DFT, and which of `results.BOUNDS` it meets.

    For a committee, deviations are those of the mean, except that errors on frames are means of the members' errors;
    the training error follows in brackets.
    """
    reference = result["models"]["dft"]["test"]["force_mae_meV_per_A"]
    lines = []
    for model, found in result["models"].items():
        members = [member[model] for member in result.get("members", {}).values()]

        def training_std(of, digits, members=members):
            return _bracket(np.std([of(member) for member in members], ddof=1) if members else None, digits)

        deviation, noise = results.elastic_deviation(found["experiment"])
        stress, stress_noise = results.largest_stress(found["experiment"])
        errors = found["test"]
        ratio = errors["force_mae_meV_per_A"] / reference
        marks = [
            _mark(deviation <= results.BOUNDS["elastic"], f"{results.BOUNDS['elastic']:g} %"),
            _mark(stress <= results.BOUNDS["stress"], f"{results.BOUNDS['stress']:g} GPa"),
            _mark(ratio <= results.BOUNDS["force"], f"{results.BOUNDS['force']:g} x"),
        ]
        if model == "dft":
            marks = [""] * 3  # no bounds: it is not trained on experiments, and deviates like its DFT functional
        deviation_std = training_std(lambda member: results.elastic_deviation(member["experiment"])[0], 1)
        stress_std = training_std(lambda member: results.largest_stress(member["experiment"])[0], 2)
        energy, force = (
            f"{errors[key]:.{digits}f}{training_std(lambda member, key=key: member['test'][key], digits)}"
            for key, digits in (("energy_mae_meV_per_atom", 1), ("force_mae_meV_per_A", 0))
        )
        elastic, largest = value_and_error(deviation, noise, 1), value_and_error(stress, stress_noise, 2)
        simulated = (
            f"elastic constants off by {elastic}{deviation_std} %{marks[0]}, stresses by up to "
            f"{largest}{stress_std} GPa{marks[1]}"
        )
        lines.append(
            f"{results.title_of(model):>16}: {simulated if found['experiment'] else 'its simulations exploded'}, "
            f"held-out frames {energy} meV/atom, {force} meV/Å{marks[2]}, {stress_error(errors)}"
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
        names = [results.title_of(model), *(f"{row['source']} {row['family']}" for row in rows)]
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
