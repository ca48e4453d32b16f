"""Datasets of labelled frames: reading files, and checking all their frames together.

Single frames are checked by `frame_checks.check_frame`. Frames are counted from 0 in file order, as in ASE's
`file.extxyz@17`.
"""

import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols

from fusedff.data import FILES, extxyz, labelled_frames
from fusedff.data.labelled_frames import calculator_results, has_declared_units, labels
from fusedff.data.validation import duplicates, frame_checks, label_checks, unit_checks

TITANIUM_FRAMES = FILES / "titanium_pbe.extxyz"


def load_frames(path=None, units: str | None = None) -> tuple[ase.Atoms, ...]:
    """Read and check the frames of an extended-XYZ file; the default is the packaged titanium PBE dataset.

    A missing `config_type` becomes 'unlabelled', a missing `config_id` '<file>#<frame>' (with a `run` of its own). A
    missing `source` becomes the program at the beginning of `dft` in the comment lines, if all that have it name the
    same one (`dft=GPAW-PBE-...`: 'gpaw'), otherwise the stem of the file name. Raises FileNotFoundError, or ValueError
    naming file, frame, value and remedy for the first frame that fails `frame_checks.check_frame`, for repeated frames
    (`duplicates`) and ids, for energies of one composition that differ too much, and for labels in units that
    contradict each other (`validation`). With `units="ase"`, here or in the comment lines, the numbers are taken as eV
    and Å, and what is only implausible becomes a warning.
    """
    path = TITANIUM_FRAMES if path is None else Path(path)
    if units not in (None, "ase"):
        raise ValueError(f"units = {units!r}: only 'ase' (eV, Å, eV/Å^3) can be read; convert the file")
    frames = []
    for frame in extxyz.read(path):
        frame.info.setdefault("config_type", "unlabelled")
        if "config_id" not in frame.info:
            frame.info["config_id"] = f"{path.name}#{len(frames)}"
            frame.info.setdefault("run", frame.info["config_id"])
        if units:
            frame.info["units"] = units
        frames.append(frame)
    programs = {str(frame.info["dft"]).split("-")[0].lower() for frame in frames if "dft" in frame.info}
    for frame in frames:
        frame.info.setdefault("source", programs.copy().pop() if len(programs) == 1 else path.stem)
    found = check_dataset(frames, path.name)
    duplicates.check(found, _places(found, path.name))
    _mention_free_energies(found, path.name)
    return found


def load_files(paths, units: str | None = None) -> tuple[ase.Atoms, ...]:
    """Read the frames of one file or several, one after the other, with `load_frames`.

    With several files, `config_id` and `run` get the name of the file as a prefix, so that they stay unique. Raises the
    errors of `load_frames`, and ValueError for two files of the same name and, within a source, for the same structure
    in two files and energies that differ too much.
    """
    paths = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if len(paths) == 1:
        return load_frames(paths[0], units)
    names = [path.name for path in paths]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two files of frames are called {repeated[0]}; name each once, or rename one")
    frames, of_source = [], defaultdict(list)
    for path in paths:
        for frame in load_frames(path, units):
            run = labelled_frames.run(frame)
            frame.info.update(config_id=f"{path.name}:{frame.info['config_id']}", run=f"{path.name}:{run}")
            frames.append(frame)
            of_source[labelled_frames.source(frame)].append(frame)
    for source, members in of_source.items():
        found = check_dataset(members, f"source {source}")
        duplicates.check(found, _places(found, f"source {source}"))
    _require_other_labels(frames)
    return tuple(frames)


def _require_other_labels(frames) -> None:
    """Raise ValueError if frames of two sources have the same structure and forces: two calculations never agree so."""
    for i, j in duplicates.pairs(frames):
        one, other = (np.sort(np.linalg.norm(labels(frames[n]).forces, axis=1)) for n in (i, j))
        apart = labelled_frames.source(frames[i]) != labelled_frames.source(frames[j])
        if apart and one.max() > 0.01 and np.allclose(one, other, rtol=0, atol=1e-6):
            raise ValueError(
                f"{frames[j].info['config_id']} is a copy of {frames[i].info['config_id']} under another source: atoms "
                "and forces are the same; give each frame once"
            )


def fit_reference_energies(frames, source: str | None = None) -> dict[str, float]:
    """Reference energy of each species (eV per atom), by least squares over the total energies of one source.

    Total minus reference energies are the binding energies. The source is that of the first frame unless it is given.
    If the compositions do not determine the energies of all species, the solution of minimum norm is taken. Raises
    ValueError if the source has no frames.
    """
    frames = tuple(frames)
    if not frames:
        raise ValueError("no frames to fit reference energies to; give at least one labelled frame")
    source = labelled_frames.source(frames[0]) if source is None else source
    chosen = [frame for frame in frames if labelled_frames.source(frame) == source]
    if not chosen:
        there = ", ".join(repr(s) for s in dict.fromkeys(map(labelled_frames.source, frames)))
        raise ValueError(f"no frames of source {source!r} to fit reference energies to; there are {there}")
    numbers = sorted({z for frame in chosen for z in frame.numbers.tolist()})
    counts = labelled_frames.count_atoms(chosen, [(source, z) for z in numbers])
    energies = np.array([labels(frame).energy for frame in chosen])
    solution, *_ = np.linalg.lstsq(counts, energies, rcond=None)
    return dict(zip([chemical_symbols[z] for z in numbers], solution.tolist(), strict=True))


def _places(frames, file: str) -> list[str]:
    ids = [f" ({frame.info['config_id']})" if "config_id" in frame.info else "" for frame in frames]
    return [f"{file}, frame {i}{config_id}" for i, config_id in enumerate(ids)]


def check_dataset(frames: list[ase.Atoms], file: str) -> tuple[ase.Atoms, ...]:
    """Return the frames of a file after checking them: each by `frame_checks`, then ids and labels against each other.

    Frames in memory need no ids. Raises ValueError; doubts about units become warnings if every frame
    `has_declared_units`. Messages name `file`.
    """
    if not frames:
        raise ValueError(f"{file} has no frames; give a file with at least one labelled frame")
    first_with, places = {}, _places(frames, file)
    for i, (frame, where) in enumerate(zip(frames, places, strict=True)):
        config_id = str(frame.info.get("config_id", where))
        if config_id in first_with:
            raise ValueError(
                f"{where}: config_id is that of frame {first_with[config_id]} too; "
                "drop the duplicate or give it its own id"
            )
        first_with[config_id] = i
        frame_checks.check_frame(frame, where)
    said = [labels(frame) for frame in frames]
    for check in (
        partial(unit_checks.check_lengths, frames, places),
        partial(label_checks.check_changes, frames, said, places),
        partial(label_checks.check_energies, frames, said, places),
        partial(label_checks.check_sign_of_stress, frames, said, places),
        partial(label_checks.check_net_forces, said, places),
    ):
        try:
            check()
        except unit_checks.ImplausibleDataError as doubt:
            if not all(map(has_declared_units, frames)):
                raise
            warnings.warn(doubt.finding, stacklevel=3)
    return tuple(frames)


def _mention_free_energies(frames, file: str) -> None:
    """Warn once if frames have an energy and a different free energy."""
    found = [(len(frame), calculator_results(frame)) for frame in frames]
    both = [(n, results) for n, results in found if None not in map(results.get, ("energy", "free_energy"))]
    gap = [abs(results["energy"] - results["free_energy"]) / n for n, results in both]
    if different := sum(g > 1e-6 for g in gap):
        warnings.warn(
            f"{file}: energy and free_energy differ in {different} of {len(frames)} frames, by up to "
            f"{1e3 * max(gap):.3g} meV per atom; the free energy is taken, from which forces derive",
            stacklevel=3,
        )
