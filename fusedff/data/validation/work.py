"""The work of forces and stresses between similar frames, against the change of their energies.

Between two frames of the same atoms in nearly the same places, the change of the energy follows from forces and stress
(trapezoid rule, exact in a harmonic crystal). A fit to all such steps gives the ratio of the two, which is one for
labels of one potential in one system of units.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from fusedff.units import from_voigt, to_voigt

# Largest strain and displacement (Å) of frames that are compared; displacement (Å) up to which forces do not matter.
_CLOSE_STRAIN, _CLOSE_MOVE, _STILL = 0.1, 0.5, 0.02
_EARLIER = 8  # frames of the same atoms among which a close one is sought
# Changes of energy over work that right labels may have, three standard errors aside. Forces have 0.65 to 1.1, mostly
# below 1 since potentials harden, so that units are recognized by 0.73 to 1.06; stresses are less certain.
PLAUSIBLE = {"forces": (0.4, 1.2), "stresses": (0.25, 4.0)}


class Step(NamedTuple):
    """Energy changes between two frames of the same atoms that differ little."""

    first: int
    second: int
    moved: bool  # whether atoms move relative to each other, so that forces matter
    energy: float  # eV, difference of the energies
    works: dict[str, float]  # eV, change of energy that follows from forces and stresses; nan if these are missing
    orders: tuple[float, float]  # eV, second-order terms: changes of forces and stresses, times moves and strain
    stiffness: float  # eV/Å^2, change of the forces per displacement
    n_atoms: int
    strain: np.ndarray  # (6,) Voigt, logarithmic, shears doubled
    kind: bytes  # atomic numbers in order

    @property
    def complete(self) -> bool:
        return bool(np.isfinite(self.work))

    @property
    def work(self) -> float:
        return sum(self.works.values())

    @property
    def second_order(self) -> float:
        return np.nansum(self.orders)

    @property
    def energy_error(self) -> float:
        return abs(self.energy - self.work)

    @property
    def tolerance(self) -> float:
        """Largest error of the energy (eV) that the anharmonicity of crystals explains.

        Between 123 frames of titanium and 60 of aluminium, the difference is at most 0.17 of `second_order` if atoms
        move, and 0.61 if they do not. Less than 6 meV per atom may be noise, or a barrier between frames that differ
        by a slip.
        """
        return (0.35 if self.moved else 1.0) * self.second_order + 0.006 * self.n_atoms

    @property
    def contradictory(self) -> bool:
        return self.energy_error > self.tolerance


class Ratio(NamedTuple):
    """Changes of energy over the work of forces, or of stresses, by a fit to steps."""

    value: float
    error: float  # standard error
    clear: bool  # whether one factor explains the steps, as a unit or a sign does
    denied: bool  # whether none does: many deviations exceed what anharmonicity and noise explain
    step: Step  # one that agrees well

    @property
    def relative_error(self) -> float:
        return self.error / abs(self.value)

    def off(self, name: str) -> bool:
        """Whether another unit or sign of the labels `name` is more plausible than anharmonicity."""
        low, high = PLAUSIBLE[name]
        return self.value + 3 * self.error < low or self.value - 3 * self.error > high


def find_steps(frames, labels) -> list[Step]:
    """Steps from each frame to the last close one of `_EARLIER` before with the same atoms.

    Where stresses are missing, steps of fewer than 12 frames of the same atoms are left out.
    """
    earlier, found = defaultdict(list), defaultdict(list)
    for j, frame in enumerate(frames):
        same = earlier[frame.numbers.tobytes()]
        step = next((step for i in reversed(same[-_EARLIER:]) if (step := _step(frames, labels, i, j))), None)
        if step and (step.complete or step.moved):
            found[step.complete or step.kind].append(step)
        same.append(j)
    return [step for kind, steps in found.items() if kind is True or len(steps) >= 11 for step in steps]


def _step(frames, labels, i, j) -> Step | None:
    """The `Step` between two frames of the same atoms; None unless these are in nearly the same places."""
    one, two = frames[i], frames[j]
    deformation = np.linalg.solve(one.cell.array, two.cell.array)
    if np.abs(deformation - np.eye(3)).max() > _CLOSE_STRAIN:
        return None
    fractional = np.linalg.solve(two.cell.array.T, two.positions.T) - np.linalg.solve(one.cell.array.T, one.positions.T)
    move = (fractional - np.rint(fractional)).T @ (one.cell.array + two.cell.array) / 2
    move -= move.mean(0)
    if np.abs(move).max() > _CLOSE_MOVE:
        return None
    strain = _logarithm(deformation)
    moved, strained = np.abs(move).max() > _STILL, np.abs(strain).max() > 1e-3
    if not (moved or strained):
        return None
    stress = np.array([from_voigt(labels[k].stress) * frames[k].get_volume() for k in (i, j)])
    if not strained:
        stress = np.zeros_like(stress)  # does not matter without strain, also where it is missing
    forces = np.array([labels[k].forces for k in (i, j)])
    change = -np.sum((forces[1] - forces[0]) * move)
    return Step(
        first=i,
        second=j,
        moved=bool(moved),
        energy=labels[j].energy - labels[i].energy,
        works={"forces": -np.sum(forces.mean(0) * move), "stresses": np.sum(stress.mean(0) * strain)},
        orders=(abs(change), abs(np.sum((stress[1] - stress[0]) * strain))),
        stiffness=change / max(np.sum(move**2), 1e-12),
        n_atoms=len(one),
        strain=to_voigt(strain) * [1, 1, 1, 2, 2, 2],
        kind=one.numbers.tobytes(),
    )


def _logarithm(deformation) -> np.ndarray:
    """Logarithmic strain (3, 3): work is stress times volume times its change."""
    stretches, axes = np.linalg.eigh((deformation + deformation.T) / 2)
    return (axes * np.log(np.maximum(stretches, 1e-3))) @ axes.T


def fit_ratio(steps, frames, name, per_atom=False) -> Ratio | None:
    """Ratio of changes of energy to the work of forces or stresses (`name`); None for too few steps.

    Forces are judged by steps in which atoms move, stresses by those in which they do not. In cells of two atoms,
    forces in the wrong order look like forces of the wrong sign; larger cells tell them apart.
    """
    steps = [step for step in steps if step.moved == (name == "forces")]
    found, larger = _fit(steps, frames, name, per_atom), [step for step in steps if step.n_atoms > 2]
    return _fit(larger, frames, name, per_atom) or found if found and found.value < 0 else found


def _fit(steps, frames, name, per_atom) -> Ratio | None:
    """`fit_ratio` by least absolute deviations, so that single wrong frames do not matter; both ratios are free.

    Deviations count relative to the second-order terms, of which anharmonicity is a part, and to 1 meV per atom.
    """
    if not steps:
        return None
    scale = np.array([0.2 * s.second_order + 0.001 * s.n_atoms for s in steps])
    energy = np.array([s.energy * (s.n_atoms if per_atom else 1) for s in steps]) / scale
    works = {kind: np.nan_to_num([step.works[kind] for step in steps]) / scale for kind in PLAUSIBLE}
    free = len(steps)
    for members, terms in _strain_terms(steps, frames):
        terms = terms / scale[members, None]
        for row in (energy, *works.values()):
            row[members] -= terms @ np.linalg.lstsq(terms, row[members], rcond=1e-6)[0]
        free -= terms.shape[1]
    sizes = {kind: size for kind, work in works.items() if (size := np.abs(work).max()) > 1e-9}
    free -= len(sizes)
    if name not in sizes or free < 2:
        return None
    columns = np.transpose([works[kind] / size for kind, size in sizes.items()])
    weights = np.ones(len(steps))
    for _ in range(30):
        solution = np.linalg.lstsq(columns * weights[:, None], energy * weights, rcond=1e-8)[0]
        deviation = np.abs(energy - columns @ solution)
        spread = 1.48 * np.median(deviation) + 1e-9
        weights = np.maximum(deviation / spread, 0.3) ** -0.5
    good = columns[deviation < 4 * spread]
    errors = 1.25 * spread * np.sqrt(np.diag(np.linalg.pinv(good.T @ good)) * len(steps) / free)
    k = list(sizes).index(name)
    value, error = solution[k], errors[k]
    denied = np.sum(deviation * scale > [step.tolerance for step in steps]) >= max(3, len(steps) / 10)
    best = np.argmax(np.abs(columns[:, k] * value) - deviation)
    clear = value**2 > 4 * free * error**2  # a partial correlation above 0.9
    few = 1 + 4.5 / free  # about as quantiles of Student's distribution
    return Ratio(value / sizes[name], few * error / sizes[name], bool(clear), bool(denied), steps[best])


def _strain_terms(steps, frames) -> list[tuple[list[int], np.ndarray]]:
    """Where stresses are missing: numbers of the steps of each kind of cell, and terms (n, 8) that replace their work.

    To second order, the energy depends on strain by a mean stress (six terms) and isotropic elastic constants (two).
    """
    groups = defaultdict(list)
    for k, step in enumerate(steps):
        if not step.complete:
            groups[step.kind].append(k)
    found = []
    for members in groups.values():
        ends = [frames[i].cell.array for k in members for i in steps[k][:2]]
        mean = np.mean(ends, axis=0)
        strains = [np.linalg.solve(mean, cell) - np.eye(3) for cell in ends]
        strains = [(strain + strain.T) / 2 for strain in strains]
        values = np.array([[*to_voigt(strain), np.trace(strain) ** 2, np.sum(strain**2)] for strain in strains])
        found.append((members, values[1::2] - values[::2]))
    return found
