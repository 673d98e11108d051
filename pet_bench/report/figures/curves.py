"""Learning curves: training loss and validation scores against epochs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pet_bench.errors import UserError
from pet_bench.report.bounds import bounds
from pet_bench.report.figures.labels import labels_beside, room_beside
from pet_bench.report.figures.look import (
    BARS,
    FEW,
    INK,
    RULE,
    SUSPECT,
    Figure,
    beneath,
    chosen,
    footnote,
    log_axis,
    look,
    point,
    reach,
    seeds_note,
)
from pet_bench.report.marks import OTHERS, Mark, mark_of
from pet_bench.report.summary import named

LOSS, AVERAGE = "training loss", "average"
Values = pd.Series | np.ndarray
Line = tuple[np.ndarray, np.ndarray]  # epochs, and the values there
ROW = 0.45  # inches of a method that has a row of its own


def averaged(curves: pd.DataFrame) -> pd.DataFrame:
    """Learning curves (`pet_bench.load_curves`) over seeds: a row per suite, backbone, method, panel and epoch.

    Of the done and suspect trials, no controls. Columns: suite, backbone, method (where trials of one name differ in
    their recipe, with the beginning of their `setup`), panel (`training loss`: the mean over tasks; each task's primary
    metric on validation; `average`: over the tasks, at points where all are), measure, epoch, mean, std (sample, NaN
    for one seed), n (seeds), low and high (what the measure can be), dagger (" †" with suspect trials). Where seeds
    have their points at different epochs each is taken to be linear between them: a mean is of all seeds at one epoch,
    and stands only where all of them have been measured.
    """
    rows = curves[(curves.control == "none") & curves.status.isin(["done", "suspect"])]
    trains = (rows.split == "train") & (rows.measure == "loss")
    rows = rows[trains | (rows.split == "valid") & rows.primary.eq(True)]
    rows = rows.assign(method=named(rows))
    averages: list[tuple[Any, ...]] = []
    for (suite, backbone), world in rows.groupby(["suite", "backbone"], sort=False):
        average, lines = bounds(task for task in world.task.dropna().unique()), _lines(world)
        for (name, setup), trials in world.groupby(["method", "setup"], sort=False):
            dagger = " †" if trials.status.eq("suspect").any() else ""
            series = [lines[name, setup, id] for id in trials.id.unique() if (name, setup, id) in lines]
            for panel, measure in dict.fromkeys(key for one in series for key in one):
                own = [one[panel, measure] for one in series if (panel, measure) in one]
                low, high = (0.0, np.inf) if panel == LOSS else average if panel == AVERAGE else bounds([panel])
                keys = str(suite), str(backbone), str(name), panel, measure
                averages += [(*keys, *point, len(own), low, high, dagger) for point in _over_seeds(own)]
    columns = ["suite", "backbone", "method", "panel", "measure", "epoch", "mean", "std", "n", "low", "high", "dagger"]
    return pd.DataFrame(averages, columns=columns)


def _lines(world: pd.DataFrame) -> dict[Hashable, dict[tuple[str, str], Line]]:
    """Trial (method, setup, id) → (panel, measure) → its line."""
    trial = ["method", "setup", "id"]
    lines: dict[Hashable, dict[tuple[str, str], Line]] = {}
    for split, rows in world.groupby("split"):
        rows = rows.assign(task=rows.task.fillna(""))
        measures = rows.drop_duplicates("task").set_index("task").measure
        wide = rows.pivot(index=[*trial, "epoch"], columns="task", values="value")
        wide = wide.reindex(columns=measures.index).astype(float).replace([np.inf, -np.inf], np.nan)
        mean = wide.mean(axis=1, skipna=False)
        if split == "train":
            panels = {(LOSS, "loss"): mean}
        else:
            panels = {(task, str(measures[task])): wide[task] for task in map(str, wide)}
            panels |= {(AVERAGE, "average score"): mean} if len(measures) > 1 else {}
        epochs = wide.index.get_level_values("epoch").to_numpy(float)
        columns = {key: values.to_numpy(float) for key, values in panels.items()}
        for one, places in wide.groupby(level=trial).indices.items():
            for key, values in columns.items():
                measured = places[~np.isnan(values[places])]
                if len(measured):
                    lines.setdefault(one, {})[key] = epochs[measured], values[measured]
    return lines


def _over_seeds(lines: list[Line]) -> Iterator[tuple[float, float, float]]:
    """Epoch, mean and sample standard deviation at all epochs that any seed has and all reach."""
    epochs = np.unique(np.concatenate([own for own, _ in lines]))
    inside = (epochs >= max(own.min() for own, _ in lines)) & (epochs <= min(own.max() for own, _ in lines))
    epochs = epochs[inside]
    values = np.array([np.interp(epochs, *line) for line in lines])
    std = values.std(axis=0, ddof=1) if len(lines) > 1 else np.full(len(epochs), np.nan)
    return zip(epochs.tolist(), values.mean(axis=0).tolist(), std.tolist(), strict=True)


@look()
def learning_curves_figure(curves: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """Training loss and validation scores against epochs (`averaged`), a block of panels per suite and backbone.

    Up to `FEW` methods share panels: a line each, with a band of one sample standard deviation over seeds that ends
    where scores end, or a point with a bar where there is one epoch; the names stand beside the last panel in the
    order in which the lines end. More methods have a row of panels each, the best first, over a grey area between the
    lowest and the highest of all. methods: share panels, the others are thin and grey. † marks a method with suspect
    trials. Raises UserError for frames without curves and for `methods` that are not there.
    """
    table = averaged(curves)
    if table.empty:
        raise UserError("no learning curve of a finished trial in this frame (controls are left out)")
    chosen(sorted(table.method.unique()), methods)
    blocks = [rows for _, rows in table.groupby(["suite", "backbone"], sort=False)]
    few = methods is not None or max(rows.method.nunique() for rows in blocks) <= FEW
    note = _note(table, methods, few)
    return _shared(blocks, methods, note) if few else _apart(blocks, note)


def _shared(blocks: list[pd.DataFrame], methods: Sequence[str] | None, note: str) -> Figure:
    """Panels with the lines of all methods, four in a row."""
    names = [_in_order(block) for block in blocks]
    columns = max(len(own) if len(own) <= 4 else 3 for own in names)
    heights = [-(-len(own) // columns) for own in names]
    room = room_beside(_names(blocks))
    figure = Figure(3.9 * columns + room, 3.3 * sum(heights) + 0.4)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, 0, 1 - room / figure.get_figwidth(), 1))
    axes, first, last = figure.subplots(sum(heights), columns, squeeze=False), 0, []
    for block, own, height in zip(blocks, names, heights, strict=True):
        cells = axes[first : first + height].flat
        for axis, panel in zip(cells, own, strict=False):
            _draw(axis, block[block.panel == panel], methods)
        cells[0].set_title(f"{_world(block)}\n{cells[0].get_title(loc='left')}")
        for axis in list(cells)[len(own) :]:
            axis.set_visible(False)
        last.append((cells[len(own) - 1], block, block[block.panel == own[-1]]))
        first += height
    footnote(figure, note)
    figure.settle()
    for axis, block, rows in last:
        ends = rows.groupby("method", sort=False)["mean"].last()
        first_rows = block.drop_duplicates("method")
        daggers = zip(first_rows.method, first_rows.dagger, strict=True)
        labels_beside(axis, [(name + dagger, _mark(name, methods), ends.get(name, np.nan)) for name, dagger in daggers])
    return figure


def _apart(blocks: list[pd.DataFrame], note: str) -> Figure:
    """A panel for each task with a row for each method, the rows of a panel on one scale."""
    columns = max(block.panel.nunique() for block in blocks)
    counts = [block.method.nunique() for block in blocks]
    figure = Figure(room_beside(_names(blocks)) + 2.0 * columns, ROW * sum(counts) + 1.1 * len(blocks) + 0.4)
    ratios = [ROW * count + 1.1 for count in counts]
    axes = figure.subplots(len(blocks), columns, squeeze=False, sharey="row", gridspec_kw={"height_ratios": ratios})
    for block, row in zip(blocks, axes, strict=True):
        panels = _in_order(block)
        final = block[block.panel == panels[-1]].groupby("method", sort=False)["mean"].last()
        ranked = list(final.sort_values(ascending=panels[-1] == LOSS, kind="stable").index)
        ranked += [name for name in block.method.unique() if name not in ranked]
        for axis, panel in zip(row, panels, strict=False):
            _rows(axis, block[block.panel == panel], ranked)
        row[0].set_title(f"{_world(block)}\n{row[0].get_title(loc='left')}", fontsize=9)
        dagger = block.drop_duplicates("method").set_index("method").dagger
        row[0].set_yticks([0.4 - place for place in range(len(ranked))], [name + dagger[name] for name in ranked])
        for axis in row[len(panels) :]:
            axis.set_visible(False)
    footnote(figure, note)
    figure.settle()
    return figure


def _rows(axis: Axes, rows: pd.DataFrame, ranked: list[str]) -> None:
    """One panel: each method's line in its row, over the range of all, its last mean beside it."""
    log = _is_log(rows)
    ends = np.stack(reach(rows["mean"], rows["std"].fillna(0), (rows.low.iloc[0], rows.high.iloc[0])))
    if log:  # a band may reach to nought
        ends = np.maximum(ends, rows["mean"].min() / 2)
    scale = np.log10 if log else np.asarray
    bottom, top = scale(ends.min()), scale(ends.max())
    epochs = np.unique(rows.epoch)
    lines = [np.interp(epochs, line.epoch, line["mean"], np.nan, np.nan) for _, line in rows.groupby("method")]
    lowest, highest = np.nanmin(lines, axis=0), np.nanmax(lines, axis=0)
    for name, own in rows.groupby("method", sort=False):
        place = ranked.index(str(name))

        def high(values, place=place):
            return 0.82 * (scale(values) - bottom) / (top - bottom or 1) - place

        axis.fill_between(epochs, high(lowest), high(highest), color=RULE, linewidth=0, zorder=0.5)
        low_end, high_end = (high(np.clip(end, ends.min(), None)) for end in _ends(own))
        _line(axis, str(name), own.epoch, high(own["mean"]), (low_end, high_end), mark_of(str(name)))
        last = own.iloc[-1]
        axis.annotate(
            f"{last['mean']:.{3 if last.panel == LOSS else 1}f}", (last.epoch, high(last["mean"])), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=7.5, color=INK,
        )  # fmt: skip
    lowest, highest = (f"{end:.3g}" for end in (ends.min(), ends.max()))
    axis.set_title(f"{_title(rows)}\n{rows.measure.iloc[0]}, {lowest} to {highest}{', log' * log}", fontsize=9)
    axis.set(xlabel="epochs", ylim=(-len(ranked) + 0.9, 1.0))
    axis.set_xlim(0, 1.3 * max(1, epochs.max()))
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.tick_params(axis="y", length=0, labelsize=8)
    axis.grid(visible=False, axis="y")
    for border in range(len(ranked) - 1):
        axis.axhline(-border - 0.09, color=RULE, linewidth=0.8, zorder=0.4)


def _names(blocks: list[pd.DataFrame]) -> list[str]:
    """As they stand beside panels."""
    return [name for block in blocks for name in (block.method + block.dagger).unique()]


def _world(block: pd.DataFrame) -> str:
    return f"{block.suite.iloc[0]} on {block.backbone.iloc[0]}"


def _title(rows: pd.DataFrame) -> str:
    panel = rows.panel.iloc[0]
    return f"{panel} (mean over tasks)" if panel == LOSS else f"{panel}, validation"


def _is_log(rows: pd.DataFrame) -> bool:
    return rows.panel.iloc[0] == LOSS and bool(0 < 5 * rows["mean"].min() < rows["mean"].max())


def _in_order(block: pd.DataFrame) -> list[str]:
    """The panels: the loss first, the average last."""
    return sorted(block.panel.unique(), key=lambda panel: (panel != LOSS, panel == AVERAGE))


def _mark(method: str, methods: Sequence[str] | None) -> Mark:
    return mark_of(method) if methods is None or method in methods else OTHERS


def _draw(axis: Axes, rows: pd.DataFrame, methods: Sequence[str] | None) -> None:
    """One panel that methods share."""
    lines = {str(name): line for name, line in rows.groupby("method", sort=False)}
    under = beneath([line["mean"] for line in lines.values()], np.ptp(rows["mean"]) or 1)
    for (name, line), twins in zip(lines.items(), under, strict=True):
        _line(axis, name, line.epoch, line["mean"], _ends(line), _mark(name, methods), twins)
    axis.set_title(_title(rows))
    axis.set(xlabel="epochs", ylabel=rows.measure.iloc[0])
    if _is_log(rows):
        log_axis(axis, "y")
    axis.set_xlim(0, max(1, axis.get_xlim()[1]))
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _ends(line: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return reach(line["mean"], line["std"], (line.low.iloc[0], line.high.iloc[0]))


def _line(
    axis: Axes, name: str, epochs: pd.Series, heights: Values, ends: tuple[Values, Values], mark: Mark, twins: int = 0
) -> None:  # fmt: skip
    """A line with its band, where there is one epoch a point with its bar."""
    bold = mark != OTHERS
    if len(epochs) == 1:
        x, y, *end = (float(np.asarray(values)[0]) for values in (epochs, heights, *ends))
        point(axis, x, y, end if bold else None, mark, size=6 if bold else 4, beneath=twins)
        return
    axis.plot(
        epochs, heights, mark.dash, color=mark.color, label=name, zorder=(3 if bold else 2) - twins / 10,
        linewidth=(1.6 if bold else 0.9) * (1 + 2 * twins), marker=mark.marker if bold else None,
        markersize=5 * mark.size + 5 * twins, markeredgecolor="white", markeredgewidth=0.5,
    )  # fmt: skip
    if bold and np.isfinite(ends).all():
        axis.fill_between(epochs, *ends, color=mark.color, alpha=0.16, linewidth=0, zorder=1)


def _note(table: pd.DataFrame, methods: Sequence[str] | None, few: bool) -> str:
    last = table.drop_duplicates(["suite", "backbone", "method"])
    notes = [seeds_note(last.set_index("method").n)]
    if table["std"].notna().any():
        alone = table.groupby(["suite", "backbone", "method", "panel"]).size().eq(1)
        shapes = ["bands"] * bool((~alone).any()) + ["bars"] * bool(alone.any())
        notes.append(f"{' and '.join(shapes)}: {BARS}")
    if few:
        notes.append("of two in one place the one beneath is wider")
    else:
        notes.append("grey: between the lowest and the highest of all methods; the number is the last mean")
    if set(table.method) - set(methods or table.method):
        notes.append("grey: the other methods, without bands")
    if table.dagger.any():
        notes.append(SUSPECT)
    return "; ".join(notes)
