"""Damped Gauss-Newton steps for few residuals and many parameters; residuals and derivatives are noisy.

Residuals r (m,) have the Jacobian J = dr/dtheta (m, n), m << n. The step d solves

    minimize  d^T M d   subject to   J d = -r ,     which gives     d = -M^-1 J^T (J M^-1 J^T)^-1 r .

The minus sign takes the parameters downhill: r + J d = 0. It is a linear system of m equations for any n.

The metric M says which of the many solutions is taken. Without labels M = 1, and d is the shortest step. With labels
M = 1 + G^T G / f, where G (k, n) are derivatives of the deviations from the labels: the loss of the labels then changes
by |G d|^2 (its Gauss-Newton approximation), and d is the step that raises it least. With a small f (`PENALTY_FLOOR`
times the trace of G^T G) only directions that the labels leave undetermined are cheap. M is never formed. Woodbury's
identity needs G G^T (k, k) alone:

    J M^-1 = J - J G^T (f + G G^T)^-1 G .

There are too many labels for G to hold one row each. A few random combinations of the rows take their place, such that
G^T G is the Gauss-Newton matrix of the label loss in the mean (`label_sketch`).

Some combinations of residuals hardly depend on the parameters. Correcting them would take long steps, mostly in
response to noise. Levenberg's damping prevents that: J M^-1 J^T + damping * median(diagonal) * 1 is inverted
instead of J M^-1 J^T. The median is over the residuals that depend on the parameters; those of constants that were not
measured are zero.

Assumptions and noise:

- J and G change little from step to step. They are averaged over steps, with at least `MIN_AVERAGING_WEIGHT` for the
  newest, and G over the same window as J, so that both describe the same parameters.
- r is linear in the parameters between two steps. A full step removes r, so the residuals expected before the next
  step are J (theta - theta_after), where theta_after are the parameters after the last step and theta the present ones:
  in fused training, DFT epochs have moved them. The expected part is corrected in full; of the difference between
  measured and expected residuals, which is mostly noise, the fraction `relaxation` is.

References: K. Levenberg, Q. Appl. Math. 2, 164 (1944); M. A. Woodbury, Inverting Modified Matrices, Princeton
Statistical Research Group, Memorandum 42 (1950).
"""

from typing import NamedTuple

import numpy as np

MIN_AVERAGING_WEIGHT = 0.15  # of the newest derivatives
PENALTY_FLOOR = 2e-5  # f, in units of the trace of G^T G
ROWS = 256  # of G


class GaussNewtonState(NamedTuple):
    """Averages and parameters that one step hands to the next."""

    jacobian: np.ndarray  # (m, n), averaged
    sketch: np.ndarray  # (k, n), G, such that G^T G is averaged; k = 0 without labels
    params: np.ndarray  # (n,), after the last step


def init(n_residuals: int, params: np.ndarray, n_rows: int = 0) -> GaussNewtonState:
    """State before the first step, with zero derivatives; `n_rows` are those of the sketch, 0 without labels."""
    jacobian, sketch = (np.zeros((n, len(params)), np.float32) for n in (n_residuals, n_rows))
    return GaussNewtonState(jacobian, sketch, np.asarray(params))


def step(
    state: GaussNewtonState, n: int, relaxation: float, damping: float, params, measured, jacobian, residuals,
    sketch=None,
) -> GaussNewtonState:  # fmt: skip
    """State after the n-th step, from the present parameters (n,).

    Jacobian (m, n) and residuals (m,) belong to the parameters `measured` (n,). These differ from `params` only if a
    trajectory exploded and the trainer halved the last step. `relaxation` is from 0 to 1, `damping` in units
    of the median of the diagonal of J M^-1 J^T. `sketch` (k, n) is a new G, with new random signs.
    """
    # a checkpoint returns arrays of jax, which are in single precision
    state = GaussNewtonState(*map(np.asarray, state))
    weight = max(1 / (n + 1), MIN_AVERAGING_WEIGHT)
    averaged = ((1 - weight) * state.jacobian + weight * jacobian).astype(state.jacobian.dtype)
    rows = averaged.astype(float)
    expected = rows @ (params.astype(float) - state.params)
    estimate = expected + relaxation * (residuals - expected)
    averaged_sketch = state.sketch
    if sketch is not None:
        # averaged over the same window as J; in G^T G the products of old rows with new ones average to zero
        averaged_sketch = ((1 - weight) ** 0.5 * averaged_sketch + weight**0.5 * sketch).astype(averaged_sketch.dtype)
    preconditioned = precondition(rows, averaged_sketch.astype(float))
    kernel = preconditioned @ rows.T
    diagonal = np.diag(kernel)
    if not (diagonal > 0).any():  # no residual depends on the parameters
        return GaussNewtonState(averaged, averaged_sketch, measured.astype(state.params.dtype))
    damped = kernel + damping * np.median(diagonal[diagonal > 0]) * np.eye(len(kernel))
    change = -preconditioned.T @ np.linalg.solve(damped, estimate)
    return GaussNewtonState(averaged, averaged_sketch, (measured + change).astype(state.params.dtype))


def precondition(rows, sketch):
    """J M^-1 (m, n) by Woodbury's identity, from J `rows` (m, n) and G `sketch` (k, n)."""
    gram = sketch @ sketch.T
    gram[np.diag_indices_from(gram)] += max(PENALTY_FLOOR * np.trace(gram), np.finfo(float).tiny)
    return rows - np.linalg.solve(gram, sketch @ rows.T).T @ sketch
