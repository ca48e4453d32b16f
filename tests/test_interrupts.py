"""Ctrl-C where Python would drop it."""

import gc
import signal
import time

import pytest

from fusedff.runtime.interrupts import interruptible


@pytest.fixture
def collected():
    """Callbacks of the garbage collector, in which Ctrl-C arrives at the first collection, and where it is slow."""
    arrived = []

    def interrupted(phase, info):
        if not arrived:
            arrived.append(phase)
            signal.raise_signal(signal.SIGINT)
            called()

    def called():
        time.sleep(0)  # where Python looks for signals

    def slow(phase, info):  # the repeated signal comes here
        time.sleep(0.15)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # an earlier test may have left another
    gc.disable()  # no collection before the one that the test asks for
    gc.callbacks.extend([interrupted, slow])
    yield arrived
    gc.callbacks.remove(interrupted)
    gc.callbacks.remove(slow)
    gc.enable()
    signal.signal(signal.SIGINT, before)


def test_an_interruption_during_a_collection_comes_a_moment_later(collected):
    def collect_and_go_on():
        gc.collect()
        assert collected
        time.sleep(10)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible():
        collect_and_go_on()
    assert time.monotonic() - began < 8
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
