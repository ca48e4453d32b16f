"""Train and evaluate the three models of a material. Below its folder `output`::

    dft/ experiment/ fused/   models with their histories, settings and checkpoints (`study.run_folder`)
    summary.json, MODELS.md   errors, elastic constants, other targets, settings, versions; the model card
    tables/ figures/          CSV and PNG

With several seeds all that is in a folder `seed-N` for each of them, and the last two lines hold means and spreads.
"""

import statistics
import warnings
from collections.abc import Mapping

import jax
import matplotlib.pyplot as plt
import numpy as np

from fusedff import results, tables
from fusedff.commands import targets
from fusedff.commands.material import Material, describe
from fusedff.data import datasets, labelled_frames
from fusedff.plotting import comparison as comparison_plots
from fusedff.plotting import data as data_plots
from fusedff.plotting import properties, style
from fusedff.plotting import training as training_plots
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.simulation.langevin import ExplodedTrajectoryError
from fusedff.study import comparison, presets, run_folder
from fusedff.study.run_folder import MODELS, RunFolder
from fusedff.training import checkpoints, difftre, force_matching, fused


def train(material: Material, say=print) -> dict:
    """Train the three models, evaluate them and leave everything in the output folder; returns what the summary holds.

    For a committee, this is done once per seed; the summary then holds means, with the training error as `spread` of
    every entry, and under `members` the results of each training. A training that an earlier call has finished is not
    repeated; one that was interrupted resumes from its last epoch. `say` gets a line before each step.
    """
    with style.watermarked(presets.note(material.preset)):
        return _train_committee(material, say) if material.seeds else _train_one(material, say)


def _train_committee(material: Material, say) -> dict:
    members, found = material.members, {}
    for member in members.values():
        _ = member.split  # an error here comes before hours of training
    for n, (seed, member) in enumerate(members.items()):
        say(f"seed {seed}, {n + 1} of {len(members)}")
        found[seed] = _train_one(member, say)
    each = list(found.values())
    result = each[0] | {
        "models": results.average_members([one["models"] for one in each]),
        "members": {seed: one["models"] for seed, one in found.items()},
        "seconds": {name: sum(one["seconds"][name] for one in each) for name in MODELS},
    }
    _write(material, result, _comparisons(material, result))
    return result


def _train_one(material: Material, say) -> dict:
    preset, split, points = material.preset, material.split, material.train_points
    folder = RunFolder(material.output)
    folder.path.mkdir(parents=True, exist_ok=True)
    identity = {
        "learned_from": storage.digest(
            {"frames": checkpoints.data_of_frames(material.frames, "all"), "table": points, "targets": material.targets}
        ),
        "compared_with": storage.digest(material.points),
        "settings": presets.as_dict(preset),
        "versions": run_folder.versions(),
    }
    if finished := _finished(folder, identity):
        say(f"{folder.path}: finished before")
        return finished
    models, histories = _three_models(material, folder, say)
    found = {}
    for name, model in models.items():
        evaluation, of = f"{name}/evaluation.json", storage.digest({"of": identity, "params": model.params})
        kept = folder.read(evaluation) if (folder.path / evaluation).exists() else {}
        if kept.get("digest") != of:
            say(f"{results.TITLES[name]}: evaluation at {', '.join(f'{p.temperature:g}' for p in material.points)} K")
            kept = {"digest": of, "found": _evaluated(model, material, name, histories[name])}
            folder.write(evaluation, kept)  # a later one that fails or is interrupted costs nothing of this one
        found[name] = kept["found"]
    result = identity | {
        "material": str(material.points[0].crystal),
        "models": found,
        "outliers": comparison.doubted(models["dft"], split),
        "frames": {part: len(members) for part, members in split._asdict().items()},
        "trained_K": list(preset.train_temperatures),
        "preset": preset.name,
        "seconds": {name: folder.seconds(name) for name in MODELS},
    }
    _write(material, result, _comparisons(material, result) | {
        **{f"parity-{name}": data_plots.parity(*comparison.predictions(model, split.test), comparison.UNITS)
           for name, model in models.items()},
        **{f"training-{name}": training_plots.convergence(histories[name], points) for name in ("experiment", "fused")},
    })  # fmt: skip
    return result


def _evaluated(model, material: Material, name, history) -> dict:
    """`comparison.evaluate_model` and the further targets.

    It is without elastic constants, and with a warning, if a simulation explodes.
    """
    test, preset, title = material.split.test, material.preset, f"{results.TITLES[name]}: elastic constants"
    try:
        found = comparison.evaluate_model(model, test, material.points, preset, title)
    except ExplodedTrajectoryError as error:
        warnings.warn(f"{title}: {error}. No constants of this model are shown", stacklevel=2)
        found = comparison.evaluate_model(model, test, (), preset, title)
    sampling = preset.experiment.sampling
    found |= targets.evaluate(material.targets, model, preset.evaluation, sampling, results.TITLES[name])
    return found | {"in_training": {one.name: one.last(history) for one in material.targets if name != "dft"}}


def _three_models(material: Material, folder: RunFolder, say) -> tuple[dict, dict]:
    """The models by name, each kept as soon as it is trained, and the histories of their trainings."""
    preset, split, points = material.preset, material.split, material.train_points
    # Whose zero of energy becomes the potential's: all frames say, because the training frames differ between seeds.
    source = statistics.mode(map(labelled_frames.source, material.frames))
    start = Potential.create(
        jax.random.PRNGKey(preset.seed), preset.network, datasets.fit_reference_energies(split.train, source),
        preset.energy_scale, source=source,
    )  # fmt: skip

    def measured(settings):
        return [*points, *(one.in_training(dft, settings.sampling) for one in material.targets)]

    def learn(name, train_one, settings):
        say(f"{results.TITLES[name]}: training")
        with folder.timed(name):
            trained, history = train_one(checkpoint=folder.checkpoint(name))
        folder.save(name, trained, history, settings)
        jax.clear_caches()  # programs of a finished training only hold memory
        return trained, history

    models, histories = {}, {}
    models["dft"], histories["dft"] = learn(
        "dft", lambda **kw: force_matching.train(start, split.train, split.validation, preset.dft, **kw), preset.dft
    )
    dft = models["dft"]
    models["experiment"], histories["experiment"] = learn(
        "experiment",
        lambda **kw: difftre.train(dft, measured(preset.experiment), preset.experiment, **kw),
        preset.experiment,
    )
    models["fused"], histories["fused"] = learn(
        "fused",
        lambda **kw: fused.train(dft, measured(preset.fused.experiment), split.train, preset.fused, **kw),
        preset.fused,
    )
    return models, histories


def _finished(folder: RunFolder, identity: Mapping) -> dict | None:
    """What an earlier call has found with the same settings, data and versions, if its models are still there."""
    needed = ["summary.json", *(f"{model}/potential.safetensors" for model in MODELS)]
    if not all((folder.path / name).exists() for name in needed):
        return None
    found = folder.read("summary.json")
    return found if all(found.get(key) == value for key, value in storage.json_roundtrip(identity).items()) else None


def _write(material: Material, result: Mapping, figures: Mapping) -> None:
    """The results as files: tables, model card, figures and, when all these are there, the summary."""
    folder, models = RunFolder(material.output), result["models"]
    folder.write_table("elastic", results.elastic_rows({name: model["experiment"] for name, model in models.items()}))
    folder.write_table("errors", [
        {"seed": seed, "model": name} | found["test"]
        for seed, one in result.get("members", {str(material.preset.seed): models}).items()
        for name, found in one.items()
    ])  # fmt: skip
    if rows := results.target_rows(models):
        folder.write_table("targets", rows)
    for name, of_models in _curves(models).items():
        folder.write_table(targets.file_name(name), results.curve_rows(of_models))
    storage.write_bytes(folder.path / "MODELS.md", model_card(material, result).encode())
    for name, figure in figures.items():
        storage.write_bytes(folder.path / "figures" / f"{name}.png", style.png(figure))
        plt.close(figure)
    folder.write("summary.json", result)


def _comparisons(material: Material, result: Mapping) -> dict:
    models = result["models"]
    return {
        "frames": data_plots.frames_overview(material.frames),
        "elastic": properties.elastic_against_temperature(
            {name: found["experiment"] for name, found in models.items()}, material.points
        ),
        "errors": comparison_plots.held_out({name: found["test"] for name, found in models.items()}),
        **{targets.file_name(name): _curve_figure(name, found) for name, found in _curves(models).items()},
    }


def _curves(models) -> dict[str, dict]:
    """Curves by target and model, without those of models whose simulation exploded."""
    of_targets = {
        name: {model: found["curves"][name] for model, found in models.items() if found["curves"][name]}
        for name in models["fused"].get("curves", {})
    }
    return {name: found for name, found in of_targets.items() if found}


def _curve_figure(name, of_models):
    lines = {model: tuple(np.array(c[key]) for key in ("r_A", "g", "g_stderr")) for model, c in of_models.items()}
    first = next(iter(of_models.values()))
    return properties.curves(lines, "r (Å)", "g(r)", heading=name, measured=(first["r_A"], first["measured"]))


def model_card(material: Material, result: Mapping) -> str:
    """Markdown of the model card: models, training data and errors."""
    note = presets.note(material.preset)
    training = (
        "other trainings: see the last line" if material.seeds
        else "one training: they do not contain the scatter between trainings, which `seeds` in the settings show"
    )  # fmt: skip
    return "\n".join([
        f"# Model card: {material.formula}",
        *(["", f"**{note}**"] if note else []),
        "",
        "Three potentials of one network: DFT-only, trained on the frames; experiment-only, which starts from DFT-only",
        "and is trained on the measurements alone; and fused, which starts from DFT-only and is trained on both.",
        "",
        "```text",
        describe(material),
        "```",
        "",
        "Elastic constants and pressure from new simulations, ± one standard error of the sampling",
        f"({training}), and mean absolute errors on held-out frames:",
        "",
        "```text",
        tables.comparison_table(result),
        "```",
        "",
    ])  # fmt: skip
