"""Results of models: deviations from measured values, means over the members of a committee, rows of table files.

Results are dicts, lists and numbers, as in the JSON records. An entry has `value`, `stderr` (standard error of the
sampling) and, if it was measured, `measured`; that of a committee also has `spread`, the training error (see
`average_members`). A point, the results at one temperature, has `elastic`, `pressure`, `stress` and `lattice`, see
`ElasticResult.by_temperature`; a model whose simulation exploded has no points. A model may have `targets`, entries by
name, and `in_training`, their last values in training. Arguments called `models` are model -> its results, `experiment`
is temperature -> point.
"""

from collections.abc import Sequence

import numpy as np

TITLES = {"dft": "DFT-only", "experiment": "experiment-only", "fused": "fused"}
BOUNDS = {"elastic": 5.0, "stress": 0.3, "force": 1.15}  # for the fused model: %, GPa, times the DFT-only force error


def title_of(model: str) -> str:
    """Title of a model in tables and figures, e.g. 'DFT-only' for 'dft'; any other name is its own title."""
    return TITLES.get(model, model)


def average_members(members: Sequence):
    """Combine the results of several trainings, which differ only in their seeds, into one of the same form.

    An entry gets the mean `value`, the standard error `stderr` of that mean from the sampling (about that of one member
    over the square root of their number), and `spread`, the standard deviation over the members: how much another
    training would differ, which includes the sampling error of one member. Other numbers that differ are averaged. An
    entry that is None in one member is None in the result, and a dict that is empty in one is empty; everything else is
    taken from the first member.
    """
    if None in members or {} in members:
        return None if None in members else {}
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
    """Deviation from the measured value and its standard error, in % of that; nan if it is zero or not measured."""
    measured = entry.get("measured") or np.nan
    return 100 * (entry["value"] / measured - 1), 100 * entry["stderr"] / abs(measured)


def elastic_deviation(experiment: dict) -> tuple[float, float]:
    """Mean |C - C_exp| / |C_exp| over temperatures and measured constants, in %, and its standard error.

    Constants that were measured to be zero do not count. Both are nan if none is left. The error propagates the
    standard errors of the constants. Noise contributes to the mean of absolute values, so that small deviations are
    upper bounds.
    """
    return _mean_deviation(experiment, "elastic")


def lattice_deviation(experiment: dict) -> tuple[float, float]:
    """Like `elastic_deviation`, for the lattice parameters at which a model has the measured stress."""
    return _mean_deviation(experiment, "lattice")


def _mean_deviation(experiment, kind):
    entries = [e for point in experiment.values() for e in point[kind].values() if e.get("measured")]
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
    """Largest absolute deviation of a stress from the measured one at any temperature, and its standard error, GPa.

    Both are nan without results.
    """
    off = [absolute_deviation(entry) for point in experiment.values() for entry in stresses(point).values()]
    largest, noise = max(off, key=lambda found: abs(found[0]), default=(np.nan, np.nan))
    return abs(largest), noise


def _columns(entry):
    return ("value", "stderr", *(("spread",) if "spread" in entry else ()), "measured")


def target_rows(models: dict[str, dict]) -> list[dict]:
    """Targets other than elastic constants, a row per model and target, with the value in the last update."""
    return [
        {"model": model, "target": name, "unit": entry["unit"]}
        | {key: entry.get(key) for key in _columns(entry)}
        | {"deviation": None if entry["value"] is None else absolute_deviation(entry)[0]}
        | {"in_training": found["in_training"].get(name)}
        for model, found in models.items()
        for name, entry in targets(found).items()
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


def targets(found: dict) -> dict[str, dict]:
    """Entries of the targets of a model other than elastic constants, by name."""
    return found.get("targets", {})


def off_target_rows(rows: Sequence[dict]) -> list[dict]:
    """The rows of `off_target_table` for a table file: one per quantity and model."""
    return [
        {"quantity": row["quantity"], "unit": row["unit"], "model": model, **entry}
        | {"references": "; ".join(f"{r['kind']} {r['value']:g} ({r['source']})" for r in row["references"])}
        for row in rows
        for model, entry in row["models"].items()
    ]
