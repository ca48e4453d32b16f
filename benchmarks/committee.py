"""Training error: titanium models of several seeds (of weights, batches and trajectories), trained in the same way.

The models that ship are one member. Those of other seeds are trained here with the same preset, for more than an hour
each on two cores. Each is stored as soon as it is done, and a training that was interrupted is resumed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import record, starts
from fusedff import results, tables
from fusedff.commands import training
from fusedff.commands.material import Material
from fusedff.measurements import state_points
from fusedff.potential import Potential
from fusedff.properties.thermal import elastic
from fusedff.study import comparison, presets
from fusedff.study.presets import HOURS, Preset
from fusedff.study.run_folder import MODELS
from fusedff.training import label_errors

SEEDS = (0, 1, 2, 3, 4)
SHIPPED = 0  # seed of the models that ship
TEMPERATURES = (23, 323, 623, 923, 173, 473, 773, 973)  # K, of the evaluation; the last four are held out


def run(into: Path, preset: Preset = HOURS, seeds: Sequence[int] = SEEDS) -> Iterator[dict]:
    """Yield the results so far, after every seed: settings, data and `members`, seed -> model -> results."""
    split = comparison.frames(preset)
    asked = {"settings": presets.as_dict(preset), "data": comparison.data_version(preset, split)}
    members = record.load_if_same("committee", asked, into).get("members", {})
    for seed in seeds:
        if str(seed) not in members:
            study = study_of(seed, into / "committee", preset, split)
            found = shipped(study) if seed == SHIPPED else training.train(study)["models"]
            members = members | {str(seed): {name: _result(seed, name, found[name], study) for name in MODELS}}
        yield asked | {"members": members}


def study_of(seed: int, into: Path, preset: Preset, split) -> Material:
    """Input of the training with a seed, as for `fusedff train`."""
    table = comparison.measured(preset)
    shown = state_points.select(table, temperatures=TEMPERATURES)
    frames = tuple(frame for part in split for frame in part)
    seeded = presets.with_seed(preset, seed)
    return Material(into / f"seed-{seed}", frames, shown, comparison.targets(preset, table), seeded)


def shipped(study: Material) -> dict:
    """Elastic constants of the models that ship, simulated as those of the other seeds."""
    simulated = {
        name: elastic.run(_load(SHIPPED, name, study), study.points, study.preset.evaluation) for name in MODELS
    }
    return {name: {"experiment": found.by_temperature()} for name, found in simulated.items()}


def _load(seed: int, name: str, study: Material) -> Potential:
    file = f"titanium-{name}" if seed == SHIPPED else study.output / name / "potential.safetensors"
    return Potential.load(file)


def _result(seed: int, name: str, found: dict, study: Material) -> dict:
    """Errors on frames, elastic constants and static properties as entries for `results.average_members`."""
    potential, (frames, _) = _load(seed, name, study), comparison.below(study.split.test, comparison.USUAL_FORCE)
    at_rest = starts.untrained_quantities(potential, frames)
    entries = {quantity: {"value": value, "stderr": None} for quantity, value in at_rest.items()}
    return {"test": label_errors.errors(potential, frames), "experiment": found["experiment"], "beyond": entries}


def text(found: dict, about: dict) -> str:
    """Report in Markdown: means over the members with sampling and training errors."""
    members = found["members"]
    if several := len(members) > 1:
        models = {name: results.average_members([member[name] for member in members.values()]) for name in MODELS}
    else:
        (models,) = members.values()
    rows = [
        [quantity, *(_said(found["beyond"].get(quantity), digits) for found in models.values())]
        for quantity, digits in starts.QUANTITIES.items()
    ]
    table = tables.comparison_table({"models": models} | ({"members": members} if several else {}))
    return f"""# Trainings that differ in their seeds

{record.describe(about)} Models of preset `{found["settings"]["name"]}`. Data: {found["data"]}.

```text
{table}
```

Properties that were not trained on; in brackets the standard deviation over the trainings. Energies above hcp in
meV/atom, phonons in THz, surfaces in J/m^2, mean absolute force errors in meV/Å.

{record.table(["quantity", *(results.TITLES[name] for name in models)], rows)}
"""


def _said(entry: dict | None, digits: int) -> str:
    if entry is None or entry["value"] is None:
        return "-"
    return f"{entry['value']:.{digits}f}" + (f" ({entry['spread']:.{digits}f})" if "spread" in entry else "")
