"""Check that a training that is interrupted and resumed gives the same result, bit for bit."""

import jax
import numpy as np
import pytest


def check(train, trainer, step: str, at: int, path, monkeypatch) -> tuple:
    """Compare `train(*checkpoint)`, interrupted in step `at` and resumed, with a run without interruption.

    Returns the result of the latter. `step` names the method of `trainer` that makes one step,
    `step(self, train_state, n)`.
    """
    whole, history = train()
    make = getattr(trainer, step)

    def interrupted(self, train_state, n):
        if n == at:
            raise KeyboardInterrupt
        return make(self, train_state, n)

    monkeypatch.setattr(trainer, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(path)
    monkeypatch.setattr(trainer, step, make)
    resumed, resumed_history = train(path)
    assert resumed_history == history
    for one, two in zip(jax.tree.leaves(whole.params), jax.tree.leaves(resumed.params), strict=True):
        np.testing.assert_array_equal(one, two)
    return whole, history
