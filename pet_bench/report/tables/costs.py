"""The second table of a comparison: what answers take, and what was forgotten."""

from __future__ import annotations

import pandas as pd

from pet_bench.report.costs import costs, known
from pet_bench.report.summary import named
from pet_bench.report.tables.cells import Cell, Role, Row, Trials
from pet_bench.report.tables.views import Section

HEADS = {
    "latency_seconds": "latency ms",
    "merged_latency_seconds": "merged ms",
    "flops": "MFLOPs",
    "merged_flops": "merged MFLOPs",
    "p99_memory_bytes": "p99 MiB",
    "forgetting": "forgetting",
    "forgetting_tasks": "on tasks",
}
LEAST = ["p99 MiB", "merged ms", "latency ms", "merged MFLOPs", "MFLOPs", "n"]  # where they do not all fit
NOTES = {
    "latency_seconds": "latency: milliseconds an example in batches of the test, the median over batches; mean over "
    "tasks",
    "flops": "MFLOPs: millions of floating-point operations an example, products of matrices, convolutions and "
    "attention of one teacher-forced pass; mean over tasks",
    "merged_flops": "merged: with what the method adds folded into the backbone (–: cannot be, or nothing is added)",
    "p99_memory_bytes": "p99: 99th percentile of the memory in training and evaluation, reserved on a GPU, of the "
    "process on a CPU",
    "forgetting": "forgetting: loss a token on the backbone's own text after tuning minus before; more is worse",
    "forgetting_tasks": "on tasks: likewise on exercises of text alone that the backbone was pre-trained on, the mean "
    "over tasks",
}


def cost_sections(frame: pd.DataFrame) -> list[Section]:
    """A section for each suite and backbone of tidy results of which something of it is known, with what is known."""
    made = []
    table = costs(frame)
    for (suite, backbone), group in table.assign(name=named(table)).groupby(["suite", "backbone"], sort=False):
        if shown := known(group):
            section = Section(f"costs of {suite} on {backbone}", ["method", *(HEADS[cost] for cost in shown), "n"])
            ordered = group.sort_values("trainable", ascending=False, kind="stable")
            section.rows["method"] = [_row(row, shown) for row in ordered.to_dict("records")]
            made.append(section)
    return made


def _row(row: dict, shown: list[str]) -> Row:
    cells = []
    for cost in shown:
        forgot = cost.startswith("forgetting")
        role = Role.FORGETTING if forgot else Role.COST
        cells.append(Cell.of(row[cost], row[f"{cost} std"] if forgot else None, row["n"], role))
    return Row("method", (row["name"],), tuple(cells), Trials(int(row["n"]), int(row["n"]), int(row["suspect"])))


def cost_notes(frame: pd.DataFrame) -> list[str]:
    """What stands beneath these sections, and that rows do not compare where they were asked about different text."""
    table = costs(frame)
    lines = [NOTES[cost] for cost in known(table) if cost in NOTES]
    for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False):
        if len(texts := {text for text in group.texts if text}) > 1:
            lines.append(f"caution: forgetting of {suite} on {backbone} was measured on {len(texts)} different texts")
    return lines
