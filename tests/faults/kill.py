"""Kill a fused training again and again, fill its disk, and see whether it ends where it would have ended.

    python tests/faults/kill.py --kills 20

A small network learns from both sides. One run is left alone; the other is killed (SIGKILL) at random moments, every
third time as soon as a checkpoint is being written, then meets a full disk, and is started again each time. On one CPU
machine the parameters and the history of both must be the same to the last bit. Twenty kills take ten minutes or so.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 200


def train(folder: Path) -> None:
    """Run the training from the beginning, or from its checkpoint."""
    import jax

    from fusedff.data import datasets
    from fusedff.potential import Potential
    from fusedff.runtime import storage
    from fusedff.simulation.langevin import LangevinConfig
    from fusedff.study import comparison, presets
    from fusedff.training import fused
    from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig, SamplingConfig
    from fusedff.training.optimizers import Adam

    frames = [frame for frame in datasets.load_frames() if frame.info["config_type"] == "hcp-eos"]
    points = [p for p in comparison.targets(presets.SMOKE) if p.temperature == 323]
    experiment = DiffTReConfig(
        optimizer=Adam(1e-4, 1e-5), repeats=(1, 1, 1),
        sampling=SamplingConfig(LangevinConfig(1.0, 10.0, 2, 0.5), first_equilibration=2, equilibration=1, snapshots=3),
    )  # fmt: skip
    dft = ForceMatchingConfig(batch=4, learning_rate=1e-3, final_learning_rate=1e-4)
    settings = FusedConfig(epochs=EPOCHS, experiment=experiment, dft=dft)
    reference = datasets.fit_reference_energies(frames)
    start = Potential.create(jax.random.PRNGKey(0), presets.SMOKE.network, reference)
    model, history = fused.train(start, points, frames, settings, folder / "checkpoint.safetensors")
    model.save(folder / "model.safetensors")
    storage.write_json(folder / "history.json", history)


def launch(folder: Path, room: int | None = None) -> subprocess.Popen:
    """Start `train` in another process; `room` (bytes) limits the size of its files, like a full disk."""
    folder.mkdir(exist_ok=True)
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))) if room is not None else None
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
    }
    return subprocess.Popen(
        [sys.executable, __file__, "--train", str(folder)],
        env=environment, preexec_fn=limit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(folder: Path) -> None:
    run = launch(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors


def epochs(folder: Path) -> int:
    """Number of epochs in the checkpoint, which must be readable at any time."""
    from fusedff.runtime import storage

    path = folder / "checkpoint.safetensors"
    return len(storage.read_metadata(path)["history"]) if path.exists() else 0


def arrays(path: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of the arrays in a file."""
    from safetensors.numpy import load_file

    return sorted((name, array.tobytes()) for name, array in load_file(path).items())


def written(folder: Path) -> int:
    """Time of the last write of the checkpoint in ns, 0 if there is none."""
    path = folder / "checkpoint.safetensors"
    return path.stat().st_mtime_ns if path.exists() else 0


def parts(folder: Path) -> set[Path]:
    return set(folder.glob(".checkpoint.*.part"))


def kill(folder: Path, seconds: float, writing: bool) -> str:
    """Start the training and kill it some `seconds` after its next checkpoint or, if negative, after its start.

    With `writing`, it is killed during the write that follows. Returns a sentence on what happened.
    """
    before, old, stamp = epochs(folder), parts(folder), written(folder)
    run = launch(folder)
    while seconds >= 0 and run.poll() is None and written(folder) == stamp:
        time.sleep(0.002)
    time.sleep(abs(seconds))
    while writing and run.poll() is None and not parts(folder) - old:
        pass
    run.kill()
    run.communicate()
    cut = "amid a write" if parts(folder) - old else "between writes"
    return f"killed {cut}, epoch {before} -> {epochs(folder)} of {EPOCHS}"


def fill_disk(folder: Path) -> str:
    """Start the training without space for its checkpoint: one clear error, and the old checkpoint is unchanged."""
    path = folder / "checkpoint.safetensors"
    before = path.read_bytes()
    run = launch(folder, room=len(before) - 1000)
    _, errors = run.communicate()
    last = errors.strip().splitlines()[-1]
    assert run.returncode not in (0, None), "the run did not notice"
    assert "cannot write" in last, errors
    assert path.name in last, errors
    assert path.read_bytes() == before
    return last


def check(kills: int, folder: Path, seed: int = 0, say=print) -> None:
    """Compare a training that is killed `kills` times with one that is not. Raises AssertionError if they differ."""
    whole, killed, dice = folder / "whole", folder / "killed", random.Random(seed)
    began = time.monotonic()
    finish(whole)
    say(f"left alone: {time.monotonic() - began:.0f} s")
    for n in range(kills):
        seconds = dice.uniform(-8, 0) if n % 3 == 1 else dice.uniform(0, 0.8)
        say(f"{n + 1}: {kill(killed, seconds, writing=n % 3 == 2)}")
        if n == kills // 2:
            say(f"disk full: {fill_disk(killed)}")
    assert epochs(killed) < EPOCHS, "the kills came too late to matter: raise EPOCHS"
    finish(killed)
    for name in ("model", "checkpoint"):  # arrays: safetensors writes metadata in any order
        for one, two in zip(*(arrays(run / f"{name}.safetensors") for run in (whole, killed)), strict=True):
            assert one == two, f"{name}: {one[0]} differs"
    histories = [json.loads((run / "history.json").read_text()) for run in (whole, killed)]
    for left_alone, resumed in zip(*histories, strict=True):
        assert left_alone == resumed, f"{left_alone}\nis not\n{resumed}"
    assert len({record["loss"] for record in histories[0]}) == EPOCHS, "nothing was learned"
    say(f"{kills} kills and a full disk: parameters and history of {EPOCHS} epochs are the same to the last bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train)
    with tempfile.TemporaryDirectory() as folder:
        check(options.kills, Path(folder), options.seed)


if __name__ == "__main__":
    main()
