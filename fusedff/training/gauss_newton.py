"""Gauss-Newton steps: few residuals, many parameters, noise in both the residuals and their derivatives.

To first order, the smallest change of the parameters that removes residuals r (m,) with Jacobian J (m, n), m << n, is
-J^T (J J^T)^-1 r: a system of m equations, however many parameters there are. Unlike a gradient step it does not
mind that some combinations of residuals answer to the parameters a thousand times less than others. Levenberg's
damping, a multiple of the identity added to J J^T, leaves those alone that hardly answer at all: there, noise asks for
the longest steps, and they lead away from everything else that the model knows.

Averages over short trajectories are noisy. Derivatives change little from step to step: they are averaged. Residuals
are expected to be gone after a step, but for what J says that others, e.g. an epoch of DFT, did to the parameters
since; of what is found beyond that, only the share `trust` is believed. So DFT labels teach what the experiment does
not speak of, and as far as J is known they do not pull the model off its targets.
"""

from typing import NamedTuple

import numpy as np

FRESH = 0.15  # least weight of the newest Jacobian in the average


class State(NamedTuple):
    """What is remembered from step to step."""

    jacobian: np.ndarray  # (m, n), averaged
    params: np.ndarray  # (n,), after the last step


def init(n_residuals: int, params: np.ndarray) -> State:
    return State(np.zeros((n_residuals, len(params)), np.float32), np.asarray(params))


def step(state: State, n: int, trust: float, damping: float, params, measured, jacobian, residuals) -> State:
    """The state after the n-th step, from parameters (n,) that others may have changed since the last one.

    Jacobian (m, n) and residuals (m,) are those of the parameters `measured`, the same but where a state point exploded
    and the way was retraced. `trust` is from 0 to 1, `damping` in units of the median squared norm of J's rows.
    """
    weight = max(1 / (n + 1), FRESH)
    averaged = ((1 - weight) * state.jacobian + weight * jacobian).astype(state.jacobian.dtype)
    rows = averaged.astype(float)
    expected = rows @ (params.astype(float) - state.params)
    estimate = expected + trust * (residuals - expected)
    kernel = rows @ rows.T
    damped = kernel + damping * np.median(np.diag(kernel)) * np.eye(len(kernel))
    change = -rows.T @ np.linalg.solve(damped, estimate)
    return State(averaged, (measured + change).astype(state.params.dtype))
