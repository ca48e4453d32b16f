"""Checkpoints of a training: write them, and resume from them.

A checkpoint contains the train state after an epoch, the best parameters, the history, the settings, and digests of
all data. It is refused by a training with other settings or data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ase import Atoms

from fusedff.data import labelled_frames
from fusedff.potential import Potential
from fusedff.runtime import storage


def data_of_potential(potential: Potential) -> dict[str, Any]:
    """Model, parameters and reference energies of the potential that a training starts from, by name."""
    model = (type(potential.model).__name__, potential.model, potential.numbers, potential.scale, potential.repulsion)
    zero = potential.reference, potential.source
    return {"model": model, "start parameters": potential.params, "reference energies": zero}


def data_of_frames(frames: Sequence[Atoms], what: str) -> dict[str, Any]:
    """Structures and labels of DFT frames, by name; `what` is e.g. "training"."""
    return {
        f"structures of the {what} frames": [
            (frame.numbers, frame.positions, frame.cell.array, frame.pbc) for frame in frames
        ],
        f"labels of the {what} frames": [
            (labelled_frames.labels(frame), labelled_frames.use_virial(frame), labelled_frames.source(frame))
            for frame in frames
        ],
    }


def identity(name: str, settings: dict, learned_from: Mapping[str, Any]) -> dict:
    """What a checkpoint belongs to: the kind of training, its settings, and a digest of each of the data by name."""
    return {
        "training": name,
        "settings": storage.json_roundtrip(settings),
        "learned_from": {what: storage.digest(data) for what, data in learned_from.items()},
    }


def write(path, identity: dict, train_state, best: tuple[Any, float], history: list[dict], stale: int) -> None:
    """Write a checkpoint; `best` are parameters and their score, `stale` the epochs since."""
    metadata = {**identity, "history": history, "best_score": float(best[1]), "stale": stale}
    storage.write_tree(path, {"train_state": train_state, "best": best[0]}, metadata)


def resume(path, train_state, identity: dict) -> tuple[Any, tuple[Any, float], list[dict], int]:
    """Train state, best parameters with their score, history and epochs since, as `write` got them.

    `train_state` says how the stored one is built. Raises ValueError for a checkpoint of another training, with other
    settings or data, and `storage.DamagedFileError` for one that is damaged or that another version wrote.
    """
    stored = storage.read_metadata(path)
    if set(identity) - set(stored):
        raise storage.DamagedFileError(
            f"{path} does not say what it was trained from: another version of fusedff wrote it; delete it to "
            "start again"
        )
    if stored["training"] != identity["training"]:
        raise ValueError(
            f"{path} belongs to another kind of training ({stored['training']}, not {identity['training']}); put "
            "the right file there, or delete it to start again"
        )
    for part, what in (("settings", "settings"), ("learned_from", "data")):
        if changed := _changed(stored[part], identity[part]):
            raise ValueError(
                f"{path} belongs to a run with other {what} ({', '.join(changed)} differ); delete it to start "
                "again, or choose another run folder"
            )
    tree, metadata = storage.read_tree(path, {"train_state": train_state, "best": train_state.params})
    try:
        return tree["train_state"], (tree["best"], metadata["best_score"]), metadata["history"], metadata["stale"]
    except KeyError as error:
        raise storage.DamagedFileError(
            f"{path} lacks {error}: another version of fusedff wrote it; delete it to start again"
        ) from error


def _changed(stored, now):
    """Keys whose values differ."""
    if not isinstance(stored, dict):
        return sorted(now)
    return sorted(key for key in {*stored, *now} if (key in stored, stored.get(key)) != (key in now, now.get(key)))
