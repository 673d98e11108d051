"""What is said beneath tables of tests and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pet_bench.report.statistics.ranking import ranks
from pet_bench.report.summary import tasks_of

if TYPE_CHECKING:
    from pet_bench.report.statistics.marking import Marked

EXAMPLES = "a paired bootstrap over examples"
SEEDS: dict[tuple[str, ...], str] = {
    ("Welch",): "Welch's t-test over seeds",
    ("paired t",): "a paired t-test over seeds",
    ("Welch", "paired t"): "a t-test over seeds (paired where both have the same, else Welch's)",
}


def marking_notes(tables: Sequence[Marked], several: bool) -> list[str]:
    """How it was decided what is bold. several: whether there are several tables in all."""
    if not tables:
        return []
    kinds = {kind for table in tables for kind in table.kinds}
    tests = [EXAMPLES] if "bootstrap" in kinds else []
    tests += [SEEDS[found]] if (found := tuple(kind for kind in ("Welch", "paired t") if kind in kinds)) else []
    if not tests:
        return ["nothing is bold: n = 1 and no predictions, so nothing can be tested"]
    how = tests[0] if len(tests) == 1 else f"the larger p of {' and '.join(tests)}, or that of both at once"
    counts = " or ".join(dict.fromkeys(str(table.comparisons) for table in tables))
    level = f"{how}, 5 % after Holm's correction over the {counts} comparisons of {'a' if several else 'the'} table"
    alike = [" on ".join(table.place) for table in tables if not table.best]
    any_bold = len(alike) < len(tables)
    lines = []
    if any_bold:
        lines.append(
            f"bold: not significantly worse than the best of the column ({level}), where at least half of its methods, "
            "rounded down, are"
        )
    if alike and (several or not any_bold):
        where = f" in {', '.join(alike)}" if several else ""
        how = "" if any_bold else f" ({level})"
        lines.append(f"nothing is bold{where}: fewer than half of a column's methods are significantly worse{how}")
    if any(table.one_seed for table in tables):
        lines.append("n = 1: only examples are tested; another seed may turn the order")
    return lines


def power_notes(tables: Sequence[Marked], several: bool) -> list[str]:
    """Which differences tables cannot show, a line each; none where one seed, or one method, tells nothing of it."""
    lines = []
    for table in tables:
        if (found := table.seen) is None:
            continue
        examples = f"{found.examples:,} examples" if found.examples else "examples not counted"
        line = (
            f"differences below {found.in_table:.1f} points ({found.column}) cannot be seen here (80 % power at 5 % / "
            f"{found.comparisons}, {found.seeds} seeds, {examples}; in a single comparison {found.alone:.1f}; "
            "pet-bench power GRID has more)"
        )
        lines.append(f"{' on '.join(table.place)}: {line}" if several else line)
    return lines


def rank_notes(table: pd.DataFrame) -> list[str]:
    """What the column `rank` of a comparison (`report.summary.comparison`) is, and which of its differences count."""
    lines = []
    sections = list(table[table["rank"].notna()].groupby(["suite", "backbone"], sort=False))
    for place, group in sections:
        ranking = ranks(group[tasks_of(table)].astype(float).dropna(axis=1, how="all"))
        line = f"rank: mean over {ranking.tasks} tasks among {len(ranking.mean)} methods, 1 the best"
        if np.isfinite(ranking.p):
            line += f" (Friedman's test: {_p(ranking.p)}"
            line += f"; apart by {ranking.critical:.2f} or more they differ, by Nemenyi at 5 %)"
        lines.append(f"{' on '.join(map(str, place))}: {line}" if len(sections) > 1 else line)
    return lines


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
