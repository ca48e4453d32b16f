"""What a measured quantity is: something to call, and how many units of work one call does."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Work(NamedTuple):
    """`run()` does `units` evaluations, steps or gradients and returns arrays to wait for."""

    run: Callable[[], Any]
    units: int = 1


LABELS = {
    "energy": "energy",
    "forces": "energy and forces",
    "forces_in_scan": "energy and forces, inside a scan",
    "md": "one Langevin step",
    "force_matching": "force-matching gradient, 2 cells",
    "born": "Born stress and stiffness",
    "difftre": "DiffTRe loss and gradient, per snapshot",
}
