"""Harmonic force constants of a crystal, from displacements of its atoms and the forces on them, with phonopy.

Phi = d2U / du du is found by one least-squares fit of F = -Phi u with symfc, which keeps the symmetry of the crystal
(Seko & Togo, Phys. Rev. B 110, 214302 (2024)). The displacements may be the few small ones that the symmetry leaves
independent, or snapshots of molecular dynamics.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from fusedff.crystallography import crystals
from fusedff.properties.static.relax import with_calculator
from fusedff.runtime import extras, progress

try:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix
except ImportError:
    extras.require("phonons", "phonopy", "symfc")
    raise


def lattice_of(atoms: Atoms, repeats: Sequence[int]) -> Phonopy:
    """The unit cell `atoms` and its supercell of `repeats` as phonopy's object, still without force constants.

    Raises ValueError like `crystals.repeated`.
    """
    crystals.repeated(atoms, repeats)  # which checks the repeats
    symbols = _type_symbols(atoms)
    cell = PhonopyAtoms(
        symbols=symbols, cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(), masses=atoms.get_masses(),
    )  # fmt: skip
    isotopes = symbols != atoms.get_chemical_symbols()  # which phonopy's guess of a primitive cell would ignore
    primitive = np.eye(3) if isotopes else guess_primitive_matrix(cell)
    primitive = primitive * np.sign(np.linalg.det(primitive))  # of a left-handed cell: the same lattice, turned around
    return Phonopy(cell, np.diag(repeats), primitive_matrix=primitive)


def to_ase(cell: PhonopyAtoms) -> Atoms:
    """A cell of phonopy as ASE's."""
    symbols = [symbol.rstrip("0123456789") for symbol in cell.symbols]
    return Atoms(symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, masses=cell.masses, pbc=True)


def order(lattice: Phonopy, supercell: Atoms) -> np.ndarray:
    """For each atom of phonopy's supercell its index in `supercell`, the same one with atoms in ASE's order."""
    apart = lattice.supercell.scaled_positions[:, None] - supercell.get_scaled_positions()
    return np.linalg.norm(apart - np.rint(apart), axis=-1).argmin(1)


def fit(lattice: Phonopy, displacements: np.ndarray, forces: np.ndarray) -> None:
    """Give `lattice` the force constants that fit `forces` (eV/Å) on `displacements` (Å), (n_snapshots, n_atoms, 3)."""
    lattice.dataset = {"displacements": displacements, "forces": forces}
    lattice.produce_force_constants(fc_calculator="symfc", calculate_full_force_constants=False)


def finite_displacements(
    atoms: Atoms, calculator, repeats: Sequence[int], displacement: float, name: str | None
) -> Phonopy:
    """Crystal with force constants from the forces after small displacements (Å), as few as its symmetry allows.

    `name` shows progress.
    """
    lattice = lattice_of(with_calculator(atoms, calculator), repeats)
    lattice.generate_displacements(distance=displacement)
    sites = to_ase(lattice.supercell).positions
    moved, forces = [], []
    cells = lattice.supercells_with_displacements or []
    with progress.bar(name, len(cells)) as report:
        for cell in cells:
            frame = to_ase(cell)
            moved.append(frame.positions - sites)
            frame.calc = calculator
            forces.append(frame.get_forces())
            report()
    fit(lattice, np.array(moved), np.array(forces))
    return lattice


def kelvin(temperatures: Sequence[float] | float) -> np.ndarray:
    """Temperatures (n,) in K. Raises ValueError for one that is negative or not finite."""
    at = np.atleast_1d(np.asarray(temperatures, float))
    if not (np.isfinite(at) & (at >= 0)).all():
        raise ValueError(f"temperatures {at.tolist()} K; give Kelvin, from 0 on")
    return at


def _type_symbols(atoms):
    """Chemical symbols, numbered if an element has several masses."""
    symbols, types = atoms.get_chemical_symbols(), crystals.atom_types(atoms)
    if len(set(types)) == len(set(symbols)):
        return symbols
    return [f"{symbol}{number}" for symbol, number in zip(symbols, types, strict=True)]
