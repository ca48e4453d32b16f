"""Checks of labels against each other: energy differences, forces and stresses must belong to one potential.

Between two similar frames, the change of the energy follows from forces and stress (trapezoid rule, exact in a
harmonic crystal), so an energy, a force or a stress in another unit or with another sign is detected. Contradictions
that no unit explains are an error if there are many, and a warning if there are few.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from ase import Atoms

from fusedff.data.frames import family
from fusedff.data.validation import units
from fusedff.units import from_voigt

MAX_ENERGY_SPREAD = 20.0  # eV per atom between frames of one composition
FAMILY, MIN_SPREAD, OPPOSED = 8, 0.01, -0.4  # frames; relative spread of volumes; correlation of stress and volume
MAX_NET_FORCE = 0.01  # eV/Å per atom; converged plane-wave calculations have less, at most 0.006 in the shipped frames
# Largest strain and displacement (Å) of frames that are compared; displacement (Å) up to which forces do not matter.
_CLOSE_STRAIN, _CLOSE_MOVE, _STILL = 0.1, 0.5, 0.02


class _Step(NamedTuple):
    """Energy changes between two successive frames that differ little."""

    first: int
    second: int
    moved: bool  # whether atoms move relative to each other, so that forces matter
    energy: float  # eV, difference of the energies
    work_of_forces: float  # eV, change of energy that follows from the forces
    work_of_stress: float  # eV, change of energy that follows from the stresses
    second_order: float  # eV, size of the second-order terms: changes of forces and stresses, times moves and strain
    stiffness: float  # eV/Å^2, change of the forces per displacement
    n_atoms: int

    @property
    def work(self) -> float:
        return self.work_of_forces + self.work_of_stress

    @property
    def energy_error(self) -> float:
        return abs(self.energy - self.work)

    @property
    def contradictory(self) -> bool:
        """Whether energies contradict forces and stresses by more than the anharmonicity of crystals explains.

        Between 123 frames of titanium and 60 of aluminium, the difference is at most 0.17 of `second_order` if atoms
        move, and 0.61 if they do not. Less than 6 meV per atom may be noise, or a barrier between frames that differ
        by a slip.
        """
        return self.energy_error > (0.35 if self.moved else 1.0) * self.second_order + 0.006 * self.n_atoms

    @property
    def ratio(self) -> float:
        """Change of energy, less that from stresses, over that from forces; without moves, over that from stresses."""
        if self.moved:
            return (self.energy - self.work_of_stress) / self.work_of_forces
        return self.energy / self.work_of_stress


def check_changes(frames: Sequence[Atoms], labels: Sequence, where: Sequence[str]) -> None:
    """Raise ImplausibleDataError if energies, forces and stresses of similar frames cannot belong to one potential.

    `labels` have energy, forces and Voigt stress (nan where missing or not to be used); `where` names each frame. The
    checks, of the steps between successive similar frames, are: (1) at least three steps agree on a factor between
    energies and forces or stresses that is negative, below 1/4 or above 4; (2) the energy of a single frame is off by
    more than 1 eV per atom, or its forces are too large for the change of energy; (3) at least three steps, and a tenth
    of all, are contradictory without a common factor. Fewer contradictory steps are a warning.
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
        raise units.ImplausibleDataError(
            f"{where[step.first]} to frame {step.second}: the energy changes by {step.energy:.4g} eV, by {name} it "
            f"should by {step.work:.4g} eV, and likewise in the whole file; {_suspicion(suspects, ratio)}"
        )
    for step in steps:
        if step.energy_error > step.n_atoms + 3 * (abs(step.work) + step.second_order):
            raise units.ImplausibleDataError(_jump(frames, labels, step, where))
        if step.stiffness > 100 and step.moved and step.contradictory:
            worst = max(step[:2], key=lambda i: np.abs(labels[i].forces).max())
            raise units.ImplausibleDataError(
                f"{where[worst]}: against frame {step[worst == step.first]} forces change by {step.stiffness:.0f} eV/Å "
                "per Å, which the energies deny; convert them to eV/Å if they are in another unit (kJ/mol/Å: divide "
                "by 96.485), or relabel it"
            )
    for kind in (True, False):
        _check_agreement([step for step in steps if step.moved == kind], where)


def _check_agreement(steps, where) -> None:
    contradictory = [step for step in steps if step.contradictory]
    if not contradictory:
        return
    worst = max(contradictory, key=lambda step: step.energy_error / step.n_atoms)
    what = (
        f"{where[worst.first]} to frame {worst.second}: the energy changes by {worst.energy:.4g} eV, by forces and "
        f"stresses it should by {worst.work:.4g} eV"
    )
    if len(contradictory) >= max(3, len(steps) / 10):
        remedy = (
            "give labels of one calculation each, forces in the order of the atoms, all in eV and Å with the signs of "
            "forces and stresses"
        )
        common = _common(contradictory)
        if common and not _near_one(common[0]):
            remedy += f"; perhaps {_suspicion(['forces' if worst.moved else 'stresses', 'energies'], common[0])}"
        raise units.ImplausibleDataError(
            f"{what}, and likewise in {len(contradictory)} of {len(steps)} such pairs; {remedy}"
        )
    warnings.warn(f"{what}; one of the two may be mislabelled: look at them, or relabel them", stacklevel=5)


def _step(frames, labels, i, j) -> _Step | None:
    """The `_Step` between two frames; None unless they have the same atoms in nearly the same places."""
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
        stress = np.zeros_like(stress)  # does not matter without strain, also where it is missing
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
        work_of_forces=-np.sum(forces.mean(0) * move),
        work_of_stress=np.sum(stress.mean(0) * strain),
        second_order=abs(change) + abs(np.sum((stress[1] - stress[0]) * strain)),
        stiffness=change / max(np.sum(move**2), 1e-12),
        n_atoms=len(one),
    )


def _common(steps) -> tuple[float, _Step] | None:
    """Median ratio of the half of the steps with the largest changes of energy, and the step that has it.

    None for fewer than three steps, or unless the middle half of the ratios have one sign and agree within a factor 4.
    """
    steps = sorted(
        (s for s in steps if (s.work_of_forces if s.moved else s.work_of_stress)), key=lambda s: -abs(s.energy)
    )
    steps = steps[: max(3, (len(steps) + 1) // 2)]
    if len(steps) < 3:
        return None
    ratios = sorted((step.ratio, step) for step in steps)
    quarter = len(ratios) // 4
    low, high = ratios[quarter][0], ratios[-1 - quarter][0]
    return ratios[len(ratios) // 2] if low * high > 0 and max(low / high, high / low) < 4 else None


def _common_of_forces(steps) -> tuple[float, _Step] | None:
    """`_common` of steps in which atoms move.

    In cells of two atoms, forces in the wrong order look like forces of the wrong sign; larger cells tell them apart.
    """
    found, larger = _common(steps), [step for step in steps if step.n_atoms > 2]
    return _common(larger) if found and found[0] < 0 and len(larger) >= 3 else found


def _near_one(ratio) -> bool:
    """Whether scatter may explain that energies change `ratio` times as much as they should, without another unit."""
    return 0.25 < ratio < 4


def _suspicion(suspects, ratio) -> str:
    """Phrase that names the label, unit and remedy if energies change `ratio` times as much as they should."""
    if ratio < 0:
        of = next((s for s in suspects if s != "energies"), "energies")
        meaning = {"forces": "gradients", "stresses": "pressures", "energies": "binding energies"}[of]
        extra = "" if _near_one(-ratio) else f" and are off by a factor of about {max(-ratio, -1 / ratio):.2g}"
        return f"{of} have the sign of {meaning}{extra}: multiply by -1"
    factors = {
        "energies": (ratio, units.ENERGIES),
        "forces": (1 / ratio, units.FORCES),
        "stresses": (1 / ratio, units.STRESSES),
    }
    for name in suspects:
        if unit := units.look_like(*factors[name], within=1.25):
            return f"{name} look {unit}"
    factor = factors[next((s for s in suspects if s != "energies"), "energies")][0]
    size, wrong, remedy = (factor, "large", "divide") if factor > 1 else (1 / factor, "small", "multiply")
    return f"{' or '.join(suspects)} are about {size:.2g} times too {wrong}: {remedy} by {size:.2g}, or relabel"


def _jump(frames, labels, step, where) -> str:
    each = np.array([label.energy / len(frame) for frame, label in zip(frames, labels, strict=True)])
    typical = np.median(each[[len(frame) == step.n_atoms for frame in frames]])
    worst = max(step[:2], key=lambda i: abs(each[i] - typical))
    unit = units.look_like(each[worst] / typical, units.ENERGIES)
    return (
        f"{where[worst]}: energy is {each[worst]:.3f} eV per atom, {abs(step.energy):.4g} eV off frame "
        f"{step[worst == step.first]} where forces and stress explain {abs(step.work):.3g} eV; "
        + (f"it looks {unit}" if unit else "use one unit and one reference, or relabel it")
    )


def check_energies(frames: Sequence[Atoms], labels: Sequence, where: Sequence[str]) -> None:
    """Raise ImplausibleDataError if energies (eV) of one composition differ by too much, or are all exactly the same.

    Energies in different units or with different zeros differ by tens of eV per atom (`MAX_ENERGY_SPREAD`); equal ones
    in three or more frames were never computed.
    """
    groups = defaultdict(list)
    for i, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        groups[frame.symbols.formula.reduce()[0].format("hill")].append((i, label.energy / len(frame)))
    for formula, members in groups.items():
        typical = np.median([energy for _, energy in members])
        if len(members) > 2 and len({energy for _, energy in members}) == 1:
            raise units.ImplausibleDataError(
                f"{where[members[0][0]]} and {len(members) - 1} more {formula} frames have exactly the same energy, "
                f"{typical:.6g} eV per atom, as if it had never been computed; relabel them"
            )
        for i, energy in members:
            if abs(energy - typical) > MAX_ENERGY_SPREAD:
                unit = units.look_like(energy / typical, units.ENERGIES)
                raise units.ImplausibleDataError(
                    f"{where[i]}: energy is {energy:.3f} eV per atom, but {formula} frames have {typical:.3f}; "
                    + (f"it looks {unit}" if unit else "use one unit and one reference, or drop it")
                )


def check_sign_of_stress(frames: Sequence[Atoms], labels: Sequence, where: Sequence[str]) -> None:
    """Raise ImplausibleDataError if crystals are under more pressure the larger they are.

    In each family with stresses of several volumes, stress and volume per atom are correlated: by +0.5 to +1 in rattled
    and strained crystals, by the opposite if the sign is wrong, and not at all in cells that contain a vacuum.
    """
    families = defaultdict(list)
    for n, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        if frame.pbc.all() and np.isfinite(label.stress).all():
            kind = (family(frame), frame.symbols.formula.reduce()[0].format("hill"))
            families[kind].append((frame.get_volume() / len(frame), label.stress[:3].mean(), n))
    found = {}
    for kind, rows in families.items():
        volumes, stresses, numbers = np.transpose(rows)
        if len(rows) >= FAMILY and np.std(volumes) > MIN_SPREAD * np.mean(volumes) and np.std(stresses) > 0:
            found[kind] = float(np.corrcoef(volumes, stresses)[0, 1]), int(numbers[0])
    if found and np.median([correlation for correlation, _ in found.values()]) < OPPOSED:
        correlation, first = min(found.values())
        raise units.ImplausibleDataError(
            f"{where[first]}: among the frames of its family stresses fall where volumes grow (correlation "
            f"{correlation:.2f}); stress is positive in tension here: multiply it by -1 if it is a pressure"
        )


def check_net_forces(labels: Sequence, where: Sequence[str]) -> None:
    """Warn if the sum of the forces of a frame, which should be zero, exceeds `MAX_NET_FORCE` per atom."""
    net = np.array([np.abs(label.forces.mean(0)).max() for label in labels])
    found = np.flatnonzero(net > MAX_NET_FORCE)
    if len(found):
        worst = int(np.argmax(net))
        more = f", and likewise in {len(found) - 1} more of {len(net)} frames" if len(found) > 1 else ""
        warnings.warn(
            f"{where[worst]}: the forces add up to {np.abs(labels[worst].forces.sum(0)).max():.3g} eV/Å, to 0 in a "
            f"converged calculation of a periodic crystal{more}; relabel or drop such frames, or leave out the field "
            "or constraint that acts on them",
            stacklevel=4,
        )
