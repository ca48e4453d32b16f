"""Sections of a settings file as settings: known names, values of the right kind, one clear error for what is not."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import get_args, get_type_hints

_WORDS = {
    float: "a number", int: "a whole number", str: "text in quotation marks", list: "a list", dict: "a section",
}  # fmt: skip


def require_known(said, known, where: str) -> None:
    """Raise ValueError for a setting that is not `known`, naming the nearest one that is."""
    for name in said:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{where}: setting {name!r} is unknown; {hint}")


def made(kind, said: Mapping, where: str):
    """A dataclass from a section with its fields; those without a default are needed. ValueError for what is wrong.

    Fields are annotated as float, int, str, list or dict, or one of them and None.
    """
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, get_type_hints(kind)
    require_known(said, fields, where)
    for name, field in fields.items():
        if name not in said and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: {name!r} is missing; add it")
    for name, value in said.items():
        wanted = [option for option in (get_args(hints[name]) or (hints[name],)) if option in _WORDS]
        if not any(_fits(value, option) for option in wanted):
            raise ValueError(f"{where}: {name} = {value!r} is not {_WORDS[wanted[0]]}; correct it")
    try:
        return kind(**said)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _fits(value, option) -> bool:
    if option is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, option) and not isinstance(value, bool)


def changed(settings, said: Mapping, where: str):
    """Settings with the fields of a section of the file; a section within it changes settings within them."""
    fields = [field.name for field in dataclasses.fields(settings)]
    require_known(said, fields, where)
    values = {}
    for name, value in said.items():
        before = getattr(settings, name)
        if dataclasses.is_dataclass(before) != isinstance(value, dict):
            remedy = f"make it a section [{name}]" if dataclasses.is_dataclass(before) else "it has no settings inside"
            raise ValueError(f"{where}: {name} = {value!r} does not fit; {remedy}")
        if isinstance(before, tuple) and not isinstance(value, list):
            raise ValueError(f"{where}: {name} = {value!r} is not {_WORDS[list]}; correct it")
        if isinstance(value, dict):
            values[name] = changed(before, value, f"{where}, [{name}]")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return dataclasses.replace(settings, **values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
