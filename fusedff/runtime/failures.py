"""Computations that end without a result although their input was valid."""


class FailedComputationError(RuntimeError):
    """Base of the errors of trainings that diverge, dynamics that explode and relaxations that do not converge."""
