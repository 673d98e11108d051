"""`pet-bench report --style`: a paper's table with our results beside the published numbers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pet_bench.errors import UserError

if TYPE_CHECKING:
    from pet_bench.cli.report import Results
    from pet_bench.report.tables.fill import Filled


class TableFormat(StrEnum):
    TERMINAL, MARKDOWN, LATEX, CSV, HTML = "terminal", "markdown", "latex", "csv", "html"


def report_style(results: Results, name: str, format: TableFormat, agreement: bool = False) -> list[Path]:
    """Print a style in one format, and write it in all of them, with its figure. agreement: with how far it orders
    methods as the paper does."""
    import sys
    from dataclasses import replace

    from pet_bench.cli.tables import print_tables
    from pet_bench.files import write_text
    from pet_bench.report.tables.fill import fill, find
    from pet_bench.report.tables.formats import FORMATS, to_rich
    from pet_bench.results.provenance import commit

    filled = fill(results.frame, find(name), commit()[0], results.folders, results.skipped)
    if not {*results.frame.suite} & {*filled.frame.suite}:
        suites = ", ".join(dict.fromkeys(results.frame.suite))
        raise UserError(f"{name} is of the suite {filled.style.suite}, none of these trials is: they are of {suites}")
    filled = replace(filled, notes=(*filled.notes, *results.notes))
    texts = {kind: text_of(filled) for kind, (_, text_of) in FORMATS.items()}
    if format == TableFormat.TERMINAL:
        print_tables([to_rich(filled)], keep=2)
    else:
        sys.stdout.write(texts[format])
    written = []
    for kind, (suffix, _) in FORMATS.items():
        written.append(results.report / f"{name}.{suffix}")
        write_text(written[-1], texts[kind])
    if any(column.relative for column in filled.style.columns):
        from pet_bench.report.figures import relative_gain_figure, write

        written += write(relative_gain_figure(filled), results.report / f"{name}.png", (".png", ".svg", ".pdf"))
    return written + (_agreement(results, filled, format) if agreement else [])


def _agreement(results: Results, filled: Filled, format: TableFormat) -> list[Path]:
    """Print it on a terminal, and write it."""
    from pet_bench.cli.tables import print_tables
    from pet_bench.files import write_text
    from pet_bench.report.tables.agreement import agreements, to_markdown, to_rich

    table = agreements(filled, results.frame)
    title = f"{filled.style.title}: do our results order methods alike?"
    if format == TableFormat.TERMINAL:
        print_tables([to_rich(table, title)], keep=2)
    texts = {"md": to_markdown(table, title), "csv": table.to_csv(index=False, lineterminator="\n")}
    written = [results.report / f"{filled.style.name}-agreement.{suffix}" for suffix in texts]
    for path, text in zip(written, texts.values(), strict=True):
        write_text(path, text)
    return written
