"""Ctrl-C that always interrupts."""

import gc
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Generator[None]:
    """Context in which Ctrl-C raises KeyboardInterrupt soon, also where it would be lost.

    Python drops all exceptions in callbacks of its garbage collector, and jax has such a callback, which runs often
    while a program is compiled. So an interruption there is repeated a moment later. Signals that somebody else
    handles, and other threads, are left alone.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handle(number, frame):
        if _in_callback_of_collector(frame):
            main = threading.main_thread().ident  # where it also ends a call that waits
            threading.Timer(0.1, signal.pthread_kill, [main, number]).start()
        else:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_callback_of_collector(frame) -> bool:
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks} - {None}
    while frame is not None and frame.f_code not in callbacks:
        frame = frame.f_back
    return frame is not None
