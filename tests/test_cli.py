"""Help of the commands: each has a purpose, an example, and a row on the page of commands."""

import io
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fusedff.commands import cli
from fusedff.training.loop import DivergedError

PAGE = (Path(__file__).parents[1] / "docs" / "commands.md").read_text()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example_and_is_on_the_page(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert f"  fusedff {name} " in said
    assert max(map(len, cli.COMMANDS[name].text.splitlines())) <= 120
    assert f"`fusedff {name}" in PAGE


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_are_understood(name, monkeypatch):
    """Their options exist and their numbers of arguments fit; nothing is run."""
    asked = []
    command = cli.COMMANDS[name]
    monkeypatch.setitem(cli.COMMANDS, name, command._replace(run=lambda options: asked.append(options) or 0))
    lines = [line for line in command.text.splitlines() if line.startswith("  fusedff ")]
    for line in lines:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0
    assert len(asked) == len(lines) > 0


@pytest.mark.parametrize(("line", "name", "values"), [
    ("evaluate lj --set sigma=3.4 rc=10 --set bounds=(2,3)", "set", [("sigma", 3.4), ("rc", 10), ("bounds", (2, 3))]),
    ("label a.xyz b.xyz --set sigma=3.4 --set name=mine", "set", [("sigma", 3.4), ("name", "mine")]),
    ("label a.xyz b.xyz --set a=false b=TRUE c=None d=off e=", "set",
     [("a", False), ("b", True), ("c", None), ("d", "off"), ("e", "")]),
    ("convert a b.extxyz --species Ti --species Al", "species", ["Ti", "Al"]),
    ("propose a.xyz --models one --models two --into b", "models", ["one", "two"]),
])  # fmt: skip
def test_an_option_given_again_adds_its_values(line, name, values, monkeypatch):
    asked = []
    command = line.split()[0]
    monkeypatch.setitem(cli.COMMANDS, command, cli.COMMANDS[command]._replace(run=lambda said: asked.append(said) or 0))
    for _ in range(2):  # nothing is left over from an earlier call
        assert cli.main(line.split()) == 0
        assert getattr(asked[-1], name) == values


def test_a_decimal_comma_is_no_setting(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "lj", "--set", "sigma=2,3"])
    assert "'sigma=2,3' has a comma; give a decimal point, or several values in" in capsys.readouterr().err


def test_without_a_command_all_are_listed(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in cli.COMMANDS)


def test_a_computation_without_a_result_is_one_sentence(monkeypatch, capsys):
    def diverge(options):
        raise DivergedError("force matching, epoch 3: loss is nan; lower the learning rate")

    monkeypatch.setitem(cli.COMMANDS, "check", cli.COMMANDS["check"]._replace(run=diverge))
    assert cli.main(["check", "study.toml"]) == 2
    assert capsys.readouterr().err == "error: force matching, epoch 3: loss is nan; lower the learning rate\n"


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"fusedff {version('fusedff')}\n"


def test_an_output_without_greek_letters_ends_no_training(tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert cli.main(["new", str(tmp_path / "copper")]) == 0
    print("σxx of 3 Å", flush=True)
    assert sys.stdout.buffer.getvalue().endswith(b"?xx of 3 ?\n")
