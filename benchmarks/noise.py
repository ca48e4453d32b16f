"""Noise of the elastic constants per CPU second of simulation, for several estimators and settings (samplers).

The variance of an average is inversely proportional to the time spent on it, so variance times seconds is a property of
the estimator (and of the machine). All samplers have the same potential, cell and temperatures. CPU seconds of the
process hardly depend on other work on the machine.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fusedff
from fusedff.measurements import experiments, state_points
from fusedff.simulation import langevin as dynamics
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation, of_means
from fusedff.simulation.langevin import LangevinConfig
from fusedff.simulation.statistics import jackknife
from fusedff.study import presets
from fusedff.units import GPA

TEMPERATURES = (323, 923)  # K
REPEATS = (3, 3, 3)  # 54 atoms
EQUILIBRATION_PS = 4.0
BLOCKS = 20
PLAIN = LangevinConfig(timestep_fs=2.0, friction_per_ps=10.0, steps_per_snapshot=50)


@dataclass(frozen=True)
class Sampler:
    """Estimator and simulation settings for elastic constants; `coupled` cells of a replica share random numbers."""

    name: str
    estimator: CoupledStrains | StressFluctuation
    snapshots: int
    replicas: int = 1
    langevin: LangevinConfig = field(default_factory=lambda: PLAIN)
    coupled: bool = True


_LONG_STEPS = replace(PLAIN, timestep_fs=8.0, steps_per_snapshot=12)
_OFTEN = presets.DEMO.evaluation.langevin

SAMPLERS = (
    Sampler("stress fluctuation", StressFluctuation(), 300),
    Sampler("stress fluctuation, 8 replicas", StressFluctuation(), 60, replicas=8),
    Sampler("stress fluctuation, 8 fs", StressFluctuation(), 400, langevin=_LONG_STEPS),
    Sampler("strains, independent noise", CoupledStrains(), 60, coupled=False),
    Sampler("strains, coupled noise", CoupledStrains(), 60),
    Sampler("strains, coupled noise, 8 fs", CoupledStrains(), 160, langevin=_LONG_STEPS),
    Sampler("strains, coupled noise, 8 fs, every 40 fs", CoupledStrains(), 400, langevin=_OFTEN),
)


class Noise(NamedTuple):
    """Elastic constants by a sampler, and its cost."""

    name: str
    seconds: float  # CPU seconds of sampling, without compilation and equilibration
    names: tuple[str, ...]
    value: list  # (n_temperatures, n_constants) GPa
    stderr: list  # (n_temperatures, n_constants) GPa

    @property
    def cost(self) -> np.ndarray:
        """CPU seconds for a standard error of 1 GPa, root mean square over the constants: (n_temperatures,)."""
        return self.seconds * np.mean(np.square(self.stderr), 1)


def run(samplers=SAMPLERS, temperatures=TEMPERATURES, **length) -> Iterator[Noise]:
    """Yield the noise of one sampler after the other, with the fused titanium model that ships."""
    potential = fusedff.load("titanium-fused")
    points = state_points.select(experiments.load_state_points(), temperatures=temperatures)
    for sampler in samplers:
        yield measure(sampler, potential, points, **length)


def measure(
    sampler: Sampler, potential, points, blocks: int = BLOCKS, equilibration_ps: float = EQUILIBRATION_PS
) -> Noise:
    """Simulate with a sampler: constants, their errors from `blocks` blocks, and CPU seconds without equilibration."""
    estimator, replicas = sampler.estimator, sampler.replicas
    ensemble = estimator.cells(points, REPEATS, replicas)
    if not sampler.coupled:
        ensemble = ensemble._replace(noise_id=jnp.arange(ensemble.n_cells, dtype=jnp.int32))
    simulation = dynamics.Simulation(ensemble, sampler.langevin, potential.cutoff, estimator.observe)
    state = dynamics.start(ensemble, jax.random.PRNGKey(0))
    equilibration = max(1, round(equilibration_ps / sampler.langevin.ps_per_snapshot))
    state, _ = simulation.run(potential, state, equilibration, f"{sampler.name}, equilibration")
    begun = time.process_time()
    _, trajectory = simulation.run(potential, state, sampler.snapshots, sampler.name)
    jax.block_until_ready(trajectory.observed)
    seconds = time.process_time() - begun

    properties = of_means(estimator, ensemble, points, replicas)
    found = jackknife(trajectory.observed, lambda means: properties(means).elastic.mean(1) / GPA, blocks)
    return Noise(sampler.name, seconds, tuple(points[0].elastic), found.value.tolist(), found.stderr.tolist())


def distance(noise: Noise, plain: Noise) -> float:
    """Root mean square difference from `plain` in units of its standard error: about 1 if neither is biased."""
    error = np.hypot(noise.stderr, plain.stderr)
    return float(np.sqrt(np.mean(np.square((np.array(noise.value) - np.array(plain.value)) / error))))
