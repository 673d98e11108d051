"""The front page of a site: all grids of a results folder, who leads where, and the way to each grid's own page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

import pandas as pd

from pet_bench.report.page.numbers import Key
from pet_bench.report.summary import comparison, named, scored

HEADS = ("grid", "backbone", "average", "leading", "methods", "seeds", "trials", "hours", "suite")
NUMBERS = {"methods", "seeds", "trials", "hours", "average"}
SHOWN = 4  # methods that lead, at most
NOTES = (
    "leading: the highest mean of the average over tasks, with the methods that are not significantly worse, where "
    "that leaves out half of them or more (bold on the grid's page); otherwise nothing leads, and the highest is named",
    "average: its mean ± sample standard deviation over seeds, of the metrics as the tasks' papers scale them",
    "hours: wall time of training and evaluation, of all trials of the grid there",
)


@dataclass(frozen=True)
class Grid:
    """A grid's results, as `report` reads them. best: as `significantly_best` marks."""

    name: str
    frame: pd.DataFrame
    best: Collection[Key]


def site(grids: Sequence[Grid], title: str = "All grids") -> str:
    """The front page, as HTML; a grid's own page is `<name>/index.html`."""
    rows = [row for grid in grids for row in _rows(grid)]
    trials = sum(grid.frame.id.nunique() for grid in grids)
    cells = "\n".join(f"        <tr>{''.join(_cell(name, row[name]) for name in HEADS)}</tr>" for row in rows)
    return Template((files("pet_bench.report.page") / "site.html").read_text("utf-8")).substitute(
        title=escape(title),
        style=(files("pet_bench.report.page") / "page.css").read_text("utf-8"),
        summary=f"{len(grids)} grids, {trials:,} trials",
        heads="".join(_cell(name, name, "th") for name in HEADS),
        rows=cells,
        notes="".join(f"<li>{escape(note)}</li>" for note in NOTES),
    )


def _rows(grid: Grid) -> Iterator[dict[str, Any]]:
    """One for each suite on a backbone."""
    table = comparison(grid.frame)
    table = table.assign(shown=named(table))[table.kind == "method"]
    for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False):
        trials = scored(grid.frame[(grid.frame.suite == suite) & (grid.frame.backbone == backbone)])
        trials = trials.drop_duplicates("id")
        if group.average.notna().sum() == 0:
            continue
        ranked = group.sort_values("average", ascending=False, na_position="last", kind="stable")
        first = ranked.iloc[0]
        marked = {(method, setup) for at, on, method, setup, score in grid.best
                  if (at, on, score) == (suite, backbone, "average")}  # fmt: skip
        leading = [str(row["shown"]) for row in ranked.to_dict("records") if (row["method"], row["setup"]) in marked]
        leading = leading or [f"none significantly ({first['shown']} is highest)"]
        more = f" and {len(leading) - SHOWN} more" if len(leading) > SHOWN else ""
        spread = f" ± {first['average std']:.2f}" if pd.notna(first["average std"]) else ""
        yield {
            "grid": f'<a href="{quote(grid.name)}/index.html">{escape(grid.name)}</a>',
            "suite": escape(str(suite)),
            "backbone": escape(str(backbone)),
            "methods": len(group),
            "seeds": trials.seed.nunique(),
            "trials": len(trials),
            "hours": f"{(trials.train_seconds.sum() + trials.eval_seconds.sum()) / 3600:.1f}",
            "leading": escape(", ".join(leading[:SHOWN])) + more,
            "average": f"{first.average:.2f}{spread}",
        }


def _cell(name: str, value: Any, kind: str = "td") -> str:
    text = "" if name in NUMBERS else f' class="text {name}"'
    return f"<{kind}{text}>{value}</{kind}>"
