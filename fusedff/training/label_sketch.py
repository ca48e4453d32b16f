"""Random projections of the derivatives of the label loss, which Gauss-Newton steps use as a penalty.

The Gauss-Newton matrix of the label loss is D^T D, where D holds the derivatives of all weighted deviations from the
labels: too many rows to store. A Rademacher sketch replaces them by a few rows. Each row belongs to one frame, whose
deviations are added up with random signs before they are differentiated. In the mean over signs the products of two
different deviations vanish, so that G^T G of the sketch G is D^T D (M. F. Hutchinson, Commun. Stat. Simul. Comput. 19,
433 (1990)). `gauss_newton` says what it is used for.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fusedff.data.batching import FrameStore
from fusedff.potential import Potential
from fusedff.training import force_matching_loss
from fusedff.training.config import ForceMatchingConfig


class LabelSketch:
    """Sketches of the loss of the frames in a store, each for other parameters."""

    def __init__(self, settings: ForceMatchingConfig, template: Potential, store: FrameStore):
        self.seed, self.template, self.store = settings.seed, template, store
        self._rows = jax.jit(partial(_rows, settings))

    def __call__(self, frames: Sequence[int] | np.ndarray, params, n: int, rows: int) -> np.ndarray:
        """G (rows, n_params), such that a short step d raises the loss of `frames` by |G d|^2 beside its slope times d.

        `frames` are indices of frames in the store, of which a random permutation gives one frame per row; `n`, the
        number of the step, and the seed of the settings choose permutation and signs.
        """
        seed, store, n_atoms = self.seed, self.store, int(self.store.sizes.max())
        shuffled = [np.random.default_rng([seed, n, k]).permutation(frames) for k in range(-(-rows // len(frames)))]
        alone = [store.collate(index, 1, n_atoms) for index in np.concatenate(shuffled)[:rows, None]]
        keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(seed), n), rows)
        # the loss averages virials over the frames that have a stress label, the rows over all frames
        stressed = max(store.use_virial[frames].mean(), 1 / len(frames))
        found = self._rows(self.template, params, jax.tree.map(lambda *x: np.stack(x), *alone), keys, stressed)
        return np.asarray(found) / rows**0.5


def _rows(settings, template, params, batches, keys, stressed):
    """For every batch the derivative of its weighted deviations, added up with random signs: (n_batches, n_params).

    `stressed` is the share of frames that have a stress label.
    """
    weights = force_matching_loss.weights(settings)
    weights["virial"] /= stressed

    def signed(params, batch, key):
        found = force_matching_loss.deviations(template.with_params(params), batch)
        weighted, _ = ravel_pytree(
            {
                name: (weight * force_matching_loss.weight_of(name, batch)) ** 0.5 * found[name]
                for name, weight in weights.items()
            }
        )
        return jnp.vdot(jax.random.rademacher(key, weighted.shape, weighted.dtype), weighted)

    def row(batch_and_key):
        return ravel_pytree(jax.grad(signed)(params, *batch_and_key))[0]

    return jax.lax.map(row, (batches, keys))
