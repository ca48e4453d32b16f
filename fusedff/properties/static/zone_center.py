"""Optical phonons at the zone centre (Gamma), from the forces on displaced atoms of the primitive cell alone."""

import numpy as np
import spglib
from ase import Atoms

from fusedff.crystallography import crystals
from fusedff.properties.static.relax import with_calculator
from fusedff.units import THZ

_TOLERANCE = 1e-3  # Å, of symmetry
_SAME = 1e-2  # THz; frequencies of one mode differ by less


def optical(atoms: Atoms, calculator, displacement: float = 0.01) -> np.ndarray:
    """Frequencies (3 n_primitive - 3,) in THz of a crystal at rest, ascending; imaginary ones are negative.

    Central differences over `displacement` (Å); an atom moves with all its images, so no supercell is needed. The three
    translations are projected out. Long-range electric fields, which split LO from TO in ionic crystals, are left out.
    Empty for one atom per primitive cell. Raises ValueError if no primitive cell is found.
    """
    primitive = primitive_cell(with_calculator(atoms, calculator))
    n = len(primitive)
    if n == 1:
        return np.zeros(0)
    primitive.calc = calculator
    sites, hessian = primitive.positions.copy(), np.zeros((3 * n, 3 * n))
    for row in range(3 * n):
        for sign in (1, -1):
            primitive.positions = sites
            primitive.positions[row // 3, row % 3] += sign * displacement
            hessian[row] -= sign * primitive.get_forces().ravel() / (2 * displacement)
    roots = np.repeat(np.sqrt(primitive.get_masses()), 3)
    dynamical = (hessian + hessian.T) / 2 / np.outer(roots, roots)
    relative = crystals.relative_displacements(primitive.get_masses())
    squares = np.linalg.eigvalsh(relative.T @ dynamical @ relative)
    return np.sign(squares) * np.sqrt(np.abs(squares)) / THZ


def modes(frequencies: np.ndarray) -> list[tuple[float, int]]:
    """Frequencies that are equal by symmetry as one: (THz, how many), ascending."""
    groups: list[list[float]] = []
    for frequency in np.sort(frequencies):
        if groups and frequency - groups[-1][-1] < _SAME:
            groups[-1].append(float(frequency))
        else:
            groups.append([float(frequency)])
    return [(float(np.mean(group)), len(group)) for group in groups]


def primitive_cell(atoms: Atoms) -> Atoms:
    """A primitive cell of a crystal, in axes that may differ from its own. Raises ValueError if none is found."""
    types = crystals.atom_types(atoms)
    cell, places, which = _found(spglib.find_primitive, atoms, types)
    like = np.unique(types, return_index=True)[1][np.asarray(which) - 1]  # an atom of the same type
    return Atoms(atoms.numbers[like], cell=cell, scaled_positions=places, masses=atoms.get_masses()[like], pbc=True)


def images(atoms: Atoms) -> np.ndarray:
    """The atom of the primitive cell (n,) of which each atom of a crystal is an image: equal by a translation.

    Raises ValueError if no primitive cell is found.
    """
    return np.asarray(_found(spglib.get_symmetry_dataset, atoms, crystals.atom_types(atoms)).mapping_to_primitive)


def _found(search, atoms, types):
    """What a search of spglib finds in a crystal."""
    found = search((atoms.cell.array, atoms.get_scaled_positions(), types), _TOLERANCE)
    if found is None:
        raise ValueError(f"{atoms.get_chemical_formula()}: no primitive cell can be found; check cell and positions")
    return found
