"""Checks that `fusedff check` refuses a settings file with one sentence."""

import re

from fusedff.commands import cli


def check(folder, capsys, settings: str, says: str, begins: str = "error: ") -> None:
    """Write study.toml and assert that it is refused with one sentence that the pattern `says` matches."""
    (folder / "study.toml").write_text(settings)
    assert cli.main(["check", str(folder / "study.toml")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(begins)
    assert said.count("\n") == 1
    assert re.search(says, said), said


def check_changed(folder, capsys, settings: str, old: str, new: str, says: str, begins: str = "error: ") -> None:
    """`check` of settings with one mistake: `new` in place of `old`."""
    assert old in settings
    check(folder, capsys, settings.replace(old, new), says, begins)
