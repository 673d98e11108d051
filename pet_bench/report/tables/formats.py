"""A filled style (`report.styles.Filled`) for the terminal and as Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from html import escape as html_escape
from itertools import chain

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pet_bench.report.published import BACKBONES
from pet_bench.report.tables.styles import TEXT, WHOLE, Filled
from pet_bench.report.tables.views import Cell, _line, _plain

MISSING = "–"


def header(filled: Filled) -> list[str]:
    return ["method", "", "trainable %", *(column.name for column in filled.style.columns), "n"]


def blocks(filled: Filled) -> Iterator[tuple[str, list[list[list[Cell]]]]]:
    """By backbone the rows as text: each a line of ours, a published one and, where there are any, of differences."""
    for backbone, rows in filled.frame.groupby("backbone", sort=False):
        name = BACKBONES[backbone] + (f" (ours: {rows.ours.iloc[0]})" if filled.mini else "")
        yield name, [_lines(index, row, filled) for index, row in zip(rows.index, rows.to_dict("records"), strict=True)]


def _lines(index: int, row: dict, filled: Filled) -> list[list[Cell]]:
    names = [column.name for column in filled.style.columns]
    ours = [Cell(_score(row[name], row[f"{name} std"], MISSING), (index, name) in filled.bold) for name in names]
    published = [_score(row[f"{name} published"], row[f"{name} published std"], "") for name in names]
    source = filled.style.source if any(published) else "published"
    percent, theirs = row["percent"], row["percent published"]
    lines = [
        [*_cells(row["name"], "ours", _score(percent, None, MISSING)), *ours, Cell(_count(row))],
        _cells("", source, _score(theirs, None, ""), *published, _whole(row["n published"])),
    ]
    differences = [] if filled.mini else [row[f"{name} difference"] for name in names]
    if any(map(pd.notna, differences)):
        lines.append(_cells("", "difference", *map(_difference, [percent - theirs, *differences]), ""))
    return lines


def _cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def _score(mean: float, std: float | None, none: str) -> str:
    if pd.isna(mean):
        return none
    return f"{mean:.2f}".replace("-", "−") + ("" if pd.isna(std) else f" ± {std:.2f}")


def _difference(value: float) -> str:
    return "" if pd.isna(value) else f"{value:+.2f}".replace("-", "−")


def _whole(value: int) -> str:
    return "" if pd.isna(value) else str(value)


def _count(row: dict) -> str:
    if not row["trials"]:
        return "missing"
    count = f"{row['n']}" if row["n"] == row["trials"] else f"{row['n']} of {row['trials']}"
    return f"{count}†" if row["suspect"] else count


def to_rich(filled: Filled) -> Table:
    """The terminal's table; published numbers dim."""
    view = Table(title=escape(filled.title), box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, name in enumerate(header(filled)):
        view.add_column(name, justify="left" if index < 2 else "right", no_wrap=index < 2)
    for backbone, rows in blocks(filled):
        view.add_row(f"[bold]{backbone}[/bold]")
        for lines in rows:
            for line in lines:
                texts = [f"[bold]{escape(cell.text)}[/bold]" if cell.bold else escape(cell.text) for cell in line]
                view.add_row(*texts, style=None if line[1].text == "ours" else "dim")
        view.add_section()
    view.caption, view.caption_justify = escape("\n".join(filled.notes)), "left"
    return view


def to_markdown(filled: Filled) -> str:
    """A Markdown table per backbone, under a heading with the title."""
    names, parts = header(filled), [f"### {_plain(filled.title)}", ""]
    for backbone, rows in blocks(filled):
        parts += [f"**{_plain(backbone)}**", "", _line(names)]
        parts.append(_line([":--"] * 2 + ["--:"] * (len(names) - 2)))
        for line in chain(*rows):
            parts.append(_line([f"**{cell.text}**" if cell.bold else _plain(cell.text) for cell in line]))
        parts.append("")
    return "\n".join(parts + [f"- {_plain(note)}" for note in filled.notes]) + "\n"


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "−": r"$-$", "ρ": r"$\rho$",
        "†": r"$\dagger$", "–": "--", "…": r"\ldots{}", "→": r"$\rightarrow$", "≤": r"$\le$", "≥": r"$\ge$",
    }
)  # fmt: skip


def to_latex(filled: Filled) -> str:
    r"""A `table*` with booktabs to `\input`; compiles with any LaTeX."""
    names, by_backbone = [name.translate(LATEX) for name in header(filled)], list(blocks(filled))
    long = sum(len(row) for _, rows in by_backbone for row in rows) > 45  # of a page
    lines = [
        r"% \usepackage{booktabs}", r"\begin{table*}[p]", r"\centering",
        rf"\caption{{{filled.title.translate(LATEX)}.}}", rf"\label{{tab:{filled.style.name}}}",
        r"\scriptsize" if long else r"\footnotesize", r"\setlength{\tabcolsep}{2.5pt}",
        rf"\begin{{tabular}}{{ll{'r' * (len(names) - 2)}}}", r"\toprule", _row(names),
    ]  # fmt: skip
    for backbone, rows in by_backbone:
        lines += [r"\midrule", rf"\multicolumn{{{len(names)}}}{{l}}{{\textbf{{{backbone.translate(LATEX)}}}}} \\"]
        for index, row in enumerate(rows):
            lines += [r"\addlinespace[2pt]"] * bool(index)
            lines += [_row([rf"\textbf{{{_tex(cell)}}}" if cell.bold else _tex(cell) for cell in line]) for line in row]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", r"\begin{minipage}{\textwidth}", r"\scriptsize"]
    lines += [rf"{note.removesuffix('.').translate(LATEX)}.\par" for note in filled.notes]
    return "\n".join([*lines, r"\end{minipage}", r"\end{table*}", ""])


def _tex(cell: Cell) -> str:
    mean, plus_minus, std = cell.text.translate(LATEX).partition(r" $\pm$ ")
    return rf"{mean}\,{{\tiny$\pm$\,{std}}}" if plus_minus else mean


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


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
        for line in chain(*rows):
            cells = "".join(f"<td{BOLD * cell.bold}>{html_escape(cell.text)}</td>" for cell in line)
            parts.append(f"<tr{OURS * (line[1].text == 'ours')}>{cells}</tr>")
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
    return frame.fillna(dict.fromkeys(TEXT, ""))


FORMATS: dict[str, tuple[str, Callable[[Filled], str]]] = {
    "markdown": ("md", to_markdown),
    "latex": ("tex", to_latex),
    "csv": ("csv", to_csv),
    "html": ("html", to_html),
}
