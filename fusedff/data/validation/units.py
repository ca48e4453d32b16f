"""Units told by plausibility: a number that is off by a known factor is called by the unit it looks like.

Lengths are held against covalent radii. Labels are held against each other: between two frames that differ little,
the energy changes by what forces and stress say (trapezoid rule, exact in a harmonic crystal), so an energy, a force or
a stress in another unit or with another sign shows. What no factor explains, but many frames
contradict, is refused without a name; what a frame or two contradict is warned of. Columns of a table are held against
smooth curves.
"""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import ase.units
import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.stats import t as student

from fusedff.geometry import neighbors
from fusedff.units import GPA, KJ_MOL, NM, from_voigt

# How many of each make one of ours.
_KCAL_MOL = ase.units.kcal / ase.units.mol
_HARTREE, _RYDBERG, _BOHR = ase.units.Hartree, ase.units.Rydberg, ase.units.Bohr
LENGTHS = {"nm": 1 / NM, "pm": 100.0, "Bohr": 1 / _BOHR}
ENERGIES = {"kJ/mol": 1 / KJ_MOL, "kcal/mol": 1 / _KCAL_MOL, "Hartree": 1 / _HARTREE, "Rydberg": 1 / _RYDBERG}
FORCES = {
    **{f"{name}/Å": factor for name, factor in ENERGIES.items()},
    **{"kJ/mol/nm": NM / KJ_MOL, "eV/nm": NM, "Hartree/Bohr": _BOHR / _HARTREE, "Rydberg/Bohr": _BOHR / _RYDBERG},
}
STRESSES = {
    "GPa": 1 / GPA,
    "kbar": 10 / GPA,
    "bar": 1e4 / GPA,
    "kJ/mol/Å^3": 1 / KJ_MOL,
    "Hartree/Bohr^3": _BOHR**3 / _HARTREE,
}
GPAS = {"Pa": 1e9, "bar": 1e4, "MPa": 1e3, "kbar": 10.0, "units of 100 GPa, Mbar or eV/Å^3 (160.2 GPa)": 0.01}

MIN_DISTANCE = 0.5  # Å, closer than any two nuclei are in matter
NOBLE_GASES = {2, 10, 18, 36, 54, 86}  # atomic numbers

_SAMPLE = 10  # frames of one config_type whose geometry is looked at
_CLOSE_STRAIN, _CLOSE_MOVE, _STILL = 0.1, 0.5, 0.02  # of two frames that differ little: strain, Å, Å


class DoubtError(ValueError):
    """Numbers that are probably in another unit, though no law forbids them: whoever states the units may keep them."""

    def __init__(self, finding: str):
        super().__init__(f"{finding}; if they are right as they are, say so with units='ase'")
        self.finding = finding


def look_like(factor: float, units: Mapping[str, float], within: float = 1.4) -> str | None:
    """The unit of which `factor` make one of ours and what to do about it, or None if there is none nearby."""
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
    """Distance (Å) of the pair that is closest for its elements, and the same over the sum of their covalent radii."""
    for reach in 1.5 * (frame.get_volume() / len(frame)) ** (1 / 3) * 2.0 ** np.arange(4):
        i, j, distance = neighbors.pairs("ijd", frame, reach)
        if len(distance):
            ratio = distance / (covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
            return distance[ratio.argmin()], ratio.min()
    return np.inf, np.inf


def length_unit(ratio: float, numbers) -> str | None:
    """What lengths look like that put neighbours at `ratio` covalent diameters; None where they can be Å.

    Atoms that bind are 0.6 to 1.3 diameters apart; noble gases do not bind and are not judged.
    """
    if (0.5 < ratio < 1.5) or set(np.asarray(numbers).tolist()) & NOBLE_GASES:
        return None
    return look_like(ratio, LENGTHS, within=1.6)


def check_lengths(frames: Sequence[Atoms], where: Sequence[str]) -> None:
    """Raise Doubt for lengths in another unit and for transposed cells.

    Files are put together from several sources, so each `config_type` is judged by itself, by a few frames: no frame
    has atoms at bonding distance and another unit explains it; or all frames that are skewed would have their atoms
    further apart with rows and columns of the cell exchanged, as atoms meet images where there should be none. A
    single frame in another unit shows by its volume.
    """
    members = defaultdict(list)
    for i, frame in enumerate(frames):
        members[str(frame.info.get("config_type"))].append(i)
    for of_type in members.values():
        sample = of_type[:: -(-len(of_type) // _SAMPLE)]
        found = {i: closest(frames[i]) for i in sample}
        if len(members) == 1 or len(frames[sample[0]]) > 2:  # stretched dimers are no other unit
            _check_unit(frames, where, found)
        skewed = [i for i in sample if _skew(frames[i].cell.array) > 0.1]
        if len(skewed) > 2 or (skewed and len(members) == 1):
            _check_rows(frames, where, {i: found[i] for i in skewed})
    volumes = np.array([frame.get_volume() / len(frame) for frame in frames])
    lengths = np.cbrt(volumes / np.median(volumes))
    for i in np.flatnonzero(lengths > 1.5):
        if look_like(lengths[i], LENGTHS, within=1.2):  # vacuum may do that too
            _check_unit(frames, where, {i: closest(frames[i])})


def _check_unit(frames, where, found):
    first = min(found, key=lambda i: found[i][1])
    distance, ratio = found[first]
    typical = np.median([ratio for _, ratio in found.values()])  # some frames may be of isolated atoms
    if ratio > 1.2 and (unit := length_unit(typical, frames[first].numbers)):
        raise DoubtError(f"{where[first]}: the closest atoms are {distance:.4g} Å apart; lengths look {unit}")


def _check_rows(frames, where, found):
    exchanged = {i: closest(_transposed(frames[i])) for i in found}
    if all(exchanged[i][1] > 1.05 * found[i][1] for i in found):
        i = next(iter(found))
        raise DoubtError(
            f"{where[i]}: the closest atoms are {found[i][0]:.3f} Å apart, with rows and columns of the cell exchanged "
            f"{exchanged[i][0]:.3f} Å: the cell looks transposed; give lattice vectors as rows"
        )


def looks_transposed(frame: Atoms) -> bool:
    """Whether atoms on top of one another would be at bonding distance with rows and columns of the cell exchanged."""
    return bool(_skew(frame.cell.array) > 0.1 and closest(_transposed(frame))[1] > 0.5)


def _skew(cell):
    return np.abs(cell - cell.T).max() / np.abs(cell).max()


def _transposed(frame):
    frame = frame.copy()
    frame.set_cell(frame.cell.array.T)
    return frame


# ---- labels ----


class _Step(NamedTuple):
    """From one frame to the next, which differs little."""

    first: int
    second: int
    moved: bool  # whether atoms move against each other, so that forces matter
    energy: float  # eV, change according to the energies
    push: float  # eV, change according to forces
    pull: float  # eV, change according to stresses
    turn: float  # eV, how much of these changes on the way: size of the second-order terms
    stiffness: float  # eV/Å^2 along the way
    n_atoms: int

    @property
    def work(self) -> float:
        return self.push + self.pull

    @property
    def missed(self) -> float:
        return abs(self.energy - self.work)

    @property
    def denied(self) -> bool:
        """Whether the energies are not those that forces and stresses belong to, anharmonic as crystals are.

        Between 123 frames of titanium and 60 of aluminium, at most 0.17 of the turn is missed where atoms move and 0.61
        where they do not. Less than 6 meV per atom may be noise, or a barrier that a slip passes on the way.
        """
        return self.missed > (0.35 if self.moved else 1.0) * self.turn + 0.006 * self.n_atoms

    @property
    def ratio(self) -> float:
        """By how much energies change against forces, once stresses are accounted for, or against stresses."""
        return (self.energy - self.pull) / self.push if self.moved else self.energy / self.pull


def check_labels(frames: Sequence[Atoms], labels: Sequence, where: Sequence[str]) -> None:
    """Raise Doubt if energies, forces and stresses of neighbouring frames cannot belong to one potential.

    `labels` have energy, forces and Voigt stress (nan where missing or not to be used). First the file as a whole:
    three steps or more that agree on a factor above 4. Then single frames that jump in energy by more than 1 eV per
    atom, or pull with more force than the path explains. At last what is only wrong: three steps or more, and a tenth
    of all, that deny each other; fewer are a warning.
    """
    steps = [step for i, j in pairwise(range(len(frames))) if (step := _step(frames, labels, i, j))]
    common = {
        "stresses": _common([step for step in steps if not step.moved]),
        "forces": _common_of_forces([step for step in steps if step.moved]),
    }
    off = {name: found for name, found in common.items() if found and not _near_one(found[0])}
    if off:
        (name, (ratio, step)), *other = off.items()
        if other and 0.5 < ratio / other[0][1][0] < 2:
            suspects = ["energies"]
        else:
            suspects = [name, "energies"] if all(common.values()) else ["energies", name]
        raise DoubtError(
            f"{where[step.first]} to frame {step.second}: the energy changes by {step.energy:.4g} eV, by {name} it "
            f"should by {step.work:.4g} eV, and likewise in the whole file; {_suspicion(suspects, ratio)}"
        )
    for step in steps:
        if step.missed > step.n_atoms + 3 * (abs(step.work) + step.turn):
            raise DoubtError(_jump(frames, labels, step, where))
        if step.stiffness > 100 and step.moved and step.denied:
            worst = max(step[:2], key=lambda i: np.abs(labels[i].forces).max())
            raise DoubtError(
                f"{where[worst]}: against frame {step[worst == step.first]} forces change by {step.stiffness:.0f} eV/Å "
                "per Å, which the energies deny; convert them to eV/Å if they are in another unit (kJ/mol/Å: divide "
                "by 96.485), or relabel it"
            )
    for kind in (True, False):
        _check_agreement([step for step in steps if step.moved == kind], where)


def _check_agreement(steps, where) -> None:
    denied = [step for step in steps if step.denied]
    if not denied:
        return
    worst = max(denied, key=lambda step: step.missed / step.n_atoms)
    what = (
        f"{where[worst.first]} to frame {worst.second}: the energy changes by {worst.energy:.4g} eV, by forces and "
        f"stresses it should by {worst.work:.4g} eV"
    )
    if len(denied) >= max(3, len(steps) / 10):
        remedy = (
            "give labels of one calculation each, forces in the order of the atoms, all in eV and Å with the signs of "
            "forces and stresses"
        )
        common = _common(denied)
        if common and not _near_one(common[0]):
            remedy += f"; perhaps {_suspicion(['forces' if worst.moved else 'stresses', 'energies'], common[0])}"
        raise DoubtError(f"{what}, and likewise in {len(denied)} of {len(steps)} such pairs; {remedy}")
    warnings.warn(f"{what}; one of the two may be mislabelled: look at them, or relabel them", stacklevel=5)


def _step(frames, labels, i, j) -> _Step | None:
    """Work and change of energy between two frames, if they are the same atoms nearly in the same places."""
    one, two = frames[i], frames[j]
    if len(one) != len(two) or (one.numbers != two.numbers).any():
        return None
    deformation = np.linalg.solve(one.cell.array, two.cell.array)
    stretches, axes = np.linalg.eigh((deformation + deformation.T) / 2)
    strain = (
        axes * np.log(np.maximum(stretches, 1e-3))
    ) @ axes.T  # logarithmic: work is stress times volume times its change
    fractional = two.get_scaled_positions(wrap=False) - one.get_scaled_positions(wrap=False)
    move = (fractional - np.rint(fractional)) @ (one.cell.array + two.cell.array) / 2
    move -= move.mean(0)
    moved, strained = np.abs(move).max() > _STILL, np.abs(strain).max() > 1e-3
    stress = np.array([from_voigt(labels[k].stress) * frames[k].get_volume() for k in (i, j)])
    if not strained:
        stress = np.zeros_like(stress)  # of no account, also where it is missing
    if np.abs(move).max() > _CLOSE_MOVE or np.abs(deformation - np.eye(3)).max() > _CLOSE_STRAIN:
        return None
    if not (moved or strained) or not np.isfinite(stress).all():
        return None
    forces = np.array([labels[k].forces for k in (i, j)])
    change = -np.sum((forces[1] - forces[0]) * move)
    return _Step(
        first=i,
        second=j,
        moved=bool(moved),
        energy=labels[j].energy - labels[i].energy,
        push=-np.sum(forces.mean(0) * move),
        pull=np.sum(stress.mean(0) * strain),
        turn=abs(change) + abs(np.sum((stress[1] - stress[0]) * strain)),
        stiffness=change / max(np.sum(move**2), 1e-12),
        n_atoms=len(one),
    )


def _common(steps) -> tuple[float, _Step] | None:
    """The ratio that most of the larger half of the steps agree about, with the step that has it."""
    steps = sorted((s for s in steps if (s.push if s.moved else s.pull)), key=lambda s: -abs(s.energy))
    steps = steps[: max(3, (len(steps) + 1) // 2)]
    if len(steps) < 3:
        return None
    ratios = sorted((step.ratio, step) for step in steps)
    quarter = len(ratios) // 4
    low, high = ratios[quarter][0], ratios[-1 - quarter][0]
    return ratios[len(ratios) // 2] if low * high > 0 and max(low / high, high / low) < 4 else None


def _common_of_forces(steps) -> tuple[float, _Step] | None:
    """The same where atoms move. Of two atoms, forces in the wrong order have the wrong sign: larger cells tell."""
    found, larger = _common(steps), [step for step in steps if step.n_atoms > 2]
    return _common(larger) if found and found[0] < 0 and len(larger) >= 3 else found


def _near_one(ratio) -> bool:
    """Whether scatter, and no unit or sign, may explain that energies change `ratio` times as much as they should."""
    return 0.25 < ratio < 4


def _suspicion(suspects, ratio) -> str:
    """What explains that energies change `ratio` times as much as they should."""
    if ratio < 0:
        of = next((s for s in suspects if s != "energies"), "energies")
        meaning = {"forces": "gradients", "stresses": "pressures", "energies": "binding energies"}[of]
        extra = "" if _near_one(-ratio) else f" and are off by a factor of about {max(-ratio, -1 / ratio):.2g}"
        return f"{of} have the sign of {meaning}{extra}: multiply by -1"
    factors = {"energies": (ratio, ENERGIES), "forces": (1 / ratio, FORCES), "stresses": (1 / ratio, STRESSES)}
    for name in suspects:
        if unit := look_like(*factors[name], within=1.25):
            return f"{name} look {unit}"
    factor = factors[next((s for s in suspects if s != "energies"), "energies")][0]
    size, wrong, remedy = (factor, "large", "divide") if factor > 1 else (1 / factor, "small", "multiply")
    return f"{' or '.join(suspects)} are about {size:.2g} times too {wrong}: {remedy} by {size:.2g}, or relabel"


def _jump(frames, labels, step, where) -> str:
    each = np.array([label.energy / len(frame) for frame, label in zip(frames, labels, strict=True)])
    typical = np.median(each[[len(frame) == step.n_atoms for frame in frames]])
    worst = max(step[:2], key=lambda i: abs(each[i] - typical))
    unit = look_like(each[worst] / typical, ENERGIES)
    return (
        f"{where[worst]}: energy is {each[worst]:.3f} eV per atom, {abs(step.energy):.4g} eV off frame "
        f"{step[worst == step.first]} where forces and stress explain {abs(step.work):.3g} eV; "
        + (f"it looks {unit}" if unit else "use one unit and one reference, or relabel it")
    )


# ---- tables ----


def off_curve(x: np.ndarray, y: np.ndarray) -> dict[int, float]:
    """Rows of y (n,) that do not lie on a smooth curve over x (n,), each with the value of that curve there.

    A polynomial through most rows, without the fifth that fits worst; these come back one by one as long as they lie
    within the scatter of the others (Student's t at 1 %, for all rows together). What then is left out is off, if by
    more than 15 % of what the curve spans and 0.5 % of its value: no polynomial is exact. Needs five rows.
    """
    if len(x) < 5 or np.ptp(x) == 0:
        return {}
    powers = np.polynomial.chebyshev.chebvander(2 * (x - x.min()) / np.ptp(x) - 1, 1 + (len(x) > 6) + (len(x) > 11))
    rows = np.arange(len(x))
    alone = [_surprise(powers, y, rows != row)[0][row] for row in rows]
    kept = np.ones(len(x), bool)
    kept[np.argsort(alone)[-max(1, len(x) // 5) :]] = False
    while not kept.all():
        surprise, curve = _surprise(powers, y, kept)
        nearest = min(np.flatnonzero(~kept), key=lambda row: surprise[row])
        if surprise[nearest] > student.isf(0.005 / len(x), kept.sum() - powers.shape[1]):
            least = np.maximum(0.15 * np.ptp(curve[kept]), 5e-3 * np.abs(curve))
            return {int(row): float(curve[row]) for row in np.flatnonzero(~kept & (np.abs(y - curve) > least))}
        kept[nearest] = True
    return {}


def _surprise(powers, y, fitted):
    """Standard errors by which rows are off the fit through `fitted` others, and that fit: both (n,)."""
    fit = np.linalg.pinv(powers[fitted])
    curve = powers @ fit @ y[fitted]
    scatter = np.sum((y - curve)[fitted] ** 2) / max(fitted.sum() - powers.shape[1], 1)
    scatter = max(scatter, (1e-5 * np.abs(y).max()) ** 2)  # tables are rounded
    return np.abs(y - curve) / np.sqrt(scatter * (1 + np.sum((powers @ fit) ** 2, 1))), curve
