"""Settings that all simulations of crystals at finite temperature share."""

from dataclasses import dataclass, field

from fusedff.runtime import settings as ranges
from fusedff.simulation.langevin import LangevinConfig


@dataclass(frozen=True, kw_only=True)
class SolidConfig:
    """Size and number of cells, dynamics, lengths in snapshots, and the number of blocks for standard errors."""

    repeats: tuple[int, int, int] = (5, 5, 3)
    replicas: int = 4
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    equilibration: int = 100  # snapshots
    snapshots: int = 700
    blocks: int = 10  # for standard errors
    seed: int = 1

    def __post_init__(self):
        ranges.require(
            self, count=["replicas", "snapshots", "blocks"], whole=["equilibration", "seed"], repeats=["repeats"]
        )
        ranges.between(self, "blocks", low=2, why="an error bar needs at least 2")
        ranges.between(self, "blocks", high=self.snapshots, why=f"{self.snapshots} snapshots cannot be cut into more")
