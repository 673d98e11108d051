"""Learning curves; `ablation_figure` and `question_types_figure`, which read their own frames, are here to be found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pet_bench.errors import UserError
from pet_bench.report.ablation import ablation_figure
from pet_bench.report.look import GREY, Figure, emphasised, footnote, labels_beside, log_axis, look, stroke
from pet_bench.report.parts import question_types_figure

__all__ = ["ablation_figure", "averaged", "learning_curves_figure", "question_types_figure"]
LOSS, AVERAGE = "training loss", "average"


def averaged(curves: pd.DataFrame) -> pd.DataFrame:
    """Learning curves (`pet_bench.load_curves`) over seeds: a row per suite, backbone, method, panel and epoch.

    Of the done and suspect trials, no controls. Columns: suite, backbone, method (where trials of one name differ in
    their recipe, with the beginning of their `setup`), panel (`training loss`: the mean over tasks; each task's primary
    metric on validation; `average`: over the tasks, at points where all are), measure, epoch, mean, std (sample, NaN
    for one seed), n (seeds). Where seeds have their points at different epochs each is taken to be linear between
    them: a mean is of all seeds at one epoch, and stands only where all of them have been measured.
    """
    rows = curves[(curves.control == "none") & curves.status.isin(["done", "suspect"])]
    trains = (rows.split == "train") & (rows.measure == "loss")
    rows = rows[trains | (rows.split == "valid") & rows.primary.eq(True)]
    found = []
    for (suite, backbone), world in rows.groupby(["suite", "backbone"], sort=False):
        setups = world.groupby("method").setup.nunique()
        for (method, setup), trials in world.groupby(["method", "setup"], sort=False):
            name = method if setups[method] == 1 else f"{method} ({setup[:6]})"
            series = [_panels(trial, world) for _, trial in trials.groupby("id", sort=False)]
            for panel, measure in dict.fromkeys(key for one in series for key in one):
                own = [one[panel, measure] for one in series if (panel, measure) in one]
                found.append(
                    _over_seeds(own).assign(
                        suite=suite, backbone=backbone, method=name, panel=panel, measure=measure, n=len(own)
                    )
                )
    columns = ["suite", "backbone", "method", "panel", "measure", "epoch", "mean", "std", "n"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def _panels(trial: pd.DataFrame, world: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """(panel, measure) → one trial's values by epoch."""
    panels = {}
    for split, rows in trial.groupby("split"):
        every = world[world.split == split]
        measures = every.drop_duplicates("task").set_index(every.task.drop_duplicates().fillna("")).measure
        wide = rows.assign(task=rows.task.fillna("")).pivot(index="epoch", columns="task", values="value")
        wide = wide.reindex(columns=measures.index).astype(float).replace([np.inf, -np.inf], np.nan)
        mean = wide.mean(axis=1, skipna=False)
        if split == "train":
            panels[LOSS, "loss"] = mean
        else:
            panels |= {(task, measures[task]): wide[task] for task in wide}
            panels |= {(AVERAGE, "average score"): mean} if len(measures) > 1 else {}
    panels = {key: values.dropna() for key, values in panels.items()}
    return {key: values for key, values in panels.items() if len(values)}


def _over_seeds(series: list[pd.Series]) -> pd.DataFrame:
    """Mean and sample standard deviation at all epochs that any seed has and all reach."""
    epochs = np.unique(np.concatenate([one.index.to_numpy(float) for one in series]))
    inside = (epochs >= max(one.index.min() for one in series)) & (epochs <= min(one.index.max() for one in series))
    epochs = epochs[inside]
    values = np.array([np.interp(epochs, one.index.to_numpy(float), one.to_numpy(float)) for one in series])
    std = values.std(axis=0, ddof=1) if len(series) > 1 else np.nan
    return pd.DataFrame({"epoch": epochs, "mean": values.mean(axis=0), "std": std})


@look()
def learning_curves_figure(curves: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """Training loss and validation scores against epochs (`averaged`), a block of panels per suite and backbone.

    A line per method with a band of one sample standard deviation over seeds. Coloured are `methods`, by default the
    six that end best (by the average); the others are thin and grey, without bands. The names stand beside the last
    panel of each row in the order in which the lines end. Raises UserError for frames without curves and for
    `methods` that are not there.
    """
    table = averaged(curves)
    if table.empty:
        raise UserError("no learning curve of a finished trial in this frame (controls are left out)")
    blocks = list(table.groupby(["suite", "backbone"], sort=False))
    strokes = _strokes(table, methods)
    names = [_in_order(block) for _, block in blocks]
    columns = max(len(own) if len(own) <= 4 else 3 for own in names)
    heights = [-(-len(own) // columns) for own in names]
    figure = Figure(3.9 * columns + 1.9, 3.3 * sum(heights) + 0.3)
    figure.get_layout_engine().set(rect=(0, 0, 1 - 1.8 / figure.get_figwidth(), 1))
    axes, first, ends = figure.subplots(sum(heights), columns, squeeze=False), 0, []
    for ((suite, backbone), block), own, height in zip(blocks, names, heights, strict=True):
        cells = axes[first : first + height].flat
        for axis, panel in zip(cells, own, strict=False):
            _draw(axis, block[block.panel == panel], panel, strokes[suite, backbone])
        cells[0].set_title(f"{suite} on {backbone}\n{cells[0].get_title(loc='left')}")
        for axis in list(cells)[len(own) :]:
            axis.set_visible(False)
        ends += [(cells[index], block[block.panel == own[index]], strokes[suite, backbone])
                 for index in range(len(own)) if index % columns == columns - 1 or index == len(own) - 1]  # fmt: skip
        first += height
    usual = int(table.n.mode().iloc[0])
    footnote(figure, _note(table, strokes, usual))
    figure.settle()
    for axis, rows, own in ends:
        last = rows.groupby("method", sort=False).last().to_dict("index")
        labels_beside(
            axis,
            [
                (f"{name} (n = {row['n']})" if row["n"] != usual else name, *own.get(name, (GREY, "-")), row["mean"])
                for name, row in last.items()
            ],
        )
    return figure


def _in_order(block: pd.DataFrame) -> list[str]:
    """The panels: the loss first, the average last."""
    return sorted(block.panel.unique(), key=lambda panel: (panel != LOSS, panel == AVERAGE))


def _strokes(table: pd.DataFrame, methods: Sequence[str] | None) -> dict[tuple[str, str], dict[str, tuple[str, str]]]:
    """(suite, backbone) → method → colour and line style, of those that are not grey; one and the same everywhere."""
    chosen = {}
    for world, block in table.groupby(["suite", "backbone"], sort=False):
        last = block[block.panel == _in_order(block)[-1]].groupby("method", sort=False)["mean"].last()
        ranked = list(last.sort_values(ascending=_in_order(block)[-1] == LOSS).index)
        ranked += [method for method in block.method.unique() if method not in ranked]
        chosen[world] = emphasised(ranked, None if methods is None else [one for one in methods if one in ranked])
    emphasised(sorted(table.method.unique()), methods)  # raises for what is nowhere
    every = list(dict.fromkeys(method for own in chosen.values() for method in own))
    return {world: {method: stroke(every.index(method)) for method in own} for world, own in chosen.items()}


def _draw(axis: Axes, rows: pd.DataFrame, panel: str, strokes: dict[str, tuple[str, str]]) -> None:
    axis.set(xlabel="epochs", ylabel=rows.measure.iloc[0])
    axis.set_title(f"{panel} (mean over tasks)" if panel == LOSS else f"{panel}, validation")
    for method, line in rows.groupby("method", sort=False):
        color, style = strokes.get(method, (GREY, "-"))
        bold = method in strokes
        axis.plot(
            line.epoch, line["mean"], style, color=color, linewidth=1.8 if bold else 0.9, zorder=3 if bold else 2,
            label=method, marker="o" if bold or len(line) == 1 else None, markersize=3.5,
        )  # fmt: skip
        if bold and line["std"].notna().all():
            low, high = line["mean"] - line["std"], line["mean"] + line["std"]
            axis.fill_between(line.epoch, low, high, color=color, alpha=0.16, linewidth=0, zorder=1)
    if panel == LOSS and 0 < 10 * rows["mean"].min() < rows["mean"].max():
        log_axis(axis, "y")
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _note(table: pd.DataFrame, strokes: dict, usual: int) -> str:
    seeds = f"n = {usual} seed{'s' * (usual != 1)}" + " unless stated" * (table.n.nunique() > 1)
    parts = [f"lines: means over seeds, {seeds}" if table.n.max() > 1 else "n = 1 seed, no bands"]
    if table["std"].notna().any():
        parts.append("bands: ± 1 sample standard deviation")
    if any(set(block.method) - set(strokes[world]) for world, block in table.groupby(["suite", "backbone"])):
        parts.append("grey: the other methods, without bands")
    return "; ".join(parts)
