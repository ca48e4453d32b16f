"""Classical free energy of a crystal, by thermodynamic integration from an Einstein crystal, and its enthalpy.

Atoms on independent springs (an Einstein crystal) have a known free energy. On the way to the potential U, with
U_l = l U + (1 - l) sum k/2 |r - site|^2 (without the energy U0 at the sites), F changes by the integral over l from 0
to 1 of the mean of dU_l/dl (Frenkel & Ladd, J. Chem. Phys. 81, 3188 (1984)); all l, as nodes of Gauss and Legendre, run
in one batch. The centre of mass is fixed for all l, so that the integrand is finite at both ends.

A cell of N atoms then has 3 (N - 1) degrees of freedom. Thermal parts of energies are therefore divided by N - 1, the
energy at the sites by N; for harmonic atoms the energy per atom is then that of an infinite crystal. The free energy
lacks the waves that are longer than the cell, an error of order kT / N (Polson et al., J. Chem. Phys. 112, 5339
(2000)): in harmonic Lennard-Jones crystals of 64 atoms it is 0.06 kT in fcc and in hcp, and 0.003 kT in their
difference. Phases that differ more in their sound velocities need cells of two sizes, and an extrapolation to
1 / N = 0. Others add the translation of the centre of mass and divide by N. This has the same limit, and differs from
the above by the same amount in all phases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ase.units
import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.geometry import neighbors, systems
from fusedff.potential import Potential
from fusedff.properties.thermal.config import SolidConfig
from fusedff.runtime import limits
from fusedff.simulation import elasticity
from fusedff.simulation.cells import SimulationCells, Springs, replicate
from fusedff.simulation.sampling import sample_crystal
from fusedff.units import KB

HBAR = ase.units._hbar * ase.units.J * ase.units.s  # in units of eV, Å and amu
STRAYED = 0.1  # of the distance between neighbours


@dataclass(frozen=True, kw_only=True)
class FreeEnergyConfig(SolidConfig):
    """Settings: number of `nodes` of the integration over l, and the `spring` constant.

    Eight nodes integrate a mode of the crystal to 0.001 kT if its force constant is between a twentieth of the spring
    constant and twenty times it.
    """

    nodes: int = 8
    spring: float | None = None  # eV/Å^2; None: 3 kT over the mean squared displacement, for every element

    def __post_init__(self):
        super().__post_init__()
        limits.require(self, count=["nodes"], positive=["spring"] if self.spring is not None else [])
        limits.between(self, "nodes", 2, 64, "give 6 to 12")


class Sampled(NamedTuple):
    """Trajectories of a crystal at all temperatures, and along the path of l at the one in the middle."""

    frames: tuple[Atoms, ...]  # (n_temperatures,), at rest
    temperature: np.ndarray  # (n_temperatures,) K
    static: np.ndarray  # (n_temperatures,) eV, total energies of the frames
    nodes: np.ndarray  # (n_nodes,) l, the share of the potential
    weights: np.ndarray  # (n_nodes,) of the quadrature, of sum 1
    springs: np.ndarray  # (n,) eV/Å^2
    cells: SimulationCells  # temperatures, then nodes, each times the replicas
    observed: np.ndarray  # (n_snapshots, n_cells, 8): U - U0 and energy of the springs, eV; configurational stress

    @property
    def middle(self) -> int:
        """Index of the temperature at which the free energy is found by integration along the path."""
        return len(self.temperature) // 2


class Energies(NamedTuple):
    """Free energy and enthalpy per atom, eV, and the integrand of the path."""

    free_energy: float  # at the temperature in the middle
    enthalpy: np.ndarray  # (n_temperatures,) of zero stress
    integrand: np.ndarray  # (n_nodes,)


def einstein(stiffness, masses, temperature: float) -> float:
    """Free energy in eV of atoms on springs k (n,) in eV/Å^2, masses (n,) in amu, the centre of mass at rest.

    kT sum over 3 n oscillators of ln(hbar omega / kT), and from the centre of mass, whose momentum and place are fixed,
    (3/2) kT ln((kT / hbar)^2 sum m_i^2 / k_i / M) with M the sum of the masses.
    """
    k, m, kt = np.asarray(stiffness, float), np.asarray(masses, float), KB * temperature
    centre = np.sum(m**2 / k) / m.sum()
    return float(kt * (3 * np.log(HBAR / kt * np.sqrt(k / m)).sum() + 1.5 * np.log((kt / HBAR) ** 2 * centre)))


def sample(
    potential: Potential,
    frames: Sequence[Atoms],
    temperatures: Sequence[float],
    settings: FreeEnergyConfig,
    name: str | None = "free energy",
) -> Sampled:
    """Sample a crystal, whose atoms rest on their sites in `frames`, one for every temperature (K).

    Trajectories depend on `settings.seed` alone. Raises ValueError if the mean positions of atoms are far from their
    sites: the crystal has melted or transformed.
    """
    at, middle = [float(t) for t in temperatures], len(temperatures) // 2
    x, weights = np.polynomial.legendre.leggauss(settings.nodes)
    nodes, replicas = (x + 1) / 2, settings.replicas
    path = [middle] * len(nodes)
    cells = replicate([*frames, *(frames[m] for m in path)], [*at, *(at[m] for m in path)], replicas)
    springs = _springs(potential, cells, settings, name)
    cells = _on_springs(cells, np.repeat([*np.ones(len(at)), *nodes], replicas), springs)
    trajectory = _crystal(potential, cells, settings, settings.snapshots, settings.seed + 1, name)
    energy = jax.jit(Potential.energies)(
        potential, systems.from_atoms(frames), neighbors.from_frames(frames, potential.cutoff)
    )
    binding = np.asarray(energy, float)
    at_rest = np.repeat([*binding, *binding[path]], replicas)
    moved = np.asarray(trajectory.positions - cells.sites, float)
    spring_energy = np.sum(springs[:, None] / 2 * moved**2, (2, 3))
    observed = np.concatenate(
        [
            (np.asarray(trajectory.energy, float) - at_rest)[..., None],
            spring_energy[..., None],
            np.asarray(trajectory.observed, float),
        ],
        -1,
    )
    return Sampled(
        tuple(frames), np.array(at), potential.total(binding, frames), nodes, weights / 2, springs, cells, observed
    )


def energies(sampled: Sampled, means, expansion: np.ndarray) -> Energies:
    """Free energy and enthalpies from the means (n_cells, 8) of what was sampled.

    `expansion` (3, 3) is the thermal strain per K. The cells should have no stress. A small stress that is left
    changes the free energy to second order only, but the enthalpy by V T (stress : expansion), which is subtracted.
    """
    means, cells, at = np.asarray(means, float), sampled.cells, sampled.temperature
    n, kt = len(cells.numbers), KB * at
    stress = np.asarray(elasticity.total_stress(jnp.asarray(means[:, 2:]), cells), float)

    def over_replicas(x):
        by_point = x.reshape(len(at) + len(sampled.nodes), -1, *x.shape[1:]).mean(1)
        return by_point[: len(at)], by_point[len(at) :]

    thermal, along = over_replicas(means[:, :2])
    sigma, _ = over_replicas(stress)
    volume = np.array([frame.get_volume() for frame in sampled.frames])
    shift = volume * at * np.einsum("tij,ij->t", sigma, expansion) / n
    enthalpy = sampled.static / n + thermal[:, 0] / (n - 1) + 1.5 * kt - shift
    integrand = (along[:, 0] - along[:, 1]) / (n - 1)
    start = einstein(sampled.springs, sampled.frames[0].get_masses(), at[sampled.middle]) / (n - 1)
    free = sampled.static[sampled.middle] / n + start + sampled.weights @ integrand
    return Energies(float(free), enthalpy, integrand)


def along_temperature(temperatures, enthalpy, middle: int, free_energy: float) -> np.ndarray:
    """Gibbs energies (n_temperatures,) at constant pressure from that at one temperature: d(G/T)/dT = -H/T^2.

    Between temperatures H is a straight line.
    """
    t, h = np.asarray(temperatures, float), np.asarray(enthalpy, float)
    slope = np.diff(h) / np.diff(t)
    steps = (h[:-1] - slope * t[:-1]) * np.diff(1 / t) - slope * np.diff(np.log(t))
    over_t = np.concatenate([[0.0], np.cumsum(steps)])
    return t * (free_energy / t[middle] + over_t - over_t[middle])


def _crystal(potential, cells, settings, snapshots, seed, name):
    """Trajectory of a crystal; ValueError if its structure changes."""
    trajectory = sample_crystal(
        potential, cells, settings.langevin, equilibration=settings.equilibration, snapshots=snapshots,
        seed=seed, name=name,
    )  # fmt: skip
    late = np.asarray(trajectory.positions[snapshots // 2 :], float).mean(0) - np.asarray(cells.sites, float)
    off = np.sqrt(np.mean(np.sum(late**2, -1), -1))
    cell = int(np.argmax(off / cells.spacing))
    if off[cell] > STRAYED * cells.spacing[cell]:
        raise ValueError(
            f"cell {cell} at {float(cells.temperature[cell]):.0f} K: on average, atoms are {off[cell]:.2f} Å from "
            "their sites, so it has melted or become another crystal; choose temperatures at which it is stable, or "
            "larger cells"
        )
    return trajectory


def _springs(potential, cells, settings, name):
    """Spring constant of every atom (n,): 3 kT over the mean squared displacement of its element."""
    n, numbers = len(cells.numbers), np.asarray(cells.numbers)
    if settings.spring is not None:
        return np.full(n, float(settings.spring))
    # all cells that will be sampled later, so that nothing is compiled anew; here without springs
    free = _on_springs(cells, np.ones(cells.n_cells), np.zeros(n))
    snapshots = max(20, settings.snapshots // 10)
    trajectory = _crystal(potential, free, settings, snapshots, settings.seed, name and f"{name}, springs")
    path = slice(-settings.nodes * settings.replicas, None)
    moved = np.asarray((trajectory.positions - free.sites)[:, path], float)
    squared = np.mean(np.sum(moved**2, -1), (0, 1))
    mean = np.array([squared[numbers == z].mean() for z in numbers])
    return 3 * KB * float(free.temperature[-1]) * (n - 1) / n / mean


def _on_springs(cells, coupling, stiffness):
    """The cells with the share `coupling` (n_cells,) of the potential and springs `stiffness` (n,) in eV/Å^2."""
    dtype = cells.sites.dtype
    stiffness = jnp.broadcast_to(jnp.asarray(stiffness, dtype), cells.masses.shape)
    return cells._replace(springs=Springs(jnp.asarray(coupling, dtype), stiffness))
