"""Checks of labels against each other: energy differences, forces and stresses must belong to one potential.

Between similar frames, the change of the energy follows from forces and stress (`work`), so an energy, a force or a
stress in another unit or with another sign is detected. Contradictions that no unit explains are an error if there are
many, and a warning if there are few.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations

import numpy as np
from ase import Atoms

from fusedff.data.labelled_frames import family
from fusedff.data.validation import unit_checks
from fusedff.data.validation.work import PLAUSIBLE, Ratio, Step, find_steps, fit_ratio

MAX_ENERGY_SPREAD = 20.0  # eV per atom between frames of one composition
FAMILY, MIN_SPREAD, OPPOSED = 8, 0.01, -0.4  # frames; relative spread of volumes; correlation of stress and volume
MAX_NET_FORCE = 0.01  # eV/Å per atom; converged plane-wave calculations have less, at most 0.006 in the shipped frames
_TYPICAL, _WITHIN = 0.88, 1.2  # of a ratio of right forces; factor within which a unit is recognized
_RELABEL = (
    "give labels of one calculation each, forces in the order of the atoms, all in eV and Å with the signs of forces "
    "and stresses"
)


def check_changes(frames: Sequence[Atoms], labels: Sequence, where: Sequence[str]) -> None:
    """Raise ImplausibleDataError if energies, forces and stresses of similar frames cannot belong to one potential.

    `labels` have energy, forces and Voigt stress (nan where missing or not to be used); `where` names each frame. The
    checks, of the steps between similar frames of the same atoms, are: (1) energies change by a multiple of the work of
    forces or stresses that is not `PLAUSIBLE`; (2) shear stresses follow other shear strains; (3) the energy of a
    single frame is off by more than 1 eV per atom, or its forces are too large for the change of energy; (4) at least
    three steps, and a tenth of all, are contradictory without a common factor, or forces explain no energies. Fewer
    contradictory steps are a warning.
    """
    every = find_steps(frames, labels)
    steps = [step for step in every if step.complete]
    ratios = {name: ratio for name in PLAUSIBLE if (ratio := fit_ratio(every, frames, name))}
    if found := _unit_error(every, frames, ratios):
        raise unit_checks.ImplausibleDataError(_disagreement(*found, where))
    _check_order_of_shears(steps, labels, where)
    for step in steps:
        if step.energy_error > step.n_atoms + 3 * (abs(step.work) + step.second_order):
            raise unit_checks.ImplausibleDataError(_jump(frames, labels, step, where))
        if step.stiffness > 100 and step.moved and step.contradictory:
            worst = max(step[:2], key=lambda i: np.abs(labels[i].forces).max())
            raise unit_checks.ImplausibleDataError(
                f"{where[worst]}: against frame {step[worst == step.first]} forces change by {step.stiffness:.0f} eV/Å "
                "per Å, which the energies deny; convert them to eV/Å if they are in another unit (kJ/mol/Å: divide "
                "by 96.485), or relabel it"
            )
    for kind in (True, False):
        _check_agreement([step for step in steps if step.moved == kind], frames, where)
    forces = ratios.get("forces")
    if forces and forces.value and not forces.clear and (forces.off("forces") or forces.denied):
        value = f"{forces.value:.2f} ± {forces.error:.2f}"
        raise unit_checks.ImplausibleDataError(
            f"{where[forces.step.first]} to frame {forces.step.second}, and likewise in the whole file: forces do not "
            f"explain the changes of energy, which scatter about {value} times their work; {_RELABEL}"
        )


def compared(frames: Sequence[Atoms], labels: Sequence) -> tuple[int, int]:
    """Number of frames that `check_changes` compares with an earlier one, and that have one of the same atoms."""
    return len(find_steps(frames, labels)), len(frames) - len({frame.numbers.tobytes() for frame in frames})


def _check_agreement(steps, frames, where) -> None:
    contradictory = [step for step in steps if step.contradictory]
    if not contradictory:
        return
    worst = max(contradictory, key=lambda step: step.energy_error / step.n_atoms)
    what = (
        f"{where[worst.first]} to frame {worst.second}: the energy changes by {worst.energy:.4g} eV, by forces and "
        f"stresses it should by {worst.work:.4g} eV"
    )
    if len(contradictory) >= max(3, len(steps) / 10):
        name = "forces" if worst.moved else "stresses"
        common = fit_ratio(contradictory, frames, name)
        perhaps = common and common.clear and common.off(name)
        raise unit_checks.ImplausibleDataError(
            f"{what}, and likewise in {len(contradictory)} of {len(steps)} such pairs; {_RELABEL}"
            + (f"; perhaps {_suspicion([name, 'energies'], common)}" if perhaps else "")
        )
    warnings.warn(f"{what}; one of the two may be mislabelled: look at them, or relabel them", stacklevel=5)


def _check_order_of_shears(steps, labels, where) -> None:
    """Raise ImplausibleDataError if the three shear stresses follow each other's strains, as in another order.

    Elastic constants of a stable crystal are positive definite, whatever its symmetry, so no other order has a larger
    sum of the three constants of each shear strain and its stress.
    """
    groups = defaultdict(list)
    for step in steps:
        if np.abs(step.strain).max() > 1e-3:
            groups[step.kind].append(step)
    for members in groups.values():
        strains = np.array([step.strain for step in members])
        if len(members) < 12 or np.linalg.matrix_rank(strains, tol=1e-3) < 6:
            continue
        stresses = np.array([labels[step.second].stress - labels[step.first].stress for step in members])
        elastic = np.linalg.lstsq(strains, stresses, rcond=None)[0]
        variances = np.sum((stresses - strains @ elastic) ** 2, axis=0) / (len(members) - 6)
        errors = np.outer(np.diag(np.linalg.inv(strains.T @ strains)), variances)[3:, 3:]
        shears, given = elastic[3:, 3:], np.arange(3)
        best = max((list(order) for order in permutations(range(3))), key=lambda order: shears[given, order].sum())
        largest, trace = shears[given, best].sum(), np.trace(shears)
        if abs(trace) < largest / 2 and largest - trace > 5 * np.sqrt(errors[given, best].sum() + np.trace(errors)):
            names = " ".join(np.array(["yz", "xz", "xy"])[np.argsort(best)])
            raise unit_checks.ImplausibleDataError(
                f"{where[members[0].first]} and likewise in the whole file: shear stresses follow other shear strains, "
                f"as if they were in the order {names} (VASP: xy yz xz); give them in the order xx yy zz yz xz xy"
            )


def _unit_error(steps, frames, ratios) -> tuple[str, Step, str] | None:
    """Labels that are off, a step that shows it, and the remedy, if a unit or a sign explains the changes of energy."""
    off = {name: ratio for name, ratio in ratios.items() if ratio.clear and ratio.off(name)}
    name = min(off, key=lambda name: off[name].relative_error) if off else "forces"
    ratio, total = ratios.get(name), fit_ratio(steps, frames, name, per_atom=True)
    remedies = []
    if total and total.clear and 0.6 < total.value < 1.2 and (name in off or not ratio.clear):
        if total.relative_error < 1.25 * ratio.relative_error:
            remedies.append("energies look like energies per atom: multiply each by the number of atoms")
    if name in off:
        alone = len(ratios) == 2 and len(off) == 1
        both = len(off) == 2 and 0.5 < off["forces"].value / off["stresses"].value < 2
        suspicion = _suspicion(["energies"] if both else [name, "energies"] if alone else ["energies", name], ratio)
        if " look " in suspicion or not remedies:
            remedies.append(suspicion)
    return (name, ratio.step, "; or ".join(remedies)) if remedies else None


def _disagreement(name, step, remedy, where) -> str:
    work = f"{step.work:.4g} eV" if step.complete else f"{step.works['forces']:.4g} eV, besides that of the strain"
    return (
        f"{where[step.first]} to frame {step.second}: the energy changes by {step.energy:.4g} eV, by {name} it should "
        f"by {work}, and likewise in the whole file; {remedy}"
    )


def _suspicion(suspects, ratio: Ratio) -> str:
    """Phrase that names label, unit and remedy if energies change by `ratio` times what they should."""
    value = ratio.value
    if value < 0:
        of = next((s for s in suspects if s != "energies"), "energies")
        meaning = {"forces": "gradients", "stresses": "pressures", "energies": "binding energies"}[of]
        if not 0.4 < -value < 1.6:
            return f"{of} have the sign of {meaning} and are off by a factor of about {max(-value, -1 / value):.2g}"
        order = ", or give them in the order of the atoms" if of == "forces" and ratio.step.n_atoms == 2 else ""
        return f"{of} have the sign of {meaning}: multiply by -1{order}"
    factors = {name: value if name == "energies" else 1 / value for name in suspects}
    tables = {"energies": unit_checks.ENERGIES, "forces": unit_checks.FORCES, "stresses": unit_checks.STRESSES}
    found = []
    for name, factor in factors.items():
        likely = factor / _TYPICAL if name == "energies" else factor * _TYPICAL
        for unit, size in tables[name].items():
            if phrase := unit_checks.look_like(likely, {unit: size}, _WITHIN):
                found.append((abs(np.log(size / likely)), f"{name} look {phrase}"))
    if found:
        return "; or ".join(phrase for _, phrase in sorted(found))
    said = []
    for name, factor in factors.items():
        size, wrong, remedy = (factor, "large", "divide") if factor > 1 else (1 / factor, "small", "multiply")
        said.append(f"{name} are about {size:.2g} times too {wrong}: {remedy} by {size:.2g}")
    return "; or ".join([*said, "relabel"])


def _jump(frames, labels, step, where) -> str:
    each = np.array([label.energy / len(frame) for frame, label in zip(frames, labels, strict=True)])
    typical = np.median(each[[len(frame) == step.n_atoms for frame in frames]])
    worst = max(step[:2], key=lambda i: abs(each[i] - typical))
    unit = unit_checks.look_like(each[worst] / typical, unit_checks.ENERGIES)
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
            raise unit_checks.ImplausibleDataError(
                f"{where[members[0][0]]} and {len(members) - 1} more {formula} frames have exactly the same energy, "
                f"{typical:.6g} eV per atom, as if it had never been computed; relabel them"
            )
        for i, energy in members:
            if abs(energy - typical) > MAX_ENERGY_SPREAD:
                unit = unit_checks.look_like(energy / typical, unit_checks.ENERGIES)
                raise unit_checks.ImplausibleDataError(
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
        raise unit_checks.ImplausibleDataError(
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
