"""What methods cost: parameters, memory, time."""

from __future__ import annotations

import pandas as pd

from pet_bench.report.summary import scored

COSTS = {
    "trainable": ("trainable parameters", 1),
    "peak_memory_bytes": ("peak memory in training (GiB)", 2**30),
    "train_seconds": ("training time (minutes)", 60),
}


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy results to a row per suite, backbone, method and setup (no controls): means over trials.

    Columns: average, `average std` (sample), those of `COSTS` in their units, device (all, joined), n and suspect.
    """
    rows = scored(frame)
    trials = rows[rows.control == "none"].drop_duplicates("id")
    groups = trials.groupby(["suite", "backbone", "method", "setup"], sort=False)
    table = groups.agg(**{cost: (cost, "mean") for cost in COSTS}, average=("average", "mean"), n=("id", "size"))
    table["average std"] = groups.average.std(ddof=1)
    table["suspect"] = groups.status.agg(lambda status: status.eq("suspect").sum())
    table["device"] = groups.device.agg(lambda names: ", ".join(sorted(set(names.dropna()))))
    for cost, (_, unit) in COSTS.items():
        table[cost] = table[cost].astype(float) / unit
    return table.reset_index()
