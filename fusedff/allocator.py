"""Memory that XLA frees stays with the process, so that the next call finds it in place.

On CPUs XLA allocates the temporaries of every call anew, some 100 MB. glibc returns them to the system after each
call, and the next one spends half of its time on page faults. Importing fusedff tells glibc not to.
"""

import ctypes
import sys

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # parameters of mallopt(3)


def keep_freed_memory() -> None:
    """One heap that grows and is reused; what other allocators do is left alone."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
