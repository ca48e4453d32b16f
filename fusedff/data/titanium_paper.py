"""The titanium frames published with the paper: downloaded once, verified before they are opened, read as ASE frames.

Source: https://github.com/tummfm/Fused-EXP-DFT-MLP (Röcken & Zavadlav, npj Comput. Mater. 10, 69 (2024)).
No sha256 is published, but git names every file by a hash of its content, with which the archive is compared. Six
arrays lie in one folder of the archive, or of an archive inside the archive; nothing else is read, nothing is unpacked
to disk and no pickle is accepted.
"""

import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.data import datasets, download, labelled_frames
from fusedff.data.download import git_blob_sha1
from fusedff.units import to_voigt

URL = "https://github.com/tummfm/Fused-EXP-DFT-MLP/raw/0ee651b/Dataset/Data_DFT_and_Exp.zip"
GIT_ID = "6f5c28d31a11acc1450eee9c82c86de7e592833c"

_MEMBERS = ("box.npy", "coord.npy", "energy.npy", "force.npy", "types.npy", "virial.npy")
_MAX_MEMBER_BYTES = 128 * 2**20  # the largest published array is 5704 * 256 * 3 doubles, 33 MiB
_MAX_NESTED_BYTES = 512 * 2**20
_REMEDY = f"delete it and fetch {URL} again"


class PaperArrays(NamedTuple):
    """The published DFT frames as the file holds them: eV and Å, cells as row vectors.

    box (n, 3, 3) Å, coord (n, n_atoms, 3) Å, energy (n,) eV, force (n, n_atoms, 3) eV/Å,
    virial (n, 3, 3) eV (minus volume times stress), types (n,): 0 for "Init" frames and 1 for "Bulk" frames.
    """

    box: np.ndarray
    coord: np.ndarray
    energy: np.ndarray
    force: np.ndarray
    virial: np.ndarray
    types: np.ndarray


def fetch(cache_dir=None, *, _downloader=None) -> Path:
    """Path of the verified archive in the cache; downloads it and raises errors like `download.fetch`."""

    def difference(path):
        found = git_blob_sha1(path)
        return None if found == GIT_ID else f"{path.stat().st_size} bytes with git id {found} came instead of {GIT_ID}"

    return download.fetch(URL, "Data_DFT_and_Exp.zip", difference, cache_dir, _downloader)


def load(path, verify=True) -> tuple[ase.Atoms, ...]:
    """Read and check the titanium frames of the paper (5704 of 256 atoms) from its archive, in its order.

    The arrays are in eV and Å (the authors' scripts convert them to kJ/mol and nm on reading). Cells are row
    vectors, stress = -virial / volume. `config_type` is 'paper-init' (types 0) or 'paper-bulk'; `use_virial`
    is true for Init frames only, as in the paper. With `verify` off, other archives of the same layout can be read.
    Raises FileNotFoundError, or ValueError naming archive, frame or array, and remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; fetch it with titanium_paper.fetch()")
    if verify and (found := git_blob_sha1(path)) != GIT_ID:
        raise ValueError(
            f"{path.name}: git id {found} is not the published {GIT_ID}; it is damaged or altered: {_REMEDY}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            contents = _read_members(archive, path.name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path.name} cannot be unpacked ({error}); {_REMEDY}") from error
    arrays = _shaped({name: _array(content, f"{path.name}, {name}") for name, content in contents.items()}, path)
    _check(arrays, path.name)
    return datasets.check_dataset([_frame(arrays, i) for i in range(len(arrays.energy))], path.name)


def _frame(arrays: PaperArrays, i: int) -> ase.Atoms:
    is_init = int(arrays.types[i]) == 0
    frame = ase.Atoms(f"Ti{len(arrays.coord[i])}", arrays.coord[i], cell=arrays.box[i], pbc=True)
    volume = abs(np.linalg.det(arrays.box[i]))
    stress = -arrays.virial[i] / volume
    found = {"energy": arrays.energy[i], "forces": arrays.force[i]}
    if is_init or not labelled_frames.is_large(stress, volume / len(frame)):  # else dropped: it is not used
        found["stress"] = to_voigt((stress + stress.T) / 2)
    frame.calc = SinglePointCalculator(frame, **found)
    frame.info.update(
        config_type="paper-init" if is_init else "paper-bulk", config_id=f"paper-{i:04d}", use_virial=is_init
    )
    return frame


def _read_members(archive: zipfile.ZipFile, file: str) -> dict[str, bytes]:
    """The bytes of the six arrays, from the only folder, here or in a nested archive, that holds them all."""
    folders = _folders(archive)
    if not folders:
        nested = [i for i in archive.infolist() if i.filename.endswith(".zip") and "__MACOSX" not in i.filename]
        for info in nested:
            with zipfile.ZipFile(io.BytesIO(_read(archive, info, _MAX_NESTED_BYTES, file))) as inner:
                found = _folders(inner)
                folders += found
                if len(found) == 1 and len(folders) == 1:
                    contents = _contents(inner, found[0], file)
    elif len(folders) == 1:
        contents = _contents(archive, folders[0], file)
    if len(folders) != 1:
        raise ValueError(f"{file}: {len(folders)} folders hold all of {', '.join(_MEMBERS)} instead of one; {_REMEDY}")
    return contents


def _folders(archive: zipfile.ZipFile) -> list[str]:
    names = archive.namelist()
    folders = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in _MEMBERS}
    return sorted(f for f in folders if all((f"{f}/{m}" if f else m) in names for m in _MEMBERS))


def _contents(archive: zipfile.ZipFile, folder: str, file: str) -> dict[str, bytes]:
    paths = {member: f"{folder}/{member}" if folder else member for member in _MEMBERS}
    return {m: _read(archive, archive.getinfo(p), _MAX_MEMBER_BYTES, file) for m, p in paths.items()}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, file: str) -> bytes:
    """Unpack one member into memory; raise ValueError beyond `limit` bytes, whatever size its header states."""
    with archive.open(info) as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{file}, {info.filename}: unpacks to more than {limit} bytes; {_REMEDY}")
    return content


def _array(content: bytes, where: str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise ValueError(f"{where}: not a plain numeric array ({error}); {_REMEDY}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim == 0:
        raise ValueError(f"{where}: {getattr(array, 'dtype', type(array))} is not an array of numbers; {_REMEDY}")
    return array if array.dtype.kind in "iu" else array.astype(float)


def _shaped(arrays: dict[str, np.ndarray], path: Path) -> PaperArrays:
    """Check the numbers of frames and atoms, and reshape the arrays, whose rows may be flat."""
    n = arrays["energy.npy"].shape[0]
    flat = {}
    for name, array in arrays.items():
        if array.shape[0] != n:
            raise ValueError(f"{path.name}, {name}: {array.shape[0]} frames, but energy.npy has {n}; {_REMEDY}")
        flat[name] = array.reshape(n, -1)
    widths = {"box.npy": 9, "virial.npy": 9, "energy.npy": 1, "types.npy": 1}
    widths["force.npy"] = flat["coord.npy"].shape[1]
    for name, width in widths.items():
        if flat[name].shape[1] != width:
            shape = arrays[name].shape
            raise ValueError(f"{path.name}, {name}: shape {shape} is not {width} numbers a frame; {_REMEDY}")
    if n == 0 or widths["force.npy"] == 0 or widths["force.npy"] % 3:
        raise ValueError(f"{path.name}, coord.npy: shape {arrays['coord.npy'].shape} holds no atoms; {_REMEDY}")
    return PaperArrays(
        box=flat["box.npy"].reshape(n, 3, 3),
        coord=flat["coord.npy"].reshape(n, -1, 3),
        energy=flat["energy.npy"][:, 0],
        force=flat["force.npy"].reshape(n, -1, 3),
        virial=flat["virial.npy"].reshape(n, 3, 3),
        types=flat["types.npy"][:, 0],
    )


def _check(arrays: PaperArrays, file: str) -> None:
    """Raise ValueError for fractional coordinates, boxes that are not in Å, and types that are neither 0 nor 1."""
    other = np.flatnonzero((arrays.types != 0) & (arrays.types != 1))
    if len(other):
        i = other[0]
        raise ValueError(
            f"{file}, frame {i} (paper-{i:04d}): types is {arrays.types[i]}; give 0 for Init or 1 for Bulk"
        )
    if arrays.coord.min() > -0.01 and arrays.coord.max() < 1.01:
        raise ValueError(f"{file}, coord.npy: all in [0, 1], so fractional; give Cartesian coordinates in Å")
    volumes = np.abs(np.linalg.det(arrays.box)) / arrays.coord.shape[1]
    if not np.isfinite(volumes).all() or volumes.min() < 8.0 or volumes.max() > 60.0:
        i = int(np.argmax(~np.isfinite(volumes) | (volumes < 8.0) | (volumes > 60.0)))
        raise ValueError(
            f"{file}, frame {i} (paper-{i:04d}): {volumes[i]:g} Å^3 per atom is not titanium; give boxes in Å"
        )
