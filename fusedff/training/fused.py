"""Fused training: alternate updates from measurements (DiffTRe) and from DFT labels (force matching)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ase import Atoms

from fusedff.measurements.experiments import StatePoint
from fusedff.potential import Potential
from fusedff.runtime import settings as ranges
from fusedff.training import loop
from fusedff.training.difftre import DiffTReConfig, DiffTReTrainer, shown, warn_if_lost
from fusedff.training.force_matching import ForceMatchingConfig, ForceMatchingTrainer, sources
from fusedff.training.targets import StaticTarget, Target


@dataclass(frozen=True)
class FusedConfig:
    """Settings. Every epoch takes `experiment_updates` DiffTRe steps and `dft_epochs` passes over the frames.

    Each side keeps its own optimizer. `order` is the order within an epoch; the paper starts with the experiment.
    Gauss-Newton steps from the experiment raise the loss of the labels as little as possible.
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
        ranges.require(self, count=["epochs", "experiment_updates", "dft_epochs"])
        most = ranges.MOST["epochs"][0] // max(self.experiment_updates, self.dft_epochs)
        ranges.between(self, "epochs", high=most, why=f"give {most} at most with so many updates or passes in each")
        if sorted(self.order) != ["dft", "experiment"]:
            raise ValueError(
                f"order = {self.order}: name 'experiment' and 'dft' once each, in the order they are to learn"
            )


def train(
    start: Potential,
    target: Target | Sequence[StatePoint],
    frames: Sequence[Atoms],
    settings: FusedConfig,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
    static: Sequence[StaticTarget] = (),
) -> tuple[Potential, list[dict]]:
    """Train `start` on a target (or measured state points) and on labelled frames; returns potential and history.

    `static` are further measurements, which need no snapshots.
    The history holds what the target reports of each epoch (for state points: GPa) and the mean DFT training loss.
    `on_epoch(history)` is called after every epoch, and once on resume.
    """
    matching_trainer = ForceMatchingTrainer(settings.dft, start, frames, settings.epochs * settings.dft_epochs)
    updates = settings.epochs * settings.experiment_updates
    difftre_trainer = DiffTReTrainer(
        settings.experiment, start, target, updates, label_sketch=matching_trainer.gauss_newton_sketch,
        static=static,
    )  # fmt: skip
    first = difftre_trainer.init(start.params)
    optimizer = {"experiment": first.optimizer, "dft": matching_trainer.init(start.params).optimizer}

    def experiment(train_state, n):
        inner = train_state._replace(optimizer=train_state.optimizer["experiment"])
        for k in range(settings.experiment_updates):
            inner, record = difftre_trainer.update(inner, n * settings.experiment_updates + k)
        return inner._replace(optimizer={**train_state.optimizer, "experiment": inner.optimizer}), record

    def dft(train_state, n):
        inner = train_state._replace(optimizer=train_state.optimizer["dft"])
        for k in range(settings.dft_epochs):
            inner, value = matching_trainer.epoch(inner, n * settings.dft_epochs + k)
        optimizer = {**train_state.optimizer, "dft": inner.optimizer}
        return train_state._replace(params=inner.params, optimizer=optimizer), {"dft_loss": value}

    def epoch(train_state, n):
        record = {}
        for side in settings.order:
            train_state, new = {"experiment": experiment, "dft": dft}[side](train_state, n)
            record |= new
        return train_state, record

    result = loop.train(
        epoch, first._replace(optimizer=optimizer), settings.epochs, name="fused training",
        settings=asdict(settings),
        learned_from=loop.start_of(start) | difftre_trainer.learned_from | sources(frames, "training"),
        checkpoint=checkpoint, shown=shown, on_epoch=on_epoch,
    )  # fmt: skip
    warn_if_lost(difftre_trainer, result.train_state)
    return start.with_params(result.params), result.history
