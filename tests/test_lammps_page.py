"""The input and the script of docs/lammps.md run as printed, for a few steps instead of a thousand."""

import re
from pathlib import Path

import numpy as np
import pytest

from fusedff.interfaces import lammps

try:
    lammps.start("-log", "none", "-screen", "none").close()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

PAGE = (Path(__file__).parents[1] / "docs" / "lammps.md").read_text()


def test_the_page_moves_titanium_at_rest_near_its_lattice_constants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (written,) = re.findall(r"```text\n(units metal.*?)```", PAGE, flags=re.DOTALL)
    Path("in.titanium").write_text(written)
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {}
    exec(script.replace("run 1000", "run 10"), names)
    session = names["session"]
    assert session.get_natoms() == 180
    assert 300 < session.get_thermo("temp") < 590  # potential energy takes its half
    assert abs(session.get_thermo("press")) < 3e4  # bar
    forces = np.array(session.numpy.extract_atom("f"))
    assert np.abs(forces).max() > 0.3
    assert np.abs(forces.sum(0)).max() < 1e-2  # of 180 atoms, in single precision
    session.close()
