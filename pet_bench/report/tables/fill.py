"""Results set in a paper's table (`report.tables.style`), ours beside the published numbers.

Nothing is dropped: a row without results of ours is there, and a published cell that we have no trustworthy copy of is
empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pet_bench.registry import STYLES
from pet_bench.report.published import average, name_of, relative_gain
from pet_bench.report.statistics import Folders, Marks, significantly_best
from pet_bench.report.summary import primary_scores, scored
from pet_bench.report.tables.beneath import notes, skipped_notes
from pet_bench.report.tables.style import Column, Style

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Skipped

CONVENTION = (
    "trainable %: 100 · trainable / total, the visual embedding included in both; total: the backbone after its "
    "vocabulary grew, tied embeddings counted once, and all that the method adds"
)
TEXT = ("backbone", "method", "name", "ours", "suite", "setup", "skipped")
WHOLE = ("n", "trials", "suspect", "trainable", "n published")


def find(name: str) -> Style:
    """A style by name; raises UserError naming those there are."""
    return STYLES.get(name)


@dataclass(frozen=True)
class Filled:
    """A style with results in it.

    frame: a row per method (several, where trials of one name differ in their recipe) with backbone and method as
    published, name, and ours, suite and setup (the backbone, suite and setup of our trials), n (trials in the means),
    trials (all), suspect (those of the n), `n published`, trainable, percent, `percent published`; for each column its
    mean, and with ` std`, ` published`, ` published std` and (not for the mini world) ` difference` after its name the
    rest; where a grid leaves out a pair of method and backbone, skipped, why. notes: what must stand beneath. mini:
    whether ours are the mini world's. bold: (index of the row, column) of our scores that are significantly best
    (`report.statistics.significantly_best`).
    """

    style: Style
    frame: pd.DataFrame
    notes: tuple[str, ...]
    mini: bool
    bold: frozenset[tuple[int, str]] = frozenset()

    @property
    def title(self) -> str:
        return self.style.title + ("; ours: the mini world, not comparable" if self.mini else "")


@dataclass(frozen=True)
class World:
    """Whose results fill a table: their suite, and by the published backbone theirs."""

    suite: str
    backbones: dict[str, str]
    mini: bool

    @classmethod
    def of(cls, style: Style, frame: pd.DataFrame) -> World:
        """The mini world's where there are results of it and none of the real world."""
        present = set(frame.suite)
        mini = None if style.suite in present else next((one for one in style.stand_in if one in present), None)
        if mini is None:
            return cls(style.suite, {backbone: backbone for backbone in style.backbones}, False)
        return cls(mini, {one: printed.stand_in or one for one, printed in style.backbones.items()}, True)


def fill(
    frame: pd.DataFrame,
    style: Style,
    commit: str | None = None,
    folders: Folders | None = None,
    skipped: Sequence[Skipped] = (),
) -> Filled:
    """Set tidy results (`results.store.to_frame`) in a style.

    A result fills the row of its method's label (by default its name) and its backbone, if its suite is the style's
    and it is no control. The mini world's results fill the table where there are none of the real world.
    commit: of the running code, for the notes. folders: where the predictions are; None: nothing is tested, or bold.
    skipped: what the grids leave out.
    """
    frame, stood_for = with_same(frame[frame.control == "none"], style)
    printed = style.published()
    world = World.of(style, frame)
    places = {(world.backbones[backbone], method) for backbone, method in printed.index}
    ours = frame.loc[[row.suite == world.suite and (row.backbone, row.method) in places for row in frame.itertuples()]]
    reasons = {(one.backbone, one.method): one for one in skipped}
    filled = pd.DataFrame(_rows(style, world, printed, ours, reasons))
    if not any(filled.skipped):
        filled = filled.drop(columns="skipped")
    filled = filled.astype({name: "Int64" if name in WHOLE else "float64" for name in filled if name not in TEXT})
    left_out = [one for place, one in reasons.items() if place in places and place not in set(_pairs(ours))]
    beneath = _world_notes(filled, style, world) if world.mini else []
    beneath += [*style.notes, CONVENTION, *skipped_notes(left_out), *_our_notes(frame, ours, style, commit)]
    beneath += [f"ours of {names}: the trials of the same model, run once" for names in [_listed(stood_for)] if names]
    marks = Marks() if folders is None else significantly_best(ours, folders)
    return Filled(style, filled, (*beneath, *marks.caption, *marks.power), world.mini, _bold(filled, style, marks))


def with_same(frame: pd.DataFrame, style: Style) -> tuple[pd.DataFrame, dict[str, str]]:
    """frame with, for each method of `style.same` that has no rows, those of its other name; and which these are."""
    stood_for = {
        method: other
        for method, other in style.same.items()
        if method not in set(frame.method) and other in set(frame.method)
    }
    copies = [frame[frame.method == other].assign(method=method) for method, other in stood_for.items()]
    return pd.concat([frame, *copies], ignore_index=True) if copies else frame, stood_for


def _listed(stood_for: dict[str, str]) -> str:
    return ", ".join(f"{name_of(method)} ({name_of(other)})" for method, other in stood_for.items())


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows.backbone, rows.method, strict=True))


def _rows(
    style: Style,
    world: World,
    printed: pd.DataFrame,
    ours: pd.DataFrame,
    reasons: dict[tuple[str, str], Skipped],
) -> list[dict[str, Any]]:
    """A row for each published one, and for each further setup of its method."""
    rows, scores, last = [], _scores(ours), style.columns[-1]
    for place, numbers in printed.iterrows():
        backbone, method = map(str, place)  # type: ignore[call-overload]  # of a frame with two levels
        own, here = ours[ours.backbone == world.backbones[backbone]], printed[printed.index.isin([backbone], level=0)]
        trials = own[own.method == method]
        setups: list[tuple[Any, pd.DataFrame]] = list(trials.groupby("setup", sort=False))
        for setup, group in setups or [("", trials)]:
            reason = reasons.get((world.backbones[backbone], method)) if group.empty else None
            row = {
                "backbone": backbone, "method": method, "name": style.names.get(method, name_of(method)),
                "ours": world.backbones[backbone], "suite": world.suite, "setup": setup,
                "skipped": reason.reason if reason else "",
            } | _counts(group)  # fmt: skip
            has_score = pd.notna(numbers[last.published])
            row |= {"n published": style.seeds if has_score else None, "percent published": numbers.trainable_percent}
            for column in style.columns:
                row |= _ours(column, scores, group, own) | _published(column, numbers, here)
                if not world.mini:
                    row[f"{column.name} difference"] = row[column.name] - row[f"{column.name} published"]
            rows.append(row)
    return rows


def _bold(filled: pd.DataFrame, style: Style, marks: Marks) -> frozenset[tuple[int, str]]:
    rows = filled[["suite", "ours", "method", "setup"]].to_dict("records")
    return frozenset(
        (index, column.name)
        for index, row in enumerate(rows)
        for column in style.columns
        if (*row.values(), column.score) in marks.best
    )


def _counts(trials: pd.DataFrame) -> dict[str, Any]:
    trials = trials.drop_duplicates("id")
    used = scored(trials)
    return {
        "n": len(used), "trials": len(trials), "suspect": used.status.eq("suspect").sum(),
        "trainable": used.trainable.max(), "percent": used.percent.max(),
    }  # fmt: skip


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """The primary scores: a row per trial, a column per task."""
    return primary_scores(rows).pivot(index="id", columns="task", values="value").astype(float)


def _ours(column: Column, scores: pd.DataFrame, trials: pd.DataFrame, backbone: pd.DataFrame) -> dict[str, Any]:
    """Mean and sample standard deviation over trials; trials of one setup, backbone: all on this backbone.

    Relative gains are over the mean of the reference, whose own deviation is not in theirs.
    """
    of = scores.reindex(columns=list(column.tasks))
    averages = average(of[task] for task in column.tasks)  # of each trial; nan where it lacks a task
    values = averages[averages.index.isin(trials.id)]
    if column.relative:
        reference = averages[averages.index.isin(_reference(column.relative.method, backbone).id)]
        values = relative_gain(values, reference.mean())
    return {column.name: values.mean(), f"{column.name} std": values.std(ddof=1)}


def _reference(method: str, backbone: pd.DataFrame) -> pd.DataFrame:
    """The trials that relative gains are over; none where they are of several setups."""
    own = backbone[backbone.method == method]
    return own if own.setup.nunique() == 1 else own[:0]


def _published(column: Column, numbers: pd.Series, backbone: pd.DataFrame) -> dict[str, float]:
    score, std = numbers[column.published], numbers.get(f"{column.published}_std", np.nan)
    if column.relative:
        score, std = relative_gain(score, backbone[column.published].droplevel(0)[column.relative.method]), np.nan
    return {f"{column.name} published": score, f"{column.name} published std": std}


def _world_notes(filled: pd.DataFrame, style: Style, world: World) -> list[str]:
    pairs = ", ".join(f"{world.backbones[one]} for {style.backbones[one].name}" for one in filled.backbone.unique())
    lines = [
        f"our columns are the mini world's ({world.suite}; {pairs}), drawn by this program: their scores cannot be "
        "compared with the published ones, and no differences are given"
    ]
    score = style.columns[-1].name
    for backbone, rows in filled.drop_duplicates(["backbone", "method"]).groupby("backbone", sort=False):
        stand_in = world.backbones[str(backbone)]
        numbers = rows[[score, f"{score} published"]].dropna()
        what = f"Spearman's rank correlation of our {score} ({stand_in}) with the published ({backbone})"
        if len(numbers) < 3:
            lines.append(f"{what}: too few rows (n = {len(numbers)})")
        else:
            rho, p = rank_correlation(*numbers.to_numpy().T)
            lines.append(f"{what}: ρ = {rho:.2f}, n = {len(numbers)} rows, p = {p:.2g} (two-sided permutation test)")
    return lines


def rank_correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Spearman's ρ and its two-sided p by permutation: all of them up to 8 pairs, else 99,999 random ones (seed 0).

    NaN where all of `a` or all of `b` are equal.
    """
    from scipy.stats import permutation_test, rankdata

    a, b = (ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b)))
    if not (scale := np.sqrt((a @ a) * (b @ b))):
        return np.nan, np.nan
    test = permutation_test(
        (a,), lambda a, axis: (a * b).sum(axis) / scale, permutation_type="pairings", n_resamples=99_999,
        vectorized=True, rng=0,
    )  # fmt: skip
    return float(test.statistic), float(test.pvalue)


def _our_notes(frame: pd.DataFrame, ours: pd.DataFrame, style: Style, commit: str | None) -> list[str]:
    lines = notes(ours, commit) if len(scored(ours)) else ["ours: no finished trial yet"]
    reference = next((column.relative for column in style.columns if column.relative), None)
    if reference and len(scored(ours)):
        lines.append(f"± of our relative gains: over our seeds, against the mean of {reference.name}")
        for backbone, rows in ours.groupby("backbone"):
            if scored(_reference(reference.method, rows)).empty:
                lines.append(f"{backbone}: no relative gains without finished trials of one {reference.name}")
    outside = frame[~frame.id.isin(ours.id)]
    return [*lines, f"of this grid, but not in this table: {_named(outside, ours)}"] if len(outside) else lines


def _named(outside: pd.DataFrame, ours: pd.DataFrame) -> str:
    """The methods of the trials that a table has no row for."""
    named: dict[str, list[str]] = {}  # by where, if that is not where ours are
    for row in outside[["suite", "backbone", "method"]].drop_duplicates().to_dict("records"):
        here = ((ours.suite == row["suite"]) & (ours.backbone == row["backbone"])).any()
        methods = named.setdefault("" if here else f" ({row['suite']} on {row['backbone']})", [])
        methods += [row["method"]] if row["method"] not in methods else []
    return "; ".join(
        (", ".join(methods) if not where or len(methods) < 4 else f"{len(methods)} methods") + where
        for where, methods in named.items()
    )
