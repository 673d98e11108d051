"""Styles: the tables that papers print, our results beside the published numbers.

A style names a published table, its columns and its rows; `fill` sets our results in it. Nothing is dropped: a row
without results of ours is there, and a published cell that we have no trustworthy copy of is empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pet_bench.errors import unknown
from pet_bench.report import published
from pet_bench.report.published import BACKBONES, average, name_of, relative_gain
from pet_bench.report.statistics import Folders, Marks, significantly_best
from pet_bench.report.summary import scored
from pet_bench.report.tables.beneath import notes

# the mini world's stand-ins; a table of it is no claim about the real one
STAND_INS = {
    "image-text": ("mini-image-text", {"bart-base": "mini-bart", "t5-base": "mini-t5"}),
    "video-text": ("mini-video-text", {"bart-base": "mini-bart-clips"}),
}
CONVENTION = (
    "trainable %: 100 · trainable / total, the visual embedding included in both; total: the backbone after its "
    "vocabulary grew, tied embeddings counted once, and all that the method adds"
)


@dataclass(frozen=True)
class Column:
    """Scores: the primary metric of a task or, with several tasks, the average over them.

    published: its column in the published table (and `<published>_std`). relative: the relative gain (%) over full
    fine-tuning of both instead.
    """

    name: str
    tasks: tuple[str, ...]
    published: str
    relative: bool = False

    @property
    def score(self) -> str:
        """What it is called in `report.summary.comparison`."""
        return self.tasks[0] if len(self.tasks) == 1 else "average"


@dataclass(frozen=True)
class Style:
    """A table of a paper.

    file: the published table; of its rows those on `backbones` (None: all), in its order; methods: instead, these.
    The last column is the one that methods are ranked by. seeds: how many the published rows have, where known.
    source: what the published numbers are called.
    """

    name: str
    title: str
    suite: str
    file: str
    columns: tuple[Column, ...]
    seeds: int | None = None
    backbones: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    source: str = "published"

    def published(self) -> pd.DataFrame:
        """The published rows in this table's order, indexed by (backbone, method); NaN where we have no number."""
        table = published.load(self.file)
        if "suite" in table:
            table = table[table.suite == self.suite]
        table = table.set_index(["backbone", "method"])
        if self.methods:
            rows = pd.MultiIndex.from_product([self.backbones, self.methods], names=table.index.names)
            return table.reindex(rows)
        return table[table.index.isin(self.backbones, level=0)] if self.backbones else table


IMAGE_TEXT = ("vqa", "gqa", "nlvr2", "coco-caption")
VIDEO_TEXT = ("tvqa", "how2qa", "tvc", "yc2c")
IMAGE_TEXT_COLUMNS = (
    Column("VQA", ("vqa",), "vqa"),
    Column("GQA", ("gqa",), "gqa"),
    Column("NLVR2", ("nlvr2",), "nlvr2"),
    Column("COCO", ("coco-caption",), "coco_cider"),
    Column("Avg.", IMAGE_TEXT, "avg"),
)
VIDEO_TEXT_COLUMNS = (
    Column("TVQA", ("tvqa",), "tvqa"),
    Column("How2QA", ("how2qa",), "how2qa"),
    Column("TVC", ("tvc",), "tvc_cider"),
    Column("YC2C", ("yc2c",), "yc2c_cider"),
    Column("Avg.", VIDEO_TEXT, "avg"),
)
VL_PET = "VL-PET (ICCV 2023, arXiv 2308.09804)"
THREE_SEEDS = "published: mean ± std over three seeds (42, 43, 9595)"
STYLES = {
    style.name: style
    for style in (
        Style(
            "vlpet-table2", f"{VL_PET}, Table 2: image-text tasks",
            "image-text", "vlpet_table2_image_text", IMAGE_TEXT_COLUMNS, seeds=3, notes=(THREE_SEEDS,),
        ),
        Style(
            "vlpet-table9", f"{VL_PET}, Table 9: VL-PET's designs on Compacter and VL-Adapter",
            "image-text", "vlpet_table9_transfer", IMAGE_TEXT_COLUMNS, seeds=3, notes=(THREE_SEEDS,),
        ),
        Style(
            "vlpet-figure1", f"{VL_PET}, Figure 1: relative gain over full fine-tuning",
            "image-text", "vlpet_table2_image_text",
            (Column("Avg.", IMAGE_TEXT, "avg"), Column("relative gain %", IMAGE_TEXT, "avg", relative=True)),
            seeds=3, backbones=("bart-base",),
            notes=("relative gain %: 100 · (average / average of full fine-tuning − 1), of the averages as printed",),
        ),
        Style(
            "vlpet-checkpoints", f"{VL_PET}: the checkpoints that its authors released",
            "image-text", "vlpet_readme_checkpoints", IMAGE_TEXT_COLUMNS, seeds=1,
            notes=("published: one seed, the VL-PET repository's README",),
        ),
        Style(
            "vlpet-video", f"{VL_PET}: video-text tasks",
            "video-text", "dora_readme", VIDEO_TEXT_COLUMNS, backbones=("bart-base",),
            methods=(
                "full", "bitfit", "prompt-tuning", "compacter", "lora", "dora", "vl-adapter",
                "vl-pet-small", "vl-pet-middle-x", "vl-pet-middle-y", "vl-pet-large",
            ),
            notes=(
                "VL-PET's own video table is not at hand: its cells are empty. DoRA README: the rows of the DoRA "
                "repository's README (7 epochs, seeds not given)",
            ),
            source="DoRA README",
        ),
    )
}  # fmt: skip


def find(name: str) -> Style:
    """A style by name; raises UserError naming those there are."""
    if name not in STYLES:
        raise unknown("style", name, STYLES)
    return STYLES[name]


@dataclass(frozen=True)
class Filled:
    """A style with results in it.

    frame: a row per method (several, where trials of one name differ in their recipe) with backbone and method as
    published, name, and ours, suite and setup (the backbone, suite and setup of our trials), n (trials in the means),
    trials (all), suspect (those of the n), `n published`, trainable, percent, `percent published`; for each column its
    mean, and with ` std`, ` published`, ` published std` and (not for the mini world) ` difference` after its name the
    rest. notes: what must stand beneath. mini: whether ours are the mini world's. bold: (index of the row, column) of
    our scores that are significantly best (`report.statistics.significantly_best`).
    """

    style: Style
    frame: pd.DataFrame
    notes: tuple[str, ...]
    mini: bool
    bold: frozenset[tuple[int, str]] = frozenset()

    @property
    def title(self) -> str:
        return self.style.title + ("; ours: the mini world, not comparable" if self.mini else "")


def fill(frame: pd.DataFrame, style: Style, commit: str | None = None, folders: Folders | None = None) -> Filled:
    """Set tidy results (`results.store.to_frame`) in a style.

    A result fills the row of its method's label (by default its name) and its backbone, if its suite is the style's
    and it is no control. The mini world's results fill the table where there are none of the real world.
    commit: of the running code, for the notes. folders: where the predictions are; None: nothing is tested, or bold.
    """
    frame, printed = frame[frame.control == "none"], style.published()
    suite, stand_ins = _world(frame, style)
    mini = suite != style.suite
    cells = {(stand_ins[backbone], method) for backbone, method in printed.index}
    inside = [row.suite == suite and (row.backbone, row.method) in cells for row in frame.itertuples()]
    ours, rows = frame.loc[inside], []
    scores = _scores(ours)
    for (backbone, method), numbers in printed.iterrows():
        own = ours[ours.backbone == stand_ins[backbone]]
        trials = own[own.method == method]
        for setup, group in trials.groupby("setup", sort=False) if len(trials) else [("", trials)]:
            row = {"backbone": backbone, "method": method, "name": name_of(method)}
            row |= {"ours": stand_ins[backbone], "suite": suite, "setup": setup} | _counts(group)
            has_score = pd.notna(numbers[style.columns[-1].published])
            row |= {"n published": style.seeds if has_score else None, "percent published": numbers.trainable_percent}
            for column in style.columns:
                row |= _ours(column, scores, group, own) | _published(column, numbers, printed.loc[backbone])
                if not mini:
                    row[f"{column.name} difference"] = row[column.name] - row[f"{column.name} published"]
            rows.append(row)
    filled = pd.DataFrame(rows)
    filled = filled.astype({name: "Int64" if name in WHOLE else "float64" for name in filled if name not in TEXT})
    beneath = _world_notes(filled, style) if mini else []
    beneath += [*style.notes, CONVENTION, *_our_notes(frame, ours, style, commit)]
    marks = Marks() if folders is None else significantly_best(ours, folders)
    return Filled(style, filled, (*beneath, *marks.caption), mini, _bold(filled, style, marks))


def _bold(filled: pd.DataFrame, style: Style, marks: Marks) -> frozenset[tuple[int, str]]:
    return frozenset(
        (row.Index, column.name)
        for row in filled.itertuples()
        for column in style.columns
        if (row.suite, row.ours, row.method, row.setup, column.score) in marks.best
    )


TEXT = ("backbone", "method", "name", "ours", "suite", "setup")
WHOLE = ("n", "trials", "suspect", "trainable", "n published")


def _world(frame: pd.DataFrame, style: Style) -> tuple[str, dict[str, str]]:
    """The suite and, by the published backbone, the backbones of the results that fill the table."""
    suite, stand_ins = STAND_INS[style.suite]
    if style.suite not in set(frame.suite) and suite in set(frame.suite):
        return suite, stand_ins
    return style.suite, {backbone: backbone for backbone in stand_ins}


def _counts(trials: pd.DataFrame) -> dict[str, float]:
    trials = trials.drop_duplicates("id")
    used = scored(trials)
    return {
        "n": len(used), "trials": len(trials), "suspect": used.status.eq("suspect").sum(),
        "trainable": used.trainable.max(), "percent": used.percent.max(),
    }  # fmt: skip


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """The primary scores: a row per trial, a column per task."""
    primary = scored(rows)[lambda rows: rows.primary.eq(True)]
    return primary.pivot(index="id", columns="task", values="value").astype(float)


def _ours(column: Column, scores: pd.DataFrame, trials: pd.DataFrame, backbone: pd.DataFrame) -> dict[str, float]:
    """Mean and sample standard deviation over trials; trials of one setup, backbone: all on this backbone.

    Relative gains are over the mean of full fine-tuning, whose own deviation is not in theirs.
    """
    of = scores.reindex(columns=column.tasks)
    averages = average(of[task] for task in column.tasks)  # of each trial; nan where it lacks a task
    values = averages[averages.index.isin(trials.id)]
    if column.relative:
        values = relative_gain(values, averages[averages.index.isin(_full(backbone).id)].mean())
    return {column.name: values.mean(), f"{column.name} std": values.std(ddof=1)}


def _full(backbone: pd.DataFrame) -> pd.DataFrame:
    """The trials of full fine-tuning; none where they are of several setups."""
    full = backbone[backbone.method == "full"]
    return full if full.setup.nunique() == 1 else full[:0]


def _published(column: Column, numbers: pd.Series, backbone: pd.DataFrame) -> dict[str, float]:
    score, std = numbers[column.published], numbers.get(f"{column.published}_std", np.nan)
    if column.relative:
        score, std = relative_gain(score, backbone[column.published]["full"]), np.nan
    return {f"{column.name} published": score, f"{column.name} published std": std}


def _world_notes(filled: pd.DataFrame, style: Style) -> list[str]:
    suite, stand_ins = STAND_INS[style.suite]
    pairs = ", ".join(f"{stand_ins[one]} for {BACKBONES[one]}" for one in filled.backbone.unique())
    lines = [
        f"our columns are the mini world's ({suite}; {pairs}), drawn by this program: their scores cannot be compared "
        "with the published ones, and no differences are given"
    ]
    score = style.columns[-1].name
    for backbone, rows in filled.drop_duplicates(["backbone", "method"]).groupby("backbone", sort=False):
        pairs = rows[[score, f"{score} published"]].dropna()
        what = f"Spearman's rank correlation of our {score} ({stand_ins[backbone]}) with the published ({backbone})"
        if len(pairs) < 3:
            lines.append(f"{what}: too few rows (n = {len(pairs)})")
        else:
            rho, p = rank_correlation(*pairs.to_numpy().T)
            lines.append(f"{what}: ρ = {rho:.2f}, n = {len(pairs)} rows, p = {p:.2g} (two-sided permutation test)")
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
    relative = any(column.relative for column in style.columns)
    if relative and len(scored(ours)):
        lines.append("± of our relative gains: over our seeds, against the mean of full fine-tuning")
        for backbone, rows in ours.groupby("backbone"):
            if scored(_full(rows)).empty:
                lines.append(f"{backbone}: no relative gains without finished trials of one full fine-tuning")
    outside = frame[~frame.id.isin(ours.id)]
    if len(outside):
        named: dict[str, list[str]] = {}  # by where, if that is not where ours are
        for row in outside[["suite", "backbone", "method"]].drop_duplicates().itertuples():
            here = ((ours.suite == row.suite) & (ours.backbone == row.backbone)).any()
            methods = named.setdefault("" if here else f" ({row.suite} on {row.backbone})", [])
            methods += [row.method] if row.method not in methods else []
        said = [
            (", ".join(methods) if not where or len(methods) < 4 else f"{len(methods)} methods") + where
            for where, methods in named.items()
        ]
        lines.append(f"of this grid, but not in this table: {'; '.join(said)}")
    return lines
