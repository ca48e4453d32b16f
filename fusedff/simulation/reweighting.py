"""Averages with other parameters from the same snapshots, and their gradient (DiffTRe).

Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021). Snapshots drawn with parameters theta_0 represent theta with
weights w_s ~ exp(-beta (U_theta(s) - U_theta0(s))). No gradient flows through the dynamics. Arrays are
(n_snapshots, n_cells, ...): every cell has its own weights.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


@jax.jit
def weights(beta: jax.Array, energy: jax.Array, sampled_energy: jax.Array) -> jax.Array:
    """Normalized weights (n_snapshots, n_cells) from energies in eV and beta (n_cells,) in 1/eV."""
    exponent = -beta * (energy - sampled_energy)
    return jax.nn.softmax(exponent, axis=0)


@jax.jit
def effective_samples(w: jax.Array) -> jax.Array:
    """N_eff = exp(-sum w ln w) of every cell (n_cells,): n_snapshots for equal weights, 1 for a single large one."""
    return jnp.exp(-jnp.sum(jnp.where(w > 0, w * jnp.log(jnp.where(w > 0, w, 1)), 0), 0))


@jax.jit
def averages(w: jax.Array, observed: jax.Array) -> jax.Array:
    """Weighted means (n_cells, n_quantities) of observed (n_snapshots, n_cells, n_quantities)."""
    return jnp.einsum("sc,scq->cq", w, observed)


def gradient(
    scalar: Callable,
    params,
    snapshots,
    w: jax.Array,
    observed: jax.Array,
    cotangent: jax.Array,
    beta: jax.Array,
):
    """d L / d params, where L depends on params through reweighted averages and `cotangent` is dL / d averages.

    With lambda = cotangent and m the averages, dL = sum_s w_s [lambda dO_s - beta (lambda (O_s - m)) dU_s]. Quantities
    are multiplied with lambda and summed before they are differentiated, so that only one number per snapshot is.
    `scalar(params, snapshot, lambda, mu)` must return sum_cells lambda O + mu U, with O and U functions of params.
    Snapshots are treated one after the other: memory does not grow with their number.

    Shapes: w (n_snapshots, n_cells), observed (n_snapshots, n_cells, n_quantities), cotangent (n_cells, n_quantities),
    beta (n_cells,) in 1/eV.
    """
    centred = observed - averages(w, observed)
    along = w[..., None] * cotangent
    against = -beta * w * jnp.einsum("scq,cq->sc", centred, cotangent)

    def add(total, item):
        snapshot, first, second = item
        grad = jax.grad(scalar)(params, snapshot, first, second)
        return jax.tree.map(jnp.add, total, grad), None

    zero = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, zero, (snapshots, along, against))[0]


def gradients(energies: Callable, params, snapshots, w, observed, cotangents, beta):
    """`gradient` of each of n functions whose observables do not depend on params: `cotangents` (n, n_cells, ...).

    Leaves have an axis (n,) before those of params. `energies(params, snapshot)` returns U (n_cells,). Every cell of
    every snapshot is differentiated once, whatever n is.
    """
    against = -beta * jnp.einsum("sc,scq,kcq->skc", w, observed - averages(w, observed), cotangents)

    def add(total, item):
        snapshot, factors = item
        _, pull = jax.vjp(lambda params: energies(params, snapshot), params)
        # one after the other: the gathers of a potential cannot be vmapped
        of_cells = jax.lax.map(lambda cell: pull(cell)[0], jnp.eye(len(beta), dtype=w.dtype))
        return jax.tree.map(lambda sum_, of: sum_ + jnp.tensordot(factors, of, 1), total, of_cells), None

    zero = jax.tree.map(lambda x: jnp.zeros((len(cotangents), *x.shape), jnp.result_type(x, against)), params)
    return jax.lax.scan(add, zero, (snapshots, against))[0]
