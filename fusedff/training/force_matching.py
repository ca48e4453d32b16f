"""Bottom-up training: a potential that reproduces the energies, forces and virials of DFT frames.

Frames may come from several calculations (`info["source"]`), whose energies have different zeros. The potential keeps
the zero of its own `source`; those of the others are fitted to start with and follow the network while it learns.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ase import Atoms
from jax.flatten_util import ravel_pytree
from optax.contrib import muon

from fusedff.data import frames as labelled
from fusedff.data.batching import Batch, FrameStore
from fusedff.potential import Potential
from fusedff.runtime import compilation, devices
from fusedff.runtime import settings as ranges
from fusedff.training import loop, outliers
from fusedff.training.label_errors import fit_zeros, store_of

OPTIMIZERS = ("adam", "muon")


@dataclass(frozen=True)
class ForceMatchingConfig:
    """Settings. The loss is a weighted sum of mean squared errors per atom, per component and per atom.

    Errors are divided by 1 eV/atom (energy), 1 eV/Å (force component) and 1 eV/atom (virial component).
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
    source_weights: tuple[tuple[str, float], ...] = ()  # factors of the squared errors of a source's frames; those of
    # a source with a factor of 2 or more come so many times in every epoch
    force_scale: float | None = None  # F0 in eV/Å: squared errors of a frame count 1 / (1 + (its rms force / F0)^2)
    ema: float = 0.0  # decay per step of the average of the parameters that is taken; 0: the parameters themselves
    clip: float | None = None  # largest norm of the gradient
    patience: int | None = None  # stop after so many epochs without a better validation loss, and take the best
    seed: int = 0

    def __post_init__(self):
        given = {name for name, value in vars(self).items() if value is not None}
        ranges.require(
            self,
            count=["epochs", "batch", *sorted({"batch_atoms", "patience"} & given)],
            positive=["learning_rate", "final_learning_rate", *sorted({"force_scale", "clip"} & given)],
            not_negative=["energy_weight", "force_weight", "virial_weight", "ema"],
        )
        ranges.between(self, "ema", high=0.99999, why="give a decay from 0 to below 1, e.g. 0.998")
        if any(not 0 <= weight < np.inf for _, weight in self.source_weights):
            ranges.refuse(self, "source_weights", "give (source, weight) pairs with weights from 0 on")
        ranges.one_of(self, "optimizer", OPTIMIZERS)


def _frame_weights(settings: ForceMatchingConfig, store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n_frames,) of the squared errors, as the settings have them, and how often a frame comes in an epoch.

    A few frames of large weight would make the gradients of batches noisy, so large weights are repetitions instead.
    """
    by_source = dict(settings.source_weights)
    weight = np.array([by_source.get(source, 1.0) for source in store.sources])
    times = np.maximum(weight.astype(int), 1)
    weight = weight / times
    if settings.force_scale is not None:
        weight /= 1 + np.array([np.mean(forces**2) for forces in store.forces]) / settings.force_scale**2
    return weight, times


def _deviations(potential: Potential, batch: Batch, total: Callable, offsets=None) -> dict[str, jax.Array]:
    """Deviations from the labels, scaled so that their squares add up to the mean squared errors."""
    predicted = potential.evaluate(batch.system, batch.neighbors)
    labels = batch.labels
    present = labels.atoms > 0
    atoms = jnp.maximum(labels.atoms, 1)
    in_cell = (batch.system.cell_index < batch.system.n_cells).astype(atoms.dtype)
    with_virial = jnp.maximum(total(jnp.sum(labels.has_virial)), 1) * 6
    stress = (predicted.stress - labels.stress) * labels.has_virial[:, None] / with_virial**0.5
    energy = (predicted.energy - labels.energy) / atoms
    if offsets is not None and len(offsets):
        energy = energy + labels.offsets @ offsets / atoms
    return {
        "energy": jnp.where(present, energy, 0) / total(jnp.sum(present)) ** 0.5,
        "force": (predicted.forces - labels.forces) * in_cell[:, None] / (3 * total(jnp.sum(in_cell))) ** 0.5,
        "virial": stress * (batch.system.volumes / atoms)[:, None],
        "stress": stress,
    }


def _frame_weight_of(name: str, batch: Batch) -> jax.Array:
    """The weights of frames, in the shape of the deviations called `name`."""
    weight = batch.labels.weight
    if name == "force":
        return jnp.append(weight, 0)[batch.system.cell_index][:, None]
    return weight if name == "energy" else weight[:, None]


def _mean_squares(deviations, batch, weighted=False) -> dict[str, jax.Array]:
    return {
        name: jnp.sum(_frame_weight_of(name, batch) * deviation**2 if weighted else deviation**2)
        for name, deviation in deviations.items()
    }


def mean_squared_errors(
    potential: Potential, batch: Batch, total: Callable = lambda x: x, offsets=None
) -> dict[str, jax.Array]:
    """Mean squared errors: energy and virial in (eV/atom)^2, force in (eV/Å)^2, stress in (eV/Å^3)^2.

    `offsets` (n_offsets,), eV per atom, move the zeros of energy of other sources. When `batch` is a share, `total`
    adds up what is counted over all of them; the errors of the shares then add up to those of the whole.
    """
    return _mean_squares(_deviations(potential, batch, total, offsets), batch)


def loss(
    settings: ForceMatchingConfig, potential: Potential, batch: Batch, total: Callable = lambda x: x, offsets=None
) -> jax.Array:
    """Weighted sum of the mean squared errors, those of each frame times its weight; arguments as above."""
    errors = _mean_squares(_deviations(potential, batch, total, offsets), batch, weighted=True)
    return _weighted_sum(settings, errors)


def _weighted_sum(settings, errors):
    return sum(weight * errors[name] for name, weight in _weights(settings).items())


def _weights(settings):
    return {"energy": settings.energy_weight, "force": settings.force_weight, "virial": settings.virial_weight}


def optimizer(settings: ForceMatchingConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer for `steps` steps, its learning rate going from `learning_rate` to `final_learning_rate`.

    `adam` decays exponentially, as in the paper. `muon` (momentum with orthogonalized updates of weight matrices)
    warms up over a tenth of the steps and follows a cosine; it needs a fraction of the epochs.
    """
    begin, end = settings.learning_rate, settings.final_learning_rate
    if settings.clip is not None:
        unclipped = optimizer(replace(settings, clip=None), steps)
        return optax.chain(optax.clip_by_global_norm(settings.clip), unclipped)
    if settings.optimizer == "adam":
        return optax.adam(optax.exponential_decay(begin, max(steps, 1), end / begin))
    warm_up = max(1, steps // 10)
    return muon(optax.warmup_cosine_decay_schedule(begin / 10, begin, warm_up, max(steps, warm_up + 1), end))


class MatchingState(NamedTuple):
    """What the trainer carries beside the parameters."""

    optimizer: Any  # of optax
    step: jax.Array  # () optimizer steps done
    average: Any  # of the parameters, () without
    offsets: jax.Array  # (n_offsets,) eV per atom, by how much the zeros of other sources have moved


FOLLOWING = 0.01  # part of a batch's mean deviation that the zeros of other sources follow


@compilation.jit(n_static=2)
def _steps(settings, steps, template, train_state, batches):
    """One optimizer step per batch; compiled as one loop, so that temporaries are allocated once and not per step."""

    def of_share(params, batch, offsets):
        deviations = _deviations(template.with_params(params), batch, devices.total, offsets)
        value = _weighted_sum(settings, _mean_squares(deviations, batch, weighted=True))
        fractions = batch.labels.offsets / jnp.maximum(batch.labels.atoms, 1)[:, None]
        weighted = batch.labels.weight[:, None] * fractions
        scale = devices.total(jnp.sum(batch.labels.atoms > 0)) ** 0.5  # which the deviations were divided by
        return value, (deviations["energy"] @ weighted * scale, jnp.sum(weighted * fractions, 0))

    def step(train_state, batch):
        state = train_state.optimizer
        (value, (deviation, count)), gradient = devices.total(
            jax.value_and_grad(of_share, has_aux=True)(train_state.params, batch, state.offsets)
        )
        updates, inner = optimizer(settings, steps).update(gradient, state.optimizer, train_state.params)
        params = optax.apply_updates(train_state.params, updates)
        average, done = state.average, state.step + 1
        if settings.ema:
            decay = jnp.minimum(settings.ema, done / (done + 9.0))  # short at first: the start is soon forgotten
            average = jax.tree.map(lambda a, p: (decay * a + (1 - decay) * p).astype(p.dtype), average, params)
        offsets = state.offsets - FOLLOWING * deviation / jnp.maximum(count, 1e-6)
        return train_state._replace(params=params, optimizer=MatchingState(inner, done, average, offsets)), value

    return devices.shard_map_cells(partial(jax.lax.scan, step), in_axes=(None, devices.SCATTERED), out_axes=None)(
        train_state, batches
    )


@compilation.jit(n_static=1)
def _gauss_newton_sketch(settings, template, params, batches, keys):
    """For every batch the derivative of its weighted deviations, added up with random signs: (n_batches, n_params)."""

    def signed(params, batch, key):
        found, weights = _deviations(template.with_params(params), batch, lambda x: x), _weights(settings)
        weighted, _ = ravel_pytree(
            {name: (weight * _frame_weight_of(name, batch)) ** 0.5 * found[name] for name, weight in weights.items()}
        )
        return jnp.vdot(jax.random.rademacher(key, weighted.shape, weighted.dtype), weighted)

    def row(batch_and_key):
        return ravel_pytree(jax.grad(signed)(params, *batch_and_key))[0]

    return jax.lax.map(row, (batches, keys))


@jax.jit
def _validate(potential, offsets, batch):
    """Mean squared errors of a batch, with and without the weights of frames."""

    def of_share(potential, offsets, batch):
        deviations = _deviations(potential, batch, devices.total, offsets)
        return devices.total([_mean_squares(deviations, batch, weighted) for weighted in (True, False)])

    return devices.shard_map_cells(of_share, in_axes=(None, None, devices.SCATTERED), out_axes=None)(
        potential, offsets, batch
    )


AT_ONCE = 32  # batches on the devices at a time
AT_ONCE_MIXED = 8  # where there are two kinds of batches, in turn


class ForceMatchingTrainer:
    """One epoch of force matching over shuffled batches of one shape, or of two: with few and with many neighbours."""

    def __init__(
        self, settings: ForceMatchingConfig, template: Potential, frames: Sequence[Atoms], epochs: int | None = None
    ):
        self.settings, self.template = settings, template
        self.store = store_of(template, frames)
        self.store.weight, times = _frame_weights(settings, self.store)
        self.zeros = fit_zeros(template, self.store)
        self.everything = everything = np.repeat(np.arange(len(frames)), times)
        if settings.batch_atoms is None:
            self.capacities = np.full(len(frames), self.store.capacity)
            self.n_frames = min(settings.batch, len(everything))
            self.n_batches = {self.store.capacity: -(-len(everything) // self.n_frames)}
        else:
            self.capacities = self.store.capacities()
            self.n_batches = {}
            for capacity in np.unique(self.capacities).tolist():
                members = everything[self.capacities[everything] == capacity]
                n = -(-int(self.store.sizes[members].sum()) // settings.batch_atoms)
                chunks = -(-n // AT_ONCE_MIXED)
                self.n_batches[capacity] = min(chunks * -(-n // chunks), len(members))  # chunks of one length
        epochs = epochs or settings.epochs
        self.per_epoch = sum(self.n_batches.values())
        self.steps = self.per_epoch * epochs
        # the fullest batch that will come: one shape for all, and as little padding as that allows. Batches of about
        # equally many atoms differ in nothing but which of the frames of one size they hold.
        some = [indices for n in range(1 if settings.batch_atoms else epochs) for indices in self.batches(n)]
        self.n_atoms = self.store.fullest(some)
        self.n_frames = max(map(len, some)) if settings.batch_atoms else self.n_frames

    def init(self, params) -> loop.TrainState:
        offsets = jnp.zeros(len(self.zeros))
        average = params if self.settings.ema else ()
        state = optimizer(self.settings, self.steps).init(params)
        state = MatchingState(state, jnp.int32(0), average, offsets)
        return loop.TrainState(params, state, jax.random.PRNGKey(self.settings.seed))

    def learned(self, train_state: loop.TrainState) -> Any:
        """The parameters to take: their average if the settings ask for it."""
        return train_state.optimizer.average if self.settings.ema else train_state.params

    def batches(self, n: int) -> list[np.ndarray]:
        """Frame indices of the batches of epoch `n`, shuffled."""
        return [indices for chunk in self._chunks(n) for indices in chunk]

    def _chunks(self, n):
        """The batches of epoch `n` in lists, each of batches of one shape."""
        rng, everything = np.random.default_rng([self.settings.seed, n]), self.everything
        if self.settings.batch_atoms is None:
            batches = np.array_split(rng.permutation(everything), self.n_batches[self.store.capacity])
            return [batches[k : k + AT_ONCE] for k in range(0, len(batches), AT_ONCE)]
        chunks = []
        for capacity, n_batches in self.n_batches.items():
            batches = self.store.balanced(everything[self.capacities[everything] == capacity], n_batches, rng)
            batches = [batches[k] for k in rng.permutation(n_batches)]
            cuts = np.array_split(np.arange(n_batches), -(-n_batches // AT_ONCE_MIXED))
            chunks += [[batches[k] for k in cut] for cut in cuts]
        return [chunks[k] for k in rng.permutation(len(chunks))]

    def epoch(self, train_state: loop.TrainState, n: int) -> tuple[loop.TrainState, float]:
        """One pass over the frames; returns the learner and the mean training loss."""
        values = []
        for chunk in self._chunks(n):
            shape = (self.n_frames, self.n_atoms, self.capacities[chunk[0][0]])
            dealt = [self.store.device_batches(indices, *shape) for indices in chunk]
            dealt = devices.scatter([jax.tree.map(lambda *x: np.stack(x), *own) for own in zip(*dealt, strict=True)])
            train_state, value = _steps(self.settings, self.steps, self.template, train_state, dealt)
            values.append(value)
        return train_state, float(np.mean(np.concatenate(values)))

    def gauss_newton_sketch(self, params, n: int, rows: int) -> np.ndarray:
        """G (rows, n_params) such that a short step d raises the mean loss of a frame by |G d|^2, slope apart.

        But for noise, G^T G is the Gauss-Newton matrix of that loss. Each row is of one frame: its deviations from the
        labels are added up with random signs and differentiated; in the mean over signs, products of two different
        deviations vanish. `n` chooses frames and signs.
        """
        seed, frames, n_atoms = self.settings.seed, self.everything, int(self.store.sizes.max())
        shuffled = [np.random.default_rng([seed, n, k]).permutation(frames) for k in range(-(-rows // len(frames)))]
        alone = [self.store.collate(index, 1, n_atoms) for index in np.concatenate(shuffled)[:rows, None]]
        keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(seed), n), rows)
        found = _gauss_newton_sketch(
            self.settings, self.template, params, jax.tree.map(lambda *x: np.stack(x), *alone), keys
        )
        return np.asarray(found) / rows**0.5


def sources(frames: Sequence[Atoms], what: str) -> dict:
    """What a checkpoint remembers of labelled frames, see `loop.train`: structures and labels, each by its name."""
    return {
        f"structures of the {what} frames": [(frame.numbers, frame.positions, frame.cell.array) for frame in frames],
        f"labels of the {what} frames": [
            (labelled.labels(frame), labelled.use_virial(frame), labelled.source(frame)) for frame in frames
        ],
    }


def train(
    start: Potential,
    frames: Sequence[Atoms],
    validation: Sequence[Atoms],
    settings: ForceMatchingConfig,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> tuple[Potential, list[dict]]:
    """Fit `start` to labelled `frames`, for as long as the learning rate takes to fall.

    Returns the trained potential and the history (per epoch: training loss, validation errors). The last parameters are
    taken: those of the smallest validation loss come from when the learning rate was still high, and a few unusual
    frames decide which. With `patience` training stops early, and then the latter are taken.
    `on_epoch` gets the history after every epoch, e.g. to draw it. A warning names frames whose labels do not fit those
    of their family (`outliers`). Raises ValueError naming the part that has no frames, and for frames of several
    sources if `start` does not name its own.
    """
    for part, members in (("training", frames), ("validation", validation)):
        if not len(members):
            raise ValueError(
                f"no frames for {part}: force matching needs at least one labelled frame in each part; add frames, or "
                "share them out with `splits.paper_split`"
            )
    matching_trainer = ForceMatchingTrainer(settings, start, frames)
    check = Validation(matching_trainer, validation)

    def epoch(train_state, n):
        train_state, training_loss = matching_trainer.epoch(train_state, n)
        return train_state, {"loss": training_loss, **check(train_state)}

    result = loop.train(
        epoch, matching_trainer.init(start.params), settings.epochs, name="force matching",
        settings=asdict(settings),
        learned_from=loop.start_of(start) | sources(frames, "training") | sources(validation, "validation"),
        checkpoint=checkpoint,
        watch="validation" if settings.patience else None, patience=settings.patience,
        on_epoch=on_epoch, learned=matching_trainer.learned,
    )  # fmt: skip
    covered = matching_trainer.store.coverage().merged(start.coverage)
    trained = replace(start, params=result.params, coverage=covered)
    _doubt(trained, [*frames, *validation], [matching_trainer.store, check.store])
    return trained, result.history


class Validation:
    """Errors on held-out frames, whose energies count from the zeros that training knows."""

    def __init__(self, trainer: ForceMatchingTrainer, frames: Sequence[Atoms]):
        self.trainer = trainer
        self.store = store = store_of(trainer.template, frames, trainer.store.offset_of)
        store.weight = np.prod(_frame_weights(trainer.settings, store), 0)
        store.energy -= store.offsets @ trainer.zeros
        at_once = trainer.settings.batch_atoms or store.sizes.sum()
        n_batches = min(-(-int(store.sizes.sum()) // int(at_once)), len(frames))
        batches = [np.sort(batch) for batch in store.balanced(np.arange(len(frames)), n_batches)]
        shape = max(map(len, batches)), store.fullest(batches)
        self.batches = [devices.scatter(store.device_batches(indices, *shape)) for indices in batches]
        count = {
            "energy": [len(batch) for batch in batches],
            "force": [store.sizes[batch].sum() for batch in batches],
            "virial": [store.has_virial[batch].sum() for batch in batches],
        }
        self.parts = {name: np.array(n) / max(np.sum(n), 1) for name, n in count.items()}

    def __call__(self, train_state: loop.TrainState) -> dict[str, float]:
        """Validation loss, and root mean square errors of energies (meV/atom) and forces (meV/Å) without weights."""
        potential = self.trainer.template.with_params(self.trainer.learned(train_state))
        found = [_validate(potential, train_state.optimizer.offsets, batch) for batch in self.batches]
        weighted, plain = (
            {name: sum(p * float(one[k][name]) for p, one in zip(part, found, strict=True))
             for name, part in self.parts.items()}
            for k in range(2)
        )  # fmt: skip
        return {
            "validation": _weighted_sum(self.trainer.settings, weighted),
            "energy_rmse_meV": 1e3 * np.sqrt(plain["energy"]),
            "force_rmse_meV_A": 1e3 * np.sqrt(plain["force"]),
        }


def _doubt(trained, frames, stores) -> None:
    """Warn of frames whose labels do not fit those of their family."""
    worst = list({outlier.frame: outlier for outlier in reversed(outliers.find(trained, frames, stores))}.values())[
        ::-1
    ]
    if worst:
        more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
        warnings.warn(
            f"labels that do not fit their family: {', '.join(map(str, worst[:5]))}{more}; look at these frames, and "
            "relabel or drop what is wrong (fusedff.training.outliers.find lists all)",
            stacklevel=3,
        )
