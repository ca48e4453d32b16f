"""Halo of a part of a cell: the surrounding atoms on which the energies of the atoms in the part depend."""

from itertools import product

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from fusedff.geometry.systems import heights


def with_halo(frame: Atoms, own: np.ndarray, reach: float) -> np.ndarray:
    """Indices, ascending, of the atoms in `own` (n,) bool and of all atoms with an image within `reach` (Å) of one.

    The frame may be open in some directions. Memory and time grow linearly with the number of atoms.
    """
    inside = np.array(own, bool)
    if not inside.any():
        return np.flatnonzero(inside)
    cell = frame.cell.complete().array
    fractional = frame.positions @ np.linalg.inv(cell)
    margin = reach / heights(cell)
    low, high = fractional[own].min(0) - margin, fractional[own].max(0) + margin
    # images of each atom that lie in the smallest parallelepiped around what is within reach
    first = np.where(frame.pbc, np.ceil(low - fractional), 0).astype(int)
    last = np.where(frame.pbc, np.floor(high - fractional), 0).astype(int)
    tree = cKDTree(frame.positions[own])
    for image in product(*map(range, first.min(0), last.max(0) + 1)):
        there = np.flatnonzero(~inside & np.all((first <= image) & (image <= last), 1))
        distance, _ = tree.query(frame.positions[there] + image @ cell, distance_upper_bound=reach)
        inside[there[np.isfinite(distance)]] = True
    return np.flatnonzero(inside)
