"""A potential as an ASE calculator."""

import jax
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from fusedff import neighbors, potential, systems
from fusedff.potential import Potential, require_species

_evaluate = jax.jit(potential.evaluate)


class FusedCalculator(Calculator):
    """Energy, forces and stress of any ASE structure, periodic or not.

    Neighbour slots are rounded up to a multiple of eight, so that moving atoms rarely means compiling again.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, potential_: Potential):
        super().__init__()
        self.potential = potential_

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        require_species(self.potential, atoms.numbers)
        atoms = self._in_a_box(atoms)
        near = neighbors.from_frames(atoms, self.potential.cutoff)
        near = neighbors.from_frames(atoms, self.potential.cutoff, max(8, -(-int(near.needed) // 8) * 8))
        result = _evaluate(self.potential, systems.from_atoms(atoms), jax.tree.map(np.asarray, near))
        energy = float(result.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": np.asarray(result.forces, float)}
        if atoms.pbc.all():
            self.results["stress"] = np.asarray(result.stress[0], float)

    def _in_a_box(self, atoms):
        """Directions without periodicity may lack a cell vector; any will do, their images are never neighbours."""
        if atoms.cell.rank == 3:
            return atoms
        atoms = atoms.copy()
        atoms.cell = atoms.cell.complete()
        return atoms
