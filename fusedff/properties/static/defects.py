"""Vacancies, surfaces and stacking faults of elemental crystals at 0 K, for any ASE calculator.

Crystals must have the lattice constants of the calculator, which `relax.equilibrium` finds. With any others the energy
of the defect would contain strain energy of the crystal.
"""

from dataclasses import asdict, dataclass

import ase.build
import ase.units
import numpy as np
from ase import Atoms

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.static.relax import DEFAULT, RelaxationConfig, relax_ions, relax_normal, with_calculator

MIN_VACUUM = 3.0  # Å
_J_PER_M2 = ase.units.J / ase.units.m**2  # eV/Å^2 per J/m^2

# Facet -> builder of ase.build, and how many layers it takes until the stacking repeats.
_FACETS = {
    "fcc": {"111": (ase.build.fcc111, 3), "100": (ase.build.fcc100, 2), "110": (ase.build.fcc110, 2)},
    "bcc": {"110": (ase.build.bcc110, 2), "100": (ase.build.bcc100, 2), "111": (ase.build.bcc111, 3)},
    "hcp": {"0001": (ase.build.hcp0001, 2), "10-10": (ase.build.hcp10m10, 4)},
}
_FAULTS = {("hcp", "basal"): "0001", ("hcp", "prismatic"): "10-10", ("fcc", "intrinsic"): "111"}


@dataclass(frozen=True)
class Vacancy:
    """Formation energy of a vacancy at constant volume, E(N - 1) - (N - 1)/N E(N)."""

    formation_energy: float  # eV, ions relaxed
    unrelaxed_energy: float  # eV, the other atoms left on their sites
    n_atoms: int  # of the perfect supercell
    crystal: Crystal
    repeats: tuple[int, int, int]
    relaxed: Atoms  # the structure, with the calculator
    relaxation: RelaxationConfig

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "formation_energy_eV": self.formation_energy,
            "unrelaxed_energy_eV": self.unrelaxed_energy,
            "n_atoms": self.n_atoms,
            **_settings(self),
        }


@dataclass(frozen=True)
class Surface:
    """Energy of one surface, (E(slab) - N e(bulk)) / 2 A, in J/m^2."""

    energy_j_per_m2: float  # ions relaxed
    unrelaxed_j_per_m2: float  # cut and not relaxed
    facet: str
    area: float  # Å^2, of one face of the slab
    crystal: Crystal
    layers: int
    vacuum: float  # Å
    relaxed: Atoms  # the structure, with the calculator
    relaxation: RelaxationConfig

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "energy_J_per_m2": self.energy_j_per_m2,
            "unrelaxed_J_per_m2": self.unrelaxed_j_per_m2,
            "facet": self.facet,
            "area_A2": self.area,
            "layers": self.layers,
            "vacuum_A": self.vacuum,
            **_settings(self),
        }


@dataclass(frozen=True)
class StackingFault:
    """Energy of a stacking fault per area, in mJ/m^2."""

    energy_mj_per_m2: float  # planes relaxed along the normal
    unrelaxed_mj_per_m2: float
    fault: str
    shift: np.ndarray  # (3,) Å, of one half of the crystal against the other; z is the normal
    area: float  # Å^2
    crystal: Crystal
    layers: int
    relaxed: Atoms  # the structure, with the calculator
    relaxation: RelaxationConfig

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "energy_mJ_per_m2": self.energy_mj_per_m2,
            "unrelaxed_mJ_per_m2": self.unrelaxed_mj_per_m2,
            "fault": self.fault,
            "shift_A": self.shift.tolist(),
            "area_A2": self.area,
            "layers": self.layers,
            **_settings(self),
        }


def vacancy(
    crystal: Crystal,
    calculator,
    repeats: tuple[int, int, int] = (4, 4, 3),
    relaxation: RelaxationConfig = DEFAULT,
    name: str | None = "vacancy",
) -> Vacancy:
    """Formation energy of a vacancy (of the first atom) in a supercell of the crystal, ions relaxed.

    Raises NotRelaxedError, and ValueError for a compound.
    """
    perfect = crystals.supercell(crystal, repeats)
    if len(set(perfect.numbers)) > 1:
        raise ValueError(f"{crystal.symbol} is a compound, whose vacancies depend on a reservoir; give an element")
    n_atoms, energy = len(perfect), _energy(perfect, calculator)
    del perfect[0]
    bulk = (n_atoms - 1) / n_atoms * energy
    unrelaxed = _energy(perfect, calculator) - bulk
    relaxed = relax_ions(perfect, calculator, relaxation, name)
    energies = (relaxed.get_potential_energy() - bulk, unrelaxed)
    return Vacancy(*map(float, energies), n_atoms, crystal, tuple(repeats), relaxed, relaxation)


def surface(
    crystal: Crystal,
    facet: str,
    calculator,
    layers: int = 12,
    vacuum: float = 10.0,
    relaxation: RelaxationConfig = DEFAULT,
    name: str | None = "surface",
) -> Surface:
    """Energy of a low-index surface from a slab of `layers` atomic planes with `vacuum` (Å) on either side.

    Facets: fcc 111, 100, 110; bcc 110, 100, 111; hcp 0001 (basal) and 10-10 (prismatic, between the planes that are
    widest apart). Atoms relax in the 1 x 1 cell of the surface; reconstructions with larger cells are not found. Raises
    NotRelaxedError, and ValueError for another facet, a number of layers that does not fit its stacking or too little
    vacuum.
    """
    if not vacuum >= MIN_VACUUM:
        raise ValueError(
            f"vacuum = {vacuum:g} Å on either side: the faces of the slab would act on each other; give {MIN_VACUUM:g} "
            "Å or more"
        )
    slab = _block(crystal, facet, layers)
    slab.center(vacuum, axis=2)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    cell = crystals.unit_cell(crystal)
    bulk = len(slab) * _energy(cell, calculator) / len(cell)
    relaxed = relax_ions(slab, calculator, relaxation, name and f"{name} {facet}")
    energies = (relaxed.get_potential_energy(), _energy(slab, calculator))
    energies = ((energy - bulk) / (2 * area) / _J_PER_M2 for energy in energies)
    return Surface(*map(float, energies), facet, float(area), crystal, layers, vacuum, relaxed, relaxation)


def stacking_fault(
    crystal: Crystal,
    fault: str,
    calculator,
    layers: int = 12,
    relaxation: RelaxationConfig = DEFAULT,
    name: str | None = "stacking fault",
) -> StackingFault:
    """Energy of a stacking fault: hcp basal (I2) or prismatic, fcc intrinsic; planes relaxed along their normal.

    The cell of a periodic block of `layers` planes is sheared by the shift of the fault, while the atoms stay in place:
    the crystal then has one fault every `layers` planes, and no surfaces. In the basal and the fcc fault, close-packed
    planes shift from one kind of hollow sites of the plane below to the other. In the prismatic fault, the {10-10}
    planes that are widest apart shift by a/2 along <11-20>, where the energy is stationary by symmetry. Raises
    NotRelaxedError, and ValueError for another fault or a number of layers that does not fit its stacking.
    """
    crystals.require_crystal(crystal)
    if (crystal.structure, fault) not in _FAULTS:
        known = ", ".join(f"{structure} {which}" for structure, which in _FAULTS)
        raise ValueError(f"stacking fault {fault!r} of {crystal.structure} is unknown; there are {known}")
    perfect = _block(crystal, _FAULTS[crystal.structure, fault], layers)
    shift = np.array([crystal.a / 2, 0, 0]) if fault == "prismatic" else _to_the_other_hollow(perfect)
    faulted = perfect.copy()
    faulted.cell[2] += shift
    area = np.linalg.norm(np.cross(perfect.cell[0], perfect.cell[1]))
    relaxed = relax_normal(faulted, calculator, relaxation, name and f"{name} {fault}")
    energy, energies = _energy(perfect, calculator), (relaxed.get_potential_energy(), _energy(faulted, calculator))
    energies = (1e3 * (e - energy) / area / _J_PER_M2 for e in energies)
    return StackingFault(*map(float, energies), fault, shift, float(area), crystal, layers, relaxed, relaxation)


def _block(crystal: Crystal, facet: str, layers: int) -> Atoms:
    """Crystal of `layers` planes along z, periodic in all directions; it is cut where planes are widest apart."""
    crystals.require_crystal(crystal)
    facets = _FACETS.get(crystal.structure, {})
    if not facets:
        raise ValueError(f"surfaces and faults of {crystal.structure} are not known; there are {', '.join(_FACETS)}")
    if facet not in facets:
        raise ValueError(f"facet {facet!r} of {crystal.structure} is unknown; use one of {', '.join(facets)}")
    build, period = facets[facet]
    if layers < 2 * period or layers % period:
        raise ValueError(
            f"{layers} layers of {crystal.structure} {facet}: the stacking repeats after {period}, so give a multiple "
            f"of that, {2 * period} or more"
        )
    lattice = {"a": crystal.a} if crystal.c is None else {"a": crystal.a, "c": crystal.c}
    if facet != "10-10":
        return build(crystal.symbol, (1, 1, layers), periodic=True, **lattice)
    block = build(crystal.symbol, (1, 2, layers // 2), periodic=True, **lattice)  # counts pairs of planes
    height = block.positions[:, 2]
    height[height < 1e-6 * crystal.a] += block.cell[2, 2]  # the bottom plane on top: the wide gap comes to the cut
    block.positions[:, 2] = height - height.min()
    return block


def _to_the_other_hollow(block):
    """Shift in the plane (3,) that takes the plane on top of `block` from the hollows it lies in to the others.

    If the plane above is at +p relative to the atoms below, in one kind of hollow sites, the other kind is at -p.
    """
    height = block.positions[:, 2]
    across = block.positions[height.argmax()] - block.positions[height.argmin()]
    plane = block.cell.copy()
    plane[2] = (0, 0, 1)
    fractions = plane.scaled_positions(across * (1, 1, 0))
    candidates = [plane.cartesian_positions(np.array([-fractions[0] + i, -fractions[1] + j, 0]))
                  for i in (-1, 0, 1) for j in (-1, 0, 1)]  # fmt: skip
    return min(candidates, key=np.linalg.norm)


def _energy(atoms, calculator):
    return with_calculator(atoms, calculator).get_potential_energy()


def _settings(result):
    settings = {"crystal": asdict(result.crystal), "relaxation": asdict(result.relaxation)}
    return settings | ({"repeats": list(result.repeats)} if hasattr(result, "repeats") else {})
