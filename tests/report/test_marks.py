"""One colour and marker for each method: told apart by everybody, in print too, and the same on the page."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.lines import Line2D

import pet_bench.report
from pet_bench.grid.plan.spec import load
from pet_bench.registry import METHODS
from pet_bench.report import published
from pet_bench.report.marks import COLORS, MARKERS, ON_DARK, Mark, free, known, mark_of, marks_apart
from pet_bench.report.page import page
from pet_bench.results import store
from tests.report.test_page import content

OURS = [name for name in METHODS.names() if METHODS.origin(name).startswith("pet_bench.methods.")]
PAPERS = sorted({method for name in published.tables() for method in published.load(name).get("method", [])})
# what a colour, as linear RGB, is to people without the receptors for long and middle waves (Machado et al. 2009)
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(color):
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* (D65) of linear RGB."""
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = matrix @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(one, other, vision):
    """ΔE (CIE 1976) of two colours; 2.3 is just seen."""
    return np.linalg.norm(np.subtract(*(lab(VISION[vision] @ linear(color)) for color in (one, other))))


def test_no_two_methods_share_colour_and_marker():
    names = {*OURS, *PAPERS}
    assert len(names) > 25
    assert len({mark_of(name) for name in names}) == len(names)


@pytest.mark.parametrize("vision", VISION)
def test_who_shares_a_marker_is_told_apart_by_colour(vision):
    pairs = [(a, b) for a, b in combinations(map(mark_of, {*OURS, *PAPERS}), 2) if a.marker == b.marker]
    assert pairs
    assert min(apart(a.color, b.color, vision) for a, b in pairs) > 20
    assert min(apart(a, b, vision) for a, b in combinations(COLORS, 2)) > 15


def test_who_shares_a_marker_is_told_apart_in_a_grey_copy():
    lightness = {color: lab(linear(color))[0] for color in COLORS}
    pairs = [(a, b) for a, b in combinations(map(mark_of, {*OURS, *PAPERS}), 2) if a.marker == b.marker]
    assert min(abs(lightness[a.color] - lightness[b.color]) for a, b in pairs) > 12


def test_every_colour_is_seen_on_light_and_on_dark_paper():
    """WCAG's contrast; 2 for a filled shape with a name beside it."""
    for color in COLORS:
        for ink, paper in ((color, "#ffffff"), (ON_DARK.get(color, color), "#14171a")):
            light = sorted(float(linear(one) @ [0.2126, 0.7152, 0.0722]) for one in (ink, paper))
            assert (light[1] + 0.05) / (light[0] + 0.05) > 2.2


def test_a_mark_follows_from_the_name_alone():
    """These stay: whoever knows a method's colour from one figure finds it in the next."""
    assert mark_of("vl-pet-large") == Mark("#332288", "^")
    assert mark_of("vl-adapter+large") == Mark("#D55E00", "^")
    assert mark_of("full") == Mark("#000000", "s")
    assert mark_of("lora(rank=8)") == mark_of("lora(rank=8)") != mark_of("lora")
    assert (mark_of("lora(rank=8)").color, mark_of("lora(rank=8)").marker) in free()
    assert mark_of("a plug-in's, µ") not in [mark_of(name) for name in known()]


def test_neighbours_of_a_sweep_never_meet():
    for name in ("lora(rank=%d)", "m%d", "%d"):
        assert len({mark_of(name % digit) for digit in range(10)}) == 10


@pytest.mark.parametrize("grid", ["mini-ablation", "mini-image-text-bart", "demo", "vlpet-table2-bart"])
def test_no_two_methods_of_a_shipped_grid_look_alike(grid):
    names = {store.base(trial.to_dict())["method"] for trial in load(grid).trials()}
    assert len({mark_of(name) for name in names}) == len(names)


def test_lines_that_are_no_methods_are_apart_in_their_panel():
    marks = marks_apart(["lora", *(f"rank {rank}" for rank in range(60))])
    assert len(set(marks)) == 61 and marks[0] == mark_of("lora")


def test_markers_are_matplotlibs_and_the_page_draws_each():
    assert set(MARKERS) <= set(Line2D.filled_markers)
    script = (Path(pet_bench.report.__file__).parent / "page" / "page.js").read_text("utf-8")
    (shapes,) = re.findall(r"const SHAPES = \{\n(.*?)\n\};", script, re.DOTALL)
    assert {key.strip('"') for key in re.findall(r'^  ("?.{1,2}"?): \(r\)', shapes, re.MULTILINE)} == set(MARKERS)


def test_the_page_has_the_figures_marks(make_result):
    results = [make_result(method=method) for method in ("lora", "vl-pet-large", "vl-adapter+large", "full")]
    results += [make_result(method="lora", control="text-only"), make_result(method="lora", label="lora(rank=8)")]
    for kept in (results, results[:1]):
        (place,) = content(page(store.to_frame(kept)))["places"]
        for row in place["rows"]:
            mark = mark_of(row["name"].removesuffix(", text-only"))
            assert row["mark"] == [mark.color, mark.marker, mark.dash]
