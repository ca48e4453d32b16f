"""Gauss-Newton steps: few residuals, many parameters, noise in both the residuals and their derivatives.

To first order, the smallest change of the parameters that removes residuals r (m,) with Jacobian J (m, n), m << n, is
-J^T (J J^T)^-1 r: a system of m equations, however many parameters there are. Unlike a gradient step it does not
mind that some combinations of residuals answer to the parameters a thousand times less than others. Levenberg's damping
leaves those alone that hardly answer at all. Derivatives of averages over short trajectories are noisy, and change
little from step to step: they are averaged.
"""

from typing import NamedTuple

import numpy as np

DAMPING = 0.01  # of the median squared norm of the Jacobian's rows
FRESH = 0.15  # least weight of the newest Jacobian in the average


class State(NamedTuple):
    """What is remembered from step to step."""

    jacobian: np.ndarray  # (m, n), averaged


def init(n_residuals: int, n_params: int) -> State:
    return State(np.zeros((n_residuals, n_params), np.float32))


def step(state: State, n: int, jacobian: np.ndarray, residuals: np.ndarray) -> tuple[np.ndarray, State]:
    """The whole step (n_params,) from the n-th Jacobian (m, n_params) and residuals (m,), and the state after it."""
    weight = max(1 / (n + 1), FRESH)
    averaged = ((1 - weight) * state.jacobian + weight * jacobian).astype(state.jacobian.dtype)
    rows = averaged.astype(float)
    kernel = rows @ rows.T
    damping = DAMPING * np.median(np.diag(kernel)) * np.eye(len(kernel))
    return -rows.T @ np.linalg.solve(kernel + damping, np.asarray(residuals, float)), State(averaged)
