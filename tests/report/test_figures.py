from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from textwrap import dedent

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from pet_bench.report import figures, published
from pet_bench.report.look import MARKERS, RC, write
from pet_bench.report.styles import fill, find
from pet_bench.results import store

TABLE = published.load("vlpet_table2_image_text").query("backbone == 'bart-base'")


def ours(make_result, suite="image-text", backbone="bart-base", seeds=3):
    """Trials near the published averages, every task with the average as its score."""
    rng, found = np.random.default_rng(0), []
    for row in TABLE.itertuples():
        for seed in range(seeds):
            result = make_result(method=row.method, seed=seed, backbone=backbone)
            value = row.avg + rng.normal(scale=0.3)
            score = result.metrics["vqa"]["accuracy"].model_copy(update={"value": value})
            tasks = ("vqa", "gqa", "nlvr2", "coco-caption")
            parts = {"trainable": int(row.trainable_percent * 1e6), "percent": row.trainable_percent}
            cost = {"peak_memory_bytes": int(rng.uniform(2, 4) * 2**30), "train_seconds": rng.uniform(60, 600)}
            update = {
                "spec": result.spec | {"suite": suite, "tasks": list(tasks)},
                "metrics": {task: {"accuracy": score} for task in tasks},
                "average": value,
                "parameters": result.parameters.model_copy(update=parts),
                "cost": result.cost.model_copy(update=cost),
            }
            found.append(result.model_copy(update=update))
    return store.to_frame(found)


def check_labels(axis, count):
    """All there and none on another."""
    axis.figure.canvas.draw()
    renderer = axis.figure.canvas.get_renderer()
    texts = [text for text in axis.texts if text.get_text()]
    assert len(texts) == count
    boxes = [Text.get_window_extent(text, renderer) for text in texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    return [text.get_text() for text in texts]


def points(axis, marker):
    """What is drawn with a marker: (x, y), the legend's empty lines left out."""
    lines = [line for line in axis.lines if line.get_marker() == marker and len(line.get_xdata())]
    return {tuple(map(float, (line.get_xdata()[0], line.get_ydata()[0]))) for line in lines}


def test_figure_1_stands_where_the_paper_has_it():
    (axis,) = figures.relative_gain_figure(fill(store.to_frame([]), find("vlpet-figure1"))).axes
    figure = published.load("vlpet_figure1_relative")
    expected = set(zip(figure.trainable_percent.astype(float), figure.relative_gain_percent, strict=True))
    assert {(x, round(y, 2)) for x, y in points(axis, "o")} == expected
    assert not points(axis, "D")
    assert set(check_labels(axis, 11)) == {published.name_of(method) for method in figure.method}
    assert axis.get_xscale() == "log"
    assert axis.get_title(loc="left") == "BART-base"


def test_ours_and_the_published_are_told_apart_and_named_once(make_result):
    filled = fill(ours(make_result), find("vlpet-figure1"))
    (axis,) = figures.relative_gain_figure(filled).axes
    assert len(points(axis, "o")) == len(points(axis, "D")) == 11
    check_labels(axis, 11)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["published", "ours"]


def test_the_mini_world_has_a_panel_of_its_own(make_result):
    frame = ours(make_result, "mini-image-text", "mini-bart", seeds=1)
    left, right = figures.relative_gain_figure(fill(frame, find("vlpet-figure1"))).axes
    assert (len(points(left, "o")), len(points(left, "D"))) == (11, 0)
    assert (len(points(right, "o")), len(points(right, "D"))) == (0, 11)
    assert left.get_title(loc="left") == "BART-base (published)"
    assert "not comparable" in right.get_title(loc="left")
    check_labels(right, 11)


def test_equal_figures_are_equal_files(tmp_path):
    filled, suffixes = fill(store.to_frame([]), find("vlpet-figure1")), (".png", ".svg", ".pdf")
    with matplotlib.rc_context({"axes.grid": False, "font.size": 20, "figure.dpi": 50}):  # whatever one's own look
        first = write(figures.relative_gain_figure(filled), tmp_path / "a" / "one.png", suffixes)
    figure = figures.relative_gain_figure(filled)
    second, third = (write(figure, tmp_path / name / "one.png", suffixes) for name in "bc")
    assert [path.name for path in first] == ["one.png", "one.svg", "one.pdf"]
    contents = [[path.read_bytes() for path in paths] for paths in (first, second, third)]
    assert contents[0] == contents[1] == contents[2]
    assert all(len(content) > 5000 for content in contents[0])
    assert not matplotlib.rcParams["axes.grid"]  # the look is gone with the figure
    assert RC["axes.grid"]


def test_figures_are_nobody_elses():
    """No window, no backend chosen, nothing that pyplot keeps; what a notebook shows is a picture."""
    code = """
    import sys
    from pet_bench.report import figures
    from pet_bench.results import store
    figure = figures.pareto_figure(store.to_frame([]))
    assert "matplotlib.pyplot" not in sys.modules
    assert figure._repr_png_().startswith(b"\\x89PNG")
    import matplotlib.pyplot
    assert not matplotlib.pyplot.get_fignums()
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "DISPLAY")}
    subprocess.run([sys.executable, "-c", dedent(code)], check=True, env=environment)


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_beats(seed):
    rng = np.random.default_rng(seed)
    cost, score = (pd.Series(rng.integers(0, 6, 12).astype(float)) for _ in range(2))
    score[3] = np.nan
    found = figures.pareto_front(cost, score)
    for i in cost.index:
        beaten = any(
            cost[j] <= cost[i] and score[j] >= score[i] and (cost[j] < cost[i] or score[j] > score[i])
            for j in cost.index
        )
        assert found[i] == (not beaten and not np.isnan(score[i]))


def test_costs_are_means_over_the_trials_with_scores(make_result):
    frame = ours(make_result)
    lost = make_result(method="lora", seed=9).model_copy(
        update={"status": "oom", "metrics": {}, "average": None, "cost": None}
    )
    control = make_result(method="lora", control="text-only")
    table = figures.costs(pd.concat([frame, store.to_frame([lost, control])])).set_index("method")
    own = frame[frame.method == "lora"].drop_duplicates("id")
    assert table.n["lora"] == 3
    assert table.average["lora"] == pytest.approx(own.average.mean())
    assert table["average std"]["lora"] == pytest.approx(own.average.std())
    assert table.train_seconds["lora"] == pytest.approx(own.train_seconds.mean() / 60)
    assert table.peak_memory_bytes["lora"] == pytest.approx(own.peak_memory_bytes.mean() / 2**30)


def test_many_methods_stand_in_a_legend(make_result):
    frame = ours(make_result)
    frame = pd.concat([frame, frame.assign(id=frame.id + "-2", method=frame.method + "-2", average=frame.average - 1)])
    axes = figures.pareto_figure(frame).axes
    legend = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    means = frame.drop_duplicates(["id", "method"]).groupby("method").average.mean()
    assert legend == means.sort_values(ascending=False).index.tolist()
    costs = figures.costs(frame)
    for axis, cost in zip(axes, figures.COSTS, strict=True):
        front = costs[figures.pareto_front(costs[cost], costs.average)]
        assert {text.get_text() for text in axis.texts if text.get_text()} == set(front.method)


def test_three_pareto_panels(make_result, tmp_path):
    figure = figures.pareto_figure(ours(make_result))
    png, svg = write(figure, tmp_path / "pareto.png")
    with Image.open(png) as image:
        assert image.width > 2000
    assert svg.read_text().startswith("<?xml")
    assert [axis.get_xlabel() for axis in figure.axes] == [name for name, _ in figures.COSTS.values()]
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "linear", "linear"]
    for axis in figure.axes:
        assert set(check_labels(axis, 11)) == set(TABLE.method)
        shown = [line for line in axis.lines if line.get_marker() in MARKERS]
        assert {line.get_markerfacecolor() for line in shown} > {"none"}  # some are on the front, some are not


def test_nothing_to_draw_is_an_empty_figure(tmp_path):
    assert all(path.exists() for path in write(figures.pareto_figure(store.to_frame([])), tmp_path / "pareto.png"))
