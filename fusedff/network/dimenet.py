"""DimeNet++ in Haiku on neighbour lists of fixed capacity: arrays in, per-atom energies out.

Gasteiger et al., "Fast and uncertainty-aware directional message passing for non-equilibrium
molecules" (2020). The network is the published one; the sums are evaluated in another order. Usually a message
k -> j -> i is formed for every triplet of atoms. Because the spherical basis enters linearly, the sum over the messages
x_kj that arrive at j can be written as

    sum_{k != i} x_kj o (W sum_ln R_ln(d_kj) P_l(cos kji))  =  sum_{k != i} sum_l P_l(cos kji) wave_kl
    with  wave_kl = x_kj o (R_l(d_kj) W_l)

(o is the product channel by channel, R_ln the radial functions, W trained weights). So the sum over triplets becomes
dense matrix products over the slots of the central atom j (`angular.py`), with the same result to within rounding.

Messages are stored by receiver and slot: slot (i, b) holds the message j -> i from `source[i, b] = j`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from fusedff.geometry.neighbors import Neighbors, swap_direction
from fusedff.network.angular import Angles, aggregate_triplets, angles
from fusedff.network.radial_basis import chebyshev, envelope, radial_table
from fusedff.runtime import limits


@dataclass(frozen=True)
class DimeNet:
    """Architecture of the network.

    The defaults are those of the titanium paper, Röcken & Zavadlav, npj Comput. Mater. 10, 69 (2024): an embedding of
    32, 4 blocks, 6 radial and 7 spherical functions, cut-off 5 Å. Raises ValueError for a setting out of its range.
    """

    repulsive: ClassVar[bool] = False  # energies of atoms that nearly touch are not trained
    cutoff: float = 5.0  # Å
    embedding: int = 32  # channels of a message
    blocks: int = 4
    radial: int = 6  # Bessel functions per angular momentum
    spherical: int = 7  # angular momenta 0 .. spherical - 1
    interaction: int = 16  # channels of messages in the sum over triplets
    basis: int = 8  # width of the bottleneck between the basis functions and the channels
    type_embedding: int = 16  # numbers per chemical element
    output: int = 64  # width of the layers from messages to energies
    output_layers: int = 3
    layers_before_skip: int = 1
    layers_after_skip: int = 2
    envelope: int = 6  # exponent p of the polynomial cut-off

    def __post_init__(self):
        layers = ["blocks", "output_layers", "layers_before_skip", "layers_after_skip"]
        sizes = [name for name in vars(self) if name not in ("cutoff", *layers)]
        limits.require(self, count=sizes, whole=layers, positive=["cutoff"])
        for name in sizes + layers:
            most = 4096 if name in ("embedding", "interaction", "basis", "type_embedding", "output") else 50
            limits.between(self, name, high=most, why=f"give {most} at most, no machine compiles a larger network")
        limits.between(self, "spherical", high=20, why="give 20 at most, single precision resolves no more of them")
        limits.between(self, "cutoff", high=limits.MAX_CUTOFF, why="give a length in Å, 3 to 12")

    @property
    def interaction_range(self) -> float:
        """Distance (Å) up to which the energy of an atom depends on others: one cut-off, and one more per block."""
        return (self.blocks + 1) * self.cutoff

    def init(self, key: jax.Array, n_species: int) -> dict:
        """Random parameters for `n_species` chemical species (nested dict of arrays)."""
        dummy = Neighbors(*(jnp.zeros((1, 1), jnp.int32),) * 3, jnp.zeros((1, 1), bool), jnp.int32(0))
        species = jnp.zeros(1, jnp.int32)
        init = jax.jit(_transformed(self, n_species).init)  # the compiler removes the forward pass
        return init(key, jnp.ones((1, 1, 3)), dummy, species)

    def atomic_energies(self, params: dict, displacements: jax.Array, neighbors: Neighbors, species: jax.Array):
        """Energies (n_atoms,) from vectors to the neighbours (n_atoms, capacity, 3) in Å and species (n_atoms,).

        Energies are in units of `Potential.scale`; that of an atom without neighbours is a constant.
        """
        n_species = params["~"]["species"].shape[0]
        return _transformed(self, n_species).apply(params, None, displacements, neighbors, species)


@lru_cache
def _transformed(config: DimeNet, n_species: int):
    return hk.transform(lambda *arrays: _network(config, n_species, *arrays))


def _network(config, n_species, displacements, neighbors, species):
    geometry = _geometry(config, displacements, neighbors)
    message = _embed(config, geometry, jax.nn.one_hot(species, n_species, dtype=displacements.dtype), neighbors.source)
    energy = _output(config, message, geometry, "output")
    for block in range(config.blocks):
        message = _interact(config, message, geometry, neighbors.reverse, f"interaction_{block}")
        energy = energy + _output(config, message, geometry, f"output_{block}")
    return energy


# --- geometry: everything that depends on positions alone, computed once -----------------------------------


class Geometry(NamedTuple):
    """Functions of the positions that all blocks use, for n atoms with K slots."""

    bessel: jax.Array  # (n, K, radial), radial basis of the distances
    radial: jax.Array  # (n, K, rank), polynomials whose combinations are the radial parts of the spherical basis
    angles: Angles  # between the slots of an atom, see `angular.aggregate_triplets`


def _geometry(config, displacements, neighbors):
    """`Geometry` of displacement vectors (n, K, 3), Å."""
    dtype = displacements.dtype
    outside = jnp.array([2 * config.cutoff, 0, 0], dtype)
    vectors = jnp.where(neighbors.mask[..., None], displacements, outside)
    inverse = jax.lax.rsqrt(jnp.sum(vectors**2, -1))
    unit = vectors * inverse[..., None]
    x = jnp.minimum(1 / (inverse * config.cutoff), 1.0)
    smooth = envelope(x, config.envelope)
    frequencies = hk.get_parameter("frequencies", (config.radial,), init=_multiples_of_pi)
    bessel = 2**0.5 * (smooth / x)[..., None] * jnp.sin(frequencies * x[..., None])

    polynomials, _ = radial_table(config.radial, config.spherical, str(dtype))
    radial = _times(smooth[..., None] * chebyshev(x, len(polynomials)), jnp.asarray(polynomials, dtype))

    return Geometry(bessel, radial, angles(unit, config.spherical))


# --- the network ---------------------------------------------------------------------------------------------

_glorot = hk.initializers.VarianceScaling(1.0, "fan_avg", "uniform")


def silu(x: jax.Array) -> jax.Array:
    """x * sigmoid(x), by way of tanh, which on CPUs is much faster than an exponential and a division."""
    return 0.5 * x * (1 + jnp.tanh(0.5 * x))


def _multiples_of_pi(shape, dtype):
    return np.pi * jnp.arange(1, shape[0] + 1, dtype=dtype)


def _times(x, matrix):
    """x (..., n) @ matrix (n, m), with x reshaped to two axes: the matrix' gradient needs no transposed copies."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def _linear(x, size, name, bias=False, init=_glorot):
    flat = hk.Linear(size, with_bias=bias, w_init=init, name=name)(x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:-1], size)


def _layer(x, size, name):
    return silu(_linear(x, size, name, bias=True))


def _residual(x, name):
    size = x.shape[-1]
    return x + _layer(_layer(x, size, f"{name}_a"), size, f"{name}_b")


def _bottleneck(n_in, middle, n_out, name):
    """Product (n_in, n_out) of two weight matrices without an activation between them, formed once for all slots."""
    down = hk.get_parameter(f"{name}_down", (n_in, middle), init=_glorot)
    up = hk.get_parameter(f"{name}_up", (middle, n_out), init=_glorot)
    return down @ up


def _embed(config, geometry, one_hot, source):
    """First messages (n, K, embedding), from the species of both atoms and their distance."""
    vectors = hk.get_parameter(
        "species", (one_hot.shape[1], config.type_embedding), init=hk.initializers.RandomUniform(-1, 1)
    )
    kind = one_hot @ vectors
    distance = _linear(geometry.bessel, config.embedding, "embedding_distance")
    mixed = (
        _linear(kind, config.embedding, "embedding_receiver", bias=True)[:, None, :]
        + _linear(kind, config.embedding, "embedding_sender")[source]
        + _linear(distance, config.embedding, "embedding_mix")
    )
    return silu(mixed)


def _interact(config, message, geometry, reverse, name):
    """Update messages (n, K, embedding) with the other messages that arrive at their source."""
    n, capacity, channels = message.shape
    both = _layer(message, 2 * channels, f"{name}_kj_ji")
    incoming, own = both[..., :channels], both[..., channels:]
    incoming = incoming * _times(geometry.bessel, _bottleneck(config.radial, config.basis, channels, f"{name}_radial"))
    incoming = silu(_linear(incoming, config.interaction, f"{name}_down"))

    # At the central atom j: messages times radial functions, then the sum for every slot over the others.
    radial = _times(geometry.radial, _spherical_weights(config, name, geometry.radial.dtype)).reshape(
        n, capacity, config.spherical, -1
    )
    waves = incoming[:, :, None, :] * radial
    triplet_sum = aggregate_triplets(geometry.angles, waves)
    # Slot i of atom j holds the message i -> j; the sum there belongs to the message j -> i, in the reverse slot.
    triplet_sum = swap_direction(triplet_sum, reverse)

    update = own + silu(_linear(triplet_sum, channels, f"{name}_up"))
    for layer in range(config.layers_before_skip):
        update = _residual(update, f"{name}_before_{layer}")
    update = message + _layer(update, channels, f"{name}_skip")
    for layer in range(config.layers_after_skip):
        update = _residual(update, f"{name}_after_{layer}")
    return update


def _spherical_weights(config, name, dtype):
    """Weights (rank, spherical * interaction) that turn `Geometry.radial` into R_l(d) W_l."""
    table = jnp.asarray(radial_table(config.radial, config.spherical, str(dtype))[1], dtype)
    table = table.reshape(-1, config.spherical, config.radial)
    weights = _bottleneck(config.spherical * config.radial, config.basis, config.interaction, f"{name}_spherical")
    weights = weights.reshape(config.spherical, config.radial, config.interaction)
    return jnp.einsum("rln,lnc->rlc", table, weights).reshape(len(table), -1)


def _output(config, message, geometry, name):
    """Contribution of one output block to the energies (n,)."""
    weight = _linear(geometry.bessel, message.shape[-1], f"{name}_radial")
    atom = _linear(jnp.sum(message * weight, 1), config.output, f"{name}_up")
    for layer in range(config.output_layers):
        atom = _layer(atom, config.output, f"{name}_{layer}")
    return _linear(atom, 1, f"{name}_final", init=jnp.zeros)[:, 0]
