"""Tables of the pages that are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + " :-- |" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows), ""])


def cell(text: str) -> str:
    """A text that stays in its cell."""
    return " ".join(text.split()).replace("|", r"\|")


def code(text: object) -> str:
    """A value as it is typed; nothing where there is none."""
    return f"`{text}`" if f"{text}" else ""


def plain(text: str) -> str:
    """A docstring whose angle brackets are no tags, outside of code."""
    return re.sub(r"(`[^`]*`)|<(?=[a-z])", lambda found: found[1] or "&lt;", text)
