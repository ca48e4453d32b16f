"""Orientation of a crystal: its symmetry, and the rotation into the standard axes that tables of constants refer to.

Standard axes are those of IEEE Std 176 (1987), tied to the edges a, b, c of a conventional cell: z along c, and y along
the normal of the a-c plane, on the side that makes x, y, z right-handed with a on the side of x. So cube axes lie along
x, y, z; in hexagonal, trigonal and tetragonal crystals a lies along x and c along z; in orthorhombic ones a, b, c along
x, y, z; in monoclinic ones b along y and c along z. If the two-fold axes of a trigonal crystal lie between the edges of
the cell (e.g. P-31m), a is turned by 30 degrees from x, so that a two-fold axis lies along x as in other trigonal
crystals.

The conventional cell is the given cell if its edges fit the symmetry; a repeated cell is first shortened along its
edges. Otherwise it is spglib's, if there is only one. Orthorhombic, monoclinic and triclinic crystals have several
conventional cells (Pnma or Pbnm), and 4/m and -3 crystals and those of primitive trigonal lattices two (which differ by
the signs of C14, C15, C16): elastic constants refer to the cell that is given, and other cells are refused.

A half turn about c reverses the sign of C14, and tables differ in it. A rhombohedral lattice is taken as obverse, as in
the International Tables: C14 of corundum is then +23 GPa (Gladden et al., Appl. Phys. Lett. 85, 392 (2004)); earlier
tables have -23. The lattice of quartz is primitive: C14 is -18 GPa in cells whose reflection (1 0 -1 1) is stronger
than (0 1 -1 1), the setting r(+) of Donnay & Le Page, Acta Cryst. A34, 584 (1978), and +18 with a and b reversed;
editions of IEEE Std 176 differ in the direction of +x of quartz.
"""

from typing import NamedTuple

import numpy as np
import spglib
from ase import Atoms
from ase.cell import Cell

from fusedff.crystallography import elastic_symmetry

# Crystal system, elastic symmetry and the last number of its space groups.
_CLASSES = (
    ("triclinic", "triclinic", 2),
    ("monoclinic", "monoclinic", 15),
    ("orthorhombic", "orthorhombic", 74),
    ("tetragonal", "tetragonal 4/m", 88),
    ("tetragonal", "tetragonal 4/mmm", 142),
    ("trigonal", "trigonal -3", 148),
    ("trigonal", "trigonal -3m", 167),
    ("hexagonal", "hexagonal", 194),
    ("cubic", "cubic", 230),
)
# Edges and angles of the cell that are fixed by symmetry: equal to another edge, or a number of degrees.
_LATTICES = {
    "triclinic": {},
    "monoclinic": {"alpha": 90, "gamma": 90},
    "orthorhombic": {"alpha": 90, "beta": 90, "gamma": 90},
    "tetragonal": {"b": "a", "alpha": 90, "beta": 90, "gamma": 90},
    "trigonal": {"b": "a", "alpha": 90, "beta": 90, "gamma": 120},
    "hexagonal": {"b": "a", "alpha": 90, "beta": 90, "gamma": 120},
    "cubic": {"b": "a", "c": "a", "alpha": 90, "beta": 90, "gamma": 90},
}
# Symmetries with several conventional cells, whose constants differ; so have primitive trigonal lattices.
_SEVERAL_CELLS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal 4/m", "trigonal -3")
PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")


class Orientation(NamedTuple):
    """Orientation and symmetry of a crystal."""

    rotation: np.ndarray  # (3, 3), proper; a vector v of the crystal is `rotation @ v` in standard axes
    system: str  # e.g. 'cubic'
    space_group: str  # e.g. 'Fm-3m'
    symmetry: str  # one of `elastic_symmetry.SYMMETRIES`


class Conventional(NamedTuple):
    """A conventional cell of a crystal in standard axes."""

    atoms: Atoms
    symmetry: str  # one of `elastic_symmetry.SYMMETRIES`
    space_group: str
    turn: int  # angle of the edge a from the x axis, 0 or 30 degrees


def free_parameters(symmetry: str) -> tuple[str, ...]:
    """Names of the lattice parameters that an elastic symmetry leaves free, in the order of `PARAMETERS`."""
    return tuple(name for name in PARAMETERS if name not in _LATTICES[symmetry.split()[0]])


def cell_of(parameters: dict[str, float], symmetry: str, turn: int = 0) -> np.ndarray:
    """Cell (3, 3), rows in Å in standard axes, from the free lattice parameters (Å, degrees).

    `turn` is the angle of the edge a from the x axis, in degrees. Raises ValueError for angles that no cell can have.
    """
    fixed = _LATTICES[symmetry.split()[0]]
    implied = {name: parameters[rule] if isinstance(rule, str) else rule for name, rule in fixed.items()}
    six = [(parameters | implied)[name] for name in PARAMETERS]
    cosines = np.cos(np.radians(six[3:]))
    if not 1 - np.sum(cosines**2) + 2 * np.prod(cosines) > 1e-6:
        raise ValueError(f"angles {', '.join(f'{x:g}' for x in six[3:])} degrees make no cell; check them")
    cell = Cell.fromcellpar(six).array
    return cell @ _axes(cell, turn).T


def of_atoms(atoms: Atoms, tolerance: float = 1e-3) -> Orientation:
    """Orientation of a crystal given in a primitive, conventional or repeated cell; `tolerance` is in Å.

    Of several rotations that are equivalent by symmetry, the smallest is taken: a crystal in standard axes stays as it
    is. Raises ValueError if no symmetry can be found, the cell does not fit it, or the crystal has several conventional
    cells and the given one is neither one of them nor a repeated one.
    """
    found, system, symmetry = _symmetry(atoms, tolerance)
    _, rotation, _ = _conventional(atoms, found, symmetry, tolerance)
    candidates = rotation @ _proper_operations(found)
    best = candidates[np.trace(candidates, axis1=1, axis2=2).argmax()]
    rotation = np.eye(3) if np.abs(best - np.eye(3)).max() < 1e-6 else _nearest_rotation(best)
    return Orientation(rotation, system, found.international, symmetry)


def conventional(atoms: Atoms, tolerance: float = 1e-3) -> Conventional:
    """A conventional cell of a crystal given as in `of_atoms`, which raises the same errors; `tolerance` is in Å."""
    found, _, symmetry = _symmetry(atoms, tolerance)
    cell, rotation, turn = _conventional(atoms, found, symmetry, tolerance)
    return Conventional(rotated_atoms(cell, rotation), symmetry, found.international, turn)


def rotated_atoms(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    """Copy of a crystal with cell and atoms rotated by `rotation` (3, 3), without its calculator."""
    frame = atoms.copy()
    frame.set_cell(atoms.cell.array @ rotation.T)
    frame.positions = atoms.positions @ rotation.T
    return frame


def _symmetry(atoms, tolerance):
    """The symmetry dataset of spglib, the crystal system and the elastic symmetry."""
    try:
        found = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), tolerance)
    except Exception:  # spglib raises an error of its own or returns None, depending on its version and settings
        found = None
    if found is None:
        raise ValueError(f"{atoms.get_chemical_formula()}: no symmetry can be found; check cell and positions")
    system, symmetry = next((system, symmetry) for system, symmetry, last in _CLASSES if found.number <= last)
    return found, system, symmetry


def _conventional(atoms, found, symmetry, tolerance):
    """A conventional cell in the axes of `atoms`, the rotation into standard axes, and the angle of a from x."""
    standard = Atoms(found.std_types, cell=found.std_lattice, scaled_positions=found.std_positions, pbc=True)
    standard = rotated_atoms(standard, _nearest_rotation(found.std_rotation_matrix).T)
    own, called = _shortened(atoms, found, tolerance), f"{atoms.get_chemical_formula()} ({found.international})"
    primitive_trigonal = symmetry == "trigonal -3m" and found.international.startswith("P")
    for cell in [own, standard] if len(own) == len(standard) else [standard]:
        for turn in (0, 30) if symmetry == "trigonal -3m" else (0,):
            rotation = _axes(cell.cell.array, turn)
            if not _fits(cell, rotation, turn, found, symmetry, tolerance):
                continue
            if cell is standard and (symmetry in _SEVERAL_CELLS or primitive_trigonal):
                raise ValueError(
                    f"{called}: its cell is not a conventional cell, of which {symmetry} crystals have several, with "
                    "different constants; relax it if it is distorted, else give the cell that you mean "
                    "(spglib.standardize_cell makes one)"
                )
            return cell, rotation, turn
    raise ValueError(
        f"{called}: its cell does not fit its symmetry within {tolerance:g} Å; relax it or give its coordinates with "
        "more digits"
    )


def _shortened(atoms, found, tolerance):
    """The cell with edges no longer than the translations along them, right-handed, and obverse if rhombohedral.

    Atoms keep their order; of those that are equal by a translation the first is kept.
    """
    translations = found.translations[(found.rotations == np.eye(3)).all((1, 2))]  # fractions of the edges
    zero = np.abs(translations - translations.round()) * atoms.cell.lengths() < 10 * tolerance
    repeats = np.array([(zero | axis).all(1).sum() for axis in np.eye(3, dtype=bool)])
    # a rhombohedral lattice has the reverse setting, not the obverse of tables, if it is centred at (1/3, 2/3, 1/3)
    off = translations * repeats - (1 / 3, 2 / 3, 1 / 3)
    reverse = (np.abs(off - off.round()) < 0.01).all(1).any()
    signs = np.sign(np.linalg.det(atoms.cell.array)) * np.array([-1, -1, 1] if reverse else [1, 1, 1])
    if (repeats * signs == 1).all():
        return atoms
    cell = atoms.cell.array * (signs / repeats)[:, None]
    scaled, kept = atoms.positions @ np.linalg.inv(cell), []
    for n in range(len(atoms)):
        apart = scaled[kept] - scaled[n]
        if (np.linalg.norm((apart - apart.round()) @ cell, axis=1) > 10 * tolerance).all():
            kept.append(n)
    return Atoms(atoms.numbers[kept], cell=cell, positions=atoms.positions[kept], pbc=True)


def _axes(cell, turn):
    """Rotation (3, 3) of a cell (rows a, b, c) into standard axes, with a at `turn` degrees from x."""
    a, _, c = cell
    y, z = (vector / np.linalg.norm(vector) for vector in (np.cross(c, a), c))
    axes = np.array([np.cross(y, z), y, z])
    rotation = elastic_symmetry.rotation_about("z", np.radians(turn)) @ axes
    return np.eye(3) if np.abs(rotation - np.eye(3)).max() < 1e-12 else rotation


def _fits(atoms, rotation, turn, found, symmetry, tolerance):
    """Whether the cell has the lattice of its symmetry and, in these axes, the elastic constants of its class."""
    parameters = dict(zip(PARAMETERS, atoms.cell.cellpar(), strict=True))
    ideal = cell_of({name: parameters[name] for name in free_parameters(symmetry)}, symmetry, turn)
    if np.abs(atoms.cell.array @ rotation.T - ideal).max() > 10 * tolerance:
        return False
    basis = np.stack(list(elastic_symmetry.elastic_basis(symmetry).values()))
    operations = rotation @ _proper_operations(found) @ rotation.T
    return all(np.abs(elastic_symmetry.rotated(basis, o) - basis).max() < 0.1 for o in operations)


def _proper_operations(found):
    """Rotations (n, 3, 3) of the Laue class, in the axes of the crystal as it was given."""
    # (a, b, c) as columns; the rotations of the table are fractions of the conventional cell
    lattice = found.std_lattice.T
    fractional = np.unique(spglib.get_symmetry_from_database(found.hall_number)["rotations"], axis=0)  # ty: ignore[not-subscriptable]
    operations = lattice @ fractional @ np.linalg.inv(lattice)
    # inversion does not change tensors of even rank, so the proper part of every operation suffices
    operations = np.linalg.det(operations)[:, None, None] * operations
    given = _nearest_rotation(found.std_rotation_matrix)
    return given.T @ operations @ given


def _nearest_rotation(matrix):
    """The proper rotation nearest to a matrix (3, 3) that is one up to rounding or the tolerance of the symmetry.

    For a left-handed cell it is the rotation of the inverted crystal, whose elastic constants are the same.
    """
    left, _, right = np.linalg.svd(matrix)
    return np.linalg.det(left @ right) * left @ right
