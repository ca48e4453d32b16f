"""Choose structures to label next: those for which the forces of a committee's members differ most.

Where the members, from trainings with other seeds, agree, a label adds little; where they differ, the training
data do not determine the potential (query by committee). H. S. Seung et al., Proc. COLT 287 (1992); for interatomic
potentials: L. Zhang et al., Phys. Rev. Mater. 3, 023804 (2019), whose model deviation is the measure used here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from fusedff.data import extxyz, labelled_frames
from fusedff.data.validation import duplicates, frame_checks
from fusedff.interfaces.evaluator import Evaluator, force_spread
from fusedff.potential import Potential
from fusedff.runtime import storage

APART = 0.15  # Å; atoms of a crystal at room temperature move further between two independent snapshots


@dataclass(frozen=True)
class Proposal:
    """The chosen frames, the largest first, and the spread of forces of all."""

    chosen: tuple[int, ...]  # indices of frames
    spread: np.ndarray  # (n_frames,) eV/Å

    def report(self) -> str:
        """The same in some lines."""
        typical, largest = np.median(self.spread), self.spread.max()
        return "\n".join([
            f"frames    {len(self.spread)}; spread of the force on the most disputed atom: median {typical:.3g} eV/Å, "
            f"largest {largest:.3g} eV/Å",
            f"proposed  {len(self.chosen)}: "
            + ", ".join(f"{n} ({self.spread[n]:.3g} eV/Å)" for n in self.chosen[:8])
            + (", ..." if len(self.chosen) > 8 else ""),
        ])  # fmt: skip


def rank(
    frames: Sequence[Atoms], potentials: Sequence[Potential], count: int, apart: float = APART, where: str = ""
) -> Proposal:
    """The `count` frames with the largest spread of forces, no two of them nearly the same; labels are not looked at.

    The spread of a frame is that of the atom with the largest (`evaluator.force_spread`). Of frames whose cell vectors
    and atoms differ by less than `apart` (Å), however rotated, shifted or sorted, only the first in rank is taken, so
    fewer than `count` may be found. Raises ValueError, which `where` begins, for frames that are no periodic cells and
    for elements that the potentials do not know, and for fewer than two potentials.
    """
    if len(potentials) < 2:
        raise ValueError(f"{len(potentials)} model is no committee; give two or more that differ in their seeds")
    if count < 1 or not 0 <= apart < np.inf:
        raise ValueError(f"count = {count}, apart = {apart:g} Å: give 1 frame or more, and no negative length")
    evaluate, spread = Evaluator(potentials), []
    for n, frame in enumerate(frames):
        frame_checks.check_geometry(frame, f"{where}frame {n}")
        evaluate.members[0].require_species(frame.numbers, f"{where}frame {n}: ")
        spread.append(force_spread(np.array([found.forces for found in evaluate.per_member(frame)])).max())
    chosen = []
    for n in np.argsort(-np.array(spread), kind="stable").tolist():
        if len(chosen) == count:
            break
        if not any(_alike(frames[n], frames[m], apart) for m in chosen):
            chosen.append(n)
    return Proposal(tuple(chosen), np.array(spread))


def propose(path: str | Path, models: Sequence[str], count: int, into: str | Path, apart: float = APART) -> Proposal:
    """Write the frames of an extended-XYZ file that `rank` chooses to the new file `into`, without labels.

    They keep `config_type` and `run`; frames that name no run are one each. `config_id` says file and frame,
    `forces_std` the spread in eV/Å. Raises what `Potential.load` and `rank` raise, and FileExistsError.
    """
    path, into = Path(path), Path(into)
    storage.require_new(into)
    if repeated := [name for name, n in Counter(models).items() if n > 1]:
        raise ValueError(f"{repeated[0]} is given twice and would agree with itself; give each model once")
    frames = list(extxyz.read(path))
    if not frames:
        raise ValueError(f"{path.name} has no frames; give at least one structure")
    found, structures = rank(frames, [Potential.load(name) for name in models], count, apart, f"{path.name}, "), []
    for n in found.chosen:
        frame = labelled_frames.bare(frames[n])
        name = f"{path.name}#{n}"
        frame.info = {
            "config_type": labelled_frames.family(frames[n]),
            "run": labelled_frames.run(frames[n]) or name,
            "config_id": name,
            "forces_std": round(float(found.spread[n]), 6),
        }  # fmt: skip
        structures.append(frame)
    storage.write_bytes(into, extxyz.encode(structures))
    return found


def _alike(one: Atoms, two: Atoms, apart: float) -> bool:
    same_atoms = np.array_equal(np.sort(one.numbers), np.sort(two.numbers))
    return same_atoms and duplicates.same(one, two, atoms=apart, cell=apart)
