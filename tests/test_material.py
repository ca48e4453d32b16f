"""`fusedff train`: a settings file of ten lines, labelled frames and a table give three models, tables and figures."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import refusals
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from copper import copper, relabelled

from fusedff import results, tables
from fusedff.commands import cli, material, targets, training
from fusedff.data import datasets, splits
from fusedff.plotting import style
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.simulation import langevin
from fusedff.study import comparison, presets
from fusedff.training import difftre, force_matching, fused

SETTINGS = """\
frames = "frames.extxyz"
table = "measured.csv"
symbol = "Cu"
structure = "fcc"
output = "models"
preset = "smoke"
repeats = [1, 1, 1]

[dft]
epochs = 2
"""
TARGETS = """
[[targets]]
kind = "phonon"
name = "B1g"
frequency_THz = 7.2
temperature_K = 480
index = 2

[[targets]]
kind = "radial_distribution"
file = "gr.csv"
temperature_K = 300
repeats = [2, 2, 1]
"""
TABLE = """\
temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa,role
300,3.615,168.4,121.4,75.4,train
500,3.628,159.2,118.3,71.0,held-out
"""


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "frames.extxyz", copper(24))
    (tmp_path / "measured.csv").write_text(TABLE)
    (tmp_path / "study.toml").write_text(SETTINGS)
    return tmp_path


def test_one_command_leaves_models_tables_and_figures(folder):
    done = subprocess.run(
        [sys.executable, "-m", "fusedff", "train", "study.toml"], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "*** smoke: only shows that everything runs" in done.stdout
    models = folder / "models"
    summary = storage.read_json(models / "summary.json")
    assert summary["trained_K"] == [300.0]
    assert summary["frames"] == {"train": 16, "validation": 2, "test": 6}
    assert {doubt["quantity"] for doubt in summary["outliers"]} <= {"energy", "forces", "stress"}
    for name in ("dft", "experiment", "fused"):
        assert Potential.load(models / name / "potential.safetensors").numbers == (29,)
        assert summary["models"][name]["test"]["force_mae_meV_per_A"] > 0
        assert set(summary["models"][name]["experiment"]) == {"300", "500"}
    with open(models / "tables" / "elastic.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * 2 * 5  # three constants, P and σxx
    drawn = {path.name for path in (models / "figures").glob("*.png")}
    assert {"frames.png", "elastic.png", "errors.png", "parity-fused.png", "training-fused.png"} <= drawn
    assert "fcc Cu, cubic" in (models / "MODELS.md").read_text()


def found_with(seed):
    """What an evaluation finds, with constants and errors that differ between seeds."""
    entry = {"value": 160.0 + seed, "stderr": 1.0, "measured": 168.4}
    point = {
        "condition": "adiabatic",
        "elastic": {name: dict(entry) for name in ("C11", "C12", "C44")},
        "pressure": {"value": 0.1 * seed, "stderr": 0.1, "measured": 0.0},
        "stress": {"xx": {"value": -0.1 * seed, "stderr": 0.1, "measured": 0.0}},
        "lattice": {"a": {"value": 3.61 + 0.01 * seed, "stderr": 0.001, "measured": 3.615}},
    }
    errors = {
        f"{what}_{kind}": 10.0 + seed
        for what, kind in (("energy_mae", "meV_per_atom"), ("force_mae", "meV_per_A"), ("stress_mae", "GPa"))
    }
    return {"test": errors, "experiment": {"300": point}}


@pytest.fixture
def instant(monkeypatch):
    """Trainings that take no time and keep their start, evaluations that find `found_with`; what was trained."""
    trained = []

    def learn(start, *arguments, checkpoint):
        trained.append((checkpoint.parent.relative_to(checkpoint.parents[2]).as_posix(), start, arguments))
        return start, [{"epoch": 0, "C11@300K": 160.0}]

    for trainer in (force_matching, difftre, fused):
        monkeypatch.setattr(trainer, "train", learn)
    monkeypatch.setattr(comparison, "evaluate_model", lambda *arguments: found_with(arguments[3].seed))
    energy, forces, stress = np.arange(4.0), np.arange(9.0), np.arange(12.0)
    monkeypatch.setattr(style, "png", lambda figure: b"")  # which takes seconds
    labels = {"energy": energy, "forces": forces, "stress": stress}
    monkeypatch.setattr(comparison, "predictions", lambda model, frames: (labels, labels))
    return trained


def test_seeds_train_every_model_once_with_each_and_the_summary_tells_two_errors(folder, instant, capsys):
    (folder / "study.toml").write_text(SETTINGS.replace("repeats", "seeds = [0, 2]\nrepeats", 1))
    assert cli.main(["check", str(folder / "study.toml")]) == 0
    assert "seeds 0, 2: every model is trained with each" in capsys.readouterr().out
    mine = material.load(folder / "study.toml")
    result = training.train(mine)
    names = [f"seed-{n}/{model}" for n in (0, 2) for model in ("dft", "experiment", "fused")]
    assert [where for where, _, _ in instant] == names
    (_, one, (_, watched, settings)), (_, other, (_, watched_by_other, other_settings)) = instant[0], instant[3]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one.params, other.params)), strict=True))
    assert watched != watched_by_other
    assert (settings.seed, other_settings.seed) == (0, 2)
    assert settings.epochs == other_settings.epochs == 2  # what the file says holds for every member
    summary = storage.read_json(folder / "models" / "summary.json")
    assert summary == storage.json_roundtrip(result)
    assert summary["models"]["fused"]["experiment"]["300"]["elastic"]["C11"] == pytest.approx(
        {"value": 161.0, "stderr": 0.5**0.5, "spread": 2**0.5, "measured": 168.4}
    )
    assert summary["members"]["2"]["fused"]["test"] == found_with(2)["test"]
    card = (folder / "models" / "MODELS.md").read_text()
    assert "161.0 ± 0.7 (1.4)" in card
    assert "in brackets the training error: the standard deviation over the trainings" in " ".join(card.split())
    with open(folder / "models" / "tables" / "errors.csv", newline="") as file:
        assert [(row["seed"], row["model"]) for row in csv.DictReader(file)][2:4] == [("0", "fused"), ("2", "dft")]
    assert (folder / "models" / "figures" / "elastic.png").exists()
    assert Potential.load(folder / "models" / "seed-2" / "fused" / "potential.safetensors").numbers == (29,)


def test_a_model_whose_simulation_explodes_costs_no_results_of_the_others(folder, instant, monkeypatch):
    def evaluate(model, frames, points, preset, name):
        if name.startswith("experiment-only") and points:
            raise langevin.ExplodedTrajectoryError("cell 3 at 500 K exploded", 3)
        return found_with(1) if points else found_with(1) | {"experiment": {}}

    monkeypatch.setattr(comparison, "evaluate_model", evaluate)
    with pytest.warns(UserWarning, match="experiment-only: elastic constants: cell 3 at 500 K exploded"):
        result = training.train(material.load(folder / "study.toml"))
    card = " ".join((folder / "models" / "MODELS.md").read_text().split())
    assert "experiment-only: its simulations exploded, held-out frames 11.0 meV/atom" in card
    assert "fused: elastic constants off by" in card
    with open(folder / "models" / "tables" / "elastic.csv", newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"dft", "fused"}
    models = {name: result["models"][name] for name in ("experiment", "dft", "fused")}  # the exploded one first
    assert "161.0 ± 1.0" in tables.comparison_table({"models": models})
    assert results.average_members([{"experiment": {}}, found_with(0)])["experiment"] == {}


def test_a_finished_training_is_not_done_again_unless_settings_or_models_are_others(folder, instant, monkeypatch):
    seeds = SETTINGS.replace("repeats", "seeds = 2\nrepeats", 1)
    (folder / "study.toml").write_text(seeds)
    result = training.train(material.load(folder / "study.toml"))
    assert len(instant) == 6
    assert training.train(material.load(folder / "study.toml")) == storage.json_roundtrip(result)
    assert len(instant) == 6
    (folder / "study.toml").write_text(seeds.replace("seeds = 2", "seeds = 3"))
    training.train(material.load(folder / "study.toml"))
    assert [where for where, _, _ in instant[6:]] == [f"seed-2/{model}" for model in ("dft", "experiment", "fused")]
    monkeypatch.setattr(force_matching, "train", None)
    zero, one, _ = material.load(folder / "study.toml").members.values()
    (folder / "models" / "seed-1" / "fused" / "potential.safetensors").unlink()
    with pytest.raises(TypeError):  # its model is gone
        training.train(one)
    (folder / "study.toml").write_text(seeds.replace("epochs = 2", "epochs = 3"))
    with pytest.raises(TypeError):  # other settings
        training.train(material.load(folder / "study.toml").members["0"])
    assert training.train(zero)["models"] == storage.json_roundtrip(result)["members"]["0"]


def test_an_interrupted_evaluation_goes_on_with_the_next_model(folder, instant, monkeypatch):
    evaluated = []

    def evaluate(model, frames, points, preset, name):
        evaluated.append(name.split(":")[0])
        if evaluated == ["DFT-only", "experiment-only", "fused"]:
            raise KeyboardInterrupt
        return found_with(preset.seed)

    monkeypatch.setattr(comparison, "evaluate_model", evaluate)
    with pytest.raises(KeyboardInterrupt):
        training.train(material.load(folder / "study.toml"))
    result = training.train(material.load(folder / "study.toml"))
    assert evaluated == ["DFT-only", "experiment-only", "fused", "fused"]
    assert set(result["models"]) == {"dft", "experiment", "fused"}


def test_after_a_change_of_what_models_are_compared_with_they_are_evaluated_again(folder, instant):
    before = training.train(material.load(folder / "study.toml"))
    table = (folder / "measured.csv").read_text()
    row = table.splitlines()[-1]
    assert ",held-out" in row
    constant = row.split(",")[2]
    (folder / "measured.csv").write_text(table.replace(row, row.replace(constant, str(float(constant) + 1), 1)))
    after = training.train(material.load(folder / "study.toml"))
    assert before["learned_from"] == after["learned_from"]
    assert before["compared_with"] != after["compared_with"]


@pytest.fixture
def targeted(folder):
    """A study of hcp with two further targets."""
    (folder / "study.toml").write_text(SETTINGS.replace('"fcc"', '"hcp"') + TARGETS)
    (folder / "measured.csv").write_text("temperature_K,a_A,c_A,C11_GPa\n300,2.556,4.174,220\n500,2.566,4.190,210\n")
    (folder / "gr.csv").write_text("r_A,g\n1.0,0\n1.6,0.1\n2.4,2\n")
    return folder


def check_targets(models):
    """What a study with two further targets leaves in its folder."""
    summary = storage.read_json(models / "summary.json")
    assert summary["models"]["fused"]["targets"]["B1g"]["measured"] == 7.2
    assert set(summary["models"]["fused"]["in_training"]) == {"B1g", "g(r)"}
    with open(models / "tables" / "targets.csv", newline="") as file:
        assert [row["target"] for row in csv.DictReader(file)] == 3 * ["B1g", "g(r)"]
    with open(models / "tables" / "g-r.csv", newline="") as file:
        assert {"r_A", "measured", "fused", "fused_stderr"} < set(next(csv.DictReader(file)))
    assert (models / "figures" / "g-r.png").exists()
    assert "B1g: measured 7.2 THz; DFT-only " in (models / "MODELS.md").read_text()


def test_targets_by_name_are_in_tables_figures_and_card(targeted, instant, monkeypatch):
    history = [{"epoch": 0, "C11@300K": 160.0, "B1g_THz": 7.0, "g(r)": 0.2}]
    for trainer in (difftre, fused):
        monkeypatch.setattr(trainer, "train", lambda start, measured, *arguments, **options: (start, history))
    curve = {"r_A": [1.0, 1.1], "measured": [0.0, 0.1], "g": [0.1, 0.0], "g_stderr": [0.01, 0.02]}
    values = {"B1g": (7.1, None, 7.2, "THz"), "g(r)": (0.2, 0.01, 0.0, "")}
    entries = {
        name: dict(zip(("value", "stderr", "measured", "unit"), one, strict=True)) for name, one in values.items()
    }
    monkeypatch.setattr(targets, "evaluate", lambda *arguments: {"targets": entries, "curves": {"g(r)": curve}})
    result = training.train(material.load(targeted / "study.toml"))
    assert result["models"]["dft"]["in_training"] == {}
    assert result["models"]["fused"]["in_training"] == {"B1g": 7.0, "g(r)": 0.2}
    check_targets(targeted / "models")


@pytest.mark.slow
def test_targets_by_name_are_trained_and_evaluated(targeted):
    """Minutes: a network, a phonon and a g(r), `python -m pytest -m slow tests/test_material.py`."""
    assert cli.main(["train", str(targeted / "study.toml")]) == 0
    check_targets(targeted / "models")


def test_a_compound_and_a_structure_from_a_file_are_described(folder, capsys):
    b2 = bulk("NiAl", "cesiumchloride", a=2.88)
    frames = [b2 * (2, 2, 1) for _ in range(24)]
    for n, frame in enumerate(frames):
        frame.rattle(0.1, seed=n)
    write(folder / "frames.extxyz", map(relabelled, frames))
    (folder / "measured.csv").write_text("temperature_K,a_A,C11_GPa,C44_GPa\n300,2.887,199,116\n600,2.9,190,112\n")
    write(folder / "POSCAR", b2 * (1, 1, 1), format="vasp")
    for called, crystal in (
        ("cesiumchloride NiAl", 'symbol = "NiAl"\nstructure = "cesiumchloride"'),
        ("Pm-3m AlNi", 'structure = "POSCAR"'),
    ):
        settings = f'frames = "frames.extxyz"\ntable = "measured.csv"\n{crystal}\npreset = "smoke"\n'
        (folder / "study.toml").write_text(settings)
        assert cli.main(["check", str(folder / "study.toml")]) == 0
        said = capsys.readouterr().out
        assert f"{called}, cubic, in standard axes a = 2.887 (Å, degrees) at 300 K" in said
        assert "C11 190 to 199, C44 112 to 116 GPa" in said
        assert "C11, C44 (isothermal); trained on 300, 600 K; held out none" in said
        assert "54 atoms" in said  # 2.887 Å times 3 is the first edge above 7 Å


def test_frames_may_come_from_several_files_each_source_with_its_own_zero(folder, capsys):
    write(folder / "other.extxyz", [relabelled(f, energy=f.get_potential_energy() - 80.0) for f in copper(10, seed=8)])
    settings = SETTINGS.replace('"frames.extxyz"', '["frames.extxyz", "other.extxyz"]')
    (folder / "study.toml").write_text(settings)
    assert cli.main(["check", str(folder / "study.toml")]) == 0
    said = capsys.readouterr().out
    assert "34: 23 to train on, 3 to watch it, 8 held out" in said
    assert "each of frames, other has its own zero of energy" in said
    loaded = material.load(folder / "study.toml").frames
    assert loaded[24].info["config_id"] == "other.extxyz:other.extxyz#0"
    alone = datasets.load_frames(folder / "frames.extxyz")
    shares = [[f.info["config_id"].partition(":")[2] for f in part] for part in splits.split(loaded)]
    for part, share in zip(splits.split(alone), shares, strict=True):
        assert [f.info["config_id"] for f in part] == share[: len(part)]
    (folder / "copy.extxyz").write_bytes((folder / "frames.extxyz").read_bytes())
    for said, files in (
        ("two files of frames are called frames.extxyz", '["frames.extxyz", "./frames.extxyz"]'),
        (r"copy\.extxyz:.* is a copy of frames\.extxyz:.* under another source", '["frames.extxyz", "copy.extxyz"]'),
        ("frames = 3 is no text", '["frames.extxyz", 3]'),
        ("frames = \\[\\] is empty", "[]"),
    ):
        (folder / "study.toml").write_text(SETTINGS.replace('"frames.extxyz"', files))
        with pytest.raises(ValueError, match=said):
            material.load(folder / "study.toml")


def test_one_source_in_two_files_is_one_dataset(folder):
    frames = copper(6, seed=8)
    for frame in frames:
        frame.info["source"] = "vasp"
    write(folder / "one.extxyz", frames[:3])
    for name, rest, says in (
        ("same.extxyz", frames[2:], r"same\.extxyz.*the same atoms as frame 2"),
        ("far.extxyz", [relabelled(f, energy=-4e3) for f in frames[3:]], r"source vasp, frame 2 .* eV off frame 3"),
    ):
        for n, frame in enumerate(rest):
            frame.info["source"] = "vasp"
            frame.calc.results["energy"] += 0.01 * n
        write(folder / name, rest)
        with pytest.raises(ValueError, match=says):
            datasets.load_files([folder / "one.extxyz", folder / name])


def test_frames_and_table_may_be_in_units_that_they_do_not_look_like(folder):
    frames = copper(24)
    for frame in frames:
        results = frame.calc.results
        frame.calc = SinglePointCalculator(frame, **results | {"energy": 23.06 * results["energy"]})
    write(folder / "frames.extxyz", frames)
    settings = folder / "study.toml"
    with pytest.raises(ValueError, match=r"energies look like kcal/mol: .* say so with units='ase'"):
        material.load(settings)
    settings.write_text('units = "ase"\n' + SETTINGS)
    with pytest.warns(UserWarning, match=r"energies look like kcal/mol"):
        as_stated = material.load(settings)
    settings.write_text('units = ["kbar", "ase"]\n' + SETTINGS)
    with pytest.warns(UserWarning, match=r"energies look like kcal/mol"):
        other_table = material.load(settings)
    one, ten = (mine.points[0].elastic_gpa["C11"] for mine in (other_table, as_stated))
    assert 10 * one == pytest.approx(ten)


def test_settings_of_the_file_take_the_place_of_the_presets(folder):
    (folder / "study.toml").write_text(
        SETTINGS + "[network]\nembedding = 12\n[fused]\nepochs = 3\n[fused.experiment]\nelastic_weight = 2.0\n"
    )
    preset = material.load(folder / "study.toml").preset
    assert preset.network.embedding == 12
    assert (preset.dft.epochs, preset.fused.epochs) == (2, 3)
    assert preset.fused.experiment.elastic_weight == 2.0
    assert preset.fused.experiment.repeats == preset.evaluation.repeats == (1, 1, 1)


@pytest.mark.parametrize(("old", "new", "says"), [
    (",train", ",held-out", r"measured\.csv: every row is held out; give at least one the role train"),
    ("3.615", "2.556", r"measured\.csv: fcc Cu with a = 2\.556 at 300 K has 4\.175 Å\^3 per atom, .*conventional cell"),
    ("168.4", "168,4", r"measured\.csv, line 2: 7 cells under 6 columns; .* with decimal points in numbers"),
])  # fmt: skip
def test_a_wrong_table_is_one_sentence(folder, capsys, old, new, says):
    (folder / "measured.csv").write_text(TABLE.replace(old, new))
    refusals.check(folder, capsys, SETTINGS, says)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("frames = ", "framse = ", r"study\.toml: setting 'framse' is unknown; did you mean 'frames'\?"),
    ("epochs = 2", "epoch = 2", r"study\.toml, \[dft\]: setting 'epoch' is unknown; did you mean 'epochs'\?"),
    ("epochs = 2", "epochs = 0", r"study\.toml, \[dft\]: .*epochs = 0; give a whole number from 1 on"),
    ("[dft]\nepochs", "dft", r"study\.toml: dft = 2 does not fit; make it a section \[dft\]"),
    ('table = "measured.csv"', "", r"study\.toml: 'table' is missing; add it"),
    ('"frames.extxyz"', "3", r"study\.toml: frames = 3 is no text"),
    ('"fcc"', '"fc"', r"study\.toml: structure = 'fc' is neither a file nor one of hcp, bcc"),
    ('symbol = "Cu"', "", r"study\.toml: fcc of what\? Add symbol"),
    ('symbol = "Cu"', 'symbol = "Ag"', r"frames\.extxyz: no frame contains Ag"),
    ("[1, 1, 1]", "[1, 1]", r"study\.toml: repeats = \[1, 1\]: give three positive whole numbers"),
    ('"smoke"', '"large"', "preset 'large' is unknown; use one of smoke"),
    ('output = "models"', "output = models", r"study\.toml: .*line 5.*`fusedff new` writes a template"),
    ("repeats", "seed = -1\nrepeats", r"study\.toml: seed = -1; give a whole number from 0 on"),
    ("repeats", "seeds = 1\nrepeats", r"study\.toml: seeds = 1; give how many \(2 to 1000\), or a list"),
    ("repeats", "seeds = 1000000000000\nrepeats", r"study\.toml: seeds = 1000000000000; give how many \(2 to 1000\)"),
    ("repeats", "seed = 5000000000\nrepeats", r"study\.toml: seed = 5000000000; give a whole number from 0 on, below"),
    ("repeats", 'units = {a = "nm"}\nrepeats', r"study\.toml: units = \{'a': 'nm'\} are unknown; use 'ase' for"),
    ("[1, 1, 1]", "[[1], [2, 3], 1]", r"study\.toml: repeats = \[\[1\], \[2, 3\], 1\]: give three positive whole"),
    ("epochs = 2", "epochs = 2\n[evaluation]\nrepeats = 2", r"study\.toml, \[evaluation\]: repeats = 2 is not a list"),
    ("epochs = 2", "epochs = 2\n[experiment]\nrepeats = [2]", r"study\.toml, \[experiment\]: .*give three whole numb"),
    ("epochs = 2", "epochs = 2\n[fused]\norder = 3", r"study\.toml, \[fused\]: order = 3 is not a list; correct it"),
    ('"models"', '"measured.csv"', r"study\.toml: output = 'measured\.csv': .*measured\.csv is a file; name another"),
    ('"models"', '"measured.csv/models"', r"study\.toml: output = 'measured\.csv/models': .*measured\.csv is a file"),
    ('"models"', '""', r"study\.toml: output = '' is empty"),
    ("preset = ", "[fused]\npreset = ", r"study\.toml: preset stands below \[fused\]; move it above the first sec"),
    ("epochs = 2", "epochs = true", r"study\.toml, \[dft\]: .*epochs = True; give a whole number"),
    ("epochs = 2", "epochs = '2'", r"study\.toml, \[dft\]: .*epochs = '2'; give a whole number"),
    ("epochs = 2", "epochs = 2\n[network]\ncutoff = 0.5", r"cutoff = 0\.5, but nearest neighbours are 2\.5[56] Å"),
    ("epochs = 2", "epochs = 2\n[evaluation.langevin]\ntimestep_fs = 0.002", r"timestep_fs = 0\.002; give femto"),
    ("repeats", "seeds = [0, 0]\nrepeats", r"study\.toml: seeds = \[0, 0\]; .* a list of different ones"),
    ("repeats", "seed = 1\nseeds = 2\nrepeats", r"study\.toml: seed and seeds are both given; leave out one"),
])  # fmt: skip
def test_a_wrong_setting_is_one_sentence(folder, capsys, old, new, says):
    refusals.check_changed(folder, capsys, SETTINGS, old, new, says)


def test_weights_of_titaniums_sources_are_not_those_of_other_frames(folder):
    """A third of somebody's frames of the source vasp would come in an epoch."""
    path = folder / "study.toml"
    path.write_text(SETTINGS.replace('preset = "smoke"', 'preset = "hours"'))
    preset = material.load(path).preset
    assert presets.get("hours").dft.source_weights
    assert preset.dft.source_weights == preset.fused.dft.source_weights == ()


def test_a_byte_order_mark_and_line_ends_of_windows_do_no_harm(folder):
    for name, text in (("study.toml", SETTINGS), ("measured.csv", TABLE)):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert len(material.load(folder / "study.toml").points) == 2


def test_settings_that_are_no_file_are_one_sentence(tmp_path, capsys):
    for path, what in ((tmp_path, "is a folder"), (tmp_path / "study.toml", "does not exist")):
        assert cli.main(["check", str(path)]) == 2
        assert f"{path} {what}; give a settings file" in capsys.readouterr().err


def test_a_template_replaces_no_file_and_is_written_whole(tmp_path, capsys):
    (tmp_path / "measured.csv").write_text("mine")
    for folder, says in ((tmp_path, "exists already; name another folder"), (tmp_path / "measured.csv", "is a file")):
        assert cli.main(["new", str(folder)]) == 2
        assert says in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("measured.csv", "mine")]


def test_the_template_is_settings_of_copper(folder, capsys):
    assert cli.main(["new", str(folder / "mine")]) == 0
    made = folder / "mine" / "study.toml"
    assert str(made) in capsys.readouterr().out
    for name in ("frames.extxyz", "measured.csv"):
        (folder / "mine" / name).write_bytes((folder / name).read_bytes())
    assert material.load(made).output == Path(folder / "mine" / "models")
    assert cli.main(["new", str(folder / "mine")]) == 2
    assert "exists already" in capsys.readouterr().err
