"""Fused training: DFT and experiment in turn, as often and in the order that the settings give."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
import resuming
from argon import argon, labelled
from ase.build import bulk

from fusedff.crystallography.crystals import Crystal
from fusedff.measurements.state_points import StatePoint
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import fused
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig, SamplingConfig
from fusedff.training.difftre import DiffTReTrainer
from fusedff.training.force_matching import ForceMatchingTrainer
from fusedff.training.optimizers import Adam, GaussNewton
from fusedff.units import GPA

START = argon(epsilon=0.0095, dtype=jnp.float32)
POINTS = [
    StatePoint(15.0, Crystal("Ar", "fcc", 5.2), {"C11": 4.4 * GPA, "C12": 2.3 * GPA, "C44": 2.4 * GPA}, 0.1 * GPA)
]


def frames():
    made = [bulk("Ar", "fcc", a=a, cubic=True) for a in (5.2, 5.3, 5.4)]
    for n, frame in enumerate(made):
        frame.rattle(0.1, seed=n)
    return [labelled(frame, argon()) for frame in made]


def settings(**changes):
    defaults = {
        "epochs": 3,
        "experiment": DiffTReConfig(
            optimizer=Adam(1e-4, 5e-5), repeats=(1, 1, 1),
            sampling=SamplingConfig(LangevinConfig(8.0, 10.0, 5, 0.6), 4, 4, snapshots=4, reuse_above=1.0),
        ),
        "dft": ForceMatchingConfig(batch=2, learning_rate=1e-4, final_learning_rate=5e-5),
    }  # fmt: skip
    return FusedConfig(**{**defaults, **changes})


@pytest.mark.filterwarnings("ignore:cell 0")  # it has not moved: nothing is simulated
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "e0 d0 e1 d1 e2 d2"),
        ({"epochs": 2, "order": ("dft", "experiment")}, "d0 e0 d1 e1"),
        ({"epochs": 2, "experiment_updates": 2, "dft_epochs": 3}, "e0 e1 d0 d1 d2 e2 e3 d3 d4 d5"),
    ],
)
def test_sides_take_turns_as_often_and_in_the_order_that_was_set(monkeypatch, changes, expected):
    calls = []

    def update(self, train_state, n):
        calls.append(f"e{n}")
        assert self.updates == chosen.epochs * chosen.experiment_updates
        return train_state, {"loss": 1.0, "n_eff": 1.0}

    def epoch(self, train_state, n):
        calls.append(f"d{n}")
        assert self.steps == self.per_epoch * chosen.epochs * chosen.dft_epochs
        return train_state, 2.0

    chosen = settings(**changes)
    monkeypatch.setattr(DiffTReTrainer, "update", update)
    monkeypatch.setattr(ForceMatchingTrainer, "epoch", epoch)
    trained, history = fused.train(START, POINTS, frames(), chosen)
    assert " ".join(calls) == expected
    assert START.coverage is None
    assert trained.coverage.nearest == pytest.approx(
        min(f.get_all_distances(mic=True)[0, 1:].min() for f in frames()), abs=0.3
    )
    assert history[0] == {"epoch": 0, "loss": 1.0, "n_eff": 1.0, "dft_loss": 2.0}


def test_each_side_keeps_its_own_optimizer(monkeypatch):
    """Were the optimizer shared, the step count of either side would be the sum of both."""
    counts = {"experiment": [], "dft": []}
    update, epoch = DiffTReTrainer.update, ForceMatchingTrainer.epoch

    def spy(side, method):
        def call(self, train_state, n):
            state = train_state.optimizer
            counts[side].append(int((state.optimizer if side == "dft" else state)[0].count))
            return method(self, train_state, n)

        return call

    monkeypatch.setattr(DiffTReTrainer, "update", spy("experiment", update))
    monkeypatch.setattr(ForceMatchingTrainer, "epoch", spy("dft", epoch))
    fused.train(START, POINTS, frames(), settings())
    assert counts == {"experiment": [0, 1, 2], "dft": [0, 2, 4]}  # three frames in batches of two: two steps


@pytest.mark.parametrize("optimizer", [Adam(1e-4, 5e-5), GaussNewton(1e-4, 5e-5)])
def test_an_interrupted_fused_training_ends_bit_for_bit_where_it_would_have(optimizer, tmp_path, monkeypatch):
    chosen = settings()
    chosen = replace(chosen, experiment=replace(chosen.experiment, optimizer=optimizer))
    # in epoch 1 the experiment has already made its update; that half is repeated
    whole, _ = resuming.check(
        lambda *checkpoint: fused.train(START, POINTS, frames(), chosen, *checkpoint),
        ForceMatchingTrainer, "epoch", 1, tmp_path / "checkpoint.safetensors", monkeypatch,
    )  # fmt: skip
    assert float(whole.params["epsilon"][0]) != float(START.params["epsilon"][0])


@pytest.mark.parametrize("useless", [{"ema": 0.9}, {"patience": 3}])
def test_settings_of_force_matching_that_do_nothing_here_are_refused(useless):
    with pytest.raises(ValueError, match="do nothing in fused training"):
        settings(dft=ForceMatchingConfig(**useless))


@pytest.mark.parametrize("order", [("dft",), ("dft", "dft"), ("dft", "experiment", "dft"), ("dft", "theory")])
def test_an_order_that_forgets_or_repeats_a_side_is_refused(order):
    with pytest.raises(ValueError, match="name 'experiment' and 'dft' once each"):
        FusedConfig(order=order)
