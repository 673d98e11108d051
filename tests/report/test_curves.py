"""Learning curves, ablations and parts: what is drawn is what pandas says of the frames."""

from __future__ import annotations

from functools import cache

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from pet_bench.errors import UserError
from pet_bench.grid.plan.spec import load
from pet_bench.registry import METHODS
from pet_bench.report import figures
from pet_bench.report.figures import curves, labels, look, parts
from pet_bench.report.figures.axes import axes_of, short, text, without_chosen
from pet_bench.report.marks import OTHERS, mark_of
from pet_bench.results import store
from pet_bench.results.frames import _flat, load_settings
from tests.conftest import ROOT

TASKS = ("vqa", "coco-caption")
BEST = "m0"


def key(method, seed, control="none", status="done", backbone="mini-bart", setup=None):
    return {
        "id": f"{backbone}-{method}-{setup}-{seed}-{control}", "status": status, "suite": "mini-image-text",
        "backbone": backbone, "method": method, "control": control, "seed": seed, "setup": setup or f"of {method}",
        "folder": "results",
    }  # fmt: skip


def history(methods=2, seeds=(0, 1, 2), epochs=(1.0, 2.0, 3.0), **keys):
    """Curves with the loss of two tasks, a score of each, and a score that is not the tasks' own."""
    rng, rows = np.random.default_rng(0), []
    for method in range(methods):
        for seed in seeds:
            for epoch in epochs:
                for task in TASKS:
                    where = key(f"m{method}", seed, **keys) | {"step": int(10 * epoch), "epoch": epoch, "task": task}
                    score = 60 - 2 * method + 5 * epoch + rng.normal()
                    for split, measure, value, primary in (
                        ("train", "loss", 3 / (epoch + method) + rng.uniform(), False),
                        ("valid", "accuracy", score, True),
                        ("valid", "other", 1.0, False),
                    ):
                        rows.append(where | {"split": split, "measure": measure, "value": value, "primary": primary})
    return pd.DataFrame(rows)


def lines(axis):
    """Label → (x, y) of the lines that are drawn."""
    return {line.get_label(): line.get_xydata() for line in axis.lines if len(line.get_xdata())}


def bands(axis):
    """(lowest, highest) at each x of every band."""
    found = []
    for band in axis.collections:
        xs, ys = band.get_paths()[0].vertices.T
        found.append([(ys[xs == x].min(), ys[xs == x].max()) for x in np.unique(xs)])
    return found


def title(axis):
    return axis.get_title(loc="left")


def check_texts(figure):
    """No text beside the panels on another."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axis in figure.axes:
        boxes = [Text.get_window_extent(text, renderer).padded(-1) for text in axis.texts if text.get_text() != "†"]
        assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
        assert all(figure.bbox.padded(1).containsx(x) for box in boxes for x in (box.x0, box.x1))


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert not plt.get_fignums()
    assert not matplotlib.rcParams["axes.grid"]


def test_learning_curves_are_means_with_a_band_of_one_standard_deviation():
    frame = pd.concat([history(), history(control="text-only"), history(status="failed", seeds=(7,))])
    figure = figures.learning_curves_figure(frame)
    assert [title(axis).split("\n")[-1] for axis in figure.axes] == [
        "training loss (mean over tasks)", "vqa, validation", "coco-caption, validation", "average, validation",
    ]  # fmt: skip
    own = frame[(frame.control == "none") & (frame.status == "done")]
    scores = own[(own.measure == "accuracy") & (own.method == BEST)]
    for axis, rows in (
        (figure.axes[0], own[(own.measure == "loss") & (own.method == BEST)]),
        (figure.axes[1], scores[scores.task == "vqa"]),
        (figure.axes[3], scores),
    ):
        trials = rows.groupby(["seed", "epoch"]).value.mean().unstack("epoch")
        assert lines(axis)[BEST] == pytest.approx(np.stack([trials.columns, trials.mean()], axis=1))
        expected = [*zip(trials.mean() - trials.std(), trials.mean() + trials.std(), strict=True)]
        assert any(np.allclose(band, expected) for band in bands(axis))
    assert "n = 3 seeds" in figure._supxlabel.get_text() and "± 1 sample standard" in figure._supxlabel.get_text()
    assert [text.get_text() for text in figure.axes[3].texts] == ["m1", "m0"]  # from below, as the lines end


def test_one_seed_has_no_band_and_one_method_is_enough():
    figure = figures.learning_curves_figure(history(methods=1, seeds=(0,)))
    assert all(not bands(axis) and set(lines(axis)) == {"m0"} for axis in figure.axes)
    assert "n = 1 seed" in figure._supxlabel.get_text()


def test_seeds_with_their_points_elsewhere_are_set_side_by_side_at_the_same_epochs():
    early, late = history(1, (0,), (1.0, 2.0, 4.0)), history(1, (1,), (2.0, 3.0, 5.0))
    frame = pd.concat([early.assign(value=early.epoch), late.assign(value=late.epoch + 10)])
    table = curves.averaged(frame).query("panel == 'vqa'")
    assert table.epoch.tolist() == [2, 3, 4]  # what both have reached and neither has not yet
    assert table["mean"].tolist() == [7, 8, 9]  # a straight line each: 5 more than the first
    assert table["std"].tolist() == pytest.approx([np.std([0, 10], ddof=1)] * 3)


def test_an_average_stands_only_where_all_tasks_have_been_measured():
    frame = history(1, (0,))
    frame = frame[~((frame.task == "vqa") & (frame.epoch == 2))]
    table = curves.averaged(frame)
    assert table[table.panel == "average"].epoch.tolist() == table[table.panel == "training loss"].epoch.tolist()
    assert table[table.panel == "average"].epoch.tolist() == [1, 3]
    assert table[table.panel == "coco-caption"].epoch.tolist() == [1, 2, 3]


def test_one_name_with_two_recipes_is_two_lines():
    frame = pd.concat([history(1, setup="aaaaaaaa"), history(1, setup="bbbbbbbb")])
    assert set(curves.averaged(frame).method) == {"m0 (aaaaaa)", "m0 (bbbbbb)"}


def known(frame):
    """With the names of registered methods in place of m0, m1, …"""
    names = METHODS.names()
    return frame.assign(method=[names[int(method[1:])] for method in frame.method], setup=frame.method)


def test_a_method_without_a_point_in_the_last_panel_is_named_too():
    frame = history(3)
    frame = frame[(frame.method != "m1") | (frame.split == "train")]
    figure = figures.learning_curves_figure(frame)
    assert [one.get_text() for one in figure.axes[-1].texts] == ["m1", "m2", "m0"]
    check_texts(figure)


def test_21_chosen_methods_share_panels_in_their_own_marks_and_all_are_named():
    frame = known(history(21))
    names = list(frame.method.unique())
    figure = figures.learning_curves_figure(frame, names)
    last = figure.axes[-1]
    shown = {line.get_label(): (line.get_color(), line.get_marker(), line.get_linestyle()) for line in last.lines}
    assert shown == {name: (mark_of(name).color, mark_of(name).marker, mark_of(name).dash) for name in names}
    assert len(set(shown.values())) == 21 == len(last.collections)
    ends = sorted(names, key=lambda name: lines(last)[name][-1, 1])
    assert [text.get_text() for text in last.texts] == ends
    heights = [text.xy[1] for text in last.texts]
    assert heights == sorted(heights)
    check_texts(figure)


def test_others_than_the_chosen_are_grey_where_they_are_asked_for():
    figure = figures.learning_curves_figure(history(9), ["m3"])
    shown = {line.get_label(): line.get_color() for line in figure.axes[-1].lines}
    assert shown == {f"m{i}": OTHERS.color for i in range(9)} | {"m3": mark_of("m3").color}
    assert "grey: the other methods" in figure._supxlabel.get_text()


def test_many_methods_have_a_row_each_and_none_is_grey():
    """A row from 0 to 0.82 above minus its place, on one scale down a panel; the last mean is written out."""
    frame = known(history(9))
    frame.loc[(frame.method == frame.method.unique()[2]) & (frame.seed == 1), "status"] = "suspect"
    figure = figures.learning_curves_figure(frame)
    table = curves.averaged(frame)
    average = table[table.panel == "average"]
    ranked = average.groupby("method")["mean"].last().sort_values(ascending=False).index
    names = [name + " †" * (name == frame.method.unique()[2]) for name in ranked]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    for axis, panel in zip(figure.axes, ["training loss", *TASKS, "average"], strict=True):
        rows = table[table.panel == panel]
        low, high = (rows["mean"] - rows["std"]).min(), (rows["mean"] + rows["std"]).max()
        written = [text.get_text() for text in axis.texts]
        for place, name in enumerate(ranked):
            own = rows[rows.method == name]
            line = lines(axis)[name]
            assert line[:, 1] == pytest.approx(0.82 * (own["mean"] - low) / (high - low) - place)
            assert f"{own['mean'].iloc[-1]:.{3 if panel == 'training loss' else 1}f}" in written
        colors = {line.get_label(): line.get_color() for line in axis.lines if line.get_label() in lines(axis)}
        assert {name: colors[name] for name in ranked} == {name: mark_of(name).color for name in ranked}
        assert f"{low:.3g} to {high:.3g}" in title(axis)
    check_texts(figure)


@pytest.mark.parametrize("methods", [2, 9])
def test_long_names_are_whole_and_stand_once(methods):
    frame = history(methods)
    frame = frame.assign(method=frame.method + "(bottleneck=32, gate=middle-x)")
    figure = figures.learning_curves_figure(frame)
    figure.canvas.draw()
    texts = [one for one in figure.findobj(Text) if "bottleneck" in one.get_text() and one.get_visible()]
    assert sorted(one.get_text() for one in texts) == sorted(frame.method.unique())
    for box in (one.get_window_extent(figure.canvas.get_renderer()) for one in texts):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("epochs", [(0.5,), (0.25, 0.5), (1.0, 2.0), (1.0, 7.0, 20.0)])
def test_epochs_are_whole_numbers(epochs):
    for axis in figures.learning_curves_figure(history(epochs=epochs)).axes:
        low, high = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert len(ticks) > 1 and all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("methods", [2, 9])
def test_a_curve_of_one_point_is_a_dot_with_a_bar(methods):
    frame = history(methods, epochs=(1.0,))
    figure = figures.learning_curves_figure(frame)
    own = curves.averaged(frame).query("panel == 'average' and method == 'm0'").iloc[0]
    for axis in figure.axes:
        assert len(axis.containers) == methods
        assert all(len(container.lines[0].get_xdata()) == 1 for container in axis.containers)
    if methods == 2:
        (bar,) = figure.axes[-1].containers[0].lines[2][0].get_segments()
        assert bar[:, 1] == pytest.approx([own["mean"] - own["std"], own["mean"] + own["std"]])
    assert "bars: ± 1" in figure._supxlabel.get_text()


@pytest.mark.parametrize("methods", [2, 9])
def test_no_band_goes_beyond_what_a_score_can_be(methods):
    frame = history(methods)
    score, loss = (frame.seed.map(dict(enumerate(values))) for values in ((100.0, 86.0, 100.0), (0.1, 3.0, 0.1)))
    figure = figures.learning_curves_figure(frame.assign(value=score.where(frame.measure == "accuracy", loss)))
    if methods == 2:
        vqa = figure.axes[1]
        assert max(high for band in bands(vqa) for _, high in band) == 100
        assert min(low for band in bands(figure.axes[0]) for low, _ in band) == 0
    else:
        assert "to 100" in title(figure.axes[1]) and "loss, 0 to" in title(figure.axes[0])


def test_twins_are_both_seen():
    names = ["vl-pet-large", "vl-adapter+large"]
    figure = figures.learning_curves_figure(pd.concat([history(1).assign(method=name, setup=name) for name in names]))
    for axis in figure.axes:
        below, above = axis.lines
        assert (lines(axis)[names[0]] == lines(axis)[names[1]]).all()
        assert below.get_linewidth() > above.get_linewidth() + 2 and below.get_zorder() < above.get_zorder()
        assert below.get_color() != above.get_color()
    assert [text.get_text() for text in figure.axes[-1].texts] == names


def test_a_backbone_has_a_block_of_panels_and_a_method_the_same_stroke_in_all():
    frame = pd.concat([history(2), history(3, backbone="mini-t5")])
    figure = figures.learning_curves_figure(frame)
    rows = [title(axis) for axis in figure.axes if "\n" in title(axis)]
    assert [row.split("\n")[0] for row in rows] == ["mini-image-text on mini-bart", "mini-image-text on mini-t5"]
    colors = {(line.get_label(), line.get_color()) for axis in figure.axes for line in axis.lines}
    assert len(colors) == 3


@pytest.mark.parametrize("draw", [figures.learning_curves_figure, figures.question_types_figure])
def test_nothing_to_draw_and_unknown_methods_are_one_line_each(draw):
    frame = history() if draw is figures.learning_curves_figure else breakdowns()
    for nothing in (frame[:0], frame.assign(control="text-only"), frame.assign(status="failed")):
        with pytest.raises(UserError, match="of a finished trial") as caught:
            draw(nothing)
        assert len(caught.value.faults) == 1
    with pytest.raises(UserError, match='unknown method "mo"') as caught:
        draw(frame, methods=["mo", "m1", "nothing"])
    assert len(caught.value.faults) == 2


def resolved(grid):
    """Settings of a shipped grid's trials, and made-up scores: (results, settings)."""
    frame, settings = _resolved(grid)
    return frame.copy(), settings


@cache
def _resolved(grid):
    rng, trials = np.random.default_rng(0), load(grid).trials()
    rows = [{"id": trial.id, "status": "done", "folder": "f", **store.base(trial.to_dict())} for trial in trials]
    settings = pd.DataFrame([row | _flat(trial.to_dict()) for row, trial in zip(rows, trials, strict=True)])
    base = {setup: rng.uniform(70, 80) for setup in settings.setup}
    scores = []
    for row in rows:
        values = {task: base[row["setup"]] + rng.normal() for task in TASKS}
        score = row | {"average": np.mean(list(values.values())), "percent": base[row["setup"]] / 20}
        scores += [
            score | {"task": task, "metric": "accuracy", "primary": True, "value": value}
            for task, value in values.items()
        ]
    return pd.DataFrame(scores), settings


def found(axes):
    """(setting, label of a line) → its values as text."""
    return {(short(axis.setting), line.label): [text(value) for value in line.values]
            for axis in axes for line in axis.lines}  # fmt: skip


def test_the_axes_of_an_ablation_of_granularity():
    axes = axes_of(resolved("ablation-gate")[1])
    gates = ["large", "large-full", "middle-x", "middle-y", "small", "none", "delta"]
    assert found(axes) == {
        ("gate", "vl-pet-large"): gates,
        ("gate", "gating add"): ["large", "middle-x", "middle-y"],
        ("gating", "vl-pet-large"): ["multiply", "add"],
        ("gating", "gate middle-x"): ["multiply", "add"],
        ("gating", "gate middle-y"): ["multiply", "add"],
        ("gating", "encoder self_attn parallel, ffn parallel, gate delta"): ["base", "multiply"],
        ("norm", "gate none"): ["none", "layer", "l2"],
        ("decoder", "vl-pet-large"): ["cross_attn.value parallel", "cross_attn sequential"],
        ("value_gate", "decoder cross_attn sequential"): ["none", "large"],
        ("value_gate", "value_residual true"): ["none", "large"],
        ("value_residual", "vl-pet-large"): ["false", "true"],
    }
    assert axes[0].lines[0].also == ("",) * 6 + ("encoder self_attn parallel, ffn parallel",)
    assert not any(axis.numeric for axis in axes)


def test_the_axis_of_scope_calls_that_of_the_family_the_default():
    (scope,) = axes_of(resolved("ablation-scope")[1])
    values = ["language", "default", "language, projector, vision", "vision"]
    assert found([scope]) == {("scope", "lora"): values, ("scope", "adapter"): values}


def test_tuned_setups_are_set_side_by_side_whatever_rate_was_chosen_for_each():
    folder = ROOT / "results/mini-tuned-ablation"
    tuning, settings = load(folder).tuning, load_settings(folder)
    assert settings["recipe.lr"].nunique() > 1
    axes = axes_of(without_chosen(settings, [tuning]))
    assert {axis.setting for axis in axes} == {
        "method.bottleneck", "method.gate", "method.gate_padding", "method.scale", "method.train",
    }  # fmt: skip
    assert {setup for axis in axes for line in axis.lines for setup in line.setups} == set(settings.setup)


def test_the_axes_of_an_ablation_of_widths_are_numbers_and_methods_share_them():
    axes = axes_of(resolved("ablation-rank")[1])
    assert [(short(axis.setting), axis.values) for axis in axes] == [
        ("bottleneck", [24, 48, 96, 192]),
        ("gate_width", [24, 48, 96, 192]),
        ("value_bottleneck", [24, 48, 96, 192]),
        ("rank", [8, 32, 128, 256]),
    ]
    assert [line.label for line in axes[0].lines] == ["vl-pet-large", "vl-adapter"]
    assert all(axis.numeric for axis in axes)


def test_what_changes_with_a_setting_is_said_and_placements_are_one_setting():
    (train, *_) = axes_of(resolved("ablation-trains")[1])
    assert dict(zip(train.lines[0].values, train.lines[0].also, strict=True))[("all",)] == "lr 0.0001"
    (decoder,) = axes_of(resolved("ablation-decoder")[1])
    assert len(decoder.lines[0].values) == 13 and "none" in decoder.lines[0].values
    t5 = {axis.setting: axis.companions for axis in axes_of(resolved("ablation-t5")[1])}
    assert t5["method.module_init"] == ("method.value_init",) and "method.value_init" not in t5


@pytest.mark.parametrize("score", ["average", "vqa"])
def test_ablation_points_are_means_with_bars_of_one_standard_deviation(score):
    frame, settings = resolved("mini-ablation")
    suspect = settings.id[(settings["method.scale"] == 3) & (settings.seed == 1)].item()
    frame.loc[frame.id == suspect, "status"] = "suspect"
    values = frame[frame.task == "vqa"].set_index("id")["value" if score == "vqa" else "average"]
    trials = settings.assign(score=settings.id.map(values), percent=settings.id.map(frame.groupby("id").percent.max()))
    usual = trials["method.bottleneck"].eq(8) & trials["method.scale"].eq(1) & trials["method.gate"].eq("large")
    figure = figures.ablation_figure(frame, settings, score)
    panels = {title(axis).split(":")[0]: axis for axis in figure.axes if title(axis)}
    assert set(panels) == {"bottleneck", "gate", "scale", "train"}
    scale, gate = panels["scale"], panels["gate"]

    own = trials[trials["method.gate"].eq("large") & trials["method.bottleneck"].eq(8)]
    own = own[own["method.train"] == ("encoder.norms",)].groupby("method.scale").score
    assert lines(scale)["vl-pet-large"] == pytest.approx(np.stack([[0.3, 1, 3], own.mean()], axis=1))
    assert np.allclose(bands(scale), [[*zip(own.mean() - own.std(), own.mean() + own.std(), strict=True)]])
    assert scale.get_xscale() == "log" and panels["bottleneck"].get_xscale() == "linear"
    assert [text.xy for text in scale.texts] == [(3, pytest.approx(own.mean()[3]))]  # †
    (dashed,) = (line for line in scale.lines if line.get_linestyle() == "--")
    assert dashed.get_ydata()[0] == pytest.approx(trials[usual & (trials.method == "vl-pet-large")].score.mean())

    assert [label.get_text() for label in gate.get_yticklabels()] == ["large", "middle-x", "middle-y", "small", "none"]
    by_gate = trials[trials["method.bottleneck"].eq(8) & trials["method.scale"].eq(1)]
    by_gate = by_gate[by_gate["method.train"] == ("encoder.norms",)].groupby("method.gate", sort=False)
    assert [one.lines[0].get_xdata()[0] for one in gate.containers] == pytest.approx(by_gate.score.mean().tolist())
    ends = [one.lines[2][0].get_segments()[0][:, 0] for one in gate.containers]
    expected = np.stack([by_gate.score.mean() - by_gate.score.std(), by_gate.score.mean() + by_gate.score.std()], 1)
    assert np.allclose(ends, expected)
    share = figure.axes[figure.axes.index(gate) + 1]
    assert [one.lines[0].get_xdata()[0] for one in share.containers] == pytest.approx(by_gate.percent.mean().tolist())


def test_no_bar_of_an_ablation_goes_beyond_what_a_score_can_be():
    frame, settings = resolved("mini-ablation")
    frame = frame.assign(value=frame.id.map(settings.set_index("id").seed).map({0: 100.0, 1: 100.0, 2: 40.0}))
    figure = figures.ablation_figure(frame[frame.task == "vqa"], settings, "vqa")
    scores = [axis for axis in figure.axes if title(axis)]
    ends = [high for axis in scores if not axis.containers for band in bands(axis) for _, high in band]
    bars = [bar.lines[2][0].get_segments()[0][1, 0] for axis in scores for bar in axis.containers]
    assert ends and bars and set(ends) | set(bars) == {100}


def test_one_seed_has_no_bars_and_a_setup_beside_the_axes_is_named():
    frame, settings = resolved("ablation-module")
    one = settings.id[settings.seed == settings.seed.min()]
    figure = figures.ablation_figure(frame[frame.id.isin(one)], settings)
    assert not any(bands(axis) for axis in figure.axes)
    assert all(len(container.lines[2]) == 0 for axis in figure.axes for container in axis.containers)
    assert figure._supxlabel.get_text() == "n = 1 seed; dashed: vl-pet-large, vl-adapter, lora, compacter; " + (
        "alone, in no panel: compacter+large"
    )


def test_where_nothing_varies_alone_there_is_no_ablation():
    frame, settings = resolved("mini-ablation")
    for kept in (settings[:0], settings[settings.method == "vl-pet-large"]):
        with pytest.raises(UserError, match="no setting varies alone"):
            figures.ablation_figure(frame[frame.id.isin(kept.id)], settings)
    with pytest.raises(UserError, match='unknown score "vga"'):
        figures.ablation_figure(frame, settings, "vga")


def test_trials_that_differ_in_no_setting_are_not_averaged():
    _, settings = resolved("mini-ablation")
    with pytest.raises(UserError, match="differ in something that is no setting"):
        axes_of(pd.concat([settings, settings.assign(setup=settings.setup + "x")]))


def test_the_axes_need_no_more_than_one_setting_apart():
    """At random: each line holds all settings but one, which is different in each of its setups."""
    rng = np.random.default_rng(0)
    names = ["method.a", "method.b", "recipe.lr"]
    rows = {tuple(row) for row in rng.integers(0, 3, (14, 3)).tolist()}
    settings = pd.DataFrame([
        key("m", 0, setup=f"s{i}") | {"method.name": "m", **dict(zip(names, row, strict=True))}
        for i, row in enumerate(sorted(rows))
    ])  # fmt: skip
    table = settings.set_index("setup")[names]
    groups = {
        (name, frozenset(group.index))
        for name in names
        for _, group in table.groupby([other for other in names if other != name])
        if len(group) > 1
    }
    assert groups == {(axis.setting, frozenset(line.setups)) for axis in axes_of(settings)
                      for line in axis.lines}  # fmt: skip


PARTS = {
    ("vqa", "question type"): {"how many": 30, "is there a": 50, "what color": 20},
    ("vqa", "length"): {"1-5": 60, "6-10": 40},
    ("coco-caption", "length"): {"11-15": 30, "6-10": 20, "21+": 5},
}


def breakdowns(methods=2, seeds=(0, 1, 2)):
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        key(f"m{method}", seed) | {"task": task, "group": group, "part": part, "n": n}
        | {"metric": "accuracy", "value": 70 - method + rng.normal()}
        for method in range(methods) for seed in seeds
        for (task, group), sizes in PARTS.items() for part, n in sizes.items()
    ])  # fmt: skip


def panels(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def test_parts_are_means_with_bars_in_the_order_of_their_size_or_length():
    frame = breakdowns()
    figure = figures.question_types_figure(pd.concat([frame, frame.assign(control="text-only", value=0.0)]))
    assert [title(axis).strip() for axis in panels(figure)] == [
        "vqa, by question type\nis there a (n = 50)", "how many (n = 30)", "what color (n = 20)",
        "coco-caption, by length\n6-10 (n = 20)", "11-15 (n = 30)", "21+ (n = 5)",
    ]  # fmt: skip
    own = frame[(frame.group == "question type") & (frame.part == "how many")].groupby("method").value
    names = [label.get_text() for label in panels(figure)[0].get_yticklabels()]
    assert set(names) == {"m0", "m1"}
    axis = panels(figure)[1]
    for container in axis.containers:
        line = container.lines[0]
        name = names[round(line.get_ydata()[0])]
        mean, std = own.mean()[name], own.std()[name]
        assert line.get_xdata()[0] == pytest.approx(mean)
        assert container.lines[2][0].get_segments()[0][:, 0] == pytest.approx([mean - std, mean + std])
        assert (line.get_color(), line.get_marker()) == (mark_of(name).color, mark_of(name).marker)
    assert len({axis.get_xlim() for axis in panels(figure)[:3]}) == 1  # one scale in a block
    assert "n = 3 seeds" in figure._supxlabel.get_text()


def test_a_heading_is_no_wider_than_its_panel():
    """A name that takes several lines lifts the title of its block above it."""
    named = breakdowns().replace({"part": {"how many": "Geography, History, Language and Culture"}})
    shown = named[(named.task == "vqa") | (named.part == "21+")]
    first, second, _, other = panels(figures.question_types_figure(shown))
    assert title(first) == "vqa, by question type\n\n\nis there a (n = 50)"
    assert title(second).strip() == "Geography, History,\nLanguage and Culture\n(n = 30)"
    assert title(other) == "coco-caption, by length\n21+ (n = 5)"


def test_no_bar_of_a_part_goes_beyond_what_a_score_can_be():
    frame = breakdowns(1)
    figure = figures.question_types_figure(
        frame.assign(value=frame.seed.map({0: 100.0, 1: 100.0, 2: 60.0})), task="vqa"
    )
    assert all(bar.lines[2][0].get_segments()[0][1, 0] == 100 for axis in panels(figure) for bar in axis.containers)


def test_a_task_a_group_and_the_most_frequent_parts():
    figure = figures.question_types_figure(breakdowns(), task="vqa", group="length")
    assert [title(axis).split("\n")[0] for axis in figure.axes] == ["vqa, by length", ""]
    first, _ = figures.question_types_figure(breakdowns(), task="vqa", most=2).axes
    assert title(first).split("\n")[0] == "vqa, by question type (2 most frequent of 3)"
    with pytest.raises(UserError, match='unknown group "lenght"'):
        figures.question_types_figure(breakdowns(), group="lenght")
    with pytest.raises(UserError, match='unknown task "gqa"'):
        figures.question_types_figure(breakdowns(), task="gqa")


def test_of_21_methods_each_has_a_row_or_the_others_one_of_ticks():
    frame = breakdowns(21)
    figure = figures.question_types_figure(frame)
    assert sorted(label.get_text() for label in figure.axes[0].get_yticklabels()) == sorted(frame.method.unique())
    assert all(len(axis.containers) == 21 for axis in panels(figure))
    figure = figures.question_types_figure(frame, methods=["m3", "m20"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["m3", "m20", "19 others"]
    ticks = [line for line in figure.axes[0].lines if line.get_marker() == "|" and len(line.get_xdata()) == 19]
    own = frame[(frame.part == "is there a") & ~frame.method.isin(["m3", "m20"])].groupby("method").value.mean()
    assert sorted(ticks[0].get_xdata()) == pytest.approx(sorted(own))
    assert len(parts.parts(breakdowns(1, (0,)))["std"].dropna()) == 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.learning_curves_figure(history()),
        lambda: figures.ablation_figure(*resolved("mini-ablation")),
        lambda: figures.question_types_figure(breakdowns()),
    ],
)
def test_each_is_written_twice_alike(tmp_path, draw):
    first, second = (look.write(draw(), tmp_path / name / "one.png") for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("seed", range(20))
def test_names_are_spread_in_order_and_apart(seed):
    rng = np.random.default_rng(seed)
    heights = np.sort(rng.uniform(size=rng.integers(1, 21)) ** rng.integers(1, 4))
    gap = 0.05
    places = np.array(labels.spread(heights, gap))
    assert (np.diff(places) >= gap - 1e-9).all() and (places > -1e-9).all() and (places < 1 + 1e-9).all()
    alone = np.array(
        [all(abs(height - other) >= 20 * gap for other in heights if other != height) for height in heights]
    )
    assert places[alone] == pytest.approx(heights[alone])


def test_the_caption_of_a_small_figure_lies_beneath_it():
    rows = breakdowns(methods=1, seeds=(0,)).assign(status="suspect")
    figure = figures.question_types_figure(rows[rows.part == rows.part.iloc[0]], task="vqa")
    with look.look():
        figure.canvas.draw()
    axes = [axis.get_tightbbox() for axis in figure.axes if axis.get_visible()]
    caption = figure._supxlabel.get_window_extent()
    assert caption.y1 <= min(box.y0 for box in axes)
    assert min(caption.y0, *(box.x0 for box in axes)) >= 0
