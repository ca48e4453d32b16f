"""Release the models of a finished run: model files with their errors, a model card, the record, pages of results.

Written are the files that ship::

    titanium-dft.safetensors, titanium-experiment.safetensors, titanium-fused.safetensors
    titanium.json   results of notebooks 06, 07 and 08
    MODELS.md       the model card

and, in a checkout, the results in README.md (between two marks) and docs/results.md.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt

from fusedff import results, tables
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
        "temperatures": folder.read("temperatures.json", "models", "train"),
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
four trained temperatures do as well (0.3 %), but a model also predicts what was not measured. The measured
lattice constants are those of the paper, which lie on straight lines above 173 K; other measurements of c are 0.1 %
longer at 298 K and about 0.3 % at 900 K, more than the fused model differs from the table.

## At rest: the error of the functional and that of the fit

Elastic constants at 0 K in the cell measured at 4 K. The difference of PBE from the measured constants is the error of
the functional in this cell; the difference of DFT-only from PBE is that of the fit. In this cell DFT-only is under
stress; [notebook 08](_notebooks/08_beyond_the_targets) computes its constants without stress as well.

```text
{tables.static_elastic_table(record["at_rest"])}
```

## Held-out DFT frames

Root mean square / mean absolute errors of the three models, by source and family. Frames with a force of
{comparison.USUAL_FORCE:g} eV/Å or more have a row of their own and are in no other. In one of these, an interstitial,
two atoms are 0.74 Å apart. There the models have the ZBL repulsion of nuclei with their electrons, 1300 eV/Å, where the
label, of a calculation whose frozen cores overlap, is 280 eV/Å. The zero of energy of the second source is fitted.

```text
{by_family}
```

## Beyond the targets

From [notebook 08](_notebooks/08_beyond_the_targets). `?` marks a reference that was not looked up in its source.

```text
{tables.off_target_table(record["off_target"])}
```
"""


_PARTS = ("trained", "held_out")


# Of each deviation what measures it, its unit as in names, its unit as text and digits worth showing.
_MEASURES = {
    "elastic": (results.elastic_deviation, "percent", "%", 1),
    "lattice": (results.lattice_deviation, "percent", "%", 2),
    "stress": (results.largest_stress, "GPa", "GPa", 2),
}


def _said(errors, measure, part):
    """A deviation with its standard error; more digits where the error would read 0."""
    _, name, unit, digits = _MEASURES[measure]
    value, noise = (errors[f"{measure}_{part}_{name}{end}"] for end in ("", "_stderr"))
    while digits < 4 and round(noise, digits) == 0:
        digits += 1
    return f"{value:.{digits}f} ± {noise:.{digits}f} {unit}"


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
measured lattice constants. DFT-only was trained on the first. The trainings of the other two start from DFT-only;
experiment-only was trained on the second, fused on both.

**Errors.** Elastic constants and stresses: mean relative deviation and largest deviation from experiment,
in simulations that no training step used, with one standard error of the sampling (of a single constant: at most
{noise:.1f} GPa). Energies, forces and stress: mean absolute errors on the test frames whose forces are all below
{comparison.USUAL_FORCE:g} eV/Å. No test frame was trained on, but settings of the preset (epochs, weights of frames and
labels) were compared on them while it was developed, so that their errors may be a little too small.

{chr(10).join(lines)}

The fused model, number by number: deviation from experiment in % of the measured constant, and of the stresses in GPa.

{_number_by_number(record)}

**Limits.** Tested for hcp titanium at the measured lattice constants between 4 and 973 K. Other structures, phonons,
the liquid, defects and surfaces were not targets; the table compares them with references (notebook 08; `?`: a
reference that was not looked up in its source). The DFT frames have at most 64 atoms, those of surfaces and stacking
faults are small unrelaxed cells. One seed was trained, so that the errors above do not contain the scatter between
trainings.

```text
{tables.off_target_table(record["off_target"])}
```

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
        cells = ["{:+.1f} ± {:.1f}".format(*results.relative_deviation(entry)) for entry in point["elastic"].values()]
        cells += [
            "{:+.2f} ± {:.2f}".format(*results.absolute_deviation(entry)) for entry in results.stresses(point).values()
        ]
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
