"""Program of the ranks in test_lammps_ranks: `mpiexec -n 4 python lammps_ranks.py SIZE RESULT`.

Writes as JSON: energies, forces by ID, stress and drift of the total energy of a periodic triclinic crystal and of an
open slab, and the error messages of all ranks if one of them fails.
"""

import json
import sys
from pathlib import Path

import numpy as np
from argon import argon
from ase.data import chemical_symbols
from test_halo import network
from test_lammps import crystal, session, stress

from fusedff.interfaces import evaluator, lammps

# a network whose energies depend on atoms up to two cut-offs away, and a pair potential
CELLS = {"periodic": ("p p p", network(blocks=1)), "slab": ("p p f", argon(epsilon=0.2, sigma=2.55, cutoff=4.0))}


def titanium(size):
    """A sheared cell of `size` x 4 x 4 displaced atoms; from size 24 on, half of it with its halo is less than all."""
    frame = crystal((size, 4, 4), spacing=2.9, rattle=0.05)
    frame.numbers[:] = 22
    return frame


def started(frame, boundary, potential):
    lmp = session(frame, "pair_style none", "velocity all create 3000 7 mom yes", "timestep 0.0005", "fix move all nve")
    if boundary != "p p p":
        lmp.command(f"change_box all z final -20 40 boundary {boundary}")
    lammps.attach(lmp, potential, {1: chemical_symbols[potential.numbers[0]]})
    return lmp


def forces(lmp):
    """Forces (n, 3) on all atoms, ordered by ID, on every rank."""
    return np.ctypeslib.as_array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)


def measured(lmp):
    """Energy, forces and stress, then drift of the energy and forces after atoms have moved by half the skin."""
    lmp.command("run 0")
    found = {"energy": lmp.get_thermo("pe"), "forces": forces(lmp).tolist(), "stress": stress(lmp).tolist()}
    thermal, before = lmp.get_thermo("ke"), lmp.get_thermo("etotal")
    lmp.command("run 60")
    return found | {"drift": (lmp.get_thermo("etotal") - before) / thermal, "after": forces(lmp).tolist()}


def failure(lmp, ranks):
    """Error message on this rank when the evaluation fails on the last rank."""
    evaluate = evaluator.Evaluator.__call__

    def fail(self, *arguments):
        raise MemoryError("no memory left")

    if lmp.extract_setting("world_rank") == ranks - 1:
        evaluator.Evaluator.__call__ = fail
    try:
        lmp.command("run 100")
        return "no failure"
    except Exception as error:
        return str(error)
    finally:
        evaluator.Evaluator.__call__ = evaluate


def main(size, path):
    frame, found = titanium(int(size)), {}
    for name, cell in CELLS.items():
        lmp = started(frame, *cell)
        found[name] = measured(lmp)
    ranks = lmp.extract_setting("world_size")
    told = failure(lmp, ranks)
    communicator = lmp.get_mpi_comm()
    found["failures"] = communicator.allgather(told) if ranks > 1 else [told]
    if lmp.extract_setting("world_rank") == 0:
        Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
