"""Trials that a search stops early: where it can, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Iterable

from pet_bench.errors import UserError
from pet_bench.grid.plan.search import validations
from pet_bench.grid.plan.spec import Grid
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Point, Run, TrialResult
from pet_bench.spec import TrialSpec


def check_executor(grid: Grid, executor: str) -> None:
    """Raises UserError where trials are to be stopped early but run one after the other."""
    if executor == "inline" and grid.search and grid.search.early_stopping:
        raise UserError(
            "search: early_stopping compares trials that run side by side on Ray Tune: with --executor inline, take "
            "early_stopping out of the grid file"
        )


def stopped(spec: TrialSpec, points: Iterable[Point], started: str, run: Run | None = None) -> TrialResult:
    """What is recorded of a trial that ASHA stopped: its learning curve so far, and no scores."""
    points = list(points)
    last = next(reversed(validations(points)), None)
    return TrialResult(
        id=spec.id,
        status="stopped_early",
        error="stopped by ASHA" + (f" after epoch {last.epoch:g} (validation {last.score:.2f})" if last else ""),
        spec=spec.to_dict(),
        provenance=provenance(started),
        run=run or Run(),
        curve=points,
    )
