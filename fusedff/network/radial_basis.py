"""Radial functions: polynomials that switch smoothly, and DimeNet's spherical Bessel functions, tabulated for speed.

Gasteiger et al., "Directional message passing for molecular graphs" (2020). The network needs the functions, and their
first and second derivatives, at every distance. The trigonometric recursions for spherical Bessel functions lose all
digits at short distances. Polynomials in x = distance / cut-off replace them: smooth to every order and cheaper.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq
from scipy.special import spherical_jn

SHORTEST = 0.04  # of the cut-off; the functions are tabulated from here on


def envelope(x: jax.Array, p: int) -> jax.Array:
    """Polynomial cut-off of DimeNet (eq. 8) with exponent p: 1 at x = 0, and zero with two derivatives at x = 1."""
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    return jnp.where(x < 1, 1 + x**p * (a + x * (b + x * c)), 0.0)


def smooth_step(t: jax.Array) -> jax.Array:
    """Polynomial from 0 for t <= 0 to 1 for t >= 1, with two continuous derivatives."""
    t = jnp.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


def spherical_bessel_roots(n: int, n_l: int) -> np.ndarray:
    """First `n` positive zeros of the spherical Bessel functions j_0 .. j_{n_l - 1}: (n_l, n)."""
    roots = [np.pi * np.arange(1, n + n_l)]
    for angular in range(1, n_l):
        above = roots[-1]  # the zeros of j_l lie between those of j_{l-1}
        between = zip(above[:-1], above[1:], strict=True)
        roots.append(np.array([brentq(lambda r, m=angular: spherical_jn(m, r), a, b, xtol=1e-14) for a, b in between]))
    return np.stack([r[:n] for r in roots])


def spherical_bessel_basis(x: np.ndarray, n: int, n_l: int) -> np.ndarray:
    """Radial functions (n_x, n_l * n) of DimeNet, eq. 6, without the envelope, straight from their definition.

    sqrt(2) / |j_{l+1}(z_ln)| j_l(z_ln x) Y_l0(0), with z_ln the n-th zero of the spherical Bessel function j_l and x
    (n_x,) the distance in units of the cut-off. Computed in double precision, and too slow for the network, which uses
    `radial_table` instead.
    """
    roots = spherical_bessel_roots(n, n_l)
    angular = np.arange(n_l)[:, None]
    norm = np.sqrt(2.0) / np.abs(spherical_jn(angular + 1, roots)) * np.sqrt((2 * angular + 1) / (4 * np.pi))
    return (norm * spherical_jn(angular, x[:, None, None] * roots)).reshape(len(x), -1)


@lru_cache
def radial_table(n: int, n_l: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev coefficients (degree, rank) of `rank` polynomials, and weights (rank, n_l * n) that give the basis.

    The product of `chebyshev(x, degree)`, coefficients and weights is `spherical_bessel_basis(x, n, n_l)` to within
    rounding in `dtype`, for x from `SHORTEST` to 1. The basis functions are nearly linearly dependent: in single
    precision, 42 of them are combinations of 16 polynomials.
    """

    def functions(x):
        return spherical_bessel_basis(x, n, n_l)

    fine = np.linspace(-1, 1, 2001)
    exact = functions(SHORTEST + (fine + 1) / 2 * (1 - SHORTEST))
    tolerance = (2e-7 if dtype == "float32" else 1e-13) * np.abs(exact).max()
    for degree in range(8, 120, 2):
        nodes = np.cos(np.pi * (np.arange(2 * degree) + 0.5) / (2 * degree))
        values = functions(SHORTEST + (nodes + 1) / 2 * (1 - SHORTEST))
        coefficients = np.polynomial.chebyshev.chebvander(nodes, degree - 1).T @ values / degree
        coefficients[0] /= 2
        chebyshev = np.polynomial.chebyshev.chebvander(fine, degree - 1)
        if np.abs(chebyshev @ coefficients - exact).max() < tolerance:
            break
    orthogonal, triangle = np.linalg.qr(chebyshev)
    left, sizes, right = np.linalg.svd(triangle @ coefficients)
    for rank in range(1, len(sizes) + 1):
        table = sizes[:rank, None] * right[:rank]
        if np.abs(orthogonal @ left[:, :rank] @ table - exact).max() < 2 * tolerance:
            break
    one = len(fine) ** 0.5  # scales every polynomial to a root mean square of 1
    return np.linalg.solve(triangle, left[:, :rank]) * one, table / one


def chebyshev(x: jax.Array, n: int) -> jax.Array:
    """Chebyshev polynomials T_0 .. T_{n-1} on the interval from `SHORTEST` to 1: (..., n); constant below it."""
    t = jnp.maximum((x - SHORTEST) * (2 / (1 - SHORTEST)) - 1, -1.0)
    polynomials = [jnp.ones_like(t), t]
    for _ in range(n - 2):
        polynomials.append(2 * t * polynomials[-1] - polynomials[-2])
    return jnp.stack(polynomials, -1)
