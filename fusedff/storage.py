"""Trees of arrays in one safetensors file with JSON beside them: written whole or not at all, never pickled."""

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fusedff import devices

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHECKSUM = "sha256"  # of all else in the file; files from before there was one are read without


class DamagedFile(ValueError):
    """A file that cannot be read, or does not hold what it should."""


def _leaf_names(tree):
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in paths], structure


def write_tree(path: str | Path, tree, metadata: dict) -> None:
    """Write the arrays of `tree` and JSON-able `metadata`; an existing file is replaced only when all is on disk."""
    named, _ = _leaf_names(tree)
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named}
    text = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    write_bytes(path, save(arrays, {**text, _CHECKSUM: json.dumps(_digest(arrays, text))}))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file atomically: a reader, or a crash, sees the old content or the new, never a part.

    Of several processes, which all hold the same, only the first writes.
    """
    if not devices.first():
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            remedy = "make room" if error.errno in _FULL else "give a folder that can be written to"
            raise OSError(
                error.errno, f"cannot write {path} ({error.strerror}); what was there is kept: {remedy} and run again"
            ) from error
        raise


def write_json(path: str | Path, data) -> None:
    """Write JSON for people and programs: indented, atomic; null for nan and infinities, which JSON does not know."""
    finite = json.loads(json.dumps(data), parse_constant=lambda _: None)
    write_bytes(path, (json.dumps(finite, indent=2) + "\n").encode())


def plain(data):
    """`data` as it comes back from JSON (tuples become lists), for comparison with what was stored."""
    return json.loads(json.dumps(data))


def read_metadata(path: str | Path) -> dict:
    """The JSON stored beside the arrays."""
    return _read(path, arrays=False)[1]


def read_tree(path: str | Path, like):
    """Arrays in the structure of `like`, and the metadata; names, shapes and types must agree.

    Raises FileNotFoundError, or DamagedFile naming the file, the array and the remedy.
    """
    arrays, metadata = _read(path)
    named, structure = _leaf_names(like)
    expected = {name for name, _ in named}
    if expected != set(arrays):
        odd = sorted(expected ^ set(arrays))[0]
        what = "lacks" if odd in expected else "holds the unexpected"
        raise DamagedFile(
            f"{path} {what} array {odd}: it was written by another architecture or settings; delete it and run again"
        )
    leaves = []
    for name, leaf in named:
        array = arrays[name]
        if array.shape != np.shape(leaf):
            raise DamagedFile(
                f"{path}: array {name} has shape {array.shape}, expected {np.shape(leaf)}; "
                "it was written by another architecture or settings; delete it and run again"
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DamagedFile(f"{path}: array {name} holds values that are not finite; restore the file or train again")
        leaves.append(jax.numpy.asarray(array, dtype=getattr(leaf, "dtype", None)))
    return jax.tree_util.tree_unflatten(structure, leaves), metadata


def _digest(arrays, text) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    for key, value in sorted(text.items()):
        found.update(f"{key} {value}\n".encode())
    return found.hexdigest()


def _read(path, arrays=True):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = dict(file.metadata() or {})
            content = {name: file.get_tensor(name) for name in file.keys()} if arrays else {}
        checksum = json.loads(text.pop(_CHECKSUM, "null"))
        metadata = {key: json.loads(value) for key, value in text.items()}
    except (SafetensorError, OSError, ValueError) as error:
        with open(path, "rb") as file:
            if file.read(2) in (b"PK", *(b"\x80%c" % protocol for protocol in range(2, 6))):
                raise DamagedFile(
                    f"{path} is a pickle or a zip archive, which is never opened; give a file written by "
                    "fusedff.potential.save"
                ) from error
        raise DamagedFile(f"{path} is damaged ({error}); restore it or train again") from error
    if arrays and checksum not in (None, _digest(content, text)):
        raise DamagedFile(f"{path} is damaged: its checksum is not {checksum}; restore it or train again")
    return content, metadata
