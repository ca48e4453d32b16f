"""Settings of the three trainings: force matching, DiffTRe, and both in turn (fused)."""

from dataclasses import dataclass, field
from numbers import Real

import numpy as np
import optax
from optax.contrib import muon

from fusedff.runtime import limits
from fusedff.simulation.elasticity import CoupledStrains, Estimator
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training.optimizers import Adam, GaussNewton, decay

OPTIMIZERS = ("adam", "muon")


@dataclass(frozen=True)
class ForceMatchingConfig:
    """Settings of force matching, whose loss `force_matching_loss` defines.

    The three weights multiply mean squared errors in (eV/atom)^2 (energy), (eV/Å)^2 (force component) and (eV/atom)^2
    (virial component).
    """

    epochs: int = 400
    batch: int = 30  # frames
    batch_atoms: int | None = None  # instead of `batch`: about so many atoms in every batch
    optimizer: str = "adam"  # or another of OPTIMIZERS
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    energy_weight: float = 0.066  # ratios of the titanium paper, see presets.PAPER
    force_weight: float = 1.0
    virial_weight: float = 0.26
    source_weights: tuple[tuple[str, float], ...] = ()  # (source, factor of the squared errors of its frames); frames
    # with a factor of 2 or more are repeated in every epoch, those with 1/2 or less are used in some epochs only
    force_scale: float | None = None  # F0 in eV/Å: squared errors of a frame count 1 / (1 + (F / F0)^2), where F^2 is
    # the mean square of its forces and of its stress on the area of an atom (`force_matching_loss.frame_weights`)
    ema: float = 0.0  # decay per step of an exponential average of the parameters, which is the result; 0: no average
    clip: float | None = None  # largest norm of the gradient
    patience: int | None = None  # stop after so many epochs without a smaller validation loss; the result is the best
    seed: int = 0

    def __post_init__(self):
        given = {name for name, value in vars(self).items() if value is not None}
        limits.require(
            self,
            count=["epochs", "batch", *sorted({"batch_atoms", "patience"} & given)],
            positive=["learning_rate", "final_learning_rate", *sorted({"force_scale", "clip"} & given)],
            not_negative=["energy_weight", "force_weight", "virial_weight", "ema"], whole=["seed"],
        )  # fmt: skip
        if not self.energy_weight + self.force_weight + self.virial_weight > 0:
            limits.raise_invalid(self, "force_weight", "all three weights are 0, so nothing is learned; raise one")
        limits.between(self, "ema", high=0.99999, why="give a decay from 0 to below 1, e.g. 0.998")
        if not all(map(_is_weight, self.source_weights)):
            limits.raise_invalid(self, "source_weights", "give (source, weight) pairs with weights from 0 on")
        limits.one_of(self, "optimizer", OPTIMIZERS)

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optax optimizer of `steps` steps; its learning rate goes from `learning_rate` to `final_learning_rate`.

        `adam` decays exponentially, as in the titanium paper. `muon` (momentum with orthogonalized updates of weight
        matrices, Jordan et al. (2024)) warms up over a tenth of the steps and then follows a cosine; it needs a
        fraction of the epochs.
        """
        begin, end = self.learning_rate, self.final_learning_rate
        if self.optimizer == "adam":
            made = optax.adam(decay(begin, end, steps))
        else:
            warm_up = max(1, steps // 10)
            made = muon(optax.warmup_cosine_decay_schedule(begin / 10, begin, warm_up, max(steps, warm_up + 1), end))
        return made if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), made)


def _is_weight(pair) -> bool:
    """Whether it is a source with its weight."""
    return isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Real) and 0 <= pair[1] < np.inf


@dataclass(frozen=True)
class SamplingConfig:
    """How trajectories are sampled between updates, and when they are reused; lengths are in snapshots."""

    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    first_equilibration: int = 100  # before the first trajectory
    equilibration: int = 10  # before every further one
    snapshots: int = 700
    reuse_above: float = 0.9  # sample again when N_eff / n_snapshots falls below this in any cell

    def __post_init__(self):
        limits.require(
            self,
            count=["snapshots"],
            whole=["first_equilibration", "equilibration"],
            not_negative=["reuse_above"],
        )


@dataclass(frozen=True)
class DiffTReConfig:
    """Settings of DiffTRe, the training on measurements.

    The fields from `elastic_weight` to `replicas` are for measured state points (`difftre.elastic_target`). Any other
    target has its own cells and weights.
    """

    updates: int = 200
    optimizer: Adam | GaussNewton = field(default_factory=Adam)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    elastic_weight: float = 1.0  # per GPa^2
    stress_weight: float = 10.0  # per GPa^2, of every independent stress
    pressure_weight: float = 0.0  # per GPa^2; the paper has it, and not the stresses
    estimator: Estimator = field(default_factory=CoupledStrains)
    repeats: tuple[int, int, int] = (5, 5, 3)
    replicas: int = 1
    seed: int = 0

    def __post_init__(self):
        limits.require(
            self, count=["updates", "replicas"], not_negative=["elastic_weight", "stress_weight", "pressure_weight"],
            whole=["seed"], repeats=["repeats"],
        )  # fmt: skip


@dataclass(frozen=True)
class FusedConfig:
    """Settings of fused training: in every epoch `experiment_updates` of DiffTRe and `dft_epochs` over the DFT frames.

    DiffTRe and force matching have an optimizer each. `order` is their order within an epoch; the titanium paper starts
    with the experiment. `experiment.updates` and `dft.epochs` are not used; the numbers of steps follow from these.
    """

    epochs: int = 200
    experiment_updates: int = 1
    dft_epochs: int = 1
    order: tuple[str, ...] = ("experiment", "dft")
    experiment: DiffTReConfig = field(default_factory=DiffTReConfig)
    dft: ForceMatchingConfig = field(
        default_factory=lambda: ForceMatchingConfig(learning_rate=5e-7, final_learning_rate=5e-9)
    )

    def __post_init__(self):
        limits.require(self, count=["epochs", "experiment_updates", "dft_epochs"])
        most = limits.MAX_VALUES["epochs"][0] // max(self.experiment_updates, self.dft_epochs)
        limits.between(self, "epochs", high=most, why=f"give {most} at most with so many updates or passes in each")
        if self.dft.ema or self.dft.patience:
            raise ValueError(
                f"dft: ema = {self.dft.ema}, patience = {self.dft.patience} do nothing in fused training, whose result "
                "are the parameters of the last epoch; leave them out"
            )
        if sorted(self.order) != ["dft", "experiment"]:
            raise ValueError(
                f"order = {self.order}: name 'experiment' and 'dft' once each, in the order they are to learn"
            )
