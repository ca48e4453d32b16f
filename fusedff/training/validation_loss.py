"""Validation loss of force matching: the same loss on frames that are not trained on."""

from collections.abc import Sequence

import jax
import numpy as np
from ase import Atoms

from fusedff.potential import Potential
from fusedff.runtime import devices
from fusedff.training import force_matching_loss
from fusedff.training.config import ForceMatchingConfig
from fusedff.training.label_errors import ATOMS_AT_ONCE, store_of


class ValidationLoss:
    """Errors on validation frames, called as `validation(params, offsets)`.

    `offset_of` and `zeros` (n_offsets,), eV per atom, name the zeros of energy of other sources and give their values
    at the start of training (`label_errors.fit_zeros`); the `offsets` (n_offsets,) of a call are their changes since.
    """

    def __init__(
        self, settings: ForceMatchingConfig, template: Potential, frames: Sequence[Atoms], offset_of: Sequence, zeros
    ):
        self.settings, self.template = settings, template
        self.store = store = store_of(template, frames, offset_of)
        store.weight = np.prod(force_matching_loss.frame_weights(settings, store), 0)
        store.energy -= store.offset_counts @ zeros
        at_once = settings.batch_atoms or ATOMS_AT_ONCE
        n_batches = min(-(-int(store.sizes.sum()) // at_once), len(frames))
        batches = [np.sort(batch) for batch in store.balanced(np.arange(len(frames)), n_batches)]
        shape = max(map(len, batches)), store.max_atoms_per_device(batches)
        self.batches = [devices.scatter(store.device_batches(indices, *shape)) for indices in batches]
        count = {
            "energy": [len(batch) for batch in batches],
            "force": [len(batch) for batch in batches],
            "virial": [store.use_virial[batch].sum() for batch in batches],
        }
        self.parts = {name: np.array(n) / max(np.sum(n), 1) for name, n in count.items()}  # of each batch in the means

    def __call__(self, params, offsets) -> dict[str, float]:
        """Validation loss, its three terms, and root mean square errors of energies (meV/atom) and forces (meV/Å).

        The loss and its terms have the weights of frames and labels, the other errors have none.
        """
        potential = self.template.with_params(params)
        found = [_validate(potential, offsets, batch) for batch in self.batches]
        weighted, plain = (
            {name: sum(p * float(one[k][name]) for p, one in zip(part, found, strict=True))
             for name, part in self.parts.items()}
            for k in range(2)
        )  # fmt: skip
        weights = force_matching_loss.weights(self.settings)
        return {
            "validation": force_matching_loss.total(self.settings, weighted),
            **{f"validation_{name}": weight * weighted[name] for name, weight in weights.items()},
            "energy_rmse_meV": 1e3 * np.sqrt(plain["energy"]),
            "force_rmse_meV_A": 1e3 * np.sqrt(plain["force"]),
        }


@jax.jit
def _validate(potential, offsets, batch):
    """Mean squared errors of a batch, with and without the weights of frames."""

    def of_share(potential, offsets, batch):
        found = force_matching_loss.deviations(potential, batch, devices.sum_over_devices, offsets)
        return devices.sum_over_devices(
            [force_matching_loss.mean_squares(found, batch, weighted) for weighted in (True, False)]
        )

    return devices.shard_map_cells(of_share, in_axes=(None, None, devices.SCATTERED), out_axes=None)(
        potential, offsets, batch
    )
