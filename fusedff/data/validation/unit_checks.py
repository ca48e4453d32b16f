"""Detect numbers in the wrong unit from their magnitude.

Lengths are compared with covalent radii; for labels see `validation.label_checks`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import ase.units
import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from fusedff.geometry import neighbors
from fusedff.units import GPA, KJ_MOL, NM, PER_GPA

# Number of each unit in the corresponding unit of fusedff.
_KCAL_MOL = ase.units.kcal / ase.units.mol
_HARTREE, _RYDBERG, _BOHR = ase.units.Hartree, ase.units.Rydberg, ase.units.Bohr
LENGTHS = {"nm": 1 / NM, "pm": 100.0, "Bohr": 1 / _BOHR}
ENERGIES = {"kJ/mol": 1 / KJ_MOL, "kcal/mol": 1 / _KCAL_MOL, "Hartree": 1 / _HARTREE, "Rydberg": 1 / _RYDBERG}
FORCES = {
    **{f"{name}/Å": factor for name, factor in ENERGIES.items()},
    **{"kJ/mol/nm": NM / KJ_MOL, "eV/nm": NM, "Hartree/Bohr": _BOHR / _HARTREE, "Rydberg/Bohr": _BOHR / _RYDBERG},
    "eV/Bohr (or Hartree/Bohr beside energies in Hartree, Rydberg likewise)": _BOHR,
}
STRESSES = {
    "GPa": 1 / GPA,
    "kbar": 10 / GPA,
    "bar": 1e4 / GPA,
    "kJ/mol/Å^3": 1 / KJ_MOL,
    "Hartree/Bohr^3": _BOHR**3 / _HARTREE,
}
PRESSURES = {name: PER_GPA[name] for name in ("Pa", "bar", "MPa", "kbar")} | {
    "units of 100 GPa, Mbar or eV/Å^3 (160.2 GPa)": PER_GPA["Mbar"]
}

NOBLE_GASES = {2, 10, 18, 36, 54, 86}  # atomic numbers

_SAMPLE = 10  # frames of each family whose geometry is checked


class ImplausibleDataError(ValueError):
    """Numbers are implausible, probably in another unit; with a statement of their units they are accepted."""

    def __init__(self, finding: str):
        super().__init__(f"{finding}; if they are right as they are, say so with units='ase'")
        self.finding = finding


def look_like(factor: float, units: Mapping[str, float], within: float = 1.4) -> str | None:
    """Phrase that names the unit of `units` by which numbers are `factor` times too large, and the remedy.

    None if no unit agrees with the factor within a ratio of `within`.
    """
    if factor <= 0:
        return None
    name = min(units, key=lambda name: abs(np.log(units[name] / factor)))
    if abs(np.log(units[name] / factor)) > np.log(within):
        return None
    return f"like {name}: {_undo(units[name])}"


def _undo(factor: float) -> str:
    return f"divide by {factor:.5g}" if factor > 1 else f"multiply by {1 / factor:.5g}"


# ---- lengths ----


def closest(frame: Atoms) -> tuple[float, float]:
    """Distance (Å) of the closest pair relative to its covalent radii, and its ratio to the sum of these radii.

    Infinities if no pair is found within about 12 times the cube root of the volume per atom.
    """
    for reach in 1.5 * (frame.get_volume() / len(frame)) ** (1 / 3) * 2.0 ** np.arange(4):
        i, j, distance = neighbors.pairs("ijd", frame, reach)
        if len(distance):
            ratio = distance / (covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
            return distance[ratio.argmin()], ratio.min()
    return np.inf, np.inf


def length_unit(ratio: float, numbers) -> str | None:
    """Unit that lengths seem to have if neighbours are at `ratio` sums of covalent radii; None if it may be Å.

    Bonded atoms are at ratios of 0.6 to 1.3; noble gases form no bonds and are not checked. `numbers` are atomic.
    """
    if (0.5 < ratio < 1.5) or set(np.asarray(numbers).tolist()) & NOBLE_GASES:
        return None
    return look_like(ratio, LENGTHS, within=1.6)


def check_lengths(frames: Sequence[Atoms], where: Sequence[str]) -> None:
    """Raise `ImplausibleDataError` for lengths in another unit and for transposed cells.

    Files may combine several sources, so each family is checked on its own, by a sample of its frames. Lengths
    are in another unit if no frame has atoms at bonding distance, and that unit explains it. Cells are transposed if
    atoms in all skewed cells would be further apart with rows and columns exchanged, since wrong lattice vectors bring
    images too close. Single frames in another unit are found by their volume.
    """
    families = defaultdict(list)
    for i, frame in enumerate(frames):
        families[str(frame.info.get("config_type"))].append(i)
    for members in families.values():
        sample = members[:: -(-len(members) // _SAMPLE)]
        found = {i: closest(frames[i]) for i in sample}
        if len(families) == 1 or len(frames[sample[0]]) > 2:  # dimers may be stretched
            _check_unit(frames, where, found)
        skewed = [i for i in sample if _skew(frames[i].cell.array) > 0.1]
        if len(skewed) > 2 or (skewed and len(families) == 1):
            _check_rows(frames, where, {i: found[i] for i in skewed})
    volumes = np.array([frame.get_volume() / len(frame) for frame in frames])
    lengths = np.cbrt(volumes / np.median(volumes))
    for i in np.flatnonzero(lengths > 1.5):
        if look_like(lengths[i], LENGTHS, within=1.2):  # or there is vacuum, which the distances tell
            _check_unit(frames, where, {i: closest(frames[i])})


def _check_unit(frames, where, found):
    first = min(found, key=lambda i: found[i][1])
    distance, ratio = found[first]
    typical = np.median([ratio for _, ratio in found.values()])  # some frames may be of isolated atoms
    if ratio > 1.2 and (unit := length_unit(typical, frames[first].numbers)):
        raise ImplausibleDataError(f"{where[first]}: the closest atoms are {distance:.4g} Å apart; lengths look {unit}")


def _check_rows(frames, where, found):
    exchanged = {i: closest(_transposed(frames[i])) for i in found}
    if all(exchanged[i][1] > 1.05 * found[i][1] for i in found):
        i = next(iter(found))
        raise ImplausibleDataError(
            f"{where[i]}: the closest atoms are {found[i][0]:.3f} Å apart, with rows and columns of the cell exchanged "
            f"{exchanged[i][0]:.3f} Å: the cell looks transposed; give lattice vectors as rows"
        )


def looks_transposed(frame: Atoms) -> bool:
    """Whether a frame whose atoms overlap has them apart if rows and columns of the cell are exchanged."""
    return bool(_skew(frame.cell.array) > 0.1 and closest(_transposed(frame))[1] > 0.5)


def _skew(cell):
    return np.abs(cell - cell.T).max() / np.abs(cell).max()


def _transposed(frame):
    frame = frame.copy()
    frame.set_cell(frame.cell.array.T)
    return frame
