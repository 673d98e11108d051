"""How far a filled style (`report.tables.fill`) orders methods as the paper does: a row per backbone and column."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pet_bench.report.published import average, name_of
from pet_bench.report.statistics.agreement import Agreement, Correlation, agreement, extremes
from pet_bench.report.summary import primary_scores
from pet_bench.report.tables.fill import Filled, with_same
from pet_bench.report.tables.markup import markdown_line, markdown_text
from pet_bench.report.tables.style import Column

HEADER = ("backbone", "score", "methods", "n", "Kendall's τ-b", "Spearman's ρ")


def agreements(filled: Filled, frame: pd.DataFrame) -> pd.DataFrame:
    """frame: the tidy results that the style was filled with.

    Columns: backbone (as published), ours, column, without (the methods left out, joined by ", "), n, kendall,
    `kendall low`, `kendall high` (95 % by `report.statistics.agreement`), spearman and so on. Twice each: with all
    methods that both have, and without the best and the worst published in the style's last column; once where there
    are none.
    """
    rows = []
    scores = primary_scores(with_same(frame[frame.control == "none"], filled.style)[0])
    for backbone, printed in filled.frame.drop_duplicates(["backbone", "method"]).groupby("backbone", sort=False):
        ranked = printed.set_index("method")[f"{filled.style.columns[-1].name} published"]
        present = [method for method, n in zip(printed.method, printed.n, strict=True) if n]
        ends = extremes(ranked[present].astype(float))
        for column in filled.style.columns:
            ours, theirs = _ours(scores, printed, column), printed.set_index("method")[f"{column.name} published"]
            for without in dict.fromkeys(((), ends)):  # of a backbone without results there are no ends
                place = {"backbone": backbone, "ours": printed.ours.iloc[0], "column": column.name}
                rows.append(place | _row(agreement(ours, theirs, without)))
    return pd.DataFrame(rows)


def _ours(scores: pd.DataFrame, printed: pd.DataFrame, column: Column) -> pd.DataFrame:
    """The scores of a column: a row per method, a column per seed. A relative gain has the order of what gains."""
    keys = ["suite", "backbone", "method", "setup"]
    wanted = printed[["suite", "ours", "method", "setup"]].set_axis(keys, axis=1)
    own = scores.merge(wanted, on=keys)
    by_task = own.pivot_table(index=["method", "seed"], columns="task", values="value", aggfunc="mean")
    by_task = by_task.reindex(columns=list(column.tasks)).astype(float)
    return average(by_task[task] for task in column.tasks).unstack("seed")


def _row(found: Agreement) -> dict[str, object]:
    numbers: dict[str, object] = {
        key: value
        for name, of in (("kendall", found.kendall), ("spearman", found.spearman))
        for key, value in {name: of.value, f"{name} low": of.low, f"{name} high": of.high}.items()
    }
    return {"without": ", ".join(found.without), "n": found.n} | numbers


def to_rich(table: pd.DataFrame, title: str) -> Table:
    view = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, name in enumerate(HEADER):
        view.add_column(name, justify="left" if index < 3 else "right", no_wrap=index < 2)
    for row in _texts(table):
        view.add_row(*row)
    view.caption, view.caption_justify = "\n".join(NOTES), "left"
    return view


def to_markdown(table: pd.DataFrame, title: str) -> str:
    lines = [f"### {markdown_text(title)}", "", markdown_line(HEADER), markdown_line([":--"] * 3 + ["--:"] * 3)]
    lines += [markdown_line(map(markdown_text, row)) for row in _texts(table)]
    return "\n".join([*lines, "", *(f"- {markdown_text(note)}" for note in NOTES)]) + "\n"


NOTES = (
    "95 % in brackets: a bootstrap over methods and, within them, over our seeds, 2,000 draws; published scores as "
    "they are",
    "without …: the methods whose published score in the last column is the best and the worst of those that both have",
)


def _texts(table: pd.DataFrame) -> Iterator[list[str]]:
    for row in table.to_dict("records"):
        left_out = " and ".join(name_of(method) for method in row["without"].split(", ") if method)
        correlations = (
            Correlation(row[name], row[f"{name} low"], row[f"{name} high"]) for name in ("kendall", "spearman")
        )
        which = f"without {left_out}" if left_out else "all"
        backbone = f"{row['backbone']} (ours: {row['ours']})" if row["ours"] != row["backbone"] else row["backbone"]
        yield [backbone, row["column"], which, str(row["n"]), *map(_text, correlations)]


def _text(of: Correlation) -> str:
    if of.value != of.value:
        return "–"
    text = f"{of.value:.2f}" + ("" if of.low != of.low else f" ({of.low:.2f} to {of.high:.2f})")
    return text.replace("-", "−")
