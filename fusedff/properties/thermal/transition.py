"""Free-energy difference between two crystal phases at zero pressure, their transition temperature and latent heat.

For each phase, the cells of zero stress are found at all temperatures (`thermal.lattice`). In these cells, integration
from an Einstein crystal gives the free energy at the temperature in the middle, and simulations give the enthalpies at
all temperatures (`thermal.free_energy`). The Gibbs energy at all temperatures follows from both. The phases are in
equilibrium where its difference vanishes; the latent heat is the difference of the enthalpies there.

Integration from an Einstein crystal needs no path between the phases. It also works for crystals that are unstable at
0 K, whose phonons give no free energy. All averages are those of equilibrium simulations, so that blocks of the
trajectories give the standard errors. Everything is classical: well above the Debye temperature quantum corrections,
(hbar omega)^2 / 24 kT per mode, nearly cancel between phases.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.potential import Potential
from fusedff.properties.thermal import free_energy, lattice
from fusedff.properties.thermal.config import warn_if_blocks_are_short
from fusedff.properties.thermal.free_energy import FreeEnergyConfig
from fusedff.properties.thermal.lattice import LatticeConfig, LatticeResult
from fusedff.simulation.statistics import Estimate, entry, jackknife
from fusedff.units import KJ_MOL


@dataclass(frozen=True, kw_only=True)
class TransitionConfig(FreeEnergyConfig):
    """Settings. Cells of both phases should hold about as many atoms; see `free_energy` on the size of cells.

    `lattice` has the settings for the cells of zero stress; its repeats, dynamics and seed are replaced by those of
    this class. Short runs are enough: errors of the cells enter the free energies to second order only, and the
    enthalpies are corrected for them.
    """

    repeats: tuple[int, int, int] = (4, 4, 4)  # of the first phase
    second_repeats: tuple[int, int, int] | None = None  # of the second phase; None: as of the first
    lattice: LatticeConfig = field(default_factory=partial(LatticeConfig, replicas=1, snapshots=200))


@dataclass(frozen=True)
class TransitionResult:
    """Gibbs energies and enthalpies of two phases at zero pressure, per atom, and where they are in equilibrium.

    `transition` and `latent_heat` are nan unless the difference changes its sign between the temperatures.
    """

    temperature: np.ndarray  # (n_temperatures,) K
    names: tuple[str, str]
    gibbs: Estimate  # (2, n_temperatures) eV per atom
    enthalpy: Estimate  # (2, n_temperatures) eV per atom
    difference: Estimate  # (n_temperatures,) eV per atom, Gibbs energy of the second phase minus that of the first
    transition: Estimate  # () K
    latent_heat: Estimate  # () eV per atom, taken up from the first to the second phase
    nodes: np.ndarray  # (n_nodes,) shares of the potential along the path from the Einstein crystal
    integrand: Estimate  # (2, n_nodes) eV per atom
    n_atoms: tuple[int, int]
    lattices: tuple[LatticeResult, LatticeResult]
    settings: TransitionConfig

    def as_dict(self) -> dict:
        """Plain data for JSON: the numbers by temperature, transition and latent heat (or None), and the settings."""
        table = {
            f"{temperature:g}": {"difference_eV_per_atom": entry(self.difference.value[t], self.difference.stderr[t])}
            | {
                name: {
                    "gibbs_eV_per_atom": entry(self.gibbs.value[p, t], self.gibbs.stderr[p, t]),
                    "enthalpy_eV_per_atom": entry(self.enthalpy.value[p, t], self.enthalpy.stderr[p, t]),
                }
                for p, name in enumerate(self.names)
            }
            for t, temperature in enumerate(self.temperature)
        }
        found = np.isfinite([self.transition.value, self.transition.stderr]).all()
        return {
            "by_temperature_K": table,
            "transition_K": entry(*self.transition) if found else None,
            "latent_heat_kJ_per_mol": entry(*(x / KJ_MOL for x in self.latent_heat)) if found else None,
            "n_atoms": dict(zip(self.names, self.n_atoms, strict=True)),
            "settings": asdict(self.settings),
        }


def run(
    potential: Potential,
    phases: Sequence[Crystal],
    temperatures: Sequence[float],
    settings: TransitionConfig,
    name: str | None = "phase transition",
) -> TransitionResult:
    """Compare two phases of one substance at two or more ascending temperatures (K), at which both are (meta)stable.

    `phases` are first guesses of their cells, within a few per cent; trajectories depend on `settings.seed` alone.
    Raises ValueError for fewer temperatures, for phases of different composition and for a phase that melts or
    transforms, and what `lattice.run` raises.
    """
    warn_if_blocks_are_short(settings)
    at = np.asarray(temperatures, float)
    names, repeats = _checked(phases, at, settings)
    each = [
        _sample(potential, phase, at, settings, count, name and f"{name}, {called}")
        for phase, count, called in zip(phases, repeats, names, strict=True)
    ]
    lattices, sampled, expansions = zip(*each, strict=True)
    counts = np.cumsum([one.observed.shape[1] for one in sampled])

    def statistic(means):
        parts = np.split(np.asarray(means, float), counts[:-1])
        found = [free_energy.energies(*each) for each in zip(sampled, parts, expansions, strict=True)]
        enthalpy = np.array([one.enthalpy for one in found])
        gibbs = np.array(
            [
                free_energy.along_temperature(at, f.enthalpy, s.middle, f.free_energy)
                for f, s in zip(found, sampled, strict=True)
            ]
        )
        integrand = np.array([one.integrand for one in found])
        where = equilibrium(at, gibbs[1] - gibbs[0], enthalpy[1] - enthalpy[0])
        return np.concatenate([gibbs.ravel(), enthalpy.ravel(), gibbs[1] - gibbs[0], integrand.ravel(), where])

    both = np.concatenate([one.observed for one in sampled], 1)
    estimate = jackknife(both, statistic, settings.blocks)
    n, nodes = len(at), settings.nodes
    ends = np.cumsum([2 * n, 2 * n, n, 2 * nodes, 1])
    gibbs, enthalpy, difference, integrand, transition, latent = (
        Estimate(*pair) for pair in zip(*(np.split(x, ends) for x in estimate), strict=True)
    )
    return TransitionResult(
        at, names, _shaped(gibbs, 2, n), _shaped(enthalpy, 2, n), difference, _shaped(transition), _shaped(latent),
        sampled[0].nodes, _shaped(integrand, 2, nodes), tuple(len(one.frames[0]) for one in sampled), lattices,
        settings,
    )  # fmt: skip


def _sample(potential, phase, temperatures, settings, repeats, name):
    """Cells of zero stress of a phase, what `free_energy.sample` samples in them, and their thermal strain per K."""
    cell_settings = replace(settings.lattice, repeats=repeats, langevin=settings.langevin, seed=settings.seed)
    found = lattice.run(potential, phase, temperatures, cell_settings, name=name)
    frames = [crystals.supercell(crystals.with_parameters(phase, row), repeats) for row in found.lengths]
    sampled = free_energy.sample(potential, frames, temperatures, settings, name)
    return found, sampled, _expansion(frames, temperatures)


def equilibrium(temperatures, difference, enthalpy) -> tuple[float, float]:
    """Temperature at which the difference of Gibbs energies vanishes, and the difference of enthalpies there.

    Between two temperatures the difference over T is a straight line in 1/T, as it is for a constant difference of
    enthalpies. nan if it does not change its sign.
    """
    t, y, h = (np.asarray(x, float) for x in (temperatures, difference, enthalpy))
    crossings = np.flatnonzero(np.sign(y[:-1]) != np.sign(y[1:]))
    if not len(crossings):
        return np.nan, np.nan
    part = slice(crossings[0], crossings[0] + 2)
    (x0, x1), (y0, y1) = 1 / t[part], (y / t)[part]
    found = 1 / (x0 - y0 * (x1 - x0) / (y1 - y0))
    return float(found), float(np.interp(found, t, h))


def _checked(phases, temperatures, settings):
    """Names and repeats of the phases."""
    if len(temperatures) < 2:
        raise ValueError(
            f"temperatures {temperatures.tolist()} K: the transition is sought between two or more; give e.g. three, "
            "around where it is expected"
        )
    if len(phases) != 2:
        raise ValueError(f"{len(phases)} phases; a transition is between two")
    formulas = [crystals.unit_cell(phase).symbols.formula.reduce()[0].count() for phase in phases]
    if formulas[0] != formulas[1]:
        raise ValueError(f"{phases[0]} and {phases[1]} are no phases of one substance; give two of one composition")
    names = [str(phase.structure) for phase in phases]
    if names[0] == names[1]:
        names = [f"{called} {number}" for number, called in enumerate(names, 1)]
    return tuple(names), (settings.repeats, settings.second_repeats or settings.repeats)


def _expansion(frames, temperatures):
    """Thermal strain per K (3, 3) from the cells at all temperatures, on a straight line."""
    cells = np.array([frame.cell.array for frame in frames])
    slope = np.polyfit(temperatures, cells.reshape(len(cells), 9), 1)[0].reshape(3, 3)
    strain = np.linalg.solve(cells.mean(0), slope)
    return (strain + strain.T) / 2


def _shaped(estimate, *shape):
    return Estimate(*(x.reshape(shape) for x in estimate))
