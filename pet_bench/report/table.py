"""The comparison table: one row per method, mean ± sample standard deviation over seeds."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, field
from html import escape as html_escape

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pet_bench.results.schema import OTHER_SOFTWARE

KINDS = ("method", "control", "majority")
SCORES = ["task", "metric", "primary", "value", "split", "n", "majority", "options", "average"]


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the scores of all trials that enter means: the done ones, and the suspect ones that have scores.

    A trial whose training collapsed is suspect; without it a method that collapses now and then would look better.
    """
    return frame[frame.status.isin(["done", "suspect"]) & frame.task.notna()]


def without_suspect(frame: pd.DataFrame) -> pd.DataFrame:
    """The same trials, the suspect ones without their scores."""
    suspect = frame.status == "suspect"
    bare = frame.assign(**{column: frame[column].mask(suspect) for column in SCORES})
    return bare[~suspect | ~bare.id.duplicated()].reset_index(drop=True)


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy results (`results.store.to_frame`) to one row per suite, backbone, method and control.

    Columns: suite, backbone, method, control, setup, kind ("method", "control" or "majority"), trainable, percent,
    for each task its primary metric's mean over seeds and `<task> std` (sample standard deviation, none for
    one seed), average and `average std` (of the trials' averages), rank (mean over the tasks of a method's rank among
    the methods, 1 the best, ties averaged), n (trials in the means), trials (all) and suspect (those of the n).
    """
    primary = scored(frame)[lambda rows: rows.primary.eq(True)]
    tasks = list(dict.fromkeys(primary.task))
    rows = []
    for keys, group in frame.groupby(["suite", "backbone", "control", "method", "setup"], sort=False, dropna=False):
        suite, backbone, control, method, setup = keys
        trials = group.drop_duplicates("id")
        used = scored(trials)
        row = {
            "suite": suite, "backbone": backbone, "method": method, "control": control,
            "setup": setup, "kind": "method" if control == "none" else "control",
            "trainable": used.trainable.max(), "percent": used.percent.max(),
        }  # fmt: skip
        for task in tasks:
            values = scored(group)[lambda rows, task=task: (rows.task == task) & rows.primary.eq(True)].value
            row[task], row[f"{task} std"] = values.mean(), values.std(ddof=1)
        row["average"], row["average std"] = used.average.mean(), used.average.std(ddof=1)
        rows.append(row | {"n": len(used), "trials": len(trials), "suspect": used.status.eq("suspect").sum()})
    for (suite, backbone), group in primary.groupby(["suite", "backbone"], sort=False):
        majority = group[group.control == "none"].groupby("task", sort=False).majority.mean()
        if majority.notna().any():
            row = {"suite": suite, "backbone": backbone, "method": "majority answer", "kind": "majority"}
            own = majority.reindex(dict.fromkeys(group.task))
            rows.append(row | majority.to_dict() | {"average": own.mean() if own.notna().all() else None})
    columns = ["suite", "backbone", "method", "control", "setup", "kind", "trainable", "percent"]
    columns += [name for task in [*tasks, "average"] for name in (task, f"{task} std")] + ["rank"]
    counts = ["n", "trials", "suspect"]
    table = pd.DataFrame(rows, columns=columns + counts).astype(dict.fromkeys(["trainable", *counts], "Int64"))
    for _, group in table[table.kind == "method"].groupby(["suite", "backbone"], sort=False):
        scores = group[tasks].astype(float).dropna(axis=1, how="all").dropna()
        if min(scores.shape) > 1:
            table.loc[scores.index, "rank"] = scores.rank(ascending=False).mean(axis=1)
    order = table.assign(kind=table.kind.map(KINDS.index))
    order = order.sort_values(["suite", "backbone", "kind", "percent"], ascending=[True, True, True, False])
    return table.loc[order.index].reset_index(drop=True)


def named(rows: pd.DataFrame) -> pd.Series:
    """The method of each row, where trials of one name differ in their recipe with the beginning of their setup."""
    keys = [key for key in ("suite", "backbone", "control", "method") if key in rows]
    several = rows.groupby(keys, dropna=False).setup.transform("nunique") > 1
    return rows.method.where(~several, rows.method + " (" + rows.setup.str[:6] + ")")


def tasks_of(table: pd.DataFrame) -> list[str]:
    """The score columns of a comparison: its tasks."""
    columns = list(table.columns)
    return columns[columns.index("percent") + 1 : columns.index("average")][::2]


def notes(frame: pd.DataFrame, commit: str | None = None) -> list[str]:
    """What a reader must know beneath the table: the metrics, which trials are suspect or left out, and whether all
    rows are comparable. commit: of the running code, where known."""
    rows, lines = scored(frame), []
    for task, group in rows[rows.primary.eq(True)].groupby("task", sort=False):
        kinds = {
            f"{row.metric}{f' ({row.options})' if row.options else ''} on {row.split}, {row.n:.0f} examples"
            for row in group.itertuples()
        }
        lines.append(f"{task}: {'; '.join(sorted(kinds))}")
    trials = rows.drop_duplicates("id")
    if (trials.groupby(["suite", "backbone", "setup"]).size() > 1).any():
        lines.append("mean ± sample standard deviation over n seeds")
    unused = frame[~frame.id.isin(trials.id)].drop_duplicates("id")
    if len(unused):
        counts = unused.status.value_counts().items()
        lines.append("not in any mean: " + ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts))
    names = _names(frame)
    for mark, group in (("† suspect", trials), ("suspect, not in any mean", unused)):
        for trial in group[group.status == "suspect"].itertuples():
            lines.append(f"{mark}: {names[trial.id]}: {trial.error}")
    lines += _ran(trials, names)
    lines += _lacking(trials, names)
    for suite, group in trials.groupby("suite", sort=False):
        if (count := group.data.nunique(dropna=False)) > 1:
            lines.append(f"caution: the results of {suite} were made with {count} different versions of the data")
    lines += _made(trials, commit)
    if trials.dirty.eq(True).any():
        lines.append("caution: some results were made with uncommitted changes to the code")
    labels = frame[["suite", "backbone", "method", "control", "setup"]].drop_duplicates()
    if labels.duplicated(["suite", "backbone", "method", "control"]).any():
        lines.append("caution: rows with the same name differ in their recipe or protocol")
    return lines


def _ran(trials: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """A line on those that did not run with whole batches and the same software from beginning to end."""
    split, other = trials[trials.accumulation > 1], trials[trials.notes.str.contains(OTHER_SOFTWARE, regex=False)]
    found = {
        "in parts of each batch": [
            f"{names[row.id]} (accumulation {row.accumulation:.0f})" for row in split.itertuples()
        ],
        "resumed with other software than they began with": [names[id] for id in other.id],
    }
    line = "; ".join(f"{how}: {', '.join(which)}" for how, which in found.items() if which)
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
    made = trials.commit.fillna("").value_counts(sort=False)
    if len(made) > 1:
        which = (
            f"{found[:7] or 'unknown'} ({n} trial{'s' * (n != 1)}{', this code' * (found == commit)})"
            for found, n in made.items()
        )
        return [f"caution: made with {len(made)} different commits of pet-bench: {', '.join(which)}"]
    other = [found for found in made.index if commit and found not in ("", commit)]
    return [f"made with another commit of pet-bench ({found[:7]}) than this code ({commit[:7]})" for found in other]


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """Trial id → `lora, text-only, seed 0`, where need be with backbone and suite."""
    several = len(frame[["suite", "backbone"]].drop_duplicates()) > 1
    return {
        row.id: f"{row.method}{'' if row.control == 'none' else f', {row.control}'}, seed {row.seed}"
        + (f", {row.suite} on {row.backbone}" if several else "")
        for row in frame.drop_duplicates("id").itertuples()
    }


@dataclass(frozen=True)
class Cell:
    text: str
    bold: bool = False


@dataclass
class Section:
    """One suite on one backbone: a header and rows by kind."""

    title: str
    header: list[str]
    rows: dict[str, list[list[Cell]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


def sections(table: pd.DataFrame, best: Collection[tuple[str, ...]] = ()) -> list[Section]:
    """The comparison as text, bold where (suite, backbone, method, setup, score) is in `best`."""
    found = []
    for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False):
        scores = [task for task in [*tasks_of(table), "average"] if task == "average" or group[task].notna().any()]
        ranked = ["rank"] * int(group["rank"].notna().any())
        section = Section(f"{suite} on {backbone}", ["method", "trainable %", "parameters", *scores, *ranked, "n"])
        for _, row in group.iterrows():
            cells = [Cell(row.method if row.kind != "control" else f"{row.method}, {row.control}")]
            cells.append(Cell("–" if pd.isna(row.percent) else f"{row.percent:.2f}"))
            cells.append(Cell("–" if pd.isna(row.trainable) else f"{row.trainable:,.0f}"))
            for score in scores:
                bold = row.kind == "method" and (suite, backbone, row.method, row.setup, score) in best
                cells.append(Cell(_score(row[score], row[f"{score} std"]), bold))
            cells += [Cell("–" if pd.isna(row["rank"]) else f"{row['rank']:.2f}") for _ in ranked]
            cells.append(Cell(_count(row)))
            section.rows[row.kind].append(cells)
        found.append(section)
    return found


def _score(mean: float, std: float) -> str:
    if pd.isna(mean):
        return "–"
    return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"


def _count(row: pd.Series) -> str:
    if row.kind == "majority":
        return "–"
    count = f"{row.n}" if row.n == row.trials else f"{row.n} of {row.trials}"
    return f"{count}†" if row.suspect else count


def to_rich(table: pd.DataFrame, beneath: list[str], best: Collection[tuple[str, ...]] = ()) -> list[Table]:
    """Terminal tables; what is in `best` bold, controls and the majority answer under a rule."""
    tables = []
    for section in sections(table, best):
        view = Table(title=section.title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
        for index, name in enumerate(section.header):
            view.add_column(name, justify="right" if index else "left", no_wrap=not index)
        for kind in KINDS:
            for cells in section.rows[kind]:
                texts = [f"[bold]{escape(cell.text)}[/bold]" if cell.bold else escape(cell.text) for cell in cells]
                view.add_row(*texts, style=None if kind == "method" else "dim")
            view.add_section()
        tables.append(view)
    if tables:
        tables[-1].caption, tables[-1].caption_justify = escape("\n".join(beneath)), "left"
    return tables


def to_text(table: pd.DataFrame, beneath: list[str], best: Collection[tuple[str, ...]] = (), width: int = 160) -> str:
    """The terminal tables without colours."""
    file = io.StringIO()
    console = Console(file=file, width=width)
    for view in to_rich(table, beneath, best):
        console.print(view)
    return file.getvalue()


def to_markdown(table: pd.DataFrame, beneath: list[str], best: Collection[tuple[str, ...]] = ()) -> str:
    """Markdown tables; what is in `best` **bold**, controls and majority in italics."""
    lines = []
    for section in sections(table, best):
        lines += [f"### {section.title}", "", _line(section.header)]
        lines.append(_line([":--"] + ["--:"] * (len(section.header) - 1)))
        for kind in KINDS:
            for first, *rest in section.rows[kind]:
                name = _plain(first.text) if kind == "method" else f"*{_plain(first.text)}*"
                lines.append(_line([name] + [f"**{cell.text}**" if cell.bold else cell.text for cell in rest]))
        lines.append("")
    return "\n".join(lines + [f"- {_plain(note)}" for note in beneath]) + "\n"


def _plain(text: str) -> str:
    return html_escape(text, quote=False).replace("|", r"\|").replace("*", r"\*").replace("_", r"\_")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(table: pd.DataFrame) -> str:
    """The comparison's numbers, unrounded."""
    return table.to_csv(index=False, lineterminator="\n")
