"""Read CSV tables: rows with their line numbers, and checked cells."""

import csv
import math
from pathlib import Path

from fusedff.runtime import storage

_MEND = "correct it, leave the cell empty if nothing was measured, or drop the row"


def read_text(path: Path) -> str:
    """The text of a table; FileNotFoundError, or ValueError if it is no UTF-8."""
    storage.require_file(path, "give the path of a CSV table")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text ({error.reason}); save it as UTF-8 CSV") from None


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of the header and each row, without `#` comments and blank lines; ValueError if empty."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    kept = [(number, text) for number, text in lines if text.strip() and not text.lstrip().startswith("#")]
    if not kept:
        raise ValueError(f"{path.name} is empty; give a header line and at least one row")
    number, first = kept[0]
    for character, name in ((";", "semicolons"), ("\t", "tabs")):
        if character in first and "," not in first:
            raise ValueError(
                f"{path.name}, line {number}: columns are separated by {name}; separate them by commas, with "
                "decimal points in numbers"
            )
    return [(number, _split(text, f"{path.name}, line {number}")) for number, text in kept]


def _split(text, where):
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True, skipinitialspace=True))]
    except csv.Error as error:
        raise ValueError(f"{where}: a quotation mark is out of place ({error}); correct the row") from None


def cells(columns: list[str], row: list[str], where: str) -> dict[str, str]:
    """The cells of a row by column; `where` (file, line) begins every error."""
    if len(row) != len(columns):
        remedy = "complete the row" if len(row) < len(columns) else "give one cell each, with decimal points in numbers"
        raise ValueError(f"{where}: {len(row)} cells under {len(columns)} columns; {remedy}")
    return dict(zip(columns, row, strict=True))


def number(cell: str, column: str, where: str) -> float:
    """A finite number, or ValueError."""
    try:
        value = float(cell if cell.isascii() and "_" not in cell else "")  # Python would read 1_000
    except ValueError:
        raise ValueError(f"{where}: {column} is {cell!r}, not a number; {_MEND}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: {column} is {cell}, not finite; {_MEND}")
    return value


def positive(cell: str, column: str, where: str) -> float:
    """A finite number above zero, or ValueError."""
    value = number(cell, column, where)
    if value <= 0:
        raise ValueError(f"{where}: {column} is {value:g}, but must be positive; correct or drop the row")
    return value
