"""Structures to label: checked before hours are spent on them, with the command that the script understands."""

import re
import shlex

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from copper import copper
from test_make_dft_labels import script  # noqa: F401  a fixture

from fusedff.commands import cli, labelling


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
    ):
        assert cli.main(["label", structures, output]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert re.search(f"^error: .*{says}", said), said
    monkeypatch.setattr(labelling, "SCRIPT", folder / "missing.py")
    with pytest.raises(FileNotFoundError, match="comes with a checkout of the project"):
        labelling.plan("my structures.xyz", "out.extxyz")
    assert not np.any([path.name == "out.extxyz" for path in folder.iterdir()])
