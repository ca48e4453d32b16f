"""Train and evaluate three models of a material from a settings file, which names frames, structure and measurements.

Settings that the file does not give are those of a preset. Below the folder `output`::

    dft/ experiment/ fused/   models with their histories, settings and checkpoints (`study.run_folder`)
    summary.json, MODELS.md   errors, elastic constants, other targets, settings, versions; the model card
    tables/ figures/          CSV and PNG

With several `seeds` all that is in a folder `seed-N` for each of them, and the last two lines hold means and spreads.
"""

import statistics
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms

from fusedff import results
from fusedff.commands import sections, targets
from fusedff.commands.targets import Measured
from fusedff.crystallography import crystals
from fusedff.data import datasets, splits
from fusedff.data import frames as labelled
from fusedff.measurements import experiments
from fusedff.measurements.experiments import StatePoint
from fusedff.plotting import comparison as comparison_plots
from fusedff.plotting import data as data_plots
from fusedff.plotting import properties, style
from fusedff.plotting import training as training_plots
from fusedff.potential import Potential
from fusedff.runtime import settings as ranges
from fusedff.runtime import storage
from fusedff.study import comparison, presets, run_folder
from fusedff.study.presets import Preset
from fusedff.study.run_folder import MODELS, RunFolder
from fusedff.training import checkpoints, difftre, force_matching, fused

SHORTEST_EDGE = 7.0  # Å, of the simulated cells, unless `repeats` says otherwise
MOST_SEEDS = 1000  # trainings of a committee
SECTIONS = ("network", "dft", "experiment", "fused", "evaluation")  # of a preset, that a file may change

TEMPLATE = """\
# fusedff train study.toml        trains three models and evaluates them; run it again to resume
# fusedff check study.toml        reads everything and prints a summary, without training

frames = "frames.extxyz"          # DFT labels: extended XYZ with energy (eV), forces (eV/Å), stress (eV/Å^3); or a
                                  # list of files: ["mine.extxyz", "other.extxyz"] (`fusedff convert` makes them)
table = "measured.csv"            # measurements: temperature_K, a_A, ..., C11_GPa, ..., role (train or held-out)
symbol = "Cu"                     # with the name of a structure: hcp, bcc, fcc, diamond, rocksalt, ...
structure = "fcc"                 # or, without symbol, a POSCAR, CIF or extended-XYZ file
output = "models"                 # folder of models, tables and figures
preset = "demo"                   # smoke (quick test, useless models), demo (minutes), hours, full (a GPU)

# Optional: every setting of the preset can be given in its section.
# seed = 0                        # of initial weights, split, batches, trajectories
# seeds = 5                       # a committee: every model is trained five times; or a list, [0, 1, 2]
# units = "ase"                   # the frames are in eV and Å although they do not look so; or of the table, "GPa"
# repeats = [3, 3, 3]             # of the conventional cell, in the simulations; default: edges of 7 Å or more
# [dft]
# epochs = 200
# [fused]
# epochs = 24

# Further measurements to train on, a section [[targets]] each. A mode at the zone centre, at 0 K in the cell measured
# nearest to temperature_K: displacements of the atoms of the conventional cell, or place = 0, among its optical
# frequencies in ascending order.
# [[targets]]
# kind = "phonon"
# name = "E2g"
# frequency_THz = 4.18
# stderr_THz = 0.1
# temperature_K = 295
# displacements = [[1, 0, 0], [-1, 0, 0]]
# A liquid, in its own cell, which is scaled to the density; also kind = "density" and kind = "heat_capacity".
# [[targets]]
# kind = "radial_distribution"
# file = "liquid_gr.csv"          # r_A, g and, if known, stderr
# structure = "liquid.extxyz"     # a snapshot of the liquid to start from; without it, the crystal of the table
# density_g_cm3 = 4.1
# temperature_K = 1973
# sampling.langevin.timestep_fs = 2.0
"""
TABLE_TEMPLATE = """\
# Citation of the measurements
temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa,role
"""


@dataclass(frozen=True)
class Material:
    """The contents of a settings file and of the files that it names, read and checked."""

    output: Path
    frames: tuple[Atoms, ...]
    points: tuple[StatePoint, ...]
    train_points: tuple[StatePoint, ...]  # those to train on, with isothermal constants
    preset: Preset
    seeds: tuple[int, ...] = ()  # of a committee; without them, the one of the preset
    targets: tuple[Measured, ...] = ()

    @cached_property
    def split(self) -> splits.Split:
        """The frames, shared out by family."""
        return splits.split(self.frames, seed=self.preset.seed)

    @property
    def members(self) -> dict[str, "Material"]:
        """The trainings of a committee by seed, each with a folder of its own."""
        return {
            str(seed): replace(
                self, output=self.output / f"seed-{seed}", preset=presets.with_seed(self.preset, seed), seeds=()
            )
            for seed in self.seeds
        }

    @property
    def formula(self) -> str:
        """Formula of the crystal, e.g. 'NiAl'."""
        return self.points[0].crystal.symbol


def load(path: str | Path) -> Material:
    """Read a settings file and everything that it names; paths in it are relative to the file.

    Raises FileNotFoundError, or ValueError naming the file, the setting and the remedy: settings unknown, missing or of
    another kind, frames and tables that cannot be right, frames without an element of the crystal.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give a settings file (`fusedff new` writes a template)")
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # no TOML, no UTF-8
        raise ValueError(f"{path.name}: {error}; `fusedff new` writes a template") from error
    top = ("frames", "table", "symbol", "structure", "output", "preset")
    sections.require_known(said, (*top, "seed", "seeds", "repeats", "units", "targets", *SECTIONS), path.name)
    for name in top:
        if name not in said and name in ("frames", "table", "structure"):
            raise ValueError(f"{path.name}: {name!r} is missing; add it (`fusedff new` writes a template)")
        listed = name == "frames" and isinstance(said["frames"], list) and said["frames"]
        for value in listed or [said.get(name, "")]:
            if not isinstance(value, str):
                raise ValueError(f"{path.name}: {name} = {value!r} is no text; write it in quotation marks")
    here = path.parent
    output = here / said.get("output", path.stem)
    if output.is_file():
        raise ValueError(f"{path.name}: output = {output.name!r} is a file; name a folder")
    structure = said["structure"] if said["structure"] in crystals.STRUCTURES else here / said["structure"]
    if isinstance(structure, Path) and not structure.is_file():
        raise ValueError(
            f"{path.name}: structure = {said['structure']!r} is neither a file nor one of "
            f"{', '.join(crystals.STRUCTURES)}; name one of them, or {crystals.FILES}"
        )
    if isinstance(structure, str) and "symbol" not in said:
        raise ValueError(f"{path.name}: {structure} of what? Add symbol, e.g. {crystals.STRUCTURES[structure]!r}")
    units_of_frames, units_of_table = _units(said, path.name)
    points = experiments.load_state_points(
        here / said["table"], symbol=said.get("symbol"), structure=structure, units=units_of_table
    )
    files = said["frames"] if isinstance(said["frames"], list) else [said["frames"]]
    frames = datasets.load_files([here / name for name in files], units_of_frames)
    crystal = dict.fromkeys(crystals.unit_cell(points[0].crystal).symbols, f"the crystal of {said['table']}")
    _require_elements(crystal, frames, files)
    if all(point.role != "train" for point in points):
        raise ValueError(f"{said['table']}: every row is held out; give at least one the role train")
    seeds = _seeds(said, path.name)
    preset = _preset(presets.get(said.get("preset", "demo")), said, points, path.name)
    points = comparison.measured(preset, points)
    try:
        train_points = comparison.targets(preset, points)
    except ValueError as error:
        raise ValueError(f"{said['table']}: {error}") from None
    place = targets.Place(here, points, preset.evaluation.repeats, preset.experiment.sampling)
    further = targets.load(said.get("targets", []), place, path.name)
    _require_elements(targets.elements(further), frames, files)
    return Material(output, frames, points, train_points, preset, seeds, further)


def _require_elements(needed: Mapping[str, str], frames, files) -> None:
    """Raise ValueError unless all elements (symbol -> what has it) are in a frame."""
    for symbol in sorted(set(needed) - {symbol for frame in frames for symbol in frame.symbols}):
        raise ValueError(f"{', '.join(files)}: no frame contains {symbol}, which {needed[symbol]} does; add frames")


def _units(said: Mapping, file: str) -> tuple[str | None, str | None]:
    """The units that are to be believed, of the frames and of the elastic constants in the table."""
    stated = said.get("units", [])
    stated = stated if isinstance(stated, list) else [stated]
    of_frames, of_table = ([unit for unit in stated if unit in known] for known in (("ase",), tuple(experiments.UNITS)))
    if len(of_frames) + len(of_table) < len(stated) or len(of_frames) > 1 or len(of_table) > 1:
        raise ValueError(
            f"{file}: units = {said['units']!r} are unknown; use 'ase' for the frames, one of "
            f"{', '.join(experiments.UNITS)} for the table, or a list of both"
        )
    return next(iter(of_frames), None), next(iter(of_table), None)


def _seeds(said: Mapping, file: str) -> tuple[int, ...]:
    """The seeds of a committee, if it is to be one: as many as said from 0 on, or those listed."""
    if "seeds" not in said:
        return ()
    seeds = said["seeds"]
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(min(seeds, MOST_SEEDS + 1)))
    if (
        not isinstance(seeds, list)
        or not all(map(_is_seed, seeds))
        or not 2 <= len(set(seeds)) == len(seeds) <= MOST_SEEDS
    ):
        raise ValueError(
            f"{file}: seeds = {said['seeds']!r}; give how many (2 to {MOST_SEEDS}), or a list of different ones"
        )
    if "seed" in said:
        raise ValueError(f"{file}: seed and seeds are both given; leave out one of them")
    return tuple(seeds)


def _is_seed(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < ranges.MOST["seed"][0]


def _preset(base: Preset, said: Mapping, points, file: str) -> Preset:
    """The preset with the crystal's cells and temperatures, and with the settings of the file."""
    repeats, seed = said.get("repeats", repeats_of(points[0].crystal)), said.get("seed", base.seed)
    try:
        crystals.supercell(points[0].crystal, repeats)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not _is_seed(seed):
        raise ValueError(f"{file}: seed = {seed!r}; give a whole number from 0 on, below {ranges.MOST['seed'][0]}")
    cells, base = {"repeats": tuple(repeats)}, presets.with_seed(base, seed)
    preset = replace(
        base,
        train_temperatures=tuple(p.temperature for p in experiments.select(points, role="train")),
        experiment=replace(base.experiment, **cells),
        fused=replace(base.fused, experiment=replace(base.fused.experiment, **cells)),
        evaluation=replace(base.evaluation, **cells),
    )
    return sections.changed(preset, {name: said[name] for name in SECTIONS if name in said}, file)


def repeats_of(crystal: crystals.Crystal) -> tuple[int, int, int]:
    """How often the conventional cell is repeated for edges of 7 Å or more."""
    a, b, c = np.ceil(SHORTEST_EDGE / crystals.unit_cell(crystal).cell.lengths() - 1e-6)
    return int(a), int(b), int(c)


def describe(material: Material) -> str:
    """What will be learned, in some lines."""
    point, split = material.points[0], material.split
    families = sorted(set(map(labelled.family, material.frames)))
    sources = dict.fromkeys(map(labelled.source, material.frames))
    cell = crystals.supercell(point.crystal, material.preset.evaluation.repeats)
    trained, held = (
        ", ".join(f"{p.temperature:g}" for p in material.points if (p.role == "train") == wanted)
        for wanted in (True, False)
    )
    return "\n".join([
        f"crystal       {point.crystal.structure} {material.formula}, {crystals.symmetry(point.crystal)}",
        f"frames        {len(material.frames)}: {len(split.train)} to train on, {len(split.validation)} to watch it, "
        f"{len(split.test)} held out; {len(families)} families ({', '.join(families)})"
        + (f"; each of {', '.join(sources)} has its own zero of energy" if len(sources) > 1 else ""),
        f"measured      {', '.join(measured_names(material.points)) or 'no elastic constants'} ({point.condition}); "
        f"trained on {trained} K; held out {held + ' K' if held else 'none'}",
        *targets.describe(material.targets),
        f"simulations   {len(cell)} atoms, edges {', '.join(f'{x:.1f}' for x in cell.cell.lengths())} Å",
        f"preset        {material.preset.name}: {material.preset.dft.epochs} epochs of force matching, "
        f"{material.preset.experiment.updates} updates from experiment, {material.preset.fused.epochs} fused epochs",
        *([f"committee     seeds {', '.join(map(str, material.seeds))}: every model is trained with each"]
          if material.seeds else []),
        f"output        {material.output}",
    ])  # fmt: skip


def measured_names(points) -> list[str]:
    """Names of the elastic constants that are in the table at any temperature."""
    names, values, _ = experiments.measured_gpa(points)
    return [name for name, column in zip(names, values.T, strict=True) if np.isfinite(column).any()]


def train(material: Material, say=print) -> dict:
    """Train the three models, evaluate them and leave everything in the output folder; returns what the summary holds.

    Of a committee, once for every seed; the summary then holds means, with the training error as `spread` of every
    entry, and under `members` what each training found. What an earlier call has finished is not done again, and what
    it was at goes on from its last epoch. `say` gets a line before each step.
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
        "models": results.committee([one["models"] for one in each]),
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
        "settings": presets.as_dict(preset),
        "versions": run_folder.versions(),
    }
    if finished := _finished(folder, identity):
        say(f"{folder.path}: finished before")
        return finished
    models, histories = _three_models(material, folder, say)
    found = {}
    for name, model in models.items():
        say(f"{results.TITLES[name]}: evaluation at {', '.join(f'{p.temperature:g}' for p in material.points)} K")
        found[name] = (
            comparison.evaluate_model(
                model, split.test, material.points, preset, f"{results.TITLES[name]}: elastic constants"
            )
            | targets.evaluate(
                material.targets, model, preset.evaluation, preset.experiment.sampling, results.TITLES[name]
            )
            | {"in_training": {one.name: one.last(histories[name]) for one in material.targets if name != "dft"}}
        )
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
        **{f"training-{name}": training_plots.approach(histories[name], points) for name in ("experiment", "fused")},
    })  # fmt: skip
    return result


def _three_models(material: Material, folder: RunFolder, say) -> tuple[dict, dict]:
    """The models by name, each kept as soon as it is trained, and the histories of their trainings."""
    preset, split, points = material.preset, material.split, material.train_points
    source = statistics.mode(map(labelled.source, split.train))  # whose zero of energy becomes the potential's
    start = Potential.create(
        jax.random.PRNGKey(preset.seed), preset.network, datasets.fit_reference_energies(split.train, source),
        preset.energy_scale, source=source,
    )  # fmt: skip

    def measured(settings):
        return [*points, *(one.in_training(dft, settings.sampling) for one in material.targets)]

    def learn(name, train_one, settings):
        say(f"{results.TITLES[name]}: training")
        began = time.monotonic()
        trained, history = train_one(checkpoint=folder.checkpoint(name))
        folder.save(name, trained, history, settings, folder.seconds(name) + time.monotonic() - began)
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
    return found if all(found.get(key) == value for key, value in storage.plain(identity).items()) else None


def _write(material: Material, result: Mapping, figures: Mapping) -> None:
    """The results as files: tables, model card, figures and, when all these are there, the summary."""
    folder, models = RunFolder(material.output), result["models"]
    folder.write_table("elastic", results.rows({name: model["experiment"] for name, model in models.items()}))
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
        results.table(result),
        "```",
        "",
    ])  # fmt: skip


def new(folder: str | Path) -> Path:
    """Write a template of the settings file and of the table into a new folder; returns the settings file.

    Raises FileExistsError rather than replace a file.
    """
    folder, texts = Path(folder), {"study.toml": TEMPLATE, "measured.csv": TABLE_TEMPLATE}
    for name in texts:
        storage.require_new(folder / name, "name another folder")
    for name, text in texts.items():
        storage.write_bytes(folder / name, text.encode())
    return folder / "study.toml"
