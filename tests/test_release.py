"""Release: the models of a finished run become those that ship, with their results in their metadata."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from fusedff import tables
from fusedff.commands import cli as command
from fusedff.commands import release
from fusedff.data import FILES
from fusedff.measurements import references
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import run_folder

RECORD = run_folder.shipped_record()
ROOT = Path(__file__).parents[1]
DIFFUSION = references.select(references.load(), "Ti", "liquid", "self_diffusion")
OFF_TARGET = {
    "quantity": "self-diffusion at 2000 K", "unit": DIFFUSION[0].unit, "digits": 1,
    "models": {"dft": {"value": 4.25, "stderr": 0.31}, "fused": {"value": 5.0, "stderr": 0.3}},
    "references": [asdict(reference) for reference in DIFFUSION],
}  # fmt: skip


@pytest.fixture
def finished(tmp_path):
    """A run folder as notebooks 02 to 08 leave it, made from the shipped models and their record."""
    folder = run_folder.folder("demo", tmp_path / "runs")
    for model in run_folder.MODELS:
        shipped = FILES / f"titanium-{model}.safetensors"
        about = storage.read_metadata(shipped)["about"]
        folder.write(f"{model}/seconds.json", {"seconds": about["seconds"]})
        folder.save(model, Potential.load(shipped), [], {})
        shutil.copy(shipped, folder.path / model / "potential.safetensors")
    folder.write("summary.json", RECORD | {"data": "titanium_pbe.extxyz, sha256 0"})
    found = {model: verdict["experiment"] for model, verdict in RECORD["models"].items()}
    settings = RECORD["temperatures"]["settings"]
    # two of the four stand for held-out ones
    folder.write("temperatures.json", {"train": [23, 323], "models": found, "settings": settings})
    folder.write("off_target.json", {"rows": [OFF_TARGET], "at_rest": RECORD["at_rest"]})
    return folder


@pytest.fixture
def project(tmp_path):
    """A checkout, as far as releasing is concerned."""
    (tmp_path / "project").mkdir()
    shutil.copy(ROOT / "README.md", tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def ship(finished, project, tmp_path):
    """The command that releases the finished run, and its exit status."""
    where = ["--runs", str(finished.path.parent), "--into", str(tmp_path / "out"), "--project", str(project)]
    return lambda: command.main(["release", "--preset", "demo", *where])


def test_files_carry_data_preset_seeds_and_errors(ship, tmp_path):
    assert ship() == 0
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
    assert Potential.load(tmp_path / "out" / "titanium-fused.safetensors").numbers == (22,)


def test_the_model_card_holds_every_error_with_its_standard_error(ship, tmp_path):
    ship()
    card = (tmp_path / "out" / "MODELS.md").read_text()
    for model in run_folder.MODELS:
        errors = storage.read_metadata(tmp_path / "out" / f"titanium-{model}.safetensors")["about"]["errors"]
        for part in ("trained", "held_out"):
            value, noise = errors[f"elastic_{part}_percent"], errors[f"elastic_{part}_percent_stderr"]
            assert f"{tables.value_and_error(value, noise, 1)} %" in card
    assert "39246 parameters" in card
    point = RECORD["models"]["fused"]["experiment"]["623"]  # stands for one held out
    percent = 100 * (point["elastic"]["C11"]["value"] / point["elastic"]["C11"]["measured"] - 1)
    assert f"| 623 (held out) | {percent:+.1f} ± " in card
    assert " of 10 within 2 % (trained); " in card
    assert " within 0.1 GPa." in card
    assert tables.off_target_table([OFF_TARGET]) in card


def test_the_front_page_shows_the_released_models_and_nothing_else_of_it_changes(ship, project, tmp_path):
    before = (project / "README.md").read_text()
    assert ship() == 0
    after = (project / "README.md").read_text()
    for part in (0, 1):
        assert after.split(release.MARKS[part])[part] == before.split(release.MARKS[part])[part]
    record = json.loads((tmp_path / "out" / "titanium.json").read_text())
    assert record["off_target"] == [OFF_TARGET]
    assert release.front_page(record) in after
    assert "4.2 ± 0.3" in (project / release.RESULTS).read_text()
    for name in ("two_questions", "models_compared"):
        assert (project / release.IMAGES / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    ship()
    assert (project / "README.md").read_text() == after


def test_a_readme_without_the_marks_is_left_alone(ship, project, capsys):
    (project / "README.md").write_text("# mine\n")
    assert ship() == 2
    assert "put them back" in capsys.readouterr().err
    assert (project / "README.md").read_text() == "# mine\n"
    (project / "README.md").unlink()
    assert ship() == 2
    assert "give the folder of a checkout" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["temperatures.json", "off_target.json"])
def test_an_unfinished_run_is_not_released(finished, ship, missing, tmp_path, capsys):
    (finished.path / missing).unlink()
    assert ship() == 2
    assert f"{missing} does not exist; `fusedff run --preset demo` makes it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
