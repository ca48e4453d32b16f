"""Wrong labels, found by their residuals: after training they are much larger than those of similar frames.

A transposed cell, a stress of the wrong sign, a net force, doubled forces or another zero of energy cannot be seen in
one frame, since each could be a correct label. A potential trained on all frames predicts what is typical, and wrong
labels deviate from it. Residuals are divided by the size of the label, because large forces are predicted less
accurately than small ones. The score is a residual's distance from the median of its family in units of the median
absolute deviation times 1.48, which is the standard deviation of normal residuals; mean and standard deviation would
be dominated by the wrong labels themselves.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms

from fusedff.data import labelled_frames
from fusedff.potential import Potential
from fusedff.training import label_errors
from fusedff.training.label_errors import FrameErrors

SUSPICIOUS = 7.0  # robust standard deviations
FLOOR = 0.04  # least standard deviation of residuals, relative to the size of labels
FAMILY = 8  # frames; smaller families of a source are taken together
SIZES = {"energy": 0.1, "forces": 0.3, "stress": 0.04}  # eV/atom, eV/Å, eV/Å^3: labels count as at least so large
UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å^3"}


class Outlier(NamedTuple):
    """A frame that does not fit its family in one quantity."""

    frame: int
    config_id: str
    quantity: str  # energy, forces or stress
    residual: float  # in the unit of `UNITS`; root mean square for forces and stress
    score: float  # robust standard deviations from what is typical

    def __str__(self):
        return f"{self.config_id} ({self.quantity} off by {abs(self.residual):.3g} {UNITS[self.quantity]})"

    def as_dict(self) -> dict:
        """Plain data for JSON; `frame` counts the frames that were given to `find`."""
        return self._asdict() | {"unit": UNITS[self.quantity]}


def find(potential: Potential, frames: Sequence[Atoms], stores=None) -> list[Outlier]:
    """Frames with a residual that scores above `SUSPICIOUS`, highest score first; empty for fewer than `FAMILY` frames.

    `stores` may hold the same frames in the same order, each a `FrameStore` of `label_errors.store_of`; their neighbour
    lists are then used. Raises the errors of `store_of`.
    """
    if len(frames) < FAMILY:
        return []
    found = [
        Outlier(int(n), str(frames[n].info.get("config_id", n)), quantity, float(residual[n]), float(score[n]))
        for quantity, (residual, score) in scores(potential, frames, stores).items()
        for n in np.flatnonzero(score > SUSPICIOUS)
    ]
    return sorted(found, key=lambda outlier: -outlier.score)


def scores(potential: Potential, frames: Sequence[Atoms], stores=None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Residual (in `UNITS`) and score of every frame by quantity, both (n_frames,); nan where there is no label.

    Families are the frames of one source and `config_type`. The median energy of a family is also compared with that of
    all other frames of its source: a wrong zero of energy is the same in all frames of the family.
    """
    kinds = [(labelled_frames.source(frame), labelled_frames.family(frame)) for frame in frames]
    families, members_of = defaultdict(list), Counter(kinds)
    for n, kind in enumerate(kinds):
        families[kind if members_of[kind] >= FAMILY else kind[:1]].append(n)
    sizes, found = _sizes(potential, frames, families.values()), {}
    if stores:
        errors = [label_errors.frame_errors(potential, store) for store in stores]
    else:
        store, predictions = label_errors.predict_frames(potential, frames)
        errors = [label_errors.compare(predictions, store.labels())]
    parts = [residuals(part) for part in errors]
    for quantity in SIZES:
        residual = np.concatenate([part[quantity] for part in parts])
        size, score = np.hypot(sizes[quantity], SIZES[quantity]), np.full(len(frames), np.nan)
        for members in families.values():
            centre = np.median(residual[members]) if quantity == "energy" else 0.0  # the others are positive
            relative = (residual[members] - centre) / size[members]
            if np.isfinite(relative).any():
                above = relative - np.nanmedian(relative)
                # a force or stress that is predicted better than usual, as in a perfect crystal, is no fault
                score[members] = (np.abs(above) if quantity == "energy" else np.maximum(above, 0)) / _spread(relative)
            others = residual[np.setdiff1d([n for n, k in enumerate(kinds) if k[0] == kinds[members[0]][0]], members)]
            if quantity == "energy" and len(others) >= FAMILY:
                shift = abs(centre - np.median(others)) / SIZES["energy"]
                spread = max(_spread(relative), _spread(others / SIZES["energy"]))
                score[members] = np.maximum(score[members], shift / spread)
        found[quantity] = (residual, score)
    return found


def _spread(values) -> float:
    """Robust standard deviation, at least `FLOOR`."""
    return max(1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values))), FLOOR)


def _sizes(potential, frames, families) -> dict[str, np.ndarray]:
    """Size of the labels: root mean squares, and of the energy per atom how far it is from that of its family."""
    said = [labelled_frames.labels(frame) for frame in frames]
    atoms = np.array([potential.reference_energy(frame.numbers) for frame in frames])
    energy = (np.array([label.energy for label in said]) - atoms) / [len(frame) for frame in frames]
    for members in families:
        energy[members] -= np.median(energy[members])
    return {
        "energy": energy,
        "forces": np.sqrt([np.mean(label.forces**2) for label in said]),
        "stress": np.sqrt([np.mean(label.stress**2) for label in said]),
    }


def residuals(found: FrameErrors) -> dict[str, np.ndarray]:
    """Predicted minus label, (n_frames,): energy per atom, root mean square of forces and of stress (nan: no label)."""
    return {"energy": found.energy, "forces": found.force_squared**0.5, "stress": found.stress_squared**0.5}
