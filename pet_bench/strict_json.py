"""JSON to the letter of its standard."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pet_bench.errors import shortened

DEPTH = 64  # of nested lists and mappings; nothing that is read here has ten
DIGITS = 64  # of an integer


def decode_json(text: str) -> Any:
    """The one value of a text.

    Raises ValueError for a key given twice, NaN and infinities, integers of more than 64 digits, half a surrogate pair
    and nesting deeper than 64; its kind JSONDecodeError for what is no JSON at all.
    """
    value, end = json_value(text, _after_space(text, 0))
    if (rest := _after_space(text, end)) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return value


def json_value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at this place of a text, and where it ends; raises as `decode_json`."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError(f"nested too deeply (possible: {DEPTH} levels)") from None
    _check(value)
    return value, end


def integer(digits: str) -> int:
    """Raises ValueError for more than 64 digits."""
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits (possible: {DIGITS})")
    return int(digits)


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None  # it may be empty
    return space.end()


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(mapping := dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"key {shortened(repr(twice))} is given twice")
    return mapping


_DECODER = json.JSONDecoder(object_pairs_hook=_mapping, parse_int=integer)
_SPACE = re.compile(r"[ \t\n\r]*")
_HALF = re.compile("[\ud800-\udfff]")


def _check(data: Any) -> None:
    """Depth, NaN, numbers that overflow (1e999) and halves of surrogate pairs; without recursion."""
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"nested too deeply (possible: {DEPTH} levels)")
        below: list[Any] = []
        for value in level:
            if (kind := type(value)) is dict:
                below += value
                below += value.values()
            elif kind is list:
                below += value
            elif (kind is float and not math.isfinite(value)) or (
                kind is str and not value.isascii() and _fault(value)
            ):
                raise ValueError(f"{_place_of_fault(data)}{_fault(value)}")
        level = below


def _fault(value: Any) -> str | None:
    """What is wrong with a number or a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"no number, found {value}"
    if isinstance(value, str) and _HALF.search(value):
        return f"half of a surrogate pair in {shortened(ascii(value))}"
    return None


def _place_of_fault(data: Any) -> str:
    """Where the first fault is: `row 3.label.yes: `."""
    left = [("", data)]
    while left:
        place, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{place}{key}.", item) for key, item in reversed(value.items())]
            left += [(place, key) for key in value]
        elif isinstance(value, list):
            left += [(f"{place}row {number}.", item) for number, item in reversed([*enumerate(value)])]
        elif _fault(value):
            return f"{place.removesuffix('.')}: " if place else ""
    return ""
