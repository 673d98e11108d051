"""Tables of the pages that are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Without the columns in which nothing stands; nothing where there are no rows."""
    filled = [*zip(head, *rows, strict=True)]
    kept = [column for column in filled if any(column[1:])]
    if not kept:
        return ""
    first, *rest = zip(*kept, strict=True)
    lines = [f"| {' | '.join(first)} |", "|" + " :-- |" * len(first)]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rest), ""])


def cell(text: str) -> str:
    """A text that stays in its cell."""
    return re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or "&#124;", " ".join(text.split()))


def code(text: object) -> str:
    """A value as it is typed; nothing where there is none."""
    return f"`{text}`" if f"{text}" else ""


def plain(text: str) -> str:
    """A docstring whose angle brackets are no tags, outside of code."""
    return re.sub(r"(`[^`]*`)|<(?=[a-z])", lambda found: found[1] or "&lt;", text)
