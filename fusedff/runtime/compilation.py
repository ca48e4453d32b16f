"""Compilation of functions that depend on settings, keeping only the programs of the last settings."""

from collections.abc import Callable
from functools import lru_cache, partial, wraps

import jax


def jit(n_static: int, kept: int = 2) -> Callable:
    """Decorate a function like `jax.jit` with its first `n_static` arguments static, and drop old programs.

    `jax.jit` keeps the program for every value of a static argument until the process ends: 10 to 40 MiB for every
    training with new settings. Here only those of the `kept` last used values stay. Static arguments must be hashable
    and positional.
    """

    def decorate(function):
        @lru_cache(maxsize=kept)
        def program(*static):
            return jax.jit(partial(function, *static))

        @wraps(function)
        def call(*arguments):
            return program(*arguments[:n_static])(*arguments[n_static:])

        return call

    return decorate
