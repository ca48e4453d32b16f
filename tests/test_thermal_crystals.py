"""Elastic constants of compounds and crystals of low symmetry from dynamics, against those at 0 K and each other."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from ase.build import bulk

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential
from fusedff.properties.static import elastic as static_elastic
from fusedff.properties.static import relax
from fusedff.properties.static.relax import RelaxationConfig
from fusedff.properties.thermal import lattice
from fusedff.properties.thermal.lattice import LatticeConfig
from fusedff.simulation import langevin
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation, of_means
from fusedff.simulation.langevin import LangevinConfig
from fusedff.simulation.statistics import jackknife
from fusedff.units import GPA

OPTIMIZED = True  # long dynamics, see conftest.py


@dataclass(frozen=True)
class Wells:
    """A Gaussian well at every distance of `shells` (Å), whatever the elements: springs between those neighbours."""

    repulsive: ClassVar[bool] = True
    shells: tuple[float, ...]
    cutoff: float
    width: float = 0.2  # Å

    @property
    def interaction_range(self):
        return self.cutoff

    def init(self, key, n_species):
        return {"depth": jnp.array(0.01)}

    def atomic_energies(self, params, displacements, neighbors, species):
        outside = jnp.array([self.cutoff, 0, 0], displacements.dtype)
        distance = jnp.linalg.norm(jnp.where(neighbors.mask[..., None], displacements, outside), axis=-1)
        wells = sum(jnp.exp(-(((distance - shell) / self.width) ** 2)) for shell in self.shells)
        return -params["depth"] / 2 * jnp.sum(jnp.where(neighbors.mask, wells, 0), 1)


def wells(numbers, shells, cutoff):
    return Potential({"depth": jnp.array(0.01)}, Wells(shells, cutoff), numbers, (0.0,) * len(numbers))


def askew():
    """hcp argon in a cell with six different edges and angles: triclinic, with an atom that is free to move."""
    atoms = bulk("Ar", "hcp", a=3.68, c=6.0)
    strain = np.array([[0.02, 0.012, -0.01], [0.012, -0.015, 0.008], [-0.01, 0.008, 0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return crystals.from_structure(atoms)


CASES = {
    "B2": (wells((13, 28), (2.49, 2.88), 3.5), Crystal("NiAl", "cesiumchloride", 2.86), (2, 2, 2), 5.0),
    "diamond": (wells((14,), (2.35, 3.84), 4.4), Crystal("Si", "diamond", 5.40), (1, 1, 1), 5.0),
    "triclinic": (argon(), askew(), (2, 2, 1), 8.0),
}


def measure(name, estimator, temperature, replicas, snapshots):
    """Constants (GPa) and their standard errors."""
    model, crystal, repeats, step = CASES[name]
    points, settings = [StatePoint(temperature, crystal)], LangevinConfig(step, 5.0, 20, 0.6)
    cells = estimator.cells(points, repeats, replicas, jnp.float64)
    simulation = langevin.Simulation(cells, settings, model.cutoff, estimator.observe)
    state, _ = simulation.run(model, langevin.start(cells, jax.random.PRNGKey(0)), 20)
    trajectory = simulation.run(model, state, snapshots)[1]

    properties = of_means(estimator, cells, points, replicas)
    found = jackknife(trajectory.observed, lambda means: properties(means).elastic[0].mean(0) / GPA, 10)
    names = elastic_symmetry.elastic_names(crystals.symmetry(crystal))
    return dict(zip(names, found.value, strict=True)), dict(zip(names, found.stderr, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_constants_near_zero_kelvin_are_the_static_ones_of_relaxed_ions(name):
    model, crystal, *_ = CASES[name]
    cell, symmetry = crystals.unit_cell(crystal), crystals.symmetry(crystal)
    static = static_elastic.run(cell, FusedCalculator(model), symmetry, 5e-4, RelaxationConfig(1e-6), name=None)
    clamped = elastic_symmetry.reduce_stiffness(static.clamped_gpa, symmetry)
    found, error = measure(name, CoupledStrains(0.002), 0.5, 2, 40)
    # thermal softening is 0.4 % of C11 at 0.5 K
    allowed = 0.01 * found["C11"]
    for key, value in static.constants_gpa.items():
        assert found[key] == pytest.approx(value, abs=allowed), key
        assert error[key] < allowed
    if name != "B2":  # whose atoms are centres of inversion; elsewhere the test can tell
        assert max(abs(clamped[key] - found[key]) for key in found) > 5 * allowed


@pytest.mark.parametrize("name", CASES)
def test_stress_fluctuation_and_coupled_strains_agree_where_the_crystal_is_warm(name):
    """At 20 K, where the wells have softened C11 by a sixth (B2) and a tenth (diamond)."""
    coupled, error = measure(name, CoupledStrains(0.005), 20.0, 2, 40)
    fluctuation, other = measure(name, StressFluctuation(), 20.0, 4, 100)
    size = coupled["C11"]
    for key in coupled:
        both = np.hypot(error[key], other[key])
        assert both < 0.025 * size
        # four standard errors for the worst of up to 21 constants, and the square of the strain
        assert coupled[key] == pytest.approx(fluctuation[key], abs=4 * both + 0.005 * size), key


def test_a_triclinic_guess_finds_the_lattice_constants_and_angles_of_hcp():
    """All six are free; at 0.5 K the crystal has expanded by less than a thousandth."""
    model, crystal, repeats, step = CASES["triclinic"]
    settings = LatticeConfig(
        repeats=repeats, replicas=1, langevin=LangevinConfig(step, 5.0, 20, 0.6), passes=3, equilibration=10,
        approach=10, snapshots=10, blocks=5,
    )  # fmt: skip
    found = lattice.run(argon(dtype=jnp.float32), crystal, [0.5], settings, name=None)
    assert found.names == ("a", "b", "c", "alpha", "beta", "gamma")
    hcp = relax.equilibrium(Crystal("Ar", "hcp", 3.72, 6.1), FusedCalculator(model))
    np.testing.assert_allclose(found.lengths[0], [hcp.a, hcp.a, hcp.c, 90, 90, 120], rtol=1e-3)
    assert set(found.as_dict()["by_temperature_K"]["0.5"]) >= {
        "a_A",
        "b_A",
        "c_A",
        "alpha_deg",
        "beta_deg",
        "gamma_deg",
    }
