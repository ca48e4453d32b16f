"""Elastic constants from deformed Lennard-Jones crystals, against those at 0 K and from the other estimators."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from argon import HCP, argon

from fusedff.crystallography.crystals import Crystal, unit_cell
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.properties.static import elastic as static_elastic
from fusedff.properties.thermal import deformation, elastic
from fusedff.properties.thermal.deformation import DeformationConfig
from fusedff.properties.thermal.elastic import ElasticConfig
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation
from fusedff.simulation.langevin import LangevinConfig

OPTIMIZED = True  # long dynamics, see conftest.py
MODEL = argon(dtype=jnp.float32)
SQUEEZED = Crystal("Ar", "fcc", 5.15)  # at about 1 kbar
LANGEVIN = LangevinConfig(timestep_fs=8.0, friction_per_ps=5.0, steps_per_snapshot=20, skin=0.6)
COLD = DeformationConfig(
    (-0.002, -0.001, 0, 0.001, 0.002),
    repeats=(1, 1, 1),
    replicas=1,
    langevin=LANGEVIN,
    equilibration=10,
    snapshots=30,
    blocks=5,
)


def test_slopes_of_a_cold_fcc_crystal_are_its_static_constants():
    static = static_elastic.run(unit_cell(SQUEEZED), FusedCalculator(argon()), "cubic", name=None).constants_gpa
    result = deformation.run(MODEL, [StatePoint(0.5, SQUEEZED)], COLD, name=None)
    assert result.names == tuple(static)
    expected = np.array(list(static.values()))
    # three standard errors, and thermal softening at 1/200 of the melting point
    assert (np.abs(result.elastic[0] - expected) < 3 * result.elastic_stderr[0] + 0.015 * expected).all()
    assert (result.elastic_stderr[0] < 0.03 * expected.max()).all()


def test_slopes_of_a_cold_hcp_crystal_are_those_of_coupled_strains():
    """Whose constants are the static ones with ions relaxed, see test_elasticity."""
    points, strains = [StatePoint(0.5, HCP)], (-0.006, -0.003, 0, 0.003, 0.006)
    slopes = deformation.run(MODEL, points, replace(COLD, strains=strains, replicas=4), name=None)
    coupled = elastic.run(
        MODEL,
        points,
        ElasticConfig(
            CoupledStrains(0.002),
            repeats=(1, 1, 1),
            replicas=1,
            langevin=LANGEVIN,
            equilibration=20,
            snapshots=20,
            blocks=5,
        ),
        name=None,
    )
    error = np.hypot(slopes.elastic_stderr, coupled.elastic_stderr)
    assert (np.abs(slopes.elastic - coupled.elastic) < 3.5 * error + 0.005 * coupled.elastic.max()).all()
    assert error.max() < 0.03 * coupled.elastic.max()


def test_a_warm_crystal_has_the_constants_of_the_stress_fluctuation_and_stresses_on_a_parabola():
    points, repeats = [StatePoint(40.0, SQUEEZED)], (1, 1, 1)
    strains = (-0.012, -0.006, 0, 0.006, 0.012)
    settings = replace(COLD, strains=strains, replicas=8, snapshots=200, blocks=10, seed=3)
    slopes = deformation.run(MODEL, points, settings, name=None)
    fluctuation = elastic.run(
        MODEL,
        points,
        ElasticConfig(
            StressFluctuation(),
            repeats=repeats,
            replicas=8,
            langevin=LANGEVIN,
            equilibration=10,
            snapshots=150,
            blocks=10,
            seed=2,
        ),
        name=None,
    )
    error = np.hypot(slopes.elastic_stderr, fluctuation.elastic_stderr)
    assert error.max() < 0.05 * fluctuation.elastic.max()  # tight enough to mean something
    assert (np.abs(slopes.elastic - fluctuation.elastic) < 3.5 * error).all()
    # chi^2 of two degrees of freedom is above 11.6 once in 300
    assert slopes.degrees_of_freedom == 2
    assert (slopes.chi_squared < 11.6).all()


def test_chi_squared_tells_when_strains_are_too_large_for_a_parabola():
    strains = (-0.04, -0.02, 0.0, 0.02, 0.04)
    result = deformation.run(MODEL, [StatePoint(0.5, SQUEEZED)], replace(COLD, strains=strains), name=None)
    assert result.chi_squared[0, 0] > 1e3
    entry = json.loads(json.dumps(result.as_dict()))
    assert entry["elastic_GPa"]["0.5"]["C11"]["chi_squared"] == pytest.approx(result.chi_squared[0, 0])
    assert entry["settings"]["strains"] == list(strains)
    assert entry["degrees_of_freedom"] == 2


@pytest.mark.parametrize("strains", [(-0.01, 0, 0.01), (0.0, 0.0, -0.01, 0.01), (-0.2, -0.1, 0, 0.2)])
def test_strains_without_a_parabola_are_refused(strains):
    with pytest.raises(ValueError, match="give four or more different ones below 0.1"):
        DeformationConfig(strains)
