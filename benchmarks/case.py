"""Problem that both sides (fusedff and chemtrain) solve: cells, labels and parameters in a file that numpy reads."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

# Units of work in one call of either side; times are divided by them.
EVALUATIONS = 5  # energies and forces inside one scan
STEPS = 20  # of Langevin dynamics
CELLS = 2  # in a batch of force matching
BATCHES = 4  # of force matching inside one scan
SNAPSHOTS = 2  # in a DiffTRe gradient

TEMPERATURE = 323.0  # K
TIMESTEP_FS = 2.0
FRICTION_PER_PS = 100.0  # timestep and friction of chemtrain's titanium example
WEIGHTS = {"energy": 1.0, "forces": 1.0, "stress": 1.0}


class Case(NamedTuple):
    """Displaced titanium cells of one size, in Å and eV."""

    positions: np.ndarray  # (snapshots, n, 3)
    cell: np.ndarray  # (3, 3), rows are lattice vectors
    energy: np.ndarray  # (snapshots,) labels for force matching
    forces: np.ndarray  # (snapshots, n, 3)
    stress: np.ndarray  # (snapshots, 6) Voigt
    neighbors: int  # largest number of an atom in any snapshot
    edges: int  # directed pairs, largest number in any snapshot
    triplets: int  # pairs of edges that share an atom, largest number in any snapshot
    params: dict  # fusedff's, {module: {leaf: array}}
    peer_params: dict  # the same for chemtrain

    @property
    def n_atoms(self) -> int:
        """Atoms in a cell."""
        return self.positions.shape[1]

    def write(self, path: Path) -> None:
        """Write all arrays to an npz file."""
        arrays = {}
        for field, value in self._asdict().items():
            if isinstance(value, dict):
                arrays |= {f"{field}|{m}|{leaf}": x for m, leaves in value.items() for leaf, x in leaves.items()}
            else:
                arrays[field] = value
        np.savez(path, **arrays)


def read(path: Path) -> Case:
    """Read a case that `Case.write` wrote."""
    fields = {"params": {}, "peer_params": {}}
    with np.load(path) as arrays:
        for key in arrays.files:
            field, *place = key.split("|")
            if place:
                fields[field].setdefault(place[0], {})[place[1]] = arrays[key]
            else:
                fields[field] = arrays[key]
    return Case(**fields)
