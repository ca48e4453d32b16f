"""Phonons of a crystal: dispersion, density of states and heat capacity, with phonopy.

`run` takes the force constants of the crystal at 0 K. `effective` takes those that fit the forces in molecular dynamics
best, which are effective ones of its temperature. Frequencies are in THz; imaginary ones are given as negative numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase.units
import jax
import numpy as np
from ase import Atoms

from fusedff.properties.static import force_constants
from fusedff.runtime import progress

TEMPERATURES = tuple(float(t) for t in range(0, 1001, 50))  # K
IMAGINARY = 0.05  # THz; smaller imaginary frequencies are rounding errors of acoustic modes near Gamma


@dataclass(frozen=True)
class Phonons:
    """Dispersion along the standard path of the lattice, density of states and heat capacity at constant volume.

    The path is that of `ase.cell.Cell.bandpath` (Setyawan & Curtarolo, Comput. Mater. Sci. 49, 299 (2010)).
    """

    qpoints: np.ndarray  # (n_path, 3) along the path, in reciprocal lattice vectors of the primitive cell
    distances: np.ndarray  # (n_path,) 1/Å, from the start of the path (with 2 pi)
    ticks: tuple[tuple[float, str], ...]  # `distances` of the special points of the path, and their names
    special_points: dict[str, np.ndarray]  # name -> (3,), as `qpoints`
    frequencies: np.ndarray  # (n_path, n_branches) THz, ascending
    dos_frequencies: np.ndarray  # (n_dos,) THz
    dos: np.ndarray  # (n_dos,) states per THz and atom: its integral is 3
    temperatures: np.ndarray  # (n_temperatures,) K
    heat_capacity: np.ndarray  # (n_temperatures,) k_B per atom; nan for an unstable crystal
    force_constants: np.ndarray  # (n_primitive, n_supercell, 3, 3) eV/Å^2, in phonopy's order of atoms
    repeats: tuple[int, int, int]
    mesh: float
    displacement: float | None = None  # Å, of finite displacements
    n_snapshots: int | None = None  # of an effective fit, whose standard errors, from `blocks` parts, follow
    blocks: int | None = None
    frequencies_stderr: np.ndarray | None = None
    dos_stderr: np.ndarray | None = None
    heat_capacity_stderr: np.ndarray | None = None

    @property
    def stable(self) -> bool:
        """Whether no mode of the density of states and the path has an imaginary frequency."""
        return bool(min(self.frequencies.min(), self.dos_frequencies[self.dos > 0].min()) > -IMAGINARY)

    def at(self, label: str) -> np.ndarray:
        """Frequencies (n_branches,) in THz at a special point of the path, e.g. 'G' (Gamma).

        Raises ValueError for a point that is not on the path.
        """
        if label not in self.special_points:
            raise ValueError(f"{label!r} is no special point of this path; it has {', '.join(self.special_points)}")
        return self.frequencies[np.linalg.norm(self.qpoints - self.special_points[label], axis=1).argmin()]

    def as_dict(self) -> dict:
        """Plain data for JSON, without the force constants."""
        errors = {
            "frequencies_stderr_THz": self.frequencies_stderr,
            "dos_stderr_per_THz_per_atom": self.dos_stderr,
            "heat_capacity_stderr_kB_per_atom": self.heat_capacity_stderr,
        }
        return {
            "qpoints": self.qpoints.tolist(),
            "distances_per_A": self.distances.tolist(),
            "ticks": [list(tick) for tick in self.ticks],
            "special_points": {label: point.tolist() for label, point in self.special_points.items()},
            "frequencies_THz": self.frequencies.tolist(),
            "dos_frequencies_THz": self.dos_frequencies.tolist(),
            "dos_per_THz_per_atom": self.dos.tolist(),
            "temperatures_K": self.temperatures.tolist(),
            "heat_capacity_kB_per_atom": self.heat_capacity.tolist(),
            "stable": self.stable,
            "repeats": list(self.repeats),
            "mesh_A": self.mesh,
            "displacement_A": self.displacement,
            "n_snapshots": self.n_snapshots,
            "blocks": self.blocks,
            **{name: error.tolist() for name, error in errors.items() if error is not None},
        }


def run(
    atoms: Atoms,
    calculator,
    repeats: tuple[int, int, int] = (4, 4, 3),
    displacement: float = 0.01,
    temperatures: Sequence[float] = TEMPERATURES,
    mesh: float = 50.0,
    name: str | None = "phonons",
) -> Phonons:
    """Phonons of a crystal from the forces after small displacements (Å) in a supercell.

    `atoms` is the relaxed unit cell; a supercell of `repeats` should measure twice the cut-off or more. `mesh` (Å) sets
    the density of the mesh for the density of states: there are mesh / a points along a reciprocal vector 1 / a.
    Heat capacities are those at `temperatures` (K). `name` shows progress.
    """
    force_constants.kelvin(temperatures)  # refused before the work
    lattice = force_constants.finite_displacements(atoms, calculator, repeats, displacement, name)
    return replace(_spectrum(lattice, repeats, temperatures, mesh), displacement=displacement)


def effective(
    atoms: Atoms,
    repeats: tuple[int, int, int],
    displacements: np.ndarray,
    forces: np.ndarray,
    temperatures: Sequence[float] = TEMPERATURES,
    mesh: float = 50.0,
    blocks: int = 5,
    name: str | None = "effective phonons",
) -> Phonons:
    """Effective phonons of a temperature: of the harmonic crystal that fits the forces in molecular dynamics best.

    `displacements` from the sites (Å) and `forces` (eV/Å), both (n_snapshots, n_atoms, 3), have the atoms in the order
    of `atoms * repeats`, which is that of `crystals.supercell` and of trajectories of it (forces: `observe_forces`). A
    structure that is unstable at 0 K but stable at the temperature of the snapshots has real frequencies here (Hellman
    et al., Phys. Rev. B 84, 180301 (2011)). Standard errors are those of a jackknife over `blocks` consecutive parts.
    Raises ValueError for arrays of another shape, values that are not finite, displacements as large as the distance
    between atoms (positions, or wrapped ones), or fewer snapshots than blocks.
    """
    displacements, forces = np.asarray(displacements, float), np.asarray(forces, float)
    n_atoms = len(atoms) * int(np.prod(repeats))
    for what, values in (("displacements", displacements), ("forces", forces)):
        if values.ndim != 3 or values.shape[1:] != (n_atoms, 3) or len(values) != len(displacements):
            raise ValueError(
                f"{what} have shape {values.shape}; {tuple(repeats)} cells of {len(atoms)} atoms need "
                f"({len(displacements)}, {n_atoms}, 3)"
            )
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values).all((1, 2)))[0])
            raise ValueError(f"{what} of snapshot {bad} are not finite; drop what follows an exploding trajectory")
    far = np.linalg.norm(displacements - displacements.mean(1, keepdims=True), axis=-1).max(initial=0)
    if far > (spacing := np.cbrt(atoms.get_volume() / len(atoms))):
        raise ValueError(
            f"displacements are up to {far:.3g} Å where atoms are {spacing:.3g} Å apart; give displacements from the "
            "sites, no positions and nothing wrapped"
        )
    if not 1 < blocks <= len(displacements):
        raise ValueError(f"{len(displacements)} snapshots cannot be cut into {blocks} blocks; sample for longer")
    lattice = force_constants.lattice_of(atoms, repeats)
    order = force_constants.order(lattice, atoms * repeats)

    def fit(rows):
        # from the mean of the snapshots: where symmetry leaves a coordinate free, it differs from the given sites
        around = (values[rows] - values[rows].mean(0) for values in (displacements, forces))
        force_constants.fit(lattice, *(values[:, order] for values in around))

    part = np.arange(len(displacements)) * blocks // len(displacements)
    with progress.bar(name, blocks + 1) as report:
        fit(part >= 0)
        found = _spectrum(lattice, repeats, temperatures, mesh)
        report()
        left_out = []
        for block in range(blocks):
            fit(part != block)
            left_out.append(_spectrum(lattice, repeats, temperatures, mesh, found.dos_frequencies))
            report()
    spread = np.sqrt(blocks - 1)
    errors = {
        f"{key}_stderr": spread * np.std([getattr(one, key) for one in left_out], axis=0)
        for key in ("frequencies", "dos", "heat_capacity")
    }
    return replace(found, n_snapshots=len(displacements), blocks=blocks, **errors)


def observe_forces(potential, system, near, evaluation) -> jax.Array:
    """Forces (n_cells, 3 n) in eV/Å as observable of a `langevin.Simulation`; `effective` is fitted to them."""
    return evaluation.forces.reshape(system.n_cells, -1)


def _spectrum(lattice, repeats, temperatures, mesh, dos_frequencies=None):
    temperatures = force_constants.kelvin(temperatures)
    path = force_constants.to_ase(lattice.primitive).cell.bandpath(density=40)
    distances, where, labels = path.get_linear_kpoint_axis()
    special = {label: path.special_points[label] for label in dict.fromkeys(labels)}
    frequencies = lattice.run_qpoints(path.kpts).frequencies
    sampled = lattice.run_mesh(mesh)
    if dos_frequencies is None:
        margin = 0.02 * sampled.frequencies.max()
        dos_frequencies = np.linspace(min(sampled.frequencies.min(), 0), sampled.frequencies.max() + margin, 301)
    low, high = dos_frequencies[[0, -1]]
    dos = lattice.run_total_dos(freq_min=low, freq_max=high, freq_pitch=(high - low) / (len(dos_frequencies) - 1))
    heat = lattice.run_thermal_properties(temperatures=temperatures, exclude_gamma_acoustic=True).heat_capacity
    n_atoms = len(lattice.primitive)
    unstable = min(sampled.frequencies.min(), frequencies.min()) < -IMAGINARY
    return Phonons(
        path.kpts, distances, tuple(zip(where.tolist(), labels, strict=True)), special, frequencies,
        dos_frequencies, dos.dos / n_atoms, temperatures,
        np.full(len(heat), np.nan) if unstable else heat / n_atoms / (ase.units._k * ase.units._Nav),
        lattice.force_constants, tuple(repeats), mesh,
    )  # fmt: skip
