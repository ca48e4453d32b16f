"""Readers of the output files of DFT programs, by means of ASE: frames, and whether their SCF cycles have converged."""

import io
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ase
import ase.io
import numpy as np
from ase.io import aims, espresso, vasp
from ase.io.vasp_parsers import vasp_outcar_parsers

from fusedff.data import extxyz, labelled_frames
from fusedff.runtime.failures import one_line


class OutputFrame(NamedTuple):
    """One frame of an output file, and whether its SCF cycle has converged."""

    atoms: ase.Atoms
    converged: bool


def _outcar(path: Path) -> Iterator[OutputFrame]:
    with open(path) as file:
        header = vasp_outcar_parsers.OutcarHeaderParser()  # without constraints, which are in other files
        for chunk in vasp_outcar_parsers.outcarchunks(file, header_parser=header):
            converged = any("EDIFF is reached" in line for line in chunk.lines)
            yield OutputFrame(chunk.build(), converged)


def _vasprun(path: Path) -> Iterator[OutputFrame]:
    """A step has not converged if it used all NELM electronic steps that are allowed, or if it is cut off."""
    most, steps = np.inf, []
    try:
        for _, element in ET.iterparse(path):
            if element.tag == "i" and element.get("name") == "NELM":
                most = int(element.text or 0)
            elif element.tag == "calculation":
                steps.append(len(element.findall("scstep")))
                element.clear()
    except ET.ParseError:  # a run that was interrupted
        pass
    for n, atoms in enumerate(vasp.read_vasp_xml(str(path), slice(None))):
        yield OutputFrame(atoms, n < len(steps) and steps[n] < most)


def _espresso(path: Path) -> Iterator[OutputFrame]:
    """A cycle has converged if ASE finds an energy: it reads only those that pw.x marks with `!`."""
    for atoms in espresso.read_espresso_out(_whole_lines(path), slice(None)):
        yield OutputFrame(atoms, labelled_frames.energy_of(atoms) is not None)


def _aims(path: Path) -> Iterator[OutputFrame]:
    file = _whole_lines(path)
    header = aims.get_header_chunk(file)
    chunks = list(aims.get_aims_out_chunks(file, header))
    for n, chunk in enumerate(chunks):
        converged = any("Self-consistency cycle converged" in line for line in chunk.lines)
        if header.is_relaxation and n == len(chunks) - 1 and not converged:
            return  # the end of a relaxation repeats its last geometry
        yield OutputFrame(chunk.atoms, converged)


def _whole_lines(path: Path) -> io.StringIO:
    """The text of a file without an unfinished last line, which may be cut off inside a number."""
    text = path.read_text()
    return io.StringIO(text[: text.rfind("\n") + 1])


def _extxyz(path: Path) -> Iterator[OutputFrame]:
    return (OutputFrame(atoms, True) for atoms in extxyz.read(path))


def _trajectory(path: Path) -> Iterator[OutputFrame]:
    found = ase.io.iread(str(path), ":", format="traj", do_not_split_by_at_sign=True)
    return (OutputFrame(atoms, True) for atoms in found)


class Format(NamedTuple):
    """A file format: its title in messages, the `source` of its frames, and its reader."""

    title: str
    source: str | None  # None: given by the frames, or by the name of the file
    read: Callable[[Path], Iterator[OutputFrame]]


FORMATS = {  # by ASE's names
    "vasp-out": Format("VASP OUTCAR", "vasp", _outcar),
    "vasp-xml": Format("VASP vasprun.xml", "vasp", _vasprun),
    "espresso-out": Format("Quantum ESPRESSO output", "espresso", _espresso),
    "aims-output": Format("FHI-aims output", "aims", _aims),
    "traj": Format("ASE trajectory", None, _trajectory),
    "extxyz": Format("extended XYZ", None, _extxyz),
}


def read(path: Path, kind: str) -> Iterator[OutputFrame]:
    """Yield the frames of a file in the format `kind` of `FORMATS`, also those without labels or not converged.

    Raises ValueError naming the file and the remedy if it cannot be read. Of a run that was interrupted within a step,
    the steps before it are read, with a warning.
    """
    title, _, reader = FORMATS[kind]
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ASE warns of data that are not used here
            for one in reader(path):
                found.append(one)  # kept if the next one cannot be read
    except Exception as error:  # ASE's parsers may raise any error
        if kind == "extxyz":  # its reader in this package raises errors with file and remedy
            raise
        said = one_line(error)
        if not found:
            raise ValueError(f"{path} cannot be read as {title} ({said}); leave it out, or repair it") from error
        warnings.warn(
            f"{path}: after {len(found)} frames it cannot be read as {title} ({said}), as if the run was interrupted; "
            "the rest is left out",
            stacklevel=2,
        )
    yield from found
