"""`pet-bench report --html`: the page, with all that is read for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from pet_bench.grid.plan.spec import Skipped
    from pet_bench.report.page.examples import Shown
    from pet_bench.results.frames import Collected


def write_page(
    frame: pd.DataFrame,
    results: Collected,
    report: Path,
    notes: Sequence[str],
    *,
    best: Collection[tuple[str, ...]] = (),
    skipped: Sequence[Skipped] = (),
    data: Path | None = None,
    images: Path | None = None,
    examples: int = 100,
    title: str = "Results",
) -> Path:
    """Write `<report>/index.html` on the trials of `frame`, which are among `results`; gives its path.

    notes, best, skipped: as of the comparison table. data: root folder of the data sets, images: folder of their
    pictures (see `report.page.examples.examples`); of a suite that has no embedded data, examples are without text and
    pictures where `data` is not given, which the page says. examples: how many of each task.
    """
    from pet_bench.files import write_text
    from pet_bench.report.page import page
    from pet_bench.results import frames

    made = [of(results) for of in (frames.curves, frames.breakdowns, frames.predictions)]
    curves, breakdowns, predictions = (rows[rows.id.isin(frame.id)] for rows in made)
    path = report / "index.html"
    text = page(
        frame,
        curves=curves,
        breakdowns=breakdowns,
        predictions=predictions,
        shown=_shown(predictions, results, data, images),
        notes=notes,
        best=best,
        skipped=skipped,
        title=title,
        count=examples,
    )
    write_text(path, text)
    return path


def _shown(
    predictions: pd.DataFrame, results: Collected, data: Path | None, images: Path | None
) -> Mapping[tuple[str, str], dict[str, Shown]]:
    """The examples that were predicted, by suite and task, read as the trials' protocols say."""
    from pet_bench.data.suite import suite_by_name
    from pet_bench.errors import Faults
    from pet_bench.report.page.examples import examples

    shown: dict[tuple[str, str], dict[str, Shown]] = {}
    faults, seen = Faults(), []
    for key, rows in predictions.groupby(["suite", "task", "setup"], sort=False):
        suite, task, _ = map(str, key)
        if data is None and images is None and suite_by_name(suite).embedded is None:
            continue
        spec = results[rows.id.iloc[0]][0].spec
        wanted = suite, task, spec["protocol"].get(task, {}), set(rows.example)
        if wanted not in seen:
            seen.append(wanted)
            with faults:
                read = examples(suite, task, data, images, spec["protocol"], wanted[-1])
                shown[suite, task] = read | shown.get((suite, task), {})
    faults.check()
    return shown
