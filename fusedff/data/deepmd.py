"""Reader of DeePMD folders, which hold the frames of one run as arrays; no pickle is accepted.

A run is a folder with `type.raw` (the type of each atom, counted from 0), optionally `type_map.raw` (a chemical symbol
for each type) and `nopbc` (no periodic cell), and sets `set.000/` of box.npy (n_frames, 9) Å, coord.npy (n_frames,
3 n_atoms) Å, energy.npy (n_frames,) eV, force.npy (n_frames, 3 n_atoms) eV/Å and optionally virial.npy (n_frames, 9)
eV. Functions that take `contents`, path -> bytes, read folders of an archive as well.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from fusedff.data.labelled_frames import stress_label

ARRAYS = ("box.npy", "coord.npy", "energy.npy", "force.npy")
VIRIAL = "virial.npy"
_BESIDE = ("type.raw", "type_map.raw", "nopbc")
_REMEDY = "repair the folder or leave it out"


def runs(folder: Path) -> list[Path]:
    """Folders of runs: `folder` itself or those at any depth below it, in the order of their names."""
    return sorted({path.parents[1] for path in folder.rglob("set.*/coord.npy")})


def load(run: Path, species: Sequence[str] | None = None) -> list[ase.Atoms]:
    """Read the labelled frames of one run, its sets in the order of their names.

    `species` names the elements of types 0, 1, ... where type_map.raw is missing. Raises ValueError naming the file and
    the remedy.
    """
    names = [path for path in _BESIDE if (run / path).is_file()]
    names += sorted(str(path.relative_to(run)) for path in run.glob("set.*/*.npy"))
    contents = {f"{run.name}/{name}": (run / name).read_bytes() for name in names}
    numbers = atoms_of(contents, run.name, str(run), species)
    sets = sorted({name.rpartition("/")[0] for name in contents if name.endswith("/coord.npy")})
    return [frame for folder in sets for frame in read_set(contents, folder, numbers, str(run.parent))]


def atoms_of(
    contents: Mapping[str, bytes], run: str, where: str, species: Sequence[str] | None = None, remedy: str = _REMEDY
) -> np.ndarray:
    """Atomic numbers (n_atoms,) of the run whose folder is `run` in `contents`.

    `species` are the elements of types 0, 1, ... if type_map.raw is missing. Raises ValueError for missing, wrong or
    contradictory types; `where` begins its message and `remedy` ends it.
    """
    types = contents.get(f"{run}/type.raw")
    if types is None:
        raise ValueError(f"{where}: type.raw is missing; {remedy}")
    if f"{run}/type_map.raw" in contents:
        said = contents[f"{run}/type_map.raw"].decode(errors="replace").split()
        if species and list(species) != said:
            raise ValueError(
                f"{where}: type_map.raw says {', '.join(said)}, not {', '.join(species)}; name no elements"
            )
        species = said
    if not species:
        raise ValueError(f"{where}: type_map.raw is missing; name the elements of types 0, 1, ... in that order")
    if unknown := [symbol for symbol in species if symbol not in atomic_numbers]:
        raise ValueError(f"{where}: type {species.index(unknown[0])} is {unknown[0]!r}, no chemical symbol; {remedy}")
    words = types.decode(errors="replace").split()
    if not words or (odd := next((w for w in words if not w.isdecimal() or int(w) >= len(species)), None)):
        said = f"type {odd} is none of the types 0, 1, ... of {', '.join(species)}" if words else "it is empty"
        raise ValueError(f"{where}/type.raw: {said}; {remedy}")
    return np.array([atomic_numbers[species[int(word)]] for word in words])


def read_set(
    contents: Mapping[str, bytes], folder: str, numbers: np.ndarray, where: str, remedy: str = _REMEDY
) -> list[ase.Atoms]:
    """Frames of one set, from the arrays `folder/box.npy` and so on in `contents`; `numbers` (n_atoms,) are atomic.

    They have a stress (-virial / volume) if the set has virials. Raises ValueError, beginning with `where`, for an
    array that is missing, holds no floating-point numbers, or whose shape does not fit the numbers of frames and atoms.
    """
    virial = [VIRIAL] if f"{folder}/{VIRIAL}" in contents else []
    arrays = {name: _array(contents, f"{folder}/{name}", where, remedy) for name in (*ARRAYS, *virial)}
    n, n_atoms = len(arrays["energy.npy"]), len(numbers)
    for name, width in zip(arrays, (9, 3 * n_atoms, 1, 3 * n_atoms, 9), strict=False):
        if arrays[name].size != n * width or len(arrays[name]) != n:
            raise ValueError(
                f"{where}, {folder}/{name}: shape {arrays[name].shape} is not {n} frames of {width} numbers; {remedy}"
            )
    periodic = f"{folder.rpartition('/')[0]}/nopbc" not in contents
    frames = []
    for i in range(n):
        cell = arrays["box.npy"][i].reshape(3, 3)
        frame = ase.Atoms(numbers, arrays["coord.npy"][i].reshape(-1, 3), cell=cell, pbc=periodic)
        found = {"energy": arrays["energy.npy"][i].item(), "forces": arrays["force.npy"][i].reshape(-1, 3)}
        if virial and abs(volume := np.linalg.det(cell)) > 0:
            found["stress"] = stress_label(-arrays[VIRIAL][i].reshape(3, 3) / abs(volume))
        frame.calc = SinglePointCalculator(frame, **found)
        frames.append(frame)
    return frames


def _array(contents, name, where, remedy):
    if name not in contents:
        raise ValueError(f"{where}, {name}: is missing; {remedy}")
    try:
        array = np.load(io.BytesIO(contents[name]), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise ValueError(f"{where}, {name}: not a plain numeric array ({error}); {remedy}") from error
    if array.dtype.kind != "f" or array.ndim == 0:
        raise ValueError(f"{where}, {name}: {array.dtype} is not an array of numbers; {remedy}")
    return array.astype(float)
