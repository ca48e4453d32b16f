"""Independent elastic constants and stresses of a crystal, for every Laue class.

Stiffness is a (6, 6) matrix in Voigt order (xx yy zz yz xz xy) with engineering shear strains, in the standard axes of
`orientation`, and `C = Σ_c c B_c` with one constant basis matrix `B_c` per independent elastic constant c. The
matrices follow from the rotations of the class; the names are those of Nye, Physical Properties of Crystals (1957).
"""

from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fusedff.units import as_floats, from_voigt, to_voigt

VOIGT_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")

# A crystal under pressure p has two kinds of constants: C = (1/V) d2F / d eta d eta in Lagrangian strain, and
# B = C + p PRESSURE_CORRECTION, the slopes of the Cauchy stress against strain: B11 = C11 - p, B12 = C12 + p,
# B44 = C44 - p. Ultrasound measures B, and a crystal is stable if B is positive definite (Barron & Klein, Proc. Phys.
# Soc. 85, 523 (1965)).
PRESSURE_CORRECTION = np.kron([[1, 0], [0, 0]], np.ones((3, 3))) - np.diag([2, 2, 2, 1, 1, 1])


def rotation_about(axis: str, angle: float) -> np.ndarray:
    """Rotation (3, 3) by an angle in radians about x, y or z."""
    cosine, sine, k = np.cos(angle), np.sin(angle), "xyz".index(axis)
    return np.roll([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], (k + 1, k + 1), (0, 1))


def _fold_rotation(axis: str, fold: int) -> np.ndarray:
    """Rotation (3, 3) of a `fold`-fold axis, by 360 degrees / `fold`."""
    return rotation_about(axis, 2 * np.pi / fold)


class _LaueClass(NamedTuple):
    generators: tuple[np.ndarray, ...]  # of its rotations; inversion changes no elastic constant
    patterns: str  # the strains of `strain_patterns`: for each, the numbers (1 to 6) of the Voigt components that are 1


# A pattern may combine two strains, if they cause different stresses or other patterns tell the stresses apart.
_CLASSES = {
    "triclinic": _LaueClass((), "1 2 3 4 5 6"),
    "monoclinic": _LaueClass((_fold_rotation("y", 2),), "14 26 3 5"),
    "orthorhombic": _LaueClass((_fold_rotation("y", 2), _fold_rotation("z", 2)), "14 25 36"),
    "tetragonal 4/m": _LaueClass((_fold_rotation("z", 4),), "14 36"),
    "tetragonal 4/mmm": _LaueClass((_fold_rotation("z", 4), _fold_rotation("x", 2)), "14 36"),
    "trigonal -3": _LaueClass((_fold_rotation("z", 3),), "14 35"),
    "trigonal -3m": _LaueClass((_fold_rotation("z", 3), _fold_rotation("x", 2)), "14 35"),
    "hexagonal": _LaueClass((_fold_rotation("z", 6), _fold_rotation("x", 2)), "14 35"),
    "cubic": _LaueClass((_fold_rotation("z", 4), np.roll(np.eye(3), 1, axis=0)), "14"),
}
SYMMETRIES = tuple(_CLASSES)


@cache
def rotations(symmetry: str) -> np.ndarray:
    """All proper rotations (n, 3, 3) of a Laue class. Raises ValueError for an unknown one."""
    group = [np.eye(3)]
    for rotation in group:  # the list grows in the loop
        for generator in _look_up(symmetry).generators:
            product = generator @ rotation
            if not any(np.allclose(product, known) for known in group):
                group.append(product)
    return np.array(group)


def rotated(stiffness: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Stiffness (..., 6, 6) of the crystal rotated by `rotation` (3, 3)."""
    bond = _rotation_of_stress(rotation)
    return bond @ stiffness @ bond.T


def _rotation_of_stress(rotation):
    """Bond matrix (6, 6), which turns a Voigt stress into that of the rotated crystal."""
    return to_voigt(rotation @ from_voigt(np.eye(6)) @ rotation.T).T


@cache
def _invariants(symmetry: str) -> dict[str, np.ndarray]:
    """Names and basis matrices (6, 6) of the independent constants, from the average over all rotations.

    A constant is independent if it does not follow from those before it, row by row in the upper triangle.
    """
    rows, columns = np.triu_indices(6)
    units = np.zeros((21, 6, 6))
    units[range(21), rows, columns] = units[range(21), columns, rows] = 1
    averaged = np.mean([rotated(units, rotation) for rotation in rotations(symmetry)], 0)[:, rows, columns]
    pivots = _independent_columns(averaged)
    coefficients = np.linalg.pinv(averaged[:, pivots]) @ averaged  # (n_constants, 21), one for every pivot itself
    coefficients = np.round(2 * coefficients) / 2 + 0.0  # whole or half in all classes; no negative zeros
    return {
        f"C{rows[pivot] + 1}{columns[pivot] + 1}": np.tensordot(row, units, 1)
        for pivot, row in zip(pivots, coefficients, strict=True)
    }


def _independent_columns(matrix) -> list[int]:
    """Indices of the columns that are no linear combination of those before them."""
    found = []
    for n in range(matrix.shape[1]):
        if np.linalg.matrix_rank(matrix[:, [*found, n]], tol=1e-6) > len(found):
            found.append(n)
    return found


@cache
def _equivalent(symmetry: str) -> dict[str, list[tuple[int, int, int]]]:
    """Entries (row, column, sign) of the stiffness that are plus or minus one constant, upper triangle first."""
    basis = elastic_basis(symmetry)
    involved = sum(matrix != 0 for matrix in basis.values())
    return {
        name: [
            (i, j, int(matrix[i, j]))
            for triangle in (np.triu, lambda m: np.tril(m, -1))
            for i, j in np.argwhere(triangle((np.abs(matrix) == 1) & (involved == 1)))
        ]
        for name, matrix in basis.items()
    }


def elastic_names(symmetry: str) -> tuple[str, ...]:
    """Names of the independent elastic constants in the order used everywhere, e.g. C11, C12, C44.

    Raises ValueError for an unknown symmetry, like all functions here that take one.
    """
    return tuple(_invariants(symmetry))


def elastic_basis(symmetry: str) -> dict[str, np.ndarray]:
    """Basis matrices name -> (6, 6) with C = Σ_c c B_c; hexagonal C66 is (C11 - C12)/2 by construction."""
    return {name: matrix.copy() for name, matrix in _invariants(symmetry).items()}


def stiffness(constants: dict, symmetry: str):
    """Stiffness (6, 6) in the unit of the constants, Σ_c c B_c; constants may be jax scalars.

    Raises ValueError for a missing constant, or one that is not independent in this symmetry.
    """
    _check_names(constants, symmetry)
    return sum(constants[name] * matrix for name, matrix in elastic_basis(symmetry).items())


def reduce_stiffness(stiffness, symmetry: str) -> dict:
    """Independent constants name -> (...) of stiffness (..., 6, 6): means over symmetry-equivalent entries.

    They are in the order of `elastic_names`. Entries that depend on several constants are left out, so that
    `C[..., 5, 5] - (C11 - C12) / 2` of a hexagonal or trigonal crystal remains a check.
    """
    stiffness = as_floats(stiffness)
    return {
        name: sum(stiffness[..., i, j] if sign > 0 else -stiffness[..., i, j] for i, j, sign in entries) / len(entries)
        for name, entries in _equivalent(symmetry).items()
    }


def reduce_stress(stress, symmetry: str):
    """Voigt stresses (..., 6) averaged over the rotations of the class: what its symmetry allows without strain."""
    average = np.mean([_rotation_of_stress(rotation) for rotation in rotations(symmetry)], 0)
    return as_floats(stress) @ np.where(np.abs(average) < 1e-12, 0, average).T


@cache
def stress_names(symmetry: str) -> tuple[str, ...]:
    """Names of the independent stresses of an unstrained crystal: xx for cubic, xx and zz for hexagonal symmetry.

    A stress is independent if it does not follow from those before it in Voigt order.
    """
    return tuple(VOIGT_NAMES[n] for n in _independent_columns(reduce_stress(np.eye(6), symmetry)))


def independent_stress(stress, symmetry: str):
    """Independent stresses (..., n), in the order of `stress_names`, from `reduce_stress` of stresses (..., 6)."""
    return reduce_stress(stress, symmetry)[..., [VOIGT_NAMES.index(name) for name in stress_names(symmetry)]]


def born_stability(constants: dict, symmetry: str) -> bool:
    """Whether a crystal with these constants is elastically stable at zero stress: a positive definite stiffness.

    Mouhat & Coudert, Phys. Rev. B 90, 224104 (2014). Constants may be missing: then it is False only if the known
    blocks of the stiffness already exclude stability. Raises ValueError for a constant that this symmetry lacks.
    """
    basis = elastic_basis(symmetry)
    _check_names(dict.fromkeys(basis) | constants, symmetry)
    known = sum((constants[name] * basis[name] for name in constants), np.zeros((6, 6)))
    unknown = sum((np.abs(basis[name]) for name in basis if name not in constants), np.zeros((6, 6)))
    for size in range(6, 0, -1):
        for rows in combinations(range(6), size):
            block = np.ix_(rows, rows)
            if not unknown[block].any():
                lowest, highest = np.linalg.eigvalsh(known[block])[[0, -1]]
                if not lowest > 1e-9 * abs(highest):  # rounding
                    return False
        if not unknown.any():
            break
    return True


def strain_patterns(symmetry: str) -> list[np.ndarray]:
    """Smallest set of engineering Voigt strains (6,), of unit amplitude, whose stresses determine every constant."""
    return [
        np.array([float(str(component) in pattern) for component in range(1, 7)])
        for pattern in _look_up(symmetry).patterns.split()
    ]


def constants_from_response(responses, symmetry: str) -> dict:
    """Elastic constants name -> (...) from stress responses (..., n_patterns, 6), in the responses' unit.

    They are in the order of `elastic_names`. `responses[..., p, i]` is the derivative of Voigt stress i with respect to
    the amplitude of pattern p of `strain_patterns`. The model is `responses[p] = Σ_c c B_c pattern_p`; its
    least-squares solution is a fixed linear map, so it can be applied to means and gradients as well. Raises ValueError
    for another shape.
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


def _look_up(symmetry: str) -> _LaueClass:
    if symmetry not in _CLASSES:
        raise ValueError(f"elastic symmetry {symmetry!r} is unknown; use one of {', '.join(SYMMETRIES)}")
    return _CLASSES[symmetry]


def _check_names(constants: dict, symmetry: str) -> None:
    names = elastic_names(symmetry)
    missing, extra = [n for n in names if n not in constants], [n for n in constants if n not in names]
    if missing or extra:
        raise ValueError(
            f"{symmetry} elastic constants are exactly {', '.join(names)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(extra) or 'none'}"
        )
