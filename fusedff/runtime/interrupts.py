"""Ctrl-C that always interrupts."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

_JAX_CLEANS_UP = "_xla_gc_callback"  # called by Python's garbage collector, often while a program is compiled


@contextmanager
def interruptible() -> Generator[None]:
    """Context in which Ctrl-C raises KeyboardInterrupt soon, also where it would be lost.

    Python drops all exceptions in callbacks of its garbage collector, and jax has such a callback. So an interruption
    there is repeated a moment later. Signals that somebody else handles, and other threads, are left alone.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handle(number, frame):
        if frame is not None and frame.f_code.co_name == _JAX_CLEANS_UP:
            main = threading.main_thread().ident  # where it also ends a call that waits
            threading.Timer(0.1, signal.pthread_kill, [main, number]).start()
        else:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
