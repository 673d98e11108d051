"""Which tables of the hub are below a folder: shards put together, checked, and known by their columns."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pet_bench.data.convert.tables import SHARD, Layout, Table, columns_of
from pet_bench.errors import Faults, UserError

ALIKE = 0.5  # from which likeness on a table that has no layout is a damaged one of the most similar


@dataclass
class Found:
    """tables: by their layouts' names. unused: tables that are known, but not wanted, and why."""

    tables: dict[str, Table] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


class Hub:
    """The tables that parquet files make: those in one folder with one split's name.

    faults: files that are none, shards that are missing or of different copies.
    """

    def __init__(self, paths: Iterable[Path], folder: Path):
        self.faults, self.tables = Faults(), []
        shards: dict[tuple[Path, str, str], list[tuple[int, int | None, Path]]] = defaultdict(list)
        for path in paths:
            parts = path.relative_to(folder.parent).parts[:-1] if path.is_relative_to(folder.parent) else ()
            if path.suffix == ".tar":
                split, number = _numbered(path.stem) or _numbered(f"{path.parent.name}-{path.stem}") or (path.stem, 0)
                total = None
            elif match := SHARD.fullmatch(path.stem):
                split, number, total = match[1], int(match[2]), int(match[3])
            elif path.stem.isdigit() and len(parts) > 1:  # refs/convert/parquet: <config>/<split>/0000.parquet
                split, number, total, parts = parts[-1], int(path.stem), None, parts[:-1]
            else:
                split, number, total = path.stem, 0, None
            shards[path.parent, parts[-1] if parts else "", split].append((number, total, path))
        for (where, config, split), files in shards.items():
            with self.faults:
                self.tables.append(_table(where, config, split, sorted(files, key=lambda one: (one[0], one[2]))))

    def find(self, layouts: Sequence[Layout], known: Sequence[Layout]) -> Found:
        """The tables of these layouts. known: all that any converter has.

        Raises UserError where a table is there twice, and where one is like a layout and of none.
        """
        found, faults = Found(), Faults()
        for table in self.tables:
            columns = table.columns
            fitting = [layout for layout in layouts if not layout.differences(columns)]
            wanted = [x for x in fitting if fnmatchcase(table.split, x.split) and fnmatchcase(table.config, x.config)]
            for layout in wanted[:1]:
                other = found.tables.setdefault(layout.name, table)
                if other is not table:
                    faults.add(f"{layout.name}: {other} and {table} are both such tables; leave one of them")
            if fitting and not wanted:
                used = " or ".join(dict.fromkeys(_called(x.split, x.config) for x in fitting))
                found.unused.append(f"{table} is not used: it is {_called(table.split, table.config)}, used is {used}")
            if known and not fitting and all(layout.differences(columns) for layout in known):
                for said in _nearest(table, layouts, known):
                    faults.add(said)
        faults.check()
        return found

    def strange(self, known: Sequence[Layout]) -> list[str]:
        """A line for the tables that are of no layout."""
        strange = [table for table in self.tables if all(layout.differences(table.columns) for layout in known)]
        there = ", ".join(f"{name}: {kind}" for name, kind in strange[0].columns.items()) if strange else ""
        return (
            [f"{len(strange)} tables are none that is known; {strange[0]} has the columns {there}"] if strange else []
        )


def _nearest(table: Table, layouts: Sequence[Layout], known: Sequence[Layout]) -> list[str]:
    """What makes a table of no layout another than the one that it is most like; none if that is not one of these."""
    nearest = max(known, key=lambda layout: layout.likeness(table.columns))
    if nearest.likeness(table.columns) < ALIKE or nearest.name not in {layout.name for layout in layouts}:
        return []
    return [f"{table.shards[0]} is like {nearest.name}, but {said}" for said in nearest.differences(table.columns)]


def _numbered(name: str) -> tuple[str, int] | None:
    """`coco-train-000012` → train, 12; None where it names no split."""
    match = re.fullmatch(r"(?:.*[-_.])?([a-z]+)[-_.]?(\d+)", name)
    return (match[1], int(match[2])) if match else None


def _called(split: str, config: str) -> str:
    return f"split {split}" + (f" of {config}" if config not in ("", "*", "data") else "")


def _table(folder: Path, config: str, split: str, files: list[tuple[int, int | None, Path]]) -> Table:
    totals = {total for _, total, _ in files}
    if len(totals) > 1:
        said = " and ".join(sorted({path.name for _, total, path in files for path in [path]})[:2])
        raise UserError(f"{folder}: split {split} has files of different copies, such as {said}")
    numbers = [number for number, _, _ in files]
    if len({*numbers}) < len(numbers):
        twice = next(i for i in numbers if numbers.count(i) > 1)
        names = " and ".join(path.name for number, _, path in files if number == twice)
        raise UserError(f"{folder}: split {split} has files of different copies, such as {names}")
    expected = range(totals.pop() or max(numbers) + 1)
    if missing := sorted({*expected} - {*numbers}):
        raise UserError(
            f"{folder}: split {split} lacks {len(missing)} of {len(expected)} files, the first is {missing[0]:05d}"
        )
    if beyond := [path for number, _, path in files if number not in expected]:
        raise UserError(f"{beyond[0]} is numbered beyond the {len(expected)} files of its split")
    faults, columns = Faults(), {}
    for _, _, path in files:
        with faults:
            columns[path] = columns_of(path)
    faults.check()
    table = Table(folder, config, split, [path for *_, path in files], columns[files[0][2]])
    for path in table.shards:
        if columns[path] != table.columns:
            other = sorted(set(columns[path].items()) ^ set(table.columns.items()))[0]
            raise UserError(f"{path}: column {other[0]} is not as in {table.shards[0].name}: files of different copies")
    return table
