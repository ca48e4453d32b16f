"""Bottom-up training: a potential that reproduces the energies, forces and virials of DFT frames."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

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
from fusedff.training import loop
from fusedff.units import GPA

OPTIMIZERS = ("adam", "muon")


@dataclass(frozen=True)
class ForceMatchingConfig:
    """Settings. The loss is a weighted sum of mean squared errors per atom, per component and per atom.

    Errors are divided by 1 eV/atom (energy), 1 eV/Å (force component) and 1 eV/atom (virial component).
    """

    epochs: int = 400
    batch: int = 30  # frames
    optimizer: str = "adam"  # or another of OPTIMIZERS
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    energy_weight: float = 0.066  # ratios of the titanium paper, see presets.PAPER
    force_weight: float = 1.0
    virial_weight: float = 0.26
    patience: int | None = None  # stop after so many epochs without a better validation loss, and take the best
    seed: int = 0

    def __post_init__(self):
        ranges.require(
            self,
            count=["epochs", "batch", *(["patience"] if self.patience is not None else [])],
            positive=["learning_rate", "final_learning_rate"],
            not_negative=["energy_weight", "force_weight", "virial_weight"],
        )
        ranges.one_of(self, "optimizer", OPTIMIZERS)


def _store(potential: Potential, frames: Sequence[Atoms]) -> FrameStore:
    """The frames for a potential, which must know all their elements."""
    for n, frame in enumerate(frames):
        potential.require_species(frame.numbers, f"frame {n}: ")
    store = FrameStore(frames, potential.cutoff)
    store.energy -= [potential.reference_energy(frame.numbers) for frame in frames]  # in double precision
    return store


def _deviations(potential: Potential, batch: Batch, total: Callable) -> dict[str, jax.Array]:
    """Deviations from the labels, scaled so that their squares add up to the mean squared errors."""
    predicted = potential.evaluate(batch.system, batch.neighbors)
    labels = batch.labels
    present = labels.atoms > 0
    atoms = jnp.maximum(labels.atoms, 1)
    in_cell = (batch.system.cell_index < batch.system.n_cells).astype(atoms.dtype)
    with_virial = jnp.maximum(total(jnp.sum(labels.has_virial)), 1) * 6
    stress = (predicted.stress - labels.stress) * labels.has_virial[:, None] / with_virial**0.5
    energy = (predicted.energy - labels.energy) / atoms
    return {
        "energy": jnp.where(present, energy, 0) / total(jnp.sum(present)) ** 0.5,
        "force": (predicted.forces - labels.forces) * in_cell[:, None] / (3 * total(jnp.sum(in_cell))) ** 0.5,
        "virial": stress * (batch.system.volumes / atoms)[:, None],
        "stress": stress,
    }


def mean_squared_errors(potential: Potential, batch: Batch, total: Callable = lambda x: x) -> dict[str, jax.Array]:
    """Mean squared errors: energy and virial in (eV/atom)^2, force in (eV/Å)^2, stress in (eV/Å^3)^2.

    When `batch` is a share, `total` adds up what is counted over all of them; the errors of the shares then add up
    to those of the whole.
    """
    return {name: jnp.sum(deviation**2) for name, deviation in _deviations(potential, batch, total).items()}


def loss(settings: ForceMatchingConfig, potential: Potential, batch: Batch, total: Callable = lambda x: x) -> jax.Array:
    errors = mean_squared_errors(potential, batch, total)
    return sum(weight * errors[name] for name, weight in _weights(settings).items())


def _weights(settings):
    return {"energy": settings.energy_weight, "force": settings.force_weight, "virial": settings.virial_weight}


def optimizer(settings: ForceMatchingConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer for `steps` steps, its learning rate going from `learning_rate` to `final_learning_rate`.

    `adam` decays exponentially, as in the paper. `muon` (momentum with orthogonalized updates of weight matrices)
    warms up over a tenth of the steps and follows a cosine; it needs a fraction of the epochs.
    """
    begin, end = settings.learning_rate, settings.final_learning_rate
    if settings.optimizer == "adam":
        return optax.adam(optax.exponential_decay(begin, max(steps, 1), end / begin))
    warm_up = max(1, steps // 10)
    return muon(optax.warmup_cosine_decay_schedule(begin / 10, begin, warm_up, max(steps, warm_up + 1), end))


@compilation.jit(n_static=2)
def _steps(settings, steps, template, train_state, batches):
    """One optimizer step per batch; compiled as one loop, so that temporaries are allocated once and not per step."""

    def of_share(params, batch):
        return loss(settings, template.with_params(params), batch, devices.total)

    def step(train_state, batch):
        value, gradient = devices.total(jax.value_and_grad(of_share)(train_state.params, batch))
        updates, state = optimizer(settings, steps).update(gradient, train_state.optimizer, train_state.params)
        params = optax.apply_updates(train_state.params, updates)
        return train_state._replace(params=params, optimizer=state), value

    return devices.shard_map_cells(partial(jax.lax.scan, step), in_axes=(None, devices.SCATTERED), out_axes=None)(
        train_state, batches
    )


@compilation.jit(n_static=1)
def _gauss_newton_sketch(settings, template, params, batches, keys):
    """For every batch the derivative of its weighted deviations, added up with random signs: (n_batches, n_params)."""

    def signed(params, batch, key):
        found, weights = _deviations(template.with_params(params), batch, lambda x: x), _weights(settings)
        weighted, _ = ravel_pytree({name: weight**0.5 * found[name] for name, weight in weights.items()})
        return jnp.vdot(jax.random.rademacher(key, weighted.shape, weighted.dtype), weighted)

    def row(batch_and_key):
        return ravel_pytree(jax.grad(signed)(params, *batch_and_key))[0]

    return jax.lax.map(row, (batches, keys))


@compilation.jit(n_static=1)
def _validate(settings, potential, batch):
    def of_share(potential, batch):
        value = loss(settings, potential, batch, devices.total)
        return devices.total((value, mean_squared_errors(potential, batch, devices.total)))

    return devices.shard_map_cells(of_share, in_axes=(None, devices.SCATTERED), out_axes=None)(potential, batch)


AT_ONCE = 32  # batches on the devices at a time


class ForceMatchingTrainer:
    """One epoch of force matching over shuffled batches of equal shape."""

    def __init__(
        self, settings: ForceMatchingConfig, template: Potential, frames: Sequence[Atoms], epochs: int | None = None
    ):
        self.settings, self.template = settings, template
        self.store = _store(template, frames)
        self.n_frames = min(settings.batch, len(frames))
        self.per_epoch = -(-len(frames) // self.n_frames)
        epochs = epochs or settings.epochs
        self.steps = self.per_epoch * epochs
        # the fullest batch that will come: one shape for all, and as little padding as that allows
        self.n_atoms = self.store.fullest([indices for n in range(epochs) for indices in self.batches(n)])

    def init(self, params) -> loop.TrainState:
        state = optimizer(self.settings, self.steps).init(params)
        return loop.TrainState(params, state, jax.random.PRNGKey(self.settings.seed))

    def batches(self, n: int) -> list[np.ndarray]:
        """Frame indices of the batches of epoch `n`, shuffled."""
        shuffled = np.random.default_rng([self.settings.seed, n]).permutation(len(self.store.frames))
        return np.array_split(shuffled, self.per_epoch)

    def epoch(self, train_state: loop.TrainState, n: int) -> tuple[loop.TrainState, float]:
        """One pass over the frames; returns the learner and the mean training loss."""
        values, batches = [], self.batches(n)
        for chunk in (batches[k : k + AT_ONCE] for k in range(0, len(batches), AT_ONCE)):
            dealt = [self.store.device_batches(indices, self.n_frames, self.n_atoms) for indices in chunk]
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
        seed, n_frames, n_atoms = self.settings.seed, len(self.store.frames), int(self.store.sizes.max())
        shuffled = [np.random.default_rng([seed, n, k]).permutation(n_frames) for k in range(-(-rows // n_frames))]
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
        f"labels of the {what} frames": [(labelled.labels(frame), labelled.use_virial(frame)) for frame in frames],
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
    of their family (`outliers`). Raises ValueError naming the part that has no frames.
    """
    for part, members in (("training", frames), ("validation", validation)):
        if not len(members):
            raise ValueError(
                f"no frames for {part}: force matching needs at least one labelled frame in each part; add frames, or "
                "share them out with `splits.paper_split`"
            )
    matching_trainer = ForceMatchingTrainer(settings, start, frames)
    check = _store(start, validation)
    everything = np.arange(len(validation))
    held_out = devices.scatter(check.device_batches(everything, len(validation), check.fullest([everything])))

    def epoch(train_state, n):
        train_state, training_loss = matching_trainer.epoch(train_state, n)
        value, errors = _validate(settings, start.with_params(train_state.params), held_out)
        return train_state, {
            "loss": training_loss,
            "validation": value,
            "energy_rmse_meV": 1e3 * np.sqrt(errors["energy"]),
            "force_rmse_meV_A": 1e3 * np.sqrt(errors["force"]),
        }

    result = loop.train(
        epoch, matching_trainer.init(start.params), settings.epochs, name="force matching",
        settings=asdict(settings),
        learned_from=loop.start_of(start) | sources(frames, "training") | sources(validation, "validation"),
        checkpoint=checkpoint,
        watch="validation" if settings.patience else None, patience=settings.patience,
        on_epoch=on_epoch,
    )  # fmt: skip
    trained = start.with_params(result.params)
    _doubt(trained, [*frames, *validation], [matching_trainer.store, check])
    return trained, result.history


def _doubt(trained, frames, stores) -> None:
    """Warn of frames whose labels do not fit those of their family."""
    from fusedff.training import outliers  # which imports this module

    if len(frames) < outliers.FAMILY:
        return
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


def errors(potential: Potential, frames: Sequence[Atoms]) -> dict[str, float | None]:
    """Mean absolute errors on labelled frames: meV/atom, meV/Å and GPa; None for stress if no frame has a label of it.

    Raises ValueError without frames.
    """
    if not len(frames):
        raise ValueError("no frames to test on: give at least one labelled frame; a small split may have none")
    store = _store(potential, frames)
    batch = store.batch(np.arange(len(frames)), len(frames), int(store.sizes.sum()))
    predicted = jax.jit(Potential.evaluate)(potential, batch.system, batch.neighbors)
    stressed = batch.labels.has_virial > 0
    stress = jnp.abs(predicted.stress - batch.labels.stress)[stressed]
    return {
        "energy_mae_meV_per_atom": float(
            1e3 * jnp.mean(jnp.abs(predicted.energy - batch.labels.energy) / batch.labels.atoms)
        ),
        "force_mae_meV_per_A": float(1e3 * jnp.mean(jnp.abs(predicted.forces - batch.labels.forces))),
        "stress_mae_GPa": float(jnp.mean(stress) / GPA) if stress.size else None,
    }
