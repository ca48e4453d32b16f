"""Training of a potential on measured averages by differentiable trajectory reweighting (DiffTRe).

Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021). A measurement is a `targets.Target`: it has the cells to simulate,
defines what to record of a snapshot, and gives the deviation of the averages from the measurement. One update samples
snapshots (or reuses the last ones), reweights them to the present parameters, differentiates the deviations through
the weighted averages, and takes one optimizer step for all targets together (`terms`).
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential, require_potential
from fusedff.runtime import devices
from fusedff.simulation import checks, langevin
from fusedff.training import checkpoints, gauss_newton, loop
from fusedff.training.config import DiffTReConfig
from fusedff.training.optimizers import Adam, GaussNewton
from fusedff.training.targets import ElasticTarget, StaticTarget, Target
from fusedff.training.terms import Averages, SampledTerm, Simulated, StaticTerm

MAX_HALVINGS = 4  # of a step whose trajectory explodes, before the training stops with an error

Term = SampledTerm | StaticTerm
Measurements = Target | StaticTarget | Simulated | Sequence[StatePoint | Target | StaticTarget | Simulated]


def elastic_target(points: Sequence[StatePoint], settings: DiffTReConfig) -> ElasticTarget:
    """Elastic constants and stresses of measured state points as a target, with the weights of `settings`."""
    s = settings
    weights = s.elastic_weight, s.stress_weight, s.pressure_weight
    return ElasticTarget(points, s.estimator, s.repeats, s.replicas, *weights)


def terms_of(target: Measurements, settings: DiffTReConfig, template: Potential) -> tuple[Term, ...]:
    """The terms of the loss: of one target, or of a list of measured state points and targets.

    State points become one target (`elastic_target`). Every target with cells has its own simulation, with the
    lengths of `settings` or its own (`Simulated`). Warns of state points whose role is held-out. Raises ValueError for
    state points alone of which nothing counts.
    """
    listed = list(target) if isinstance(target, Sequence) else [target]
    points = [one for one in listed if isinstance(one, StatePoint)]
    rest = [one for one in listed if not isinstance(one, StatePoint)]
    if held := [f"{point.temperature:g} K" for point in points if point.role == "held-out"]:
        warnings.warn(
            f"trained on state points that are held out ({', '.join(held)}), so that they test nothing; "
            "state_points.select(points, role='train') takes the others",
            stacklevel=4,
        )
    constants = settings.elastic_weight if any(point.elastic for point in points) else 0.0
    if points and not rest and not constants + settings.stress_weight + settings.pressure_weight > 0:
        raise ValueError(
            f"nothing of the state points counts: elastic_weight = {settings.elastic_weight:g} (or no constants), "
            f"stress_weight = {settings.stress_weight:g}, pressure_weight = {settings.pressure_weight:g}; raise one of "
            "them"
        )
    if points or not rest:
        rest = [elastic_target(points, settings), *rest]
    return tuple(_term(one, settings.sampling, template) for one in rest)


def _term(target, sampling, template):
    if not isinstance(target, Simulated) and not hasattr(target, "residuals"):
        raise TypeError(f"{target!r} is no measurement; give state points, or targets as in training.targets")
    if isinstance(target, Simulated):
        return SampledTerm(target.target, target.sampling, template, target.name)
    return SampledTerm(target, sampling, template) if hasattr(target, "cells") else StaticTerm(target, template)


class DiffTReTrainer:
    """Updates of DiffTRe: sample or reuse, reweight, differentiate, step.

    `target` is what `terms_of` takes. In fused training `label_sketch` is `ForceMatchingTrainer.gauss_newton_sketch`:
    of all steps that correct the residuals, Gauss-Newton then takes the one that raises the loss of the DFT labels
    least.
    """

    def __init__(
        self,
        settings: DiffTReConfig,
        template: Potential,
        target: Measurements,
        updates: int | None = None,
        label_sketch: Callable | None = None,
    ):
        require_potential(template)
        self.settings, self.template, self.label_sketch = settings, template, label_sketch
        self.terms = terms_of(target, settings, template)
        self.updates = updates or settings.updates
        self._adam_step = jax.jit(partial(_adam_step, settings.optimizer, self.updates))

    @property
    def learned_from(self) -> dict:
        """The measurements; a checkpoint is refused for a training on others."""
        return {"measurements": [(term.target, getattr(term, "sampling", None)) for term in self.terms]}

    def init(self, params) -> loop.TrainState:
        """Train state before the first update: the optimizer's, and simulations that have not begun."""
        key = jax.random.PRNGKey(self.settings.seed)
        kept = tuple(term.init(params, jax.random.fold_in(key, k) if k else key) for k, term in enumerate(self.terms))
        if isinstance(self.settings.optimizer, Adam):
            state = self.settings.optimizer.transformation(self.updates).init(params)
        else:
            n = sum(term.n_residuals(params, own) for term, own in zip(self.terms, kept, strict=True))
            state = gauss_newton.init(n, ravel_pytree(params)[0], gauss_newton.ROWS if self.label_sketch else 0)
        return loop.TrainState(params, state, kept)

    def update(self, train_state: loop.TrainState, n: int) -> tuple[loop.TrainState, dict]:
        """Train state after one optimizer step, and the record of the averages before it."""
        potential, halvings, kept, found = self._find_with_backtracking(train_state, n)
        if isinstance(self.settings.optimizer, Adam):
            value, params, state = self._adam(train_state, potential, found)
        else:
            value, params, state = self._gauss_newton(self.settings.optimizer, train_state, potential, n, found)
        n_eff = min((one.n_eff for one in found if isinstance(one, Averages)), default=1.0)
        pairs = zip(self.terms, train_state.extra, kept, strict=True)
        simulations = sum(isinstance(term, SampledTerm) and new is not old for term, old, new in pairs)
        record = {"loss": value, "n_eff": n_eff, "halvings": halvings, "simulations": simulations}
        for term, one in zip(self.terms, found, strict=True):
            said = term.report(one)
            if same := record.keys() & said.keys():
                raise ValueError(f"two targets report {min(same)!r}; give one of them a name: targets that report one "
                                 "number take it from `Simulated(target, sampling, name)`")  # fmt: skip
            record |= said
        return train_state._replace(params=params, optimizer=state, extra=kept), record

    def _adam(self, train_state, potential, found):
        """Loss before, parameters after and optimizer state after a step."""
        values, gradients = zip(
            *(term.gradient(potential, one) for term, one in zip(self.terms, found, strict=True)), strict=True
        )
        gradient = jax.tree.map(lambda own, *more: sum((g.astype(own.dtype) for g in more), own), *gradients)
        return sum(values), *self._adam_step(potential.params, train_state.optimizer, gradient)

    def _gauss_newton(self, settings: GaussNewton, train_state, potential, n, found):
        """Loss before, parameters after and optimizer state after a step."""
        every, pairs = settings.jacobian_every, zip(self.terms, found, strict=True)
        both = zip(*(term.jacobian(potential, one, every) for term, one in pairs), strict=True)
        residuals, jacobian = map(np.concatenate, both)
        relaxation, damping = settings.relaxation_at(n, self.updates), settings.damping
        params, unravel = ravel_pytree(train_state.params)
        measured = np.asarray(ravel_pytree(potential.params)[0])
        state = gauss_newton.step(
            train_state.optimizer, n, relaxation, damping, np.asarray(params), measured, jacobian, residuals,
            self.label_sketch and self.label_sketch(potential.params, n, gauss_newton.ROWS),
        )  # fmt: skip
        return np.sum(residuals**2), unravel(state.params), state

    def _find_with_backtracking(self, train_state, n):
        """Potential, number of halvings, and for every term what it keeps and what it found.

        If a trajectory explodes, the last step is halved, back towards the parameters of the last stable simulation, up
        to `MAX_HALVINGS` times.
        """
        params = train_state.params
        for halvings in range(MAX_HALVINGS + 1):
            potential, kept, found = self.template.with_params(params), [], []
            try:
                for term, own in zip(self.terms, train_state.extra, strict=True):
                    for results, one in zip((kept, found), term.find(potential, own, n), strict=True):
                        results.append(one)
                return potential, halvings, tuple(kept), found
            except langevin.ExplodedTrajectoryError as error:
                if n == 0 or halvings == MAX_HALVINGS:
                    raise
                if devices.is_first_process():
                    warnings.warn(f"update {n}: {error}. Going half of the step back", stacklevel=2)
            params = jax.tree.map(lambda held, lost: (held + lost) / 2, own.params, params)


def _adam_step(adam, updates, params, state, gradient):
    step, state = adam.transformation(updates).update(gradient, state, params)
    return optax.apply_updates(params, step), state


def warn_of_trajectories(difftre_trainer: DiffTReTrainer, train_state: loop.TrainState, trained: Potential) -> None:
    """Warn of last snapshots far from the frames of `trained` or no longer the crystal, and of too long a time step."""
    for term, kept in zip(difftre_trainer.terms, train_state.extra, strict=True):
        if isinstance(term, SampledTerm):
            checks.warn_if_far(trained, term.cells, kept.trajectory.positions[-1])
            checks.warn_if_cold(term.cells, term.sampling.langevin, kept.trajectory)
            if isinstance(term.target, ElasticTarget):  # others may be about liquids
                checks.warn_if_lost(term.cells, kept.trajectory)


_AT = re.compile(r"@(\d+(?:\.\d+)?(?:e[+-]\d+)?)K")  # the temperature in C11@323K


def shown(record: dict) -> dict:
    """Entries of a record to show: losses, N_eff, and what is reported without a state or of that nearest to 300 K."""
    temperatures = {key: float(found[1]) for key in record if (found := _AT.search(key))}
    nearest = min(temperatures.values(), key=lambda t: abs(t - 300), default=None)
    of_all = [key for key in ("loss", "dft_loss", "n_eff") if key in record]
    rest = [key for key in record if temperatures.get(key, nearest) == nearest]
    known = (*of_all, "halvings", "simulations")
    return {key: record[key] for key in [*of_all, *(key for key in rest if key not in known)]}


def train(
    start: Potential,
    target: Measurements,
    settings: DiffTReConfig,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
    describe: Callable[[Potential], dict[str, float]] = lambda potential: {},
) -> tuple[Potential, list[dict]]:
    """Train `start` on a target, or on a list of measured state points and targets; returns potential and history.

    The history holds, for every update, the loss, the smallest N_eff / n_snapshots of any cell, how often the step
    before was halved, how many trajectories were simulated anew, and what the targets report (for state points: GPa per
    temperature), all before the update, and the numbers of `describe(potential)`, e.g. parameters that have a meaning.
    `on_epoch(history)` is called after every update, and on resume from `checkpoint`. Raises `ExplodedTrajectoryError`
    if a trajectory explodes although the step was halved `MAX_HALVINGS` times, and what `loop.train` raises.
    """
    difftre_trainer = DiffTReTrainer(settings, start, target)

    def update(train_state, n):
        described = describe(start.with_params(train_state.params))
        train_state, record = difftre_trainer.update(train_state, n)
        return train_state, record | described

    result = loop.train(
        update, difftre_trainer.init(start.params), settings.updates, name="DiffTRe",
        settings=asdict(settings), learned_from=checkpoints.data_of_potential(start) | difftre_trainer.learned_from,
        checkpoint=checkpoint, shown=shown, on_epoch=on_epoch,
    )  # fmt: skip
    trained = start.with_params(result.params)
    warn_of_trajectories(difftre_trainer, result.train_state, trained)
    return trained, result.history
