"""Optional tuning of the memory allocator and of JAX's compilation cache: `fusedff.setup()`."""

import ctypes
import hashlib
import os
import platform
import sys
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # parameters of mallopt(3)
_COMPILED = "/jax/core/compile/backend_compile_duration"


@cache
def setup() -> None:
    """Keep freed memory and compiled code: calls on CPUs are faster, and other processes need not compile again.

    Call it before jax is imported, if possible (see `enable_compilation_cache`). Importing fusedff does not call it. It
    does not change results. A second call does nothing.
    """
    keep_freed_memory()
    enable_compilation_cache()
    trim_after_compilation()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory; other allocators are not changed.

    On CPUs XLA allocates the temporaries of every call anew, some 100 MB. glibc returns them to the system after each
    call, and the next one spends half of its time on page faults.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never


def trim_after_compilation() -> None:
    """Return memory to the system after every compilation of more than a second, often more than 100 MB.

    Otherwise the process would keep it, see `keep_freed_memory`. Notebooks compile many functions, and machines on
    Binder have 2 GB.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return
    import jax

    def after(event, seconds, **_):
        if event == _COMPILED and seconds > 1:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)


def enable_compilation_cache() -> None:
    """Store compiled code in the user's cache, or in JAX_COMPILATION_CACHE_DIR, for other processes.

    Compiled code is valid for one kind of processor, which XLA does not check; so each kind has its own folder. On some
    processors XLA prints a long warning, which is harmless, for every program that it loads from there. This function
    turns the warnings off, but only if it is called before jax is imported, when XLA reads the variable.
    """
    if "jax" not in sys.modules:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # ty: ignore[missing-attribute]  # defined at run time
        folder = user_cache_path("fusedff") / "compiled" / _processor()
        _drop_half_stored(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", 2**30)


def _drop_half_stored(folder: Path) -> None:
    """Delete programs that a killed process was storing; JAX stores no others while one lacks its access-time file."""
    try:
        with FileLock(folder / ".lockfile", timeout=5):
            for program in folder.glob("*-cache"):
                if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                    program.unlink(missing_ok=True)
    except (OSError, Timeout):  # the folder does not exist, cannot be written, or is locked by another process
        pass


def _processor():
    described = Path("/proc/cpuinfo")
    kept = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    lines = described.read_text().splitlines() if described.exists() else [platform.processor()]
    features = {line for line in lines if line.startswith(kept)} or set(lines)
    return hashlib.sha256("\n".join(sorted(features)).encode()).hexdigest()[:12]
