"""Angular part of the network: the sum over triplets of atoms as dense matrix products, in two exact forms.

Every slot i of an atom receives sum_{k != i} sum_l P_l(cos of slots i, k) wave_kl from the other slots. With few
neighbours the Legendre polynomials of all pairs of slots are one matrix and the sum is one product. With many
neighbours the addition theorem P_l(cos) = sum_m Y_lm(i) Y_lm(k) takes the waves through spherical harmonics,
at a cost that grows linearly with the number of neighbours.
"""

from math import factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.network.cached_transpose import product

PAIRS_UP_TO = 36  # slots; beyond, harmonics are faster (measured on CPU for l <= 6)


class Angles(NamedTuple):
    """Matrix from waves to slots (pairs), or from harmonics to slots, and its transpose."""

    forth: jax.Array
    back: jax.Array


def angles(unit: jax.Array, n_l: int) -> Angles:
    """Angular matrices of `aggregate_triplets` from unit vectors to the neighbours (n, K, 3), once per geometry."""
    n, capacity, _ = unit.shape
    if capacity > PAIRS_UP_TO:
        harmonics = spherical_harmonics(unit, n_l)
        return Angles(harmonics, jnp.swapaxes(harmonics, 1, 2))
    across = jnp.swapaxes(unit, 1, 2)
    cosine = product(unit, across, across)
    itself = jnp.eye(capacity, dtype=unit.dtype)  # P_l(1) = 1: no message meets its own slot
    pairs = [p - itself for p in legendre(cosine, n_l)]
    # symmetric in the two slots: the transposed matrix is the same numbers stacked the other way
    return Angles(jnp.stack(pairs, 3).reshape(n, capacity, -1), jnp.stack(pairs, 2).reshape(n, -1, capacity))


def aggregate_triplets(angles: Angles, waves: jax.Array) -> jax.Array:
    """Sum (n, K, C) that every slot receives from the waves (n, K, n_l, C) of the other slots of its atom."""
    n, capacity, n_l, channels = waves.shape
    if capacity <= PAIRS_UP_TO:
        return product(angles.forth, angles.back, waves.reshape(n, -1, channels))
    own = np.repeat(np.eye(n_l), 2 * np.arange(n_l) + 1, axis=0)  # (l*l, l), which l a harmonic belongs to
    # one product over all (lm, l') of which only l' = l is kept: wasteful on paper, faster than many small ones
    moments = product(angles.back, angles.forth, waves.reshape(n, capacity, n_l * channels))
    moments = jnp.einsum("amlc,ml->amc", moments.reshape(n, -1, n_l, channels), jnp.asarray(own, waves.dtype))
    return product(angles.forth, angles.back, moments) - jnp.sum(waves, 2)


def legendre(x: jax.Array, n_l: int) -> list[jax.Array]:
    """Legendre polynomials P_0 .. P_{n_l - 1} of x, by Bonnet's recursion."""
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
