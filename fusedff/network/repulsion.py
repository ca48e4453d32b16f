"""Short-range repulsion of nuclei: the universal potential of Ziegler, Biersack and Littmark (ZBL).

J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Solids (Pergamon, 1985). Training frames
contain no atoms that nearly touch, and a network may extrapolate to attraction there. The screened repulsion of the
nuclei is known for every pair of elements. It is added below a distance that atoms reach only in collisions, so that it
does not change the energies of solids and liquids, on which networks are trained. And pairs that are closer still are
shown to the network at a distance at which it was trained (`kept_apart`): there, its energy would be arbitrary and
could outweigh the repulsion.
"""

import jax
import jax.numpy as jnp
from ase.data import covalent_radii
from ase.units import Bohr, Hartree

from fusedff.geometry.neighbors import Neighbors
from fusedff.network.radial_basis import smooth_step

OUTER = 0.53  # of the sum of covalent radii: distance of onset, 1.70 Å for two atoms of titanium
INNER = 0.60  # of the distance of onset: below this, the repulsion has its full value
CLOSEST = 0.66  # of the distance of onset, 1.12 Å for titanium: at shorter distances the network is not asked
_SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))  # amplitude, decay
_SHORTEST = 0.05  # Å: at shorter distances the energy is constant, so that it stays finite


def screened_coulomb(distance: jax.Array, z_first, z_second) -> jax.Array:
    """ZBL energy (eV) of two nuclei with atomic numbers `z_first`, `z_second` at `distance` (Å); arrays broadcast.

    V(r) = (Z1 Z2 e^2 / r) phi(r / a) with a = 0.8854 a_0 / (Z1^0.23 + Z2^0.23) and phi a sum of four exponentials.
    """
    x = distance * (z_first**0.23 + z_second**0.23) / (0.8854 * Bohr)
    screening = sum(amplitude * jnp.exp(-decay * x) for amplitude, decay in _SCREENING)
    return Hartree * Bohr * z_first * z_second / distance * screening


def kept_apart(vectors: jax.Array, neighbors: Neighbors, numbers: jax.Array) -> jax.Array:
    """Vectors to the neighbours (n_atoms, capacity, 3) as the network gets them: too short ones are lengthened.

    Distances above `CLOSEST` times the distance of onset stay as they are, to the bit. Below they approach, with three
    continuous derivatives, the mean of this and of the distance at which the repulsion has its full value, and no
    longer change: the forces of the network along such a pair vanish. `numbers` (n_atoms,) are atomic numbers.
    """
    outer = _onset(neighbors, numbers, vectors.dtype)
    high, width = CLOSEST * outer, (CLOSEST - INNER) * outer
    squared = jnp.sum(vectors**2, -1)
    close = neighbors.mask & (squared < high**2)
    distance = jnp.sqrt(jnp.where(close, jnp.maximum(squared, _SHORTEST**2), high**2))
    t = jnp.maximum(1 - (high - distance) / width, 0)
    shown = high - width / 2 + width * t**4 * (2.5 - 3 * t + t**2)  # the slope is a smooth step
    return vectors * jnp.where(close, shown / distance, 1)[..., None]


def repulsion(vectors: jax.Array, neighbors: Neighbors, numbers: jax.Array) -> jax.Array:
    """Repulsion energy of each atom (n_atoms,) in eV: half the energy of each of its pairs.

    `vectors` (n_atoms, capacity, 3) in Å lead to the neighbours, `numbers` (n_atoms,) are atomic numbers. A switch with
    two continuous derivatives rises from 0 at `OUTER` times the sum of covalent radii to 1 at `INNER` times that.
    """
    dtype = vectors.dtype
    z_first = numbers.astype(dtype)[:, None]
    z_second = numbers.astype(dtype)[neighbors.source]
    outer = _onset(neighbors, numbers, dtype)
    squared = jnp.sum(vectors**2, -1)
    near = neighbors.mask & (squared < outer**2)
    distance = jnp.sqrt(jnp.where(near, jnp.maximum(squared, _SHORTEST**2), outer**2))
    switch = smooth_step((outer - distance) / ((1 - INNER) * outer))
    return jnp.sum(jnp.where(near, 0.5 * switch * screened_coulomb(distance, z_first, z_second), 0), 1)


def _onset(neighbors, numbers, dtype):
    """Distance (n_atoms, capacity) in Å below which each pair repels."""
    radius = jnp.asarray(covalent_radii, dtype)[numbers]
    return OUTER * (radius[:, None] + radius[neighbors.source])
