"""Lennard-Jones argon: a fast potential with known parameters, shared by many tests."""

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.crystallography.crystals import Crystal
from fusedff.geometry import neighbors, systems
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential

EPSILON, SIGMA, CUTOFF = 0.0104, 3.4, 7.0  # eV, Å, Å
FCC = Crystal("Ar", "fcc", 5.27)  # Å, close to the minimum of this potential
HCP = Crystal("Ar", "hcp", 3.72, 6.10)  # Å

evaluate = jax.jit(Potential.evaluate)


def argon(epsilon=EPSILON, sigma=SIGMA, cutoff=CUTOFF, dtype=jnp.float64) -> Potential:
    """The Lennard-Jones potential of argon; epsilon in eV, lengths in Å."""
    params = {"epsilon": jnp.array([epsilon], dtype), "sigma": jnp.array([sigma], dtype)}
    return Potential(params, LennardJones(cutoff), (18,), (0.0,))


def laid_out(frames, cutoff):
    """System and neighbours of ASE frames."""
    return systems.from_atoms(frames), neighbors.from_frames(frames, cutoff)


def labelled(frame, model: Potential, stress=True):
    """A copy of the frame with labels by `model`."""
    said = evaluate(model, *laid_out(frame, model.cutoff))
    frame = frame.copy()
    results = {"energy": float(said.energy[0]), "forces": np.asarray(said.forces)}
    if stress:
        results["stress"] = np.asarray(said.stress[0])
    frame.calc = SinglePointCalculator(frame, **results)
    return frame
