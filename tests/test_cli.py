"""Every command says what a user needs: what it is for, an example, a row on the page of commands."""

import shlex
from pathlib import Path

import pytest

from fusedff.commands import cli

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


def test_without_a_command_all_are_listed(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in cli.COMMANDS)
