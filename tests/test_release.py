"""The models of a finished run become those that ship, and say themselves how good they are."""

import json
import shutil

import pytest

from fusedff import __main__ as command
from fusedff import potential, runs, storage

RECORD = json.loads((runs.SHIPPED / "titanium.json").read_text())


@pytest.fixture
def finished(tmp_path):
    """A run folder as notebooks 02 to 07 leave it, made from the shipped models and their record."""
    folder = runs.folder("demo", tmp_path / "runs")
    for model in runs.MODELS:
        shipped = runs.SHIPPED / f"titanium-{model}.safetensors"
        about = storage.read_metadata(shipped)["about"]
        folder.save(model, potential.load(shipped), [], {}, about["seconds"])
        shutil.copy(shipped, folder.path / model / "potential.safetensors")
    folder.write("summary.json", RECORD | {"data": "titanium_pbe.extxyz, sha256 0"})
    found = {model: verdict["experiment"] for model, verdict in RECORD["models"].items()}
    folder.write("temperatures.json", {"train": [23, 323], "models": found})  # two of the four stand for held-out ones
    return folder


def release(folder, into):
    arguments = ["release", "--preset", "demo", "--runs", str(folder.path.parent), "--into", str(into)]
    return command.main(arguments)


def test_files_carry_data_preset_seeds_and_errors(finished, tmp_path):
    assert release(finished, tmp_path / "out") == 0
    about = storage.read_metadata(tmp_path / "out" / "titanium-fused.safetensors")["about"]
    assert about["preset"] == RECORD["preset"]
    assert about["seeds"] == RECORD["seeds"]
    assert about["frames"] == RECORD["frames"]
    assert about["data"].startswith("titanium_pbe.extxyz")
    errors = about["errors"]
    assert errors["force_mae_meV_per_A"] == RECORD["models"]["fused"]["test"]["force_mae_meV_per_A"]
    deviations = [
        100 * abs(c["value"] / c["measured"] - 1)
        for t in ("623", "923")
        for c in RECORD["models"]["fused"]["experiment"][t]["elastic"].values()
    ]
    assert errors["elastic_held_out_percent"] == pytest.approx(sum(deviations) / len(deviations))
    assert potential.load(tmp_path / "out" / "titanium-fused.safetensors").numbers == (22,)


def test_the_model_card_holds_every_error_with_its_standard_error(finished, tmp_path):
    release(finished, tmp_path / "out")
    card = (tmp_path / "out" / "MODELS.md").read_text()
    for model in runs.MODELS:
        errors = storage.read_metadata(tmp_path / "out" / f"titanium-{model}.safetensors")["about"]["errors"]
        for part in ("trained", "held_out"):
            value, noise = errors[f"elastic_{part}_percent"], errors[f"elastic_{part}_percent_stderr"]
            assert f"{value:.1f} ± {noise:.1f} %" in card
    assert "10910 parameters" in card
    point = RECORD["models"]["fused"]["experiment"]["623"]  # stands for one held out
    percent = 100 * (point["elastic"]["C11"]["value"] / point["elastic"]["C11"]["measured"] - 1)
    assert f"| 623 (held out) | {percent:+.1f} ± " in card
    assert " of 10 within 2 % (trained); " in card


def test_an_unfinished_run_is_not_released(finished, tmp_path, capsys):
    (finished.path / "temperatures.json").unlink()
    assert release(finished, tmp_path / "out") == 2
    assert "temperatures.json does not exist; run the notebook that makes it first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
