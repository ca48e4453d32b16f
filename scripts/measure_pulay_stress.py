"""Measure the Pulay stress of the titanium labels: stress against the slope of the energy, at rising cut-offs.

At a fixed cut-off a larger cell has more plane waves. The stress of a calculation leaves this out, so at a finite
cut-off it is not the derivative of the energies. For six of the labelled cells this script computes the pressure from
the stress at each cut-off, and from energies at volumes 0.5 % smaller and larger at the first and the last cut-off,
all with the k-points of the labels. Each row of the CSV file is appended as soon as it is known; a call with the same
file continues. About 15 minutes on two cores.

    OMP_NUM_THREADS=1 mpirun -np 2 /usr/bin/python3 scripts/measure_pulay_stress.py pulay.csv
"""

import csv
import os
import sys
from pathlib import Path

import make_dft_labels as labels
import numpy as np
from ase import Atoms
from ase.io import read
from ase.units import GPa

FRAMES = Path(__file__).parents[1] / "fusedff" / "data" / "files" / "titanium_pbe.extxyz"
CELLS = (
    "hcp-eos-+0.00", "hcp-eos--0.10", "bcc-eos-+0.00", "fcc-eos-+0.00", "omega-eos-+0.00", "hcp-strain-xx+0.025",
)  # fmt: skip
CUTOFFS = (500.0, 700.0, 900.0)  # eV; the first is that of the labels
CHANGE = 0.005  # of the volume, up and down
COLUMNS = ("config_id", "cutoff_eV", "pressure_GPa", "slope_GPa", "deviatoric_GPa", "energy_eV_per_atom")


def main(path: str) -> None:
    """Compute what the file lacks; the first MPI rank alone writes."""
    from gpaw.mpi import world

    known = set()
    if os.path.exists(path):
        with open(path) as file:
            known = {(row["config_id"], float(row["cutoff_eV"])) for row in csv.DictReader(file)}
    elif world.rank == 0:
        append(path, COLUMNS)
    frames = {atoms.info["config_id"]: atoms for atoms in read(FRAMES, ":")}
    for name in CELLS:
        for cutoff in CUTOFFS:
            if (name, cutoff) not in known:
                row = measure(frames[name], cutoff, slope=cutoff in (CUTOFFS[0], CUTOFFS[-1]))
                if world.rank == 0:
                    append(path, (name, f"{cutoff:g}", *row))


def measure(atoms: Atoms, cutoff: float, slope: bool) -> list[str]:
    """Pressure, its value from the slope of the energy, largest deviatoric stress (GPa) and energy (eV/atom)."""
    settings = labels.DEFAULTS._replace(cutoff=cutoff)
    mesh = labels.k_mesh(atoms)
    energy, _, stress = labels.label(atoms, os.devnull, settings, mesh)
    pressure = -stress[:3].mean()
    deviatoric = np.abs(stress + pressure * np.array([1, 1, 1, 0, 0, 0])).max()
    from_energy = ""
    if slope:
        smaller, larger = (
            labels.label(scaled(atoms, 1 + change), os.devnull, settings, mesh)[0] for change in (-CHANGE, CHANGE)
        )
        from_energy = f"{(smaller - larger) / (2 * CHANGE * atoms.get_volume()) / GPa:.3f}"
    return [f"{pressure / GPa:.3f}", from_energy, f"{deviatoric / GPa:.3f}", f"{energy / len(atoms):.5f}"]


def scaled(atoms: Atoms, volume: float) -> Atoms:
    """The crystal with `volume` times its volume."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
    return atoms


def append(path: str, row) -> None:
    """Append a row to a CSV file."""
    with open(path, "a", newline="") as file:
        csv.writer(file).writerow(row)


if __name__ == "__main__":
    main(sys.argv[1])
