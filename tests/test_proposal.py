"""Proposal of structures to label next: those where a committee of Lennard-Jones potentials is known to disagree."""

import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from ase.build import bulk
from ase.io import read, write

from fusedff.commands import cli, proposal
from fusedff.interfaces.evaluator import Evaluator

DEPTHS = (0.010, 0.011, 0.015)  # eV: forces are in proportion to them, so that their spread is in proportion to forces
COMMITTEE = [argon(epsilon) for epsilon in DEPTHS]


def rattled(amplitude, seed):
    frame = bulk("Ar", "fcc", a=5.3, cubic=True)
    frame.rattle(amplitude, seed=seed)
    return frame


@pytest.fixture
def frames():
    return [rattled(amplitude, seed) for seed, amplitude in enumerate((0.2, 0.6, 0.3, 0.5, 0.4))]


def largest_force(frame):
    return np.linalg.norm(Evaluator(argon(np.mean(DEPTHS)))(frame).forces, axis=1).max()


def test_structures_with_the_most_disputed_forces_come_first(frames):
    forces = np.array([largest_force(frame) for frame in frames])
    found = proposal.rank(frames, COMMITTEE, 3)
    np.testing.assert_allclose(found.spread, forces * np.std(DEPTHS, ddof=1) / np.mean(DEPTHS), rtol=1e-9)
    assert found.chosen == tuple(np.argsort(-forces)[:3])
    assert "5; spread of the force on the most disputed atom" in found.report()


def test_what_is_nearly_the_same_is_proposed_once(frames):
    """A step of 5 fs later, rotated, shifted and in another order, it is the same structure."""
    (first,) = proposal.rank(frames, COMMITTEE, 1).chosen
    copy = frames[first][::-1]
    copy.rattle(0.01, seed=9)
    copy.positions += 1.3
    copy.rotate(50, (1, 2, 3), rotate_cell=True)
    copy.wrap()
    chosen = proposal.rank([*frames, copy], COMMITTEE, 6).chosen
    assert len(chosen) == 5
    assert len({first, 5} & set(chosen)) == 1
    assert len(proposal.rank([*frames, copy], COMMITTEE, 6, apart=0.001).chosen) == 6
    assert len(proposal.rank(frames, COMMITTEE, 6, apart=3.0).chosen) == 1


def test_the_command_writes_structures_without_labels(frames, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    models = [f"{n}.safetensors" for n in range(3)]
    for model, epsilon in zip(models, DEPTHS, strict=True):
        argon(epsilon, dtype=jnp.float32).save(model)
    frames[1].info |= {"config_type": "hot", "run": "md-3", "energy_of_another": 3.0}
    write("md.extxyz", frames)
    asked = ["propose", "md.extxyz", "--models", *models, "--count", "2", "--into", "next.extxyz"]
    assert cli.main(asked) == 0
    assert "wrote     next.extxyz; next: fusedff label next.extxyz" in capsys.readouterr().out
    first, second = read("next.extxyz", ":")
    chosen = proposal.rank(frames, COMMITTEE, 2)
    for n, frame in zip(chosen.chosen, (first, second), strict=True):
        assert frame.info["config_id"] == f"md.extxyz#{n}"
        assert frame.info["forces_std"] == pytest.approx(chosen.spread[n], abs=1e-4)
        assert frame.calc is None
        np.testing.assert_allclose(frame.positions, frames[n].positions, atol=1e-7)
    hot, other = (first, second) if chosen.chosen[0] == 1 else (second, first)
    assert {"config_type": "hot", "run": "md-3"}.items() <= hot.info.items()
    assert other.info["run"] == other.info["config_id"]  # it named none: a run of its own
    assert cli.main(asked) == 2
    assert "next.extxyz exists already" in capsys.readouterr().err


def test_what_cannot_be_ranked_is_refused(frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="1 model is no committee; give two or more"):
        proposal.rank(frames, COMMITTEE[:1], 2)
    with pytest.raises(ValueError, match="count = 0"):
        proposal.rank(frames, COMMITTEE, 0)
    with pytest.raises(ValueError, match="apart = nan"):
        proposal.rank(frames, COMMITTEE, 1, apart=np.nan)
    write("md.extxyz", frames)
    with pytest.raises(ValueError, match="titanium-dft is given twice and would agree with itself"):
        proposal.propose("md.extxyz", ["titanium-dft", "titanium-fused", "titanium-dft"], 1, "next.extxyz")
    frames[2].symbols[1] = "Ti"
    with pytest.raises(ValueError, match=r"md\.extxyz, frame 2: the potential knows Ar but not Ti"):
        proposal.rank(frames, COMMITTEE, 2, where="md.extxyz, ")
