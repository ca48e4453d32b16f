"""Measured quantities: a function to call, and the number of units of work in one call."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Work(NamedTuple):
    """A function `run()` that does `units` evaluations, steps or gradients, and returns arrays to wait for."""

    run: Callable[[], Any]
    units: int = 1


def in_scan(gradient: Callable, params: dict, batch, steps: int) -> Work:
    """Work of `steps` evaluations of `gradient(params, batch)` -> (value, slope) inside one compiled loop."""
    import jax

    def step(params, batch):
        value, slope = gradient(params, batch)
        return _descend(params, slope), value

    run = jax.jit(lambda params, batch: jax.lax.scan(lambda p, _: step(p, batch), params, length=steps))
    return Work(lambda: run(params, batch), steps)


def _descend(params, gradient):
    """A step of gradient descent, so that the compiler cannot remove the gradients of the loop."""
    return {m: {leaf: x - 1e-9 * gradient[m][leaf] for leaf, x in leaves.items()} for m, leaves in params.items()}


LABELS = {
    "energy": "energy",
    "forces": "energy and forces",
    "forces_in_scan": "energy and forces, inside a scan",
    "md": "one Langevin step",
    "force_matching": "force-matching gradient, 2 cells",
    "force_matching_in_scan": "force matching, inside a scan",
    "born": "Born stress and stiffness",
    "difftre": "DiffTRe gradient, per snapshot",
    "difftre_default": "DiffTRe gradient, each its default estimator",
}
