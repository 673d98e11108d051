"""What tuning chose: the appendix of a tuned table, and the lines beneath it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pet_bench.grid.plan.tuning import RATE, Chosen, Tuning
from pet_bench.report.tables.markup import markdown_line, markdown_text
from pet_bench.spec import plain


def tuned(tuning: Tuning) -> pd.DataFrame:
    """A row per backbone, suite and method.

    Columns: backbone, suite, method, tries, lr (chosen), `lr from`, `lr to` (tried), size (the option's name and its
    chosen value), `sizes` (tried), validation (of the chosen, mean over tasks), edge (of which of them the chosen one
    is the least or the largest tried).
    """
    return pd.DataFrame([_row(one) for one in tuning.chosen])


def _row(one: Chosen) -> dict[str, object]:
    rates = [tried[RATE] for tried in one.tried]
    keys = [key for key in one.tried[0] if key not in (RATE, "validation")]
    sizes = {key: sorted({tried[key] for tried in one.tried}) for key in keys}
    best = max((tried["validation"] for tried in one.tried if tried["validation"] is not None), default=None)
    return {
        "backbone": one.backbone, "suite": one.suite, "method": one.method, "tries": len(one.tried),
        "lr": one.values[RATE], "lr from": min(rates), "lr to": max(rates),
        "size": ", ".join(f"{key}={plain(one.values.get(key, one.tried[0][key]))}" for key in keys),
        "sizes": "; ".join(", ".join(map(plain, values)) for values in sizes.values()),
        "validation": best, "edge": ", ".join(key.removeprefix("recipe.") for key in one.edges),
    }  # fmt: skip


def tuning_notes(tuning: Tuning, seeds: int) -> Iterator[str]:
    """How a table's trials were tuned, and where a range may have been too narrow."""
    if not tuning.chosen:
        yield "not tuned yet: pet-bench run makes the tries"
        return
    rates = f"×{min(tuning.rates):g} to ×{max(tuning.rates):g}"
    sizes = f", then sizes ×{', ×'.join(f'{f:g}' for f in tuning.sizes)} of it at the best" if tuning.sizes else ""
    counts = sorted({len(one.tried) for one in tuning.chosen})
    tries = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    of_tries = f"seed{'s' * (len(tuning.seeds) > 1)} {', '.join(map(str, tuning.seeds))}"
    yield (
        f"tuned: {tries} tries a method and backbone, of rates {rates} of its own{sizes}, each by the validation "
        f"splits with {of_tries}; then {seeds} seeds that no try had; what was chosen: tuning.md"
    )
    if edges := [f"{one.method} on {one.backbone} ({key.removeprefix('recipe.')})"
                 for one in tuning.chosen for key in one.edges]:  # fmt: skip
        yield f"caution: chosen at the edge of what was tried: {', '.join(edges)}"


def to_markdown(table: pd.DataFrame, notes: list[str]) -> str:
    """The appendix as a Markdown table with the notes above it."""
    lines = [f"* {markdown_text(note)}" for note in notes]
    rows = [["" if value is None or value != value else markdown_text(plain(value)) for value in row]
            for row in table.itertuples(index=False)]  # fmt: skip
    body = [markdown_line(table.columns), markdown_line(["---"] * len(table.columns)), *map(markdown_line, rows)]
    return "\n".join([*lines, "", *body, ""])
