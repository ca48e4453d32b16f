"""Lattice constants of Lennard-Jones crystals against the minimum of their quasi-harmonic free energy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from scipy.optimize import minimize

from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.geometry import neighbors, systems
from fusedff.properties.thermal import lattice
from fusedff.properties.thermal.lattice import LatticeConfig
from fusedff.simulation.langevin import LangevinConfig
from fusedff.units import GPA, KB

OPTIMIZED = True  # long dynamics, see conftest.py
MODEL = argon()
LANGEVIN = LangevinConfig(timestep_fs=8.0, friction_per_ps=10.0, steps_per_snapshot=10, skin=0.4)
GUESS = {"fcc": Crystal("Ar", "fcc", 5.2), "hcp": Crystal("Ar", "hcp", 3.70, 6.12)}
REPEATS = {"fcc": (1, 1, 1), "hcp": (2, 2, 1)}


@jax.jit
def _energy_and_hessian(positions, system, near):
    def energy(r):
        return MODEL.energies(system._replace(positions=r), near)[0]

    return energy(positions), jax.hessian(energy)(positions)


def quasi_harmonic(structure, temperature, pressure=0.0):
    """Lattice constants (a, c) and volume per atom that minimize E + kT/2 sum ln lambda - kT ln V + P V.

    lambda are the curvatures of the energy of the same periodic cell, exact for small amplitudes; ln V is the free
    translation of the centre of mass.
    """
    guess = GUESS[structure]

    def free_energy(lengths):
        a, *c = lengths
        atoms = crystals.supercell(Crystal("Ar", structure, a, *c), REPEATS[structure])
        system, near = systems.from_atoms(atoms), neighbors.from_frames(atoms, MODEL.cutoff, 110)
        energy, hessian = _energy_and_hessian(system.positions, system, jax.tree.map(jnp.asarray, near))
        curvatures = np.linalg.eigvalsh(np.asarray(hessian).reshape(3 * len(atoms), -1))[3:]
        kt, volume = KB * temperature, atoms.get_volume()
        return float(energy) + kt * (np.log(curvatures).sum() / 2 - np.log(volume)) + pressure * volume

    start = [guess.a, guess.c] if guess.c else [guess.a]
    options = {"xatol": 1e-6, "fatol": 1e-12}
    lengths = minimize(free_energy, start, method="Nelder-Mead", options=options).x
    cell = crystals.unit_cell(Crystal("Ar", structure, *lengths))
    return lengths, cell.get_volume() / len(cell)


@pytest.mark.parametrize(("structure", "pressure"), [("hcp", 0.0), ("fcc", 0.2 * GPA)])
def test_lattice_constants_and_expansion_at_low_temperature_are_quasi_harmonic(structure, pressure):
    settings = LatticeConfig(
        repeats=REPEATS[structure], replicas=4, langevin=LANGEVIN, passes=2, equilibration=10, approach=20,
        snapshots=200, blocks=20, seed=3,  # of 5 blocks, error bars scatter by a factor of three
    )  # fmt: skip
    temperatures = [2.0, 5.0, 8.0]
    result = lattice.run(argon(dtype=jnp.float32), GUESS[structure], temperatures, settings, pressure, name=None)
    expected = [quasi_harmonic(structure, t, pressure) for t in temperatures]
    lengths, volumes = np.array([e[0] for e in expected]), np.array([e[1] for e in expected])
    shift = lengths[-1] - lengths[0]
    assert (result.lengths_stderr < 0.1 * shift).all()
    # four standard errors, and what quasi-harmonic leaves out: of second order in T, a few % of the shift
    allowance = 0.03 * np.abs(shift) * (np.array(temperatures)[:, None] / 8) ** 2
    assert (np.abs(result.lengths - lengths) < 4 * result.lengths_stderr + allowance).all()
    assert (np.abs(result.volume - volumes) < 4 * result.volume_stderr + 0.03 * np.ptp(volumes)).all()
    slope = (lengths[-1] - lengths[0]) / 6 / lengths[1]
    assert (np.abs(result.expansion[1] - slope) < 4 * result.expansion_stderr[1] + 0.03 * slope).all()
    assert result.expansion_stderr[1, 0] < 0.1 * slope[0]
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["pressure_GPa"] == pytest.approx(pressure / GPA)
    assert plain["settings"]["snapshots"] == 200
    row = plain["by_temperature_K"]["5"]
    assert row["a_A"]["value"] == pytest.approx(result.lengths[1, 0])
    assert ("c_A" in row) == (structure == "hcp")


def test_one_temperature_has_no_expansion_and_bad_temperatures_are_refused():
    settings = LatticeConfig(
        repeats=(1, 1, 1), replicas=1, langevin=LANGEVIN, passes=1, equilibration=2, snapshots=10, blocks=5
    )
    model = argon(dtype=jnp.float32)
    result = lattice.run(model, GUESS["fcc"], [2.0], settings, name=None)
    assert np.isnan(result.expansion).all()
    assert set(result.as_dict()["by_temperature_K"]["2"]) == {"volume_A3_per_atom", "a_A", "residual_GPa"}
    assert np.isfinite(result.lengths).all()
    with pytest.raises(ValueError, match="not ascending"):
        lattice.run(model, GUESS["fcc"], [20.0, 10.0], settings, name=None)
    with pytest.raises(ValueError, match="start nearer to the equilibrium"):
        lattice.run(model, Crystal("Ar", "fcc", 6.6), [2.0], settings, name=None)
