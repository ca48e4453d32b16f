"""The loss of force matching: weighted mean squared errors of energies, forces and virials against DFT labels.

With the errors of energy e (eV per atom), force component f (eV/Å) and virial component w (eV per atom) of a batch,

    loss = w_U <e^2> + w_F <f^2> + w_W <w^2> ,

where the means are over frames, over atoms and their three components, and over the six components of the frames that
have a stress label. Every squared error is multiplied by the weight of its frame, see `frame_weights`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fusedff.data.batching import Batch, FrameStore
from fusedff.potential import Potential
from fusedff.training.config import ForceMatchingConfig


def frame_weights(settings: ForceMatchingConfig, store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the squared errors of each frame, and how often it comes in an epoch; both (n_frames,).

    Their product is the weight that the settings ask for. A few frames of large weight would make the gradients of
    batches noisy, so frames of a source with a weight of 2 or more are repeated instead.
    """
    by_source = dict(settings.source_weights)
    weight = np.array([by_source.get(source, 1.0) for source in store.sources])
    times = np.maximum(weight.astype(int), 1)
    weight = weight / times
    if settings.force_scale is not None:
        weight /= 1 + np.array([np.mean(forces**2) for forces in store.forces]) / settings.force_scale**2
    return weight, times


def loss(
    settings: ForceMatchingConfig, potential: Potential, batch: Batch, total: Callable = lambda x: x, offsets=None
) -> jax.Array:
    """The loss () of a batch; `total` and `offsets` as in `mean_squared_errors`."""
    errors = mean_squares(deviations(potential, batch, total, offsets), batch, weighted=True)
    return weighted_sum(settings, errors)


def mean_squared_errors(
    potential: Potential, batch: Batch, total: Callable = lambda x: x, offsets=None
) -> dict[str, jax.Array]:
    """Unweighted mean squared errors: energy and virial in (eV/atom)^2, force in (eV/Å)^2, stress in (eV/Å^3)^2.

    `offsets` (n_offsets,), eV per atom, are added to the zeros of energy of the other sources. If `batch` is only the
    part of a batch that one device has, `total` sums a number over all devices; the errors of the parts then add up to
    those of the whole batch.
    """
    return mean_squares(deviations(potential, batch, total, offsets), batch)


def deviations(potential: Potential, batch: Batch, total: Callable, offsets=None) -> dict[str, jax.Array]:
    """Predictions minus labels, divided by the square root of how many there are: sums of squares are then means.

    Arrays have the shapes of the labels: energy (n_frames,), force (n_atoms, 3), virial and stress (n_frames, 6).
    """
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


def mean_squares(deviations: dict[str, jax.Array], batch: Batch, weighted: bool = False) -> dict[str, jax.Array]:
    """Sums of the squared `deviations`, with the weights of the frames if `weighted`."""
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


def weighted_sum(settings: ForceMatchingConfig, errors: dict):
    """w_U <e^2> + w_F <f^2> + w_W <w^2> from mean squared errors by name."""
    return sum(weight * errors[name] for name, weight in weights(settings).items())


def weights(settings: ForceMatchingConfig) -> dict[str, float]:
    """The weights of the three terms by name."""
    return {"energy": settings.energy_weight, "force": settings.force_weight, "virial": settings.virial_weight}
