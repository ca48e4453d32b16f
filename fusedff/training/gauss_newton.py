"""Gauss-Newton steps: few residuals, many parameters, noise in both the residuals and their derivatives.

To first order, a change d of the parameters removes residuals r (m,) with Jacobian J (m, n), m << n, if J d = -r. Of
all that do, the cheapest is taken. Where nothing else is known, the price is |d|^2 and the step -J^T (J J^T)^-1 r: a
system of m equations, however many parameters there are. Unlike a gradient step it does not mind that some combinations
of residuals answer to the parameters a thousand times less than others. Levenberg's damping, a multiple of the identity
added to J J^T, leaves those alone that hardly answer at all: there, noise asks for the longest steps.

Where there are labels, what a step does to them has a price, too: their loss rises by |G d|^2, with G (k, n) the
derivatives of the deviations from the labels, or random combinations of them. With |d|^2 + |G d|^2 / f as the price,
the step is -M^-1 J^T (J M^-1 J^T)^-1 r, where M = 1 + G^T G / f. Its inverse takes a system of k equations (Woodbury).
Labels fix some hundred directions to very different degrees: with a small f, the step goes where they do not care.

Averages over short trajectories are noisy. Derivatives change little from step to step: they are averaged. Residuals
are expected to be gone after a step, but for what J says that others, e.g. an epoch of DFT, did to the parameters
since; of what is found beyond that, only the share `trust` is believed. So DFT labels teach what the experiment does
not speak of, and as far as J is known they do not pull the model off its targets.
"""

from typing import NamedTuple

import numpy as np

MIN_AVERAGING_WEIGHT = 0.15  # least weight of the newest derivatives in the average
PENALTY_FLOOR = 2e-5  # f above, in units of the trace of G^T G
ROWS = 256  # of G, enough where labels are many more


class State(NamedTuple):
    """What is remembered from step to step."""

    jacobian: np.ndarray  # (m, n), averaged
    labels: np.ndarray  # (k, n), G, such that G^T G is averaged; k = 0 without labels
    params: np.ndarray  # (n,), after the last step


def init(n_residuals: int, params: np.ndarray, n_labels: int = 0) -> State:
    return State(*(np.zeros((rows, len(params)), np.float32) for rows in (n_residuals, n_labels)), np.asarray(params))


def step(
    state: State, n: int, relaxation: float, damping: float, params, measured, jacobian, residuals, labels=None
) -> State:
    """The state after the n-th step, from parameters (n,) that others may have changed since the last one.

    Jacobian (m, n) and residuals (m,) are those of the parameters `measured`, the same but where a state point exploded
    and the way was retraced. `trust` is from 0 to 1, `damping` in units of the median of the diagonal of J M^-1 J^T.
    `labels` (k, n), where there are any, are combinations of derivatives with new random signs.
    """
    state = State(*map(np.asarray, state))  # a checkpoint gives back arrays of jax, which know no double precision
    weight = max(1 / (n + 1), MIN_AVERAGING_WEIGHT)
    averaged = ((1 - weight) * state.jacobian + weight * jacobian).astype(state.jacobian.dtype)
    rows = averaged.astype(float)
    expected = rows @ (params.astype(float) - state.params)
    estimate = expected + relaxation * (residuals - expected)
    label_sketch = state.labels
    if labels is not None:
        # as old as J: what the labels cared about where J is from, they must not be said to have forgotten.
        # Products of old rows with new ones have random signs.
        label_sketch = ((1 - weight) ** 0.5 * label_sketch + weight**0.5 * labels).astype(label_sketch.dtype)
    eased = _precondition(rows, label_sketch.astype(float))
    kernel = eased @ rows.T
    damped = kernel + damping * np.median(np.diag(kernel)) * np.eye(len(kernel))
    change = -eased.T @ np.linalg.solve(damped, estimate)
    return State(averaged, label_sketch, (measured + change).astype(state.params.dtype))


def _precondition(rows, labels):
    """J M^-1 (m, n)."""
    gram = labels @ labels.T
    gram[np.diag_indices_from(gram)] += max(PENALTY_FLOOR * np.trace(gram), np.finfo(float).tiny)
    return rows - np.linalg.solve(gram, labels @ rows.T).T @ labels
