"""Comparison of the three models with DFT and with experiment; frames and measured values are titanium's by default."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff import tables
from fusedff.data import datasets, labelled_frames, splits, titanium_paper, titanium_vasp
from fusedff.geometry import neighbors, systems
from fusedff.measurements import adiabatic, experiments, state_points
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Evaluation, Potential
from fusedff.properties.thermal import elastic
from fusedff.study import presets, run_folder
from fusedff.study.presets import Preset
from fusedff.training import label_errors, outliers
from fusedff.units import GPA

VASP_FILE = "FUSEDFF_TITANIUM_VASP"  # environment variable: a file of the second set, where there is no network
# eV/Å. Errors of titanium models are means over test frames below it. The few above it, of compressed cells and of an
# atom 0.74 Å from another, would raise the mean force error of DFT-only by a third (docs/results.md).
USUAL_FORCE = 8.0
UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "GPa"}  # of what `predictions` returns


def frames(preset: Preset) -> splits.Split:
    """The DFT frames of a preset: the embedded ones split by family, the paper's as in the paper.

    With `data` 'embedded+vasp', those of the second public set come after the embedded ones: from the file that the
    environment variable `VASP_FILE` names, else downloaded. A warning says so if they cannot be and are left out.
    """
    if preset.data == "paper":
        return splits.paper_split(titanium_paper.load(titanium_paper.fetch()))
    embedded = splits.split(datasets.load_frames())
    if preset.data == "embedded":
        return embedded
    try:
        vasp = os.environ.get(VASP_FILE) or titanium_vasp.fetch()
    except ConnectionError as error:
        warnings.warn(f"only the embedded frames are used: {error}", stacklevel=2)
        return embedded
    more = splits.split(titanium_vasp.load(vasp))
    return splits.Split(*(mine + theirs for mine, theirs in zip(embedded, more, strict=True)))


def below(frames: Sequence[Atoms], highest_force: float) -> tuple[list[Atoms], list[Atoms]]:
    """The frames whose force components (eV/Å) are all smaller than `highest_force`, and the others."""
    parts = [], []
    for frame in frames:
        parts[bool(np.abs(labelled_frames.labels(frame).forces).max() >= highest_force)].append(frame)
    return parts


def measured(preset: Preset, table: Sequence[StatePoint] | None = None) -> tuple[StatePoint, ...]:
    """All measured state points (default: titanium's) as a preset compares them: adiabatic, or all as isothermal."""
    table = experiments.load_state_points() if table is None else tuple(table)
    return table if preset.adiabatic else tuple(replace(point, condition="isothermal") for point in table)


def targets(preset: Preset, table: Sequence[StatePoint] | None = None) -> tuple[StatePoint, ...]:
    """The state points that a preset trains on, with isothermal constants, which simulations give."""
    table = measured(preset, table)
    return adiabatic.isothermal(state_points.select(table, temperatures=preset.train_temperatures), table)


def data_version(preset: Preset, split: splits.Split) -> str:
    """Name and digest of the DFT data of a preset; the name alone would not identify data that may grow."""
    if preset.data == "paper":
        return f"archive of the paper, git blob {titanium_paper.GIT_ID}"
    sources = [labelled_frames.source(frame) for part in split for frame in part]
    n_vasp = sources.count(titanium_vasp.SOURCE)
    file = datasets.TITANIUM_FRAMES
    embedded = f"{file.name}, {len(sources) - n_vasp} frames, sha256 {_sha256(file)}"
    if not n_vasp:
        return embedded
    if given := os.environ.get(VASP_FILE):
        return f"{embedded}; VASP set, {Path(given).name}, sha256 {_sha256(given)}"
    return f"{embedded}; VASP set, git blob {titanium_vasp.PUBLISHED['git id']}"


def _sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def evaluate(potential: Potential, frames: Sequence[Atoms]) -> Evaluation:
    """Total energy (n_frames,), forces (n_atoms, 3), stress (n_frames, 6) and energies (n_atoms,) of ASE structures."""
    for n, frame in enumerate(frames):
        potential.require_species(frame.numbers, f"frame {n}: ")
    near = jax.tree.map(jnp.asarray, neighbors.from_frames(frames, potential.cutoff))
    found = jax.jit(Potential.evaluate)(potential, systems.from_atoms(frames), near)
    of_atoms = np.concatenate([potential.reference_energies(frame.numbers) for frame in frames])
    return found._replace(energy=potential.total(found.energy, frames), energies=np.asarray(found.energies) + of_atoms)


def predictions(potential: Potential, frames: Sequence[Atoms]) -> tuple[dict, dict]:
    """Labels of frames and predictions: energy (n_frames,), forces (3 n_atoms,), stress (6 n_stressed,).

    Both are dicts of flat arrays in the units of `UNITS`; frames whose stress is no label
    (`labelled_frames.use_virial`) are left out of `stress`. Energies of another source than the potential's count from
    a zero fitted to these frames.
    """
    store, found = label_errors.predict_frames(potential, frames)
    stressed = store.use_virial > 0

    def flat(labels):
        energy = [one.energy + potential.reference_energy(f.numbers) for one, f in zip(labels, frames, strict=True)]
        return {
            "energy": np.array(energy) / store.sizes,
            "forces": np.concatenate([one.forces.ravel() for one in labels]),
            "stress": np.array([one.stress for one in labels])[stressed].ravel() / GPA,
        }

    return flat(store.labels()), flat(found)


def evaluate_model(
    potential: Potential, test_frames: Sequence[Atoms], points, preset: Preset, name: str, highest_force: float = np.inf
) -> dict:
    """Errors on held-out frames, and elastic constants from trajectories that no training step used.

    Frames with a force component of `highest_force` (eV/Å) or more are left out of the means and of the families, and
    have a row of their own beside these. Without `points` nothing is simulated, and `experiment` is empty.
    """
    usual, others = below(test_frames, highest_force)
    test, by_family = label_errors.errors_and_families(potential, usual)
    if others:
        rows = label_errors.errors_by_family(potential, others)
        by_family += [row | {"family": f"above {highest_force:g} eV/Å"} for row in rows if row["family"] == "all"]
    return {
        "test": test,
        "by_family": by_family,
        "experiment": elastic.run(potential, points, preset.evaluation, name).by_temperature() if points else {},
    }


def doubted(dft: Potential, split: splits.Split) -> list[dict]:
    """Training and validation frames whose labels are possibly wrong (`outliers.find`), as in `summary.json`."""
    return [outlier.as_dict() for outlier in outliers.find(dft, [*split.train, *split.validation])]


def summary(
    models: dict[str, dict], preset: Preset, split: splits.Split, wall_seconds: float, doubts: Sequence[dict] = ()
) -> dict:
    """What `summary.json` holds: results of every model, frames that are `doubted`, settings, seeds and versions."""
    return {
        "models": models,
        "outliers": list(doubts),
        "versions": run_folder.versions(),
        "seeds": {"training": preset.seed, "evaluation": preset.evaluation.seed},
        "preset": preset.name,
        "frames": {part: len(members) for part, members in split._asdict().items()},
        "data": data_version(preset, split),
        "settings": presets.as_dict(preset),
        "wall_seconds": wall_seconds,
    }


def results_text(preset: Preset, result: dict) -> str:
    """The table of results; for a preset whose results mean nothing, only its `presets.note`."""
    note = presets.note(preset)
    return f"*** {note} ***" if note else tables.comparison_table(result)
