"""Elastic constants and pressure as averages over NVT trajectories, by two estimators.

`CoupledStrains` (the default) runs small positive and negative strains with the same random numbers and
differentiates the mean stress. `StressFluctuation` is the estimator of the titanium paper (Van Workum et al.,
Phys. Rev. E 71, 061102 (2005)): the Born stiffness of the unstrained cell minus the covariance of its stress.
Both give the isothermal constants d2F / d eta d eta / V in Lagrangian strain eta.

Both implement the protocol `Estimator`, and so may any other: docs/extending/estimator.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential
from fusedff.runtime import limits
from fusedff.simulation.cells import SimulationCells, require_affordable
from fusedff.simulation.langevin import observe_stress
from fusedff.units import KB, from_voigt, strain_from_voigt, to_voigt


class Properties(NamedTuple):
    """Elastic constants, pressure and stress per state point and replica."""

    elastic: jax.Array  # (n_points, replicas, n_constants) eV/Å^3, in the order of `elastic_symmetry.elastic_names`
    pressure: jax.Array  # (n_points, replicas) eV/Å^3
    stress: jax.Array  # (n_points, replicas, 6) eV/Å^3, with its kinetic part


class Estimator(Protocol):
    """A method to compute elastic constants and pressure from averages. A frozen dataclass, as a part of settings."""

    def cells(self, points: Sequence[StatePoint], repeats, replicas: int = 1, dtype=jnp.float32) -> SimulationCells:
        """Cells to simulate, ordered by state point and replica."""
        ...

    @property
    def observe(self) -> Callable[..., jax.Array]:
        """(potential, system, near, evaluation) -> what to record of a snapshot, (n_cells, n_quantities)."""
        ...

    @property
    def weighted_sum(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """(potential, system, near, coefficients) -> sum_k coefficients_k observed_k and the energy, both (n_cells,).

        The sum need only be right in its value and first derivative with respect to the parameters.
        """
        ...

    def properties(
        self, means: jax.Array, cells: SimulationCells, points: Sequence[StatePoint], replicas: int
    ) -> Properties:
        """Elastic constants and pressure from averages (n_cells, n_quantities) of what was observed."""
        ...


def of_means(
    estimator: Estimator, cells: SimulationCells, points: Sequence[StatePoint], replicas: int
) -> Callable[[np.ndarray], Properties]:
    """`estimator.properties` as a function of the averages, compiled as a whole; it returns NumPy's arrays.

    Operation by operation, the arithmetic of a few numbers would take seconds to compile. It is done in double
    precision, because covariances are small differences of averages.
    """
    compiled = jax.jit(lambda means, cells: estimator.properties(means, cells, points, replicas))
    cells = jax.tree.map(np.asarray, cells)
    doubled = cells._replace(lattice=cells.lattice.astype(float), temperature=cells.temperature.astype(float))

    def properties(means):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, compiled(np.asarray(means, float), doubled))

    return properties


def stretch(eta: np.ndarray) -> np.ndarray:
    """The symmetric deformation sqrt(1 + 2 eta) of a Lagrangian strain eta, both (3, 3)."""
    values, vectors = np.linalg.eigh(np.eye(3) + 2 * eta)
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T


def deformed_cells(
    points: Sequence[StatePoint], repeats, replicas: int, stretches: Sequence[np.ndarray], dtype=jnp.float32
) -> SimulationCells:
    """Deformed cells, ordered by state point, replica and stretch; those of one replica share random numbers."""
    sites, lattices, temperatures, noise_ids = [], [], [], []
    for p, point in enumerate(points):
        atoms = crystals.supercell(point.crystal, repeats)
        require_affordable(len(points) * replicas * len(stretches), len(atoms))
        if len(atoms) < 2:
            raise ValueError("a cell of one atom cannot move relative to its centre of mass; give larger repeats")
        for replica in range(replicas):
            for stretch in stretches:
                sites.append(atoms.positions @ stretch)
                lattices.append(atoms.cell.array @ stretch)
                temperatures.append(point.temperature)
                noise_ids.append(p * replicas + replica)
    return SimulationCells(
        jnp.asarray(np.stack(sites), dtype),
        jnp.asarray(np.stack(lattices), dtype),
        jnp.asarray(temperatures, dtype),
        jnp.asarray(noise_ids, jnp.int32),
        jnp.asarray(atoms.numbers, jnp.int32),
        jnp.asarray(np.stack([atoms.get_masses()] * len(sites)), dtype),
    )


def common_symmetry(points: Sequence[StatePoint]) -> str:
    """The elastic symmetry that all points share.

    Raises ValueError if there are none, if they are of different crystals, or two at one temperature, by which results
    are named.
    """
    if not points:
        raise ValueError("no state points; give at least one measured temperature")
    kinds = {(p.crystal.symbol, p.crystal.structure) for p in points}
    if len(kinds) != 1:
        called = ", ".join(sorted(f"{structure} {symbol}" for symbol, structure in kinds))
        raise ValueError(
            f"state points of different crystals ({called}) cannot be simulated together; train them apart"
        )
    named = [f"{point.temperature:g} K" for point in points]
    if repeated := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"two state points at {repeated[0]}, by which results are named; keep one, or run them apart")
    return crystals.symmetry(points[0].crystal)


def ideal_gas_pressure(cells):
    """N kT / V (n_cells,) of every cell, eV/Å^3."""
    return len(cells.numbers) * KB * cells.temperature / jnp.abs(jnp.linalg.det(cells.lattice))


def total_stress(means, cells):
    """Cauchy stress (n_cells, 3, 3) in eV/Å^3 with its kinetic part, from the mean configurational one (n_cells, 6)."""
    return from_voigt(means) - ideal_gas_pressure(cells)[:, None, None] * jnp.eye(3, dtype=cells.lattice.dtype)


def piola_kirchhoff(cauchy, stretches):
    """Second Piola-Kirchhoff stress det(F) F^-1 cauchy F^-T of symmetric deformations F, all (..., 3, 3)."""
    stretches = jnp.asarray(stretches, cauchy.dtype)
    inverse = jnp.linalg.inv(stretches)
    return jnp.linalg.det(stretches)[..., None, None] * (inverse @ cauchy @ inverse)


def weighted_stress_sum(potential, system, near, coefficients) -> tuple[jax.Array, jax.Array]:
    """sum_k coefficients_k stress_k of the configurational stress, and the energy; both (n_cells,), eV/Å^3 and eV.

    The sum is the derivative of the energy along the strain `coefficients` (n_cells, 6), divided by the volume.
    """
    energy, slope = _along(partial(Potential.strained_energies, potential, system, near), coefficients)
    return slope / system.volumes, energy


def _along(function, direction):
    """Value of a function of strain at zero strain, and its derivative along `direction` (n_cells, 6)."""
    return jax.jvp(function, (jnp.zeros_like(direction),), (direction,))


@dataclass(frozen=True)
class CoupledStrains:
    """(S(+eta) - S(-eta)) / 2 eta, with S the second Piola-Kirchhoff stress and the noise common to both cells.

    The trajectories of the two cells stay close, so most of their fluctuation cancels in the difference. One
    cell carries a normal and a shear strain, see `elastic_symmetry.strain_patterns`. No second
    derivative of the potential is needed. The error of finite strain is of second order in `strain`: in titanium
    at 0.01, C12 is too high by 0.8 GPa and the pressure, a mean over the strained cells, by 0.03 GPa; at 0.005 both
    errors are a quarter of that, and the noise is the same.
    """

    strain: float = 0.005

    def __post_init__(self):
        limits.require(self, positive=["strain"])
        limits.between(
            self, "strain", high=0.1, why="give a small strain, 0.001 to 0.02: the error grows as its square"
        )

    def cells(self, points: Sequence[StatePoint], repeats, replicas: int = 1, dtype=jnp.float32) -> SimulationCells:
        """All cells to simulate: every state point, replica, strain pattern and sign."""
        return deformed_cells(points, repeats, replicas, self._stretches(common_symmetry(points)), dtype)

    def _stretches(self, symmetry):
        """Deformations pattern by pattern, plus before minus."""
        patterns = elastic_symmetry.strain_patterns(symmetry)
        return [stretch(sign * self.strain * strain_from_voigt(pattern)) for pattern in patterns for sign in (1, -1)]

    # Static, as are those of `StressFluctuation`: what is compiled for one instance then serves all.
    observe = staticmethod(observe_stress)
    weighted_sum = staticmethod(weighted_stress_sum)

    def properties(
        self, means: jax.Array, cells: SimulationCells, points: Sequence[StatePoint], replicas: int
    ) -> Properties:
        """Elastic constants and pressure from mean observables (n_cells, 6)."""
        symmetry = common_symmetry(points)
        stretches = np.stack(self._stretches(symmetry))
        grouped = total_stress(means, cells).reshape(len(points), replicas, len(stretches), 3, 3)
        voigt = to_voigt(piola_kirchhoff(grouped, stretches)).reshape(len(points), replicas, -1, 2, 6)
        response = (voigt[..., 0, :] - voigt[..., 1, :]) / (2 * self.strain)
        constants = elastic_symmetry.constants_from_response(response, symmetry)
        elastic = jnp.stack(list(constants.values()), -1)
        pressure = -jnp.trace(grouped, axis1=-2, axis2=-1).mean(-1) / 3
        return Properties(elastic, pressure, to_voigt(grouped).mean(-2))


@dataclass(frozen=True)
class StressFluctuation:
    """<C_Born> - V/kT cov(sigma_Born) + N kT/V (d_ik d_jl + d_il d_jk), the estimator of the titanium paper.

    The covariance is a difference of averages, which in training are in single precision. Under high pressure in a cold
    crystal it then loses digits: for 256 atoms of titanium 0.7 GPa at 25 GPa and 23 K. `CoupledStrains` do not.
    """

    def cells(self, points: Sequence[StatePoint], repeats, replicas: int = 1, dtype=jnp.float32) -> SimulationCells:
        """One unstrained cell per state point and replica."""
        return deformed_cells(points, repeats, replicas, [np.eye(3)], dtype)

    @staticmethod
    def observe(potential, system, near, evaluation) -> jax.Array:
        """Born stress (6), its square (36) and the Born stiffness (36): (n_cells, 78)."""
        stress, stiffness = potential.born(system, near)
        square = stress[:, :, None] * stress[:, None, :]
        return jnp.concatenate([stress, square.reshape(-1, 36), stiffness.reshape(-1, 36)], 1)

    @staticmethod
    def weighted_sum(potential, system, near, coefficients) -> tuple[jax.Array, jax.Array]:
        """sum_k coefficients_k observed_k (n_cells,), and the energy (n_cells,) in eV.

        Stress and stiffness are never formed: their weighted sums are derivatives of the energy along few directions of
        strain. For the squared stress, its first-order expansion about the present stress is taken, which has the right
        value and first derivative. For the stiffness, second derivatives are taken along the principal axes of its
        coefficients. This takes a third of the time and a tenth of the memory of observing and summing.
        """
        first, square, second = coefficients[:, :6], coefficients[:, 6:42], coefficients[:, 42:]
        square, second = (x.reshape(-1, 6, 6) for x in (square, second))
        stress = jax.lax.stop_gradient(potential.evaluate(system, near).stress)
        linear = first + jnp.einsum("cij,cj->ci", square + square.swapaxes(1, 2), stress)
        quadratic = jnp.einsum("cij,ci,cj->c", square, stress, stress)  # counted twice in `linear`
        amplitudes, axes = jnp.linalg.eigh((second + second.swapaxes(1, 2)) / 2)

        strained = partial(Potential.strained_energies, potential, system, near)

        @jax.checkpoint  # the backward pass, too, holds one axis at a time
        def curvature(axis):
            return _along(lambda strain: jax.jvp(strained, (strain,), (axis,))[1], axis)[1]

        def add(total, along):
            amplitude, axis = along
            return total + amplitude * curvature(axis), None

        energy, slope = _along(strained, linear)
        zero = jnp.zeros(system.n_cells, jnp.result_type(amplitudes, energy))
        stiffness, _ = jax.lax.scan(add, zero, (amplitudes.T, jnp.moveaxis(axes, 2, 0)))
        return (slope + stiffness) / system.volumes - quadratic, energy

    def properties(
        self, means: jax.Array, cells: SimulationCells, points: Sequence[StatePoint], replicas: int
    ) -> Properties:
        """Elastic constants and pressure from mean observables (n_cells, 78)."""
        symmetry = common_symmetry(points)
        stress = means[:, :6]
        square, stiffness = (means[:, k : k + 36].reshape(-1, 6, 6) for k in (6, 42))
        ideal = ideal_gas_pressure(cells)
        volume_over_kt = len(cells.numbers) / ideal
        fluctuation = volume_over_kt[:, None, None] * (square - stress[:, :, None] * stress[:, None, :])
        kinetic = ideal[:, None, None] * jnp.diag(jnp.asarray([2, 2, 2, 1, 1, 1], means.dtype))
        total = (stiffness - fluctuation + kinetic).reshape(len(points), replicas, 6, 6)
        constants = elastic_symmetry.reduce_stiffness(total, symmetry)
        elastic = jnp.stack(list(constants.values()), -1)
        cauchy = (stress - ideal[:, None] * np.array([1, 1, 1, 0, 0, 0])).reshape(len(points), replicas, 6)
        return Properties(elastic, -cauchy[..., :3].mean(-1), cauchy)
