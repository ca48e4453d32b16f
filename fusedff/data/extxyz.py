"""Extended XYZ: frames as text, and files read frame by frame.

ASE parses each frame. The frames are separated here, because ASE's own reader stops at a blank line, takes `@` in a
file name for an index, and allocates any number of columns that a frame declares. The declared numbers of atoms and
columns are compared with the text before memory is allocated.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from fusedff.data import labelled_frames
from fusedff.runtime import storage
from fusedff.runtime.failures import one_line

_NO_TEXT = {  # first five bytes or fewer of a file -> what it is
    b"\x1f\x8b": "compressed (gzip)",
    b"BZh": "compressed (bzip2)",
    b"\xfd7zXZ": "compressed (xz)",
    b"PK": "a zip archive",
    b"- of ": "an ASE trajectory, which `fusedff convert` makes extended XYZ of",
    b"SQLit": "an ASE database, of which `ase convert FILE.db FILE.extxyz` makes extended XYZ",
    b"\xef\xbb\xbf": "UTF-8 with a byte-order mark",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def encode(frames: ase.Atoms | Sequence[ase.Atoms]) -> bytes:
    """Content of an extended-XYZ file with these frames and their labels."""
    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    return text.getvalue().encode()


def read(path: Path) -> Iterator[ase.Atoms]:
    """Yield the frames of an extended-XYZ file in order; blank lines between them are skipped.

    Raises FileNotFoundError, or ValueError naming file, frame and remedy if it is not extended XYZ.
    """
    storage.require_file(path, "give the path of an extended-XYZ file")
    require_text(path)
    _require_last_line(path)
    size, n = path.stat().st_size, 0
    with open(path, encoding="utf-8") as file:
        while True:
            try:
                block = _block(file, size)
                if block is None:
                    return
                frame = _frame(block)
            except Exception as error:  # ASE's parser may raise any error
                raise ValueError(
                    f"{path.name}, frame {n}: cannot be read as extended XYZ ({one_line(error)}); "
                    "repair the frame, or cut the file off before it"
                ) from error
            yield frame
            n += 1


def _frame(block: str) -> ase.Atoms:
    """The frame of a block; a stress of nine numbers is kept whole if it is not symmetric, where ASE keeps six."""
    frame = next(read_xyz(io.StringIO(block), index=0))
    stress = key_val_str_to_dict(block.split("\n", 2)[1]).get("stress")
    if np.shape(stress) == (3, 3):
        frame.calc.results["stress"] = labelled_frames.stress_label(np.asarray(stress, float))
    return frame


def with_labels(frame: ase.Atoms, keys: Mapping[str, str]) -> ase.Atoms:
    """The frame with labels from entries of other names: `keys` is energy, forces, stress or virial -> entry.

    A virial (eV, positive in compression) becomes a stress, -virial / volume. What the frame lacks is left out. If
    `keys` names energy or forces, labels that it does not name are left out too: they may be of another calculation.
    """
    if not keys:
        return frame
    given = labelled_frames.calculator_results(frame)
    results = {} if keys.keys() & {"energy", "forces"} else {name: given[name] for name in given if name not in keys}
    everything = {**frame.info, **frame.arrays, **given}
    results |= {name: everything[key] for name, key in keys.items() if key in everything}
    if "virial" in results:
        virial = np.asarray(results.pop("virial"), float)
        results["stress"] = -virial.reshape((3, 3) if virial.size == 9 else virial.shape) / frame.get_volume()
    if np.size(results.get("stress", ())) == 9:
        results["stress"] = labelled_frames.stress_label(np.reshape(results["stress"], (3, 3)))
    frame.calc = SinglePointCalculator(frame)
    frame.calc.results.update(results)
    return frame


def _block(file, size: int) -> str | None:
    """The text of the next frame; None at the end of the file, which has `size` bytes."""
    first = next((line for line in file if line.strip()), None)
    if first is None:
        return None
    if not first.strip().isdecimal():
        raise ValueError(f"it begins with {first.strip()[:40]!r}, not with a number of atoms")
    n = int(first)
    if not 0 < n < size:
        raise ValueError(f"it announces {n} atoms in a file of {size} bytes")
    comment, *atoms = islice(file, n + 1)
    if len(atoms) < n:
        raise ValueError(f"it announces {n} atoms, and {len(atoms)} lines are left")
    announced, found = sum(map(int, re.findall(r":[SRIL]:(\d+)", comment))), len(atoms[0].split())
    if announced > found:
        raise ValueError(f"Properties announces {announced} columns, and the first atom has {found}")
    return "".join([first, comment, *atoms])


def require_text(path: Path) -> None:
    """Raise ValueError if the first bytes show that a file is compressed, or not UTF-8 without a byte-order mark."""
    with open(path, "rb") as file:
        start = file.read(5)
    for signature, what in _NO_TEXT.items():
        if start.startswith(signature):
            raise ValueError(f"{path.name} is {what}; give plain text, UTF-8 without a byte-order mark")


def _require_last_line(path: Path) -> None:
    """Raise ValueError if the last line is unfinished: a number that was cut off would be read as another number."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        if file.read(1) not in (b"", b"\n"):
            raise ValueError(
                f"{path.name}: the last line does not end, as if writing was interrupted; "
                "cut off the last frame, or end the line if it is complete"
            )
