"""Radial and angular distribution functions of the atoms in snapshots.

Histograms are continuous functions of the positions: each value is shared linearly between the two nearest of evenly
spaced centres (a triangular kernel). Its two weights add up to one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.geometry.neighbors import Neighbors, displacements
from fusedff.geometry.systems import System, heights

ANGLES = np.arange(0.0, 181.0, 3.0)  # degrees, from 0 to 180


def smooth_histogram(values: jax.Array, weights: jax.Array, centres) -> jax.Array:
    """Sum of weights near every centre: values and weights (n_cells, ...) -> (n_cells, n_centres)."""
    centres = jnp.asarray(centres, values.dtype)
    width = centres[1] - centres[0]
    axes = tuple(range(1, values.ndim))
    near = jax.lax.map(lambda c: jnp.sum(weights * jnp.maximum(0, 1 - jnp.abs(values - c) / width), axes), centres)
    return near.T


def shell_volumes(r) -> np.ndarray:
    """Volumes (n_bins,) in Å^3 of the spherical shells around evenly spaced radii r, weighted as the histogram is."""
    spacing = r[1] - r[0]
    return 4 * np.pi * (r**2 * spacing + spacing**3 / 6)


def require_radii(r, cells) -> None:
    """Raise ValueError unless radii are even steps that start at least one step from zero and fit half of every cell.

    Beyond half the smallest height of a cell (n_cells, 3, 3) several images of the same neighbour would count.
    """
    r = np.asarray(r, float)
    steps = np.diff(r)
    if r.ndim != 1 or len(r) < 2 or not np.allclose(steps, steps[0], rtol=1e-3) or not 0 < steps[0] < 1.001 * r[0]:
        raise ValueError(
            "radii are evenly spaced, ascending, and the first is at least one step: e.g. 0.05 * np.arange(1, 120) Å"
        )
    reach, half = r[-1] + steps[0], largest_radius(cells)
    if reach > half * (1 + 1e-6):
        raise ValueError(
            f"radii reach {reach:.3f} Å (the last one and a step), beyond half the smallest height of the cells, "
            f"{half:.3f} Å; use a larger cell or stop earlier"
        )


def largest_radius(cells) -> float:
    """Half the smallest distance between opposite faces of any of the cells (n_cells, 3, 3), Å."""
    return float(heights(cells).min() / 2)


def radial_distribution(system: System, r, pair=None) -> jax.Array:
    """g(r) at radii r (n_bins,) in Å that passed `require_radii`: (n_cells, n_bins), without unit.

    The mean number of other atoms in a shell, divided by that of an even spread, (n - 1) / V times the volume of the
    shell. With n - 1 instead of n it is one for independent atoms in a cell of any size. All cells hold n atoms. A
    partial g(r) counts, around the atoms of the first of two masks `pair` (n,), those of the second.
    """
    fractional = system.positions.reshape(system.n_cells, -1, 3) @ jnp.linalg.inv(system.cells)
    n = fractional.shape[1]
    delta = fractional[:, :, None] - fractional[:, None]
    nearest = (delta - jnp.round(delta)) @ system.cells[:, None]
    others = ~np.eye(n, dtype=bool)
    if pair is not None:
        others &= np.outer(*pair)
    count = smooth_histogram(jnp.linalg.norm(nearest, axis=-1), others, r)
    return count * system.volumes[:, None] / (others.sum() * jnp.asarray(shell_volumes(r), count.dtype))


def coordination(r, g, density: float, within: float) -> np.ndarray:
    """Mean number of neighbours (...) up to `within` (Å) from g (..., n_bins) at radii r (n_bins,) in Å.

    `density` is that of the other atoms, (n - 1) / V in 1/Å^3, see `radial_distribution`. Half of what is counted at a
    radius lies beyond it, so the radius at the edge counts half.
    """
    r = np.asarray(r)
    inside = np.clip(0.5 + (within - r) / (r[1] - r[0]), 0, 1)
    return density * np.sum(np.asarray(g) * shell_volumes(r) * inside, -1)


def angular_distribution(system: System, near: Neighbors, within: float) -> jax.Array:
    """Histogram (n_cells, n_angles) of the angles between two neighbours of an atom, in pairs per atom and degree.

    Neighbours are the entries of `near` closer than `within` (Å). Each pair counts twice, in either order. The angles
    are `ANGLES`. Neighbours in independent directions give a curve proportional to the sine of the angle. Divided by
    its integral (the trapezoidal rule is exact here) the histogram is a density.
    """
    vectors = displacements(system, near)
    squared = jnp.sum(vectors**2, -1)
    inside = near.mask & (squared < within**2)
    unit = vectors / jnp.sqrt(jnp.where(inside, squared, 1))[..., None]
    cosine = jnp.einsum("aix,ajx->aij", unit, unit)
    angle = jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))
    pairs = inside[:, :, None] & inside[:, None, :] & ~jnp.eye(near.capacity, dtype=bool)
    count = smooth_histogram(*(x.reshape(system.n_cells, -1) for x in (angle, pairs)), ANGLES)
    width = np.gradient(ANGLES) * np.where((ANGLES == ANGLES[0]) | (ANGLES == ANGLES[-1]), 0.5, 1)
    return count / (len(angle) // system.n_cells * jnp.asarray(width, count.dtype))
