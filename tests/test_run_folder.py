"""Run folders: a notebook finds the results of the previous ones."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import jax.numpy as jnp
import nbformat
import numpy as np
import pytest
from argon import argon

from fusedff.commands import cli as command
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import notebooks as study
from fusedff.study import run_folder as runs
from fusedff.training.config import DiffTReConfig


def test_a_model_is_kept_with_history_settings_and_versions(tmp_path):
    folder = runs.folder("demo", tmp_path)
    assert folder.path == tmp_path / "demo"
    model, history = argon(dtype=jnp.float32), [{"epoch": 0, "loss": 1.5}]
    folder.write("dft/seconds.json", {"seconds": 12.5})
    folder.save("dft", model, history, DiffTReConfig())
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
    with pytest.raises(FileNotFoundError, match="history.json does not exist; `fusedff run --preset smoke` makes it"):
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
        Potential.load("unobtainium")


def test_the_file_of_another_model_is_noticed(tmp_path):
    folder = runs.folder("demo", tmp_path)
    folder.save("fused", argon(dtype=jnp.float32), [], DiffTReConfig())
    (folder.path / "fused").rename(folder.path / "dft")
    with pytest.raises(storage.DamagedFileError, match=r"dft/potential.safetensors holds the model 'fused', not 'dft'"):
        folder.load("dft")


def test_smoke_takes_the_shipped_dft_model_whatever_was_trained(tmp_path, capsys):
    folder = runs.folder("smoke", tmp_path)
    folder.save("dft", argon(dtype=jnp.float32), [], DiffTReConfig())
    assert folder.load("dft").numbers == (22,)
    assert "using titanium-dft, which ships with fusedff, in place of" in capsys.readouterr().out


def test_the_time_of_all_sessions_is_kept_even_of_interrupted_ones(tmp_path, monkeypatch):
    folder, clock = runs.folder("demo", tmp_path), iter((0.0, 3.0, 10.0, 14.0))
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), folder.timed("dft"):
        raise KeyboardInterrupt
    with folder.timed("dft"):
        pass
    assert folder.seconds("dft") == 7.0
    assert folder.seconds("fused") == 0.0


def test_a_kept_time_without_its_number_is_a_damaged_file(tmp_path):
    folder = runs.folder("demo", tmp_path)
    folder.write("dft/seconds.json", {})
    with pytest.raises(storage.DamagedFileError, match=r"seconds.json is damaged \(it lacks 'seconds'\); `fusedff run"):
        folder.seconds("dft")
    folder.write("summary.json", {})
    assert command.main(["release", "--preset", "demo", "--runs", str(tmp_path)]) == 2


# --- the command that executes the notebooks ----------------------------------------------------------------------


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A function that replaces the notebooks by one of a single cell."""

    def replace(source):
        (tmp_path / "notebooks").mkdir()
        monkeypatch.setattr(study, "NOTEBOOKS", tmp_path / "notebooks")
        title = [nbformat.v4.new_markdown_cell("# Why is it so?\n\nBecause.")]
        notebook = nbformat.v4.new_notebook(cells=[*title, nbformat.v4.new_code_cell(source)])
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(notebook, tmp_path / "notebooks" / "00_x.ipynb")

    return replace


SUMMARY = "import json, pathlib; pathlib.Path(RUNS, PRESET, 'summary.json').write_text(json.dumps({'models': {}}))"


def test_a_run_of_smoke_says_what_it_is_worth_and_braces_in_a_path_are_just_braces(notebooks, tmp_path, capfd):
    notebooks(SUMMARY)
    assert command.main(["run", "--preset", "smoke", "--runs", str(tmp_path / "a{b}")]) == 0
    assert (tmp_path / "a{b}" / "smoke" / "notebooks" / "00_x.ipynb").stat().st_size > 0
    out = capfd.readouterr().out
    assert out.count("*** smoke: only shows that everything runs; its models and numbers mean nothing ***") == 2
    assert "bound" not in out


def test_a_run_says_which_notebook_it_is_at_and_how_long_it_takes(notebooks, tmp_path, capfd):
    notebooks(SUMMARY)
    assert command.main(["run", "--preset", "smoke", "--runs", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert f"on two cores this takes about ten minutes; results go to {tmp_path / 'smoke'}" in out
    assert "--- notebook 1 of 1, 00_x: Why is it so?" in out
    kept = tmp_path / "smoke" / "notebooks" / "00_x.ipynb"
    executed = json.loads(kept.read_text())
    executed["metadata"]["papermill"]["duration"] = 1500.0
    kept.write_text(json.dumps(executed))
    assert command.main(["run", "--preset", "smoke", "--runs", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert "the last run here took 25 min" in out
    assert "--- notebook 1 of 1, 00_x, about 25 min left: Why is it so?" in out


def test_a_kernel_that_dies_is_one_sentence_that_says_how_to_go_on(notebooks, tmp_path, capfd):
    notebooks("import os; os._exit(9)")
    assert command.main(["run", "--preset", "smoke", "--runs", str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert re.search(r"00_x.ipynb failed: its kernel died, .* memory ran out; .*goes on from the last epoch", said)
    assert "Traceback" not in said


def test_a_full_disk_names_the_file_and_keeps_the_notebook_of_before(notebooks, tmp_path, monkeypatch, capsys):
    notebooks(SUMMARY)
    kept = tmp_path / "smoke" / "notebooks" / "00_x.ipynb"
    kept.parent.mkdir(parents=True)
    kept.write_text("before")

    def full(notebook, output, *_, **__):
        output.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    assert command.main(["run", "--preset", "smoke", "--runs", str(tmp_path)]) == 2
    assert re.search(
        r"error: .*cannot write .*00_x.ipynb \(No space left on device\).*make room", capsys.readouterr().err
    )
    assert kept.read_text() == "before"


def test_ctrl_c_is_one_sentence(notebooks, tmp_path):
    notebooks("x")
    script = f"""
import papermill, pathlib, signal, sys, time
from fusedff.commands import cli as command
from fusedff.study import notebooks as study
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
study.NOTEBOOKS = pathlib.Path({str(study.NOTEBOOKS)!r})
def execute(*_, **__):
    print("running", flush=True)
    time.sleep(60)
papermill.execute_notebook = execute
sys.exit(command.main(["run", "--preset", "smoke", "--runs", {str(tmp_path)!r}]))
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while run.stdout.readline() != "running\n":
        assert run.poll() is None, run.stderr.read()
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said.strip() == "interrupted in 00_x.ipynb; the same command goes on from the last epoch"


def test_an_installed_package_says_that_it_has_no_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "NOTEBOOKS", tmp_path / "site-packages" / "notebooks")
    assert command.main(["run", "--preset", "smoke", "--runs", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no notebooks: they do not come with the installed package; run this in a checkout" in line


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "fusedff", "run", "--preset", "smoke", "--runs", tmp_path],
        env=os.environ | {"JAX_PLATFORMS": "tpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert re.search("^error: JAX_PLATFORMS=tpu, but jax finds no such device here.*; unset it", run.stderr, re.M)
    assert "Traceback" not in run.stderr


def test_a_script_on_a_platform_that_is_not_there_ends_in_the_same_sentence():
    run = subprocess.run(
        [sys.executable, "-c", "import fusedff; fusedff.load('titanium-fused')"],
        env=os.environ | {"JAX_PLATFORMS": "tpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert re.search("^ValueError: JAX_PLATFORMS=tpu, but jax finds no such device here.*; unset it", run.stderr, re.M)
    assert "site-packages/jax" not in run.stderr


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
    path = tmp_path / "mine.safetensors"
    argon(dtype=jnp.float32).save(path)
    assert Potential.load(str(path)).numbers == (18,)
