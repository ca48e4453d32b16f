"""A potential as an ASE calculator."""

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from fusedff.interfaces.evaluator import Evaluator
from fusedff.potential import Potential
from fusedff.runtime import devices


class FusedCalculator(Calculator):
    """Energy, forces and stress of any ASE structure, periodic or not; threads may share one, and take turns."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, potential: Potential):
        super().__init__()
        if not isinstance(potential, Potential):
            raise TypeError(f"{potential!r} is no potential; give one, as fusedff.load returns it")
        self.potential = potential
        self._evaluate = Evaluator(potential)

    def get_property(self, name, atoms=None, allow_calculation=True):
        devices.require_unforked()
        with self._evaluate.lock:  # results are those of the structure asked about
            return super().get_property(name, atoms, allow_calculation)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if "stress" in properties and not atoms.pbc.all():
            raise PropertyNotImplementedError("stress needs a cell that is periodic along all three vectors; set pbc")
        result = self._evaluate(atoms)
        energy = float(result.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": np.asarray(result.forces, float)}
        if atoms.pbc.all():
            self.results["stress"] = np.asarray(result.stress[0], float)
