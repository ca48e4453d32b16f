"""Phonons with phonopy: of a crystal at 0 K, of its volume (Grueneisen), and effective ones at a temperature.

Force constants come from displacements and forces by one least-squares fit with symfc (Seko & Togo, Phys. Rev. B 110,
214302 (2024)), be they the few displacements that the symmetry of a crystal at 0 K leaves, or snapshots of molecular
dynamics. Frequencies are in THz; imaginary ones are shown as negative.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import ase.units
import jax
import numpy as np
from ase import Atoms

from fusedff.properties.static.relax import Relaxation, relax_crystal
from fusedff.runtime import extras, progress
from fusedff.units import KB

try:
    from phonopy import Phonopy
    from phonopy.api_gruneisen import PhonopyGruneisen
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix
except ImportError:
    extras.require("phonons", "phonopy", "symfc")
    raise

TEMPERATURES = tuple(float(t) for t in range(0, 1001, 50))  # K
_THZ = 1e12 * ase.units._hplanck / ase.units._e  # eV, a quantum of 1 THz
_STILL = 0.05  # THz; below it, negative frequencies are rounding (of acoustic modes near Gamma)


@dataclass(frozen=True)
class Phonons:
    """Dispersion along the usual path of the lattice, density of states and heat capacity at constant volume."""

    qpoints: np.ndarray  # (n_path, 3) along the path, in reciprocal lattice vectors of the primitive cell
    distances: np.ndarray  # (n_path,) 1/Å, from the start of the path (with 2 pi)
    ticks: tuple[tuple[float, str], ...]  # where on `distances` the path meets special points, and their names
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
        return bool(min(self.frequencies.min(), self.dos_frequencies[self.dos > 0].min()) > -_STILL)

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


@dataclass(frozen=True)
class Gruneisen:
    """Mode Grueneisen parameters -dln(frequency)/dln(volume) on a mesh, and their mean."""

    frequencies: np.ndarray  # (n_qpoints, n_branches) THz
    parameters: np.ndarray  # (n_qpoints, n_branches); nan for the acoustic modes at Gamma
    weights: np.ndarray  # (n_qpoints,), of sum 1
    temperatures: np.ndarray  # (n_temperatures,) K
    mean: np.ndarray  # (n_temperatures,), weighted with the heat capacity of every mode; nan at 0 K
    classical_mean: float  # all modes alike: the limit of high temperature
    volume_strain: float
    displacement: float  # Å
    repeats: tuple[int, int, int]
    mesh: float
    relaxation: Relaxation = field(default_factory=Relaxation)

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "frequencies_THz": self.frequencies.tolist(),
            "parameters": self.parameters.tolist(),
            "weights": self.weights.tolist(),
            "temperatures_K": self.temperatures.tolist(),
            "mean": self.mean.tolist(),
            "classical_mean": self.classical_mean,
            "volume_strain": self.volume_strain,
            "displacement_A": self.displacement,
            "repeats": list(self.repeats),
            "mesh_A": self.mesh,
            "relaxation": asdict(self.relaxation),
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

    `atoms` is the unit cell, at rest; `repeats` of it should measure twice the cut-off or more. `mesh` (Å) sets the
    density of the mesh for the density of states: there are mesh / a points along a reciprocal vector 1 / a.
    """
    lattice = _finite_displacements(atoms, calculator, repeats, displacement, name)
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
    """Phonons of the harmonic crystal that fits the forces on snapshots of molecular dynamics best.

    `displacements` from the sites (Å) and `forces` (eV/Å), both (n_snapshots, n_atoms, 3), are of `atoms * repeats` in
    that order: that of `crystals.supercell`, hence of this project's dynamics (forces: `observe_forces`). A structure
    that is unstable at 0 K but not at the temperature of the snapshots has real frequencies here (Hellman et al., Phys.
    Rev. B 84, 180301 (2011)). Standard errors: jackknife over `blocks` consecutive parts. Raises ValueError for arrays
    of another shape, values that are not finite, or fewer snapshots than blocks.
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
    if not 1 < blocks <= len(displacements):
        raise ValueError(f"{len(displacements)} snapshots cannot be cut into {blocks} blocks; sample for longer")
    lattice = _phonopy(atoms, repeats)
    order = _order(lattice, atoms * repeats)

    def fit(rows):
        _fit(lattice, displacements[rows][:, order], forces[rows][:, order])

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


def gruneisen(
    atoms: Atoms,
    calculator,
    repeats: tuple[int, int, int] = (4, 4, 3),
    volume_strain: float = 0.01,
    displacement: float = 0.01,
    temperatures: Sequence[float] = TEMPERATURES,
    mesh: float = 50.0,
    relaxation: Relaxation | None = None,
    name: str | None = "Grueneisen parameters",
) -> Gruneisen:
    """Mode Grueneisen parameters of a crystal at rest, from phonons at (1 +- volume_strain) times its volume.

    The shape of the cell and the ions are relaxed at either volume. Raises NotRelaxedError, and ValueError for a
    crystal with imaginary frequencies, whose thermal expansion harmonic phonons cannot say.
    """
    relaxation, lattices = relaxation or Relaxation(), []
    for sign in (0, 1, -1):
        frame = atoms.copy()
        frame.set_cell(atoms.cell.array * (1 + sign * volume_strain) ** (1 / 3), scale_atoms=True)
        if sign:
            frame = relax_crystal(frame, calculator, relaxation, fixed_volume=True)
        which = name and f"{name}, volume {1 + sign * volume_strain:g}"
        lattices.append(_finite_displacements(frame, calculator, repeats, displacement, which))
    modes = PhonopyGruneisen(*lattices)
    lattices[0].run_mesh(mesh)
    modes.set_mesh(lattices[0].mesh.mesh_numbers, is_gamma_center=True)
    _, counts, frequencies, _, parameters = modes.get_mesh()  # ty: ignore[not-iterable]  # it was set
    if frequencies.min() < -_STILL:
        raise ValueError(
            f"{atoms.get_chemical_formula()}: lowest frequency {frequencies.min():.2f} THz is imaginary; Grueneisen "
            "parameters need a stable crystal, relax it or take another structure"
        )
    moving = frequencies > _STILL
    weights = counts / counts.sum()
    at = np.asarray(temperatures, float)
    mean = [_mean(parameters, moving, weights, _mode_heat_capacity(frequencies, moving, t)) for t in at]
    return Gruneisen(
        frequencies, np.where(moving, parameters, np.nan), weights, at, np.array(mean),
        _mean(parameters, moving, weights, np.ones_like(frequencies)), volume_strain, displacement, tuple(repeats),
        mesh, relaxation,
    )  # fmt: skip


def observe_forces(potential, system, near, evaluation) -> jax.Array:
    """Forces (n_cells, 3 n) in eV/Å, as observable of a `dynamics.Simulation`: what `effective` is fitted to."""
    return evaluation.forces.reshape(system.n_cells, -1)


def _mean(parameters, moving, weights, heat):
    heat = np.where(moving, heat, 0) * weights[:, None]
    return float((heat * np.where(moving, parameters, 0)).sum() / heat.sum()) if heat.sum() > 0 else float("nan")


def _mode_heat_capacity(frequencies, moving, temperature):
    """Heat capacities in k_B: (x / 2 sinh(x/2))^2 with x the quantum over kT."""
    if temperature == 0:
        return np.zeros_like(frequencies)
    half = np.where(moving, frequencies, 1) * _THZ / (2 * KB * temperature)
    return (half / np.sinh(np.minimum(half, 300))) ** 2


def _phonopy(atoms, repeats):
    kinds = _kinds(atoms)
    cell = PhonopyAtoms(
        symbols=kinds, cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(), masses=atoms.get_masses(),
    )  # fmt: skip
    isotopes = kinds != atoms.get_chemical_symbols()  # of which phonopy's guess knows nothing
    return Phonopy(cell, np.diag(repeats), primitive_matrix=np.eye(3) if isotopes else guess_primitive_matrix(cell))


def _kinds(atoms):
    """Chemical symbols, numbered where an element has several masses: isotopes are not equivalent by symmetry."""
    symbols, masses = np.array(atoms.get_chemical_symbols()), atoms.get_masses()
    kinds = symbols.astype(object)
    for symbol in np.unique(symbols):
        different, which = np.unique(masses[symbols == symbol].round(6), return_inverse=True)
        if len(different) > 1:
            kinds[symbols == symbol] = [f"{symbol}{n + 1}" for n in which]
    return kinds.tolist()


def _to_ase(cell):
    symbols = [symbol.rstrip("0123456789") for symbol in cell.symbols]
    return Atoms(symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, masses=cell.masses, pbc=True)


def _order(lattice, supercell):
    """Which atom of `supercell` each atom of phonopy's supercell is."""
    apart = lattice.supercell.scaled_positions[:, None] - supercell.get_scaled_positions()
    return np.linalg.norm(apart - np.rint(apart), axis=-1).argmin(1)


def _fit(lattice, displacements, forces):
    lattice.dataset = {"displacements": displacements, "forces": forces}
    lattice.produce_force_constants(fc_calculator="symfc", calculate_full_force_constants=False)


def _finite_displacements(atoms, calculator, repeats, displacement, name):
    lattice = _phonopy(atoms, repeats)
    lattice.generate_displacements(distance=displacement)
    sites = _to_ase(lattice.supercell).positions
    moved, forces = [], []
    with progress.bar(name, len(lattice.supercells_with_displacements)) as report:
        for cell in lattice.supercells_with_displacements:
            frame = _to_ase(cell)
            moved.append(frame.positions - sites)
            frame.calc = calculator
            forces.append(frame.get_forces())
            report()
    _fit(lattice, np.array(moved), np.array(forces))
    return lattice


def _spectrum(lattice, repeats, temperatures, mesh, dos_frequencies=None):
    path = _to_ase(lattice.primitive).cell.bandpath(density=40)
    distances, where, labels = path.get_linear_kpoint_axis()
    special = {label: path.special_points[label] for label in dict.fromkeys(labels)}
    frequencies = lattice.run_qpoints(path.kpts).frequencies
    sampled = lattice.run_mesh(mesh)
    if dos_frequencies is None:
        margin = 0.02 * sampled.frequencies.max()
        dos_frequencies = np.linspace(min(sampled.frequencies.min(), 0), sampled.frequencies.max() + margin, 301)
    low, high = dos_frequencies[[0, -1]]
    dos = lattice.run_total_dos(freq_min=low, freq_max=high, freq_pitch=(high - low) / (len(dos_frequencies) - 1))
    temperatures = np.asarray(temperatures, float)
    heat = lattice.run_thermal_properties(temperatures=temperatures, exclude_gamma_acoustic=True).heat_capacity
    n_atoms = len(lattice.primitive)
    unstable = min(sampled.frequencies.min(), frequencies.min()) < -_STILL
    return Phonons(
        path.kpts, distances, tuple(zip(where.tolist(), labels, strict=True)), special, frequencies,
        dos_frequencies, dos.dos / n_atoms, temperatures,
        np.full(len(heat), np.nan) if unstable else heat / n_atoms / (ase.units._k * ase.units._Nav),
        lattice.force_constants, tuple(repeats), mesh,
    )  # fmt: skip
