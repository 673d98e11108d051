"""The notes beneath a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from pet_bench.report.summary import measured, scored
from pet_bench.results.plugins import differences, running
from pet_bench.results.schema import OTHER_SOFTWARE

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Skipped


def skipped_notes(skipped: Iterable[Skipped]) -> list[str]:
    """Why pairs of method and backbone are left out, a line each."""
    return list(dict.fromkeys(f"–: {one.method} on {one.backbone}, because {one.reason}" for one in skipped))


def notes(frame: pd.DataFrame, commit: str | None = None) -> list[str]:
    """What a reader must know beneath the table: the metrics, which trials are suspect or left out, and whether all
    rows are comparable. commit: of the running code, where known."""
    rows, lines = scored(frame), []
    for task, group in rows[rows.primary.eq(True)].groupby("task", sort=False):
        kinds = {f"{measured(row)}, {row['n']:.0f} examples" for row in group.to_dict("records")}
        lines.append(f"{task}: {'; '.join(sorted(kinds))}")
    trials = rows.drop_duplicates("id")
    if (trials.groupby(["suite", "backbone", "setup"]).size() > 1).any():
        lines.append("mean ± sample standard deviation over n seeds")
    unused = frame[~frame.id.isin(trials.id)].drop_duplicates("id")
    if len(unused):
        counts = {str(status): n for status, n in unused.status.value_counts().items()}
        lines.append("not in any mean: " + ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items()))
    names = _names(frame)
    for mark, group in (("† suspect", trials), ("suspect, not in any mean", unused)):
        for trial in group[group.status == "suspect"].to_dict("records"):
            lines.append(f"{mark}: {names[trial['id']]}: {trial['error']}")
    lines += _scopes(trials)
    lines += _ran(trials, names)
    lines += _lacking(trials, names)
    for suite, group in trials.groupby("suite", sort=False):
        if (count := group.data.nunique(dropna=False)) > 1:
            lines.append(f"caution: the results of {suite} were made with {count} different versions of the data")
    lines += _made(trials, commit)
    lines += differences(trials["plugins"], running()) if "plugins" in trials else []
    if trials.dirty.eq(True).any():
        lines.append("caution: some results were made with uncommitted changes to the code")
    labels = frame[["suite", "backbone", "method", "control", "setup"]].drop_duplicates()
    if labels.duplicated(["suite", "backbone", "method", "control"]).any():
        lines.append("caution: rows with the same name differ in their recipe or protocol")
    return lines


def _scopes(trials: pd.DataFrame) -> list[str]:
    """A line for each way in which parts of the models were frozen, trained and adapted, with the methods; and their
    backbones, where it was not the same on all."""
    told = trials[trials.scope.fillna("").ne("")] if "scope" in trials else trials[:0]
    ways = told.groupby("method").scope.nunique()
    names = [
        f"{method} on {backbone}" if ways[method] > 1 else method
        for method, backbone in zip(told.method, told.backbone, strict=True)
    ]
    grouped = told.assign(named=names).groupby("scope", sort=False)
    return [f"{how}: {', '.join(dict.fromkeys(group.named))}" for how, group in grouped]


def _ran(trials: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """A line on those that did not run with all weights in float32, whole batches and the same software throughout."""
    split, other = trials[trials.accumulation > 1], trials[trials.notes.str.contains(OTHER_SOFTWARE, regex=False)]
    which = {
        f"{how}frozen weights in {kept}": [names[id] for id in trials.id[trials.frozen == kept]]
        for kept, how in (("bfloat16", ""), ("4bit", "quantised, "))
    }
    which |= {
        "in parts of each batch": [
            f"{names[row['id']]} (accumulation {row['accumulation']:.0f})" for row in split.to_dict("records")
        ],
        "resumed with other software than they began with": [names[id] for id in other.id],
    }
    line = "; ".join(f"{how}: {', '.join(trials)}" for how, trials in which.items() if trials)
    return [line] if line else []


def _lacking(trials: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """A line for each set of examples that trials left out for want of a feature."""
    return [
        f"caution: without examples whose images are missing ({which}): "
        + ("all trials" if len(group) == len(trials) else ", ".join(names[id] for id in group.id))
        for which, group in trials[trials.dropped.ne("")].groupby("dropped", sort=False)
    ]


def _made(trials: pd.DataFrame, commit: str | None) -> list[str]:
    """A line on the commits they were made with, where these are several or not that of the running code."""
    made = {str(one): n for one, n in trials.commit.fillna("").value_counts(sort=False).items()}
    if len(made) > 1:
        which = (
            f"{one[:7] or 'unknown'} ({n} trial{'s' * (n != 1)}{', this code' * (one == commit)})"
            for one, n in made.items()
        )
        return [f"caution: made with {len(made)} different commits of pet-bench: {', '.join(which)}"]
    if not commit:
        return []
    other = [one for one in made if one not in ("", commit)]
    return [f"made with another commit of pet-bench ({one[:7]}) than this code ({commit[:7]})" for one in other]


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """Trial id → `lora, text-only, seed 0`, where need be with backbone and suite."""
    several = len(frame[["suite", "backbone"]].drop_duplicates()) > 1
    return {
        row["id"]: row["method"]
        + ("" if row["control"] == "none" else f", {row['control']}")
        + f", seed {row['seed']}"
        + (f", {row['suite']} on {row['backbone']}" if several else "")
        for row in frame.drop_duplicates("id").to_dict("records")
    }
