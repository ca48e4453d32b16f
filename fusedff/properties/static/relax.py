"""Structures at rest: ions, or ions and cell, moved until forces and stress vanish; for any ASE calculator.

What comes back is a new structure that carries its energy, forces and stress, so that nobody computes them again.
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
from fusedff.runtime import progress

_SYMMETRY_TOLERANCE = 1e-3  # Å; coordinates of four digits still count as symmetric
_KEPT = ("energy", "free_energy", "forces", "stress")


@dataclass(frozen=True)
class Relaxation:
    """When a structure is at rest: no force above `fmax` (eV/Å; cells: no virial per atom above `fmax` eV)."""

    fmax: float = 1e-4
    steps: int = 500  # at most


class NotRelaxedError(RuntimeError):
    """A structure that did not come to rest."""


def relax_ions(atoms: Atoms, calculator, settings: Relaxation | None = None, name: str | None = None) -> Atoms:
    """The structure with its ions at rest in the cell as it is; constraints on `atoms` hold.

    `name` shows progress. Raises NotRelaxedError when the forces do not vanish within `settings.steps`.
    """
    frame = _with(atoms, calculator)
    return _relaxed(frame, frame, settings, name)


def relax_crystal(
    atoms: Atoms, calculator, settings: Relaxation | None = None, name: str | None = None, fixed_volume: bool = False
) -> Atoms:
    """The crystal with ions and cell at rest, or at its own volume the shape of its cell, in its own space group.

    Forces and stress are projected onto the symmetry of `atoms`, so a crystal on a saddle point, like bcc titanium,
    stays there. Needs a calculator with stress. Raises NotRelaxedError.
    """
    frame = _with(atoms, calculator)
    frame.set_constraint(FixSymmetry(frame, symprec=_SYMMETRY_TOLERANCE))
    return _relaxed(frame, FrechetCellFilter(frame, constant_volume=fixed_volume), settings, name)


def relax_normal(atoms: Atoms, calculator, settings: Relaxation | None = None, name: str | None = None) -> Atoms:
    """The structure with ions, and the height of the cell, at rest along z; nothing moves along x and y.

    For faults, whose planes find their distance. Needs a calculator with stress. Raises NotRelaxedError.
    """
    frame = _with(atoms, calculator)
    frame.set_constraint(FixCartesian(range(len(frame)), mask=(True, True, False)))
    along_z = (False, False, True, False, False, False)
    return _relaxed(frame, FrechetCellFilter(frame, mask=along_z), settings, name)


def equilibrium(crystal: Crystal, calculator, settings: Relaxation | None = None) -> Crystal:
    """The crystal with the lattice constants, and places of its atoms, at which `calculator` finds no stress or force.

    Raises NotRelaxedError.
    """
    return crystals.with_cell(crystal, relax_crystal(crystals.unit_cell(crystal), calculator, settings))


def _with(atoms, calculator):
    frame = atoms.copy()
    frame.calc = calculator
    return frame


def _relaxed(frame, movable, settings, name):
    settings = settings or Relaxation()
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
            "(single precision ends near 1e-4)"
        )
    results = {key: value for key, value in frame.calc.results.items() if key in _KEPT}
    frame.set_constraint()
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _called(frame, name):
    return f"{name or 'relaxation'} of {frame.get_chemical_formula()}"
