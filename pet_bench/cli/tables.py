"""Tables on a terminal of any width: no name and no number is broken; what does not fit is left out and said."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table


def print_tables(views: Sequence[Table], least: Sequence[str] | None = None, keep: int = 1) -> None:
    """Print tables one below the other, each without the columns for which the terminal is too narrow.

    least: the columns that may be left out, by their headers, the first first; by default all but the first `keep`,
    from the right. Where stdout is no terminal and COLUMNS is not set, nothing is left out.
    """
    from rich.console import Console

    console, whole = Console(highlight=False), 0
    out: dict[str, None] = {}
    bounded = console.is_terminal or "COLUMNS" in os.environ
    for view in views:
        needed, left, narrow = fitted(view, least, keep, console.width if bounded else None)
        out |= dict.fromkeys(left)
        whole = max(whole, needed if left else 0)
        # what must stand is not cut off either: the terminal wraps its lines
        Console(width=max(console.width, _measured(narrow)), highlight=False).print(narrow)
    if out:
        hint = f"columns left out at this width: {', '.join(out)}; COLUMNS={whole} shows them"
        console.print(hint, soft_wrap=True, markup=False)


def fitted(view: Table, least: Sequence[str] | None, keep: int, width: int | None) -> tuple[int, list[str], Table]:
    """The width that the whole table needs at least, the columns left out at `width`, and the table that is left."""
    names, needs = [_name(column) for column in view.columns], [_needs(column) for column in view.columns]
    order = names[: keep - 1 : -1] if least is None else [name for name in least if name in names]
    kept, left = list(range(len(names))), []

    def taken() -> int:
        return _measured(_narrowed(view, kept, {i: needs[i][0] for i in kept}))

    whole = taken()
    while width is not None and taken() > width and order:
        left.append(order.pop(0))
        kept = [i for i in kept if names[i] not in left]
    spare = None if width is None else max(0, width - taken())
    return whole, left, _narrowed(view, kept, _shared(needs, kept, spare))


def _shared(needs: list[tuple[int, int]], kept: list[int], spare: int | None) -> dict[int, int]:
    """The width of each column: what it needs, and of what is to spare what it can use."""
    widths: dict[int, int] = {}
    wishes = sorted(kept, key=lambda i: needs[i][1] - needs[i][0])
    for done, i in enumerate(wishes):
        low, high = needs[i]
        more = high - low if spare is None else min(high - low, spare // (len(wishes) - done))
        widths[i] = low + more
        spare = None if spare is None else spare - more
    return widths


def _narrowed(view: Table, kept: list[int], widths: dict[int, int]) -> Table:
    narrow, columns = copy(view), [view.columns[i] for i in kept]
    narrow.columns, narrow.rows = [], []
    for i, column in zip(kept, columns, strict=True):
        narrow.add_column(
            column.header, justify=column.justify, style=column.style, header_style=column.header_style,
            no_wrap=column.no_wrap, overflow=column.overflow, width=widths[i],
        )  # fmt: skip
    for row, *cells in zip(view.rows, *(column.cells for column in columns), strict=True):
        narrow.add_row(*cells, style=row.style, end_section=row.end_section)
    return narrow


def _needs(column: Column) -> tuple[int, int]:
    """The least width at which no word, and no number with what belongs to it, is broken; and the most it can use."""
    console = _ruler()
    head, cells = console.measure(column.header), [console.measure(cell) for cell in column.cells]
    whole = column.no_wrap or column.justify == "right"
    least = [head.minimum, *(cell.maximum if whole else cell.minimum for cell in cells)]
    most = max([head.maximum, *(cell.maximum for cell in cells)])
    return (min(max(least), 20) if column.overflow == "fold" and not whole else max(least)), most


def _measured(view: Table) -> int:
    return _ruler().measure(view).maximum


def _name(column: Column) -> str:
    from rich.text import Text

    header = column.header
    text = header if isinstance(header, Text) else Text.from_markup(str(header))
    return " ".join(text.plain.split())


def _ruler() -> Console:
    from rich.console import Console

    return Console(width=10_000)
