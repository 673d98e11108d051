"""Markdown as repository hosts read it, for a reader that wants four columns in lists and lines between blocks."""

from __future__ import annotations

import re

ITEM = re.compile(r"( *)([*+-]|\d+[.)])( +)(?=\S)")
FENCE = re.compile(r" *(```+|~~~+)")
MARK = re.compile(r"^\[(?=[^\]]*\](?!\())")  # at the start of a line, "[BUG]" say: no link by reference
DETAILS = re.compile(r"^<details>", re.MULTILINE)


def for_python_markdown(page: str) -> str:
    """Continuations of list items move to four columns a level, lists begin after a blank line."""
    lines: list[str] = []
    depth: list[int] = []  # the column at which each open item's text begins
    fence, previous = "", ""
    for line in page.splitlines():
        bare = line.lstrip(" ")
        column = len(line) - len(bare)
        mark = FENCE.match(line)
        if not bare:
            lines.append("")
            previous = ""
            continue
        item = None if fence else ITEM.match(line)
        if not fence:
            level = sum(column >= start for start in depth)
            if not previous or item or mark:
                depth = depth[:level]
        shift = 4 * len(depth) - (depth[-1] if depth else 0)
        if item:
            if previous and not ITEM.match(previous) and not depth and not _within(lines):
                lines.append("")
            marker = f"{item[2]}{item[3]}"
            lines.append(" " * 4 * len(depth) + marker + bare[len(marker) :])
            depth.append(column + len(marker))
        else:
            text = bare if fence else MARK.sub(r"\[", bare)
            lines.append(" " * max(column + shift if depth else column, 0) + text)
        if mark:
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        previous = line
    return DETAILS.sub('<details markdown="1">', "\n".join(lines)) + "\n"


def _within(lines: list[str]) -> bool:
    """Whether the paragraph before belongs to a list's item."""
    for line in reversed(lines):
        if not line:
            return False
        if ITEM.match(line):
            return True
    return False
