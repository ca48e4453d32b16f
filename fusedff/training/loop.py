"""The training loop that all trainings share: epochs, history, checkpoints, early stopping, progress."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fusedff.runtime import devices, progress, storage
from fusedff.runtime.failures import FailedComputationError
from fusedff.training import checkpoints


class TrainState(NamedTuple):
    """Everything that changes during training. A checkpoint holds it beside the history."""

    params: Any
    optimizer: Any  # state(s) of the optax optimizer(s)
    extra: Any = ()  # what else a trainer keeps from epoch to epoch, e.g. a trajectory


class DivergedError(FailedComputationError):
    """A loss or a parameter became non-finite."""


@dataclass
class Result:
    """Parameters of the best epoch, or of the last if no number is watched; last train state, and history."""

    params: Any
    train_state: TrainState
    history: list[dict] = field(default_factory=list)


def train(
    epoch: Callable[[TrainState, int], tuple[TrainState, dict]],
    train_state: TrainState,
    epochs: int,
    *,
    name: str,
    settings: dict,
    learned_from: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    watch: str | None = None,
    patience: int | None = None,
    shown: Callable[[dict], dict] = dict,
    on_epoch: Callable[[list[dict]], None] | None = None,
    learned: Callable[[TrainState], Any] = attrgetter("params"),
) -> Result:
    """Call `epoch(train_state, n) -> (train_state, record)` for n up to `epochs`, and save a checkpoint after each.

    Called again after an interruption, it resumes from `checkpoint` and ends with the same numbers. `settings`, and
    digests of the data in `learned_from` (name -> anything that `storage.digest` takes), must be those that the
    checkpoint was written with. Only one training at a time may use a checkpoint.

    The result is the parameters of the epoch with the smallest number called `watch` in its record, or of the last
    epoch without `watch`; `learned` takes them from a train state. Training stops after `patience` epochs without a
    smaller number. Progress shows what `shown` takes from a record. `on_epoch(history)` is called after every epoch,
    and once on resume.

    Raises `DivergedError` before anything that is not finite is saved, `progress.Interrupted` for Ctrl-C,
    `storage.InUseError` for a checkpoint that another training uses, ValueError for one with other settings or data.
    """
    identity = checkpoints.identity(name, settings, learned_from or {})
    on_epoch = on_epoch or (lambda history: None)
    with storage.lock(checkpoint) if checkpoint is not None else nullcontext():
        best, history, stale = (learned(train_state), np.inf), [], 0
        if checkpoint is not None and Path(checkpoint).exists():
            train_state, best, history, stale = checkpoints.resume(checkpoint, train_state, identity)
        if history:
            on_epoch(history)
        kept = len(history)
        with progress.bar(name, epochs, start=kept) as report:
            try:
                for n in range(len(history), epochs):
                    if patience is not None and stale >= patience:
                        break
                    train_state, record = epoch(train_state, n)
                    record = {key: float(value) for key, value in record.items()}
                    _require_finite(train_state, record, f"{name}, epoch {n}", checkpoint)
                    history.append({"epoch": n, **record})
                    score = record[watch] if watch else -n  # without a number to watch, every epoch is the best so far
                    best, stale = ((learned(train_state), score), 0) if score < best[1] else (best, stale + 1)
                    if checkpoint is not None:
                        checkpoints.write(checkpoint, identity, train_state, best, history, stale)
                        kept = n + 1
                    report(shown(record))
                    on_epoch(history)
            except KeyboardInterrupt:
                raise progress.Interrupted(_how_to_go_on(name, kept, epochs, checkpoint)) from None
    return Result(devices.to_local(best[0]), train_state, history)


def _how_to_go_on(name, kept, epochs, checkpoint):
    if not kept:
        return f"{name}: interrupted before anything was kept; run this again to start anew"
    return (
        f"{name}: interrupted with {kept} of {epochs} epochs done, which {checkpoint} keeps; run this again to go on "
        "from there"
    )


def _require_finite(train_state, record, where, checkpoint):
    lost = [f"{key} is {value}" for key, value in record.items() if not np.isfinite(value)]
    for what in ("params", "optimizer", "extra") if not lost else ():
        leaves = jax.tree.leaves(devices.to_local(getattr(train_state, what)))
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            names = {"params": "parameters", "optimizer": "moments of the optimizer", "extra": "snapshots"}
            lost = [f"{names[what]} are not finite"]
            break
    if lost:
        kept = f"; {checkpoint} keeps the epoch before" if checkpoint is not None and Path(checkpoint).exists() else ""
        raise DivergedError(f"{where}: {lost[0]}{kept}; lower the learning rate, in another run folder")
