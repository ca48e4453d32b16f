"""A crystal of every Laue class, and harmonic bonds whose elastic constants are known in closed form."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal

from fusedff.units import from_voigt, to_voigt

# Invented structures, or those of known crystals; space group, sites, (a, b, c, alpha, beta, gamma) in Å and degrees.
_CRYSTALS = {
    "triclinic": ("P-1", {"Ar": [(0, 0, 0), (0.31, 0.42, 0.27)]}, (3.1, 3.6, 4.1, 82, 77, 71)),
    "monoclinic": ("P 21/m", {"Ar": [(0, 0, 0), (0.27, 0.25, 0.33)]}, (3.9, 4.2, 4.7, 90, 104, 90)),
    "orthorhombic": ("P n m a", {"Ar": [(0.2, 0.25, 0.13)]}, (4.6, 3.1, 5.3, 90, 90, 90)),
    "tetragonal 4/m": ("P 4/m", {"Mo": [(0, 0, 0.5)], "Ar": [(0.31, 0.13, 0)]}, (5.0, 5.0, 3.4, 90, 90, 90)),
    "tetragonal 4/mmm": ("P 42/m n m", {"Ti": [(0, 0, 0)], "O": [(0.305, 0.305, 0)]}, (4.59, 4.59, 2.96, 90, 90, 90)),
    "trigonal -3": ("P -3", {"Fe": [(0, 0, 0)], "Ar": [(0.35, 0.1, 0.25)]}, (5.2, 5.2, 5.3, 90, 90, 120)),
    "trigonal -3m": ("P -3 m 1", {"Mg": [(0, 0, 0)], "O": [(1 / 3, 2 / 3, 0.22)]}, (3.14, 3.14, 4.2, 90, 90, 120)),
    "hexagonal": ("P 63/m", {"Ar": [(0.3, 0.1, 0.25)]}, (5.3, 5.3, 3.9, 90, 90, 120)),
    "cubic": ("P a -3", {"Fe": [(0, 0, 0)], "S": [(0.385, 0.385, 0.385)]}, (5.42, 5.42, 5.42, 90, 90, 90)),
}
# Further crystals, which test special cases of the axes.
SPECIAL = {
    "trigonal, two-fold axes between the edges": (
        "trigonal -3m", ("P -3 1 m", {"Fe": [(0, 0, 0)], "Ar": [(0.35, 0, 0.3)]}, (5.1, 5.1, 5.3, 90, 90, 120)),
    ),
    "rhombohedral": ("trigonal -3m", ("R -3 m", {"Sb": [(0, 0, 0.2336)]}, (4.307, 4.307, 11.273, 90, 90, 120))),
    "hexagonal, 6/mmm": ("hexagonal", ("P 63/m m c", {"Ti": [(1 / 3, 2 / 3, 0.25)]}, (3, 3, 4.7, 90, 90, 120))),
    "cubic, m-3m": ("cubic", ("F d -3 m", {"Si": [(0, 0, 0)]}, (5.43, 5.43, 5.43, 90, 90, 90))),
}  # fmt: skip


def structure(name: str) -> Atoms:
    """The crystal of a Laue class, or one of `SPECIAL`, in its conventional cell."""
    group, sites, parameters = _CRYSTALS[name] if name in _CRYSTALS else SPECIAL[name][1]
    symbols = [symbol for symbol, places in sites.items() for _ in places]
    return crystal(symbols, sum(sites.values(), []), spacegroup=group, cellpar=parameters)


class Bonds(Calculator):
    """Harmonic bonds k/2 (r - r0)^2 to all neighbours in a crystal, with r0 the present length of the bond.

    So the crystal is at equilibrium. k is 100 eV/Å^2 (2 Å / r0)^6.
    """

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, atoms: Atoms, cutoff: float):
        super().__init__()
        self.i, self.j, shifts, self.length, self.bonds = neighbor_list("ijSdD", atoms, cutoff)
        self.shifts, self.stiffness = shifts, 100 * (2.0 / self.length) ** 6
        # atoms given to the calculator may be wrapped: they are unwrapped to be near these positions
        self.origin = atoms.get_scaled_positions(wrap=False)
        self.volume = atoms.get_volume()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        scaled = atoms.get_scaled_positions(wrap=False)
        scaled = self.origin + (scaled - self.origin + 0.5) % 1 - 0.5
        vectors = (scaled[self.j] + self.shifts - scaled[self.i]) @ atoms.cell.array
        r = np.linalg.norm(vectors, axis=1)
        pull = (self.stiffness * (r - self.length) / r)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, self.i, pull)
        virial = 0.5 * vectors.T @ pull
        self.results = {"energy": 0.25 * np.sum(self.stiffness * (r - self.length) ** 2), "forces": forces}
        self.results["stress"] = to_voigt((virial + virial.T) / 2) / atoms.get_volume()

    def stiffness_tensors(self) -> tuple[np.ndarray, np.ndarray]:
        """Elastic stiffness (6, 6) in eV/Å^3 with relaxed atoms, and with clamped atoms, in the axes of the cell.

        A bond along n stretches by r0 n.eta.n + n.(u_j - u_i), so the energy is a quadratic form in strain and
        displacements; relaxed displacements minimize it.
        """
        n, size = self.bonds / self.length[:, None], 3 * (self.i.max() + 1)
        strain = self.length[:, None] * np.einsum("bi,kij,bj->bk", n, from_voigt(np.diag([1, 1, 1, 0.5, 0.5, 0.5])), n)
        moved = np.zeros((len(n), size))
        for axis in range(3):
            np.add.at(moved, (np.arange(len(n)), 3 * self.j + axis), n[:, axis])
            np.add.at(moved, (np.arange(len(n)), 3 * self.i + axis), -n[:, axis])
        weight = self.stiffness / 2 / self.volume  # every bond is listed twice
        clamped, mixed, curvature = (a.T @ (weight[:, None] * b) for a, b in
                                     ((strain, strain), (strain, moved), (moved, moved)))  # fmt: skip
        return clamped - mixed @ np.linalg.pinv(curvature, rcond=1e-10) @ mixed.T, clamped
