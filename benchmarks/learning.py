"""Learning curve: held-out errors of the DFT-only model of a preset, trained on nested subsets of its frames.

About an hour on two cores. The result of each size is stored as soon as it is done, a training after every epoch, and a
call with the same frames and settings continues from there. The model of all frames is the one that ships if it was
trained on the same frames with the same settings.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax
from ase import Atoms

from benchmarks import record
from fusedff.data import datasets
from fusedff.potential import Potential
from fusedff.study import comparison, presets, run_folder
from fusedff.study.presets import HOURS, Preset
from fusedff.training import force_matching, label_errors

SIZES = (100, 300, 1000, 10_000)  # numbers of frames; all frames if there are fewer
SOURCE = "gpaw"  # source of the model's reference energies
WATCHED = 24  # validation frames: they only show the progress; all of them would take longer than 100 training frames


def nested(frames: Sequence[Atoms], n: int) -> list[Atoms]:
    """The first `n` frames, or all if there are fewer, in a random order that follows from the hashes of their ids."""
    return sorted(frames, key=lambda f: hashlib.sha256(str(f.info["config_id"]).encode()).digest())[:n]


def run(into: Path, preset: Preset = HOURS, sizes: Sequence[int] = SIZES) -> Iterator[dict]:
    """Yield the results so far, after every size: preset, data, network, settings and `curve`.

    The curve has a row per size with `n_frames`, `epochs` and `test`, the errors by source of the test frames. Smaller
    sets are trained for up to twice as many epochs.
    """
    split = comparison.frames(preset)
    asked = {
        "preset": preset.name,
        "data": comparison.data_version(preset, split),
        "network": presets.as_dict(preset.network),
        "settings": presets.as_dict(preset.dft),
    }
    curve = record.load_if_same("learning", asked, into).get("curve", [])
    for size in sizes:
        frames = nested(split.train, size)
        if len(frames) not in [row["n_frames"] for row in curve]:
            epochs = round(preset.dft.epochs * min(2.0, len(split.train) / len(frames)))
            if len(frames) == len(split.train) and _ships(asked):
                trained = Potential.load("titanium-dft")
            else:
                settings = replace(preset.dft, epochs=epochs)
                trained = _train(preset, settings, frames, split.validation[:WATCHED], into)
            rows = label_errors.errors_by_family(trained, comparison.below(split.test, comparison.USUAL_FORCE)[0])
            test = {row["source"]: row for row in rows if row["family"] == "all"}
            curve = sorted([*curve, {"n_frames": len(frames), "epochs": epochs, "test": test}], key=_size)
        yield asked | {"curve": curve}


def _ships(asked):
    """Whether the DFT-only model that ships has the preset, data, network and settings that are `asked` for."""
    shipped = run_folder.shipped_record()
    its = {"network": shipped["settings"]["network"], "settings": shipped["settings"]["dft"]}
    return record.to_dicts(asked) == {"preset": shipped["preset"], "data": shipped["data"]} | its


def _train(preset, settings, frames, validation, into):
    start = Potential.create(
        jax.random.PRNGKey(preset.seed), preset.network, datasets.fit_reference_energies(frames, SOURCE), source=SOURCE
    )
    checkpoint = into / f"learning-{len(frames)}.checkpoint.safetensors"
    trained, _ = force_matching.train(start, frames, validation, settings, checkpoint)
    checkpoint.unlink()
    return trained


def _size(row):
    return row["n_frames"]


def text(found: dict, about: dict) -> str:
    """Report in Markdown: errors by number of training frames, for each source of the test frames."""
    rows = [
        [row["n_frames"], row["epochs"], source, errors["n_frames"], f"{errors['force_mae_meV_per_A']:.0f}",
         f"{errors['energy_mae_meV_per_atom']:.1f}"]
        for row in found["curve"]
        for source, errors in row["test"].items()
    ]  # fmt: skip
    head = ["training frames", "epochs", "tested on", "frames", "forces, meV/Å", "energies, meV/atom"]
    return f"""# Held-out errors against the number of training frames

{record.describe(about)} Mean absolute errors of DFT-only models of preset `{found["preset"]}` on
test frames whose forces are below {comparison.USUAL_FORCE:g} eV/Å; every training set is part of the next.
Data: {found["data"]}.

{record.table(head, rows)}
"""
