"""Settings that all simulations of crystals at finite temperature share."""

import warnings
from dataclasses import dataclass, field

from fusedff.runtime import devices, limits
from fusedff.simulation.langevin import LangevinConfig


@dataclass(frozen=True, kw_only=True)
class SolidConfig:
    """Size and number of cells, dynamics, lengths in snapshots, and the number of blocks for standard errors."""

    repeats: tuple[int, int, int] = (5, 5, 3)
    replicas: int = 4
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    equilibration: int = 100  # snapshots
    snapshots: int = 700
    blocks: int = 10  # for standard errors; each should last `DAMPING_TIMES` of the thermostat
    seed: int = 1

    def __post_init__(self):
        limits.require(
            self, count=["replicas", "snapshots", "blocks"], whole=["equilibration", "seed"], repeats=["repeats"]
        )
        limits.between(self, "blocks", low=2, why="an error bar needs at least 2")
        limits.between(self, "blocks", high=self.snapshots, why=f"{self.snapshots} snapshots cannot be cut into more")


DAMPING_TIMES = 4  # of the thermostat, in a block
LONG = 1.0  # ps: shorter runs are trials, whose errors mean nothing anyway


def warn_if_blocks_are_short(settings: SolidConfig) -> None:
    """Warn if blocks last less than `DAMPING_TIMES` of the thermostat: standard errors are too small.

    Energies and stresses are correlated for one damping time (1 / friction) or longer, and errors from blocks assume
    that blocks are independent. With noise that decays within one damping time, errors from blocks of two damping times
    are 26 % too small, from blocks of four 14 %, and of eight 6 %. Simulations without friction and those shorter than
    `LONG` are not judged.
    """
    langevin = settings.langevin
    simulated = settings.snapshots * langevin.ps_per_snapshot
    block = simulated / settings.blocks
    if block * langevin.friction_per_ps >= DAMPING_TIMES - 1e-9 or not langevin.friction_per_ps or simulated < LONG:
        return
    if devices.is_first_process():
        warnings.warn(
            f"standard errors will be too small: blocks of {block:.2g} ps ({settings.snapshots} snapshots in "
            f"{settings.blocks} blocks) are not independent with a friction of {langevin.friction_per_ps:g} / ps; take "
            f"fewer blocks or more snapshots, so that a block lasts {DAMPING_TIMES / langevin.friction_per_ps:.2g} ps",
            stacklevel=3,
        )
