"""Lennard-Jones potential with the interface of the network, for tests whose answers are known."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from fusedff.geometry.neighbors import Neighbors
from fusedff.network.radial_basis import smooth_step
from fusedff.runtime import limits


@dataclass(frozen=True)
class LennardJones:
    """Pair energy 4 epsilon [(sigma/r)^12 - (sigma/r)^6] times a polynomial switch to zero at the cut-off.

    Parameters: `epsilon` (in units of `Potential.scale`) and `sigma` (Å), one of each per species; unlike pairs follow
    the Lorentz-Berthelot rules. Raises ValueError for a setting out of its range.
    """

    repulsive: ClassVar[bool] = True
    cutoff: float  # Å
    onset: float = 0.8  # fraction of the cut-off at which the switch begins

    def __post_init__(self):
        limits.require(self, positive=["cutoff", "onset"])
        limits.between(self, "cutoff", high=limits.MAX_CUTOFF, why="give a length in Å, 3 to 12")
        limits.between(self, "onset", high=0.999, why="the switch needs room: give a fraction below 1")

    @property
    def interaction_range(self) -> float:
        """Distance (Å) up to which the energy of an atom depends on others: the cut-off."""
        return self.cutoff

    def init(self, key: jax.Array, n_species: int) -> dict:
        """Parameters of `n_species`: epsilon 1, minimum at half the cut-off (`key` is not used)."""
        return {"epsilon": jnp.ones(n_species), "sigma": jnp.full(n_species, self.cutoff / 2 / 2 ** (1 / 6))}

    def atomic_energies(self, params: dict, displacements: jax.Array, neighbors: Neighbors, species: jax.Array):
        """Energies (n_atoms,), half of every pair energy for each of its atoms, in units of `Potential.scale`.

        `displacements` (n_atoms, capacity, 3) in Å lead to the neighbours; `species` (n_atoms,) are indices.
        """
        other = species[neighbors.source]
        epsilon = jnp.sqrt(params["epsilon"][species][:, None] * params["epsilon"][other])
        sigma = (params["sigma"][species][:, None] + params["sigma"][other]) / 2
        outside = jnp.array([self.cutoff, 0, 0], displacements.dtype)
        vectors = jnp.where(neighbors.mask[..., None], displacements, outside)
        squared = jnp.sum(vectors**2, -1)
        sixth = (sigma**2 / squared) ** 3
        switch = 1 - smooth_step((jnp.sqrt(squared) / self.cutoff - self.onset) / (1 - self.onset))
        return jnp.sum(2 * epsilon * (sixth**2 - sixth) * switch, 1)
