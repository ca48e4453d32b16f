"""The record of a release in words: deviations, and what the numbers show, for README, book and model card.

`record` is that of `release.release`.
"""

import math
import re
import textwrap

import numpy as np

from fusedff import results, tables
from fusedff.measurements import references

BOUND_PERCENT = {"trained": 2, "held_out": 3}  # the aim for every single constant
BOUND_GPA = 0.1  # and for every stress
PARTS = ("trained", "held_out")
# Of each deviation what measures it, its unit as in names, its unit as text and digits worth showing.
_MEASURES = {
    "elastic": (results.elastic_deviation, "percent", "%", 1),
    "lattice": (results.lattice_deviation, "percent", "%", 2),
    "stress": (results.largest_stress, "GPa", "GPa", 2),
}


def deviation(errors, measure, part):
    """Deviation with its standard error and unit as text, of `deviations`, a measure and one of `PARTS`."""
    _, name, unit, digits = _MEASURES[measure]
    value, noise = (errors[f"{measure}_{part}_{name}{end}"] for end in ("", "_stderr"))
    return f"{tables.value_and_error(value, noise, digits)} {unit}"


def deviations(record, model):
    """Deviations of elastic constants and lattice parameters, %, and of stresses, GPa, by role of temperatures."""
    found, train = record["temperatures"]["models"][model], record["temperatures"]["train"]
    result = {}
    for part, points in results.split_by_training(found, train).items():
        for measure, (mean_or_largest, name, _, _) in _MEASURES.items():
            result[f"{measure}_{part}_{name}"], result[f"{measure}_{part}_{name}_stderr"] = mean_or_largest(points)
    return result


def two_evaluations(record):
    """How far notebooks 06 and 07 are apart in the elastic constants and stresses of the fused model, in words."""
    first, second = record["models"]["fused"]["experiment"], record["temperatures"]["models"]["fused"]
    settings = record["settings"]["evaluation"], record["temperatures"]["settings"]
    distance = {}
    for t in first.keys() & second.keys():
        one, other = (point["elastic"] | results.stresses(point) for point in (first[t], second[t]))
        for name in one:
            noise = np.hypot(one[name]["stderr"], other[name]["stderr"])
            distance[f"{name} at {t} K"] = abs(one[name]["value"] - other[name]["value"]) / noise
    if not distance:
        return ""
    most = sorted(distance, key=lambda name: (-distance[name], name))[:3]
    mean = np.sqrt(np.mean(np.square(list(distance.values()))))
    longer, shorter = (about["snapshots"] for about in settings)
    blocks = " and ".join(f"{_block_ps(about):.1f}" for about in settings)
    worst = _listed(f"{name} ({distance[name]:.1f})" for name in most)
    return _paragraph(
        f"At the trained temperatures the fused model was evaluated twice, with {longer} snapshots (notebook 06) and "
        f"with {shorter} (notebook 07). The results differ by {mean:.1f} combined standard errors (root mean square of "
        f"{len(distance)} numbers), most in {worst}. Correct error bars would give about 1, so those here, which "
        f"follow from {settings[0]['blocks']} blocks of {blocks} ps, are somewhat too small."
    )


def _listed(parts):
    """Parts of a sentence as 'a, b and c', with no line break between a number and its unit."""
    *first, last = (re.sub(r"(\d) (?=[A-Z])", "\\1\N{NO-BREAK SPACE}", part) for part in parts)
    return f"{', '.join(first)} and {last}"


def _paragraph(text):
    return textwrap.fill(text, 118, break_on_hyphens=False).replace("\N{NO-BREAK SPACE}", " ")


def _block_ps(settings):
    langevin = settings["langevin"]
    snapshot = 1e-3 * langevin["timestep_fs"] * langevin["steps_per_snapshot"]
    return snapshot * settings["snapshots"] / settings["blocks"]


def uncertainty_of_pbe(record):
    """Smallest and largest uncertainty of the elastic constants by PBE, in words."""
    known = references.select(references.load(), "Ti", "hcp", kind="DFT")
    errors = [r.uncertainty for r in known if r.quantity in record["at_rest"]["PBE"]]
    return f"{min(errors):g} to {max(errors):g} GPa"


def right_and_wrong(record):
    """How well the fused model agrees with DFT in properties that were not targets, in words."""
    rows = {row["quantity"]: row for row in record["off_target"]}
    energies = [f"{structure} above hcp" for structure in ("bcc", "fcc", "omega")]
    if not set(energies) <= rows.keys():
        return ""
    of_dft = {name: [r["value"] for r in row["references"] if r["kind"] == "DFT"] for name, row in rows.items()}
    off = max(abs(rows[name]["models"]["fused"]["value"] - of_dft[name][0]) for name in energies)
    said = []
    for name, row in rows.items():
        if name in energies or not of_dft[name]:
            continue
        low, value, high = min(of_dft[name]), row["models"]["fused"]["value"], max(of_dft[name])
        if not 0.95 * low <= value <= 1.05 * high:
            shown, *known = (f"{x:.{row['digits']}f}" for x in (value, *sorted({low, high})))
            unit = "" if row["unit"] == "GPa/GPa" else f" {row['unit']}"
            said.append(f"{name} ({shown}{unit}; DFT {' to '.join(known)})")
    return _paragraph(
        f"The fused model has the energies of bcc, fcc and omega above hcp within {off:.1f} meV/atom of DFT. More than "
        f"5 % from DFT: {'; '.join(said) or 'nothing'}."
    )


def diffusion(record):
    """What the self-diffusion and its error bar are, in words."""
    checks = record["settings"]["checks"]
    atoms, replicas = 2 * math.prod(checks["liquid_repeats"]), checks["liquid"]["replicas"]
    return _paragraph(
        f"Self-diffusion is that of a cell of {atoms} atoms; in a large cell it would be about a quarter larger "
        f"(notebook 08). Its error bar is the scatter of {replicas} replicas."
    )


def number_by_number(record) -> str:
    """Every constant and the stresses of the fused model at every temperature, and how many meet a bound."""
    found, train = record["temperatures"]["models"]["fused"], record["temperatures"]["train"]
    first = next(iter(found.values()))
    names = [*first["elastic"], *results.stresses(first)]
    lines = ["| T / K | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for t, point in found.items():
        off = [(results.relative_deviation(entry), 1) for entry in point["elastic"].values()]
        off += [(results.absolute_deviation(entry), 2) for entry in results.stresses(point).values()]
        cells = [tables.value_and_error(*deviation, digits, sign="+") for deviation, digits in off]
        lines.append(f"| {t}{'' if float(t) in train else ' (held out)'} | " + " | ".join(cells) + " |")
    counts = []
    for part, points in results.split_by_training(found, train).items():
        bound = BOUND_PERCENT[part]
        off = [abs(results.relative_deviation(e)[0]) for point in points.values() for e in point["elastic"].values()]
        counts.append(f"{sum(x <= bound for x in off)} of {len(off)} within {bound} % ({part.replace('_', ' ')})")
    stresses = [
        abs(results.absolute_deviation(e)[0]) for point in found.values() for e in results.stresses(point).values()
    ]
    calm = f"{sum(s <= BOUND_GPA for s in stresses)} of {len(stresses)} within {BOUND_GPA} GPa"
    return chr(10).join(lines) + f"\n\nConstants: {'; '.join(counts)}. Stresses: {calm}."
