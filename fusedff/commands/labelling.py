"""Structures to label with DFT: checked here, labelled by `scripts/make_dft_labels.py` of a checkout.

The script stands alone, because GPAW runs under MPI with the Python that it is installed for, mostly the system's.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedff.data import extxyz
from fusedff.data import frames as labelled

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_dft_labels.py"
PYTHON = "/usr/bin/python3"  # where the packages of Debian and Ubuntu put GPAW


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
            "            PBE, plane waves of 500 eV: see its --help. Interrupt it whenever you like: the same command",
            "            labels what is missing. What does not converge is skipped, and said.",
        ])  # fmt: skip


def plan(structures: str | Path, output: str | Path, processes: int = 2) -> Plan:
    """Check structures (extended XYZ; labels in it are not looked at) and say how to label them into `output`.

    Raises FileNotFoundError, or ValueError naming file, frame and remedy for what cannot be labelled: no periodic cell,
    atoms that nearly touch, an id that was used before; and where there is no script, outside of a checkout.
    """
    structures, output = Path(structures), Path(output)
    if not SCRIPT.is_file():
        raise FileNotFoundError(f"{SCRIPT} does not exist: it comes with a checkout of the project, not the package")
    if processes < 1:
        raise ValueError(f"{processes} processes can do nothing; give 1 or more")
    if structures.exists() and output.exists() and structures.samefile(output):
        raise ValueError(f"{output} holds the structures themselves; name another file for their labels")
    frames, first = list(extxyz.read(structures)), {}
    if not frames:
        raise ValueError(f"{structures.name} has no frames; give at least one structure")
    for n, frame in enumerate(frames):
        name = str(frame.info.get("config_id", f"{structures.name}#{n}"))  # as the script calls it
        labelled.check_geometry(frame, f"{structures.name}, frame {n}")
        if name in first:
            raise ValueError(
                f"{structures.name}, frame {n}: config_id {name!r} is that of frame {first[name]} too; give its own"
            )
        first[name] = n
    done = {str(frame.info.get("config_id")) for frame in extxyz.read(output)} if output.exists() else set()
    sizes = [len(frame) for frame in frames]
    words = ["mpirun", "-np", str(processes), PYTHON, str(SCRIPT), str(output), "--structures", str(structures)]
    return Plan(
        len(frames), len(done & set(first)), (min(sizes), max(sizes)),
        tuple(np.unique([symbol for frame in frames for symbol in frame.symbols]).tolist()),
        f"OMP_NUM_THREADS=1 {shlex.join(words)}",
    )  # fmt: skip
