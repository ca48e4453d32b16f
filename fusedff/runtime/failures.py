"""Failed computations, and errors of other libraries as text."""


class FailedComputationError(RuntimeError):
    """Base of the errors of trainings that diverge, dynamics that explode and relaxations that do not converge."""


def one_line(error: Exception) -> str:
    """The text of an error without line breaks, or its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
