"""Titanium frames of another group: downloaded once, verified before they are opened, not unpacked to disk.

Source: https://github.com/saidigroup/23-Single-Element-DNPs (Andolina & Saidi, Digital Discovery 2, 1070 (2023), doi
10.1039/d3dd00046j, CC BY; the repository is under the GPL-3.0, so fusedff may download the archive but not contain it).
VASP, PBE, PAW of 4 valence electrons, 400 eV, Methfessel-Paxton 0.15 eV, no spin; short runs, 2 fs a step, of hcp,
bcc, fcc, omega and diamond, strained by up to 10 %, with vacancies and interstitials.

The archive holds DeePMD folders `iter0/T475/1_mp-46/elastic/run_3/`, named after temperature, structure, family and
run, with `type.raw` and `set.000/{box,coord,energy,force,virial}.npy`. Energies have another zero than GPAW's. Stresses
are some 2 GPa off (fewer electrons, Pulay stress) and not used.
"""

import hashlib
import lzma
import re
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import ase
import numpy as np

from fusedff.data import datasets, deepmd, download, extxyz, labelled_frames
from fusedff.data.download import git_blob_sha1

SOURCE = "vasp"
URL = "https://github.com/saidigroup/23-Single-Element-DNPs/raw/8b3ba91/Training_Data/Ti/iter0_Ti.tar.xz"
PUBLISHED = {
    "size": 1_884_948,
    "git id": "91c8691202d8705c50fc7fe88aebd1aa6deef562",
    "sha256": "671f4a2f54fd87b43768572a0fce852d38d4a6969f8e6cc038e7402bf0c753d6",
}
CONVERGED = 0.05  # eV/Å: forces of a converged calculation add up to less

_STRUCTURES = {"mp-46": "hcp", "mp-72": "omega", "mp-73": "bcc", "mp-6985": "fcc", "diamond": "diamond"}
_FAMILIES = (  # beginning of a folder's name, and the family of its frames
    ("elastic4", "elastic-8"), ("elastic", "elastic"), ("vac", "vacancy"), ("interstitials_HCP2", "interstitial-small"),
    ("interstitial", "interstitial"),
)  # fmt: skip
_MAX_MEMBER_BYTES, _MAX_BYTES, _MAX_MEMBERS = 16 * 2**20, 256 * 2**20, 100_000
_REMEDY = "delete it and fetch it again"


def fetch(cache_dir=None, *, _downloader=None) -> Path:
    """Path of the verified archive in the cache; downloads it and raises errors like `download.fetch`."""
    return download.fetch(URL, "iter0_Ti.tar.xz", _difference, cache_dir, _downloader)


def load(path, verify: bool = True) -> tuple[ase.Atoms, ...]:
    """Read the titanium frames of the archive at `path`, or of an extended-XYZ file with the same content.

    `source` is 'vasp', `config_type` is structure, family and temperature (`hcp-elastic-T475`), `config_id` is like
    `T475/1_mp-46/elastic/run_3#7`. `run`, what `splits.split` keeps together, is without the temperature: runs of one
    name at both temperatures begin with the same atoms. Stresses are not used. Exact copies of earlier frames, and
    frames whose forces add up to more than `CONVERGED` along an axis, are dropped; a warning says how many. Raises
    FileNotFoundError, or ValueError naming file, member and remedy for a file that is not the published one (archives,
    if `verify`) or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; fetch it with titanium_vasp.fetch()")
    if path.suffix in (".extxyz", ".xyz"):
        frames = list(extxyz.read(path))
    else:
        if verify and (difference := _difference(path)):
            raise ValueError(f"{path.name}: {difference}; it is damaged or altered: {_REMEDY}")
        frames = _frames(path)
    if lost := [i for i, frame in enumerate(frames) if not {"config_id", "config_type"} <= set(frame.info)]:
        raise ValueError(f"{path.name}, frame {lost[0]}: config_id or config_type is missing; give both")
    for frame in frames:
        # units="ase": forces of up to 280 eV/Å, between atoms 1.4 Å apart, are real
        frame.info.update(source=SOURCE, use_virial=False, units="ase")
        frame.info["run"] = re.sub(r"^T\d+/", "", str(labelled_frames.run(frame)))
    return _sound(frames, path.name)


def _difference(path) -> str | None:
    """Description of how a file differs from the published one, or None."""
    found = {"size": path.stat().st_size}
    if found["size"] == PUBLISHED["size"]:
        found["git id"] = git_blob_sha1(path)
        found["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for what, value in found.items():
        if value != PUBLISHED[what]:
            return f"{what} {value} is not the published {PUBLISHED[what]}"
    return None


def _sound(frames, file) -> tuple[ase.Atoms, ...]:
    """The frames without exact copies and without those that did not converge, checked like any dataset."""
    kept, seen, why = [], set(), Counter()
    for frame in frames:
        forces = frame.calc.results["forces"]
        key = (frame.numbers.tobytes(), frame.positions.tobytes(), frame.cell.array.tobytes())
        if key in seen:
            why["exact copies"] += 1
        elif np.abs(np.sum(forces, 0)).max() > CONVERGED:
            why[f"with a net force above {CONVERGED} eV/Å (not converged)"] += 1
        else:
            kept.append(frame)
        seen.add(key)
    if why:
        found = " and ".join(f"{n} {what}" for what, n in why.items())
        warnings.warn(f"{file}: {found} of {len(frames)} frames were dropped", stacklevel=3)
    return datasets.check_dataset(kept, file)


def _frames(path) -> list[ase.Atoms]:
    """The frames of all DeePMD folders, in the order of their names."""
    contents = _members(path)
    folders = sorted({name.rpartition("/")[0] for name in contents if name.endswith("/coord.npy")})
    if not folders:
        raise ValueError(f"{path.name}: no folder holds {', '.join(deepmd.ARRAYS)}; {_REMEDY}")
    frames, counts = [], Counter()
    for folder in folders:
        run = folder.rpartition("/")[0]
        config_type, config_id = _names(run, path.name)
        numbers = deepmd.atoms_of(contents, run, f"{path.name}, {run}", ("Ti",), _REMEDY)
        for frame in deepmd.read_set(contents, folder, numbers, path.name, _REMEDY):
            frame.info.update(config_type=config_type, config_id=f"{config_id}#{counts[run]}")
            counts[run] += 1
            frames.append(labelled_frames.right_handed(frame))
    return frames


def _members(path) -> dict[str, bytes]:
    """Arrays and `type.raw` of the archive by their names; other members, such as links, are skipped.

    Nothing is written to disk, so that the paths in the archive cannot do harm; sizes are limited before reading.
    """
    contents, total = {}, 0
    try:
        with tarfile.open(path, "r:xz") as archive:
            for n, member in enumerate(archive):
                if n >= _MAX_MEMBERS:
                    raise ValueError(f"{path.name}: more than {_MAX_MEMBERS} members; {_REMEDY}")
                base = member.name.rpartition("/")[2]
                if not member.isfile() or base not in (*deepmd.ARRAYS, "type.raw"):
                    # skipped, but decompressed on the way to the next member
                    total += max(member.size, 0)
                else:
                    total += member.size
                    if member.size > _MAX_MEMBER_BYTES:
                        raise ValueError(f"{path.name}, {member.name}: more than {_MAX_MEMBER_BYTES} bytes; {_REMEDY}")
                    file = archive.extractfile(member)
                    assert file is not None  # true of regular files
                    contents[member.name] = file.read(_MAX_MEMBER_BYTES)
                if total > _MAX_BYTES:
                    raise ValueError(f"{path.name}: unpacks to more than {_MAX_BYTES} bytes; {_REMEDY}")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"{path.name} cannot be unpacked ({error}); {_REMEDY}") from error
    return contents


def _names(run: str, file: str) -> tuple[str, str]:
    """`config_type`, and the part of `config_id` before #, from the folder of a run."""
    parts = run.split("/")[-4:]
    temperature, structure, family = (parts + [""] * 4)[:3]
    known = next((name for end, name in _STRUCTURES.items() if structure.endswith(f"_{end}")), None)
    kind = next((name for begin, name in _FAMILIES if family.lower().startswith(begin.lower())), None)
    if len(parts) < 4 or not re.fullmatch(r"T\d+", temperature) or known is None or kind is None:
        raise ValueError(f"{file}, {run}: not a folder like T475/1_mp-46/elastic/run_3; {_REMEDY}")
    return f"{known}-{kind}-{temperature}", "/".join(parts)
