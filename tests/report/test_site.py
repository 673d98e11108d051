"""`report --all --html`: a page for every grid, and one before them."""

from __future__ import annotations

import re
import shutil
from html import unescape
from urllib.parse import unquote

import pandas as pd
import pytest

from pet_bench.cli import main
from pet_bench.report.page.site import Grid, site
from pet_bench.results import store
from tests.conftest import ROOT

EVIL = "<script>window.hacked = 1</script>"


def rows(html):
    """The table's body, cell by cell, as a reader sees it."""
    body = re.search(r"<tbody>(.*)</tbody>", html, re.S)[1]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
    return [[unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in found]


@pytest.fixture
def frame(make_result):
    """Two backbones; on the first, lora leads and what is called like a script comes second."""
    scores = {"lora": (80.0, 84.0), EVIL: (75.0, 76.0), "bitfit": (20.0, 30.0)}
    results = [
        make_result(label=name, method="lora", seed=seed, backbone="bart-base", vqa=values[seed], gqa=values[seed])
        for name, values in scores.items()
        for seed in (0, 1)
    ]
    results += [make_result(label="lora", method="lora", seed=0, backbone="t5-base", vqa=50.0, gqa=50.0)]
    control = {"control": "text-only", "backbone": "bart-base"}
    results += [make_result(label="lora", method="lora", seed=0, **control, vqa=99.0, gqa=99.0)]
    return store.to_frame(results, [])


def test_a_row_for_each_place(frame):
    (setup,) = frame[(frame.backbone == "bart-base") & (frame.control == "none")].setup.unique()
    best = [("image-text", "bart-base", name, setup, "average") for name in ("lora", EVIL)]
    html = site([Grid("a grid", frame, best), Grid("other", frame[frame.backbone == "t5-base"], ())])
    first, second, third = rows(html)
    suite = frame.suite.iloc[0]
    assert first[:4] == ["a grid", "bart-base", "82.00 ± 2.83", f"lora, {EVIL}"]  # of the control nothing
    assert first[4:6] == ["3", "2"] and first[-1] == suite
    assert second[2:4] == ["50.00", "none significantly (lora is highest)"] and third[0] == "other"
    assert "<script" not in html and "2 grids" in html
    assert [unquote(link) for link in re.findall('href="([^"]+index.html)"', html)] == [
        "a grid/index.html", "a grid/index.html", "other/index.html",
    ]  # fmt: skip


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["report", *map(str, arguments)])
    return stopped.value.code or 0, capsys.readouterr()


def test_of_a_folder_of_grids(tmp_path, capsys):
    """Grids without results, and folders without a grid, have no page."""
    root = tmp_path / "results"
    shutil.copytree(ROOT / "results/mini-video-text", root / "mini-video-text")
    (root / "begun").mkdir()
    shutil.copy(ROOT / "results/mini-video-text/grid.yaml", root / "begun")
    (root / "other").mkdir()
    code, said = call(capsys, "--all", "--html", "--out", root, "--to", tmp_path / "site", "--examples", "2")
    assert code == 0, said.err
    assert {path.relative_to(tmp_path / "site").as_posix() for path in tmp_path.glob("site/**/*.html")} == {
        "index.html", "mini-video-text/index.html",
    }  # fmt: skip
    ((name, backbone, _, _, methods, seeds, trials, _, suite),) = rows((tmp_path / "site/index.html").read_text())
    assert (name, suite, backbone) == ("mini-video-text", "mini-video-text", "mini-bart-clips")
    results = pd.DataFrame([result.spec for result in store.load_all(root / "mini-video-text").values()])
    assert (int(methods), int(seeds), int(trials)) == (results.label.nunique(), results.seed.nunique(), len(results))


def test_what_it_is_not_for(tmp_path, capsys):
    for arguments in (["--all"], ["--all", "--html", "demo"]):
        code, said = call(capsys, *arguments)
        assert code == 2 and "pet-bench report --all --html --to FOLDER" in said.err
    code, said = call(capsys)
    assert code == 2 and "which grid?" in said.err
    code, said = call(capsys, "--all", "--html", "--out", tmp_path)
    assert code == 2 and "has a grid.yaml and finished trials" in said.err


def test_a_folder_that_no_grid_filled(make_result, tmp_path, capsys):
    """As `pet_bench.run_trial` and `import` leave it: all that is in it is compared."""
    for seed in (0, 1):
        store.save(make_result(label="lora", seed=seed, vqa=50.0 + seed, gqa=40.0), tmp_path)
    code, said = call(capsys, tmp_path)
    assert code == 0 and "lora" in said.out and "50.50" in said.out, said.err
    (tmp_path / "empty").mkdir()
    code, said = call(capsys, tmp_path / "empty")
    assert code == 2 and "has neither a grid.yaml nor results" in said.err
