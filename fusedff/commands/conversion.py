"""Convert the output of DFT programs to one file of labelled frames, without those that cannot be trained on.

The energy is the one whose derivatives are the forces (`frames.energy_of`): with smeared occupations the free
energy, not the energy extrapolated to zero smearing that VASP prints as well.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import filetype

from fusedff.data import datasets, deepmd, dft_outputs, extxyz, labelled_frames, splits
from fusedff.data.dft_outputs import FORMATS, OutputFrame
from fusedff.data.validation import duplicates, frame_checks
from fusedff.runtime import storage

UNCONVERGED, NO_ENERGY, NO_FORCES = "SCF not converged", "no energy", "no forces"
DEEPMD = "DeePMD folders"
LABELS = ("energy", "forces", "stress", "virial")
_KEPT = ("config_type", "config_id", "run", "source", "use_virial", "units", "dft")  # of what extended XYZ says


@dataclass(frozen=True)
class ConversionConfig:
    """How to read, and names for frames that have none."""

    format: str | None = None  # one of `FORMATS`; None: told by name and content
    source: str | None = None  # which calculation; None: the program
    family: str = "unlabelled"  # `config_type`
    run_length: int | None = None  # consecutive frames that make a run; None: all of a file, folder or named run
    species: tuple[str, ...] = ()  # elements of types 0, 1, ... of DeePMD folders without type_map.raw
    labels: Mapping[str, str] = field(default_factory=dict)  # energy, forces, stress or virial -> entry of extended XYZ

    def __post_init__(self):
        if self.format not in (None, *FORMATS):
            raise ValueError(f"format {self.format!r} is unknown; use one of {', '.join(FORMATS)}")
        if self.run_length is not None and self.run_length < 1:
            raise ValueError(f"run_length = {self.run_length}; give 1 or more consecutive frames")
        if unknown := [name for name in self.labels if name not in LABELS]:
            raise ValueError(f"label {unknown[0]!r} is unknown; name one of {', '.join(LABELS)}")
        if {"stress", "virial"} <= set(self.labels):
            raise ValueError("labels name a stress and a virial; leave one of them out")


@dataclass(frozen=True)
class Conversion:
    """The frames that can be trained on, and what was read and dropped."""

    frames: tuple[ase.Atoms, ...]
    read: dict[str, int]  # what was read -> number of frames
    dropped: dict[str, int]  # why -> number of frames
    smearing: float  # eV per atom, the most by which a free energy differs from the energy beside it
    own_runs: int  # frames that name no run and so are one each
    stress_left_out: bool  # whether frames have a stress in their file that `labels` does not ask for

    @property
    def runs(self) -> int:
        """Number of runs, which are divided among training, validation and test."""
        return len({labelled_frames.run(frame) for frame in self.frames})

    def report(self) -> str:
        """What was read, dropped and kept, in some lines."""
        stressed = sum(map(labelled_frames.has_stress, self.frames))
        lines = [f"read      {n} frames: {what}" for what, n in self.read.items()]
        lines += [f"dropped   {n}: {why}" for why, n in self.dropped.items()]
        energy = "as given"
        if self.smearing > 1e-6:
            energy = (
                "the free energy, from which the forces derive (the energy at zero smearing, up to "
                f"{1e3 * self.smearing:.3g} meV per atom from it, is left out)"
            )
        lines.append(f"kept      {len(self.frames)} frames with energy and forces, {stressed} with stress")
        if self.stress_left_out:
            lines.append("          without the stress of the file, which --labels does not name (stress=stress does)")
        lines += [
            f"energy    {energy}",
            f"sources   {', '.join(dict.fromkeys(map(labelled_frames.source, self.frames)))}",
            f"runs      {self.runs}; frames of one run are nearly the same and stay together when shared out",
        ]
        if self.own_runs:
            lines.append(f"          {self.own_runs} frames name no run and count as one each; is a file a trajectory?")
        if self.runs < 10:
            lines.append(
                "          ten or more are needed to train, watch and test: convert more calculations at once,"
            )
            lines.append("          or cut long trajectories into runs of N consecutive frames (--run-length N)")
        return "\n".join(lines)


def convert(inputs: Sequence[str | Path], output: str | Path, settings: ConversionConfig | None = None) -> Conversion:
    """Write the labelled frames of files and DeePMD folders to a new extended-XYZ file, so that `load_frames` reads it.

    Frames get `config_id` ('<file or folder>#<index>', of which the part before # is the run), `config_type` and
    `source`; extended XYZ keeps its own. `run_length` cuts every run, also those that extended XYZ names. Dropped, and
    counted by reason: SCF not converged, no energy or forces, what `frame_checks.check_frame` refuses, and repeated
    structures. Raises FileNotFoundError, FileExistsError, or ValueError naming the file and the remedy; then nothing is
    written.
    """
    settings, output = settings or ConversionConfig(), Path(output)
    storage.require_new(output, "name another file, or delete it (the last name is the output)")
    if output.suffix.lower() not in (".extxyz", ".xyz"):
        raise ValueError(f"{output.name}: frames are written as extended XYZ; end the name in .extxyz")
    places = [place for path in inputs for place in _places(Path(path), settings)]
    _require_used(settings, {kind for _, kind in places})
    names = _names([path for path, _ in places])
    kept, read, dropped, n_of_run, unfit = [], Counter(), Counter(), Counter(), []
    own_runs, smearing, stress_left_out = 0, 0.0, False
    for (path, kind), name in zip(places, names, strict=True):
        prefix = f"{name}:" if len(places) > 1 else ""
        for n, (atoms, converged) in enumerate(_frames(path, kind, settings)):
            read[FORMATS[kind].title if kind in FORMATS else kind] += 1
            run = _run(atoms, name, prefix, kind, settings.run_length, n_of_run)
            not_there, given = None, labelled_frames.calculator_results(atoms)
            if kind == "extxyz":
                not_there = _not_there(atoms, settings.labels)
                atoms = extxyz.with_labels(atoms, settings.labels)
            atoms = labelled_frames.right_handed(atoms)
            if why := not_there or _lacks(atoms, converged, given):
                dropped[why] += 1
                continue
            try:
                frame_checks.check_frame(atoms, f"{name}#{n}")
            except ValueError as error:
                unfit.append(str(error))
                continue
            frame = _frame(atoms, name, prefix, n, kind, run, settings, output.stem)
            own_runs += labelled_frames.run(frame) == frame.info["config_id"]
            stress_left_out |= given.get("stress") is not None and not labelled_frames.has_stress(frame)
            smearing = max(smearing, _smearing(atoms))
            kept.append(frame)
    if len(unfit) > max(2, sum(read.values()) / 3):  # those that pass are hardly better
        raise ValueError(
            f"{len(unfit)} of {sum(read.values())} frames are unfit to learn from: {unfit[0]}; correct the files"
        )
    if unfit:
        dropped[f"unfit to learn from, the first is {unfit[0]}"] = len(unfit)
    same = list(duplicates.pairs(kept))
    first_of = {}  # runs that share a structure are one; afterwards its copies are gone, and with them the connection
    for frame, group in zip(kept, splits.connected(kept, same), strict=True):
        run = labelled_frames.run(frame)
        if (first := first_of.setdefault(group, run)) != run:
            frame.info["run"] = first
    twice = {j for _, j in same}
    if twice:
        dropped["the same structure as an earlier frame"] = len(twice)
        kept = [frame for n, frame in enumerate(kept) if n not in twice]
    if not kept:
        why = "; ".join(f"{n}: {reason}" for reason, n in dropped.items()) or "the files hold none"
        raise ValueError(f"no frame is left of {sum(read.values())} ({why}); give files with energies and forces")
    frames = datasets.check_dataset(kept, output.name)
    storage.write_bytes(output, extxyz.encode(frames))
    return Conversion(frames, dict(read), dict(dropped), smearing, own_runs, stress_left_out)


def _require_used(settings: ConversionConfig, kinds: Set[str]) -> None:
    """Raise ValueError for a setting that is of no input."""
    if settings.format is not None and not kinds & set(FORMATS):
        raise ValueError(f"format {settings.format!r} is of files, and only DeePMD folders are given; leave it out")
    if settings.labels and "extxyz" not in kinds:
        raise ValueError(f"labels {' '.join(settings.labels)} are of extended XYZ, and none is given; leave them out")
    if settings.species and DEEPMD not in kinds:
        raise ValueError(f"species {' '.join(settings.species)} are of DeePMD folders, and none is given; leave it out")


def _places(path: Path, settings: ConversionConfig) -> list[tuple[Path, str]]:
    """What to read at a path: (file or folder of a run, what it is)."""
    if path.is_dir():
        if not (found := deepmd.runs(path)):
            raise ValueError(f"{path} is a folder without DeePMD sets (set.*/coord.npy); give the files in it by name")
        return [(run, DEEPMD) for run in found]
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give files or DeePMD folders to convert")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: the calculation wrote nothing; leave it out")
    kind = settings.format
    if kind is None:
        try:
            kind = filetype(str(path))
        except Exception:  # ASE raises whatever it meets, also of files that only are named as compressed
            kind = "unknown"
    if kind != "traj":
        extxyz.require_text(path)
    if kind not in FORMATS:
        raise ValueError(
            f"{path} looks like nothing that can be converted; name its format, one of {', '.join(FORMATS)}"
        )
    return [(path, kind)]


def _names(paths: Sequence[Path]) -> list[str]:
    """Short different names: the paths without what they have in common; # would end the name of a run."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    if repeated := [path for path, n in Counter(whole).items() if n > 1]:
        raise ValueError(f"{repeated[0]} is given twice; give it once")
    common = Path(os.path.commonpath([path.parent for path in whole]))
    return [path.relative_to(common).as_posix().replace("#", "_") for path in whole]


def _frames(path: Path, kind: str, settings: ConversionConfig) -> Iterator[OutputFrame]:
    """The frames of a file, or of a DeePMD folder."""
    if kind in FORMATS:
        return dft_outputs.read(path, kind)
    return (OutputFrame(atoms, True) for atoms in deepmd.load(path, settings.species))


def _not_there(atoms: ase.Atoms, names: Mapping[str, str]) -> str | None:
    """The first entry that is to be the energy or the forces (`names`: label -> entry) and is not there, in words."""
    there = {*atoms.info, *atoms.arrays, *labelled_frames.calculator_results(atoms)} - {"numbers", "positions"}
    missing = [names[label] for label in ("energy", "forces") if label in names and names[label] not in there]
    return f"no {missing[0]!r} (--labels); there are {', '.join(sorted(there))}" if missing else None


def _lacks(atoms: ase.Atoms, converged: bool, given: Mapping) -> str | None:
    """Why a frame cannot be used: its calculation did not converge, or a label is missing; None if it can.

    `given` are the labels that the file gives, of which the frame may have lost some (`extxyz.with_labels`).
    """
    if not converged:
        return UNCONVERGED
    for name, found, why in (
        ("energy", labelled_frames.energy_of(atoms), NO_ENERGY),
        ("forces", labelled_frames.calculator_results(atoms).get("forces"), NO_FORCES),
    ):
        if found is None:
            other = labelled_frames.named_like(name[:5], [*atoms.info, *atoms.arrays, *given])
            return f"{why}, but {other} (--labels {name}={other})" if other else why
    return None


def _smearing(atoms) -> float:
    energy, free = (labelled_frames.calculator_results(atoms).get(name) for name in ("energy", "free_energy"))
    return 0.0 if energy is None or free is None else abs(free - energy) / len(atoms)


def _run(atoms: ase.Atoms, name: str, prefix: str, kind: str, run_length: int | None, n_of_run: Counter) -> str | None:
    """The run of the next frame of a file or folder; None if it is a run of its own.

    Frames of extended XYZ name their runs; the others of a file or folder are one run, `name`. With a `run_length`
    every run is cut, and `n_of_run` counts its frames. Then frames of extended XYZ without a run, or with one of their
    own (a `config_id` without #, or a `run` that is the `config_id`), are together one run, `name`, which is cut.
    """
    run = name
    if kind == "extxyz":
        named = labelled_frames.run(atoms)
        if named and (run_length is None or named != str(atoms.info.get("config_id"))):
            run = f"{prefix}{named}"
        elif run_length is None:
            return None
    if run_length is None:
        return run
    n_of_run[run] += 1
    return f"{run}/{(n_of_run[run] - 1) // run_length}"


def _frame(
    atoms, name: str, prefix: str, n: int, kind: str, run: str | None, settings: ConversionConfig, source: str
) -> ase.Atoms:
    """The frame with its labels and ids and nothing else: no constraints, no orbitals, one energy."""
    frame = labelled_frames.bare(atoms)
    found = labelled_frames.calculator_results(atoms)
    results = {"energy": float(labelled_frames.energy_of(atoms)), "forces": np.asarray(found["forces"], float)}
    if labelled_frames.has_stress(atoms):
        results["stress"] = np.asarray(found["stress"], float)
    frame.calc = SinglePointCalculator(frame, **results)
    said = {key: atoms.info[key] for key in _KEPT if key in atoms.info} if kind == "extxyz" else {}
    program = FORMATS[kind].source if kind in FORMATS else "deepmd"
    if "dft" in said:  # as `load_frames` reads it
        program = str(said["dft"]).split("-")[0].lower()
    said.setdefault("config_type", settings.family)
    said.setdefault("source", settings.source or program or source)
    if kind != "extxyz":
        said["config_id"] = f"{run}#{n}"
    else:
        said["config_id"] = f"{prefix}{atoms.info['config_id']}" if "config_id" in atoms.info else f"{name}#{n}"
        said["run"] = said["config_id"] if run is None else run
    frame.info.update(said)
    return frame
