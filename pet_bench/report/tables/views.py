"""The comparison table (`report.summary.comparison`) for the terminal and as Markdown and CSV."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, field
from html import escape as html_escape

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pet_bench.report.summary import KINDS, tasks_of


@dataclass(frozen=True)
class Cell:
    text: str
    bold: bool = False


@dataclass
class Section:
    """One suite on one backbone: a header and rows by kind."""

    title: str
    header: list[str]
    rows: dict[str, list[list[Cell]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


def sections(table: pd.DataFrame, best: Collection[tuple[str, ...]] = ()) -> list[Section]:
    """The comparison as text, bold where (suite, backbone, method, setup, score) is in `best`."""
    found = []
    for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False):
        scores = [task for task in [*tasks_of(table), "average"] if task == "average" or group[task].notna().any()]
        ranked = ["rank"] * int(group["rank"].notna().any())
        section = Section(f"{suite} on {backbone}", ["method", "trainable %", "parameters", *scores, *ranked, "n"])
        for _, row in group.iterrows():
            cells = [Cell(row.method if row.kind != "control" else f"{row.method}, {row.control}")]
            cells.append(Cell("–" if pd.isna(row.percent) else f"{row.percent:.2f}"))
            cells.append(Cell("–" if pd.isna(row.trainable) else f"{row.trainable:,.0f}"))
            for score in scores:
                bold = row.kind == "method" and (suite, backbone, row.method, row.setup, score) in best
                cells.append(Cell(_score(row[score], row[f"{score} std"]), bold))
            cells += [Cell("–" if pd.isna(row["rank"]) else f"{row['rank']:.2f}") for _ in ranked]
            cells.append(Cell(_count(row)))
            section.rows[row.kind].append(cells)
        found.append(section)
    return found


def _score(mean: float, std: float) -> str:
    if pd.isna(mean):
        return "–"
    return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"


def _count(row: pd.Series) -> str:
    if row.kind == "majority":
        return "–"
    count = f"{row.n}" if row.n == row.trials else f"{row.n} of {row.trials}"
    return f"{count}†" if row.suspect else count


def to_rich(table: pd.DataFrame, beneath: list[str], best: Collection[tuple[str, ...]] = ()) -> list[Table]:
    """Terminal tables; what is in `best` bold, controls and the majority answer under a rule."""
    tables = []
    for section in sections(table, best):
        view = Table(title=section.title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
        for index, name in enumerate(section.header):
            view.add_column(name, justify="right" if index else "left", no_wrap=not index)
        for kind in KINDS:
            for cells in section.rows[kind]:
                texts = [f"[bold]{escape(cell.text)}[/bold]" if cell.bold else escape(cell.text) for cell in cells]
                view.add_row(*texts, style=None if kind == "method" else "dim")
            view.add_section()
        tables.append(view)
    if tables:
        tables[-1].caption, tables[-1].caption_justify = escape("\n".join(beneath)), "left"
    return tables


def to_text(table: pd.DataFrame, beneath: list[str], best: Collection[tuple[str, ...]] = (), width: int = 160) -> str:
    """The terminal tables without colours."""
    file = io.StringIO()
    console = Console(file=file, width=width)
    for view in to_rich(table, beneath, best):
        console.print(view)
    return file.getvalue()


def to_markdown(table: pd.DataFrame, beneath: list[str], best: Collection[tuple[str, ...]] = ()) -> str:
    """Markdown tables; what is in `best` **bold**, controls and majority in italics."""
    lines = []
    for section in sections(table, best):
        lines += [f"### {section.title}", "", _line(section.header)]
        lines.append(_line([":--"] + ["--:"] * (len(section.header) - 1)))
        for kind in KINDS:
            for first, *rest in section.rows[kind]:
                name = _plain(first.text) if kind == "method" else f"*{_plain(first.text)}*"
                lines.append(_line([name] + [f"**{cell.text}**" if cell.bold else cell.text for cell in rest]))
        lines.append("")
    return "\n".join(lines + [f"- {_plain(note)}" for note in beneath]) + "\n"


def _plain(text: str) -> str:
    return html_escape(text, quote=False).replace("|", r"\|").replace("*", r"\*").replace("_", r"\_")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(table: pd.DataFrame) -> str:
    """The comparison's numbers, unrounded."""
    return table.to_csv(index=False, lineterminator="\n")
