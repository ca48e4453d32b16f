"""Copper frames with EMT labels: realistic forces and stresses that are fast to compute; for the tests of labels."""

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def copper(n, seed=7, keys=("energy", "forces", "stress"), rattle=0.1):
    """`n` strained and rattled cells of 4 atoms with the labels named in `keys`."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", "fcc", a=3.6 * rng.uniform(0.98, 1.03), cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=rattle, size=(4, 3))
        frames.append(relabelled(atoms, keys))
    return frames


def relabelled(atoms, keys=("energy", "forces", "stress"), **changes):
    """A copy with EMT labels, some of them replaced by `changes`."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **{key: found[key] for key in keys} | changes)
    return atoms
