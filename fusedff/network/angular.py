"""Angular part of the network: the sum over triplets of atoms as dense matrix products, in two exact forms.

For every slot i of an atom, the sum is sum_{k != i} sum_l P_l(cos theta_ik) wave_kl, with theta_ik the angle between
the neighbours in slots i and k, and wave_kl the message in slot k times radial functions of angular momentum l (see
`dimenet`). With few neighbours, the Legendre polynomials of all pairs of slots are one matrix and the sum is one
product. With many neighbours, the addition theorem P_l(cos theta_ik) = sum_m Y_lm(i) Y_lm(k) turns it into two products
with spherical harmonics, whose cost grows linearly with the number of neighbours.
"""

from math import factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.network.cached_transpose import product

MAX_SLOTS_FOR_PAIRS = 36  # slots per atom; with more, spherical harmonics are faster (measured on a CPU for l <= 6)


class Angles(NamedTuple):
    """Matrix of Legendre polynomials or of spherical harmonics, and its transpose, for every atom."""

    matrix: jax.Array  # (n, K, K * n_l), from the waves of all slots to every slot, or (n, K, n_l^2), from harmonics
    transpose: jax.Array  # (n, K * n_l, K) or (n, n_l^2, K)


def angles(unit: jax.Array, n_l: int) -> Angles:
    """Angular matrices for `aggregate_triplets` from unit vectors to the neighbours (n, K, 3), once per geometry."""
    n, capacity, _ = unit.shape
    if capacity > MAX_SLOTS_FOR_PAIRS:
        harmonics = spherical_harmonics(unit, n_l)
        return Angles(harmonics, jnp.swapaxes(harmonics, 1, 2))
    across = jnp.swapaxes(unit, 1, 2)
    cosine = product(unit, across, across)
    itself = jnp.eye(capacity, dtype=unit.dtype)  # P_l(1) = 1: this leaves out k = i
    pairs = [p - itself for p in legendre(cosine, n_l)]
    # symmetric in the two slots: the transposed matrix has the same numbers, stacked along another axis
    return Angles(jnp.stack(pairs, 3).reshape(n, capacity, -1), jnp.stack(pairs, 2).reshape(n, -1, capacity))


def aggregate_triplets(angles: Angles, waves: jax.Array) -> jax.Array:
    """Sum (n, K, C) for every slot over the waves (n, K, n_l, C) in the other slots of its atom."""
    n, capacity, n_l, channels = waves.shape
    if capacity <= MAX_SLOTS_FOR_PAIRS:
        return product(angles.matrix, angles.transpose, waves.reshape(n, -1, channels))
    own = np.repeat(np.eye(n_l), 2 * np.arange(n_l) + 1, axis=0)  # (n_l^2, n_l), the l of every harmonic
    # one product for all (lm, l'), of which only l' = l is kept: more operations, but faster than many small products
    moments = product(angles.transpose, angles.matrix, waves.reshape(n, capacity, n_l * channels))
    moments = jnp.einsum("amlc,ml->amc", moments.reshape(n, -1, n_l, channels), jnp.asarray(own, waves.dtype))
    return product(angles.matrix, angles.transpose, moments) - jnp.sum(waves, 2)


def legendre(x: jax.Array, n_l: int) -> list[jax.Array]:
    """Legendre polynomials P_0 .. P_{n_l - 1} of x, each of the shape of x, by Bonnet's recursion."""
    polynomials = [jnp.ones_like(x), x]
    for l in range(1, n_l - 1):
        polynomials.append(((2 * l + 1) * x * polynomials[-1] - l * polynomials[-2]) / (l + 1))
    return polynomials[:n_l]


def spherical_harmonics(unit: jax.Array, n_l: int) -> jax.Array:
    """Real spherical harmonics (..., n_l^2) of unit vectors (..., 3), scaled so that sum_m Y_lm Y'_lm = P_l.

    Ordered l = 0, 1, ... and m = -l .. l. Polynomials in x, y, z, hence smooth everywhere: associated Legendre
    recursion in z times Re and Im of (x + i y)^m.
    """
    x, y, z = unit[..., 0], unit[..., 1], unit[..., 2]
    real, imaginary = [jnp.ones_like(x)], [jnp.zeros_like(x)]
    for _ in range(1, n_l):
        real, imaginary = (
            real + [x * real[-1] - y * imaginary[-1]],
            imaginary + [x * imaginary[-1] + y * real[-1]],
        )
    legendre = {}
    for m in range(n_l):
        legendre[m, m] = jnp.full_like(z, float(np.prod(np.arange(1, 2 * m, 2))))
        if m + 1 < n_l:
            legendre[m + 1, m] = (2 * m + 1) * z * legendre[m, m]
        for l in range(m + 2, n_l):
            legendre[l, m] = ((2 * l - 1) * z * legendre[l - 1, m] - (l + m - 1) * legendre[l - 2, m]) / (l - m)
    columns = []
    for l in range(n_l):
        for m in range(-l, l + 1):
            norm = ((2 if m else 1) * factorial(l - abs(m)) / factorial(l + abs(m))) ** 0.5
            columns.append(norm * legendre[l, abs(m)] * (real[m] if m >= 0 else imaginary[-m]))
    return jnp.stack(columns, -1)
