"""Storage of trees of arrays, with JSON metadata, in one safetensors file: written atomically, never pickled."""

import dataclasses
import errno
import glob
import hashlib
import json
import os
import re
import secrets
from collections.abc import Generator, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fusedff.runtime import devices

try:
    import fcntl
except ImportError:  # no POSIX: files are written as safely, but nothing is locked
    fcntl = None

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHECKSUM = "sha256"  # of arrays and metadata
_MAX_DEPTH = 100  # levels of nested JSON; our own has fewer than ten


class DamagedFileError(ValueError):
    """A file cannot be read, or does not hold what is expected."""


class InUseError(OSError):
    """A file is being written by another process, or by another training in this one."""


def _leaf_names(tree):
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in paths], structure


def write_tree(path: str | Path, tree, metadata: dict) -> None:
    """Write the arrays of `tree` and JSON-able `metadata` with a checksum, like `write_bytes`."""
    named, _ = _leaf_names(tree)
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named}
    text = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    write_bytes(path, save(arrays, {**text, _CHECKSUM: json.dumps(_checksum(arrays, text))}))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file atomically: at any time, also after a crash, it has its old or its new content, never a part.

    In a distributed run, in which all processes have the same content, only the first writes. Raises OSError naming the
    file and the remedy.
    """
    if not devices.is_first_process():
        return
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            _remove_unless_held(leftover)
        temporary, file = _create(path)
        with file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def require_new(path: str | Path, remedy: str = "name another file, or delete it") -> None:
    """Raise FileExistsError if `path` exists, and NotADirectoryError if one of its parents is a file."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; {remedy}")
    place = nearest_existing(path)
    if not place.is_dir():
        raise NotADirectoryError(f"{path} cannot be written, since {place} is a file; name another folder")


def nearest_existing(path: Path) -> Path:
    """The path itself or the nearest of its parents, whichever exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def unwritable(path: Path, error: OSError) -> OSError:
    """An OSError that names the file and the remedy, from the `error` raised while writing `path`."""
    remedy = "make room" if error.errno in _FULL else "give a folder that can be written to"
    return OSError(
        error.errno, f"cannot write {path} ({error.strerror}); what was there is kept: {remedy} and run again"
    )


def _create(path):
    """Path and handle of a new file beside `path`, locked by this process; its name is random, so that none exists."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        file = open(temporary, "xb")
        if _hold(file):
            return temporary, file
        file.close()  # another process took it for a leftover before it was locked


def _hold(file) -> bool:
    """Lock the open `file` until it is closed or the process ends; False if it is locked already or was deleted."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return os.fstat(file.fileno()).st_nlink > 0


def _remove_unless_held(path):
    """Remove a file that a killed process has left; a running process holds a lock on the file it writes."""
    if fcntl is not None:
        with suppress(OSError), open(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def lock(path: str | Path) -> Generator[None]:
    """Context that holds a lock on `path` against other calls of `lock`; it is released if the process dies.

    Raises InUseError if it is held already. Nothing is locked if no lock file can be made, if the platform or the file
    system has no locks, and in all but the first process of a distributed run.
    """
    path = Path(path)
    place = path.with_name(f".{path.name}.lock")
    if not devices.is_first_process() or fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
    except OSError:
        yield
        return
    with file:
        if not _hold(file):
            raise InUseError(
                f"{path} is being written by another process; wait until that one has ended, or let this one write to "
                "another file or folder"
            )
        try:
            yield
        finally:
            with suppress(OSError):
                place.unlink()


def write_json(path: str | Path, data) -> None:
    """Write indented JSON like `write_bytes`; nan and infinities, which JSON does not have, become null."""
    finite = json.loads(json.dumps(data), parse_constant=lambda _: None)
    write_bytes(path, (json.dumps(finite, indent=2) + "\n").encode())


def read_json(path: str | Path, *keys: str, remedy: str = "restore it"):
    """Read JSON from a file; if `keys` are given, it must be an object that has them.

    Raises FileNotFoundError, or DamagedFileError naming the file, what is wrong and the remedy.
    """
    path = Path(path)
    try:
        found = _parse_json(path.read_text())
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged ({error}); {remedy}") from error
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise DamagedFileError(f"{path} is damaged (it lacks {missing[0]!r}); {remedy}")
    return found


def _parse_json(text: str):
    """`json.loads` that raises ValueError for nesting so deep that it could exhaust the C stack.

    Python's recursion limit does not protect the parser, since symfc raises it to 100 000 for the whole process.
    """
    brackets = np.frombuffer(re.sub(r'"(?:[^"\\]|\\.)*"', "", text).encode(), np.uint8)
    steps = np.isin(brackets, list(b"[{")).astype(int) - np.isin(brackets, list(b"]}"))
    if np.cumsum(steps).max(initial=0) > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    return json.loads(text)


def json_roundtrip(data):
    """Convert `data` as storing it as JSON does (tuples become lists), for comparison with stored data."""
    return json.loads(json.dumps(data))


def read_metadata(path: str | Path) -> dict:
    """Read the JSON metadata of a file that `write_tree` wrote, without checking the checksum.

    Raises FileNotFoundError or DamagedFileError.
    """
    return _read(path, arrays=False)[1]


def read_tree(path: str | Path, like):
    """Read arrays, in the structure of `like`, and metadata from a file that `write_tree` wrote.

    Arrays are converted to the types in `like`. Raises FileNotFoundError, or DamagedFileError naming the file, the
    array and the remedy if the checksum, names or shapes do not agree, or values are not finite.
    """
    arrays, metadata = _read(path)
    named, structure = _leaf_names(like)
    expected = {name for name, _ in named}
    if expected != set(arrays):
        odd = sorted(expected ^ set(arrays))[0]
        what = "lacks" if odd in expected else "holds the unexpected"
        raise DamagedFileError(
            f"{path} {what} array {odd}: it was written by another architecture or settings; delete it and run again"
        )
    leaves = []
    for name, leaf in named:
        array = arrays[name]
        if array.shape != np.shape(leaf):
            raise DamagedFileError(
                f"{path}: array {name} has shape {array.shape}, expected {np.shape(leaf)}; "
                "it was written by another architecture or settings; delete it and run again"
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DamagedFileError(
                f"{path}: array {name} holds values that are not finite; restore the file or train again"
            )
        leaves.append(jax.numpy.asarray(array, dtype=getattr(leaf, "dtype", None)))
    return jax.tree_util.tree_unflatten(structure, leaves), metadata


def digest(data) -> str:
    """A sha256 of any data: arrays, numbers, text, containers of them, and objects with their attributes.

    Data that are equal to the last bit have equal digests. Functions and classes are identified by their names, other
    objects by what `pickle` would keep of them. Raises TypeError for what cannot be pickled.
    """
    found = hashlib.sha256()
    for part in _parts(data):
        found.update(part)
    return found.hexdigest()


def _parts(data) -> Iterator[bytes]:
    if isinstance(data, (str, bytes, int, float, type(None))):
        yield f"{type(data).__name__} {data!r};".encode()
    elif isinstance(data, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(data, order="C")
        yield f"{array.dtype} {array.shape};".encode()
        yield array.tobytes()
    elif isinstance(data, Mapping):
        yield from _group("mapping", [(key, data[key]) for key in sorted(data, key=str)])
    elif isinstance(data, Set):
        yield from _group("set", sorted(data, key=str))
    elif isinstance(data, (list, tuple)):
        yield from _group("sequence", data)
    elif dataclasses.is_dataclass(data) and not isinstance(data, type):  # caches in its __dict__ are no fields
        fields = [getattr(data, field.name) for field in dataclasses.fields(data)]
        yield from _group(type(data).__qualname__, fields)
    elif hasattr(data, "__qualname__") and isinstance(getattr(data, "__self__", None), (ModuleType, type(None))):
        # functions and classes; methods belong to an object
        yield f"{getattr(data, '__module__', '')}.{data.__qualname__};".encode()
    else:
        reduced = data.__reduce_ex__(2)  # constructor, arguments, state, and iterators of items; or a name
        members = [reduced] if isinstance(reduced, str) else [*reduced[:3], *map(list, filter(None, reduced[3:5]))]
        yield from _group(type(data).__qualname__, members)


def _group(name, members):
    yield f"{name} {len(members)}(".encode()
    for member in members.items() if isinstance(members, dict) else members:
        yield from _parts(member)
    yield b")"


def _checksum(arrays, text) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    for key, value in sorted(text.items()):
        found.update(f"{key} {value}\n".encode())
    return found.hexdigest()


def require_file(path: Path, remedy: str = "") -> None:
    """Raise FileNotFoundError, whose text ends with `remedy`, if there is no file at `path`."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}{remedy and '; '}{remedy}")


def _read(path, arrays=True):
    path = Path(path)
    require_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = dict(file.metadata() or {})
            content = {name: file.get_tensor(name) for name in file.keys()} if arrays else {}
        checksum = _parse_json(text.pop(_CHECKSUM, "null"))
        metadata = {key: _parse_json(value) for key, value in text.items()}
    except (SafetensorError, OSError, ValueError) as error:
        with open(path, "rb") as file:
            if file.read(2) in (b"PK", *(b"\x80%c" % protocol for protocol in range(2, 6))):
                raise DamagedFileError(
                    f"{path} is a pickle or a zip archive, which is never opened; give a file written by Potential.save"
                ) from error
        raise DamagedFileError(f"{path} is damaged ({error}); restore it or train again") from error
    if arrays and checksum != _checksum(content, text):
        wrong = f"its checksum is not {checksum}" if checksum else "it has no checksum"
        raise DamagedFileError(f"{path} is damaged: {wrong}; restore it or train again")
    return content, metadata
