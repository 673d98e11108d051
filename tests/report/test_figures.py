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
from pet_bench.report.costs import COSTS, costs
from pet_bench.report.figures.look import MANY, RC, write
from pet_bench.report.figures.pareto import pareto_front
from pet_bench.report.marks import MARKERS, mark_of
from pet_bench.report.tables.fill import fill, find
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


def points(axis, hollow):
    """Where open, or filled, points are: (x, y), the legend's empty lines left out."""
    lines = [line for line in axis.lines if line.get_marker() in MARKERS and len(line.get_xdata()) == 1]
    chosen = [line for line in lines if (line.get_markerfacecolor() == "none") == hollow]
    return {tuple(map(float, (line.get_xdata()[0], line.get_ydata()[0]))) for line in chosen}


def test_figure_1_stands_where_the_paper_has_it():
    drawn = figures.relative_gain_figure(fill(store.to_frame([]), find("vlpet-figure1")))
    (axis,) = drawn.axes
    figure = published.load("vlpet_figure1_relative")
    expected = set(zip(figure.trainable_percent.astype(float), figure.relative_gain_percent, strict=True))
    assert {(x, round(y, 2)) for x, y in points(axis, hollow=True)} == expected
    assert not points(axis, hollow=False)
    assert set(check_labels(axis, 11)) == {published.name_of(method) for method in figure.method}
    assert axis.get_xscale() == "log"
    assert axis.get_title(loc="left") == "BART-base"
    assert drawn._supxlabel.get_text() == "open: published"


def test_ours_and_the_published_are_told_apart_and_named_once(make_result):
    filled = fill(ours(make_result), find("vlpet-figure1"))
    figure = figures.relative_gain_figure(filled)
    (axis,) = figure.axes
    assert len(points(axis, hollow=True)) == len(points(axis, hollow=False)) == 11
    check_labels(axis, 11)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["published", "ours"]
    caption = figure._supxlabel.get_text()
    assert caption.startswith("open: published; filled: ours; means over n = 3 seeds; bars: ± 1 sample standard")
    drawn = [line for line in axis.lines if line.get_marker() in MARKERS and len(line.get_xdata()) == 1]
    for method in TABLE.method:  # both points of a method in its own colour and marker
        own = mark_of(method)
        assert sum((line.get_marker(), line.get_color()) == (own.marker, own.color) for line in drawn) == 2


def test_the_mini_world_has_a_panel_of_its_own(make_result):
    frame = ours(make_result, "mini-image-text", "mini-bart", seeds=1)
    left, right = figures.relative_gain_figure(fill(frame, find("vlpet-figure1"))).axes
    assert (len(points(left, hollow=True)), len(points(left, hollow=False))) == (11, 0)
    assert (len(points(right, hollow=True)), len(points(right, hollow=False))) == (0, 11)
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
    found = pareto_front(cost, score)
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
    table = costs(pd.concat([frame, store.to_frame([lost, control])])).set_index("method")
    own = frame[frame.method == "lora"].drop_duplicates("id")
    assert table.n["lora"] == 3
    assert table.average["lora"] == pytest.approx(own.average.mean())
    assert table["average std"]["lora"] == pytest.approx(own.average.std())
    assert table.train_seconds["lora"] == pytest.approx(own.train_seconds.mean() / 60)
    assert table.peak_memory_bytes["lora"] == pytest.approx(own.peak_memory_bytes.mean() / 2**30)


def test_many_methods_stand_in_a_legend(make_result):
    frame = ours(make_result)
    frame = pd.concat([frame, frame.assign(id=frame.id + "-2", method=frame.method + "-2", average=frame.average - 1)])
    figure = figures.pareto_figure(frame)
    axes, names = figure.axes, frame.method.unique()
    legend = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    means = frame.drop_duplicates(["id", "method"]).groupby("method").average.mean()
    assert len(names) > MANY
    assert legend == means.sort_values(ascending=False).index.tolist()
    looks = [(handle.get_marker(), handle.get_color()) for handle in axes[-1].get_legend().legend_handles]
    assert looks == [(mark_of(name).marker, mark_of(name).color) for name in legend]
    box = axes[-1].get_legend().get_window_extent(figure.canvas.get_renderer())
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0  # none of it cut off
    table = costs(frame)
    alike = {name for name in names if sum(mark_of(name) == mark_of(other) for other in names) > 1}
    for axis, cost in zip(axes, COSTS, strict=True):
        front = table[pareto_front(table[cost], table.average)]
        named = {name for text in axis.texts if (name := text.get_text()) and not name.startswith(RULE)}
        assert named == set(front.method) | alike


RULE = "majority answer"


def drawn(axis, mark):
    """The points with a mark."""
    return [line for line in axis.lines if (line.get_marker(), line.get_color()) == (mark.marker, mark.color)]


def test_costs_that_are_all_but_the_same_stand_near_each_other(make_result):
    frame = ours(make_result, seeds=1)
    frame = frame.assign(peak_memory_bytes=2.0**30 * (1 + 1e-6 * frame.groupby("method").ngroup()))
    figure = figures.pareto_figure(frame)
    axis = figure.axes[1]
    low, high = axis.get_xlim()
    assert 0.02 < high - low < 0.05 and low < 1 < high
    figure.canvas.draw()
    assert axis.xaxis.get_offset_text().get_text() == ""


def test_a_method_looks_the_same_whatever_else_is_there(make_result):
    frame = ours(make_result, seeds=1)
    for methods in (list(TABLE.method), ["lora", "vl-pet-large"], ["vl-pet-large"]):
        for axis in figures.pareto_figure(frame[frame.method.isin(methods)]).axes:
            assert all(len(drawn(axis, mark_of(method))) == 1 for method in methods)


def test_twins_are_both_seen_and_named_together(make_result):
    """Equal to the digit in score, size, memory and time: one larger beneath the other, none of its bar hidden."""
    frame = ours(make_result)
    twin = frame[frame.method == "vl-pet-large"].assign(method="vl-adapter+large", id=lambda rows: rows.id + "-2")
    figure = figures.pareto_figure(pd.concat([frame, twin]))
    for axis in figure.axes:
        (one,), (other,) = (drawn(axis, mark_of(name)) for name in ("vl-pet-large", "vl-adapter+large"))
        assert (one.get_xdata()[0], one.get_ydata()[0]) == (other.get_xdata()[0], other.get_ydata()[0])
        assert one.get_markersize() > other.get_markersize() + 4 and one.get_zorder() < other.get_zorder()
        assert "vl-pet-large = vl-adapter+large" in {text.get_text() for text in axis.texts}
    assert "of two in one place the one beneath is larger" in figure._supxlabel.get_text().replace("\n", " ")
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].reshape(-1, 3)
    for name in ("vl-pet-large", "vl-adapter+large"):
        color = np.array([int(mark_of(name).color[i : i + 2], 16) for i in (1, 3, 5)])
        assert (abs(pixels.astype(int) - color).max(axis=1) < 6).sum() > 100


def test_no_bar_goes_beyond_what_a_score_can_be(make_result):
    """Nearly all right in one trial, all in another: the mean plus the deviation would be above 100; so below 0."""
    scores = {"lora": (100.0, 90.0), "full": (0.5, 8.0)}
    results = [
        make_result(method=method, seed=seed, vqa=value, gqa=value)
        for method, values in scores.items()
        for seed, value in enumerate(values)
    ]
    for axis in figures.pareto_figure(store.to_frame(results)).axes:
        bars = {tuple(segment[:, 1]) for bar in axis.collections for segment in bar.get_segments()}
        low, high = 4.25 - np.std(scores["full"], ddof=1), 4.25 + np.std(scores["full"], ddof=1)
        assert low < 0 and sorted(bars) == [pytest.approx((0, high)), (pytest.approx(95 - 50**0.5), 100)]


def controlled(make_result, *scores):
    """Two methods that score so, and two text-only controls, of which the better has 35 on one of two tasks."""
    results = [make_result(method=name, vqa=vqa) for name, vqa in zip(("lora", "full"), scores, strict=True)]
    for method, vqa in (("lora", 30), ("full", 35)):
        results.append(make_result(method=method, control="text-only", vqa=vqa))
    return figures.pareto_figure(store.to_frame(results))


def test_controls_and_the_majority_are_lines(make_result):
    figure = controlled(make_result, 5, 60)
    assert {"best text-only control (full)", RULE} <= {text.get_text() for text in figure.axes[0].texts}
    for axis in figure.axes:
        styles = [line.get_linestyle() for line in axis.lines if line.get_linestyle() in ("--", ":")]
        assert sorted(styles) == ["--", ":"]


@pytest.mark.parametrize("scores, arrow", [((60, 61), "↓"), ((5, 6), "↑")])
def test_a_control_far_off_is_named_at_the_edge_and_leaves_the_panel_to_the_methods(make_result, scores, arrow):
    figure = controlled(make_result, *scores)
    name = next(text for text in figure.axes[0].texts if text.get_text().startswith("best text-only control (full) "))
    place = name.get_window_extent(figure.canvas.get_renderer())
    assert name.get_text().endswith(arrow) and figure.axes[0].bbox.y0 <= place.y0 and place.y1 <= figure.axes[0].bbox.y1
    for axis in figure.axes:
        assert np.ptp(axis.get_ylim()) < 2 and "--" not in [line.get_linestyle() for line in axis.lines]


def test_names_of_lines_in_one_place_are_apart(make_result):
    results = [make_result(method="lora", vqa=60), make_result(method="full", vqa=5)]
    results += [make_result(method="lora", control=control, vqa=30) for control in ("text-only", "noise")]
    figure = figures.pareto_figure(store.to_frame(results))
    boxes = [
        text.get_window_extent(figure.canvas.get_renderer())
        for text in figure.axes[0].texts
        if text.get_text().startswith("best ")
    ]
    assert len(boxes) == 2 and not boxes[0].overlaps(boxes[1])


def test_the_caption_explains_what_there_is(make_result):
    results = [make_result(method="lora", seed=seed) for seed in range(3)]
    results += [make_result(method="full", seed=0, status="suspect", error="collapsed")]
    figure = figures.pareto_figure(store.to_frame(results))
    caption = " ".join(figure._supxlabel.get_text().split())
    for said in ("filled, joined by the line: on the Pareto front", "open: the other methods", "bars: ± 1 sample",
                 "means over n = 1 seed (but lora 3)", "† with suspect trials"):  # fmt: skip
        assert said in caption
    box = figure._supxlabel.get_window_extent(figure.canvas.get_renderer())
    assert box.x1 <= figure.bbox.x1 and box.y0 >= 0
    bare = figures.pareto_figure(store.to_frame(results[:1]))._supxlabel.get_text()
    assert "n = 1 seed;" in bare and "bars" not in bare and "†" not in bare


@pytest.mark.parametrize("seeds", [1, 3])
def test_labels_of_crowded_points_do_not_overlap(make_result, seeds):
    rng = np.random.default_rng(0)
    results = [
        make_result(method=f"method-{i}", seed=seed, vqa=60 + rng.normal(), gqa=40.0, trainable=int(100 + 3 * i))
        for i in range(8)
        for seed in range(seeds)
    ]
    axis = figures.pareto_figure(store.to_frame(results)).axes[0]
    assert {f"method-{i}" for i in range(8)} < set(check_labels(axis, 9))


def test_suspect_lost_and_infinite_trials_do_not_break_the_figure(make_result):
    lost = {"status": "oom", "error": "no memory", "metrics": {}, "average": None, "parameters": None}
    results = [
        make_result(method="lora", status="suspect", error="collapsed"),
        make_result(method="full", vqa=float("inf"), status="suspect", error="collapsed"),
        make_result(method="bitfit").model_copy(update=lost),
        make_result(method="ia3", status="stopped_early", error="by the search"),
        make_result(method="bitfit", backbone="t5-base").model_copy(update=lost),
    ]
    axes = figures.pareto_figure(store.to_frame(results)).axes
    assert "lora †" in {text.get_text() for text in axes[0].texts}
    assert np.isfinite(axes[0].get_ylim()).all()
    assert len(axes) == 3  # nothing is known of t5-base


def test_a_row_of_panels_per_backbone_and_names_apart_where_recipes_differ(make_result):
    results = [make_result(backbone=backbone) for backbone in ("bart-base", "t5-base")]
    results += [make_result(backbone="t5-base", epochs=3)]
    frame = store.to_frame(results)
    axes = figures.pareto_figure(frame).axes
    titles = [axis.get_title(loc="left") for axis in axes[::3]]
    assert [title.split(" (")[0] for title in titles] == ["image-text on bart-base", "image-text on t5-base"]
    names = {f"lora ({setup[:6]})" for setup in frame[frame.backbone == "t5-base"].setup}
    assert names <= {name for text in axes[3].texts for name in text.get_text().split(" = ")}


def test_three_pareto_panels(make_result, tmp_path):
    figure = figures.pareto_figure(ours(make_result))
    png, svg = write(figure, tmp_path / "pareto.png")
    with Image.open(png) as image:
        assert image.width > 2000
    assert svg.read_text().startswith("<?xml")
    assert [axis.get_xlabel() for axis in figure.axes] == [name for name, _ in COSTS.values()]
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "linear", "linear"]
    for axis in figure.axes:
        shown = check_labels(axis, 11 + (axis is figure.axes[0]))
        assert {name for name in shown if not name.startswith(RULE)} == set(TABLE.method)
        shown = [line for line in axis.lines if line.get_marker() in MARKERS]
        assert {line.get_markerfacecolor() for line in shown} > {"none"}  # some are on the front, some are not


def test_nothing_to_draw_is_an_empty_figure(tmp_path):
    assert all(path.exists() for path in write(figures.pareto_figure(store.to_frame([])), tmp_path / "pareto.png"))
