"""Crystals and what their symmetry says about elastic constants.

Axes: hcp has a along x and c along z; bcc and fcc have the cube axes along x, y, z. Stiffness is a (6, 6)
matrix in Voigt order (xx yy zz yz xz xy) with engineering shear strains, and `C = Σ_c c B_c` with one
constant basis matrix `B_c` per independent elastic constant c.
"""

import re
from dataclasses import dataclass

import ase
import ase.data
import numpy as np
from ase.build import bulk

from fusedff.units import as_floats

_SYMMETRY_OF = {"hcp": "hexagonal", "bcc": "cubic", "fcc": "cubic"}

MOST_ATOMS = 1_000_000  # of a supercell

# Every entry (i, j), 1-based, that symmetry makes equal to the constant it is listed under.
_EQUIVALENT = {
    "hexagonal": {
        "C11": ((1, 1), (2, 2)),
        "C12": ((1, 2), (2, 1)),
        "C13": ((1, 3), (2, 3), (3, 1), (3, 2)),
        "C33": ((3, 3),),
        "C44": ((4, 4), (5, 5)),
    },
    "cubic": {
        "C11": ((1, 1), (2, 2), (3, 3)),
        "C12": ((1, 2), (1, 3), (2, 3), (2, 1), (3, 1), (3, 2)),
        "C44": ((4, 4), (5, 5), (6, 6)),
    },
}

# A strained cell yields six stresses. Normal strains cause normal stresses only and a shear strain its own
# shear stress only, so one cell can carry one of each.
_PATTERNS = {
    "hexagonal": ((1, 0, 0, 1, 0, 0), (0, 0, 1, 0, 1, 0)),
    "cubic": ((1, 0, 0, 1, 0, 0),),
}


@dataclass(frozen=True)
class Crystal:
    """An elemental crystal: chemical symbol, structure (hcp, bcc, fcc), a and, for hcp, c in Å.

    Raises ValueError for an unknown symbol or structure, a missing or superfluous c, or a length that is not
    positive.
    """

    symbol: str
    structure: str
    a: float
    c: float | None = None

    def __post_init__(self):
        if self.structure not in _SYMMETRY_OF:
            raise ValueError(f"structure {self.structure!r} is unknown; use one of {sorted(_SYMMETRY_OF)}")
        if self.symbol not in ase.data.chemical_symbols[1:]:
            raise ValueError(_unknown(self.symbol))
        if self.structure == "hcp" and self.c is None:
            raise ValueError(f"hcp {self.symbol} needs both lattice constants; give c in Å beside a")
        if self.structure != "hcp" and self.c is not None:
            raise ValueError(f"{self.structure} {self.symbol} is cubic; leave out c = {self.c}")
        for name, length in (("a", self.a), ("c", self.c)):
            if length is not None and not (np.isfinite(length) and length > 0):
                raise ValueError(f"{self.structure} {self.symbol}: {name} = {length} is not a length; give it in Å")


def _unknown(symbol):
    parts = re.findall("[A-Z][a-z]?", str(symbol))
    compound = len(parts) > 1 and all(part in ase.data.chemical_symbols[1:] for part in parts)
    if compound:
        return f"{symbol!r} is a compound; measured tables and crystals of this kind are of one element, like 'Ti'"
    return f"chemical symbol {symbol!r} is unknown; write it like 'Ti'"


def unit_cell(crystal: Crystal) -> ase.Atoms:
    """The unit cell at rest: 2 atoms for hcp, the cube with 2 (bcc) or 4 (fcc) atoms; row vectors in Å."""
    if crystal.structure == "hcp":
        return bulk(crystal.symbol, "hcp", a=crystal.a, c=crystal.c)
    return bulk(crystal.symbol, crystal.structure, a=crystal.a, cubic=True)


def supercell(crystal: Crystal, repeats) -> ase.Atoms:
    """The unit cell repeated (n_a, n_b, n_c) times; the paper's 150-atom hcp cell is (5, 5, 3).

    Raises ValueError unless repeats are three positive whole numbers of a supercell that fits into memory.
    """
    counts = np.asarray(repeats)
    if counts.shape != (3,) or not np.issubdtype(counts.dtype, np.integer) or (counts < 1).any():
        raise ValueError(f"repeats = {repeats!r}: give three positive whole numbers, e.g. (5, 5, 3)")
    cell = unit_cell(crystal)
    if (n_atoms := len(cell) * float(np.prod(counts.astype(float)))) > MOST_ATOMS:
        raise ValueError(f"repeats = {repeats!r} make {n_atoms:.3g} atoms; give fewer, up to {MOST_ATOMS} atoms fit")
    return cell * tuple(int(n) for n in counts)


def prototype(symbol: str, structure: str, volume: float) -> ase.Atoms:
    """Unit cell of hcp, bcc, fcc or omega at a volume per atom in Å^3, its c/a the usual one: a start for relaxations.

    omega is titanium's phase under pressure, of space group P6/mmm (AlB2 with one element): three atoms, c/a 0.61.
    Raises ValueError for an unknown symbol or structure, or a volume that is not positive.
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
    """Elastic symmetry of a crystal: 'hexagonal' (hcp) or 'cubic' (bcc, fcc)."""
    return _SYMMETRY_OF[crystal.structure]


def elastic_names(symmetry: str) -> tuple[str, ...]:
    """Names of the independent elastic constants in the order used everywhere, which is the paper's."""
    return tuple(_look_up(_EQUIVALENT, symmetry))


def elastic_basis(symmetry: str) -> dict[str, np.ndarray]:
    """Basis matrices name -> (6, 6) with C = Σ_c c B_c; hexagonal C66 is (C11 - C12)/2 by construction."""
    basis = {}
    for name, entries in _look_up(_EQUIVALENT, symmetry).items():
        matrix = np.zeros((6, 6))
        for i, j in entries:
            matrix[i - 1, j - 1] = 1.0
        basis[name] = matrix
    if symmetry == "hexagonal":
        basis["C11"][5, 5], basis["C12"][5, 5] = 0.5, -0.5
    return basis


def stiffness(constants: dict, symmetry: str):
    """Stiffness (6, 6) in the unit of the constants, Σ_c c B_c; constants may be jax scalars.

    Raises ValueError when a constant is missing or not one of this symmetry.
    """
    _check_names(constants, symmetry)
    return sum(constants[name] * matrix for name, matrix in elastic_basis(symmetry).items())


def reduce_stiffness(stiffness, symmetry: str) -> dict:
    """Independent constants name -> (...) of stiffness (..., 6, 6): means over symmetry-equivalent entries.

    C66 of a hexagonal crystal is left out, so that `C[..., 5, 5] - (C11 - C12) / 2` remains a check.
    """
    stiffness = as_floats(stiffness)
    return {
        name: sum(stiffness[..., i - 1, j - 1] for i, j in entries) / len(entries)
        for name, entries in _look_up(_EQUIVALENT, symmetry).items()
    }


def born_stability(constants: dict, symmetry: str) -> bool:
    """Whether a crystal with these constants is elastically stable at zero stress.

    Mouhat & Coudert, Phys. Rev. B 90, 224104 (2014): hexagonal C11 > |C12|, 2 C13² < C33 (C11 + C12) and
    C44 > 0; cubic C11 > |C12|, C11 + 2 C12 > 0 and C44 > 0.
    """
    _check_names(constants, symmetry)
    c = constants
    shear = c["C11"] > abs(c["C12"]) and c["C44"] > 0
    if symmetry == "hexagonal":
        return bool(shear and c["C33"] > 0 and 2 * c["C13"] ** 2 < c["C33"] * (c["C11"] + c["C12"]))
    return bool(shear and c["C11"] + 2 * c["C12"] > 0)


def strain_patterns(symmetry: str) -> list[np.ndarray]:
    """The fewest engineering Voigt strains (6,), of unit amplitude, whose stresses give every constant."""
    return [np.array(pattern, dtype=float) for pattern in _look_up(_PATTERNS, symmetry)]


def constants_from_response(responses, symmetry: str) -> dict:
    """Elastic constants name -> (...) from stress responses (..., n_patterns, 6), in the responses' unit.

    `responses[..., p, i]` is the derivative of Voigt stress i with respect to the amplitude of pattern p of
    `strain_patterns`. The model is `responses[p] = Σ_c c B_c pattern_p`; its least-squares solution is a
    fixed linear map, so means and gradients pass straight through. Raises ValueError for another shape.
    """
    responses = as_floats(responses)
    patterns = np.stack(strain_patterns(symmetry))
    if tuple(responses.shape[-2:]) != patterns.shape:
        raise ValueError(
            f"stress responses have shape {tuple(responses.shape)}; {symmetry} needs "
            f"(..., {len(patterns)}, 6), one row per strain pattern"
        )
    design = np.stack([(patterns @ matrix).ravel() for matrix in elastic_basis(symmetry).values()], axis=1)
    weights = np.linalg.pinv(design).reshape(-1, *patterns.shape).astype(responses.dtype)
    return {
        name: (responses * weight).sum(axis=(-2, -1))
        for name, weight in zip(elastic_names(symmetry), weights, strict=True)
    }


def _look_up(table: dict, symmetry: str):
    if symmetry not in table:
        raise ValueError(f"elastic symmetry {symmetry!r} is unknown; use one of {sorted(table)}")
    return table[symmetry]


def _check_names(constants: dict, symmetry: str) -> None:
    names = elastic_names(symmetry)
    missing, extra = [n for n in names if n not in constants], [n for n in constants if n not in names]
    if missing or extra:
        raise ValueError(
            f"{symmetry} elastic constants are exactly {', '.join(names)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(extra) or 'none'}"
        )
