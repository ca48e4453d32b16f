"""Data parallelism over all devices of jax, on one host or on several.

`shard_map_cells` wraps `jax.shard_map` over a mesh with a single axis, the devices. Every device computes a contiguous
block of the cells (or of the frames of a batch), so neighbour gathers stay on the device. Collectives are needed only
for sums (`sum_over_devices`, a psum), maxima (`max_over_devices`, a pmax) and the results. Outside the mapped function
every array is replicated: every device has all of it. With one device, functions and arrays are left as they are.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.backend import clear_backends
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

try:
    from jax._src.xla_bridge import backends_are_initialized
except ImportError:  # not public: another jax may lack it
    backends_are_initialized = lambda: True  # noqa: E731

# By default NVIDIA GPUs round the factors of matrix products to TF32, ten bits: too coarse for lattice vectors, and
# energies are off by 2e-4 (benchmarks/results/gpu.md). What the user has set is kept.
if jax.config.jax_default_matmul_precision is None:  # ty: ignore[missing-attribute]  # defined at run time
    jax.config.update("jax_default_matmul_precision", "highest")

_AXIS = "device"
_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
SCATTERED = "scattered"  # in `in_axes`: an argument made by `scatter`


_forked = False


def _after_fork():
    global _forked
    _forked = backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def require_unforked() -> None:
    """Raise RuntimeError in a process that was forked after jax had started, where any computation would hang."""
    if _forked:
        raise RuntimeError(
            "this process was forked after jax had started its threads, which a fork leaves behind; start workers with "
            "multiprocessing.get_context('spawn'), or use threads"
        )


def require_platform(release: bool = False) -> None:
    """Raise ValueError if JAX_PLATFORMS names a device that jax does not find, in place of a traceback through jax.

    With `release`, this process then gives the devices up, so that their memory is free for processes started later.
    """
    wanted = os.environ.get("JAX_PLATFORMS")
    if wanted in (None, "", "cpu"):
        return
    before = os.environ.get(_PREALLOCATE)
    if release:
        os.environ[_PREALLOCATE] = "false"
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS={wanted}, but jax finds no such device here{why}; unset it to use what there is"
        ) from None
    finally:
        if release:
            clear_backends()
            del os.environ[_PREALLOCATE]
            if before is not None:
                os.environ[_PREALLOCATE] = before


def is_first_process() -> bool:
    """Whether this is the first process of a distributed run, the one that writes files and shows progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def device_count() -> int:
    """Number of devices of all hosts together. Raises RuntimeError in a process forked after jax had started."""
    require_unforked()
    return jax.device_count()


def shard_map_cells(function: Callable, in_axes: tuple, out_axes, n: int = 0) -> Callable:
    """Map `function` over the devices, each with its block of the `n` cells; for use under jit.

    `in_axes` and `out_axes` are like those of `jax.vmap`: the axis that counts cells, or None for an array that is the
    same on all devices; `in_axes` may also be SCATTERED (see `scatter`). Unless the number of devices divides `n`, the
    last cell is repeated to fill the blocks; sums over cells must give the repeats no weight (`zero_for_repeats`).
    """
    if device_count() == 1:
        return function
    mapped = jax.shard_map(
        lambda *arguments: function(*_each(_own_block, in_axes, arguments)),
        mesh=_mesh(), in_specs=_each(_spec, in_axes), out_specs=_each(_spec, out_axes), check_vma=False,
    )  # fmt: skip

    def everywhere(*arguments):
        return _each(partial(_whole, n), out_axes, mapped(*_each(partial(_filled, n), in_axes, arguments)))

    return everywhere


def sum_over_devices(tree):
    """Sum over all devices, inside a mapped function."""
    return tree if device_count() == 1 else jax.lax.psum(tree, _AXIS)


def max_over_devices(tree):
    """Maximum over all devices, inside a mapped function."""
    return tree if device_count() == 1 else jax.lax.pmax(tree, _AXIS)


def zero_for_repeats(weights: jax.Array, axis: int) -> jax.Array:
    """Weights of cells along `axis`, padded with zeros for the cells that `shard_map_cells` repeats."""
    repeats = _idle(weights.shape[axis])
    return jnp.pad(weights, [(0, repeats * (a == axis)) for a in range(weights.ndim)]) if repeats else weights


def warn_if_idle(n: int) -> None:
    """Warn if the number of devices does not divide the number `n` of cells, so that some devices do repeated work."""
    if _idle(n) and is_first_process():
        n_devices = device_count()
        each = -(-n // n_devices)
        warnings.warn(
            f"{n} cells on {n_devices} devices, {each} on each: {_idle(n)} of {each * n_devices} places stay idle; "
            f"choose replicas so that the number of cells is a multiple of {n_devices}",
            stacklevel=3,
        )


def scatter(shares: Sequence):
    """Send one tree of NumPy arrays to each device, as an argument of `shard_map_cells` with `in_axes` SCATTERED."""
    if device_count() == 1:
        return jax.tree.map(jnp.asarray, shares[0])
    sharding = NamedSharding(_mesh(), _spec(SCATTERED))

    def send(*parts):
        shape = (len(parts), *parts[0].shape)
        return jax.make_array_from_callback(shape, sharding, lambda index: np.stack(parts[index[0]]))  # ty: ignore[not-subscriptable]

    return jax.tree.map(send, *shares)


def to_local(tree):
    """Copy the replicated arrays of a tree to ordinary arrays of this process."""
    return tree if device_count() == 1 else jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), tree)


def _mesh() -> Mesh:
    return jax.make_mesh((device_count(),), (_AXIS,), axis_types=(AxisType.Auto,))


def _idle(n):
    """Number of cells to add so that all devices have equally many."""
    return -n % device_count()


def _each(function, where, *trees):
    """`function(where, part)` for all parts of a tree; `where` is a prefix of it, in which None is a leaf."""
    return jax.tree.map(function, where, *trees, is_leaf=lambda x: x is None)


def _spec(where):
    if where == SCATTERED:
        return PartitionSpec(_AXIS)
    return PartitionSpec() if where is None else PartitionSpec(*[None] * where, _AXIS)


def _filled(n, where, part):
    """Repeat the last cell until all devices have equally many."""
    if where in (None, SCATTERED) or not _idle(n):
        return part
    return jax.tree.map(lambda x: x.take(np.arange(n + _idle(n)), where, mode="clip"), part)


def _own_block(where, part):
    return jax.tree.map(lambda x: x[0], part) if where == SCATTERED else part


def _whole(n, where, part):
    """Replicate the results of all cells, without the repeats."""
    if where is None:
        return part
    everywhere = NamedSharding(_mesh(), PartitionSpec())
    cut = partial(jax.lax.slice_in_dim, start_index=0, limit_index=n, axis=where)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(cut(x), everywhere), part)
