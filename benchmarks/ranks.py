"""Time of a LAMMPS step with several ranks: `mpiexec -n 2 -bind-to core python -m benchmarks.ranks 2560 5120`.

The arguments are numbers of atoms. The titanium cells have a cross section of 3 x 3 unit cells and are long along x, so
that halos are small compared to the parts of the ranks.
"""

import sys
import time

import numpy as np

from benchmarks.cells import network
from fusedff.crystallography import crystals
from fusedff.interfaces import lammps

STEPS = 10


def wire(n_atoms: int):
    """A crystal of about `n_atoms` displaced atoms, long along x."""
    frame = crystals.supercell(crystals.Crystal("Ti", "hcp", 2.95, 4.686), (n_atoms // 18, 3, 3))
    frame.rattle(0.05, seed=0)
    return frame


def session(frame):
    """LAMMPS with the atoms of a frame, moved by `fix nve`."""
    lmp = lammps.start("-log", "none", "-screen", "none")
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = frame.cell.array
    lmp.commands_list(["units metal", "atom_modify map array", "box tilt large"])
    lmp.command(f"region box prism 0 {lx} 0 {ly} 0 {lz} {xy} {xz} {yz}")
    lmp.commands_list(["create_box 1 box", "mass 1 47.867", "pair_style none", "timestep 0.0005", "fix move all nve"])
    ids = list(range(1, len(frame) + 1))
    lmp.create_atoms(len(frame), ids, [1] * len(frame), frame.get_positions(wrap=True).ravel().tolist())
    lammps.attach(lmp, network(), {1: "Ti"})
    return lmp


def main(sizes):
    for n_atoms in sizes:
        frame = wire(n_atoms)
        lmp = session(frame)
        lmp.command("run 1")
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            lmp.command(f"run {STEPS} pre no post no")
            seconds.append((time.perf_counter() - start) / STEPS)
        ranks = lmp.extract_setting("world_size")
        if lmp.extract_setting("world_rank") == 0:
            print(f"{len(frame)} atoms, {ranks} ranks: {1e3 * np.median(seconds):.1f} ms per step", flush=True)
        lmp.close()


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
