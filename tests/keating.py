"""Keating model of diamond, whose elastic constants are known in closed form, internal relaxation included."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from fusedff.geometry import neighbors
from fusedff.units import to_voigt


class Keating(Calculator):
    """Keating's energy of a diamond lattice, alpha and beta in eV/Å^2, bond length in Å; Phys. Rev. 145, 637 (1966).

    3 alpha / (8 r0^2) (r^2 - r0^2)^2 for each bond, 3 beta / (8 r0^2) (r1.r2 + r0^2 / 3)^2 for each pair of bonds of an
    atom.
    """

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, alpha: float, beta: float, bond: float):
        super().__init__()
        self.alpha, self.beta, self.bond = alpha, beta, bond

    @property
    def constants(self) -> dict[str, float]:
        """Elastic constants in eV/Å^3, with relaxed atoms. Without relaxation C44 would be (alpha + beta) / a."""
        alpha, beta, a = self.alpha, self.beta, 4 * self.bond / np.sqrt(3)
        return {"C11": (alpha + 3 * beta) / a, "C12": (alpha - beta) / a, "C44": 4 * alpha * beta / (alpha + beta) / a}

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, vectors = neighbors.pairs("ijD", atoms, 1.3 * self.bond)
        stretch = (vectors**2).sum(1) - self.bond**2  # every bond is listed twice
        energy = 3 * self.alpha / (16 * self.bond**2) * np.sum(stretch**2)
        slope = 3 * self.alpha / (4 * self.bond**2) * stretch[:, None] * vectors
        one, other = (n.ravel() for n in np.meshgrid(*[np.arange(len(i))] * 2, indexing="ij"))
        meet = (i[one] == i[other]) & (one < other)
        one, other = one[meet], other[meet]
        bend = (vectors[one] * vectors[other]).sum(1) + self.bond**2 / 3
        energy += 3 * self.beta / (8 * self.bond**2) * np.sum(bend**2)
        for here, there in ((one, other), (other, one)):
            np.add.at(slope, here, 3 * self.beta / (4 * self.bond**2) * bend[:, None] * vectors[there])
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, slope)
        np.add.at(forces, j, -slope)
        virial = vectors.T @ slope
        self.results = {"energy": energy, "forces": forces}
        self.results["stress"] = to_voigt((virial + virial.T) / 2) / atoms.get_volume()
