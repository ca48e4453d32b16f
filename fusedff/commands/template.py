"""Template of a settings file for `fusedff train`, and of the table that it names."""

from pathlib import Path

from fusedff.runtime import storage

TEMPLATE = """\
# fusedff train study.toml        trains three models and evaluates them; run it again to resume
# fusedff check study.toml        reads everything and prints a summary, without training

frames = "frames.extxyz"          # DFT labels: extended XYZ with energy (eV), forces (eV/Å), stress (eV/Å^3); or a
                                  # list of files: ["mine.extxyz", "other.extxyz"] (`fusedff convert` makes them)
table = "measured.csv"            # measurements: temperature_K, a_A, ..., C11_GPa, ..., role (train or held-out)
symbol = "Cu"                     # with the name of a structure: hcp, bcc, fcc, diamond, rocksalt, ...
structure = "fcc"                 # or, without symbol, a POSCAR, CIF or extended-XYZ file
output = "models"                 # folder of models, tables and figures
preset = "demo"                   # smoke (quick test, useless models), demo (minutes), hours, full (a GPU)

# Optional: every setting of the preset can be given in its section.
# seed = 0                        # of initial weights, split, batches, trajectories
# seeds = 5                       # a committee: every model is trained five times; or a list, [0, 1, 2]
# units = "ase"                   # the frames are in eV and Å although they do not look so; or of the table, "GPa"
# repeats = [3, 3, 3]             # of the conventional cell, in the simulations; default: edges of 7 Å or more
# [dft]
# epochs = 200
# [fused]
# epochs = 24

# Further measurements to train on, a section [[targets]] each. A mode at the zone centre, at 0 K in the cell measured
# nearest to temperature_K: displacements of the atoms of the conventional cell, or index = 0, among the optical
# frequencies in ascending order.
# [[targets]]
# kind = "phonon"
# name = "E2g"
# frequency_THz = 4.18
# stderr_THz = 0.1
# temperature_K = 295
# displacements = [[1, 0, 0], [-1, 0, 0]]
# A liquid, in its own cell, which is scaled to the density; also kind = "density" and kind = "heat_capacity".
# [[targets]]
# kind = "radial_distribution"
# file = "liquid_gr.csv"          # r_A, g and, if known, stderr
# structure = "liquid.extxyz"     # a snapshot of the liquid to start from; without it, the crystal of the table
# density_g_cm3 = 4.1
# temperature_K = 1973
# sampling.langevin.timestep_fs = 2.0
"""
TABLE_TEMPLATE = """\
# Citation of the measurements
temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa,role
"""


def new(folder: str | Path) -> Path:
    """Write a template of the settings file and of the table into a new folder; returns the settings file.

    Raises FileExistsError rather than replace a file.
    """
    folder, texts = Path(folder), {"study.toml": TEMPLATE, "measured.csv": TABLE_TEMPLATE}
    for name in texts:
        storage.require_new(folder / name, "name another folder")
    for name, text in texts.items():
        storage.write_bytes(folder / name, text.encode())
    return folder / "study.toml"
