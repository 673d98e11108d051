"""The comparison table (`report.summary.comparison`) for the terminal and as Markdown and CSV."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pet_bench.report.summary import KINDS, tasks_of
from pet_bench.report.tables.cells import Cell, Role, Row, Trials
from pet_bench.report.tables.markup import markdown_line, markdown_text

Best = Collection[tuple[str, ...]]


@dataclass
class Section:
    """One suite on one backbone: a header and rows by kind."""

    title: str
    header: list[str]
    rows: dict[str, list[Row]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


def sections(table: pd.DataFrame, best: Best = ()) -> list[Section]:
    """The comparison's rows, with those scores best whose (suite, backbone, method, setup, score) is in `best`."""
    made = []
    for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False):
        scores = [task for task in [*tasks_of(table), "average"] if task == "average" or group[task].notna().any()]
        ranked = ["rank"] * int(group["rank"].notna().any())
        section = Section(f"{suite} on {backbone}", ["method", "trainable %", "parameters", *scores, *ranked, "n"])
        for row in group.to_dict("records"):
            section.rows[row["kind"]].append(_row(row, scores, bool(ranked), best))
        made.append(section)
    return made


def _row(row: dict[Any, Any], scores: list[str], ranked: bool, best: Best) -> Row:
    key = (row["suite"], row["backbone"], row["method"], row["setup"])
    cells = [Cell.of(row["percent"], role=Role.PERCENT), Cell.of(row["trainable"], role=Role.PARAMETERS)]
    for score in scores:
        bold = row["kind"] == "method" and (*key, score) in best
        cells.append(Cell.of(row[score], row[f"{score} std"], row["n"], best=bold))
    cells += [Cell.of(row["rank"], role=Role.RANK)] * ranked
    name = row["method"] if row["kind"] != "control" else f"{row['method']}, {row['control']}"
    counted = row["kind"] in ("method", "control")
    trials = Trials(int(row["n"]), int(row["trials"]), int(row["suspect"])) if counted else None
    return Row(row["kind"], (name,), tuple(cells), trials)


def to_rich(table: pd.DataFrame, beneath: list[str], best: Best = ()) -> list[Table]:
    """Terminal tables; what is in `best` bold, controls and the majority answer under a rule."""
    return rich_sections(sections(table, best), beneath)


def rich_sections(made: Sequence[Section], beneath: Sequence[str]) -> list[Table]:
    """Likewise of sections that are made."""
    tables = []
    for section in made:
        view = Table(title=section.title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
        for index, name in enumerate(section.header):
            view.add_column(name, justify="right" if index else "left", no_wrap=not index)
        for kind in KINDS:
            for row in section.rows[kind]:
                texts = zip(map(escape, row.texts()), row.best(), strict=True)
                cells = [f"[bold]{text}[/bold]" if bold else text for text, bold in texts]
                view.add_row(*cells, style=None if kind == "method" else "dim")
            view.add_section()
        tables.append(view)
    if tables:
        tables[-1].caption, tables[-1].caption_justify = escape("\n".join(beneath)), "left"
    return tables


def to_text(table: pd.DataFrame, beneath: list[str], best: Best = (), width: int = 160) -> str:
    """The terminal tables without colours."""
    file = io.StringIO()
    console = Console(file=file, width=width)
    for view in to_rich(table, beneath, best):
        console.print(view)
    return file.getvalue()


def to_markdown(table: pd.DataFrame, beneath: list[str], best: Best = ()) -> str:
    """Markdown tables; what is in `best` **bold**, what is no method with scores in italics."""
    return markdown_sections(sections(table, best), beneath)


def markdown_sections(made: Sequence[Section], beneath: Sequence[str]) -> str:
    """Likewise of sections that are made."""
    lines: list[str] = []
    for section in made:
        lines += [f"### {section.title}", "", markdown_line(section.header)]
        lines.append(markdown_line([":--"] + ["--:"] * (len(section.header) - 1)))
        for kind in KINDS:
            for row in section.rows[kind]:
                first, *rest = row.texts()
                name = markdown_text(first) if kind == "method" else f"*{markdown_text(first)}*"
                bold = (f"**{text}**" if best else text for text, best in zip(rest, row.best()[1:], strict=True))
                lines.append(markdown_line([name, *bold]))
        lines.append("")
    return "\n".join(lines + [f"- {markdown_text(note)}" for note in beneath]) + "\n"


def to_csv(table: pd.DataFrame) -> str:
    """The comparison's numbers, unrounded."""
    return table.to_csv(index=False, lineterminator="\n")
