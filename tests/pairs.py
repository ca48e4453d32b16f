"""Pair potentials as ASE calculators, so simple that answers are known; for the tests of properties."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from fusedff.geometry import neighbors

# Sums over all neighbours of (nearest-neighbour distance / distance)^n in an infinite crystal, n = 12 and 6:
# Kittel, Introduction to Solid State Physics, chapter 3; hcp with the ideal c/a.
LATTICE_SUMS = {"fcc": (12.13188, 14.45392), "hcp": (12.13229, 14.45490), "bcc": (9.11418, 12.25330)}


class Pairs(Calculator):
    """Sum over pairs of energy(r) in eV, with its derivative slope(r), up to a cut-off (Å)."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, energy, slope, cutoff):
        super().__init__()
        self.energy, self.slope, self.cutoff = energy, slope, cutoff

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, r, vectors = neighbors.pairs("idD", atoms, self.cutoff)
        pull = (self.slope(r) / r)[:, None] * vectors  # on atom i
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        self.results = {"energy": 0.5 * self.energy(r).sum(), "forces": forces}
        if atoms.pbc.all():
            virial = 0.5 * vectors.T @ pull
            self.results["stress"] = virial.ravel()[[0, 4, 8, 5, 2, 1]] / atoms.get_volume()


def springs(stiffness, length):
    """Springs of `stiffness` (eV/Å^2) and natural `length` (Å) between atoms less than 1.2 lengths apart."""
    return Pairs(lambda r: stiffness / 2 * (r - length) ** 2, lambda r: stiffness * (r - length), 1.2 * length)


def power_law(exponent, scale, cutoff):
    """Repulsion (scale / r)^exponent in eV."""
    return Pairs(lambda r: (scale / r) ** exponent, lambda r: -exponent * (scale / r) ** exponent / r, cutoff)


def lennard_jones(cutoff):
    """4 (r^-12 - r^-6), shifted so that it is zero at the cut-off."""
    end = 4 * (cutoff**-12 - cutoff**-6)
    return Pairs(lambda r: 4 * (r**-12 - r**-6) - end, lambda r: 4 * (6 * r**-6 - 12 * r**-12) / r, cutoff)


def lennard_jones_tail(cutoff, volume):
    """Tail correction: energy per atom that `lennard_jones` lacks, for a uniform density; `volume` is per atom.

    Half of it comes from pairs beyond the cut-off, half from the shift.
    """
    return -16 / 3 * np.pi / volume * cutoff**-3


def smooth_lennard_jones(cutoff):
    """4 (r^-12 - r^-6) times (1 - (r/cutoff)^2)^3: the energy is a smooth function of strain."""

    def window(r):
        return 1 - (r / cutoff) ** 2

    def energy(r):
        return 4 * (r**-12 - r**-6) * window(r) ** 3

    def slope(r):
        return (
            4 * (6 * r**-6 - 12 * r**-12) / r * window(r) ** 3 - 24 * (r**-12 - r**-6) * window(r) ** 2 * r / cutoff**2
        )

    return Pairs(energy, slope, cutoff)


def lennard_jones_crystal(structure):
    """Nearest-neighbour distance, energy and volume per atom, and bulk modulus of an infinite Lennard-Jones crystal.

    At 0 K and zero pressure, from `LATTICE_SUMS`, in units of epsilon and sigma.
    """
    twelve, six = LATTICE_SUMS[structure]
    distance = (2 * twelve / six) ** (1 / 6)
    volume = distance**3 * {"fcc": 1 / np.sqrt(2), "hcp": 1 / np.sqrt(2), "bcc": 4 / 3 / np.sqrt(3)}[structure]
    return distance, -(six**2) / (2 * twelve), volume, 4 * six**2 / twelve / volume
