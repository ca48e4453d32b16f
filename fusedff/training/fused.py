"""Fused training: updates from measurements (DiffTRe) and from DFT labels (force matching) in turn.

Röcken & Zavadlav, npj Comput. Mater. 10, 69 (2024). Both change the same parameters, each with its own optimizer. If
DiffTRe takes Gauss-Newton steps, they are those that raise the loss of the DFT labels least (`gauss_newton`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ase import Atoms

from fusedff.potential import Potential
from fusedff.training import checkpoints, loop
from fusedff.training.config import FusedConfig
from fusedff.training.difftre import DiffTReTrainer, Measurements, shown, warn_of_trajectories
from fusedff.training.force_matching import ForceMatchingTrainer


def train(
    start: Potential,
    target: Measurements,
    frames: Sequence[Atoms],
    settings: FusedConfig,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> tuple[Potential, list[dict]]:
    """Train `start` on measurements (as `difftre.train`) and on labelled frames; returns potential and history.

    The history holds what the targets report of each epoch (for state points: GPa) and the mean training loss of the
    DFT frames.
    `on_epoch(history)` is called after every epoch, and once on resume from `checkpoint`. Raises what `difftre.train`
    and `force_matching.train` raise.
    """
    matching_trainer = ForceMatchingTrainer(settings.dft, start, frames, settings.epochs * settings.dft_epochs)
    updates = settings.epochs * settings.experiment_updates
    difftre_trainer = DiffTReTrainer(
        settings.experiment, start, target, updates, label_sketch=matching_trainer.gauss_newton_sketch
    )
    first = difftre_trainer.init(start.params)
    optimizer = {"experiment": first.optimizer, "dft": matching_trainer.init(start.params).optimizer}

    def dft_epoch(train_state, n):
        train_state, value = matching_trainer.epoch(train_state, n)
        return train_state, {"dft_loss": value}

    trainers = {
        "experiment": (difftre_trainer.update, settings.experiment_updates),
        "dft": (dft_epoch, settings.dft_epochs),
    }

    def epoch(train_state, n):
        record = {}
        for name in settings.order:
            advance, times = trainers[name]
            own = train_state._replace(optimizer=train_state.optimizer[name])
            for k in range(times):
                own, new = advance(own, n * times + k)
            train_state = own._replace(optimizer={**train_state.optimizer, name: own.optimizer})
            record |= new
        return train_state, record

    result = loop.train(
        epoch, first._replace(optimizer=optimizer), settings.epochs, name="fused training",
        settings=asdict(settings),
        learned_from=checkpoints.data_of_potential(start)
        | difftre_trainer.learned_from
        | checkpoints.data_of_frames(frames, "training"),
        checkpoint=checkpoint, shown=shown, on_epoch=on_epoch,
    )  # fmt: skip
    covered = matching_trainer.store.coverage().merged(start.coverage)
    trained = replace(start, params=result.params, coverage=covered)
    warn_of_trajectories(difftre_trainer, result.train_state, trained)
    return trained, result.history
