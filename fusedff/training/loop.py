"""The one training loop: epochs, history, checkpoints, early stopping, progress."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fusedff import devices, progress, storage


class Learner(NamedTuple):
    """All that changes during training. The arrays of a learner plus its history are a checkpoint."""

    params: Any
    optimizer: Any  # state(s) of the optax optimizer(s)
    key: jax.Array  # for epochs that draw: epoch n from fold_in(key, n), so a resumed run sees the same numbers
    extra: Any = ()  # what else a trainer carries from epoch to epoch, e.g. trajectories


class Diverged(RuntimeError):
    """Training left the numbers."""


@dataclass
class Result:
    """What training leaves: the best parameters (by the watched number), the last learner and the history."""

    params: Any
    learner: Learner
    history: list[dict] = field(default_factory=list)


def train(
    epoch: Callable[[Learner, int], tuple[Learner, dict]],
    learner: Learner,
    epochs: int,
    *,
    name: str,
    settings: dict,
    checkpoint: str | Path | None = None,
    watch: str | None = None,
    patience: int | None = None,
    shown: Callable[[dict], dict] = dict,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> Result:
    """Call `epoch(learner, n) -> (learner, record)` until `epochs` are done, saving everything after each.

    An interrupted run continues from `checkpoint` when called again and ends where it would have ended.
    `watch` names the number in the record whose smallest value marks the best parameters (default: the
    last ones); `patience` epochs without a better one stop the run. `shown` picks from a record what progress
    prints; `on_epoch` gets the history as often as it has grown, first what an earlier call has left.
    Raises `Diverged` before anything that is not finite is saved, and `progress.Interrupted` for Ctrl-C.
    """
    best, history, stale = (learner.params, np.inf), [], 0
    if checkpoint is not None and Path(checkpoint).exists():
        learner, best, history, stale = _resume(checkpoint, learner, settings)
    on_epoch = on_epoch or (lambda history: None)
    if history:
        on_epoch(history)
    kept = len(history)
    with progress.bar(name, epochs, start=kept) as report:
        try:
            for n in range(len(history), epochs):
                if patience is not None and stale >= patience:
                    break
                learner, record = epoch(learner, n)
                record = {key: float(value) for key, value in record.items()}
                _require_finite(learner.params, record, f"{name}, epoch {n}", checkpoint)
                history.append({"epoch": n, **record})
                score = record[watch] if watch else -n
                best, stale = ((learner.params, score), 0) if score < best[1] else (best, stale + 1)
                if checkpoint is not None:
                    metadata = {
                        "settings": settings,
                        "history": history,
                        "best_score": float(best[1]),
                        "stale": stale,
                    }
                    storage.write_tree(checkpoint, {"learner": learner, "best": best[0]}, metadata)
                    kept = n + 1
                report(shown(record))
                on_epoch(history)
        except KeyboardInterrupt:
            raise progress.Interrupted(_how_to_go_on(name, kept, epochs, checkpoint)) from None
    return Result(devices.local(best[0]), learner, history)


def _how_to_go_on(name, kept, epochs, checkpoint):
    if not kept:
        return f"{name}: interrupted before anything was kept; run this again to start anew"
    return (
        f"{name}: interrupted with {kept} of {epochs} epochs done, which {checkpoint} keeps; run this again to go on "
        "from there"
    )


def _resume(checkpoint, learner, settings):
    stored = storage.read_metadata(checkpoint).get("settings")
    if stored != storage.plain(settings):
        changed = [
            key for key in {*settings, *(stored or {})} if (stored or {}).get(key) != storage.plain(settings).get(key)
        ]
        raise ValueError(
            f"{checkpoint} belongs to a run with other settings ({', '.join(sorted(changed))} differ); "
            "delete it to start again, or choose another run folder"
        )
    tree, metadata = storage.read_tree(checkpoint, {"learner": learner, "best": learner.params})
    try:
        return tree["learner"], (tree["best"], metadata["best_score"]), metadata["history"], metadata["stale"]
    except KeyError as error:
        raise storage.DamagedFile(
            f"{checkpoint} lacks {error}: another version of fusedff wrote it; delete it to start again"
        ) from error


def _require_finite(params, record, where, checkpoint):
    lost = [f"{key} is {value}" for key, value in record.items() if not np.isfinite(value)]
    if not lost and not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(devices.local(params))):
        lost = ["parameters are not finite"]
    if lost:
        kept = f"; {checkpoint} keeps the epoch before" if checkpoint is not None else ""
        raise Diverged(f"{where}: {lost[0]}{kept}; lower the learning rate, in another run folder")
