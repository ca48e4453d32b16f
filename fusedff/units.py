"""Units and Voigt order: eV, Å, amu, K as in ASE; stress and stiffness in eV/Å^3, positive in tension.

Multiply a number in another unit by the constant of that unit to convert it to these units, divide to convert back:
`elastic_gpa * GPA` is in eV/Å^3, `energy / KJ_MOL` in kJ/mol. The functions work on numpy and jax arrays.
"""

import ase.units
import numpy as np

KB = ase.units.kB  # Boltzmann's constant, eV/K
GPA = ase.units.GPa  # eV/Å^3 per GPa
FS = ase.units.fs  # femtosecond in ASE's time unit, Å sqrt(amu/eV)
PS = 1000.0 * ase.units.fs  # picosecond in ASE's time unit
THZ = 2 * np.pi / PS  # angular frequency of 1 THz in ASE's units, sqrt(eV/amu)/Å
PLANCK = 1e12 * ase.units._hplanck / ase.units._e  # Planck's constant, eV per THz
KJ_MOL = ase.units.kJ / ase.units.mol  # eV per kJ/mol
NM = ase.units.nm  # Å per nm
PER_GPA = {"GPa": 1.0, "Pa": 1e9, "bar": 1e4, "MPa": 1e3, "kbar": 10.0, "Mbar": 0.01}  # how many make a GPa
G_CM3 = 1e-27 / ase.units._amu  # amu/Å^3 per g/cm^3
MAX_DENSITY = 50.0  # g/cm^3, twice that of osmium, the densest element

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # xx yy zz yz xz xy

# 32 bits in either precision of jax, which may remember a 64-bit index from a trace in double precision
_ROW, _COLUMN = (np.array(axis, np.int32) for axis in zip(*VOIGT, strict=True))
_INDEX = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]], np.int32)  # index of entry (i, j) in the Voigt vector
_IS_SHEAR = _ROW != _COLUMN


def to_voigt(stress):
    """Stress (..., 3, 3) to Voigt (..., 6) in the same unit; only the upper triangle is read."""
    stress = as_floats(stress)
    return stress[..., _ROW, _COLUMN]


def from_voigt(stress):
    """Voigt stress (..., 6) to the symmetric tensor (..., 3, 3) in the same unit."""
    stress = as_floats(stress)
    return stress[..., _INDEX]


def strain_to_voigt(strain):
    """Symmetric strain (..., 3, 3) to engineering Voigt (..., 6): shear entries are 2 ε_ij."""
    strain = as_floats(strain)
    return to_voigt(strain) * np.where(_IS_SHEAR, 2, 1).astype(strain.dtype)


def strain_from_voigt(strain):
    """Engineering Voigt strain (..., 6) to the symmetric tensor (..., 3, 3): ε_ij is half a shear entry."""
    strain = as_floats(strain)
    return from_voigt(strain * np.where(_IS_SHEAR, 0.5, 1.0).astype(strain.dtype))


def as_floats(values):
    """Return arrays of floats unchanged (numpy, jax, traced); convert anything else to a numpy array of floats."""
    is_float = hasattr(values, "dtype") and np.issubdtype(values.dtype, np.inexact)
    return values if is_float else np.asarray(values, dtype=float)
