"""Liquids at constant volume: melting, structure, self-diffusion, energy and pressure.

The density is that of the crystal one starts from. It is melted at a higher temperature, equilibrated at its own, and
then sampled with weak friction. Friction gamma reduces the diffusion coefficient D to about D / (1 + m gamma D / kT);
at 0.05/ps this changes it by 1 % or less in simple liquids near melting.

D also depends on the size of the cell: in a periodic cube of edge L it is too small by 2.837 kT / (6 pi eta L) (Yeh &
Hummer, J. Phys. Chem. B 108, 15873 (2004)). With the viscosity eta of the Stokes-Einstein relation (slip) the relative
error is about one atomic diameter over L: a fifth for 108 atoms, a tenth for 1000. The viscosity is not computed here,
so D is not corrected; from runs with two sizes it can be extrapolated to 1 / L = 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.geometry import neighbors
from fusedff.potential import Potential, require_potential
from fusedff.runtime import limits
from fusedff.simulation import checks, distributions, langevin
from fusedff.simulation.cells import SimulationCells, replicate
from fusedff.simulation.elasticity import ideal_gas_pressure
from fusedff.simulation.langevin import LangevinConfig
from fusedff.simulation.statistics import Estimate, entry
from fusedff.units import GPA


@dataclass(frozen=True)
class LiquidConfig:
    """Settings of the simulations; replicas, each melted on its own, give the standard errors."""

    replicas: int = 4
    langevin: LangevinConfig = field(default_factory=LangevinConfig)  # while it melts and equilibrates
    melting_factor: float = 2.5  # times the temperature, to melt the crystal
    melting: int = 50  # snapshots
    equilibration: int = 100  # snapshots
    friction_per_ps: float = 0.05  # while it is sampled
    snapshots: int = 400
    diffusive_ps: tuple[float, float] = (2.0, 10.0)  # times between which the mean squared displacement is fitted
    spacing: float = 0.05  # Å, between the radii of g(r)
    seed: int = 1

    def __post_init__(self):
        limits.require(
            self,
            count=["replicas", "snapshots", "melting", "equilibration"],
            whole=["seed"],
            positive=["melting_factor", "spacing"],
            not_negative=["friction_per_ps"],
        )
        _lags(self)


@dataclass(frozen=True)
class LiquidResult:
    """Structure, diffusion, energy and pressure at every temperature; estimates begin with n_temperatures."""

    temperature: np.ndarray  # (n_temperatures,) K
    r: np.ndarray  # (n_radii,) Å
    radial: Estimate  # (n_temperatures, n_radii) g(r)
    shell: np.ndarray  # (n_temperatures,) Å, first minimum of g(r)
    coordination: Estimate  # (n_temperatures,) neighbours within the shell
    angles: np.ndarray  # (n_angles,) degrees
    angular: Estimate  # (n_temperatures, n_angles) per degree, of pairs of neighbours within the shell; integral 1
    time_ps: np.ndarray  # (n_times,)
    displacement: Estimate  # (n_temperatures, n_times) Å^2, mean squared
    diffusion: Estimate  # (n_temperatures,) Å^2/ps, which is 1e-8 m^2/s
    energy: Estimate  # (n_temperatures,) eV per atom, potential
    pressure_gpa: Estimate  # (n_temperatures,)
    n_atoms: int  # of every cell: diffusion depends on it
    edge: np.ndarray  # (n_temperatures,) Å, cube root of the volume of a cell
    settings: LiquidConfig

    def as_dict(self) -> dict:
        """Plain data for JSON: the numbers by temperature, not the curves, and the settings."""
        numbers = {
            "diffusion_A2_per_ps": self.diffusion,
            "coordination": self.coordination,
            "energy_eV_per_atom": self.energy,
            "pressure_GPa": self.pressure_gpa,
        }
        table = {
            f"{temperature:g}": {"shell_A": float(self.shell[t]), "edge_A": float(self.edge[t])}
            | {name: entry(e.value[t], e.stderr[t]) for name, e in numbers.items()}
            for t, temperature in enumerate(self.temperature)
        }
        return {"by_temperature_K": table, "n_atoms": self.n_atoms, "settings": asdict(self.settings)}


def run(
    potential: Potential,
    frames: Sequence[Atoms],
    temperatures: Sequence[float],
    settings: LiquidConfig,
    name: str | None = "liquid",
) -> LiquidResult:
    """Melt every frame, equilibrate it at its temperature (K) and sample it; all in one batch.

    Trajectories depend on `settings.seed` alone. Raises ValueError for fewer than two replicas, for a temperature that
    is given twice, for a run shorter than twice the longest time of the fit, and for a crystal that does not melt.
    """
    require_potential(potential)
    if len(set(temperatures)) < len(temperatures):
        raise ValueError(f"temperatures {list(temperatures)} K repeat, which name the results; run such states apart")
    lags, times, linear = _lags(settings)
    cells = replicate(frames, temperatures, settings.replicas)
    spacing = settings.spacing
    r = spacing * np.arange(1, int(distributions.largest_radius(cells.lattice) / spacing))
    distributions.require_radii(r, cells.lattice)
    state, capacity = _melted(potential, cells, settings, name)
    gentle = replace(settings.langevin, friction_per_ps=settings.friction_per_ps)
    simulation = langevin.Simulation(cells, gentle, potential.cutoff, _PressureAndRadial(tuple(r.tolist())))
    _, trajectory = simulation.run(potential, state, settings.snapshots, name, capacity)
    checks.warn_if_far(potential, cells, trajectory.positions[-1])
    checks.warn_if_cold(cells, gentle, trajectory)

    def over_replicas(per_cell):
        grouped = np.asarray(per_cell, float).reshape(len(frames), settings.replicas, *np.shape(per_cell)[1:])
        return Estimate(grouped.mean(1), grouped.std(1, ddof=1) / np.sqrt(settings.replicas))

    observed = np.asarray(trajectory.observed, float).mean(0)
    radial = over_replicas(observed[:, 1:])
    shell = np.array([first_minimum(r, g) for g in radial.value])
    n, volumes = len(cells.numbers), cells.volumes
    per_cell = np.repeat(shell, settings.replicas)
    around = [
        distributions.coordination(r, g, (n - 1) / v, within)
        for g, v, within in zip(observed[:, 1:], volumes, per_cell, strict=True)
    ]
    displacement = mean_squared_displacement(np.asarray(trajectory.positions), lags)
    diffusion = np.polyfit(times[linear], displacement[:, linear].T, 1)[0] / 6
    pressure = np.asarray(ideal_gas_pressure(cells), float) + observed[:, 0]
    reference = potential.reference_energy(cells.numbers)
    return LiquidResult(
        np.asarray(temperatures, float), r, radial, shell, over_replicas(around), distributions.ANGLES,
        over_replicas(_angular(cells, trajectory.positions, per_cell)), times, over_replicas(displacement),
        over_replicas(diffusion), over_replicas((np.asarray(trajectory.energy, float).mean(0) + reference) / n),
        over_replicas(pressure / GPA), n, np.cbrt(volumes[:: settings.replicas]), settings,
    )  # fmt: skip


def first_minimum(r, g) -> float:
    """Where g is smallest between its main peak and 1.8 times that radius, Å: the edge of the first shell.

    A gas without a peak may have its edge anywhere.
    """
    beyond = (r >= r[np.argmax(g)]) & (r < 1.8 * r[np.argmax(g)])
    return float(r[beyond][np.argmin(g[beyond])])


def mean_squared_displacement(positions: np.ndarray, lags) -> np.ndarray:
    """Mean over atoms and starting points of |r(t + lag) - r(t)|^2: (n_snapshots, n_cells, n, 3) -> (n_cells, n_lags).

    Positions are not wrapped, lags count snapshots. The centre of mass rests.
    """
    moved = [((positions[lag:] - positions[: len(positions) - lag]) ** 2).sum(-1).mean((0, 2)) for lag in lags]
    return np.stack(moved, 1)


@dataclass(frozen=True)
class _PressureAndRadial:
    """Records the configurational pressure and g(r): (n_cells, 1 + n_radii). Equal ones share what is compiled."""

    r: tuple[float, ...]  # Å

    def __call__(self, potential, system, near, evaluation):
        pressure = -evaluation.stress[:, :3].mean(1, keepdims=True)
        return jnp.concatenate([pressure, distributions.radial_distribution(system, np.array(self.r))], 1)


def _lags(settings):
    """At most 60 lags in snapshots, up to the end of the fit, their times in ps, and which are fitted."""
    if settings.replicas < 2:
        raise ValueError(f"replicas = {settings.replicas}: their scatter is the standard error; use two or more")
    step = settings.langevin.ps_per_snapshot
    begin, end = settings.diffusive_ps
    last = int(round(end / step))
    if not 0 <= begin < end or 2 * last > settings.snapshots:
        raise ValueError(
            f"the mean squared displacement is to be fitted from {begin:g} to {end:g} ps, but {settings.snapshots} "
            f"snapshots are {settings.snapshots * step:g} ps; sample at least twice as long as the fit reaches"
        )
    lags = np.unique(np.linspace(1, last, min(60, last)).round().astype(int))
    times = lags * step
    linear = (times >= begin) & (times <= end)
    if linear.sum() < 2:
        raise ValueError(
            f"the mean squared displacement is to be fitted from {begin:g} to {end:g} ps, but with a snapshot every "
            f"{step:g} ps the points there are {linear.sum()}; a line needs two or more, take snapshots more often"
        )
    return lags, times, linear


def _melted(potential, cells: SimulationCells, settings, name):
    """The equilibrated liquid and the list sizes it needs; ValueError for atoms that stay near their sites."""
    hot = cells._replace(temperature=settings.melting_factor * cells.temperature)
    state = langevin.start(hot, jax.random.PRNGKey(settings.seed))
    melting = langevin.Simulation(hot, settings.langevin, potential.cutoff)
    state, _ = melting.run(potential, state, settings.melting, name and f"{name}, melting")
    moved = np.sqrt(np.mean(np.sum(np.square(state.positions - cells.sites), -1), -1))
    if (moved < cells.spacing / 2).any():
        cell = int(np.argmin(moved / cells.spacing))
        raise ValueError(
            f"{float(cells.temperature[cell]):g} K: after melting at {float(hot.temperature[cell]):g} K the atoms "
            f"are {moved[cell]:.2f} Å from their sites, less than half their spacing: still a crystal; raise "
            "melting_factor or melting"
        )
    liquid = langevin.Simulation(cells, settings.langevin, potential.cutoff)  # of the same shapes: not compiled anew
    said = name and f"{name}, equilibration"
    state, _ = liquid.run(potential, state, settings.equilibration, said, melting.capacity)
    return state, liquid.capacity


def _angular(cells, positions, shells):
    """Angular distributions (n_cells, n_angles) of at most 100 evenly spaced snapshots, with integral one."""
    chosen = positions[:: -(-len(positions) // 100)]
    found = []
    for start, end in pairwise(np.append(np.flatnonzero(np.diff(shells, prepend=0)), len(shells))):
        which, within = slice(start, end), float(shells[start])
        part, capacity = cells.subset(which), 24
        while True:
            angular, needed = _shell_angles(part, chosen[:, which], within, capacity)
            if int(needed) <= capacity:
                break
            capacity = int(needed)
        found.append(np.asarray(angular, float))
    found = np.concatenate(found)
    total = np.trapezoid(found, distributions.ANGLES)[:, None]
    return found / np.where(total > 0, total, 1)  # no neighbours, no angles


@partial(jax.jit, static_argnums=3)
def _shell_angles(cells, positions, within, capacity):
    def one(r):
        system = cells.system(r)
        near = neighbors.search_cells(system, within, capacity, ((0, 0, 0),))  # a shell is below half a cell
        return distributions.angular_distribution(system, near, within), near.needed

    angular, needed = jax.lax.map(one, positions)
    return angular.mean(0), needed.max()
