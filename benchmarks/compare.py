"""Comparison of fusedff with chemtrain: after a check that both give the same numbers, their time and memory."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import sides, titanium
from benchmarks.sides import Side, SideFailedError
from benchmarks.statistics import Spread, paired_ratio, spread
from benchmarks.work import LABELS

TOLERANCE = 1e-4  # relative, in float32
AT_LEAST = 0.4  # seconds per round: short calls are repeated, and the median of the round is taken
MAX_ROUNDS, MIN_ROUNDS, MAX_SECONDS = 7, 3, 40  # of rounds; after these seconds no more than the minimum are started
SLOW = 60  # seconds of a first call beyond which a round is a single call


class Task(NamedTuple):
    """A quantity to measure, and the configurations of chemtrain to measure it against."""

    n_atoms: int
    quantity: str
    peers: tuple[str, ...]


BOTH, TIGHT = ("tight", "example"), ("tight",)
QUICK = [Task(96, quantity, TIGHT) for quantity in ("energy", "forces", "force_matching")]
# Second derivatives take minutes to compile in chemtrain, and with the padding of its example minutes to run.
DEFAULT = [
    *(Task(150, quantity, BOTH) for quantity in ("energy", "forces", "force_matching", "md")),
    *(Task(150, quantity, TIGHT) for quantity in ("forces_in_scan", "force_matching_in_scan", "born")),
    *(Task(96, quantity, TIGHT) for quantity in ("forces", "force_matching_in_scan", "difftre", "difftre_default")),
]
ALL = [Task(n_atoms, quantity, BOTH) for n_atoms in (96, 150) for quantity in LABELS]


class DisagreementError(RuntimeError):
    """The two sides do not evaluate the same function, so that their times cannot be compared."""


class Row(NamedTuple):
    """Times and memory of one quantity at one size, by side."""

    n_atoms: int
    quantity: str
    seconds: dict[str, Spread]  # per unit of work
    ratio: dict[str, Spread]  # peer / fusedff, paired
    first_call: dict[str, float]  # seconds to trace, compile and run once
    memory: dict[str, float]  # MiB of one call
    failed: dict[str, str]  # error message


def run(tasks: list[Task], report=print) -> Iterator[tuple[list[Row], list[str]]]:
    """Yield, after each task, the rows so far, and sentences that say how well the sides agree.

    Raises DisagreementError, before anything is timed, if they do not.
    """
    peers = sorted({name for task in tasks for name in task.peers}, reverse=True)
    everyone = {"fusedff": sides.fusedff()} | {name: sides.chemtrain(name) for name in peers}
    rows, agreement = [], []
    with tempfile.TemporaryDirectory() as folder:
        paths = {n_atoms: Path(folder) / f"{n_atoms}.npz" for n_atoms in sorted({task.n_atoms for task in tasks})}
        for n_atoms, path in paths.items():
            titanium.make(n_atoms).write(path)
            compared = {"fusedff"} | {name for task in tasks if task.n_atoms == n_atoms for name in task.peers}
            found = _agreement({name: side for name, side in everyone.items() if name in compared}, path)
            agreement.append(f"{n_atoms} atoms, {found}")
            report(agreement[-1])
        for task in tasks:
            rows.append(_row(everyone, paths[task.n_atoms], task))
            report(_line(rows[-1]))
            yield rows, agreement
    for side in everyone.values():
        side.close()


def _agreement(everyone: dict[str, Side], path) -> str:
    """Sentence that says how well the sides agree. Raises DisagreementError if they do not."""
    ours, *theirs = ({k: np.asarray(v) for k, v in s.ask("answers", path=str(path)).items()} for s in everyone.values())
    worst = {}
    for answers in theirs:
        for name, value in answers.items():
            error = np.abs(value - ours[name]).max() / np.abs(ours[name]).max()
            worst[name] = max(worst.get(name, 0.0), float(error))
    said = ", ".join(f"{name} to {error:.0e}" for name, error in worst.items())
    if not max(worst.values()) < TOLERANCE:
        raise DisagreementError(f"the sides differ by more than {TOLERANCE:.0e}: they agree in {said}")
    return f"{said} (relative)"


def _row(everyone, path, task):
    names = ("fusedff", *task.peers)
    first_call, failed, calls, memory = {}, {}, {}, {}
    seconds = {name: [] for name in names}

    def attempt(name, action):
        try:
            action(everyone[name])
        except SideFailedError as error:
            failed[name] = str(error)
            if everyone[name].process.poll() is not None:
                everyone[name] = everyone[name].again()

    def prepare(side):
        first_call[side.name] = side.ask("prepare", path=str(path), quantity=task.quantity)
        calls[side.name] = 1 if first_call[side.name] > SLOW else _calls(*side.ask("measure", calls=1))

    def measure(side):
        seconds[side.name].append(float(np.median(side.ask("measure", calls=calls[side.name]))))

    def remember(side):
        memory[side.name] = side.ask("memory")

    def everyone_in_turn(action):
        for name in names:
            if name not in failed:
                attempt(name, action)

    everyone_in_turn(prepare)
    start = time.monotonic()
    for completed in range(MAX_ROUNDS):
        if completed >= MIN_ROUNDS and time.monotonic() - start > MAX_SECONDS:
            break
        everyone_in_turn(measure)
    everyone_in_turn(remember)
    done = {name: values for name, values in seconds.items() if name not in failed}
    return Row(
        task.n_atoms,
        task.quantity,
        {name: spread(values) for name, values in done.items()},
        {name: paired_ratio(values, done["fusedff"]) for name, values in done.items() if name != "fusedff"},
        first_call,
        memory,
        failed,
    )


def _calls(seconds):
    return int(np.clip(np.ceil(AT_LEAST / seconds), 1, 20))


def _line(row):
    times = ", ".join(f"{name} {1e3 * s.median:.1f} ms" for name, s in row.seconds.items())
    return f"{time.strftime('%H:%M:%S')} {row.n_atoms} atoms, {row.quantity}: {times} {row.failed or ''}".strip()
