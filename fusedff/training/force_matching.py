"""Force matching: a potential is trained on the energies, forces and virials of DFT frames (bottom-up).

Frames may come from several calculations (`info["source"]`), each with a zero of energy of its own. Energies of the
potential count from the zero of its own `source`. Those of the other sources are fitted before training
(`label_errors.fit_zeros`) and then adjusted after every optimizer step.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ase import Atoms

from fusedff.potential import Potential
from fusedff.runtime import devices
from fusedff.training import checkpoints, force_matching_loss, label_sketch, loop, outliers
from fusedff.training.config import ForceMatchingConfig
from fusedff.training.label_errors import fit_zeros, predict, store_of
from fusedff.training.validation_loss import ValidationLoss

ZERO_RATE = 0.01  # fraction of a batch's mean deviation by which the zeros of other sources are moved
AT_ONCE = 32  # batches on the devices at a time
AT_ONCE_MIXED = 8  # where there are two kinds of batches, in turn


class MatchingState(NamedTuple):
    """What the trainer carries from step to step beside the parameters."""

    optimizer: Any  # of optax
    step: jax.Array  # () optimizer steps done
    average: Any  # of the parameters; () if the settings ask for none
    offsets: jax.Array  # (n_offsets,) eV per atom, changes of the zeros of other sources since the start


def _steps(settings, steps, template, train_state, batches):
    """One optimizer step per batch, to be compiled as one loop: temporaries are allocated once and not per step."""

    def of_share(params, batch, offsets):
        deviations = force_matching_loss.deviations(
            template.with_params(params), batch, devices.sum_over_devices, offsets
        )
        errors = force_matching_loss.mean_squares(deviations, batch, weighted=True)
        value = force_matching_loss.total(settings, errors)
        fractions = batch.labels.offset_counts / jnp.maximum(batch.labels.n_atoms, 1)[:, None]
        weighted = batch.labels.weight[:, None] * fractions
        n_frames = devices.sum_over_devices(jnp.sum(batch.labels.n_atoms > 0))
        scale = n_frames**0.5  # which the deviations were divided by
        return value, (deviations["energy"] @ weighted * scale, jnp.sum(weighted * fractions, 0))

    def step(train_state, batch):
        state = train_state.optimizer
        (value, (deviation, count)), gradient = devices.sum_over_devices(
            jax.value_and_grad(of_share, has_aux=True)(train_state.params, batch, state.offsets)
        )
        updates, inner = settings.transformation(steps).update(gradient, state.optimizer, train_state.params)
        params = optax.apply_updates(train_state.params, updates)
        average, done = state.average, state.step + 1
        if settings.ema:
            decay = jnp.minimum(settings.ema, done / (done + 9.0))  # short at first: the start is soon forgotten
            average = jax.tree.map(lambda a, p: (decay * a + (1 - decay) * p).astype(p.dtype), average, params)
        offsets = state.offsets - ZERO_RATE * deviation / jnp.maximum(count, 1e-6)
        return train_state._replace(params=params, optimizer=MatchingState(inner, done, average, offsets)), value

    return devices.shard_map_cells(partial(jax.lax.scan, step), in_axes=(None, devices.SCATTERED), out_axes=None)(
        train_state, batches
    )


class ForceMatchingTrainer:
    """Epochs of force matching over shuffled batches.

    All batches have one shape, so that the step is compiled once. With `settings.batch_atoms` they have two: frames
    whose atoms have few neighbours, and the others.
    """

    def __init__(
        self, settings: ForceMatchingConfig, template: Potential, frames: Sequence[Atoms], epochs: int | None = None
    ):
        self.settings, self.template = settings, template
        self.store = store_of(template, frames)
        self.store.weight, self.times = force_matching_loss.frame_weights(settings, self.store)
        _warn_of_weights(settings, self.store)
        self.zeros = fit_zeros(self.store, predict(template, self.store) if self.store.offset_of else ())
        epochs = epochs or settings.epochs
        different = [  # frames of each epoch, until the same come again
            force_matching_loss.of_epoch(self.times, n) for n in range(force_matching_loss.cycle(self.times))
        ]
        self.at_once = AT_ONCE if settings.batch_atoms is None else AT_ONCE_MIXED
        self.capacities, self.n_batches = self._kinds_of_batches(different)
        self.per_epoch = sum(self.n_batches.values())
        self.steps = self.per_epoch * epochs
        # One shape for all batches, with as little padding as possible: that of the fullest batch. They are balanced;
        # batches of epochs with the same frames hold frames of the same sizes.
        some = [i for n in range(len(different)) for i in self.batches(n)]
        self.n_atoms = self.store.max_atoms_per_device(some)
        self.n_frames = max(map(len, some))
        self._steps = jax.jit(partial(_steps, settings, self.steps))
        self._sketch = label_sketch.LabelSketch(settings, template, self.store)

    def _kinds_of_batches(self, epochs) -> tuple[np.ndarray, dict[int, int]]:
        """Capacity of the batches that each frame comes in (n_frames,), and how many of each capacity an epoch has.

        `epochs` are the indices of the frames in every epoch that differs from the others.
        """
        store, settings = self.store, self.settings
        if settings.batch_atoms is None:
            n = -(-max(map(len, epochs)) // settings.batch)
            return np.full(len(store.frames), store.capacity), {
                store.capacity: _number_of_batches(n, self.at_once, epochs)
            }
        capacities, n_batches = store.capacities(), {}
        if any(len(set(capacities[few])) < len(set(capacities)) for few in epochs):
            capacities[:] = store.capacity  # few frames: some epoch has none of one kind
        for capacity in np.unique(capacities).tolist():
            members = [few[capacities[few] == capacity] for few in epochs]
            n = -(-int(max(store.sizes[few].sum() for few in members)) // settings.batch_atoms)
            n_batches[capacity] = _number_of_batches(n, self.at_once, members)
        return capacities, n_batches

    def init(self, params) -> loop.TrainState:
        offsets = jnp.zeros(len(self.zeros))
        average = params if self.settings.ema else ()
        state = self.settings.transformation(self.steps).init(params)
        state = MatchingState(state, jnp.int32(0), average, offsets)
        return loop.TrainState(params, state)

    def learned(self, train_state: loop.TrainState) -> Any:
        """The trained parameters: their average over the last steps if the settings ask for it (`ema`)."""
        return train_state.optimizer.average if self.settings.ema else train_state.params

    def batches(self, n: int) -> list[np.ndarray]:
        """Indices (n_frames,) of the frames in each batch of epoch `n`, shuffled."""
        return [indices for chunk in self._chunks(n) for indices in chunk]

    def _chunks(self, n):
        """The batches of epoch `n` in lists, each with batches of one shape."""
        rng = np.random.default_rng([self.settings.seed, n])
        everything = force_matching_loss.of_epoch(self.times, n)
        chunks = []
        for capacity, n_batches in self.n_batches.items():
            batches = self.store.balanced(everything[self.capacities[everything] == capacity], n_batches, rng)
            chunks += _chunks_of([batches[k] for k in rng.permutation(n_batches)], self.at_once)
        return [chunks[k] for k in rng.permutation(len(chunks))]

    def epoch(self, train_state: loop.TrainState, n: int) -> tuple[loop.TrainState, float]:
        """One pass over the frames; returns the new train state and the mean training loss."""
        values = []
        for chunk in self._chunks(n):
            shape = (self.n_frames, self.n_atoms, self.capacities[chunk[0][0]])
            dealt = [self.store.device_batches(indices, *shape) for indices in chunk]
            dealt = devices.scatter([jax.tree.map(lambda *x: np.stack(x), *own) for own in zip(*dealt, strict=True)])
            train_state, value = self._steps(self.template, train_state, dealt)
            values.append(value)
        return train_state, float(np.mean(np.concatenate(values)))

    def gauss_newton_sketch(self, params, n: int, rows: int) -> np.ndarray:
        """G (rows, n_params) of the label loss at step `n`, see `label_sketch.LabelSketch`."""
        return self._sketch(force_matching_loss.of_epoch(self.times, n), params, n, rows)


def train(
    start: Potential,
    frames: Sequence[Atoms],
    validation: Sequence[Atoms],
    settings: ForceMatchingConfig,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> tuple[Potential, list[dict]]:
    """Train `start` on labelled `frames`; returns the trained potential and the history.

    The history holds the training loss and what `Validation` finds on the `validation` frames of every epoch. The
    parameters of the last epoch are returned. Those of the smallest validation loss would be a worse choice: the
    learning rate was still high, and a few unusual frames decide which epoch it is. With `settings.patience` they are
    returned all the same, and training stops early. `on_epoch(history)` is called after every epoch, and once on resume
    from `checkpoint`.

    Frames made in memory are not compared with each other here, as those of a file are when it is read;
    `datasets.check_dataset` does that. Warns of frames whose labels do not fit those of their family (`outliers`).
    Raises ValueError naming the part that has no frames, and for frames of several sources if `start` does not name
    its own.
    """
    for part, members in (("training", frames), ("validation", validation)):
        if not len(members):
            raise ValueError(
                f"no frames for {part}: force matching needs at least one labelled frame in each part; add frames, or "
                "share them out with `splits.paper_split`"
            )
    matching_trainer = ForceMatchingTrainer(settings, start, frames)
    check = ValidationLoss(
        settings, start, validation, offset_of=matching_trainer.store.offset_of, zeros=matching_trainer.zeros
    )

    def epoch(train_state, n):
        train_state, training_loss = matching_trainer.epoch(train_state, n)
        errors = check(matching_trainer.learned(train_state), train_state.optimizer.offsets)
        return train_state, {"loss": training_loss, **errors}

    result = loop.train(
        epoch, matching_trainer.init(start.params), settings.epochs, name="force matching",
        settings=asdict(settings),
        learned_from=checkpoints.data_of_potential(start)
        | checkpoints.data_of_frames(frames, "training")
        | checkpoints.data_of_frames(validation, "validation"),
        checkpoint=checkpoint, watch="validation" if settings.patience else None, patience=settings.patience,
        shown=lambda record: {key: value for key, value in record.items() if not key.startswith("validation_")},
        on_epoch=on_epoch, learned=matching_trainer.learned,
    )  # fmt: skip
    covered = matching_trainer.store.coverage().merged(start.coverage)
    trained = replace(start, params=result.params, coverage=covered)
    for store in (matching_trainer.store, check.store):  # the zeros as they are now
        store.energy -= store.offset_counts @ np.asarray(result.train_state.optimizer.offsets)
    _warn_of_outliers(trained, [*frames, *validation], [matching_trainer.store, check.store])
    return trained, result.history


def _number_of_batches(n, at_once, members):
    """At least `n`, so that chunks of at most `at_once` batches are equally long; not more than there are frames."""
    chunks = -(-n // at_once)
    return min(chunks * -(-n // chunks), *map(len, members))


def _chunks_of(batches, at_once):
    """The batches in chunks as long as possible up to `at_once`, equally long where they can be."""
    size = -(-len(batches) // -(-len(batches) // at_once))
    return [batches[k : k + size] for k in range(0, len(batches), size)]


def _warn_of_weights(settings, store) -> None:
    """Warn if a weight is that of a source without frames, where the weights of sources matter."""
    sources = sorted(set(store.sources))
    unused = [source for source, _ in settings.source_weights if source not in sources]
    if unused and len(sources) > 1:
        warnings.warn(
            f"source_weights has a weight for {unused[0]!r}, but the training frames are of "
            f"{', '.join(map(repr, sources))}, which count 1 without a weight; correct the name, or drop it",
            stacklevel=4,
        )


def _warn_of_outliers(trained, frames, stores) -> None:
    """Warn of frames whose labels do not fit those of their family."""
    by_frame = {}
    for outlier in outliers.find(trained, frames, stores):  # the highest scores first
        by_frame.setdefault(outlier.frame, outlier)
    worst = list(by_frame.values())
    if worst:
        more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
        warnings.warn(
            f"labels that do not fit their family: {', '.join(map(str, worst[:5]))}{more}; look at these frames, and "
            "relabel or drop what is wrong (fusedff.training.outliers.find lists all)",
            stacklevel=3,
        )
