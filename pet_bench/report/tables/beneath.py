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
    places = len(frame[["suite", "backbone"]].drop_duplicates())
    for mark, group in (("† suspect", trials), ("suspect, not in any mean", unused)):
        for reason, alike in group[group.status == "suspect"].groupby("error", sort=False, dropna=False):
            lines += [f"{mark}: {name}: {reason}" for name in _names(alike, places)]
    lines += _scopes(trials)
    lines += _ran(trials, places)
    lines += _lacking(trials, places)
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


def _ran(trials: pd.DataFrame, places: int) -> list[str]:
    """A line on those that did not run with all weights in float32, whole batches and the same software throughout."""
    which = {
        f"{how}frozen weights in {kept}": _names(trials[trials.frozen == kept], places)
        for kept, how in (("bfloat16", ""), ("4bit", "quantised, "))
    }
    split = trials[trials.accumulation > 1].groupby("accumulation", sort=False)
    which["in parts of each batch"] = [
        f"{name} (accumulation {parts:.0f})" for parts, group in split for name in _names(group, places)
    ]
    other = trials[trials.notes.str.contains(OTHER_SOFTWARE, regex=False)]
    which["resumed with other software than they began with"] = _names(other, places)
    line = "; ".join(f"{how}: {', '.join(names)}" for how, names in which.items() if names)
    return [line] if line else []


def _lacking(trials: pd.DataFrame, places: int) -> list[str]:
    """A line for each set of examples that trials left out for want of a feature."""
    return [
        f"caution: without examples whose images are missing ({which}): "
        + ("all trials" if len(group) == len(trials) else ", ".join(_names(group, places)))
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


def _names(trials: pd.DataFrame, places: int) -> list[str]:
    """`lora, text-only, seeds 0 to 4`, with suite and backbone where the table has several places."""
    return [
        f"{method}{'' if control == 'none' else f', {control}'}, {_seeds(sorted(seeds))}"
        + (f", {suite} on {backbone}" if places > 1 else "")
        for (method, control, suite, backbone), seeds in trials.groupby(
            ["method", "control", "suite", "backbone"], sort=False
        ).seed
    ]


def _seeds(seeds: list[int]) -> str:
    """`seed 3`, `seeds 0 to 4, 7 and 9`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    texts = [text for run in runs for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return ("seed " if len(seeds) == 1 else "seeds ") + " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
