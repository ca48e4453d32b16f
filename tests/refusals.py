"""Settings files that `fusedff check` refuses in one sentence."""

import re

from fusedff.commands import cli


def check(folder, capsys, settings: str, says: str, begins: str = "error: ") -> None:
    """Write study.toml, which is to be refused in one sentence that `says` matches."""
    (folder / "study.toml").write_text(settings)
    assert cli.main(["check", str(folder / "study.toml")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(begins)
    assert said.count("\n") == 1
    assert re.search(says, said), said


def check_changed(folder, capsys, settings: str, old: str, new: str, says: str, begins: str = "error: ") -> None:
    """`check` of settings in which one thing is wrong: `new` in the place of `old`."""
    assert old in settings
    check(folder, capsys, settings.replace(old, new), says, begins)
