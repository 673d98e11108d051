"""One self-contained HTML page of a grid's results: leaderboard, costs, learning curves, question types, examples.

Nothing is loaded from anywhere: style, script, numbers and pictures are in the file, and its Content-Security-Policy
lets nothing but its own script run. In a notebook:

    frame = pet_bench.load_results("demo")
    Path("page.html").write_text(page(frame, curves=pet_bench.load_curves("demo")), encoding="utf-8")
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import pandas as pd

from pet_bench.report.costs import ASIDE, COSTS, costs, known
from pet_bench.report.marks import ON_DARK
from pet_bench.report.page.examples import Shown
from pet_bench.report.page.numbers import Key, add_breakdowns, add_curves, leaderboard
from pet_bench.report.page.predictions import said_by_example
from pet_bench.report.statistics import rank_notes
from pet_bench.report.summary import comparison, scored
from pet_bench.report.tables.beneath import notes as table_notes
from pet_bench.report.tables.beneath import skipped_notes

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Skipped


def page(
    frame: pd.DataFrame,
    *,
    curves: pd.DataFrame | None = None,
    breakdowns: pd.DataFrame | None = None,
    predictions: pd.DataFrame | None = None,
    shown: Mapping[tuple[str, str], Mapping[str, Shown]] | None = None,
    notes: Sequence[str] | None = None,
    best: Collection[Key] = (),
    skipped: Sequence[Skipped] = (),
    title: str = "Results",
    count: int = 100,
    seed: int = 0,
) -> str:
    """The page of the trials in `frame` (`pet_bench.load_results`), as HTML.

    curves, breakdowns, predictions: of at least these trials, as `pet_bench.load_curves` and so on give them; what is
    left out is no part of the page. shown: by suite and task the test's examples by id
    (`report.page.examples.examples`); without them only ids and answers are seen. notes: lines beneath the leaderboard,
    by default those on metrics, trials and ranks. best: (suite, backbone, method, setup, score) of what is bold
    (`report.statistics.significantly_best`). skipped: what the grids leave out, rows without numbers. count: examples
    of each task, see `choose`.
    """
    table = comparison(frame, skipped)
    if notes is None:
        notes = [*skipped_notes(skipped), *table_notes(frame), *rank_notes(table)]
    places = [
        leaderboard(str(suite), str(backbone), group, frame, set(best))
        for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False)
    ]
    where = {
        key: (index, number)
        for index, place in enumerate(places)
        for number, row in enumerate(place["rows"])
        if (key := row.pop("key"))
    }
    used = set(scored(frame).id)
    told = {*COSTS, *known(costs(frame))}
    if curves is not None:
        add_curves(places, where, curves[curves.id.isin(used)])
    if breakdowns is not None:
        add_breakdowns(places, where, breakdowns[breakdowns.id.isin(used)])
    data = {
        "notes": list(notes),
        "dark": ON_DARK,
        "costs": {name: what for name, (what, _) in (COSTS | ASIDE).items() if name in told},
        "places": places,
        "examples": {},
        "pictures": [],
    }
    if predictions is not None:
        predictions = predictions[predictions.id.isin(used)].astype({"score": float})
        data |= said_by_example(where, predictions, shown or {}, count, seed)
    return _html(title, data)


def _html(title: str, data: dict[str, Any]) -> str:
    parts = {
        suffix: (files("pet_bench.report.page") / f"page.{suffix}").read_text("utf-8")
        for suffix in ("html", "css", "js")
    }
    own = b64encode(sha256(parts["js"].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{own}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {"policy": policy, "title": escape(title), "style": parts["css"], "script": parts["js"]}
    return Template(parts["html"]).substitute(values, data=_json(data))


def _json(data: Any) -> str:
    """JSON that can stand in a <script>: no character that HTML could take for markup, nor half of a surrogate pair."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    return text.encode("utf-8", "backslashreplace").decode()
