"""The loss of force matching: weighted mean squared errors of energies, forces and virials against DFT labels.

With the errors of energy e (eV per atom), force component f (eV/Å) and virial component w (eV per atom) of a batch,

    loss = w_U <e^2> + w_F <f^2> + w_W <w^2> ,

where the means are over frames: of e^2, of the mean of f^2 over the atoms of a frame and their three components, and of
the mean of w^2 over six components, the last only over frames that have a stress label. A frame of two atoms thus
counts as much as one of a hundred: small cells near equilibrium determine elastic constants and phonons, and would have
no weight in a mean over all atoms. With batches of equally many atoms (`batch_atoms`), a frame counts less in batches
that have more frames than others, whose neighbours need fewer slots. Every squared error is multiplied by the weight of
its frame, see `frame_weights`.
"""

from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.data.batching import Batch, FrameStore
from fusedff.potential import Potential
from fusedff.training.config import ForceMatchingConfig

MAX_INTERVAL = 20  # epochs until a frame of small weight comes again


def frame_weights(settings: ForceMatchingConfig, store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the squared errors of each frame, and how often it comes in an epoch; both (n_frames,).

    Their product is the weight in the settings. A few frames of large weight would make the gradients of batches noisy,
    so frames of a source with a weight of 2 or more are repeated. Frames with a weight of 1/2 or less are used only in
    some epochs (`of_epoch`): to evaluate all of them with a small weight would take longer and improve little.
    """
    by_source = dict(settings.source_weights)
    weight = np.array([by_source.get(source, 1.0) for source in store.sources])
    n_frames = Counter(store.sources)
    most = np.array([min(MAX_INTERVAL, n_frames[source]) for source in store.sources])
    interval = np.clip(np.rint(1 / np.maximum(weight, 1e-9)), 1, most)
    times = np.where(weight < 1, 1 / interval, np.maximum(np.floor(weight), 1))
    weight = weight / times
    if settings.force_scale is not None:
        weight /= 1 + _squared_forces(store) / settings.force_scale**2
    return weight, times


def _squared_forces(store: FrameStore) -> np.ndarray:
    """Mean square (n_frames,) in (eV/Å)^2 of the forces on atoms, plus that of the stress on the area of an atom.

    In a compressed crystal the forces on all atoms vanish; what the stress exerts on the area V^(2/3) does not.
    """
    area = np.array([frame.cell.volume / len(frame) for frame in store.frames]) ** (2 / 3)
    through = store.stress * (store.use_virial * area)[:, None]
    return np.array([np.mean(forces**2) for forces in store.forces]) + np.mean(through**2, 1)


def of_epoch(times: np.ndarray, n: int) -> np.ndarray:
    """Indices of the frames in epoch `n`, each as often as it comes; `times` (n_frames,) is that of `frame_weights`.

    Frames that come in one of k epochs are divided among them by their order: every k-th is in one. So each epoch has
    some of every group of similar frames that follow one another, as in a trajectory.
    """
    interval = _intervals(times)
    rank = np.zeros(len(times), int)  # of a frame among those with the same interval
    for k in np.unique(interval):
        rank[interval == k] = np.arange(np.sum(interval == k))
    return np.repeat(np.arange(len(times)), np.where((rank + n) % interval == 0, np.maximum(times, 1), 0).astype(int))


def cycle(times: np.ndarray) -> int:
    """Number of epochs after which the same frames come again."""
    return int(np.lcm.reduce(_intervals(times)))


def _intervals(times) -> np.ndarray:
    """In one of how many epochs each frame comes (n_frames,)."""
    return np.rint(1 / np.minimum(times, 1)).astype(int)


def loss(settings: ForceMatchingConfig, potential: Potential, batch: Batch) -> jax.Array:
    """The loss () of a batch."""
    return total(settings, mean_squares(deviations(potential, batch), batch, weighted=True))


def deviations(potential: Potential, batch: Batch, total: Callable = lambda x: x, offsets=None) -> dict[str, jax.Array]:
    """Predictions minus labels, divided by square roots of how many there are: sums of squares are then means.

    Arrays have the shapes of the labels: energy (n_frames,) in eV/atom, force (n_atoms, 3) in eV/Å, virial in eV/atom
    and stress in eV/Å^3 (n_frames, 6). Means are over frames, those of forces over frames and the atoms in each.

    `offsets` (n_offsets,), eV per atom, are added to the zeros of energy of the other sources. If `batch` is only the
    part of a batch that one device has, `total` sums a number over all devices; the means of the parts then add up to
    those of the whole batch.
    """
    predicted = potential.evaluate(batch.system, batch.neighbors)
    labels = batch.labels
    present = labels.n_atoms > 0
    atoms = jnp.maximum(labels.n_atoms, 1)
    frames = total(jnp.sum(present))
    share = jnp.append(1 / (3 * atoms * frames) ** 0.5, 0)[batch.system.cell_index]  # 0 for padding atoms
    with_virial = jnp.maximum(total(jnp.sum(labels.use_virial)), 1) * 6
    stress = (predicted.stress - labels.stress) * labels.use_virial[:, None] / with_virial**0.5
    energy = (predicted.energy - labels.energy) / atoms
    if offsets is not None and len(offsets):
        energy = energy + labels.offset_counts @ offsets / atoms
    return {
        "energy": jnp.where(present, energy, 0) / frames**0.5,
        "force": (predicted.forces - labels.forces) * share[:, None],
        "virial": stress * (batch.system.volumes / atoms)[:, None],
        "stress": stress,
    }


def mean_squares(deviations: dict[str, jax.Array], batch: Batch, weighted: bool = False) -> dict[str, jax.Array]:
    """Mean squared errors by name: sums of the squared `deviations`, with the weights of the frames if `weighted`."""
    return {
        name: jnp.sum(weight_of(name, batch) * deviation**2 if weighted else deviation**2)
        for name, deviation in deviations.items()
    }


def weight_of(name: str, batch: Batch) -> jax.Array:
    """The weights of the frames, in a shape that multiplies the deviations called `name`."""
    weight = batch.labels.weight
    if name == "force":
        return jnp.append(weight, 0)[batch.system.cell_index][:, None]
    return weight if name == "energy" else weight[:, None]


def total(settings: ForceMatchingConfig, errors: dict):
    """w_U <e^2> + w_F <f^2> + w_W <w^2> from mean squared errors by name."""
    return sum(weight * errors[name] for name, weight in weights(settings).items())


def weights(settings: ForceMatchingConfig) -> dict[str, float]:
    """The weights of the three terms by name."""
    return {"energy": settings.energy_weight, "force": settings.force_weight, "virial": settings.virial_weight}
