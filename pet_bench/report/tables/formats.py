"""A filled style (`report.tables.fill.Filled`) for the terminal and as Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from html import escape as html_escape
from itertools import chain
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pet_bench.report.tables.cells import Cell, Role, Row, Trials
from pet_bench.report.tables.fill import TEXT, WHOLE, Filled
from pet_bench.report.tables.markup import latex_cell, latex_line, latex_text, markdown_line, markdown_text


def header(filled: Filled) -> list[str]:
    return ["method", "", "trainable %", *(column.name for column in filled.style.columns), "n"]


def blocks(filled: Filled) -> Iterator[tuple[str, list[list[Row]]]]:
    """By backbone the rows: each a line of ours, a published one and, where there are any, of differences."""
    for backbone, rows in filled.frame.groupby("backbone", sort=False):
        name = filled.style.backbones[str(backbone)].name + (f" (ours: {rows.ours.iloc[0]})" if filled.mini else "")
        yield name, [_lines(index, row, filled) for index, row in zip(rows.index, rows.to_dict("records"), strict=True)]


def _lines(index: int, row: dict[Any, Any], filled: Filled) -> list[Row]:
    names = [column.name for column in filled.style.columns]
    percent, theirs = row["percent"], row["percent published"]
    ours = [Cell.of(percent, role=Role.PERCENT)]
    published = [Cell.of(theirs, role=Role.PERCENT)]
    for name in names:
        ours.append(Cell.of(row[name], row[f"{name} std"], row["n"], best=(index, name) in filled.bold))
        published.append(Cell.of(row[f"{name} published"], row[f"{name} published std"], row["n published"]))
    source = filled.style.source if any(pd.notna(row[f"{name} published"]) for name in names) else "published"
    trials = None if row.get("skipped") else Trials(row["n"], row["trials"], row["suspect"])
    seeds = None if pd.isna(row["n published"]) else Trials(row["n published"], row["n published"])
    lines = [
        Row("ours", (row["name"], "ours"), tuple(ours), trials),
        Row("published", ("", source), tuple(published), seeds, ""),
    ]
    differences = [] if filled.mini else [row[f"{name} difference"] for name in names]
    if any(map(pd.notna, differences)):
        cells = (Cell.of(value, role=Role.DIFFERENCE) for value in [percent - theirs, *differences])
        lines.append(Row("difference", ("", "difference"), tuple(cells), missing=""))
    return lines


def to_rich(filled: Filled) -> Table:
    """The terminal's table; published numbers dim."""
    view = Table(title=escape(filled.title), box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, name in enumerate(header(filled)):
        view.add_column(name, justify="left" if index < 2 else "right", no_wrap=index < 2)
    for backbone, rows in blocks(filled):
        view.add_row(f"[bold]{backbone}[/bold]")
        for row in chain(*rows):
            texts = zip(map(escape, row.texts()), row.best(), strict=True)
            cells = [f"[bold]{text}[/bold]" if best else text for text, best in texts]
            view.add_row(*cells, style=None if row.kind == "ours" else "dim")
        view.add_section()
    view.caption, view.caption_justify = escape("\n".join(filled.notes)), "left"
    return view


def to_markdown(filled: Filled) -> str:
    """A Markdown table per backbone, under a heading with the title."""
    names, parts = header(filled), [f"### {markdown_text(filled.title)}", ""]
    for backbone, rows in blocks(filled):
        parts += [f"**{markdown_text(backbone)}**", "", markdown_line(names)]
        parts.append(markdown_line([":--"] * 2 + ["--:"] * (len(names) - 2)))
        for row in chain(*rows):
            texts = zip(row.texts(), row.best(), strict=True)
            parts.append(markdown_line(f"**{text}**" if best else markdown_text(text) for text, best in texts))
        parts.append("")
    return "\n".join(parts + [f"- {markdown_text(note)}" for note in filled.notes]) + "\n"


def to_latex(filled: Filled) -> str:
    r"""A `table*` with booktabs to `\input`; compiles with any LaTeX."""
    names, by_backbone = [latex_text(name) for name in header(filled)], list(blocks(filled))
    long = sum(len(row) for _, rows in by_backbone for row in rows) > 45  # of a page
    lines = [
        r"% \usepackage{booktabs}", r"\begin{table*}[p]", r"\centering",
        rf"\caption{{{latex_text(filled.title)}.}}", rf"\label{{tab:{filled.style.name}}}",
        r"\scriptsize" if long else r"\footnotesize", r"\setlength{\tabcolsep}{2.5pt}",
        rf"\begin{{tabular}}{{ll{'r' * (len(names) - 2)}}}", r"\toprule", latex_line(names),
    ]  # fmt: skip
    for backbone, rows in by_backbone:
        lines += [r"\midrule", rf"\multicolumn{{{len(names)}}}{{l}}{{\textbf{{{latex_text(backbone)}}}}} \\"]
        for index, group in enumerate(rows):
            lines += [r"\addlinespace[2pt]"] * bool(index)
            for row in group:
                cells = (latex_cell(cell, row.missing) for cell in row.cells)
                lines.append(latex_line([*map(latex_text, row.labels), *cells, latex_text(row.count())]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", r"\begin{minipage}{\textwidth}", r"\scriptsize"]
    lines += [rf"{latex_text(note.removesuffix('.'))}.\par" for note in filled.notes]
    return "\n".join([*lines, r"\end{minipage}", r"\end{table*}", ""])


OURS, BOLD = ' class="ours"', ' class="best"'
PAGE_STYLE = "body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2rem; }"
STYLE_SHEET = """
 .filled table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
 .filled caption { text-align: left; font-weight: 600; padding: 0 0 .6rem; }
 .filled :is(th, td) { padding: .12rem .7rem; text-align: right; white-space: nowrap; }
 .filled :is(th:nth-child(-n+2), td:nth-child(-n+2), tbody th) { text-align: left; }
 .filled thead th { border-top: 2px solid #222; border-bottom: 1px solid #222; }
 .filled tbody { border-bottom: 1px solid #222; }
 .filled tr td { color: #5a5a5a; }
 .filled tr.ours td { border-top: 1px solid #ddd; color: #222; }
 .filled td.best { font-weight: 700; }
 .filled ul { max-width: 60rem; padding-left: 1.1rem; font-size: .85em; color: #444; }
"""


def to_html(filled: Filled) -> str:
    """A page of its own, without anything from elsewhere."""
    parts = ["<!doctype html>", '<html lang="en">', '<meta charset="utf-8">']
    parts += [f"<title>{html_escape(filled.title)}</title>", f"<style>{PAGE_STYLE}</style>"]
    return "\n".join([*parts, to_fragment(filled), "</html>", ""])


def to_fragment(filled: Filled) -> str:
    """The same to be set in another page or a notebook, whose own tables it leaves as they are."""
    parts = ['<div class="filled">', f"<style>{STYLE_SHEET}</style>", "<table>"]
    parts.append(f"<caption>{html_escape(filled.title)}</caption>")
    names = "".join(f"<th>{html_escape(name)}</th>" for name in header(filled))
    parts.append(f"<thead><tr>{names}</tr></thead>")
    for backbone, rows in blocks(filled):
        parts += ["<tbody>", f'<tr><th colspan="{len(header(filled))}">{html_escape(backbone)}</th></tr>']
        for row in chain(*rows):
            texts = zip(row.texts(), row.best(), strict=True)
            cells = "".join(f"<td{BOLD * best}>{html_escape(text)}</td>" for text, best in texts)
            parts.append(f"<tr{OURS * (row.kind == 'ours')}>{cells}</tr>")
        parts.append("</tbody>")
    parts += ["</table>", "<ul>", *(f"<li>{html_escape(note)}</li>" for note in filled.notes), "</ul>", "</div>"]
    return "\n".join(parts)


def to_csv(filled: Filled) -> str:
    """The numbers, unrounded."""
    return filled.frame.to_csv(index=False, lineterminator="\n")


def read_csv(text: str) -> pd.DataFrame:
    """The frame that `to_csv` wrote, equal to the last bit."""
    names = pd.read_csv(io.StringIO(text), nrows=0).columns
    kinds = {name: str if name in TEXT else "Int64" if name in WHOLE else "float64" for name in names}
    frame = pd.read_csv(io.StringIO(text), dtype=kinds, float_precision="round_trip")
    return frame.fillna({name: "" for name in TEXT if name in frame})


FORMATS: dict[str, tuple[str, Callable[[Filled], str]]] = {
    "markdown": ("md", to_markdown),
    "latex": ("tex", to_latex),
    "csv": ("csv", to_csv),
    "html": ("html", to_html),
}
