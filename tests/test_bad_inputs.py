"""Common mistakes in inputs: each gives one clear error that says what is wrong, where, and what to do about it.

One table. A row makes a bad input in an empty folder and passes it to the public function; all patterns must occur in
the message. Most rows change one thing in a good input, so that the error cannot have another cause.
"""

import gzip
import json
import pickle
import re
import struct
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from archives import npy, paper_arrays, paper_zip, zipped
from argon import FCC, argon
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from fusedff.crystallography import crystals
from fusedff.data import datasets, labelled_frames, splits, titanium_paper
from fusedff.data.validation import frame_checks
from fusedff.interfaces import lammps
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements import experiments, references, state_points
from fusedff.measurements.state_points import StatePoint
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.properties.thermal import elastic, lattice
from fusedff.properties.thermal.elastic import ElasticConfig
from fusedff.properties.thermal.lattice import LatticeConfig
from fusedff.properties.thermal.liquid import LiquidConfig
from fusedff.runtime import storage  # fmt: skip
from fusedff.simulation import cells, langevin
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.simulation.langevin import LangevinConfig
from fusedff.study import presets, run_folder
from fusedff.training import difftre, force_matching, label_errors, loop
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig, SamplingConfig
from fusedff.training.optimizers import Adam, GaussNewton
from fusedff.units import GPA

KJ_MOL, HARTREE, BOHR = 1 / (ase.units.kJ / ase.units.mol), 1 / ase.units.Hartree, 1 / ase.units.Bohr


class Bad(NamedTuple):
    name: str
    make: Callable  # folder -> what `read` is called with
    read: Callable
    says: tuple[str, ...]  # patterns that all occur in the message: what, where, value, remedy
    error: type[Exception] = ValueError


# ---- frames ----


@cache
def titanium():
    # a fixed number, so that halves of a file stay what they are when the data grow
    return [frame for frame in datasets.load_frames() if labelled_frames.use_virial(frame)][:203]


def spoiled(frame: Atoms, energy=1.0, forces=1.0, stress=1.0, lengths=1.0, transposed=False) -> Atoms:
    """A frame with its labels, or its lengths, multiplied: as if they were in another unit."""
    labels, frame = labelled_frames.labels(frame), frame.copy()
    frame.set_cell(frame.cell.array * lengths, scale_atoms=True)
    if transposed:
        frame.set_cell(frame.cell.array.T)
    frame.calc = SinglePointCalculator(
        frame, energy=labels.energy * energy, forces=labels.forces * forces, stress=labels.stress * stress
    )
    return frame


def named(frame: Atoms, config_id: str) -> Atoms:
    frame = spoiled(frame)
    frame.info["config_id"] = config_id
    return frame


def a_file(frames, folder: Path) -> Path:
    write(folder / "ti.extxyz", list(frames), format="extxyz")
    return folder / "ti.extxyz"


def relabelled(change, frames=slice(None)):
    """A good file whose labels `change` has replaced, frame by frame."""

    def make(folder):
        changed = [spoiled(frame) for frame in titanium()[frames]]
        for frame in changed:
            change(frame.calc.results)
        return a_file(changed, folder)

    return make


def second_half(**factors):
    """A file put together from two sources, one of them in another unit."""
    half = len(titanium()) // 2
    return lambda folder: a_file([*titanium()[:half], *(spoiled(f, **factors) for f in titanium()[half:])], folder)


def backwards(results):
    """Forces of the same atoms in another order."""
    results["forces"] = results["forces"][::-1]


def everywhere(**factors):
    """All frames in another unit."""
    return lambda folder: a_file((spoiled(frame, **factors) for frame in titanium()), folder)


def in_one(i=60, **factors):
    """One frame of a good file in another unit."""
    return lambda folder: a_file(
        (spoiled(frame, **factors) if n == i else frame for n, frame in enumerate(titanium())), folder
    )


def good_frame(symbols="Ti") -> Atoms:
    atoms = bulk("Ti", "hcp", a=2.95, c=4.68)
    atoms.symbols[:] = symbols
    atoms.calc = SinglePointCalculator(atoms, energy=-13.0, forces=np.full((2, 3), 0.1), stress=np.full(6, 0.01))
    return atoms


def one_of_three(change):
    """A good frame, one that `change` has spoiled, a good frame."""

    def make(folder):
        frames = [good_frame() for _ in range(3)]
        for n, frame in enumerate(frames):
            frame.positions += 0.01 * n  # not the same frame three times
        change(frames[1])
        return a_file(frames, folder)

    return make


def labels(**changes):
    """Labels replaced, or removed where None."""

    def change(atoms):
        atoms.calc.results = {k: v for k, v in {**atoms.calc.results, **changes}.items() if v is not None}

    return one_of_three(change)


def force(value):
    return labels(forces=np.array([[0.0, 0, 0], [0, value, 0]]))


def cell(matrix):
    return one_of_three(lambda atoms: atoms.set_cell(np.array(matrix) @ atoms.cell.array))


def position(atom, value):
    return one_of_three(lambda atoms: atoms.positions.__setitem__(atom, value))


def text(edit, frames=3):
    """The text of a good file, edited."""

    def make(folder):
        path = a_file([spoiled(frame) for frame in titanium()[54 : 54 + frames]], folder)
        path.write_text(edit(path.read_text()))
        return path

    return make


def is_frame(folder, change=lambda atoms: None):
    """A frame in memory, not checked by any file reader."""
    atoms = good_frame()
    change(atoms)
    return atoms


def fixed(atoms):
    """Labels that `get_forces` gave, which sets forces on fixed atoms to 0."""
    atoms.set_constraint(FixAtoms([1]))
    atoms.calc.results["forces"] = atoms.get_forces()


def written(path: Path) -> Path:
    """A good frame in the format of the file's suffix."""
    write(path, good_frame())
    return path


def create(reference, **settings):
    return Potential.create(jax.random.PRNGKey(0), LennardJones(7.0), reference, **settings)


FRAME = r"^ti\.extxyz, frame 1 \(ti\.extxyz#1\): "
load = datasets.load_frames

FRAMES = [
    Bad("file missing", lambda d: d / "ti.extxyz", load, (r"ti\.extxyz does not exist", "give the path"), OSError),
    Bad("file empty", text(lambda t: ""), load, (r"^ti\.extxyz", "no frames", "at least one")),
    Bad("cut inside a number", text(lambda t: t[:-3]), load, (r"^ti\.extxyz", "last line", "cut off the last frame")),
    Bad(
        "cut between lines", text(lambda t: "".join(t.splitlines(True)[:-2])), load,
        (r"^ti\.extxyz, frame 2", "cannot be read", "cut the file off"),
    ),
    Bad(
        "frames run together", text(lambda t: "".join(t.splitlines(True)[:4] + t.splitlines(True)[10:])), load,
        (r"^ti\.extxyz, frame 0", "cannot be read", "repair"),
    ),
    Bad("a binary file", lambda d: _bytes(d / "ti.extxyz", b"\x89HDF\r\n\x1a\n" * 9), load,
        (r"^ti\.extxyz, frame 0", "cannot be read", "extended XYZ")),
    Bad("energy is text", text(lambda t: t.replace("energy=-", "energy=about-", 1)), load,
        (r"^ti\.extxyz, frame 0", "energy is '?about-", "number")),
    Bad("energies in kJ/mol", everywhere(energy=KJ_MOL), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "energies look like kJ/mol", r"divide .*by 96\.485")),
    Bad("energies in Hartree", everywhere(energy=HARTREE), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "energies look like Hartree", r"multiply .*by 27\.211")),
    Bad("forces in kJ/mol/Å", everywhere(forces=KJ_MOL), load,
        (r"^ti\.extxyz, frame", r"forces look like kJ/mol/Å|1 eV/Å = 964\.85", r"divide .*by 96\.485|convert")),
    Bad("forces in eV/nm", everywhere(forces=10), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "forces look like eV/nm", "divide .*by 10")),
    Bad("forces in Hartree/Bohr", everywhere(forces=HARTREE / BOHR), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "forces look like Hartree/Bohr", r"multiply .*by 51\.42")),
    Bad("gradients for forces", everywhere(forces=-1), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "forces", "sign", "multiply .*by -1")),
    Bad("stress in GPa", everywhere(stress=1 / GPA), load,
        (r"^ti\.extxyz, frame", "looks? like GPa", r"160\.2|0\.0062415")),
    Bad("small stresses in GPa", lambda d: a_file((spoiled(f, stress=0.9 / GPA) for f in titanium()[2:5]), d), load,
        (r"^ti\.extxyz, frame", "looks? like GPa", r"160\.2|0\.0062415")),
    Bad("stress ten times too small", everywhere(stress=0.1), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "stress", "10(\\.0)? times", "divide|multiply")),
    Bad("pressure for stress", everywhere(stress=-1), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "stress", "sign", "multiply .*by -1")),
    Bad("all labels in kJ/mol", everywhere(energy=KJ_MOL, forces=KJ_MOL, stress=KJ_MOL), load,
        (r"^ti\.extxyz, frame", "kJ/mol|GPa or kbar|1 eV/Å = 964", "convert|divide")),
    Bad("everything in atomic units",
        everywhere(energy=HARTREE, forces=HARTREE / BOHR, stress=HARTREE / BOHR**3, lengths=BOHR), load,
        (r"^ti\.extxyz, frame \d+", "Å apart", "look like Bohr", r"divide .*by 1\.889")),
    Bad("lengths in nm", everywhere(lengths=0.1), load, (r"^ti\.extxyz, frame 0", "Å apart", "nm", "multiply .*by 10")),
    Bad("lengths in pm", lambda d: a_file((spoiled(f, lengths=100) for f in titanium()[:3]), d), load,
        (r"^ti\.extxyz, frame \d+", "pm", "divide .*by 100")),
    Bad("cells transposed", everywhere(transposed=True), load,
        (r"^ti\.extxyz, frame \d+", "transposed", "rows|row vectors")),
    Bad("one energy in kJ/mol", in_one(energy=KJ_MOL), load,
        (r"^ti\.extxyz, frame 60", "eV per atom", "looks like kJ/mol", r"divide .*by 96\.485")),
    Bad("one energy in Hartree", in_one(energy=HARTREE), load,
        (r"^ti\.extxyz, frame 60", "eV per atom", "looks like Hartree", r"multiply .*by 27\.211")),
    Bad("one frame's forces in kJ/mol/Å", in_one(forces=KJ_MOL), load,
        (r"^ti\.extxyz, frame 60", "kJ/mol", "divide .*by 96|convert")),
    Bad("energies of other references", in_one(energy=9.0), load,
        (r"^ti\.extxyz, frame 60", "eV per atom", "one unit and one reference")),
    Bad("half of the file with gradients for forces", second_half(forces=-1), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "forces", "sign", "multiply .*by -1")),
    Bad("half of the file with energies in kJ/mol", second_half(energy=KJ_MOL), load,
        (r"^ti\.extxyz, frame 101 ", "eV off frame 100 ", "it looks like kJ/mol", r"divide .*by 96\.485")),
    Bad("half of the file with lengths in Bohr", second_half(lengths=BOHR), load,
        (r"^ti\.extxyz, frame \d+ ", "closest atoms are", "look like Bohr", r"divide by 1\.8897")),
    Bad("half of the file with transposed cells", second_half(transposed=True), load,
        (r"^ti\.extxyz, frame \d+ ", "looks transposed", "vectors as rows")),
    Bad("forces ten times too small", everywhere(forces=0.1), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", r"about (9|10)(\.\d)? times too small", "multiply by (9|10)")),
    Bad("one frame in Bohr", in_one(lengths=BOHR), load,
        (r"^ti\.extxyz, frame 60", "closest atoms are", "look like Bohr", r"divide by 1\.8897")),
    Bad("forces of other atoms", relabelled(backwards), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "by forces and stresses it should", "in the order of the atoms")),
    Bad("forces never computed", relabelled(lambda r: r.update(forces=0 * r["forces"])), load,
        (r"^ti\.extxyz, frame \d+ .* to frame \d+", "by forces and stresses it should", "give labels of one")),
    Bad("energies never computed", relabelled(lambda r: r.update(energy=0.0), slice(54, 57)), load,
        (r"^ti\.extxyz, frame 0", "2 more Ti frames have exactly the same energy", "relabel")),
    Bad("stress never computed", relabelled(lambda r: r.update(stress=np.zeros(6)), slice(60, 63)), load,
        (r"^ti\.extxyz, frame 0", "stress is exactly 0 though forces are not", "remove it")),
    Bad("forces under another name", text(lambda t: t.replace(":forces:", ":REF_forces:")), load,
        (r"^ti\.extxyz, frame 0", "forces are missing", "there is `REF_forces`", "write them as `forces`")),
    Bad("energy under another name", text(lambda t: t.replace(" energy=", " dft_energy=")), load,
        (r"^ti\.extxyz, frame 0", "energy is missing", "there is `dft_energy`", "write it as `energy=`")),
    Bad("energy overflowed", text(lambda t: re.sub(r"energy=\S+", "energy=********", t)), load,
        (r"^ti\.extxyz, frame 0", r"energy is '\*{8}'", "number")),
    Bad("no lattice in the file", text(lambda t: re.sub(r'Lattice="[^"]*" ', "", t)), load,
        (r"^ti\.extxyz, frame 0", "no volume", "Lattice")),
    Bad("not periodic in the file", text(lambda t: t.replace('pbc="T T T"', 'pbc="F F F"')), load,
        (r"^ti\.extxyz, frame 0", r"\[False, False, False\]", "set pbc to T T T")),
    Bad("element X", text(lambda t: t.replace("\nTi", "\nX ")), load,
        (r"^ti\.extxyz, frame 0", "atom 0 is of element 'X'", "chemical symbol")),
    Bad("compressed", lambda d: _bytes(d / "ti.extxyz", gzip.compress(b"2\n")), load,
        (r"^ti\.extxyz is compressed", "plain text")),
    Bad("an ASE trajectory", lambda d: written(d / "ti.traj"), load,
        (r"^ti\.traj is an ASE trajectory, which `fusedff convert`",)),
    Bad("an ASE database", lambda d: written(d / "ti.db"), load,
        (r"^ti\.db is an ASE database, of which `ase convert",)),
    Bad("UTF-16", lambda d: _bytes(d / "ti.extxyz", "2\n".encode("utf-16")), load,
        (r"^ti\.extxyz is UTF-16", "plain text, UTF-8")),
    Bad("a byte-order mark", lambda d: _bytes(d / "ti.extxyz", b"\xef\xbb\xbf2\n"), load,
        (r"^ti\.extxyz is UTF-8 with a byte-order mark", "without")),
    Bad("a folder", lambda d: d, load, ("is a folder", "give the path of an extended-XYZ file"), OSError),
    Bad("stress that is not symmetric", lambda d: is_frame(d, lambda a: a.calc.results.update(
        stress=np.arange(9.0).reshape(3, 3) / 1000)), partial(frame_checks.check_frame, where="frame 7"),
        ("^frame 7: ", "not symmetric", "0.004", "give xx xy xz")),
    Bad("forces of text", lambda d: is_frame(d, lambda a: a.calc.results.update(forces=[["a", "b", "c"]] * 2)),
        partial(frame_checks.check_frame, where="frame 7"), ("^frame 7: ", "forces hold something", "relabel")),
    Bad("same frame twice", lambda d: a_file([*titanium()[:5], named(titanium()[2], "new")], d), load,
        (r"^ti\.extxyz, frame 5", "same atoms as frame 2", "drop")),
    Bad("same id twice",
        lambda d: a_file([*titanium()[1:4], named(titanium()[4], titanium()[1].info["config_id"])], d), load,
        (r"^ti\.extxyz, frame 3 \(hcp-eos", "config_id is that of frame 0", "drop the duplicate")),
    Bad("an id of several numbers, twice",
        lambda d: a_file([named(frame, np.arange(2)) for frame in titanium()[1:4]], d), load,
        (r"^ti\.extxyz, frame 1 \(\[0 1\]\)", "config_id is that of frame 0", "drop the duplicate")),
    Bad("force nan", force(np.nan), load, (FRAME, "force on atom 1 is nan", "drop the frame or relabel it")),
    Bad("force inf", force(np.inf), load, (FRAME, "force on atom 1 is inf", "drop the frame or relabel it")),
    Bad("one force in kJ/mol/nm", force(964.85), load, (FRAME, r"force on atom 1 is 964\.85", "convert it to eV/Å")),
    Bad("forces missing", labels(forces=None), load, (FRAME, "forces are missing", "write them")),
    Bad("a potential for an unknown element", lambda d: {"ti": 0.0}, create,
        ("chemical symbol 'ti' of a reference energy is unknown", "like 'Ti'")),
    Bad("a reference energy of nan", lambda d: {"Ti": np.nan}, create, ("nan", "finite energy for each element")),
    Bad("a scale of zero", lambda d: {"Ti": 0.0}, partial(create, scale=0), ("scale 0 eV", "positive scale")),
    Bad("weights of 0", lambda d: 0.0, lambda w: ForceMatchingConfig(energy_weight=w, force_weight=w, virial_weight=w),
        ("ForceMatchingConfig", "all three weights are 0", "raise one")),
    Bad("forces that a constraint has set to 0", lambda d: is_frame(d, fixed), frame_checks.check_labels,
        ("forces on the fixed atoms are exactly 0", "apply_constraint=False", "remove the constraint")),
    Bad("forces of another frame", lambda d: is_frame(d, lambda a: a.calc.results.update(forces=np.zeros((3, 3)))),
        partial(frame_checks.check_frame, where="frame 7"), ("^frame 7: ", r"\(3, 3\) for 2 atoms", "relabel")),
    Bad("energy missing", labels(energy=None), load, (FRAME, "energy is missing", "write it as `energy=`")),
    Bad("energy nan", labels(energy=np.nan), load, (FRAME, "energy is nan", "relabel")),
    Bad("energy absurd", labels(energy=-1e9), load, (FRAME, r"-5e\+08 eV per atom", "convert it to eV")),
    Bad("stress nan", labels(stress=np.array([0.0, 0, np.nan, 0, 0, 0])), load, (FRAME, "nan", "remove it")),
    Bad("one stress in GPa", labels(stress=np.full(6, -3.2)), load, (FRAME, r"3\.2", "looks like GPa", "convert it")),
    Bad("stress of 4 numbers", lambda d: is_frame(d, lambda a: a.calc.results.update(stress=np.zeros(4))),
        partial(frame_checks.check_frame, where="frame 7"), ("^frame 7: ", r"\(4,\)", "xx yy zz yz xz xy")),
    Bad("virial for stress",
        one_of_three(lambda a: (a.calc.results.pop("stress"), a.info.update(virial=np.eye(3)))), load,
        (FRAME, "`virial` but no stress", "-virial / volume")),
    Bad("flat cell", cell([[1, 0, 0], [1, 0, 0], [0, 0, 1]]), load, (FRAME, "no volume", "independent vectors")),
    Bad("left-handed cell", cell([[0, 1, 0], [1, 0, 0], [0, 0, 1]]), load, (FRAME, "left-handed", "exchange two")),
    Bad("cell nan", lambda d: is_frame(d, lambda a: a.set_cell(np.diag([np.nan, 3, 3]))),
        partial(frame_checks.check_frame, where="frame 7"), ("^frame 7: ", "cell is not finite", "repair")),
    Bad("no cell", one_of_three(lambda a: a.set_cell(np.zeros((3, 3)))), load,
        (FRAME, "no volume|periodic", "give|set")),
    Bad("slab", one_of_three(lambda a: a.set_pbc([1, 1, 0])), load, (FRAME, r"\[True, True, False\]", "set pbc")),
    Bad("position nan", position((1, 2), np.nan), load, (FRAME, "position of atom 1 is nan", "repair")),
    Bad("atoms on top of each other", position(1, [0.11, 0.01, 0.01]), load,
        (FRAME, "atoms 0 and 1", r"0\.1\d\d Å apart", "drop the frame")),
    Bad("atom on an image", one_of_three(lambda a: a.positions.__setitem__(1, a.cell.array.sum(0) + [0, 0, -0.19])),
        load, (FRAME, r"0\.2\d* Å apart|0\.1\d* Å apart", "images", "drop the frame")),
    Bad("no atoms", lambda d: is_frame(d, lambda a: a.__delitem__([0, 1])),
        partial(frame_checks.check_frame, where="frame 7"), ("^frame 7: ", "no atoms", "drop the frame")),
]  # fmt: skip


# ---- frames and models that do not fit ----

TINY = DimeNet(
    cutoff=4.2, embedding=8, blocks=1, radial=4, spherical=3, interaction=4, basis=4, type_embedding=4, output=8,
    output_layers=1, layers_before_skip=1, layers_after_skip=1,
)  # fmt: skip


@cache
def model():
    made = Potential.create(jax.random.key(0), TINY, {"Ti": -5.0})
    return made.with_params(jax.tree.map(lambda x: x.astype(jnp.float32), made.params))


def alloyed(folder):
    return [good_frame(), good_frame(["Ti", "Al"])]


def match(training, validation=None):
    settings = ForceMatchingConfig(epochs=1, batch=2)
    return force_matching.train(model(), training, validation or [good_frame()], settings)


def unlabelled(folder):
    return [good_frame(), bulk("Ti", "hcp", a=2.95, c=4.68)]


FITS = [
    Bad("train on an unknown element", alloyed, match, ("frame 1", "knows Ti but not Al", "train one on frames")),
    Bad("validate on an unknown element", alloyed, lambda f: match([good_frame()], f),
        ("frame 1", "knows Ti but not Al", "train one on frames")),
    Bad("test on an unknown element", alloyed, lambda f: label_errors.errors(model(), f),
        ("frame 1", "knows Ti but not Al", "train one on frames")),
    Bad("train on frames without labels", unlabelled, match, ("frame 1", "energy is missing", "drop the frame")),
    Bad("train on nothing", lambda d: [], match, ("no frames", "at least one")),
    Bad("fit references to nothing", lambda d: [], datasets.fit_reference_energies, ("no frames", "at least one")),
    Bad("a split that leaves nothing", lambda d: [good_frame()], partial(splits.split, validation=0.5, test=0.5),
        ("validation = 0.5 and test = 0.5", "no training frames", "lower")),
]  # fmt: skip


# ---- measured tables ----

HEADER = "temperature_K,a_A,c_A,C11_GPa,C12_GPa,C13_GPa,C33_GPa,C44_GPa,role"
ROW = "323,2.95125,4.67942,160.9,92.5,69.1,179.5,46.2,train"
CONSTANTS = (160.9, 92.5, 69.1, 179.5, 46.2)


def table(*lines):
    return lambda folder: _text(folder / "mine.csv", "\n".join(lines) + "\n")


def row(old="", new="", header=HEADER):
    return table(header, ROW.replace(old, new))


def constants(factor):
    values = ",".join(f"{c * factor:.10g}" for c in CONSTANTS)
    return table(HEADER, f"323,2.95125,4.67942,{values},train")


measured = partial(experiments.load_state_points, symbol="Ti")


def titanium_point(elastic, **settings):
    return StatePoint(300.0, crystals.Crystal("Ti", "hcp", 2.95, 4.68), elastic, **settings)


LINE = r"^mine\.csv, line 2: "

TABLES = [
    Bad("table missing", lambda d: d / "mine.csv", measured, (r"mine\.csv does not exist", "give the path"), OSError),
    Bad("table empty", table("# only a comment"), measured, (r"^mine\.csv", "empty", "header line")),
    Bad("no rows", table(HEADER), measured, (r"^mine\.csv", "no rows", "at least one")),
    Bad("a spreadsheet", lambda d: _bytes(d / "mine.csv", b"PK\x03\x04\xff\xfe"), measured,
        (r"^mine\.csv", "not text", "UTF-8")),
    Bad("missing column", row(header=HEADER.replace("c_A,", "")), measured,
        (r"^mine\.csv, line 1", "missing column 'c_A'", "a table for hcp has")),
    Bad("unknown column", table(HEADER + ",C66_GPa", ROW + ",34"), measured,
        (r"^mine\.csv, line 1", "unknown column 'C66_GPa'", "a table for hcp has")),
    Bad("repeated column", row(header=HEADER.replace("C12", "C11")), measured,
        (r"^mine\.csv, line 1", "repeated column 'C11_GPa'", "a table for hcp has")),
    Bad("hcp table for fcc", row(), partial(measured, symbol="Al", structure="fcc"),
        (r"^mine\.csv, line 1", "unknown column 'c_A'", "a table for fcc has")),
    Bad("unknown element", row(), partial(measured, symbol="Xx"), ("'Xx' is unknown", "write it like")),
    Bad("unknown structure", row(), partial(measured, structure="dhcp"), ("'dhcp' is unknown", "use one of")),
    Bad("short row", table(HEADER, ROW.rpartition(",")[0]), measured, (LINE, "8 cells under 9", "complete the row")),
    Bad("text for a number", row("92.5", "n/a"), measured, (LINE, "C12_GPa is 'n/a'", "or drop the row")),
    Bad("decimal comma", table(HEADER.replace(",", ";"), ROW.replace(".", ",").replace(",", ";")), measured,
        (r"^mine\.csv, line 1", "semicolons", "decimal points")),
    Bad("a table of semicolons", table(HEADER.replace(",", ";"), ROW.replace(",", ";")), measured,
        (r"^mine\.csv, line 1", "separated by semicolons", "separate them by commas")),
    Bad("a table of tabs", table(HEADER.replace(",", "\t"), ROW.replace(",", "\t")), measured,
        (r"^mine\.csv, line 1", "separated by tabs", "separate them by commas")),
    Bad("a decimal comma in quotes", row("92.5", '"92,5"'), measured, (LINE, "C12_GPa is '92,5'", "or drop the row")),
    Bad("an unbalanced quote", table(HEADER, ROW.replace("92.5", '"92.5'), ROW), measured,
        (LINE, "quotation mark is out of place", "correct the row")),
    Bad("a quote in a number", row("92.5", '"92"5'), measured, (LINE, "quotation mark", "correct the row")),
    Bad("a compound", row(), partial(measured, symbol="TiN"), ("'TiN' is a compound", "one element")),
    Bad("a digit group", row("92.5", "92_5"), measured, (LINE, "C12_GPa is '92_5'", "or drop the row")),
    Bad("a folder for a table", lambda d: d, measured, ("is a folder", "give the path of a CSV table"), OSError),
    Bad("nan", row("92.5", "nan"), measured, (LINE, "C12_GPa is nan", "or drop the row")),
    Bad("infinite lattice", row("2.95125", "inf"), measured, (LINE, "a_A is inf", "or drop the row")),
    Bad("temperature 0", row("323", "0"), measured, (LINE, "temperature_K is 0", "must be positive")),
    Bad("temperature in Celsius", row("323", "-50"), measured, (LINE, "temperature_K is -50", "must be positive")),
    Bad("temperature in mK", row("323", "323000"), measured, (LINE, "temperature_K is 323000", "give Kelvin|mK")),
    Bad("repeated temperature", table(HEADER, ROW, ROW), measured,
        (r"^mine\.csv, line 3", "323 K is on line 2 too", "keep one")),
    Bad("a temperature repeated to rounding", table(HEADER, ROW, ROW.replace("323", "323.0001")), measured,
        (r"^mine\.csv, line 3", "323 K is on line 2 too", "keep one")),
    Bad("lattice zero", row("4.67942", "0"), measured, (LINE, "c_A is 0", "must be positive")),
    Bad("lattice in nm", row("2.95125,4.67942", "0.295125,0.467942"), measured,
        (LINE, r"a = 0\.295", "looks? like nm", "multiply .*by 10")),
    Bad("lattice in pm", row("2.95125,4.67942", "295.125,467.942"), measured,
        (LINE, r"a = 295\.125", "looks? like pm", "divide .*by 100")),
    Bad("lattice in Bohr", row("2.95125,4.67942", "5.577,8.843"), measured,
        (LINE, r"a = 5\.577", "looks? like Bohr", r"divide .*by 1\.889")),
    Bad("a and c exchanged", row("2.95125,4.67942", "4.67942,2.95125"), measured, (LINE, r"c/a = 0\.631", "swapped")),
    *(
        Bad(f"elastic constants in {unit}", constants(factor), measured, (LINE, r"C11 = 1\.?6", f"like {name}", remedy))
        for unit, factor, name, remedy in (
            ("Pa", 1e9, "Pa", "divide .*by 1e\\+09"),
            ("bar", 1e4, "bar", "divide .*by 10000"),
            ("MPa", 1e3, "MPa", "divide .*by 1000"),
            ("kbar", 10, "kbar", "divide .*by 10"),
            ("Mbar", 0.01, "(units of 100 GPa|Mbar)", "multiply .*by 100"),
            ("Mbar, as in the paper's file", 0.01, "units of 100 GPa", "multiply .*by 100"),
        )
    ),
    Bad("elastic constants in eV/Å^3", constants(GPA), measured, (LINE, "C11 = 1.004", "eV/Å", "multiply")),
    Bad("wrong sign", row("160.9", "-160.9"), measured, (LINE, r"C11 = -160\.9", "unstable", "check the values")),
    Bad("C11 below C12", row("92.5", "170"), measured, (LINE, "C12 = 170", "unstable", "order of the columns")),
    Bad("C44 negative", row("46.2", "-46.2"), measured, (LINE, r"C44 = -46\.2", "unstable", "check the values")),
    Bad("2 C13^2 above C33 (C11 + C12)", row("69.1", "155"), measured, (LINE, "C13 = 155", "unstable", "columns")),
    Bad("an error without its constant", table(HEADER + ",C12_stderr_GPa", ROW.replace("92.5", "") + ",0.5"), measured,
        (LINE, "C12_stderr_GPa stands without C12_GPa", "both or neither")),
    Bad("an error of zero", table(HEADER + ",C12_stderr_GPa", ROW + ",0"), measured,
        (LINE, "C12_stderr_GPa is 0", "must be positive")),
    Bad("some constants, unstable", table(HEADER, ROW.replace("46.2", "").replace("92.5", "170")), measured,
        (LINE, "C12 = 170", "unstable", "check the values")),
    Bad("unknown role", row("train", "test"), measured, (LINE, "role 'test' is unknown", "train, held-out")),
    Bad("pressure in Pa", table(HEADER + ",pressure_GPa", ROW + ",101325"), measured,
        (LINE, "pressure_GPa is 101325", "Pa", "give GPa|divide")),
    Bad("pressure in kbar", table(HEADER + ",pressure_GPa", ROW + ",100"), measured,
        (LINE, "pressure_GPa is 100 where C11 is 160.9", "no crystal bears", "kbar")),
    Bad("pressure with the sign of stress", table(HEADER + ",pressure_GPa", ROW + ",-20"), measured,
        (LINE, "pressure_GPa is -20 where C11 is 160.9", "positive in compression")),
    Bad("no such temperature", lambda d: measured(), partial(state_points.select, temperatures=[300]),
        ("no state point at 300 K", "the table has 4, 23, 73")),
    Bad("no such role", lambda d: measured(), partial(state_points.select, role="test"),
        ("role 'test' is unknown", "train, held-out")),
    Bad("a state point with constants in GPa", lambda d: {"C11": 160.9}, titanium_point,
        (r"elastic = .*160\.9", "eV/Å", r"multiply GPa by fusedff\.units\.GPA")),
    Bad("a state point with a constant it lacks", lambda d: {"c11": 1.0}, titanium_point,
        ("c11 is none of the constants C11, C12, C13, C33, C44",)),
    Bad("a state point with an error of zero", lambda d: {"C11": 1.0},
        lambda elastic: titanium_point(elastic, elastic_stderr={"C11": 0.0}), ("elastic_stderr", "positive")),
    Bad("a state point with an error alone", lambda d: {"C11": 1.0},
        lambda elastic: titanium_point(elastic, elastic_stderr={"C12": 0.1}), ("C12 has no constant", "or neither")),
    Bad("a state point with its pressure in GPa", lambda d: 6.0, lambda p: titanium_point({}, pressure=p),
        ("pressure = 6", r"multiply GPa by fusedff\.units\.GPA")),
    Bad("a state point with an unknown role", lambda d: "test", lambda role: titanium_point({}, role=role),
        ("role = 'test'", "train, held-out")),
    Bad("state points of two crystals",
        lambda d: [StatePoint(10.0, FCC), StatePoint(10.0, crystals.Crystal("Al", "fcc", 4.05))],
        lambda points: elastic.run(argon(), points, ElasticConfig()), ("different crystals", "Al", "apart")),
    Bad("lattice constants at a pressure in GPa", lambda d: 5.0,
        lambda pressure: lattice.run(argon(), FCC, [20.0], LatticeConfig(), pressure),
        ("pressure = 5", r"multiply GPa by fusedff\.units\.GPA")),
    Bad("two state points at one temperature", lambda d: [StatePoint(10.0, FCC), StatePoint(10.0, FCC, pressure=0.01)],
        lambda points: elastic.run(argon(), points, ElasticConfig()), ("two state points at 10 K", "keep one")),
    Bad("no state points", lambda d: [], lambda points: elastic.run(argon(), points, ElasticConfig()),
        ("no state points", "at least one")),
    Bad("no state points to learn from", lambda d: [], lambda points: difftre.train(argon(), points, DiffTReConfig()),
        ("no state points", "at least one")),
]  # fmt: skip

CITED = "material,phase,quantity,temperature_K,value,unit,uncertainty,kind,confirmed,source"
CITATION = "Ti,hcp,a,298,2.951,Å,0.001,experiment,no,somebody (1950)"


def cited(old="", new="", header=CITED):
    return table(header, CITATION.replace(old, new))


REFERENCES = [
    Bad("references: another column", cited(header=CITED.replace("unit", "units")), references.load,
        (r"^mine\.csv, line 1", "units", "give material")),
    Bad("references: short row", table(CITED, CITATION.rpartition(",")[0]), references.load,
        (LINE, "9 cells under 10")),
    Bad("references: text", cited("2.951", "about 3"), references.load,
        (LINE, "value is 'about 3'", "or drop the row")),
    Bad("references: nan", cited("2.951", "nan"), references.load, (LINE, "not finite", "or drop the row")),
    Bad("references: Celsius", cited("298", "-20"), references.load, (LINE, "temperature_K is -20", "not Celsius")),
    Bad("references: no error", cited("0.001", "0"), references.load, (LINE, "uncertainty is 0", "positive")),
    Bad("references: kind", cited("experiment", "EAM"), references.load, (LINE, "'EAM'", "experiment, DFT")),
    Bad("references: confirmed", cited(",no,", ",maybe,"), references.load, (LINE, "'maybe'", "yes, no")),
    Bad("references: no source", cited("somebody (1950)", ""), references.load,
        (LINE, "source is empty", "fill it in")),
    Bad("references: two units", table(CITED, CITATION, CITATION.replace("Å", "nm").replace("298", "4")),
        references.load, (r"^mine\.csv, line 3", "in nm, on line 2 in Å", "use one")),
    Bad("references: twice", table(CITED, CITATION, CITATION), references.load,
        (r"^mine\.csv, line 3", "repeats line 2", "keep one")),
]  # fmt: skip


# ---- settings ----


def setting(kind, name, value, *says):
    """A number that cannot be meant, or a name that does not exist."""
    of = getattr(kind, "func", kind).__name__
    return Bad(
        f"{of}({name}={value})", lambda d: {name: value}, lambda changes: kind(**changes),
        (of, re.escape(f"{name} = {value!r}"), *says),
    )  # fmt: skip


COUNT, POSITIVE, NOT_NEGATIVE = "a whole number from 1 on", "a number above 0", "0 or a number above"

SEEDED = (ForceMatchingConfig, DiffTReConfig, ElasticConfig)
SETTINGS = [
    Bad("unknown preset", lambda d: "huge", presets.get, ("'huge' is unknown", "use one of smoke, demo")),
    *(
        Bad(f"{kind.__name__}: unknown name", lambda d: {"epoch": 3}, lambda changes, kind=kind: kind(**changes),
            (kind.__name__, "epoch"), TypeError)
        for kind in (ForceMatchingConfig, DiffTReConfig, FusedConfig, ElasticConfig, LangevinConfig)
    ),
    setting(ForceMatchingConfig, "epochs", 0, COUNT),
    setting(ForceMatchingConfig, "batch", 0, COUNT),
    setting(ForceMatchingConfig, "batch", 2.5, COUNT),
    setting(ForceMatchingConfig, "learning_rate", -0.001, POSITIVE),
    setting(ForceMatchingConfig, "learning_rate", float("nan"), POSITIVE),
    setting(ForceMatchingConfig, "final_learning_rate", 0, POSITIVE),
    setting(ForceMatchingConfig, "energy_weight", -1, NOT_NEGATIVE),
    setting(ForceMatchingConfig, "force_weight", -1, NOT_NEGATIVE),
    setting(ForceMatchingConfig, "virial_weight", -1, NOT_NEGATIVE),
    setting(ForceMatchingConfig, "patience", 0, COUNT),
    setting(ForceMatchingConfig, "optimizer", "sgd", "adam", "muon"),
    setting(DiffTReConfig, "updates", 0, COUNT),
    setting(Adam, "learning_rate", -1, POSITIVE),
    setting(GaussNewton, "relaxation", 2.0, "a whole step is 1"),
    setting(GaussNewton, "damping", 0, POSITIVE),
    setting(DiffTReConfig, "elastic_weight", -1, NOT_NEGATIVE),
    setting(DiffTReConfig, "stress_weight", -1, NOT_NEGATIVE),
    setting(DiffTReConfig, "replicas", 0, COUNT),
    setting(SamplingConfig, "snapshots", 0, COUNT),
    setting(SamplingConfig, "equilibration", -1, "a whole number from 0 on"),
    setting(Adam, "b1", 1.5, "below 1"),
    setting(FusedConfig, "epochs", 0, COUNT),
    setting(FusedConfig, "experiment_updates", 0, COUNT),
    Bad(
        "Fused: order",
        lambda d: ("dft",),
        lambda order: FusedConfig(order=order),
        (r"order = \('dft',\)", "once each"),
    ),
    setting(LangevinConfig, "timestep_fs", 0, POSITIVE),
    setting(LangevinConfig, "timestep_fs", -1, POSITIVE),
    setting(LangevinConfig, "timestep_fs", 5000, "femtoseconds"),
    setting(LangevinConfig, "timestep_fs", 5e-16, "fs"),
    setting(LangevinConfig, "friction_per_ps", -1, NOT_NEGATIVE),
    setting(LangevinConfig, "steps_per_snapshot", 0, COUNT),
    setting(LangevinConfig, "skin", -1, NOT_NEGATIVE),
    setting(ElasticConfig, "replicas", 0, COUNT),
    setting(ElasticConfig, "snapshots", 0, COUNT),
    setting(ElasticConfig, "blocks", 1, "2"),
    setting(ElasticConfig, "blocks", 701, "700 snapshots cannot be cut into more"),  # at once, not after the run
    setting(LatticeConfig, "approach", 9, "cut into `blocks` blocks"),
    setting(LatticeConfig, "passes", 0, COUNT),
    setting(LiquidConfig, "melting_factor", -1, POSITIVE),
    setting(CoupledStrains, "strain", 0, POSITIVE),
    setting(partial(StatePoint, crystal=FCC), "temperature", 0, POSITIVE),
    setting(CoupledStrains, "strain", 1.0, "0.1"),
    setting(DimeNet, "cutoff", -5.0, POSITIVE),
    setting(DimeNet, "blocks", -1, "a whole number from 0 on"),
    setting(LennardJones, "cutoff", 0, POSITIVE),
    *(setting(kind, "seed", seed, "whole number from 0 on") for kind in SEEDED for seed in (-1, 0.5, "a")),
    *(setting(kind, "seed", 2**32, "4294967295 at most") for kind in SEEDED),
    *(setting(kind, "repeats", wrong, "three whole numbers from 1 on")
      for kind in (DiffTReConfig, ElasticConfig) for wrong in (2, "333", (3, 3), (3, 3, 0), ([3], 3, 3))),
    *(setting(ForceMatchingConfig, "source_weights", wrong, r"\(source, weight\) pairs")
      for wrong in (("vasp",), (("vasp", "2"),), ((1, 2, 3),))),
    Bad("repeats 0", lambda d: (0, 1, 1), partial(crystals.supercell, FCC),
        (r"repeats = \(0, 1, 1\)", "positive whole")),
]  # fmt: skip


# ---- files of parameters ----


def stored(damage):
    """A saved potential, then damaged."""

    def make(folder):
        path = folder / "hurt.safetensors"
        model().save(path, note="of no value")
        damage(path)
        return path

    return make


def header(change):
    """Its JSON header changed, lengths made right, as somebody would who edits it."""

    def damage(path):
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        data = json.loads(content[8 : 8 + size])
        change(data)
        changed = json.dumps(data).encode()
        path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + size :])

    return stored(damage)


def config(keep_sum=False, **changes):
    """The description of the model changed, with or without the checksum."""

    def change(data):
        described = json.loads(data["__metadata__"]["potential"])
        for name, value in changes.items():
            place = described["settings"] if name in described["settings"] else described
            place[name] = value
        data["__metadata__"]["potential"] = json.dumps(described, sort_keys=True)
        if not keep_sum:
            data["__metadata__"].pop("sha256", None)

    return header(change)


def resaved(**changes):
    """A description that does not fit the arrays, under a checksum that is right."""

    def damage(path):
        metadata = storage.read_metadata(path)
        metadata["potential"]["settings"] |= changes
        storage.write_tree(path, model().params, metadata)

    return stored(damage)


def flip(path, at=-5):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def with_a_nan(path):
    params = jax.tree.map(lambda x: x, model().params)
    params["output_up"]["w"] = params["output_up"]["w"].at[0, 0].set(jnp.nan)
    model().with_params(params).save(path)


FILE_NAME, FILE = "hurt.safetensors", r"hurt\.safetensors"
DAMAGED = storage.DamagedFileError


def checkpoint(path, settings=None, history=()):
    """What a training has left, or one that kept no history."""
    train_state = loop.TrainState(jnp.zeros(2), ())
    kept = {} if history is None else {"history": list(history), "best_score": 0.0, "stale": 0}
    identity = {"training": "any", "settings": settings or {}, "learned_from": {}}
    storage.write_tree(path, {"train_state": train_state, "best": train_state.params}, identity | kept)
    return path


def resume(path):
    train_state = loop.TrainState(jnp.zeros(2), ())
    return loop.train(
        lambda train_state, n: (train_state, {}), train_state, 1, name="any", settings={}, checkpoint=path
    )


PARAMETERS = [
    Bad("parameters missing", lambda d: d / "hurt.safetensors", Potential.load,
        (FILE, "is neither a file nor", "titanium-fused"), OSError),
    Bad("no such shipped model", lambda d: "titanium-best", Potential.load,
        ("titanium-best is neither", "titanium-fused"), OSError),
    Bad("a folder for parameters", lambda d: d, Potential.load, ("is a folder",), OSError),
    Bad("a folder that cannot be made", lambda d: _bytes(d / "run", b""),
        lambda path: model().save(path / "hurt.safetensors"),
        (rf"cannot write .*run/{FILE}", "what was there is kept", "give a folder that can be written to"), OSError),
    Bad("a checkpoint from before", lambda d: checkpoint(d / FILE_NAME, history=None), resume,
        (FILE, "lacks 'best_score'", "another version of fusedff", "delete it to start again"), DAMAGED),
    Bad("a checkpoint of another training", lambda d: checkpoint(d / FILE_NAME, settings={"epochs": 9}), resume,
        (FILE, "other settings", "epochs", "delete it to start again")),
    Bad("a summary that was cut", lambda d: _bytes(d / "summary.json", b'{"models": {'),
        lambda path: run_folder.RunFolder(path.parent).read(path.name),
        (r"summary\.json is damaged", "`fusedff run --preset .* makes it again"), DAMAGED),
    Bad("parameters cut off", stored(lambda p: p.write_bytes(p.read_bytes()[:-40])), Potential.load,
        (FILE, "damaged", "restore it or train again"), DAMAGED),
    Bad("parameters empty", stored(lambda p: p.write_bytes(b"")), Potential.load,
        (FILE, "damaged", "restore it or train again"), DAMAGED),
    Bad("parameters scribbled over", stored(lambda p: p.write_bytes(b"not a potential" * 20)), Potential.load,
        (FILE, "damaged", "restore it or train again"), DAMAGED),
    Bad("no checksum", header(lambda data: data["__metadata__"].pop("sha256")), Potential.load,
        (FILE, "it has no checksum", "restore it or train again"), DAMAGED),
    Bad("one bit flipped", stored(flip), Potential.load, (FILE, "checksum", "restore it or train again"), DAMAGED),
    Bad("reference energy edited", config(keep_sum=True, reference=[-6.0]), Potential.load,
        (FILE, "checksum", "restore it or train again"), DAMAGED),
    Bad("a pickle", stored(lambda p: p.write_bytes(pickle.dumps({"w": np.zeros(3)}))), Potential.load,
        (FILE, "pickle", "never", "Potential.save"), DAMAGED),
    Bad("a NumPy archive", stored(lambda p: np.savez(p.open("wb"), w=np.zeros(3))), Potential.load,
        (FILE, "zip", "never|not", "Potential.save"), DAMAGED),
    Bad("values not finite", stored(with_a_nan), Potential.load, (FILE, "output_up", "not finite", "restore"), DAMAGED),
    Bad("another width", resaved(embedding=12), Potential.load, (FILE, "has shape", "another architecture"), DAMAGED),
    Bad("another number of blocks", resaved(blocks=2), Potential.load, (FILE, "lacks array", "architecture"), DAMAGED),
    Bad("an unknown model", config(model="Oracle"), Potential.load, (FILE, "Oracle", "train it again"), DAMAGED),
    Bad("an unknown setting", config(settings={"depth": 3}), Potential.load,
        (FILE, "depth", "train it again"), DAMAGED),
    Bad("a setting out of range", config(cutoff=-4.2), Potential.load, (FILE, "cutoff", "train it again"), DAMAGED),
    Bad("a setting of text", config(embedding="8"), Potential.load, (FILE, "embedding", "train it again"), DAMAGED),
    Bad("two references for one species", config(reference=[-5.0, -4.0]), Potential.load,
        (FILE, "reference", "restore it or train"), DAMAGED),
    Bad("reference not finite", config(reference=[float("nan")]), Potential.load,
        (FILE, "reference", "restore it or train"), DAMAGED),
    Bad("no species", config(numbers=[], reference=[]), Potential.load,
        (FILE, r"species \[\]", "restore it or train"), DAMAGED),
    Bad("scale zero", config(scale=0.0), Potential.load, (FILE, "scale", "restore it or train"), DAMAGED),
    Bad("another format", stored(lambda p: storage.write_tree(p, model().params, {"format": "mine"})), Potential.load,
        (FILE, "not a fusedff potential", "Potential.save"), DAMAGED),
    Bad("no metadata", header(lambda data: data.pop("__metadata__")), Potential.load,
        (FILE, "not a fusedff potential", "Potential.save"), DAMAGED),
    Bad("no description", header(lambda data: [data["__metadata__"].pop(k, None) for k in ("potential", "sha256")]),
        Potential.load, (FILE, "potential", "train it again"), DAMAGED),
    Bad("metadata is no JSON", header(lambda data: data["__metadata__"].update(potential="{")), Potential.load,
        (FILE, "damaged", "restore it or train again"), DAMAGED),
    Bad("a species unknown to the model", lambda d: bulk("Al", "fcc", a=4.05),
        lambda atoms: FusedCalculator(model()).get_potential_energy(atoms), ("knows Ti but not Al", "train one")),
]  # fmt: skip


# ---- the paper's archive ----


def archive(change=lambda arrays: arrays, content=lambda whole: whole):
    def make(folder):
        files = {name: npy(array, allow_pickle=True) for name, array in change(paper_arrays()).items()}
        return _bytes(folder / "Data_DFT_and_Exp.zip", content(paper_zip(files)))

    return make


def changed(name, change):
    return archive(lambda arrays: {**arrays, name: change(arrays[name])})


def downloaded(content):
    """Something arrives instead of the published file."""

    def download(url, output_file, pooch):
        Path(output_file).write_bytes(content)

    return lambda folder: titanium_paper.fetch(folder, _downloader=download)


def claims(shape):
    """An array file of a few bytes whose header claims to be huge."""
    small = npy(np.zeros(3))
    return small.replace(b"'shape': (3,), }", b"'shape': %s, }" % shape)[:128] + small[128:]


def with_nan(force):
    force = force.copy()
    force[1, 4] = np.nan
    return force


def bomb(folder):
    files = {name: npy(array) for name, array in paper_arrays().items()}
    files["force.npy"] = bytes(titanium_paper._MAX_MEMBER_BYTES + 1)
    return _bytes(folder / "Data_DFT_and_Exp.zip", zipped(files))


ZIP = r"^Data_DFT_and_Exp\.zip"
unverified = partial(titanium_paper.load, verify=False)
NOT_IT, AGAIN = r"git id \w+ is not the published", "delete it and fetch"

ARCHIVES = [
    Bad("archive missing", lambda d: d / "none.zip", unverified, (r"none\.zip does not exist", "fetch"), OSError),
    Bad("archive altered", archive(), titanium_paper.load, (ZIP, NOT_IT, AGAIN)),
    Bad("archive cut off", archive(content=lambda c: c[:-100]), unverified, (ZIP, "unpacked", AGAIN)),
    Bad("archive cut in half", archive(content=lambda c: c[: len(c) // 2]), unverified, (ZIP, "unpacked", AGAIN)),
    Bad("archive empty", archive(content=lambda c: b""), unverified, (ZIP, "unpacked", AGAIN)),
    Bad("archive overwritten inside", archive(content=lambda c: c[:300] + bytes(60) + c[360:]), unverified,
        (ZIP, AGAIN)),
    Bad("a bomb", bomb, unverified, (ZIP, r"force\.npy", "more than 134217728 bytes", AGAIN)),
    Bad("an array that claims to be huge", lambda d: archive(content=lambda c: zipped(
        {**{n: npy(a) for n, a in paper_arrays().items()}, "force.npy": claims(b"(10**9, 10**9)")}))(d), unverified,
        (ZIP, r"force\.npy", "not a plain numeric array", AGAIN)),
    Bad("unexpected names", archive(lambda a: {n.replace("force", "forces"): v for n, v in a.items()}), unverified,
        (ZIP, "0 folders", r"force\.npy", AGAIN)),
    Bad("missing array", archive(lambda a: {n: v for n, v in a.items() if n != "force.npy"}), unverified,
        (ZIP, "0 folders", r"force\.npy", AGAIN)),
    Bad("two candidates", archive(content=lambda c: zipped(
        {f"{f}/{n}": npy(a) for f in "ab" for n, a in paper_arrays().items()})), unverified, (ZIP, "2 folders", AGAIN)),
    Bad("a pickled array", archive(lambda a: {**a, "energy.npy": np.array([None, {}, 1, 2], dtype=object)}), unverified,
        (ZIP, r"energy\.npy", "not a plain numeric array", AGAIN)),
    Bad("text for numbers", archive(lambda a: {**a, "types.npy": np.array(["Init"] * 4)}), unverified,
        (ZIP, r"types\.npy", "not an array of numbers", AGAIN)),
    Bad("one frame less", changed("box.npy", lambda a: a[:3]), unverified,
        (ZIP, r"box\.npy: 3 frames", r"energy\.npy has 4", AGAIN)),
    Bad("box of 3 numbers", changed("box.npy", lambda a: a[:, :3]), unverified,
        (ZIP, r"box\.npy: shape \(4, 3\)", "9 numbers", AGAIN)),
    Bad("forces of fewer atoms", changed("force.npy", lambda a: a[:, :-3]), unverified,
        (ZIP, r"force\.npy: shape \(4, 21\)", "24 numbers", AGAIN)),
    Bad("fractional coordinates", changed("coord.npy", lambda a: a % 1.0), unverified,
        (ZIP, r"coord\.npy", "fractional", "Cartesian coordinates in Å")),
    Bad("boxes in nm", changed("box.npy", lambda a: a / 10), unverified,
        (ZIP, r"frame 0 \(paper-0000\)", "Å\\^3 per atom", "give boxes in Å")),
    Bad("unknown type", archive(lambda a: {**a, "types.npy": np.array([0, 1, 2, 1])}), unverified,
        (ZIP, r"frame 2 \(paper-0002\)", "types is 2", "0 for Init or 1 for Bulk")),
    Bad("archived force nan", changed("force.npy", with_nan), unverified,
        (ZIP, r"frame 1 \(paper-0001\)", "force on atom 1 is nan", "drop")),
    Bad("a page instead of a download", lambda d: d, downloaded(b"<html>not found</html>"),
        (ZIP, "22 bytes", "deleted", "try again")),
    Bad("an empty download", lambda d: d, downloaded(b""), (ZIP, "0 bytes", "deleted", "by hand")),
]  # fmt: skip


# ---- structures, calculators, simulations ----


def argon_cell(**changes):
    atoms = bulk("Ar", "fcc", a=5.27, cubic=True)
    for name, value in changes.items():
        setattr(atoms, name, value)
    return atoms


def moved(atom, place):
    atoms = argon_cell()
    atoms.positions[atom] = place
    return atoms


def energy(atoms):
    return FusedCalculator(argon()).get_potential_energy(atoms)


def simulate(atoms, temperature=50.0):
    ensemble = cells.replicate([atoms], [temperature])
    simulation = langevin.Simulation(ensemble, LangevinConfig(5.0, 1.0, 2, 0.5), argon().cutoff)
    return simulation.run(argon(), langevin.start(ensemble, jax.random.PRNGKey(0)), 1)


class Session:
    """As much of LAMMPS as is asked before anything runs."""

    def __init__(self, units="metal", fixes=(), **settings):
        self.units, self.settings = units, {"world_size": 1, "tag_enable": 1, "ntypes": 1, **settings}
        self.ids = {"fix": list(fixes), "compute": ["thermo_press", *(f"{fix}_press" for fix in fixes)]}

    def extract_global(self, name):
        return self.units

    def extract_setting(self, name):
        return self.settings[name]

    def get_mpi_comm(self):
        return None  # as without mpi4py

    def available_ids(self, category):
        return self.ids[category]


def attach(types, session):
    return lammps.attach(session, argon(), types)


STRUCTURES = [
    Bad("calculator: atoms coincide", lambda d: moved(1, [0, 0, 0]), energy, ("atoms 0 and 1", "0.000 Å apart", "Å")),
    Bad("calculator: atoms overlap", lambda d: moved(1, [0.2, 0, 0]), energy, ("atoms 0 and 1", "0.200 Å apart", "Å")),
    Bad("calculator: position nan", lambda d: moved(1, [np.nan, 0, 0]), energy, ("atom 1", "finite", "timestep")),
    Bad("calculator: flat cell", lambda d: argon_cell(cell=np.diag([5.27, 5.27, 0])), energy,
        ("cell", "volume", "give")),
    Bad("calculator: a name for a potential", lambda d: "titanium-fused", FusedCalculator,
        ("'titanium-fused' is no potential", "fusedff.load"), TypeError),
    Bad("calculator: no atoms", lambda d: Atoms(cell=np.eye(3), pbc=True), energy, ("no atoms", "at least one")),
    Bad("calculator: unknown element", lambda d: bulk("Ne", "fcc", a=4.4), energy,
        ("knows Ar but not Ne", "train one")),
    Bad("calculator: stress of a molecule", lambda d: Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]),
        lambda atoms: FusedCalculator(argon()).get_stress(atoms), ("a volume", "give three vectors"), Exception),
    Bad("dynamics: not periodic", lambda d: argon_cell(pbc=False), simulate, ("frame 0", "periodic", "set pbc")),
    Bad("dynamics: no cell", lambda d: Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), simulate,
        ("frame 0", "periodic", "set pbc")),
    Bad("dynamics: a single atom", lambda d: bulk("Ar", "fcc", a=5.27), simulate,
        ("frame 0", "1 atom", "repeat the cell")),
    Bad("dynamics: atoms overlap", lambda d: moved(1, [0.1, 0, 0]), simulate,
        ("frame 0", "0.100 Å apart", "Å, or drop")),
    Bad("dynamics: temperature 0", lambda d: argon_cell(), partial(simulate, temperature=0.0),
        ("temperature", "0 K", "positive")),
    Bad("dynamics: different atoms", lambda d: [argon_cell(), bulk("Al", "fcc", a=4.05, cubic=True)],
        lambda frames: cells.replicate(frames, [10, 10]), ("frame 1", "other atoms", "apart")),
    Bad("dynamics: temperatures missing", lambda d: [argon_cell()] * 2,
        lambda frames: cells.replicate(frames, [10]), ("2 frames and 1 temperatures", "one temperature per frame")),
    Bad("crystal: length negative", lambda d: -2.9, partial(crystals.Crystal, "Ar", "fcc"), ("a = -2.9", "in Å")),
    Bad("crystal: hcp without c", lambda d: 2.9, partial(crystals.Crystal, "Ti", "hcp"), ("parameters a, c", "give c")),
    Bad("LAMMPS: other units", lambda d: Session("lj"), partial(attach, {1: "Ar"}), ("units lj", "`units metal`")),
    Bad("LAMMPS: several processes without mpi4py", lambda d: Session(world_size=4), partial(attach, {1: "Ar"}),
        ("4 MPI processes", "pip install"), ImportError),
    Bad("LAMMPS: no atom IDs", lambda d: Session(tag_enable=0), partial(attach, {1: "Ar"}), ("no atom IDs", "drop")),
    Bad("LAMMPS: a barostat before the potential", lambda d: Session(fixes=["move"]), partial(attach, {1: "Ar"}),
        ("fix move controls the pressure", "attach the potential first")),
    Bad("LAMMPS: no box", lambda d: Session(ntypes=0), partial(attach, {1: "Ar"}), ("no atom types", "create")),
    Bad("LAMMPS: a type without element", lambda d: Session(ntypes=2), partial(attach, {1: "Ar"}),
        ("type 2", "types=")),
    Bad("LAMMPS: unknown symbol", lambda d: Session(), partial(attach, {1: "A"}), ("'A' is unknown", "write it like")),
    Bad("LAMMPS: unknown element", lambda d: Session(), partial(attach, {1: "Ti"}),
        ("knows Ar but not Ti", "train one")),
]  # fmt: skip


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _text(path: Path, content: str) -> Path:
    return _bytes(path, content.encode())


BAD_INPUTS = [*FRAMES, *FITS, *TABLES, *REFERENCES, *SETTINGS, *PARAMETERS, *ARCHIVES, *STRUCTURES]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_a_bad_input_is_one_clear_error(bad, tmp_path):
    made = bad.make(tmp_path)
    with pytest.raises(bad.error) as caught:
        bad.read(made)
    message = str(caught.value)
    missing = [pattern for pattern in bad.says if not re.search(pattern, message)]
    assert not missing, f"{message!r} lacks {missing}"
    assert "\n" not in message


def test_every_row_of_the_table_has_its_own_name():
    names = [bad.name for bad in BAD_INPUTS]
    assert len(set(names)) == len(names)
