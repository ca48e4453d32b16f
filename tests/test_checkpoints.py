"""Checkpoints: training resumes only with the data that it began with; with other data an error names what differs."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from argon import argon, labelled
from ase.build import bulk

from fusedff.crystallography.crystals import Crystal
from fusedff.measurements.state_points import StatePoint
from fusedff.training import force_matching, fused
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig, SamplingConfig
from fusedff.training.difftre import DiffTReTrainer
from fusedff.training.force_matching import ForceMatchingTrainer
from fusedff.units import GPA

START = argon(epsilon=0.0085, sigma=3.3)
DFT = ForceMatchingConfig(epochs=2, batch=3, learning_rate=2e-4, final_learning_rate=1e-4)


def frames(truth=None, shift=0.0):
    made = [bulk("Ar", "fcc", a=a + shift, cubic=True) for a in (5.2, 5.3, 5.4, 5.5)]
    for n, frame in enumerate(made):
        frame.rattle(0.1, seed=n)
    return [labelled(frame, truth or argon()) for frame in made]


def same(first, second):
    leaves = zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True)
    return all(np.array_equal(one, two) for one, two in leaves)


def learn(checkpoint, start=START, **changes):
    used = {"frames": frames(), "validation": frames()[:1]} | changes
    return force_matching.train(start, used["frames"], used["validation"], DFT, checkpoint)[0]


def test_corrected_labels_are_refused_by_name_and_give_another_model_elsewhere(tmp_path):
    wrong, right = frames(argon(epsilon=0.02)), frames()
    old = learn(tmp_path / "dft.safetensors", frames=wrong)
    with pytest.raises(ValueError, match=r"dft.safetensors .*other data \(labels of the training frames differ\)"):
        learn(tmp_path / "dft.safetensors", frames=right)
    assert same(learn(tmp_path / "dft.safetensors", frames=wrong), old)
    assert not same(learn(tmp_path / "other.safetensors", frames=right), old)


def without_virial():
    changed = frames()
    changed[2].info["use_virial"] = False
    return changed


def with_open_cell():
    changed = frames()
    changed[2].pbc = False
    return changed


@pytest.mark.parametrize(("changes", "named"), [
    ({"frames": [*frames(), *frames(shift=0.01)]}, "labels of the training frames, structures of the training frames"),
    ({"frames": without_virial()}, "labels of the training frames"),
    ({"frames": with_open_cell()}, "structures of the training frames"),
    ({"validation": frames(argon(epsilon=0.02))[:1]}, "labels of the validation frames"),
    ({"start": argon(epsilon=0.0086, sigma=3.3)}, "start parameters"),
    ({"start": replace(START, reference=(-0.1,))}, "reference energies"),
    ({"start": replace(START, source="vasp")}, "reference energies"),
    ({"start": replace(START, model=replace(START.model, cutoff=START.cutoff - 0.1))}, "model"),
])  # fmt: skip
def test_whatever_else_a_model_is_learned_from_is_compared_too(tmp_path, changes, named):
    path = tmp_path / "dft.safetensors"
    learn(path)
    with pytest.raises(ValueError, match=rf"other data \({named} differ\)"):
        learn(path, **changes)


POINT = StatePoint(15.0, Crystal("Ar", "fcc", 5.2), {"C11": 4.4 * GPA, "C12": 2.3 * GPA, "C44": 2.4 * GPA})
CORRECTED = replace(POINT, elastic={**POINT.elastic, "C44": 2.5 * GPA})


def fuse(path, points=(POINT,), labelled_frames=None):
    settings = FusedConfig(
        epochs=2, experiment=DiffTReConfig(repeats=(1, 1, 1), sampling=SamplingConfig(snapshots=1)), dft=DFT
    )
    return fused.train(START, list(points), labelled_frames or frames(), settings, path)


@pytest.mark.filterwarnings("ignore:cell 0")  # nothing is simulated
def test_a_corrected_table_and_the_file_of_another_model_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(DiffTReTrainer, "update", lambda self, train_state, n: (train_state, {"loss": 1.0}))
    monkeypatch.setattr(ForceMatchingTrainer, "epoch", lambda self, train_state, n: (train_state, 2.0))
    path = tmp_path / "checkpoint.safetensors"
    fuse(path)
    with pytest.raises(ValueError, match=r"other data \(measurements differ\)"):
        fuse(path, [CORRECTED])
    with pytest.raises(ValueError, match=r"other data \(labels of the training frames differ\)"):
        fuse(path, labelled_frames=frames(argon(epsilon=0.02)))
    with pytest.raises(ValueError, match=r"another kind of training \(fused training, not force matching\)"):
        learn(path)
