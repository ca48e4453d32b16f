"""Release the models of a finished run: model files with their errors, a model card, the record, pages of results.

Written are the files that ship::

    titanium-dft.safetensors, titanium-experiment.safetensors, titanium-fused.safetensors
    titanium.json   results of notebooks 06, 07 and 08
    MODELS.md       the model card

and, in a checkout, the results in README.md (between two marks) and docs/results.md.
"""

import math
import re
import textwrap
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from fusedff import results, tables
from fusedff.measurements import references
from fusedff.plotting import comparison as comparison_plots
from fusedff.plotting import style
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import comparison
from fusedff.study.run_folder import MODELS, RECORD, RunFolder, shipped_record

BOUND_PERCENT = {"trained": 2, "held_out": 3}  # the aim for every single constant
BOUND_GPA = 0.1  # and for every stress


def release(folder: RunFolder, into: Path) -> None:
    """Write the models of a run, its record and its model card into the folder `into`.

    Raises FileNotFoundError naming what notebook must be run first.
    """
    record = folder.read("summary.json", "models", "preset", "data", "frames", "seeds", "versions")
    beyond = folder.read("off_target.json", "rows", "at_rest")
    record |= {
        "temperatures": folder.read("temperatures.json", "models", "train", "settings"),
        "off_target": beyond["rows"],
        "at_rest": beyond["at_rest"],
    }
    for model in MODELS:
        about = folder.read(f"{model}/settings.json", "settings", "seconds")
        about |= {key: record[key] for key in ("preset", "data", "frames", "seeds")}
        about["errors"] = record["models"][model]["test"] | _deviations(record, model)
        trained = folder.load(model)
        trained.save(into / f"titanium-{model}.safetensors", **about)
    storage.write_json(into / RECORD, record)
    storage.write_bytes(into / "MODELS.md", model_card(folder, record).encode())


IMAGES = Path("notebooks/images")
RESULTS = Path("docs/results.md")
MARKS = ("<!-- results: from fusedff/data/files/titanium.json -->", "<!-- end of results -->")


def show(released: Path, project: Path) -> None:
    """Write figures and tables of the record in the folder `released` into README.md and docs/results.md of a checkout.

    Raises FileNotFoundError if `project` is none, and ValueError if its README.md lacks the marks.
    """
    readme = project / "README.md"
    if not readme.exists():
        raise FileNotFoundError(f"{readme} does not exist; give the folder of a checkout of the project")
    text = readme.read_text()
    if not all(text.count(mark) == 1 for mark in MARKS):
        raise ValueError(f"{readme}: the results belong between the lines {MARKS[0]} and {MARKS[1]}; put them back")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    record = shipped_record(released)
    for draw in (comparison_plots.two_questions, comparison_plots.models_compared):
        fig = draw(record)
        storage.write_bytes(project / IMAGES / f"{draw.__name__}.png", style.png(fig))
        plt.close(fig)
    storage.write_bytes(readme, f"{before}{MARKS[0]}\n{front_page(record)}\n{MARKS[1]}{after}".encode())
    storage.write_bytes(project / RESULTS, results_page(released, record).encode())


def front_page(record: dict) -> str:
    """Markdown of the figure and of a table of deviations at held-out temperatures and errors on held-out frames."""
    errors = {model: _deviations(record, model) for model in MODELS}
    forces = [f"{record['models'][model]['test']['force_mae_meV_per_A']:.0f} meV/Å" for model in MODELS]
    rows = {
        "elastic constants, mean deviation from experiment": [_said(errors[m], "elastic", "held_out") for m in MODELS],
        "lattice constants a and c, mean deviation": [_said(errors[m], "lattice", "held_out") for m in MODELS],
        "stress at the measured lattice constants, largest": [_said(errors[m], "stress", "held_out") for m in MODELS],
        f"forces on DFT frames (below {comparison.USUAL_FORCE:g} eV/Å), mean absolute error": forces,
    }
    words = "; ".join(
        f"{results.TITLES[model]} {_said(errors[model], 'elastic', 'held_out')} and {force}"
        for model, force in zip(MODELS, forces, strict=True)
    )
    table = [
        f"| titanium, held out from training | {' | '.join(results.TITLES[model] for model in MODELS)} |",
        "|---|" + "---:|" * len(MODELS),
        *(f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items()),
    ]
    return f"""![How far three titanium models are from measured elastic constants and from DFT forces: {words}.]\
({IMAGES / "two_questions.png"})

{chr(10).join(table)}"""


def results_page(released: Path, record: dict) -> str:
    """Markdown of the page of results: the figure, how the models were made, and all numbers."""
    models = [released / f"titanium-{model}.safetensors" for model in MODELS]
    minutes = sum(storage.read_metadata(path)["about"]["seconds"] for path in models) / 60
    size = sum(x.size for x in jax.tree.leaves(Potential.load(models[0]).params))
    by_family = tables.error_table({model: found["by_family"] for model, found in record["models"].items()})
    frames, errors = record["frames"], {model: _deviations(record, model) for model in MODELS}
    words = "; ".join(
        f"{results.TITLES[model]} {_said(found, 'elastic', 'held_out')}" for model, found in errors.items()
    )
    return f"""# Results: three models of titanium

Written by `fusedff release`, from the record of the models that ship.

![Three titanium models against experiment, against DFT, and beyond the targets. Mean deviation of the elastic \
constants at held-out temperatures: {words}.](../{IMAGES / "models_compared.png"})

Results of `make run PRESET={record["preset"]}` after {minutes:.0f} min of training, with
{sum(frames.values())} frames of PBE-DFT ({frames["train"]} for training, {frames["validation"]} for validation,
{frames["test"]} for the test) and a network of {size} parameters; ± is one standard error of the sampling. Settings,
versions and seeds are in the record (`fusedff/data/files/titanium.json`) and on the [model card](model_card.md).
Elastic constants are adiabatic, like the measured ones. Targets of the training were elastic constants, and zero
stress along a and c at the measured lattice constants.

```text
{tables.comparison_table(record)}
```

At the measured temperatures that were not trained on, the fused model's elastic constants are off by
{_said(errors["fused"], "elastic", "held_out")}, its stresses by up to {_said(errors["fused"], "stress", "held_out")}
([notebook 07](_notebooks/07_targets_and_held_out_temperatures)). Straight lines through the measured constants of the
four trained temperatures do as well (0.34 %; because of the noise of the simulations, even a perfect model would be
0.35 % off), but a model also predicts what was not measured. The measured lattice constants are those of the paper,
which lie on straight lines above 173 K. Other measurements differ from them by more than the fused model does: c is
0.1 % longer at 298 K, and of two measurements of its thermal expansion one agrees with the table and the other one
gives a c that is 0.3 % longer at 900 K.

{_two_evaluations(record)}

## At rest: the error of the functional and that of the fit

Elastic constants at 0 K in the cell measured at 4 K. The difference of PBE from the measured constants is the error of
the functional in this cell; the difference of DFT-only from PBE is that of the fit. PBE's constants are known to
{_uncertainty_of_pbe(record)}. In this cell DFT-only is under stress; [notebook 08](_notebooks/08_beyond_the_targets)
computes its constants without stress as well.

```text
{tables.static_elastic_table(record["at_rest"])}
```

## Held-out DFT frames

Root mean square / mean absolute errors of the three models, by source and family. Frames with a force of
{comparison.USUAL_FORCE:g} eV/Å or more have a row of their own and are in no other. In one of these, an interstitial,
two atoms are 0.74 Å apart. At this distance the models have the screened repulsion of the nuclei (ZBL), a force of
1300 eV/Å. The DFT label is 280 eV/Å; it is not reliable, because the frozen cores of the two atoms overlap. The zero of
energy of the second source is fitted. Settings of the preset were compared on these frames while it was developed, so
that the errors may be a little too small.

```text
{by_family}
```

## Beyond the targets

From [notebook 08](_notebooks/08_beyond_the_targets). `?` marks a reference that was not looked up in its source.

{_right_and_wrong(record)}

```text
{tables.off_target_table(record["off_target"])}
```

{_diffusion(record)}
"""


def _two_evaluations(record):
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


def _uncertainty_of_pbe(record):
    known = references.select(references.load(), "Ti", "hcp", kind="DFT")
    errors = [r.uncertainty for r in known if r.quantity in record["at_rest"]["PBE"]]
    return f"{min(errors):g} to {max(errors):g} GPa"


def _right_and_wrong(record):
    """Which properties of the fused model that were not targets agree with DFT and which do not, in words."""
    rows = {row["quantity"]: row for row in record["off_target"]}
    energies = [f"{structure} above hcp" for structure in ("bcc", "fcc", "omega")]
    wrong = {
        "vacancy formation": "the vacancy", "basal stacking fault": "the basal stacking fault",
        "hcp bulk modulus, slope dB/dp": "the slope dB/dp of the bulk modulus",
    }  # fmt: skip
    if not {*energies, *wrong} <= rows.keys():
        return ""
    of_dft = {name: [r["value"] for r in row["references"] if r["kind"] == "DFT"] for name, row in rows.items()}
    off = max(abs(rows[name]["models"]["fused"]["value"] - of_dft[name][0]) for name in energies)
    said = []
    for name, title in wrong.items():
        row, known = rows[name], of_dft[name]
        value = f"{row['models']['fused']['value']:.{row['digits']}f}"
        between = " to ".join(f"{x:.{row['digits']}f}" for x in sorted({min(known), max(known)}))
        unit = "" if row["unit"] == "GPa/GPa" else f" {row['unit']}"
        said.append(f"{title} ({value}{unit}; DFT {between})")
    return _paragraph(
        f"The fused model has the energies of bcc, fcc and omega above hcp within {off:.1f} meV/atom of DFT. Not right "
        f"are {_listed(said)}."
    )


def _diffusion(record):
    checks = record["settings"]["checks"]
    atoms, replicas = 2 * math.prod(checks["liquid_repeats"]), checks["liquid"]["replicas"]
    return _paragraph(
        f"Self-diffusion is that of a cell of {atoms} atoms; in a large cell it would be about a quarter larger "
        f"(notebook 08). Its error bar is the scatter of {replicas} replicas."
    )


_PARTS = ("trained", "held_out")


# Of each deviation what measures it, its unit as in names, its unit as text and digits worth showing.
_MEASURES = {
    "elastic": (results.elastic_deviation, "percent", "%", 1),
    "lattice": (results.lattice_deviation, "percent", "%", 2),
    "stress": (results.largest_stress, "GPa", "GPa", 2),
}


def _said(errors, measure, part):
    """A deviation with its standard error and unit."""
    _, name, unit, digits = _MEASURES[measure]
    value, noise = (errors[f"{measure}_{part}_{name}{end}"] for end in ("", "_stderr"))
    return f"{tables.value_and_error(value, noise, digits)} {unit}"


def _deviations(record, model):
    """Deviations of elastic constants and lattice parameters, %, and of stresses, GPa, by role of temperatures."""
    found, train = record["temperatures"]["models"][model], record["temperatures"]["train"]
    result = {}
    for part, points in results.split_by_training(found, train).items():
        for measure, (deviation, name, _, _) in _MEASURES.items():
            result[f"{measure}_{part}_{name}"], result[f"{measure}_{part}_{name}_stderr"] = deviation(points)
    return result


def model_card(folder: RunFolder, record: dict) -> str:
    """Markdown of the model card: models, training data, errors and limits."""
    network = Potential.load(folder.path / "dft" / "potential.safetensors")
    size, architecture = sum(x.size for x in jax.tree.leaves(network.params)), vars(network.model)
    frames, versions = record["frames"], ", ".join(f"{n} {v}" for n, v in record["versions"].items())
    train = ", ".join(f"{t:g}" for t in record["temperatures"]["train"])
    seconds = "; ".join(f"{results.TITLES[m]} {folder.seconds(m):.0f} s" for m in MODELS)
    lines = [
        "| | trained temperatures: C off by | held-out: C off by | trained: largest stress off by | held-out: stress | "
        "energy | forces | stress label |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for model in MODELS:
        errors = record["models"][model]["test"] | _deviations(record, model)
        cells = [
            *(_said(errors, "elastic", part) for part in _PARTS),
            *(_said(errors, "stress", part) for part in _PARTS),
            f"{errors['energy_mae_meV_per_atom']:.1f} meV/atom", f"{errors['force_mae_meV_per_A']:.0f} meV/Å",
            tables.stress_error(errors),
        ]  # fmt: skip
        lines.append(f"| {results.TITLES[model]} | " + " | ".join(cells) + " |")
    noise = max(
        entry["stderr"] for found in record["temperatures"]["models"].values() for point in found.values()
        for entry in point["elastic"].values()
    )  # fmt: skip
    return f"""# Model card: titanium-dft, titanium-experiment, titanium-fused

Written by `python -m fusedff release --preset {record["preset"]}` from a run of `make run PRESET={record["preset"]}`.

**What they are.** Three DimeNet++ potentials of one architecture ({architecture["blocks"]} blocks, embedding
{architecture["embedding"]}, {size} parameters, cut-off {network.model.cutoff:g} Å) for titanium; units eV and Å.

**Training data.** DFT: {record["data"]}; {frames["train"]} frames for training, {frames["validation"]} for
validation, {frames["test"]} for the test. Experiment: elastic constants at {train} K and zero stress at the
measured lattice constants. DFT-only was trained on the DFT frames. The other two start from it: experiment-only was
trained on the measurements, fused on both.

**Errors.** Elastic constants and stresses: mean relative deviation and largest deviation from experiment,
in simulations that no training step used, with one standard error of the sampling (of a single constant: at most
{noise:.1f} GPa). Energies, forces and stress: mean absolute errors on the test frames whose forces are all below
{comparison.USUAL_FORCE:g} eV/Å. No test frame was trained on, but settings of the preset (epochs, weights of frames and
labels) were compared on them while it was developed, so that their errors may be a little too small.

{chr(10).join(lines)}

{_two_evaluations(record)}

The fused model, number by number: deviation from experiment in % of the measured constant, and of the stresses in GPa.

{_number_by_number(record)}

**Limits.** Tested for hcp titanium at the measured lattice constants between 4 and 973 K. Other structures, phonons,
the liquid, defects and surfaces were not targets; the table compares them with references (notebook 08; `?`: a
reference that was not looked up in its source). The DFT frames have at most 64 atoms, those of surfaces and stacking
faults are small unrelaxed cells. One seed was trained, so that the errors above do not contain the scatter between
trainings.

{_right_and_wrong(record)}

```text
{tables.off_target_table(record["off_target"])}
```

{_diffusion(record)}

**How they were made.** Preset `{record["preset"]}`, seeds {record["seeds"]["training"]} (training) and
{record["seeds"]["evaluation"]} (evaluation); training took {seconds}; {versions}. Every file holds its settings.
"""


def _number_by_number(record) -> str:
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
