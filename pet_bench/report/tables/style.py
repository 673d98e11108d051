"""A style: a table that a paper prints, as a YAML file beside the CSV file with its numbers.

`results/published` has ours. An installed package offers its own through the entry-point group `pet_bench.styles`, a
loose file with `--plugin`: `STYLE = read_style(Path(__file__).with_name("my-table.yaml"))`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.files import read_yaml
from pet_bench.spec import STRICT, validate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, config=STRICT)
class Reference:
    """The method that relative gains are over. name: as running text calls it."""

    method: str
    name: str


@dataclass(frozen=True, config=STRICT)
class Column:
    """Scores: the primary metric of a task or, with several tasks, the average over them.

    published: its column in the published table (and `<published>_std`). relative: the relative gain (%) over this
    method, of both, instead.
    """

    name: str
    tasks: tuple[str, ...]
    published: str
    relative: Reference | None = None

    @property
    def score(self) -> str:
        """What it is called in `report.summary.comparison`."""
        return self.tasks[0] if len(self.tasks) == 1 else "average"


@dataclass(frozen=True, config=STRICT)
class Printed:
    """A backbone of a paper's: its name there, and which of the mini world's stands in for it."""

    name: str
    stand_in: str | None = None


@dataclass(frozen=True, config=STRICT)
class Style:
    """A table of a paper.

    table: the published numbers, a CSV file in `folder`; of its rows those on `backbones`, in its order; methods:
    instead, these. stand_in: the suites of the mini world, the first that there are results of, that fill the table
    where no results of `suite` do; a table of them is no claim about the real one. The last column is the one that
    methods are ranked by. same: methods that are another one's model to the bit, whose results stand for theirs where
    theirs were not run. seeds: how many the published rows have, where known. source: what the published numbers are
    called. names, marks: of methods, name and [colour, marker] (`report.marks`), where they are other than
    `results/published/methods.yaml` says.
    """

    plugin_kind: ClassVar[str] = "style"
    name: str
    title: str
    suite: str
    table: str
    backbones: dict[str, Printed]
    columns: tuple[Column, ...]
    stand_in: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    same: dict[str, str] = field(default_factory=dict)
    seeds: int | None = None
    notes: tuple[str, ...] = ()
    source: str = "published"
    names: dict[str, str] = field(default_factory=dict)
    marks: dict[str, tuple[str, str]] = field(default_factory=dict)
    folder: str = ""

    @property
    def file(self) -> Path:
        return Path(self.folder, f"{self.table}.csv")

    def published(self) -> pd.DataFrame:
        """The published rows in this table's order, indexed by (backbone, method); NaN where we have no number."""
        import pandas as pd

        table = pd.read_csv(self.file)
        if "suite" in table:
            table = table[table.suite == self.suite]
        table = table.set_index(["backbone", "method"])
        if self.methods:
            rows = pd.MultiIndex.from_product([list(self.backbones), list(self.methods)], names=table.index.names)
            return table.reindex(rows)
        return table[table.index.isin(list(self.backbones), level=0)]


def read_style(path: Path) -> Style:
    """The style in a YAML file, its table beside it; raises UserError with every fault."""
    what = f'style "{path.name}"'
    style = validate(Style, read_yaml(path, what), what)
    assert isinstance(style, Style)
    return replace(style, folder=str(path.parent))


def faults(plugin: Any) -> Iterator[str]:
    """What keeps an object from being a style, a line each."""
    if not isinstance(plugin, Style):
        yield "it is no pet_bench.report.tables.style.Style"
        return
    if not plugin.file.is_file():
        yield f'its table "{plugin.file.name}" is not beside it'
        return
    known = list(plugin.published().columns)
    for column in plugin.columns:
        if column.published not in known:
            yield f'its table has no column "{column.published}" (possible: {", ".join(known)})'
    for method, (_, marker) in plugin.marks.items():
        from pet_bench.report.marks import MARKERS

        if marker not in MARKERS:
            yield f'marks: {method}: there is no marker "{marker}" (possible: {" ".join(MARKERS)})'
