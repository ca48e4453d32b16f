"""Relaxation of ions, or of ions and cell, until forces and stress vanish; for any ASE calculator.

Functions return a new structure that holds its energy, forces and stress, so that they need not be computed again.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCartesian, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.runtime import limits, progress
from fusedff.runtime.failures import FailedComputationError

_SYMMETRY_TOLERANCE = 1e-3  # Å; coordinates of four digits still count as symmetric
_KEPT = ("energy", "free_energy", "forces", "stress")


@dataclass(frozen=True)
class RelaxationConfig:
    """Limits of a relaxation: it ends when no force is above `fmax` (eV/Å; for cells: no virial per atom, in eV)."""

    fmax: float = 1e-4
    steps: int = 500  # at most

    def __post_init__(self):
        limits.require(self, positive=["fmax"], count=["steps"])


DEFAULT = RelaxationConfig()


class NotRelaxedError(FailedComputationError):
    """A structure whose forces did not vanish."""


def relax_ions(atoms: Atoms, calculator, settings: RelaxationConfig = DEFAULT, name: str | None = None) -> Atoms:
    """The structure with its ions relaxed in the given cell; constraints on `atoms` are kept.

    `name` shows progress. Raises NotRelaxedError when the forces do not vanish within `settings.steps`.
    """
    frame = with_calculator(atoms, calculator)
    return _relaxed(frame, frame, settings, name)


def relax_crystal(atoms: Atoms, calculator, settings: RelaxationConfig = DEFAULT, fixed_volume: bool = False) -> Atoms:
    """The crystal with ions and cell relaxed in its own space group; with `fixed_volume` of the cell only the shape.

    Forces and stress are projected onto the symmetry of `atoms`, so that a crystal at a saddle point of the energy,
    such as bcc titanium, does not transform. Needs a calculator with stress. Raises NotRelaxedError.
    """
    frame = with_calculator(atoms, calculator)
    frame.set_constraint(FixSymmetry(frame, symprec=_SYMMETRY_TOLERANCE))
    return _relaxed(frame, FrechetCellFilter(frame, constant_volume=fixed_volume), settings, None)


def relax_normal(atoms: Atoms, calculator, settings: RelaxationConfig = DEFAULT, name: str | None = None) -> Atoms:
    """The structure with ions and cell relaxed along z only, e.g. the distances of planes at a stacking fault.

    Needs a calculator with stress. Raises NotRelaxedError.
    """
    frame = with_calculator(atoms, calculator)
    frame.set_constraint(FixCartesian(range(len(frame)), mask=(True, True, False)))
    along_z = (False, False, True, False, False, False)
    return _relaxed(frame, FrechetCellFilter(frame, mask=along_z), settings, name)


def equilibrium(crystal: Crystal, calculator, settings: RelaxationConfig = DEFAULT) -> Crystal:
    """The crystal with the lattice constants and positions of atoms at which stress and forces vanish.

    Raises NotRelaxedError.
    """
    return crystals.with_cell(crystal, relax_crystal(crystals.unit_cell(crystal), calculator, settings))


def with_calculator(atoms: Atoms, calculator) -> Atoms:
    """A copy of the structure with a calculator. Raises TypeError for a `Crystal` and for anything but a calculator."""
    if not isinstance(atoms, Atoms):
        raise TypeError(f"{atoms} is no ase.Atoms; give a structure, of a Crystal crystals.unit_cell(crystal)")
    if not hasattr(calculator, "get_potential_energy"):
        raise TypeError(
            f"{type(calculator).__name__} is not an ASE calculator; give one, such as FusedCalculator(potential)"
        )
    frame = atoms.copy()
    frame.calc = calculator
    return frame


def _relaxed(frame, movable, settings, name):
    optimizer = BFGS(movable, logfile=None)
    with progress.bar(name, settings.steps + 1) as report:

        def watch():
            largest = float(np.linalg.norm(movable.get_forces(), axis=1).max())
            if not np.isfinite(largest):
                raise NotRelaxedError(
                    f"{_called(frame, name)}: a force is {largest} after {optimizer.nsteps} steps; start "
                    "closer to rest, or ask whether the potential was made for such a structure"
                )
            report({"largest force": largest})

        optimizer.attach(watch)
        converged = optimizer.run(settings.fmax, settings.steps)
    if not converged:
        forces = np.linalg.norm(movable.get_forces(), axis=1)
        row = int(forces.argmax())
        where = (
            f"on atom {row} is {forces[row]:.2g} eV/Å" if row < len(frame) else f"is the cell's, {forces[row]:.2g} eV"
        )
        raise NotRelaxedError(
            f"{_called(frame, name)}: after {settings.steps} steps the largest force {where}, not below "
            f"{settings.fmax:g}; allow more steps, start closer to rest, or raise fmax if it no longer falls "
            "(single precision ends near 1e-4; JAX_ENABLE_X64=1 in the environment goes below)"
        )
    results = {key: value for key, value in frame.calc.results.items() if key in _KEPT}
    frame.set_constraint()
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _called(frame, name):
    return f"{name or 'relaxation'} of {frame.get_chemical_formula()}"
