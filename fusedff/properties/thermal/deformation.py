"""Elastic constants from their definition: the slope at zero strain of the mean stresses of deformed cells.

This is a check of the estimators in `fusedff.simulation.elasticity`, and takes far more sampling than strained pairs
with common random numbers. Every deformed cell, at several amplitudes, is simulated with random numbers of its own. A
parabola is fitted to the mean stresses, because crystals are stiffer in compression than in tension; chi^2 tells
whether the stresses lie on it within their errors.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import jax.numpy as jnp
import numpy as np

from fusedff.crystallography import elastic_symmetry
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential
from fusedff.properties.thermal.config import SolidConfig, warn_if_blocks_are_short
from fusedff.runtime import limits
from fusedff.simulation import elasticity
from fusedff.simulation.sampling import sample_crystal
from fusedff.simulation.statistics import entry, jackknife
from fusedff.units import GPA, strain_from_voigt, to_voigt


@dataclass(frozen=True)
class DeformationConfig(SolidConfig):
    """Settings; strains are Lagrangian."""

    strains: tuple[float, ...] = (-0.01, -0.005, 0.0, 0.005, 0.01)

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.strains)) < 4 or not np.abs(self.strains).max() < 0.1:
            limits.raise_invalid(
                self, "strains", "give four or more different ones below 0.1, e.g. -0.01, -0.005, 0.005, 0.01"
            )


@dataclass(frozen=True)
class DeformationResult:
    """Slopes of stress against strain, the stresses, and how well they lie on parabolas; with standard errors."""

    temperature: np.ndarray  # (n_points,) K
    names: tuple[str, ...]
    parabola: np.ndarray  # (n_points, 3, n_constants) GPa, of stress in the powers 0, 1 and 2 of strain
    elastic_stderr: np.ndarray  # (n_points, n_constants) GPa
    stress: np.ndarray  # (n_points, n_strains, n_constants) GPa, the combination whose slope is the constant
    stress_stderr: np.ndarray  # (n_points, n_constants) GPa, of every such stress
    chi_squared: np.ndarray  # (n_points, n_constants), of `degrees_of_freedom`
    settings: DeformationConfig

    @property
    def elastic(self) -> np.ndarray:
        """Elastic constants (n_points, n_constants) in GPa, isothermal: the slopes at zero strain."""
        return self.parabola[:, 1]

    @property
    def degrees_of_freedom(self) -> int:
        """What chi^2 is on average when the stresses lie on a parabola."""
        return len(self.settings.strains) - 3

    def as_dict(self) -> dict:
        """Plain data for JSON: the constants by temperature, and the settings."""
        table = {
            f"{temperature:g}": {
                name: entry(self.elastic[t, c], self.elastic_stderr[t, c])
                | {
                    "stress_GPa": self.stress[t, :, c].tolist(),
                    "stress_stderr_GPa": float(self.stress_stderr[t, c]),
                    "chi_squared": float(self.chi_squared[t, c]),
                }
                for c, name in enumerate(self.names)
            }
            for t, temperature in enumerate(self.temperature)
        }
        return {"elastic_GPa": table, "degrees_of_freedom": self.degrees_of_freedom, "settings": asdict(self.settings)}


def run(
    potential: Potential,
    points: Sequence[StatePoint],
    settings: DeformationConfig,
    name: str | None = "deformed cells",
) -> DeformationResult:
    """Simulate every state point in every deformation and fit; trajectories depend on `settings.seed` alone."""
    warn_if_blocks_are_short(settings)
    symmetry, strains = elasticity.common_symmetry(points), np.array(settings.strains)
    patterns = elastic_symmetry.strain_patterns(symmetry)
    stretches = [elasticity.stretch(size * strain_from_voigt(pattern)) for pattern in patterns for size in strains]
    cells = elasticity.deformed_cells(points, settings.repeats, settings.replicas, stretches)
    cells = cells._replace(noise_id=jnp.arange(cells.n_cells, dtype=jnp.int32))  # nothing in common
    trajectory = sample_crystal(
        potential, cells, settings.langevin, equilibration=settings.equilibration, snapshots=settings.snapshots,
        seed=settings.seed, name=name,
    )  # fmt: skip

    def stresses(means):
        cauchy = elasticity.total_stress(means, cells).reshape(len(points), settings.replicas, len(stretches), 3, 3)
        piola = to_voigt(elasticity.piola_kirchhoff(cauchy, np.stack(stretches))).mean(1)
        by_strain = piola.reshape(len(points), len(patterns), len(strains), 6).swapaxes(1, 2)
        constants = elastic_symmetry.constants_from_response(by_strain, symmetry)  # linear, like slopes
        return np.stack(list(constants.values()), -1) / GPA

    estimate = jackknife(trajectory.observed, stresses, settings.blocks)
    # the noise of cells that differ by a per cent is nearly the same, and its mean over them is the better estimate
    stderr = np.sqrt((estimate.stderr**2).mean(1))
    powers = strains[:, None] ** np.arange(3)
    fit = np.linalg.pinv(powers)
    parabola = fit @ estimate.value
    chi_squared = np.sum((estimate.value - powers @ parabola) ** 2, 1) / stderr**2
    return DeformationResult(
        np.array([p.temperature for p in points]), elastic_symmetry.elastic_names(symmetry), parabola,
        stderr * np.linalg.norm(fit[1]), estimate.value, stderr, chi_squared, settings,
    )  # fmt: skip
