from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from pet_bench.report import plot
from pet_bench.report.look import write
from pet_bench.report.table import comparison
from pet_bench.results import store


@pytest.mark.parametrize("seeds", [1, 3])
def test_labels_of_crowded_points_do_not_overlap(make_result, tmp_path, seeds):
    rng = np.random.default_rng(0)
    results = [
        make_result(method=f"method-{i}", seed=seed, vqa=60 + rng.normal(), gqa=40.0, trainable=int(100 + 3 * i))
        for i in range(8)
        for seed in range(seeds)
    ]
    results.append(make_result(method="method-0", control="text-only", vqa=30.0, gqa=30.0))
    figure = plot.score_vs_parameters(comparison(store.to_frame(results)))
    (axis,) = figure.axes
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in axis.texts if text.get_text()]
    boxes = [Text.get_window_extent(text, renderer) for text in texts]
    assert sum(text.get_text().startswith("method-") for text in texts) == 8
    assert {text.get_text() for text in texts} >= {"best text-only control (method-0)", "majority answer"}
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
    assert axis.get_xscale() == "log"
    png, svg = write(figure, tmp_path / "r" / "plot.png")
    with Image.open(png) as image:
        assert image.width > 800
    assert svg.read_text().startswith("<?xml")
    assert "method-7" in svg.read_text()


def test_suspect_lost_and_infinite_trials_do_not_break_the_figure(make_result):
    lost = {"status": "oom", "error": "no memory", "metrics": {}, "average": None, "parameters": None}
    results = [
        make_result(method="lora", status="suspect", error="collapsed"),
        make_result(method="full", vqa=float("inf"), status="suspect", error="collapsed"),
        make_result(method="bitfit").model_copy(update=lost),
        make_result(method="ia3", status="stopped_early", error="by the search"),
        make_result(method="bitfit", backbone="t5-base").model_copy(update=lost),
    ]
    first, second = plot.score_vs_parameters(comparison(store.to_frame(results))).axes
    assert "lora †" in {text.get_text() for text in first.texts}
    assert np.isfinite(first.get_ylim()).all()
    assert not second.texts


def test_a_panel_per_backbone(make_result):
    results = [make_result(backbone=backbone) for backbone in ("bart-base", "t5-base", "mini-t5")]
    figure = plot.score_vs_parameters(comparison(store.to_frame(results)))
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert sorted(axis.get_title(loc="left") for axis in axes) == [
        "image-text on bart-base",
        "image-text on mini-t5",
        "image-text on t5-base",
    ]


def test_many_methods_stand_in_a_legend(make_result):
    results = [make_result(method=f"m{i}", vqa=60.0 + i, trainable=100 + i) for i in range(plot.MANY + 1)]
    (axis,) = plot.score_vs_parameters(comparison(store.to_frame(results))).axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == [f"m{i}" for i in reversed(range(plot.MANY + 1))]
    assert {text.get_text() for text in axis.texts} == {"majority answer"}
