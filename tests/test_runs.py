"""Run folders: what one notebook leaves, the next one finds."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon

from fusedff import __main__ as command
from fusedff import runs
from fusedff.training.difftre import DiffTRe


def test_a_model_is_kept_with_history_settings_and_versions(tmp_path):
    folder = runs.folder("smoke", tmp_path)
    assert folder.path == tmp_path / "smoke"
    model, history = argon(dtype=jnp.float32), [{"epoch": 0, "loss": 1.5}]
    folder.save("dft", model, history, DiffTRe(), 12.5)
    back = folder.load("dft")
    assert back.model == model.model
    np.testing.assert_array_equal(back.params["epsilon"], model.params["epsilon"])
    assert folder.history("dft") == history
    about = json.loads((folder.path / "dft" / "settings.json").read_text())
    assert about["seconds"] == 12.5
    assert about["settings"]["estimator"]["kind"] == "CoupledStrains"
    assert {"python", "jax", "numpy"} <= set(about["versions"])
    assert folder.checkpoint("dft").parent == folder.path / "dft"


def test_plain_data_comes_back_and_a_missing_file_says_what_makes_it(tmp_path):
    folder = runs.folder("smoke", tmp_path)
    folder.write("summary.json", {"x": [1, 2]})
    assert folder.read("summary.json") == {"x": [1, 2]}
    with pytest.raises(FileNotFoundError, match="history.json does not exist; run the notebook that makes it"):
        folder.history("fused")


def test_runs_lie_beside_the_notebooks_folder_not_inside(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert runs.folder("smoke").path == tmp_path / "runs" / "smoke"
    monkeypatch.chdir(tmp_path)
    assert runs.folder("smoke").path == tmp_path / "runs" / "smoke"


def test_a_folder_of_an_unknown_preset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="use one of smoke"):
        runs.folder("enormous", tmp_path)


def test_a_model_that_neither_exists_nor_ships_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="unobtainium is neither a file nor a potential that ships"):
        runs.load("unobtainium")


@pytest.mark.parametrize(("preset", "runs", "says"), [
    ("demmo", "runs", "preset 'demmo' is unknown; use one of smoke"),
    ("smoke", "file", "cannot make .*file/smoke/notebooks .*; name another folder with --runs"),
    ("smoke", "/proc/runs", "cannot make /proc/runs/smoke/notebooks .*; name another folder with --runs"),
])  # fmt: skip
def test_a_slip_on_the_command_line_is_one_line_and_no_traceback(preset, runs, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert command.main(["run", "--preset", preset, "--runs", runs]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^error: .*{says}", line)


def test_a_file_can_be_loaded_by_its_path(tmp_path):
    from fusedff import potential

    path = tmp_path / "mine.safetensors"
    potential.save(path, argon(dtype=jnp.float32))
    assert runs.load(str(path)).numbers == (18,)
