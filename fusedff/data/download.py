"""Download of published files, once, into a cache, with a check that a file is the published one."""

import hashlib
from collections.abc import Callable
from pathlib import Path


def git_blob_sha1(source) -> str:
    """Git's object id of a file, sha1("blob <size>\\0" + content); `source` is bytes or a path."""
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            digest = hashlib.sha1(b"blob %d\0" % Path(source).stat().st_size, usedforsecurity=False)
            while chunk := file.read(2**20):
                digest.update(chunk)
        return digest.hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(source) + source, usedforsecurity=False).hexdigest()


def fetch(url: str, name: str, difference: Callable[[Path], str | None], cache_dir=None, downloader=None) -> Path:
    """Path of the file `name` in `cache_dir` (default: the user's cache), downloaded from `url` on first use.

    `difference(path)` describes how a file differs from the published one, None if it does not. A cached file that
    differs is downloaded again. Raises ConnectionError if it cannot be downloaded, and ValueError if the downloaded
    file differs (it is deleted). `downloader` replaces that of pooch.
    """
    import pooch  # only a download needs it

    folder = Path(cache_dir) if cache_dir is not None else Path(pooch.os_cache("fusedff"))
    path = folder / name
    if path.is_file():
        if not difference(path):
            return path
        path.unlink()
    level = pooch.get_logger().level
    pooch.get_logger().setLevel("WARNING")  # else it recommends a known hash; `difference` checks the file
    try:
        pooch.retrieve(url, known_hash=None, fname=name, path=folder, downloader=downloader)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise ConnectionError(
            f"cannot download {url}: {error}; go online, or place the file at {path} by hand"
        ) from error
    finally:
        pooch.get_logger().setLevel(level)
    if found := difference(path):
        path.unlink()
        raise ValueError(
            f"{name}: {found}, and the file was deleted; the download broke or the file changed: try again, or place "
            f"it at {path} by hand"
        )
    return path
