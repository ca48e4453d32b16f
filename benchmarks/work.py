"""What a measured quantity is: something to call, and how many units of work one call does."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Work(NamedTuple):
    """`run()` does `units` evaluations, steps or gradients and returns arrays to wait for."""

    run: Callable[[], Any]
    units: int = 1


def descend(params: dict, gradient: dict) -> dict:
    """The shortest of optimizers, so that no gradient of a loop is left out."""
    return {m: {leaf: x - 1e-9 * gradient[m][leaf] for leaf, x in leaves.items()} for m, leaves in params.items()}


LABELS = {
    "energy": "energy",
    "forces": "energy and forces",
    "forces_in_scan": "energy and forces, inside a scan",
    "md": "one Langevin step",
    "force_matching": "force-matching gradient, 2 cells",
    "force_matching_in_scan": "the same, inside a scan",
    "born": "Born stress and stiffness",
    "difftre": "DiffTRe loss and gradient, per snapshot",
}
