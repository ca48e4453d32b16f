"""Crystals: a structure with lattice parameters, and the unit cells and supercells made from them.

A structure is a name that `ase.build.bulk` knows, with a chemical symbol, or is read from a file or an `ase.Atoms`
(`from_structure`). Cells have the standard axes of `orientation`: cube edges along x, y, z; hcp has a along x and c
along z.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import ase
import ase.data
import ase.io
import numpy as np
from ase.build import bulk
from ase.formula import Formula

from fusedff.crystallography import orientation
from fusedff.crystallography.orientation import PARAMETERS
from fusedff.runtime import limits, storage
from fusedff.runtime.failures import one_line

# Names of structures, each with an example; all are cubic but hcp.
STRUCTURES = {
    "hcp": "Ti",
    "bcc": "Fe",
    "fcc": "Al",
    "diamond": "Si",
    "rocksalt": "NaCl",
    "cesiumchloride": "NiAl",
    "zincblende": "GaAs",
    "fluorite": "CaF2",
}
# Elements by space group and number of atoms in the conventional cell, which no other arrangement of one element has.
_ELEMENTS = {("P6_3/mmc", 2): "hcp", ("Im-3m", 2): "bcc", ("Fm-3m", 4): "fcc"}
FILES = "a POSCAR, CIF or extended-XYZ file, or one of ASE (.traj, .json)"

MAX_ATOMS = 1_000_000  # of a supercell


@dataclass(frozen=True)
class Structure:
    """Atoms in the conventional cell, and the symmetry of their arrangement."""

    numbers: tuple[int, ...]  # atomic numbers
    sites: tuple[tuple[float, float, float], ...]  # fractions of the edges of the cell
    symmetry: str  # one of `elastic_symmetry.SYMMETRIES`
    space_group: str  # e.g. 'Fm-3m'
    turn: int = 0  # angle of the edge a from the x axis, 0 or 30 degrees; see `orientation`

    def __str__(self) -> str:
        return self.space_group


@dataclass(frozen=True)
class Crystal:
    """A crystal: chemical symbol or formula, structure, and the lattice parameters that its symmetry leaves free.

    `structure` is one of `STRUCTURES`, or the `Structure` that `from_structure` reads. Edges are in Å, angles in
    degrees. Raises ValueError for an unknown symbol or structure, a missing or superfluous parameter, or one that is no
    length or angle.
    """

    symbol: str
    structure: str | Structure
    a: float
    c: float | None = None
    b: float | None = None
    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None

    def __post_init__(self):
        if isinstance(self.structure, str):
            _check_kind(self.symbol, self.structure)
        called, free = f"{self.structure} {self.symbol}", orientation.free_parameters(symmetry(self))
        for name in PARAMETERS:
            value, edge = getattr(self, name), name in "abc"
            unit = "Å" if edge else "degrees"
            if name in free and value is None:
                raise ValueError(f"{called} needs its lattice parameters {', '.join(free)}; give {name} in {unit}")
            if name not in free and value is not None:
                kind = symmetry(self).split()[0]
                raise ValueError(f"{called} is {kind}, with {', '.join(free)} alone; leave out {name} = {value}")
            if value is not None and not 0 < value < (np.inf if edge else 180):
                noun = "a length" if edge else "an angle"
                raise ValueError(f"{called}: {name} = {value} is not {noun}; give it in {unit}")
        orientation.cell_of(self.parameters, symmetry(self))

    @property
    def parameters(self) -> dict[str, float]:
        """The free lattice parameters, name -> Å or degrees, in the order a, b, c, alpha, beta, gamma."""
        return {name: getattr(self, name) for name in PARAMETERS if getattr(self, name) is not None}

    def __str__(self) -> str:
        """Description for messages, e.g. 'hcp Ti with a = 2.95, c = 4.68'."""
        values = ", ".join(f"{name} = {value:.6g}" for name, value in self.parameters.items())
        return f"{self.structure} {self.symbol} with {values}"


def _check_kind(symbol, structure):
    if structure not in STRUCTURES:
        raise ValueError(f"structure {structure!r} is unknown; use one of {', '.join(STRUCTURES)}, or {FILES}")
    try:
        count = Formula(symbol).count()
    except (ValueError, TypeError):
        count = {symbol: 1}
    if not count or not all(element in ase.data.chemical_symbols[1:] for element in count):
        like = symbol.capitalize() if symbol.capitalize() in ase.data.chemical_symbols[1:] else STRUCTURES[structure]
        raise ValueError(f"chemical symbol {symbol!r} is unknown; write it like {like!r}")
    like = Formula(STRUCTURES[structure]).count()
    if sorted(count.values()) != sorted(like.values()):
        kind = "an element" if len(count) == 1 else "a compound"
        of = "one element" if len(like) == 1 else "two elements"
        raise ValueError(
            f"{symbol!r} is {kind} and {structure} is of {of}, like {STRUCTURES[structure]!r}; name another structure "
            f"or give {FILES}"
        )


def from_structure(structure: str | Path | ase.Atoms | Crystal, tolerance: float = 1e-3) -> Crystal:
    """Read a crystal from a POSCAR, CIF or extended-XYZ file (the last frame) or an `ase.Atoms`, in any cell and axes.

    The cell is kept, a repeated one shortened, if its edges fit the symmetry; otherwise it is the conventional cell of
    spglib, if there is only one (`orientation`). `tolerance` is in Å. A `Crystal` is returned as it is. Raises
    FileNotFoundError, or ValueError if the file cannot be read, the structure is not periodic in three directions, a
    site is partly occupied, no symmetry is found, or the cell leaves open to which of several the constants refer.
    """
    if isinstance(structure, Crystal):
        return structure
    atoms, where = (structure, "structure") if isinstance(structure, ase.Atoms) else read(Path(structure))
    if not len(atoms) or not atoms.pbc.all() or not abs(atoms.get_volume()) > 0:
        said = f"{len(atoms)} atoms, periodic along {atoms.pbc.tolist()}"
        raise ValueError(f"{where}: {said}, are no crystal; give one with its cell")
    try:
        cell, found, space_group, turn = orientation.conventional(atoms, tolerance)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    made = Structure(tuple(map(int, cell.numbers)), _sites(cell), found, space_group, turn)
    formula = cell.symbols.formula.reduce()[0].format("metal")
    values = dict(zip(PARAMETERS, map(float, cell.cell.cellpar()), strict=True))
    return Crystal(formula, made, **{name: values[name] for name in orientation.free_parameters(found)})


def read(path: Path) -> tuple[ase.Atoms, str]:
    """The structure in a file (`FILES`; the last frame), and the name of the file.

    Raises FileNotFoundError, or ValueError for a file that cannot be read or has partly occupied sites.
    """
    storage.require_file(path, f"give {FILES}")
    suffix = path.suffix.lower()
    kind = {".cif": "cif", ".xyz": "extxyz", ".extxyz": "extxyz", ".traj": "traj", ".json": "json"}.get(suffix, "vasp")
    try:
        found = ase.io.read(str(path), format=kind, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE raises whatever its parser meets
        said = one_line(error)
        raise ValueError(f"{path.name}: cannot be read as {kind} ({said}); give {FILES}") from error
    atoms: ase.Atoms = found  # ty: ignore[invalid-assignment]: one frame
    occupancy = atoms.info.get("occupancy", {})
    shares = [share for site in occupancy.values() for share in site.values()]
    if any(share < 1 for share in shares):
        raise ValueError(f"{path.name}: a site is occupied by {min(shares):g} of an atom; give whole atoms")
    return atoms, path.name


def named(crystal: Crystal) -> Crystal:
    """The crystal with its structure by name if it is an element in hcp, bcc or fcc, otherwise as it is."""
    require_crystal(crystal)
    s = crystal.structure
    if isinstance(s, str) or len(set(s.numbers)) > 1 or (s.space_group, len(s.numbers)) not in _ELEMENTS:
        return crystal
    return replace(crystal, structure=_ELEMENTS[s.space_group, len(s.numbers)])


def with_parameters(crystal: Crystal, values) -> Crystal:
    """The crystal with other free lattice parameters (Å, degrees), in the order of `Crystal.parameters`."""
    return replace(crystal, **dict(zip(crystal.parameters, map(float, values), strict=True)))


def with_cell(crystal: Crystal, atoms: ase.Atoms) -> Crystal:
    """The crystal with the lattice parameters of a unit cell, e.g. a relaxed one.

    A crystal with a `Structure` also takes the sites of the atoms; those of a named structure are fixed.
    """
    values = dict(zip(PARAMETERS, atoms.cell.cellpar(), strict=True))
    found = replace(crystal, **{name: float(values[name]) for name in crystal.parameters})
    if isinstance(crystal.structure, str):
        return found
    return replace(found, structure=replace(crystal.structure, sites=_sites(atoms)))


def _sites(atoms):
    return tuple(tuple(float(x) for x in site) for site in atoms.get_scaled_positions())


def unit_cell(crystal: Crystal) -> ase.Atoms:
    """The conventional cell, with atoms on their sites: 2 atoms for hcp, a cube of 2 (bcc) or 4 (fcc); lengths in Å."""
    require_crystal(crystal)
    if crystal.structure == "hcp":
        return bulk(crystal.symbol, "hcp", a=crystal.a, c=crystal.c)
    if isinstance(crystal.structure, str):
        return bulk(crystal.symbol, crystal.structure, a=crystal.a, cubic=True)
    s = crystal.structure
    cell = orientation.cell_of(crystal.parameters, s.symmetry, s.turn)
    return ase.Atoms(s.numbers, cell=cell, scaled_positions=s.sites, pbc=True)


def supercell(crystal: Crystal, repeats) -> ase.Atoms:
    """The unit cell repeated (n_a, n_b, n_c) times; (5, 5, 3) gives the titanium paper's hcp cell of 150 atoms.

    Raises ValueError like `repeated`.
    """
    return repeated(unit_cell(crystal), repeats)


def repeated(cell: ase.Atoms, repeats) -> ase.Atoms:
    """A cell repeated (n_a, n_b, n_c) times.

    Raises ValueError unless repeats are three positive whole numbers, and the supercell has at most `MAX_ATOMS` atoms.
    """
    if not limits.are_repeats(repeats):
        raise ValueError(f"repeats = {repeats!r}: give three positive whole numbers, e.g. (5, 5, 3)")
    if (n_atoms := len(cell) * float(np.prod(np.asarray(repeats, float)))) > MAX_ATOMS:
        raise ValueError(f"repeats = {repeats!r} make {n_atoms:.3g} atoms; give fewer, up to {MAX_ATOMS} atoms fit")
    return cell * tuple(int(n) for n in repeats)


def atom_types(atoms: ase.Atoms) -> np.ndarray:
    """Types (n,) of the atoms, one number from 1 on for each element and mass: isotopes are not equivalent."""
    pairs = np.stack([atoms.numbers, atoms.get_masses().round(6)], 1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].ravel() + 1


def relative_displacements(masses) -> np.ndarray:
    """Orthonormal mass-weighted displacements (3 n, 3 n - 3) of atoms (n,) that leave their centre of mass in place."""
    translations = np.repeat(np.sqrt(masses), 3)[:, None] * np.tile(np.eye(3), (len(masses), 1))
    return np.linalg.svd(translations)[0][:, 3:]


def prototype(symbol: str, structure: str, volume: float) -> ase.Atoms:
    """Conventional cell of one of `STRUCTURES` or omega at a volume per atom in Å^3, with a typical c/a, to relax.

    c/a is sqrt(8/3) for hcp. omega is titanium's phase under pressure, of space group P6/mmm (AlB2 with one element):
    three atoms, c/a 0.613. Raises ValueError for an unknown symbol or structure, or a volume that is not positive.
    """
    if not (np.isfinite(volume) and volume > 0):
        raise ValueError(f"{structure} {symbol}: {volume} is not a volume per atom; give it in Å^3")
    if structure == "omega":
        a, ratio = (3 * volume / (np.sqrt(3) / 2 * 0.613)) ** (1 / 3), 0.613
        sites = ((0, 0, 0), (1 / 3, 2 / 3, 1 / 2), (2 / 3, 1 / 3, 1 / 2))
        lattice = unit_cell(Crystal(symbol, "hcp", a, ratio * a)).cell
        return ase.Atoms(3 * [symbol], scaled_positions=sites, cell=lattice, pbc=True)
    ratio = np.sqrt(8 / 3) if structure == "hcp" else None
    cell = unit_cell(Crystal(symbol, structure, 1.0, ratio))
    cell.set_cell(cell.cell * (volume * len(cell) / cell.get_volume()) ** (1 / 3), scale_atoms=True)
    return cell


def symmetry(crystal: Crystal) -> str:
    """Elastic symmetry of a crystal, one of `elastic_symmetry.SYMMETRIES`: 'hexagonal' for hcp, 'cubic' for fcc."""
    require_crystal(crystal)
    if isinstance(crystal.structure, Structure):
        return crystal.structure.symmetry
    return "hexagonal" if crystal.structure == "hcp" else "cubic"


def require_crystal(crystal) -> None:
    """Raise TypeError for an object that is not a `Crystal`."""
    if not isinstance(crystal, Crystal):
        raise TypeError(f"{crystal} is no Crystal; make one with crystals.from_structure")
