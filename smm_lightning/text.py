"""Text that others wrote, where people see it: names of files and classes, notes, results."""

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NoReturn

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a spreadsheet computes begins with these
_TOO_LARGE = 2**63  # for the whole numbers of tensors and tables
_LONGEST_NUMBER = 20  # characters of one
_DEEPEST = 100  # levels of lists and groups; ours have ten


def printable(text: str) -> str:
    r"""The text with ``\x1b`` and the like for what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_a_line(text: object) -> str:
    """As :func:`printable`, with spaces for line breaks."""
    return printable(" ".join(str(text).split()))


def as_markdown(text: str) -> str:
    """What would mean something is escaped; underscores within a word do not."""
    return re.sub(r"[\\`*\[<&|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def csv_cell(value: Any) -> Any:
    """A value for a CSV that people may open as a spreadsheet: text is never a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def from_csv_cell(value: Any) -> Any:
    """What :func:`csv_cell` was given."""
    return value[1:] if isinstance(value, str) and value.startswith("'") else value


def same_form(name: str) -> str:
    """The same for names that look the same: Unicode writes é as one character or as two."""
    return unicodedata.normalize("NFC", name)


def same_but_form(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of ``names`` that differ from one of the others only in their Unicode form."""
    alike = {same_form(other): other for other in others}
    return [name for name in names if alike.get(same_form(name), name) != name]


def parsed_json(content: str | bytes) -> Any:
    """Of JSON from anywhere.

    Raises:
        ValueError: If it is none, is nested very deep, or holds numbers that no computer adds up:
            NaN, infinity, whole ones of more than 64 bits.
    """
    try:
        value = json.loads(
            content, parse_constant=_no_number, parse_int=_whole_number, parse_float=_number
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return value
    raise ValueError("nested too deep")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:30]} is no number")


def _whole_number(text: str) -> int:
    number = int(text) if len(text) <= _LONGEST_NUMBER else _TOO_LARGE
    return number if -_TOO_LARGE <= number < _TOO_LARGE else _no_number(text)


def _number(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _no_number(text)
