"""Labelling of structures, by the script for GPAW or any ASE calculator: they are checked before it begins."""

import re
import shlex

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from copper import copper
from test_make_dft_labels import script  # noqa: F401  a fixture

from fusedff.commands import cli, labelling
from fusedff.data import datasets, labelled_frames, splits
from fusedff.runtime import storage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [bulk("Cu", "fcc", a=a, cubic=True) * (1, 1, n) for n, a in ((1, 3.55), (1, 3.6), (2, 3.65))]
    write("my structures.xyz", frames)
    return tmp_path


def test_the_command_is_one_that_the_script_understands(folder, script):  # noqa: F811
    found = labelling.plan("my structures.xyz", "labels.extxyz", 4)
    assert (found.n_structures, found.n_done, found.sizes, found.elements) == (3, 0, (4, 8), ("Cu",))
    words = shlex.split(found.command)
    assert words[:5] == ["OMP_NUM_THREADS=1", "mpirun", "-np", "4", labelling.PYTHON]
    plan = script.planned(script.arguments(words[6:]))
    assert [(name, len(atoms)) for _, name, atoms in plan] == [
        ("my structures.xyz#0", 4), ("my structures.xyz#1", 4), ("my structures.xyz#2", 8),
    ]  # fmt: skip


def test_what_is_labelled_already_is_counted(folder, capsys):
    done = copper(1)[0]
    done.info["config_id"] = "my structures.xyz#1"
    write("labels.extxyz", done)
    assert cli.main(["label", "my structures.xyz", "labels.extxyz"]) == 0
    said = capsys.readouterr().out
    assert "3 of Cu, 4 to 8 atoms; 1 are labelled already" in said
    assert "make_dft_labels.py labels.extxyz --structures 'my structures.xyz'" in said
    assert 'frames = "labels.extxyz"' in said


def test_what_cannot_be_labelled_is_one_sentence(folder, capsys, monkeypatch):
    flat, near, twice = bulk("Cu", "fcc", a=3.6), bulk("Cu", "fcc", a=3.6, cubic=True), bulk("Cu", "fcc", a=3.6)
    flat.pbc = (True, True, False)
    near.positions[1] = near.positions[0] + 0.1
    twice.info["config_id"] = "a"
    write("flat.xyz", flat)
    write("near.xyz", near)
    write("twice.xyz", [twice, twice])
    for structures, output, says in (
        ("flat.xyz", "out.extxyz", r"flat\.xyz, frame 0: periodic along \[True, True, False\] only"),
        ("near.xyz", "out.extxyz", r"near\.xyz, frame 0: atoms 0 and 1 .* are 0\.173 Å apart"),
        ("twice.xyz", "out.extxyz", r"twice\.xyz, frame 1: config_id 'a' is that of frame 0 too"),
        ("missing.xyz", "out.extxyz", r"missing\.xyz does not exist"),
        ("flat.xyz", "flat.xyz", r"flat\.xyz holds the structures themselves"),
        ("my structures.xyz", ".", r"\. is a folder; name a file for the labels"),
    ):
        assert cli.main(["label", structures, output]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert re.search(f"^error: .*{says}", said), said
    monkeypatch.setattr(labelling, "SCRIPT", folder / "missing.py")
    with pytest.raises(FileNotFoundError, match="comes with a checkout of the project"):
        labelling.plan("my structures.xyz", "out.extxyz")
    assert not np.any([path.name == "out.extxyz" for path in folder.iterdir()])


def test_settings_of_gpaw_reach_the_script(folder, script, capsys):  # noqa: F811
    given = [
        "--cutoff",
        "700",
        "--k-spacing",
        "0.2",
        "--k-spacing-large",
        "0.8",
        "--smearing",
        "0.1",
        "--pulay",
        "0.05",
    ]
    assert cli.main(["label", "my structures.xyz", "labels.extxyz", *given]) == 0
    command = re.search(r"run +(.*)", capsys.readouterr().out)[1]
    assert script.arguments(shlex.split(command)[6:]).settings == (700, 0.2, 0.8, 0.1, 0.05)


# ---- by any ASE calculator ----


class Fussy(EMT):
    """EMT that cannot do the second volume, counts what it is asked and is interrupted before the third structure."""

    asked: list = []
    interrupted = fails = False

    def calculate(self, atoms=None, *arguments):
        if self.interrupted and len(self.asked) == 2:
            raise KeyboardInterrupt
        self.asked.append(len(atoms))
        if self.fails and atoms.cell.cellpar()[0] == pytest.approx(3.6):
            raise RuntimeError("the cell\nis too ordinary")
        super().calculate(atoms, *arguments)


@pytest.fixture
def fussy(monkeypatch):
    monkeypatch.setattr(Fussy, "asked", [])
    return f"{__name__}:Fussy"


def test_labels_of_a_calculator_are_its_own_and_can_be_trained_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    structures = copper(24)  # with labels, which do not count
    write("structures.extxyz", structures)
    assert cli.main(["label", "structures.extxyz", "emt.extxyz", "--calculator", "emt"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"24/24 structures\.extxyz#23: 4 atoms, -?\d+\.\d{4} eV/atom, max \|F\| \d+\.\d{3} eV/Å", said)
    assert "24 of 24 structures, 0 of them before; 0 failed" in said
    frames = datasets.load_frames("emt.extxyz")
    for frame, structure in zip(frames, structures, strict=True):
        assert labelled_frames.source(frame) == "emt"
        assert frame.info["calculator"].startswith("emt (ase ")
        for found, wanted in zip(labelled_frames.labels(frame), labelled_frames.labels(structure), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-7)  # eight decimals
    assert all(splits.split(frames))  # each structure is a run of its own
    (tmp_path / "measured.csv").write_text(
        "temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa,role\n300,3.615,168.4,121.4,75.4,train\n"
    )
    (tmp_path / "study.toml").write_text(
        'frames = "emt.extxyz"\ntable = "measured.csv"\nsymbol = "Cu"\nstructure = "fcc"\npreset = "smoke"\n'
    )
    assert cli.main(["check", "study.toml"]) == 0
    assert "frames        24" in capsys.readouterr().out


def test_labels_of_other_settings_are_refused_also_for_other_structures(folder, capsys):
    write("more.xyz", bulk("Cu", "fcc", a=3.7, cubic=True))
    settings = ["--calculator", "lj", "--set", "epsilon=0.4", "rc=6"]
    assert cli.main(["label", "my structures.xyz", "labels.extxyz", *settings, "sigma=2.3"]) == 0
    before = (folder / "labels.extxyz").read_bytes()
    assert cli.main(["label", "more.xyz", "labels.extxyz", *settings, "sigma=2.2"]) == 2
    assert re.search(r"its \w+ is .*2\.3.*, now .*2\.2.*; write to another file", capsys.readouterr().err)
    assert (folder / "labels.extxyz").read_bytes() == before


def test_labelling_goes_on_after_an_interruption_and_loses_nothing(folder, fussy, capsys, monkeypatch):
    labelling.label("my structures.xyz", "whole.extxyz", fussy)
    Fussy.asked.clear()
    monkeypatch.setattr(Fussy, "interrupted", True)
    assert cli.main(["label", "my structures.xyz", "labels.extxyz", "--calculator", fussy]) == 130
    assert len(datasets.load_frames("labels.extxyz")) == 2
    monkeypatch.setattr(Fussy, "interrupted", False)
    found = labelling.label("my structures.xyz", "labels.extxyz", fussy)
    assert (found.n_before, found.n_new, found.failed) == (2, 1, {})
    assert Fussy.asked == [4, 4, 8]
    assert (folder / "labels.extxyz").read_bytes() == (folder / "whole.extxyz").read_bytes()


def test_a_structure_that_fails_is_named_and_the_others_are_labelled(folder, fussy, capsys, monkeypatch):
    monkeypatch.setattr(Fussy, "fails", True)
    command = ["label", "my structures.xyz", "labels.extxyz", "--calculator", fussy, "--source", "mine"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "2/3 my structures.xyz#1: no labels (the cell is too ordinary), skipped\n" in said
    assert "2 of 3 structures, 0 of them before; 1 failed" in said
    assert {labelled_frames.source(frame) for frame in datasets.load_frames("labels.extxyz")} == {"mine"}
    monkeypatch.setattr(Fussy, "fails", False)
    assert cli.main(command) == 0
    assert "3 of 3 structures, 2 of them before; 0 failed" in capsys.readouterr().out


def test_labels_that_cannot_be_learned_from_are_not_written(folder, monkeypatch):
    def calculate(self, atoms=None, *arguments):
        EMT.calculate(self, atoms, *arguments)
        if len(atoms) == 8:
            self.results["stress"] = np.full(6, np.nan)

    monkeypatch.setattr(Fussy, "calculate", calculate)
    found = labelling.label("my structures.xyz", "labels.extxyz", f"{__name__}:Fussy")
    assert list(found.failed) == ["my structures.xyz#2"]
    assert "stress is [nan" in found.failed["my structures.xyz#2"]
    assert len(datasets.load_frames("labels.extxyz")) == 2


def test_a_calculator_without_stress_labels_without_it(folder, monkeypatch):
    monkeypatch.setattr(Fussy, "implemented_properties", ["energy", "forces"])
    labelling.label("my structures.xyz", "labels.extxyz", f"{__name__}:Fussy")
    assert not any(map(labelled_frames.has_stress, datasets.load_frames("labels.extxyz")))


def test_what_a_calculator_cannot_label_is_one_sentence(folder, capsys):
    labelling.label("my structures.xyz", "emt.extxyz", "emt")
    write("titanium.xyz", bulk("Ti", "hcp", a=2.95, c=4.68))
    moved = bulk("Cu", "fcc", a=3.7)
    moved.info["config_id"] = "my structures.xyz#0"
    write("moved.xyz", moved)
    for arguments, says in (
        ("titanium.xyz out.extxyz --calculator emt", r"emt labels none of 1 structures \(titanium\.xyz#0: "),
        ("moved.xyz emt.extxyz --calculator emt", r"emt\.extxyz, frame 0 \(my structures\.xyz#0\): another structure"),
        ("titanium.xyz out.extxyz --calculator emd", r"emd"),
        ("titanium.xyz out.extxyz --calculator emt --cutoff 700", r"--cutoff is a setting of GPAW, not of emt"),
        ("titanium.xyz out.extxyz --source mine", r"--source is for --calculator, which is not given"),
        ("titanium.xyz out.extxyz --cutoff -5", r"--cutoff -5 is not positive"),
        ("titanium.xyz out.extxyz --processes 0", r"0 processes can do nothing; give 1 or more"),
        ("titanium.xyz . --calculator emt", r"\. is a folder; name a file for the labels"),
    ):
        assert cli.main(["label", *arguments.split()]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert re.search(f"^error: .*{says}", said), said
    with pytest.raises(ValueError, match=r"calculator is emt .*, now emt .* asap_cutoff=True; write to another file"):
        labelling.label("my structures.xyz", "emt.extxyz", "emt", {"asap_cutoff": True})
    with storage.lock("emt.extxyz"):
        assert cli.main(["label", "my structures.xyz", "emt.extxyz", "--calculator", "emt"]) == 2
    assert "error: emt.extxyz is being written by another process; wait" in capsys.readouterr().err
    assert not (folder / "out.extxyz").exists()
