"""Work spread over all devices that jax sees, on one host or on several.

Outside `spread` every array is whole and the same on every device. Inside, each device holds its share of the cells
(or of the frames) and runs what a single device would run, so no gather leaves the device; only sums, maxima and
results travel. With one device nothing here does anything.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_AXIS = "device"
SCATTERED = "dealt"  # in `takes`: what `deal` made


_forked = False


def _after_fork():
    global _forked
    _forked = getattr(xla_bridge, "backends_are_initialized", lambda: True)()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def require_unforked() -> None:
    """Raise RuntimeError in a process that was forked after jax had started: whatever it computed would hang."""
    if _forked:
        raise RuntimeError(
            "this process was forked after jax had started its threads, which a fork leaves behind; start workers with "
            "multiprocessing.get_context('spawn'), or use threads"
        )


def first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def count() -> int:
    """Devices of all hosts together."""
    require_unforked()
    return jax.device_count()


def shard_map_cells(function: Callable, in_axes: tuple, out_axes, n: int = 0) -> Callable:
    """`function`, computed by every device for its share of `n` cells; for use under jit.

    `takes` and `gives` say where the cells are, as `in_axes` and `out_axes` of `jax.vmap` do: the axis, or None for
    what is the same on all devices. When the devices have more places than cells, the last cell is repeated; what is
    summed over cells must give that no weight, see `without_repeats`.
    """
    if count() == 1:
        return function
    mapped = jax.shard_map(
        lambda *arguments: function(*_each(_mine, in_axes, arguments)),
        mesh=_mesh(), in_specs=_each(_spec, in_axes), out_specs=_each(_spec, out_axes), check_vma=False,
    )  # fmt: skip

    def everywhere(*arguments):
        return _each(partial(_whole, n), out_axes, mapped(*_each(partial(_filled, n), in_axes, arguments)))

    return everywhere


def total(tree):
    """Inside `spread`: the sum over all devices."""
    return tree if count() == 1 else jax.lax.psum(tree, _AXIS)


def largest(tree):
    """Inside `spread`: the maximum over all devices."""
    return tree if count() == 1 else jax.lax.pmax(tree, _AXIS)


def zero_for_repeats(weights: jax.Array, axis: int) -> jax.Array:
    """Weights of cells along `axis`, with zeros for the places that `spread` fills with a repeated cell."""
    repeats = _idle(weights.shape[axis])
    return jnp.pad(weights, [(0, repeats * (a == axis)) for a in range(weights.ndim)]) if repeats else weights


def warn_if_idle(n: int) -> None:
    """Say so when `n` cells do not fill the devices evenly."""
    if _idle(n) and first():
        each = -(-n // count())
        warnings.warn(
            f"{n} cells on {count()} devices, {each} on each: {_idle(n)} of {each * count()} places stay idle; choose "
            f"replicas so that the number of cells is a multiple of {count()}",
            stacklevel=3,
        )


def scatter(shares: Sequence):
    """One tree of NumPy arrays for every device, each sent where it belongs; `spread` takes it as SCATTERED."""
    if count() == 1:
        return jax.tree.map(jnp.asarray, shares[0])
    sharding = NamedSharding(_mesh(), _spec(SCATTERED))

    def send(*parts):
        shape = (len(parts), *parts[0].shape)
        return jax.make_array_from_callback(shape, sharding, lambda index: np.stack(parts[index[0]]))

    return jax.tree.map(send, *shares)


def local(tree):
    """Arrays that are the same on every device as ordinary arrays of this process."""
    return tree if count() == 1 else jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), tree)


def _mesh() -> Mesh:
    return jax.make_mesh((count(),), (_AXIS,), axis_types=(AxisType.Auto,))


def _idle(n):
    """Places that `n` cells leave empty when all devices have equally many."""
    return -n % count()


def _each(function, where, *trees):
    """`function(where, part)` for all parts of a tree; `where` is a prefix of it, in which None is a leaf."""
    return jax.tree.map(function, where, *trees, is_leaf=lambda x: x is None)


def _spec(where):
    if where == SCATTERED:
        return PartitionSpec(_AXIS)
    return PartitionSpec() if where is None else PartitionSpec(*[None] * where, _AXIS)


def _filled(n, where, part):
    """As many cells as there are places: the last one is repeated."""
    if where in (None, SCATTERED) or not _idle(n):
        return part
    return jax.tree.map(lambda x: x.take(np.arange(n + _idle(n)), where, mode="clip"), part)


def _mine(where, part):
    return jax.tree.map(lambda x: x[0], part) if where == SCATTERED else part


def _whole(n, where, part):
    """The results of all cells, on every device."""
    if where is None:
        return part
    everywhere = NamedSharding(_mesh(), PartitionSpec())
    cut = partial(jax.lax.slice_in_dim, start_index=0, limit_index=n, axis=where)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(cut(x), everywhere), part)
