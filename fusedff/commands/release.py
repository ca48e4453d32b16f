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
from fusedff.commands.record_in_words import (
    PARTS,
    deviation,
    deviations,
    diffusion,
    number_by_number,
    right_and_wrong,
    two_evaluations,
    uncertainty_of_pbe,
)
from fusedff.plotting import comparison as comparison_plots
from fusedff.plotting import style
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import comparison
from fusedff.study.run_folder import MODELS, RECORD, RunFolder, shipped_record


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
        about["errors"] = record["models"][model]["test"] | deviations(record, model)
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
    errors = {model: deviations(record, model) for model in MODELS}
    forces = [f"{record['models'][model]['test']['force_mae_meV_per_A']:.0f} meV/Å" for model in MODELS]
    rows = {
        "elastic constants, mean deviation from experiment": [
            deviation(errors[m], "elastic", "held_out") for m in MODELS
        ],
        "lattice constants a and c, mean deviation": [deviation(errors[m], "lattice", "held_out") for m in MODELS],
        "stress at the measured lattice constants, largest": [
            deviation(errors[m], "stress", "held_out") for m in MODELS
        ],
        f"forces on DFT frames (below {comparison.USUAL_FORCE:g} eV/Å), mean absolute error": forces,
    }
    words = "; ".join(
        f"{results.TITLES[model]} {deviation(errors[model], 'elastic', 'held_out')} and {force}"
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
    frames, errors = record["frames"], {model: deviations(record, model) for model in MODELS}
    words = "; ".join(
        f"{results.TITLES[model]} {deviation(found, 'elastic', 'held_out')}" for model, found in errors.items()
    )
    of_constants, of_stresses = (deviation(errors["fused"], measure, "held_out") for measure in ("elastic", "stress"))
    return f"""# Results: three models of titanium

Written by `fusedff release`, from the record of the models that ship.

![Three titanium models against experiment, against DFT, and beyond the targets. Mean deviation of the elastic \
constants at held-out temperatures: {words}.](../{IMAGES / "models_compared.png"})

Results of `make run PRESET={record["preset"]}` after {minutes:.0f} min of training, with
{sum(frames.values())} frames of PBE-DFT ({frames["train"]} for training, {frames["validation"]} for validation,
{frames["test"]} for the test) and a network of {size} parameters; ± is one standard error of the sampling. Settings,
versions and seeds are in the record (`fusedff/data/files/titanium.json`) and on the [model card](model_card.md).
Elastic constants are adiabatic, like the measured ones. Targets of the training were elastic constants, and zero
stress along a and c at the measured lattice constants. The last lines of the table say whether a model meets the three
bounds of [notebook 06](_notebooks/06_verdict).

```text
{tables.comparison_table(record)}
```

At the measured temperatures that were not trained on, the fused model's elastic constants are off by
{of_constants}, its stresses by up to {of_stresses}
([notebook 07](_notebooks/07_targets_and_held_out_temperatures)). Straight lines through the measured constants of the
four trained temperatures are closer (0.34 %), but they are without noise; because of the noise of the simulations,
even a perfect model would be 0.35 % off. And a model also predicts what was not measured. The measured lattice
constants are those of the paper, which lie on straight lines above 173 K. Other measurements differ from them by more
than the fused model does: c is 0.1 % longer at 298 K, and of two measurements of its thermal expansion one agrees with
the table and the other one gives a c that is 0.3 % longer at 900 K.

{two_evaluations(record)}

## At rest: the error of the functional and that of the fit

Elastic constants at 0 K in the cell measured at 4 K. The difference of PBE from the measured constants is the error of
the functional in this cell; the difference of DFT-only from PBE is that of the fit. PBE's constants are known to
{uncertainty_of_pbe(record)}. In this cell DFT-only is under stress; [notebook 08](_notebooks/08_beyond_the_targets)
computes its constants without stress as well.

```text
{tables.static_elastic_table(record["at_rest"])}
```

## Held-out DFT frames

Root mean square / mean absolute errors of the three models, by source (gpaw: frames of this project; vasp: those of the
second set) and family. Frames with a force of
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

{right_and_wrong(record)}

```text
{tables.off_target_table(record["off_target"])}
```

{diffusion(record)}
"""


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
        errors = record["models"][model]["test"] | deviations(record, model)
        cells = [
            *(deviation(errors, "elastic", part) for part in PARTS),
            *(deviation(errors, "stress", part) for part in PARTS),
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

{two_evaluations(record)}

The fused model, number by number: deviation from experiment in % of the measured constant, and of the stresses in GPa.

{number_by_number(record)}

**Limits.** Tested for hcp titanium at the measured lattice constants between 4 and 973 K. Other structures, phonons,
the liquid, defects and surfaces were not targets; the table compares them with references (notebook 08; `?`: a
reference that was not looked up in its source). The DFT frames have at most 64 atoms, those of surfaces and stacking
faults are small unrelaxed cells. The errors above do not contain the scatter between trainings. It follows from the
models of the same training with other seeds, `titanium-dft-seed1` and so on, which ship as well
(`fusedff.load_committee`; `benchmarks/results/committee.md`).

{right_and_wrong(record)}

```text
{tables.off_target_table(record["off_target"])}
```

{diffusion(record)}

**How they were made.** Preset `{record["preset"]}`, seeds {record["seeds"]["training"]} (training) and
{record["seeds"]["evaluation"]} (evaluation); training took {seconds}; {versions}. Every file holds its settings.
"""
