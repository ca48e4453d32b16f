"""Measure the Pulay stress of labels: pressure from the stress against the slope of the energy, at rising cut-offs.

At a fixed cut-off a larger cell has more plane waves. The stress of a calculation leaves this out, so at a finite
cut-off it is not the derivative of the energies. For some cells of a labelled set (by default six of titanium) this
script computes the pressure from the stress at each cut-off, and from energies at volumes 0.5 % smaller and larger at
the first and the last cut-off, all with the k-points of the labels. The difference at the first cut-off times the
volume per atom is what `make_dft_labels.py --pulay` takes. Each row of the CSV file is appended as soon as it is known;
a call with the same file continues. About 15 minutes on two cores.

    OMP_NUM_THREADS=1 mpirun -np 2 /usr/bin/python3 scripts/measure_pulay_stress.py pulay.csv
    ... measure_pulay_stress.py al.csv --frames aluminium_pbe.extxyz --ids fcc-eos-+0.00 fcc-eos--0.06 --cutoffs 300 500
"""

import argparse
import csv
import os
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


def main() -> None:
    """Compute what the file lacks; the first MPI rank alone writes."""
    from gpaw.mpi import world

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="CSV file to append to")
    parser.add_argument("--frames", default=FRAMES, help="extended-XYZ file of labelled frames")
    parser.add_argument("--ids", nargs="+", default=CELLS, help="config_id of the cells")
    parser.add_argument("--cutoffs", nargs="+", type=float, default=CUTOFFS, help="in eV; first that of the labels")
    args = parser.parse_args()
    path, known = args.output, set()
    if os.path.exists(path):
        with open(path) as file:
            known = {(row["config_id"], float(row["cutoff_eV"])) for row in csv.DictReader(file)}
    elif world.rank == 0:
        append(path, COLUMNS)
    frames = {atoms.info["config_id"]: atoms for atoms in read(args.frames, ":", do_not_split_by_at_sign=True)}
    for name in args.ids:
        for cutoff in args.cutoffs:
            if (name, cutoff) not in known:
                row = measure(frames[name], cutoff, slope=cutoff in (args.cutoffs[0], args.cutoffs[-1]))
                if world.rank == 0:
                    append(path, (name, f"{cutoff:g}", *row))


def measure(atoms: Atoms, cutoff: float, slope: bool) -> list[str]:
    """Pressure, its value from the slope of the energy, largest deviatoric stress (GPa) and energy (eV/atom)."""
    settings = labels.DEFAULTS._replace(cutoff=cutoff)
    mesh = tuple(map(int, atoms.info["k_mesh"].split("x")))
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
    main()
