"""What methods cost: parameters, memory, time; what their answers take, and what they forget."""

from __future__ import annotations

import pandas as pd

from pet_bench.report.summary import scored

COSTS = {
    "trainable": ("trainable parameters", 1),
    "peak_memory_bytes": ("peak memory in training (GiB)", 2**30),
    "train_seconds": ("training time (minutes)", 60),
}
ASIDE = {  # what results of before do not say
    "forgetting": ("forgetting, text (loss a token)", 1),
    "forgetting_tasks": ("forgetting, held-out tasks (loss a token)", 1),
    "flops": ("MFLOPs an example", 1e6),
    "merged_flops": ("MFLOPs an example, merged", 1e6),
    "latency_seconds": ("latency (ms an example)", 1e-3),
    "merged_latency_seconds": ("latency, merged (ms an example)", 1e-3),
    "p99_memory_bytes": ("99th percentile of memory (MiB)", 2**20),
}


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy results to a row per suite, backbone, method and setup (no controls): means over trials.

    Columns: average, `average std` (sample), those of `COSTS` and `ASIDE` in their units, the latter with their `std`
    too, device (all, joined), texts (that forgetting is of, joined), n and suspect.
    """
    units = {cost: unit for cost, (_, unit) in (COSTS | ASIDE).items()}
    rows = scored(frame)
    trials = rows[rows.control == "none"].drop_duplicates("id")
    told = ["forgetting_text", *units]
    trials = trials.reindex(columns=[*dict.fromkeys([*trials.columns, *told])]).astype(dict.fromkeys(units, float))
    groups = trials.groupby(["suite", "backbone", "method", "setup"], sort=False)
    table = groups.agg(**{cost: (cost, "mean") for cost in units}, average=("average", "mean"), n=("id", "size"))
    for name in ("average", *ASIDE):
        table[f"{name} std"] = groups[name].std(ddof=1)
    table["suspect"] = groups.status.agg(lambda status: status.eq("suspect").sum())
    for name, values in (("device", "device"), ("texts", "forgetting_text")):
        table[name] = groups[values].agg(lambda names: ", ".join(sorted(set(names.dropna()))))
    for cost, unit in units.items():
        table[cost] /= unit
        if cost in ASIDE:
            table[f"{cost} std"] /= unit
    return table.reset_index()


def known(table: pd.DataFrame) -> list[str]:
    """Those of `ASIDE` that some row of `costs` has."""
    return [cost for cost in ASIDE if table[cost].notna().any()]
