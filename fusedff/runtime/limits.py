"""Checks of the ranges of settings, called when a settings object is created.

Whole numbers have an upper bound, so that a typing error cannot start a run that never ends or fills the memory.
"""

from collections.abc import Iterable
from math import inf, isfinite
from numbers import Integral, Real

MAX_CUTOFF = 30.0  # Å; some 10 000 neighbours of every atom of a solid

MAX_VALUES = {  # setting -> largest whole number and the reason for it; one million for all other settings
    "epochs": (100_000, "the batches of all epochs are drawn before the first"),
    "updates": (100_000, "every update may take a simulation of its own"),
    "replicas": (10_000, "every replica is a cell in memory"),
    "seed": (2**32 - 1, "larger ones begin again at 0"),
}


def require(settings, *, count=(), whole=(), positive=(), not_negative=(), repeats=()) -> None:
    """Raise ValueError, naming class, setting, value and range, unless the named attributes of `settings` are in range.

    `count` are whole numbers from 1 on, `whole` from 0 on, both up to `MAX_VALUES`; `positive` are numbers above 0,
    `not_negative` from 0 on; `repeats` are three whole numbers from 1 on (`are_repeats`).
    """
    for name in repeats:
        if not are_repeats(getattr(settings, name)):
            raise_invalid(settings, name, "give three whole numbers from 1 on")
    for names, kind, low, says in (
        (count, Integral, 1, "a whole number from 1 on"),
        (whole, Integral, 0, "a whole number from 0 on"),
        (positive, Real, 0, "a number above 0"),
        (not_negative, Real, 0, "0 or a number above"),
    ):
        for name in names:
            value = getattr(settings, name)
            good = isinstance(value, kind) and not isinstance(value, bool) and isfinite(value) and value >= low
            if not good or (names is positive and value == 0):
                raise_invalid(settings, name, f"give {says}")
            if kind is Integral:
                most, why = MAX_VALUES.get(name, (1_000_000, "no run with more comes to its end"))
                between(settings, name, high=most, why=f"give {most} at most, {why}")


def are_repeats(value) -> bool:
    """Whether a value is three whole numbers from 1 on: the repeats of a cell along its vectors."""
    counts = list(value) if isinstance(value, Iterable) else []
    return len(counts) == 3 and all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in counts)


def between(settings, name: str, low: float = -inf, high: float = inf, why: str = "") -> None:
    """Raise ValueError unless low <= setting <= high; `why` ends the message, with the range or its reason."""
    if not low <= getattr(settings, name) <= high:
        raise_invalid(settings, name, why)


def one_of(settings, name: str, choices) -> None:
    """Raise ValueError unless the setting is one of `choices`."""
    if getattr(settings, name) not in choices:
        raise_invalid(settings, name, f"use one of {', '.join(choices)}")


def raise_invalid(settings, name: str, remedy: str) -> None:
    """Raise ValueError that names class, setting and value, and ends with `remedy`."""
    value = getattr(settings, name)
    said = repr(value) if isinstance(value, str) else value  # in quotation marks, where they are what is wrong
    raise ValueError(f"{type(settings).__name__}: {name} = {said}; {remedy}")
