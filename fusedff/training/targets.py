"""Targets of DiffTRe: the cells to simulate, what to record of a snapshot, and the deviation from the measurement.

The gradient of an average of per-snapshot quantities O is <dO/d theta> - beta (<O dU/d theta> - <O> <dU/d theta>).
`weighted_sum` gives the first term, reweighting the others. A target may be a function of several averages:
`HeatCapacityTarget` records U and U^2 and takes the variance.

Simulations run at constant volume, in cells of the measured size. A measured density is then a target for the pressure
(`PressureTarget`), and measured lattice parameters are targets for the stresses (`ElasticTarget`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.crystallography import elastic_symmetry
from fusedff.geometry import neighbors
from fusedff.measurements import state_points
from fusedff.measurements.state_points import StatePoint, measured_gpa, stderr_gpa
from fusedff.simulation import distributions
from fusedff.simulation.cells import SimulationCells
from fusedff.simulation.elasticity import Estimator, common_symmetry, ideal_gas_pressure, weighted_stress_sum
from fusedff.simulation.langevin import observe_stress
from fusedff.units import GPA, KB

MAX_HEAT_CAPACITY = 10.0  # k_B per atom


class Target(Protocol):
    """One kind of measurement. `means` are averages of what `observe` returned, (n_cells, n_quantities)."""

    cells: SimulationCells  # the cells to simulate

    def observe(self, potential, system, near, evaluation) -> jax.Array:
        """What to record of a snapshot: (n_cells, n_quantities)."""

    def weighted_sum(self, potential, system, near, coefficients) -> tuple[jax.Array, jax.Array]:
        """sum_k coefficients_k observed_k and the energy in eV, both (n_cells,), as functions of the parameters.

        Only the derivative of the sum is used. None in its place says that what is observed does not depend on the
        parameters, and saves time.
        """

    def residuals(self, means) -> jax.Array:
        """Weighted deviations from the measurement, (n_states, n): the sum of their squares is the loss.

        The cells of a state lie side by side in `cells`, and they alone decide its residuals.
        """

    def report(self, means) -> dict:
        """Name -> number for the history."""


class StaticTarget(Protocol):
    """A measurement that follows from the potential without a trajectory, e.g. a harmonic phonon (`phonon_target`)."""

    def observe(self, potential) -> jax.Array:
        """The measured quantities as the potential gives them: (n_quantities,)."""

    def residuals(self, values) -> jax.Array:
        """Weighted deviations from the measurement (n,): the sum of their squares is added to the loss."""

    def report(self, values) -> dict:
        """Name -> number for the history."""


def loss(target: Target, means: jax.Array) -> jax.Array:
    """Sum of the squared residuals, which training minimizes."""
    return jnp.sum(target.residuals(means) ** 2)


@dataclass(frozen=True, eq=False)
class ElasticTarget:
    """Elastic constants and stress of crystals: mean squared deviations in GPa^2, each times its weight.

    A crystal of the measured size and shape is in equilibrium when every stress that its symmetry leaves independent
    (`elastic_symmetry.stress_names`) is minus the measured pressure. The stresses therefore fix all lattice parameters;
    the pressure would fix the volume only. Constants that were not measured do not count. Deviations of constants are
    divided by the standard error of the measurement in GPa; where a state point gives none, by 1 GPa.

    Simulated constants are isothermal. Raises ValueError if the measured ones are adiabatic, which
    `measurements.adiabatic` converts.
    """

    points: Sequence[StatePoint]
    estimator: Estimator
    repeats: tuple[int, int, int]
    replicas: int
    elastic_weight: float  # per GPa^2
    stress_weight: float  # per GPa^2, of the independent stresses
    pressure_weight: float = 0.0  # per GPa^2

    def __post_init__(self):
        if any(point.elastic and point.condition != "isothermal" for point in self.points):
            raise ValueError(
                "the measured constants are adiabatic, the simulated ones isothermal; convert them with "
                "`measurements.adiabatic.isothermal`, or give condition 'isothermal' to compare them as they are"
            )

    @cached_property
    def cells(self) -> SimulationCells:
        return self.estimator.cells(self.points, self.repeats, self.replicas)

    @property
    def observe(self):
        return self.estimator.observe

    @property
    def weighted_sum(self):
        return self.estimator.weighted_sum

    @property
    def symmetry(self) -> str:
        return common_symmetry(self.points)

    def properties(self, means):
        """Elastic constants (n_points, n_constants) and stresses (n_points, n_stresses), GPa, over all replicas."""
        found = self.estimator.properties(means, self.cells, self.points, self.replicas)
        stress = elastic_symmetry.independent_stress(found.stress.mean(1), self.symmetry)
        return found.elastic.mean(1) / GPA, stress / GPA

    def residuals(self, means):
        elastic, stress = self.properties(means)
        _, measured, pressure = measured_gpa(self.points)
        present, stderr = np.isfinite(measured), stderr_gpa(self.points)
        deviation = jnp.where(present, elastic - jnp.asarray(np.where(present, measured, 0)), 0)
        deviation = deviation / np.where(np.isfinite(stderr), stderr, 1)
        parts = [(self.elastic_weight / max(np.sum(present), 1), deviation)]
        if self.stress_weight:
            at_rest = np.array([list(point.stress_gpa.values()) for point in self.points])
            parts.append((self.stress_weight / stress.size, stress - at_rest))
        if self.pressure_weight:
            parts.append((self.pressure_weight / len(self.points), self._pressure(means) - pressure[:, None]))
        return jnp.concatenate([weight**0.5 * part for weight, part in parts], 1)

    def _pressure(self, means):
        """(n_points, 1) GPa."""
        found = self.estimator.properties(means, self.cells, self.points, self.replicas)
        return found.pressure.mean(1)[:, None] / GPA

    @cached_property
    def _reported(self):
        """What `report` says, (n_points, n): compiled as a whole, operation by operation it would take seconds."""
        pressure = [self._pressure] if self.pressure_weight else []
        return jax.jit(lambda means: jnp.concatenate([*self.properties(means), *(f(means) for f in pressure)], 1))

    def report(self, means) -> dict:
        """GPa: every constant, stress and (if it has a weight) pressure, e.g. C11@323K, σxx@323K and P@323K."""
        names = [*elastic_symmetry.elastic_names(self.symmetry)]
        names += [f"σ{name}" for name in elastic_symmetry.stress_names(self.symmetry)]
        names += ["P"] if self.pressure_weight else []
        return {
            f"{name}@{point.temperature:g}K": value
            for point, row in zip(self.points, np.asarray(self._reported(means)), strict=True)
            for name, value in zip(names, row, strict=True)
        }


@dataclass(frozen=True, eq=False)
class RadialTarget:
    """Radial distribution functions, e.g. of a liquid: the mean squared deviation of g(r) over radii and states.

    `measured` (n_states, n_bins) is g at the evenly spaced radii `r` (n_bins,) in Å, see
    `distributions.radial_distribution`; `stderr`, if known, is one standard error of it and divides the deviations. The
    cells of a state lie side by side, as `cells.replicate` makes them, and are averaged. Raises
    ValueError for radii that do not fit the cells and curves of another shape.
    """

    cells: SimulationCells
    r: np.ndarray
    measured: np.ndarray
    weight: float = 1.0
    stderr: float | np.ndarray = 1.0  # like `measured`
    pair: tuple[int, int] | None = None  # atomic numbers of the two species whose partial g(r) was measured; None: all
    weighted_sum = None  # g(r) of given positions does not depend on the parameters

    def __post_init__(self):
        distributions.require_radii(self.r, self.cells.lattice)
        _require_states(self, (len(self.r),), "g(r)")
        inside = np.asarray(self.measured)[:, np.asarray(self.r) < neighbors.MIN_DISTANCE]
        if inside.max(initial=0) > 1.5:
            raise ValueError(
                f"measured g(r) is {inside.max():.3g} below {neighbors.MIN_DISTANCE} Å, where no atoms are; give r in "
                "Å (1 nm = 10 Å), or leave these radii out"
            )
        if self.which and not (np.outer(*self.which) & ~np.eye(len(self.cells.numbers), dtype=bool)).any():
            raise ValueError(f"the cells have no pair of the elements {self.pair}; name two that are in them")

    @property
    def which(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Which atoms (n,) are at the centre, and which are counted around it."""
        numbers = np.asarray(self.cells.numbers)
        return None if self.pair is None else tuple(numbers == z for z in self.pair)

    def observe(self, potential, system, near, evaluation):
        return distributions.radial_distribution(system, self.r, self.which)

    def residuals(self, means):
        return _root_mean(self.weight, (_by_state(means, self.measured) - self.measured) / self.stderr)

    def report(self, means) -> dict:
        """Root mean square deviation of g from the measured curve of every state."""
        deviation = np.sqrt(np.mean((np.asarray(_by_state(means, self.measured)) - self.measured) ** 2, 1))
        return {f"g_rms@{t}": value for t, value in zip(_states(self.cells, self.measured), deviation, strict=True)}


@dataclass(frozen=True, eq=False)
class PressureTarget:
    """Pressures (n_states,) in eV/Å^3 of cells of given volume: the mean squared deviation in GPa^2.

    `stderr`, if known, is one standard error of them and divides the deviations. The cells of a state lie side by side,
    as `cells.replicate` makes them.
    """

    cells: SimulationCells
    measured: np.ndarray
    weight: float = 1.0  # per GPa^2
    stderr: float | np.ndarray = GPA  # eV/Å^3, (n_states,)

    def __post_init__(self):
        _require_states(self, (), "pressures")
        volume = np.abs(np.linalg.det(np.asarray(self.cells.lattice, float))).min() / len(self.cells.numbers)
        if (
            largest := np.abs(self.measured).max()
        ) > state_points.STIFFEST_PRESSURE * state_points.MAX_STIFFNESS / volume:
            raise ValueError(
                f"measured pressure of {largest:g} eV/Å^3, which no matter bears; multiply GPa by fusedff.units.GPA"
            )

    observe = staticmethod(observe_stress)
    weighted_sum = staticmethod(weighted_stress_sum)

    def pressure(self, means):
        """Pressures (n_states,), eV/Å^3."""
        return _by_state(ideal_gas_pressure(self.cells) - means[:, :3].mean(1), self.measured)

    def residuals(self, means):
        return _root_mean(self.weight, (self.pressure(means) - jnp.asarray(self.measured)) / self.stderr)

    def report(self, means) -> dict:
        """GPa, e.g. P@94K."""
        found = np.asarray(self.pressure(means)) / GPA
        return {f"P@{t}": value for t, value in zip(_states(self.cells, self.measured), found, strict=True)}


@dataclass(frozen=True, eq=False)
class HeatCapacityTarget:
    """Heat capacities at constant volume (n_states,) in k_B per atom: the mean squared deviation.

    C_V / N = 3/2 k + (<U^2> - <U>^2) / ((N - 1) kT^2), classical: the centre of mass rests, so that 3 of the 3 N
    degrees of freedom do not fluctuate. The cells of a state lie side by side, as `cells.replicate` makes them. A
    variance takes long trajectories: its relative error is sqrt(2 / n) from n independent snapshots.

    Energies count from `zero`, which `from_rest` chooses: in single precision, the squares of large energies would lose
    the variance. `report` raises ValueError where they do.
    """

    cells: SimulationCells
    measured: np.ndarray
    weight: float = 1.0
    stderr: float | np.ndarray = 1.0  # k_B per atom, (n_states,), if known: divides the deviations
    zero: float = 0.0  # eV, of a cell

    def __post_init__(self):
        _require_states(self, (), "heat capacities")
        if (largest := np.max(self.measured)) > MAX_HEAT_CAPACITY:
            raise ValueError(
                f"measured heat capacity of {largest:g} k_B per atom, where harmonic crystals have 3; divide "
                "J/(mol K), of atoms, by 8.314"
            )

    def from_rest(self, potential) -> "HeatCapacityTarget":
        """The same target, with energies that count from the mean of those of the cells at rest in `potential`."""
        plan = neighbors.search_plan(self.cells.lattice, potential.cutoff)
        system = self.cells.system(self.cells.sites)
        near = neighbors.search_cells(
            system, potential.cutoff, neighbors.required_capacity(system, potential.cutoff, plan), plan
        )
        return replace(self, zero=float(potential.energies(system, near).mean()))

    def observe(self, potential, system, near, evaluation):
        energy = evaluation.energy - self.zero
        return jnp.stack([energy, energy**2], 1)

    def weighted_sum(self, potential, system, near, coefficients):
        energy = potential.energies(system, near)
        return coefficients[:, 0] * energy + coefficients[:, 1] * (energy - self.zero) ** 2, energy

    def heat_capacity(self, means):
        """C_V (n_states,) in k_B per atom."""
        energy, square = _by_state(means, self.measured).T
        return 1.5 + (square - energy**2) / self._unit

    @property
    def _unit(self):
        """(N - 1) (kT)^2 of every state, (n_states,) in eV^2: the variance is 3/2 of it in a harmonic crystal."""
        temperature = self.cells.temperature[:: self.cells.n_cells // len(self.measured)]
        return (KB * temperature) ** 2 * max(len(self.cells.numbers) - 1, 1)

    def residuals(self, means):
        return _root_mean(self.weight, (self.heat_capacity(means) - jnp.asarray(self.measured)) / self.stderr)

    def report(self, means) -> dict:
        """k_B per atom, e.g. Cv@94K."""
        rounding = jnp.finfo(means.dtype).eps * _by_state(means[:, 1], self.measured)
        if (rounding > 0.02 * self._unit).any():
            raise ValueError(
                f"energies of {float(jnp.sqrt(means[:, 1].max())):.0f} eV are too large for the variance of their "
                "squares; count them from the cells at rest: target.from_rest(potential)"
            )
        found = np.asarray(self.heat_capacity(means))
        return {f"Cv@{t}": value for t, value in zip(_states(self.cells, self.measured), found, strict=True)}


def _root_mean(weight, deviation):
    """Residuals (n_states, n) whose squares sum up to the weighted mean square of `deviation` (n_states, ...)."""
    return (weight / deviation.size) ** 0.5 * deviation.reshape(len(deviation), -1)


def _by_state(means, measured):
    """Averages over the cells of every state."""
    return means.reshape(len(measured), -1, *means.shape[1:]).mean(1)


def _states(cells, measured):
    """The temperature of every state as text; of states at one temperature with a number, e.g. 94K#0 and 94K#1."""
    names = [f"{t:g}K" for t in np.asarray(cells.temperature)[:: cells.n_cells // len(measured)]]
    return [f"{t}#{names[:n].count(t)}" if names.count(t) > 1 else t for n, t in enumerate(names)]


def _require_states(target, shape, what):
    if not target.weight > 0:
        raise ValueError(f"weight of {what} is {target.weight:g}; give a positive number, or leave the target out")
    cells, measured = target.cells, np.asarray(target.measured)
    if measured.ndim == 0 or measured.shape[1:] != shape or cells.n_cells % max(len(measured), 1):
        raise ValueError(
            f"measured {what} of shape {measured.shape} for {cells.n_cells} cells; give "
            f"{('n_states', *shape)}, and as many cells for every state"
        )
    for per_cell in (cells.temperature, cells.lattice):
        of_state = np.asarray(per_cell).reshape(len(measured), -1, *per_cell.shape[1:])
        if len(bad := np.argwhere(of_state != of_state[:, :1])):
            raise ValueError(
                f"measured {what} of {len(measured)} states: the cells of state {bad[0, 0]} differ in temperature or "
                "lattice; give one measurement per state, with its cells side by side"
            )
    if not np.isfinite(measured).all():
        raise ValueError(f"measured {what} are not finite numbers; leave out what was not measured")
    stderr = np.asarray(target.stderr, float)
    if stderr.shape not in ((), measured.shape) or not (stderr > 0).all() or not np.isfinite(stderr).all():
        raise ValueError(
            f"standard errors of {what} of shape {stderr.shape}; give one positive number, or {measured.shape} of them"
        )
