"""Rigid-ion potentials of oxides as an ASE calculator; for the tests of the signs of elastic constants."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.units import kJ, mol
from scipy.special import erfc

from fusedff.geometry import neighbors

COULOMB = 14.399645  # e^2 / (4 π ε0) in eV Å
# Å, 1/Å: erfc(r damping) is below 1e-5 beyond the cut-off (Wolf et al., J. Chem. Phys. 110, 8254 (1999))
CUTOFF, DAMPING = 10.0, 0.32


class Ions(Calculator):
    """Damped Coulomb energy of ions with charges {symbol: e}, plus pair energies: short(a, b) -> (energy(r), slope(r)).

    Symbols a and b name the elements of the pair; energies are in eV, distances in Å.
    """

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, charges, short):
        super().__init__()
        self.charges, self.short = charges, short

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, r, vectors = neighbors.pairs("ijdD", atoms, CUTOFF)
        charge, symbols = np.array([self.charges[s] for s in atoms.symbols]), np.array(atoms.get_chemical_symbols())
        screened = COULOMB * charge[i] * charge[j] * erfc(DAMPING * r) / r
        gauss = COULOMB * charge[i] * charge[j] * 2 * DAMPING / np.sqrt(np.pi) * np.exp(-((DAMPING * r) ** 2))
        energy, slope = screened, -(screened + gauss) / r
        for a in set(symbols):
            for b in set(symbols):
                of_pair = (symbols[i] == a) & (symbols[j] == b)
                more, steeper = (f(r[of_pair]) for f in self.short(a, b))
                energy[of_pair] += more
                slope[of_pair] += steeper
        pull = (slope / r)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        virial = 0.5 * vectors.T @ pull
        self.results = {"energy": 0.5 * energy.sum(), "forces": forces}
        self.results["stress"] = virial.ravel()[[0, 4, 8, 5, 2, 1]] / atoms.get_volume()


def _buckingham(a, b, c):
    """a exp(-b r) - c / r^6 and its slope."""
    return (lambda r: a * np.exp(-b * r) - c / r**6), (lambda r: -a * b * np.exp(-b * r) + 6 * c / r**7)


def silica():
    """SiO2 of van Beest, Kramer & van Santen, Phys. Rev. Lett. 64, 1955 (1990)."""
    table = {"OO": (1388.773, 2.76, 175.0), "OSi": (18003.7572, 4.87318, 133.5381), "SiSi": (0.0, 1.0, 0.0)}
    return Ions({"Si": 2.4, "O": -1.2}, lambda a, b: _buckingham(*table["".join(sorted((a, b)))]))


def alumina():
    """Al2O3 of Matsui, Phys. Chem. Minerals 23, 345 (1996)."""
    radius, hardness, attraction = {"Al": 0.7852, "O": 1.8215}, {"Al": 0.034, "O": 0.138}, {"Al": 36.82, "O": 90.61}

    def short(a, b):
        width = hardness[a] + hardness[b]
        strength = 4.184 * width * np.exp((radius[a] + radius[b]) / width)
        return _buckingham(strength * kJ / mol, 1 / width, attraction[a] * attraction[b] * kJ / mol)

    return Ions({"Al": 1.4175, "O": -0.945}, short)
