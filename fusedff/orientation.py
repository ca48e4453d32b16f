"""A crystal's own axes: its crystal system, and the rotation into the standard axes that tables of constants refer to.

Standard axes are those of spglib's conventional cell: cube axes along x, y, z; in hexagonal, trigonal and tetragonal
crystals a along x and c along z; in orthorhombic ones a, b, c along x, y, z; in monoclinic ones a along x, b along y.
"""

from typing import NamedTuple

import numpy as np
import spglib
from ase import Atoms

# Crystal system and the last number of its space groups.
_SYSTEMS = (
    ("triclinic", 2), ("monoclinic", 15), ("orthorhombic", 74), ("tetragonal", 142), ("trigonal", 167),
    ("hexagonal", 194), ("cubic", 230),
)  # fmt: skip


class Orientation(NamedTuple):
    """How a crystal lies."""

    rotation: np.ndarray  # (3, 3), proper; a vector v of the crystal is `rotation @ v` in standard axes
    system: str  # e.g. 'cubic'
    space_group: str  # e.g. 'Fm-3m'


def find(atoms: Atoms, tolerance: float = 1e-3) -> Orientation:
    """The orientation of a crystal in any cell, primitive, conventional or repeated; `tolerance` is in Å.

    Symmetry makes several rotations equally good: the smallest is taken, so a crystal in standard axes stays as it is.
    Raises ValueError if no symmetry can be found.
    """
    found = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), tolerance)
    if found is None:
        raise ValueError(f"{atoms.get_chemical_formula()}: no symmetry can be found; check cell and positions")
    # (a, b, c) as columns; the rotations of the table are fractions of the conventional cell
    lattice = found.std_lattice.T
    fractional = np.unique(spglib.get_symmetry_from_database(found.hall_number)["rotations"], axis=0)  # ty: ignore[not-subscriptable]
    operations = lattice @ fractional @ np.linalg.inv(lattice)
    # inversion leaves tensors of even rank as they are, so of a mirrored crystal the rotation alone will do
    candidates = np.linalg.det(operations)[:, None, None] * operations @ _nearest_rotation(found.std_rotation_matrix)
    best = candidates[np.trace(candidates, axis1=1, axis2=2).argmax()]
    rotation = np.eye(3) if np.abs(best - np.eye(3)).max() < 1e-6 else _nearest_rotation(best)
    system = next(name for name, last in _SYSTEMS if found.number <= last)
    return Orientation(rotation, system, found.international)


def turned(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    """The crystal with cell and atoms rotated, without a calculator."""
    frame = atoms.copy()
    frame.set_cell(atoms.cell.array @ rotation.T)
    frame.positions = atoms.positions @ rotation.T
    return frame


def _nearest_rotation(matrix):
    """A rotation without what rounding, or a lattice that is symmetric within the tolerance, adds to it."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right
