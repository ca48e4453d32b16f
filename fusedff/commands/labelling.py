"""Label structures by any ASE calculator, or prepare the command that labels them with GPAW.

GPAW runs under MPI with the Python that it is installed for, mostly the system's, so that `scripts/make_dft_labels.py`
of a checkout, which labels with it, stands alone.
"""

import importlib.metadata
import shlex
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.data import extxyz, labelled_frames
from fusedff.data.validation import frame_checks
from fusedff.interfaces import calculators
from fusedff.runtime import storage
from fusedff.runtime.failures import one_line

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_dft_labels.py"
PYTHON = "/usr/bin/python3"  # where the packages of Debian and Ubuntu put GPAW
OF_GPAW = ("cutoff", "k-spacing", "k-spacing-large", "smearing", "pulay")  # settings of the script, as it spells them
SECONDS_BETWEEN_SAVES = 10.0


@dataclass(frozen=True)
class Plan:
    """What is to be labelled, and the command that does it."""

    n_structures: int
    n_done: int  # whose labels are in the output already
    sizes: tuple[int, int]  # atoms of the smallest and of the largest
    elements: tuple[str, ...]
    command: str

    def report(self) -> str:
        """The same in some lines."""
        small, large = self.sizes
        return "\n".join([
            f"structures  {self.n_structures} of {', '.join(self.elements)}, {small} to {large} atoms; "
            f"{self.n_done} are labelled already",
            "needs       GPAW and its PAW datasets (Debian, Ubuntu: apt-get install gpaw gpaw-data)",
            f"run         {self.command}",
            "            PBE; other elements may need another cut-off and k-point spacing than titanium (--help).",
            "            Interrupt it whenever you like: the same command labels what is missing. What does not",
            "            converge is skipped, and said.",
        ])  # fmt: skip


def plan(
    structures: str | Path, output: str | Path, processes: int = 2, settings: Mapping[str, float] | None = None
) -> Plan:
    """Check structures (extended XYZ, whose labels are ignored), and the command with which GPAW labels them.

    `settings` are of `OF_GPAW`. Raises FileNotFoundError, or ValueError naming file, frame and remedy for what cannot
    be labelled: no periodic cell, atoms that nearly touch, an id that was used before; settings that are not positive;
    and where there is no script, outside of a checkout.
    """
    structures, output = Path(structures), Path(output)
    if processes < 1:
        raise ValueError(f"{processes} processes can do nothing; give 1 or more")
    if not SCRIPT.is_file():
        raise FileNotFoundError(
            f"{SCRIPT} does not exist: it comes with a checkout of the project, not the package; run this in a "
            "checkout, or name a --calculator"
        )
    for name, value in (settings or {}).items():
        if not value > 0:
            raise ValueError(f"--{name} {value:g} is not positive; leave it out for the default")
    frames = _structures(structures, output)
    done = {str(frame.info.get("config_id")) for frame in extxyz.read(output)} if output.exists() else set()
    sizes = [len(frame) for frame in frames.values()]
    words = ["mpirun", "-np", str(processes), PYTHON, str(SCRIPT), str(output), "--structures", str(structures)]
    for name, value in (settings or {}).items():
        words += [f"--{name}", f"{value:g}"]
    return Plan(
        len(frames), len(done & set(frames)), (min(sizes), max(sizes)),
        tuple(np.unique([symbol for frame in frames.values() for symbol in frame.symbols]).tolist()),
        f"OMP_NUM_THREADS=1 {shlex.join(words)}",
    )  # fmt: skip


def _structures(path: Path, output: Path) -> dict[str, Atoms]:
    """The structures of a file by `config_id`, which the script gives them too; each can be labelled."""
    if path.exists() and output.exists() and path.samefile(output):
        raise ValueError(f"{output} holds the structures themselves; name another file for their labels")
    if output.is_dir():
        raise ValueError(f"{output} is a folder; name a file for the labels")
    frames, first = {}, {}
    for n, frame in enumerate(extxyz.read(path)):
        name = str(frame.info.get("config_id", f"{path.name}#{n}"))
        frame_checks.check_geometry(frame, f"{path.name}, frame {n}")
        if name in frames:
            raise ValueError(
                f"{path.name}, frame {n}: config_id {name!r} is that of frame {first[name]} too; give its own"
            )
        if "config_id" not in frame.info:
            frame.info.setdefault("run", name)  # as `datasets.load_frames` takes the structures themselves
        frames[name], first[name] = frame, n
    if not frames:
        raise ValueError(f"{path.name} has no frames; give at least one structure")
    return frames


# ---- by any ASE calculator ----


@dataclass(frozen=True)
class Labelling:
    """The result of labelling with a calculator."""

    n_structures: int
    n_before: int  # labelled by earlier calls
    n_new: int
    failed: dict[str, str]  # `config_id` -> why it has no labels

    def report(self) -> str:
        """The same in a line."""
        return (
            f"labelled    {self.n_before + self.n_new} of {self.n_structures} structures, {self.n_before} of them "
            f"before; {len(self.failed)} failed"
        )


def label(
    structures: str | Path,
    output: str | Path,
    model: str,
    settings: Mapping | None = None,
    source: str | None = None,
    say=print,
) -> Labelling:
    """Append the structures of an extended-XYZ file with labels of a calculator (`calculators.by_name`) to `output`.

    Frames get `source` (default: the calculator's name) and `calculator`, which names its package, version and
    settings. A structure that fails is skipped and reported. Frames that the output holds are not labelled again. The
    output is replaced as a whole every few seconds, also at an interruption. `say` gets a line for each structure.

    Raises what `plan` and `calculators.by_name` raise, `storage.InUseError` while another process labels into `output`,
    and ValueError for an output with labels of another calculator or another structure of the same id, and where no
    structure can be labelled.
    """
    structures, output = Path(structures), Path(output)
    calculator = calculators.by_name(model, settings)
    source = source or (Path(model).stem if Path(model).exists() else model)
    says = {"source": source, "calculator": _described(model, calculator, settings or {})}
    frames = _structures(structures, output)
    with storage.lock(output):
        done, new, failed = _done(output, frames, says), 0, {}
        with _appending(output) as append:
            for number, (name, frame) in enumerate(frames.items(), start=1):
                if name in done:
                    continue
                place, began = f"{number}/{len(frames)} {name}", time.monotonic()
                try:
                    found = _labelled(frame, calculator, {"config_id": name, **says})
                except Exception as error:  # of whoever wrote it
                    failed[name] = one_line(error)
                    say(f"{place}: no labels ({failed[name]}), skipped")
                    continue
                append(found)
                new += 1
                energy, forces, _ = labelled_frames.labels(found)
                say(
                    f"{place}: {len(found)} atoms, {energy / len(found):.4f} eV/atom, "
                    f"max |F| {np.abs(forces).max():.3f} eV/Å, {time.monotonic() - began:.1f} s"
                )
    if failed and not new and not done & set(frames):
        name, why = next(iter(failed.items()))
        raise ValueError(f"{model} labels none of {len(frames)} structures ({name}: {why}); take another calculator")
    return Labelling(len(frames), len(done & set(frames)), new, failed)


@contextmanager
def _appending(output: Path):
    """Yield `append(frame)`; the file is replaced as a whole every few seconds, and at the end, however it comes."""
    content, saved = output.read_bytes() if output.exists() else b"", time.monotonic()
    unsaved = False

    def append(frame):
        nonlocal content, saved, unsaved
        content, unsaved = content + extxyz.encode(frame), True
        if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            storage.write_bytes(output, content)
            saved, unsaved = time.monotonic(), False

    try:
        yield append
    finally:
        if unsaved:
            storage.write_bytes(output, content)


def _described(model: str, calculator, settings: Mapping) -> str:
    """A calculator with the version of its package and its settings, to tell its labels from others."""
    package = type(calculator).__module__.split(".")[0]
    try:
        version = [f"({package} {importlib.metadata.version(package)})"]
    except importlib.metadata.PackageNotFoundError:  # not installed, or under another name
        version = []
    return " ".join([model, *version, *(f"{key}={value}" for key, value in sorted(settings.items()))])


def _done(output: Path, frames: Mapping[str, Atoms], says: Mapping[str, str]) -> set[str]:
    """Ids in the output; ValueError if one has labels of another kind, or if one of `frames` was another structure."""
    done = set()
    for n, frame in enumerate(extxyz.read(output) if output.exists() else ()):
        name = str(frame.info.get("config_id", n))
        done.add(name)
        where = f"{output.name}, frame {n} ({name})"
        for key, value in says.items():
            if str(frame.info.get(key)) != value:
                raise ValueError(
                    f"{where}: its {key} is {frame.info.get(key)}, now {value}; write to another file, or use the same"
                )
        if name not in frames:
            continue
        wanted = frames[name]
        same = np.array_equal(frame.numbers, wanted.numbers) and all(
            np.allclose(one, two, rtol=0, atol=1e-6)
            for one, two in ((frame.cell.array, wanted.cell.array), (frame.positions, wanted.positions))
        )
        if not same:
            raise ValueError(f"{where}: another structure is to be labelled under this id now; write to another file")
    return done


def _labelled(structure: Atoms, calculator, says: Mapping[str, str]) -> Atoms:
    """The structure with labels and ids and nothing else; ValueError for labels that cannot be trained on."""
    found = calculators.compute_labels(calculator, structure)
    frame = labelled_frames.bare(structure)
    frame.info = {"config_type": labelled_frames.family(structure), **says}
    if "run" in structure.info:
        frame.info["run"] = str(structure.info["run"])
    results = {"energy": found.energy, "forces": found.forces}
    if "stress" in calculator.implemented_properties:
        results["stress"] = found.stress
    frame.calc = SinglePointCalculator(frame, **results)
    frame_checks.check_labels(frame, "label")
    return frame
