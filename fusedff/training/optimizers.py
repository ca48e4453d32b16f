"""Optimizers of a training from measurements: Adam, or Gauss-Newton for few and noisy residuals."""

from dataclasses import dataclass

import optax

from fusedff.runtime import limits


@dataclass(frozen=True)
class Adam:
    """Adam with a learning rate that decays exponentially, as in the titanium paper.

    The decay rates `b1` and `b2` of its averages are small because gradients change with every new trajectory.
    """

    learning_rate: float = 2e-4
    final_learning_rate: float = 2e-5
    b1: float = 0.1
    b2: float = 0.4

    def __post_init__(self):
        limits.require(self, positive=["learning_rate", "final_learning_rate"], not_negative=["b1", "b2"])
        for name in ("b1", "b2"):
            if getattr(self, name) >= 1:
                limits.raise_invalid(self, name, "a memory decays: give a number from 0 to below 1")

    def transformation(self, updates: int) -> optax.GradientTransformation:
        """The optax optimizer of a training of `updates` steps."""
        rate = decay(self.learning_rate, self.final_learning_rate, updates)
        return optax.adam(rate, b1=self.b1, b2=self.b2)


@dataclass(frozen=True)
class GaussNewton:
    """Damped Gauss-Newton steps, see `fusedff.training.gauss_newton`.

    They need about a tenth of Adam's updates, each at about three times the cost. `relaxation` is the fraction of the
    residuals corrected per step. It decays exponentially, so that the last steps average over the noise of many
    trajectories. With less `damping`, combinations of residuals that hardly depend on the parameters are corrected as
    well, and more noise enters. Derivatives are taken at every `jacobian_every`-th snapshot: those of a snapshot cost
    more than simulating it, and few suffice, since they are averaged over updates.
    """

    relaxation: float = 0.6
    final_relaxation: float = 0.2
    damping: float = 0.03
    jacobian_every: int = 1

    def __post_init__(self):
        limits.require(self, positive=["relaxation", "final_relaxation", "damping"], count=["jacobian_every"])
        for name in ("relaxation", "final_relaxation"):
            limits.between(self, name, high=1, why="a whole step is 1, and less averages over noise")

    def relaxation_at(self, n: int, updates: int) -> float:
        """Relaxation of the n-th of `updates` steps."""
        return float(decay(self.relaxation, self.final_relaxation, updates)(n))


def decay(first: float, last: float, updates: int) -> optax.Schedule:
    """Exponential decay from the first to the last value in so many steps."""
    return optax.exponential_decay(first, max(updates, 1), last / first)
