"""Plain text, and cells, as Markdown and LaTeX want them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from pet_bench.report.tables.cells import Cell

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "−": r"$-$", "ρ": r"$\rho$",
        "†": r"$\dagger$", "–": "--", "…": r"\ldots{}", "→": r"$\rightarrow$", "≤": r"$\le$", "≥": r"$\ge$",
    }
)  # fmt: skip


def markdown_text(text: str) -> str:
    return escape(text, quote=False).replace("|", r"\|").replace("*", r"\*").replace("_", r"\_")


def markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex_text(text: str) -> str:
    return text.translate(LATEX)


def latex_cell(cell: Cell, missing: str) -> str:
    mean, std = cell.texts()
    text = latex_text(mean or missing) + (rf"\,{{\tiny$\pm$\,{std}}}" if std else "")
    return rf"\textbf{{{text}}}" if cell.best else text


def latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
