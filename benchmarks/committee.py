"""Training error: titanium models of several seeds (of weights, split, batches and trajectories), trained alike.

The models that ship without a number are seed 0; their elastic constants are those of the record that ships with them.
Those of other seeds are trained with the same preset, in an hour and a half each on one core, and their energies count
from the same zero; `committee/titanium-MODEL-seedN.safetensors` below `--into` are the files to ship in
`fusedff/data/files`. Each seed is stored as soon as it is done, a training that was interrupted is resumed, and a
finished one is not repeated.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ase import Atoms

from benchmarks import record, starts
from fusedff import results, tables
from fusedff.commands import training
from fusedff.commands.material import Material
from fusedff.data import labelled_frames
from fusedff.data.splits import Split
from fusedff.measurements import references, state_points
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import comparison, presets, run_folder
from fusedff.study.presets import HOURS, Preset
from fusedff.study.run_folder import MODELS
from fusedff.training import label_errors

SEEDS = (0, 1, 2)
SHIPPED = 0  # seed of the models that ship without a number
TEMPERATURES = (23, 323, 623, 923, 173, 473, 773, 973)  # K, of the evaluation; the last four are held out


def run(into: Path, preset: Preset = HOURS, seeds: Sequence[int] = SEEDS) -> Iterator[dict]:
    """Yield the results so far, after every seed: settings, data and `members`, seed -> model -> results."""
    split = comparison.frames(preset)
    held_out, _ = comparison.below(
        _held_out(split, study_of(SEEDS[-1], into, preset, split).split), comparison.USUAL_FORCE
    )
    data = comparison.data_version(preset, split)
    asked = {"settings": presets.as_dict(preset), "data": data, "held_out": len(held_out)}
    members = record.load_if_same("committee", asked, into).get("members", {})
    for seed in seeds:
        if str(seed) not in members:
            study = study_of(seed, into / "committee", preset, split)
            if seed == SHIPPED:
                models, found = {name: Potential.load(f"titanium-{name}") for name in MODELS}, recorded()
            else:
                found = {name: one["experiment"] for name, one in training.train(study)["models"].items()}
                models = {name: _to_ship(study, name, seed) for name in MODELS}
            members = members | {str(seed): {name: _result(models[name], found[name], held_out) for name in MODELS}}
        yield asked | {"members": members}


def study_of(seed: int, into: Path, preset: Preset, split: Split) -> Material:
    """Input of the training with a seed, as for `fusedff train`."""
    table = comparison.measured(preset)
    shown = state_points.select(table, temperatures=TEMPERATURES)
    frames = tuple(frame for part in split for frame in part)
    seeded = presets.with_seed(preset, seed)
    return Material(into / f"seed-{seed}", frames, shown, comparison.targets(preset, table), seeded)


def _to_ship(study: Material, name: str, seed: int) -> Potential:
    """A model of a seed, with the zero of energy of those that ship without a number; it is also saved for shipping."""
    file = study.output / name / "potential.safetensors"
    zero = Potential.load(f"titanium-{name}").source
    frames = [frame for frame in study.split.train if labelled_frames.source(frame) == zero]
    model = label_errors.with_zero_of(Potential.load(file), frames)
    about = storage.read_metadata(file)["about"]
    model.save(study.output.parent / f"titanium-{name}-seed{seed}.safetensors", **about)
    return model


def _held_out(*splits: Split) -> list[Atoms]:
    """Test frames of all splits: those of the trainings below depend on the order of the frames, not on the seed."""
    of_all = set.intersection(*({_name(frame) for frame in split.test} for split in splits))
    return [frame for frame in splits[0].test if _name(frame) in of_all]


def _name(frame):
    return labelled_frames.source(frame), frame.info["config_id"]


def recorded() -> dict:
    """Model -> temperature -> elastic constants, stresses and lattice parameters of the models that ship."""
    every = run_folder.shipped_record()["temperatures"]["models"]
    return {name: {f"{t}": every[name][f"{t}"] for t in TEMPERATURES} for name in MODELS}


def _result(model: Potential, experiment: dict, held_out: Sequence[Atoms]) -> dict:
    """Digest, errors on frames, elastic constants and static properties, for `results.average_members`."""
    test = label_errors.errors(model, held_out)
    at_rest = starts.untrained_quantities(model) | {"forces": test["force_mae_meV_per_A"]}
    return {
        "digest": storage.digest(model.params),
        "test": test,
        "experiment": experiment,
        "beyond": {quantity: {"value": at_rest.get(quantity), "stderr": None} for quantity in starts.QUANTITIES},
    }


def text(found: dict, about: dict) -> str:
    """Report in Markdown: means over the members with sampling and training errors."""
    members = found["members"]
    if several := len(members) > 1:
        models = {name: results.average_members([member[name] for member in members.values()]) for name in MODELS}
    else:
        (models,) = members.values()
    known = references.select(references.load(), "Ti")
    rows = [
        [
            quantity,
            "-" if quantity == "forces" else f"{starts.value_of_pbe(known, quantity):.{digits}f}",
            *(_said(found["beyond"].get(quantity), digits) for found in models.values()),
        ]
        for quantity, digits in starts.QUANTITIES.items()
    ]
    table = tables.comparison_table({"models": models} | ({"members": members} if several else {}))
    return f"""# Trainings that differ in their seeds

{record.describe(about)} Models of preset `{found["settings"]["name"]}`. Data: {found["data"]}.
Errors on frames are those on {found["held_out"]} frames that no training used (forces below
{comparison.USUAL_FORCE:g} eV/Å).

```text
{table}
```

Properties that were not trained on; in brackets the standard deviation over the trainings;
{starts.UNITS}.

{record.table(["quantity", "DFT (PBE)", *(results.TITLES[name] for name in models)], rows)}
"""


def _said(entry: dict | None, digits: int) -> str:
    if entry is None or entry["value"] is None:
        return "-"
    return f"{entry['value']:.{digits}f}" + (f" ({entry['spread']:.{digits}f})" if "spread" in entry else "")
