"""Liquids: free atoms, whose diffusion is known, and a Lennard-Jones liquid with published energy and pressure."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from ase.build import bulk

from fusedff.properties.thermal import liquid
from fusedff.properties.thermal.liquid import LiquidConfig
from fusedff.simulation.langevin import LangevinConfig
from fusedff.units import GPA, KB

OPTIMIZED = True  # long dynamics, see conftest.py
FAST = LangevinConfig(timestep_fs=10.0, friction_per_ps=5.0, steps_per_snapshot=10, skin=1.0)
MASS_ARGON = 39.95


def test_free_atoms_diffuse_with_kt_over_m_gamma_and_have_no_structure():
    """A potential without forces: an ideal gas of Langevin particles whose centre of mass is held."""
    friction = 20.0  # 1/ps; strong, so that little time is needed
    settings = LiquidConfig(
        replicas=4, langevin=replace(FAST, skin=0.5), melting=30, equilibration=1, friction_per_ps=friction,
        snapshots=60, diffusive_ps=(0.3, 1.5), spacing=0.5,
    )  # fmt: skip
    frame, temperatures = bulk("Ar", "fcc", a=5.5, cubic=True) * (2, 2, 2), [100.0, 160.0]
    none = argon(epsilon=0.0, sigma=0.1, cutoff=1.0, dtype=jnp.float32)
    result = liquid.run(none, [frame, frame], temperatures, settings, name=None)
    n = len(frame)
    expected = (
        KB * result.temperature / MASS_ARGON * 9648.53 / friction * (n - 1) / n
    )  # Å^2/ps; 1 eV/amu = 9648.53 (Å/ps)^2
    assert (result.diffusion.stderr < 0.12 * expected).all()
    # the error bar of four replicas is itself uncertain by 40 %
    assert (np.abs(result.diffusion.value - expected) < 6 * result.diffusion.stderr).all()
    assert result.diffusion.value == pytest.approx(expected, rel=0.25)
    far = result.r > 1.0  # few pairs are found nearer
    assert np.abs(result.radial.value[:, far] - 1).mean() < 0.05
    gas = n * KB * result.temperature / frame.get_volume() / GPA
    np.testing.assert_allclose(result.pressure_gpa.value, gas, rtol=1e-5)


def test_a_lennard_jones_liquid_has_the_published_energy_and_pressure():
    """T* = 0.85, rho* = 0.776: U* = -5.5121(4), P* = 0.007(2), NIST Standard Reference Simulation Website, Monte Carlo.

    The published numbers are those of the whole potential; what the switch takes away is added for g = 1 beyond it.
    """
    epsilon, sigma, cutoff, density = 0.0104, 3.4, 8.5, 0.776
    temperature, a = 0.85 * epsilon / KB, sigma * (4 / density) ** (1 / 3)
    frame = bulk("Ar", "fcc", a=a, cubic=True) * (3, 3, 3)
    settings = LiquidConfig(
        replicas=2, langevin=FAST, melting_factor=4.0, melting=30, equilibration=20, friction_per_ps=0.5, snapshots=80,
        diffusive_ps=(1.0, 3.0), spacing=0.1,
    )  # fmt: skip
    result = liquid.run(argon(epsilon, sigma, cutoff, jnp.float32), [frame], [temperature], settings, name=None)
    r = np.linspace(0.8 * cutoff, 40 * sigma, 200_000) / sigma
    t = np.clip((r * sigma / cutoff - 0.8) / 0.2, 0, 1)
    whole = 4 * (r**-12 - r**-6)
    missing = whole * (t**3 * (10 - 15 * t + 6 * t**2))
    energy = result.energy.value[0] / epsilon + 2 * np.pi * density * np.trapezoid(missing * r**2, r)
    slope = np.gradient(missing, r)
    tail = -2 / 3 * np.pi * density**2 * np.trapezoid(slope * r**3, r)
    pressure = result.pressure_gpa.value[0] * GPA * sigma**3 / epsilon + tail
    # standard errors of 0.04 and 0.15 from two short replicas; g beyond 2 sigma is one to within some per cent
    assert energy == pytest.approx(-5.5121, abs=0.1)
    assert pressure == pytest.approx(0.007, abs=0.4)
    assert result.shell[0] == pytest.approx(1.55 * sigma, abs=0.12 * sigma)
    assert 12 < result.coordination.value[0] < 14.5
    assert result.radial.value[0].max() == pytest.approx(2.6, abs=0.3)
    # the order of magnitude only, D* of some hundredths: friction and 108 atoms lower it by a few and by some 20 %
    unit = sigma * np.sqrt(epsilon / MASS_ARGON * 9648.53)
    assert 0.03 < result.diffusion.value[0] / unit < 0.07
    assert np.trapezoid(result.angular.value[0], result.angles) == pytest.approx(1)


def test_a_crystal_that_does_not_melt_is_refused():
    settings = LiquidConfig(replicas=2, langevin=FAST, melting=2, snapshots=40, diffusive_ps=(0.5, 1.0), spacing=0.1)
    frame = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    with pytest.raises(ValueError, match="still a crystal"):
        liquid.run(argon(cutoff=5.0, dtype=jnp.float32), [frame], [10.0], settings, name=None)
    with pytest.raises(ValueError, match="temperatures .10.0, 10.0. K repeat"):
        liquid.run(argon(cutoff=5.0, dtype=jnp.float32), [frame, frame], [10.0, 10.0], settings, name=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 1}, "use two or more"),
        ({"snapshots": 30}, "twice as long"),
        ({"diffusive_ps": (0.95, 1.04)}, "points there are 1; a line needs two or more"),
        ({"diffusive_ps": (0.0, 0.04)}, "points there are 0"),
    ],
)
def test_settings_without_an_error_bar_or_a_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LiquidConfig(langevin=FAST, **{"snapshots": 400, **changes})


@pytest.mark.parametrize("name", ["melting", "equilibration"])
def test_a_liquid_melts_and_equilibrates(name):
    with pytest.raises(ValueError, match=f"{name} = 0; give a whole number from 1 on"):
        LiquidConfig(**{name: 0})


def test_the_displacement_of_atoms_in_steady_motion_grows_with_the_square_of_time(rng):
    velocity = rng.normal(size=(1, 2, 7, 3))
    positions = rng.normal(size=(1, 2, 7, 3)) + np.arange(30)[:, None, None, None] * velocity
    found = liquid.mean_squared_displacement(positions, [1, 4, 10])
    expected = (velocity[0] ** 2).sum(-1).mean(-1)[:, None] * np.array([1, 16, 100])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
