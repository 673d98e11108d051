"""Ids under which a folder's results are found beside their own.

A default that changes makes another trial of what a grid says. Where the old result stands for the new trial too, say
because the two values compute the same, a row of `aliases.csv` in the folder says so: `old` (the id of a result), `new`
(the id that the grid has now) and `reason`. The old result is then finished, shown and counted in the place of the new
trial; a result of the new trial's own goes before it. A field with a neutral value (`pet_bench.identity`) needs no row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import TypeVar

from pet_bench.errors import Faults, UserError
from pet_bench.files import is_file, read_text, write_text
from pet_bench.results.schema import TrialResult

FILE = "aliases.csv"
ID = re.compile("[0-9a-f]{12}")
D = TypeVar("D")


@dataclass(frozen=True)
class Alias:
    """The result of trial `old` stands for trial `new`, and why."""

    old: str
    new: str
    reason: str


def read(folder: Path) -> dict[str, Alias]:
    """The rows of a folder by their new id; raises UserError, a line per fault, for a table that is none."""
    path, faults = Path(folder) / FILE, Faults()
    rows: dict[str, Alias] = {}
    if not is_file(path):
        return {}
    what, names = f'aliases "{path}"', [field.name for field in fields(Alias)]
    try:
        header, *lines = list(csv.reader(StringIO(read_text(path, what)), strict=True)) or [[]]
    except csv.Error as error:
        raise UserError(f"{what} is no valid CSV: {error}") from None
    if header != names:
        raise UserError(f"{what}: the first line is {','.join(header)}, expected {','.join(names)}")
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(names):
            faults.add(f"{what}: line {number} has {len(cells)} cells, expected {len(names)}")
            continue
        row = Alias(*cells)
        if fault := _fault(row, rows):
            faults.add(f"{what}: line {number}: {fault}")
        rows[row.new] = row
    faults.check()
    return rows


def _fault(row: Alias, before: dict[str, Alias]) -> str:
    for name, id in (("old", row.old), ("new", row.new)):
        if not ID.fullmatch(id):
            return f'{name} is "{id}", expected the 12 hex digits of an id'
    if row.old == row.new:
        return f"{row.new} stands for itself"
    if row.new in before:
        return f"{row.new} is there twice"
    return "" if row.reason.strip() else "the reason is missing"


def write(folder: Path, rows: Iterable[Alias]) -> None:
    """Write the table anew, in the order of its new ids; nothing where there are no rows."""
    if table := sorted(rows, key=lambda row: row.new):
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [[field.name for field in fields(Alias)], *([row.old, row.new, row.reason] for row in table)]
        )
        write_text(Path(folder) / FILE, text.getvalue())


def joined(folders: Iterable[Path]) -> list[Alias]:
    """The rows of several folders; raises UserError where they name different results for a trial."""
    rows: dict[str, Alias] = {}
    for folder in folders:
        for new, row in read(folder).items():
            if rows.setdefault(new, row).old != row.old:
                raise UserError(f'aliases "{folder / FILE}": {row.old} stands for {new}, elsewhere {rows[new].old}')
    return list(rows.values())


class Results(dict[str, TrialResult]):
    """Results by id. Whoever asks for a trial that has none of its own gets the one that stands for it, if any; going
    through them gives each once, under its own id."""

    def __init__(self, results: dict[str, TrialResult] | None = None, aliases: dict[str, Alias] | None = None):
        super().__init__(results or {})
        self.aliases = aliases or {}

    def own(self, id: object) -> object:
        """The id of the result that is had for a trial's."""
        alias = None if super().__contains__(id) else self.aliases.get(str(id))
        return alias.old if alias else id

    def __missing__(self, id: str) -> TrialResult:
        if (own := self.own(id)) == id:
            raise KeyError(id)
        return super().__getitem__(str(own))

    def __contains__(self, id: object) -> bool:
        return super().__contains__(self.own(id))

    def get(self, id: str, default: D | None = None) -> TrialResult | D | None:  # type: ignore[override]
        return self[id] if id in self else default  # noqa: SIM401  it is this very method

    def stands_in(self, id: str) -> str:
        """`result of trial 0123456789ab: the reason`, where another trial's stands for that trial; else nothing."""
        stands = id in self and not super().__contains__(id)
        return f"result of trial {self.aliases[id].old}: {self.aliases[id].reason}" if stands else ""

    def notes(self, ids: Iterable[str]) -> list[str]:
        """A line for each of these trials that another's result stands for."""
        return [f"trial {id} has the {line}" for id in ids if (line := self.stands_in(id))]
