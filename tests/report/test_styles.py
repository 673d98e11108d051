from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import permutations
from statistics import mean, stdev
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from pet_bench.errors import UserError
from pet_bench.grid.plan.spec import Grid, Skipped
from pet_bench.registry import STYLES, load_plugin
from pet_bench.report import figures, published
from pet_bench.report.tables import formats
from pet_bench.report.tables.agreement import agreements
from pet_bench.report.tables.fill import fill, find, rank_correlation
from pet_bench.results import store
from tests.conftest import ROOT

TASKS = ("vqa", "gqa", "nlvr2", "coco-caption")
SCORES = {"full": [70.0, 71.0, 72.0], "lora": [60.0, 62.0, 67.0], "vl-pet-large": [80.0]}


@pytest.fixture
def results(make_result):
    """Trials on a world: seed by seed a method's VQA, and 50, 60, 110 on the other tasks."""

    def make(suite="image-text", backbone="bart-base", scores=SCORES, **options):
        found = []
        for method, values in scores.items():
            for seed, value in enumerate(values):
                result = make_result(method=method, seed=seed, backbone=backbone, trainable=100, **options)
                score = result.metrics["vqa"]
                other = dict(zip(TASKS[1:], (50.0, 60.0, 110.0), strict=True))
                metrics = {
                    task: {"accuracy": score["accuracy"].model_copy(update={"value": number}), "extra": score["extra"]}
                    for task, number in ({"vqa": value} | other).items()
                }
                spec = result.spec | {"suite": suite, "tasks": list(TASKS)}
                id = f"{len(found):04d}{crc32(repr((suite, backbone, options)).encode()):08x}"
                update = {"id": id, "metrics": metrics, "spec": spec, "average": (value + 220.0) / 4}
                found.append(result.model_copy(update=update))
        return found

    return make


def filled(results, name="vlpet-table2", **options):
    return fill(store.to_frame(results), find(name), **options)


def row(table, method, backbone="bart-base"):
    (found,) = table.frame[(table.frame.method == method) & (table.frame.backbone == backbone)].to_dict("records")
    return found


def test_ours_published_and_their_difference(results):
    table = filled(results())
    found = row(table, "lora")
    assert found["VQA"] == pytest.approx(mean(SCORES["lora"]))
    assert found["VQA std"] == pytest.approx(stdev(SCORES["lora"]))
    assert found["Avg."] == pytest.approx((63.0 + 220.0) / 4)
    assert found["Avg. std"] == pytest.approx(stdev(value / 4 for value in SCORES["lora"]))
    assert (found["VQA published"], found["VQA published std"]) == (65.15, 0.16)
    assert found["VQA difference"] == pytest.approx(63.0 - 65.15)
    assert (found["n"], found["n published"], found["trainable"], found["percent published"]) == (3, 3, 100, 5.93)
    assert not table.mini


def test_every_row_is_there_in_the_papers_order_whatever_has_run(results):
    for style in STYLES:
        for frame in (store.to_frame(results()), store.to_frame([])):
            table = fill(frame, style)
            assert list(table.frame.method) == [method for _, method in style.published().index]
            assert table.frame.n.notna().all()
    missing = row(filled(results()), "bitfit")
    assert (missing["n"], missing["trials"]) == (0, 0)
    assert np.isnan(missing["VQA"])
    assert missing["VQA published"] == 52.94
    assert list(find("vlpet-table9").published().index.unique("method"))[:2] == ["compacter", "compacter+small"]


def test_cells_that_are_not_published_stay_empty():
    table = fill(store.to_frame([]), find("vlpet-video")).frame.set_index("method")
    columns = [f"{column.name} published" for column in find("vlpet-video").columns]
    given = table.loc[["full", "lora", "dora"], columns]
    assert given.loc["dora"].tolist() == [76.3, 74.1, 45.8, 145.4, 85.4]
    assert table.drop(given.index)[columns].isna().all(axis=None)
    text = formats.to_markdown(fill(store.to_frame([]), find("vlpet-video")))
    assert "|  | DoRA README | 5.17 | 75.50 | 72.90 | 44.60 | 140.90 | 83.50 |  |" in text
    assert "| BitFit | ours | – | – | – | – | – | – | missing |\n|  | published |  |  |  |  |  |  |  |" in text


def test_one_seed_has_no_deviation_and_says_n_1(results):
    text = formats.to_markdown(filled(results()))
    assert "| VL-PET-large | ours | 10.00 | 80.00 | 50.00 | 60.00 | 110.00 | 75.00 | 1 |" in text
    assert "|  | published | 4.16 | 66.17 ± 0.27 |" in text
    assert "|  | difference | +5.84 | +13.83 | −5.11 |" in text


def test_other_suites_backbones_methods_and_controls_stay_out_and_are_named(results):
    more = results(scores={"projector-only": [1.0], "lora": [1.0]}, backbone="my-bart")
    more += results(scores={"lora": [1.0]}, control="text-only")
    table = filled([*results(), *more])
    assert row(table, "lora")["n"] == 3
    outside = [note for note in table.notes if "not in this table" in note]
    assert outside == ["of this grid, but not in this table: projector-only, lora (image-text on my-bart)"]


def test_a_label_is_the_method(results):
    table = filled(results(scores={"lora": [1.0]}, label="vl-adapter"))
    assert row(table, "vl-adapter")["n"] == 1
    assert row(table, "lora")["n"] == 0


def test_trials_of_one_name_with_another_recipe_have_a_row_of_their_own(results):
    table = filled([*results(), *results(scores={"lora": [0.0, 0.0]}, lr=0.5)])
    both = table.frame[(table.frame.method == "lora") & (table.frame.backbone == "bart-base")]
    assert both.n.tolist() == [3, 2]
    assert both["VQA"].tolist() == pytest.approx([63.0, 0.0])
    assert any("differ in their recipe" in note for note in table.notes)


def test_unfinished_and_suspect_trials_are_counted(results):
    lora = results(scores={"lora": [60.0, 62.0, 64.0]})
    lora[0] = lora[0].model_copy(update={"status": "suspect", "error": "collapsed"})
    lora[1] = lora[1].model_copy(update={"status": "oom", "metrics": {}, "average": None, "parameters": None})
    table = filled(lora)
    assert "| LoRA | ours | 10.00 | 62.00 ± 2.83 |" in formats.to_markdown(table)
    assert "| 2 of 3† |" in formats.to_markdown(table)
    assert any("collapsed" in note for note in table.notes)


def test_the_mini_world_is_not_compared(results):
    scores = {"full": [60.0], "lora": [50.0], "vl-adapter": [70.0], "vl-pet-large": [80.0]}
    table = filled(results("mini-image-text", "mini-bart", scores))
    assert table.mini
    assert "the mini world, not comparable" in table.title
    assert row(table, "lora")["ours"] == "mini-bart"
    assert row(table, "lora")["VQA"] == 50.0
    assert not [name for name in table.frame if "difference" in name]
    text = formats.to_markdown(table)
    assert "difference |" not in text
    assert "our columns are the mini world's (mini-image-text; mini-bart for BART-base" in text
    # published 77.33, 76.60, 76.93, 79.18: full and vl-adapter change places, 4 of the 24 orders are as extreme, twice
    assert "(mini-bart) with the published (bart-base): ρ = 0.80, n = 4 rows, p = 0.33" in text
    assert "(mini-t5) with the published (t5-base): too few rows (n = 0)" in text
    both = filled([*results("mini-image-text", "mini-bart", scores), *results()])
    assert not both.mini
    assert row(both, "lora")["VQA"] == pytest.approx(63.0)


def test_the_mini_worlds_later_version_is_preferred(results):
    table = filled([*results("mini-image-text", "mini-bart"), *results("mini-image-text-v2", "mini-bart")])
    assert {row["suite"] for row in table.frame.to_dict("records")} == {"mini-image-text-v2"} and table.mini
    assert "our columns are the mini world's (mini-image-text-v2; mini-bart for BART-base" in "\n".join(table.notes)


def test_one_model_of_two_names_is_run_once(results):
    scores = {"vl-pet-small": [70.0, 72.0], "vl-pet-large": [80.0, 82.0], "vl-adapter+large": [60.0]}
    found = results(scores=scores)
    table = filled(found, "vlpet-table9")
    rows = {row["method"]: (row["n"], row["VQA"]) for row in table.frame.to_dict("records")}
    assert rows["vl-adapter+small"] == (2, 71.0)
    assert rows["vl-adapter+large"] == (1, 60.0)  # its own
    assert rows["vl-adapter+middle-x"][0] == 0
    assert "ours of VL-Adapter + small (VL-PET-small): the trials of the same model, run once" in table.notes
    assert "vl-pet-small" not in next(note for note in table.notes if note.startswith("of this grid, but not in"))
    assert set(agreements(table, store.to_frame(found)).n) == {0, 2}  # ends are left out of the second
    assert not any("same model" in note for note in filled(found).notes)  # Table 2


def test_rank_correlation_is_scipys_with_an_exact_p():
    from scipy.stats import rankdata, spearmanr

    a, b = np.array([1.0, 5.0, 2.0, 2.0, 9.0, 4.0]), np.array([2.0, 3.0, 1.0, 4.0, 6.0, 5.0])
    rho, p = rank_correlation(a, b)
    assert rho == pytest.approx(spearmanr(a, b).statistic)
    ranks = rankdata(a)
    observed, *others = [ranks @ order for order in permutations(b)]  # b is its own ranks
    as_high = [other >= observed for other in (observed, *others)]
    assert p == pytest.approx(2 * sum(as_high) / len(as_high))
    assert np.isnan(rank_correlation(a, np.ones(6))).all()


def test_relative_gains_are_figure_1(results):
    table = filled(results(), "vlpet-figure1").frame.set_index("method")
    figure = published.load("vlpet_figure1_relative").set_index("method")
    assert table["relative gain % published"].round(2).tolist() == figure.relative_gain_percent.tolist()
    full, lora = (71.0 + 220.0) / 4, (63.0 + 220.0) / 4
    assert table["relative gain %"]["lora"] == pytest.approx(100 * (lora / full - 1))
    assert table["relative gain % std"]["lora"] == pytest.approx(100 * table["Avg. std"]["lora"] / full)
    alone = filled(results(scores={"lora": [60.0]}), "vlpet-figure1")
    assert alone.frame["relative gain %"].isna().all()
    assert any("no relative gains without" in note for note in alone.notes)


def test_an_unknown_style_is_a_users_fault():
    with pytest.raises(UserError, match='unknown style "vlpet-table3": did you mean "vlpet-table'):
        find("vlpet-table3")


@pytest.mark.parametrize("style", STYLES.names())
@pytest.mark.parametrize("suite, backbone", [("image-text", "bart-base"), ("mini-image-text", "mini-bart"), ("x", "y")])
def test_csv_and_frame_round_trip(results, style, suite, backbone):
    table = filled(results(suite, backbone, {"full": [1 / 3, 2 / 3], "lora": [0.1, 1e-17]}), style)
    pd.testing.assert_frame_equal(formats.read_csv(formats.to_csv(table)), table.frame, check_exact=True)


def test_html_holds_the_table_and_nothing_from_elsewhere(results):
    lora = results(scores={"full": [1.0], "lora": [60.0]})
    lora[1] = lora[1].model_copy(update={"status": "suspect", "error": "<b>collapsed</b> & more"})
    page = formats.to_html(filled(lora))
    assert "<b>" not in page
    assert "http" not in page
    reader = Rows()
    reader.feed(page)
    assert reader.rows[0] == ["method", "", "trainable %", "VQA", "GQA", "NLVR2", "COCO", "Avg.", "n"]
    assert reader.rows[1] == ["BART-base"]
    assert ["LoRA", "ours", "10.00", "60.00", "50.00", "60.00", "110.00", "70.00", "1†"] in reader.rows
    assert [row[0] for row in reader.rows if row[-1] == "missing"].count("BitFit") == 2
    assert {len(row) for row in reader.rows} == {1, 9}


class Rows(HTMLParser):
    """The texts of a page's table cells, row by row."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attributes):
        self.inside = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        if self.inside:
            self.rows[-1][-1] += text


def test_bold_is_what_the_statistics_mark(results):
    from dataclasses import replace

    table = filled(results())
    (index,) = table.frame.index[(table.frame.method == "lora") & (table.frame.backbone == "bart-base")]
    table = replace(table, bold=frozenset({(index, "GQA")}))
    assert "| 63.00 ± 3.61 | **50.00 ± 0.00** | 60.00 ± 0.00 |" in formats.to_markdown(table)
    assert r"63.00\,{\tiny$\pm$\,3.61} & \textbf{50.00\,{\tiny$\pm$\,0.00}} & 60.00" in formats.to_latex(table)
    assert '<td class="best">50.00 ± 0.00</td>' in formats.to_html(table)
    assert formats.to_html(table).count('class="best"') == 1


def test_only_seeds_are_tested_without_predictions_and_marked_under_their_own_names(results, tmp_path):
    scores = {"full": [70.0, 70.1, 69.9], "lora": [60.0, 60.1, 59.9]}
    table = filled(results(scores=scores), folders=tmp_path)
    assert {(table.frame.method[index], column) for index, column in table.bold} == {("full", "VQA"), ("full", "Avg.")}
    assert any(note.startswith("bold:") for note in table.notes)


def test_latex_compiles(results, tmp_path):
    if not (latex := shutil.which("pdflatex")):
        pytest.skip("unchecked: LaTeX compiles the tables (Debian: texlive-latex-base, texlive-latex-recommended)")
    nasty = {"status": "suspect", "error": r"50 % of {a_b} ~ c^d & #1 $x \y <z> | †"}
    every = {method: [170.0, 71.0] for method in find("vlpet-table2").published().index.unique("method")}
    found = [one for backbone in ("bart-base", "t5-base") for one in results(backbone=backbone, scores=every)]
    found[0] = found[0].model_copy(update=nasty)
    found += results(scores={"lora": [1.0]}, label="lora_64 & 5 %")
    tables = [formats.to_latex(filled(trials, style)) for style in STYLES.names() for trials in (found, [])]
    page = r"\documentclass{article}\usepackage[a4paper,margin=2.5cm]{geometry}\usepackage{booktabs}\begin{document}"
    (tmp_path / "page.tex").write_text(page + "\\clearpage\n".join(tables) + r"\end{document}", encoding="utf-8")
    command = [latex, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert run.returncode == 0, run.stdout[-2000:]
    for fault in ("Overfull", "too large"):
        assert fault not in run.stdout, run.stdout
    assert f"({len(tables)} pages" in run.stdout


def test_report_prints_a_style_and_writes_every_format(call, results, tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "name: mine\nsuites: [mini-image-text]\nbackbones: [mini-bart]\nmethods: [lora, full]\nseeds: [0]\n"
    )
    out = tmp_path / "out"
    code, text, _ = call("report", grid, "--style", "vlpet-figure1", "--out", out)
    assert code == 0
    assert "0 of 1" in text
    assert "no finished trial yet" in text
    written = {path.name for path in (out / "report").iterdir()}
    assert written == {f"vlpet-figure1.{suffix}" for suffix in ("md", "tex", "csv", "html", "png", "svg", "pdf")}
    code, text, err = call("report", grid, "--style", "vlpet-table9", "--format", "csv", "--out", out)
    assert text == (out / "report" / "vlpet-table9.csv").read_text()
    assert "vlpet-table9.tex" in err
    code, _, err = call("report", grid, "--style", "vlpet-table8", "--out", out)
    assert (code, "did you mean" in err) == (2, True)
    code, _, err = call("report", grid, "--format", "csv", "--out", out)
    assert (code, "--style" in err) == (2, True)


def test_report_of_several_grids_is_one_table(call, results, tmp_path):
    files = []
    for name, backbone in (("one", "mini-bart"), ("two", "mini-t5")):
        files.append(tmp_path / name)
        files[-1].mkdir()
        (files[-1] / "grid.yaml").write_text(
            f"name: {name}\nsuites: [mini-image-text]\nbackbones: [{backbone}]\nmethods: [lora]\nseeds: [0, 1]\n"
        )
    code, text, _ = call("report", *files, "--style", "vlpet-table2", "--format", "csv")
    assert code == 0
    assert (tmp_path / "report" / "vlpet-table2.csv").read_text() == text
    frame = formats.read_csv(text).set_index(["backbone", "method"])
    assert frame.trials["bart-base", "lora"] == frame.trials["t5-base", "lora"] == 2
    code, _, err = call("report", *files, "--out", tmp_path / "three")
    assert (code, "--out is the results folder of one grid" in err) == (2, True)
    code, _, err = call("report", tmp_path / "four", tmp_path / "five")
    assert (code, len(err.splitlines())) == (2, 2)


# what a grid leaves out -----------------------------------------------------------------------------------------------

LEFT_OUT = [Skipped("bart-base", "bitfit", "50 % of <it> is missing")]


def test_what_is_left_out_is_no_missing_result(results):
    table = filled(results(), skipped=LEFT_OUT)
    assert row(table, "bitfit")["skipped"] == "50 % of <it> is missing"
    note = "–: bitfit on bart-base, because 50 % of <it> is missing"
    assert note in table.notes
    markdown = formats.to_markdown(table)
    assert "| BitFit | ours | – | – | – | – | – | – | – |\n|  | published | 1.21 | 52.94 ± 0.52 |" in markdown
    assert "- –: bitfit on bart-base, because 50 % of &lt;it&gt; is missing" in markdown
    latex = formats.to_latex(table)
    assert r"BitFit & ours & -- & -- & -- & -- & -- & -- & -- \\" in latex
    assert r"--: bitfit on bart-base, because 50 \% of \textless{}it\textgreater{} is missing.\par" in latex
    html = formats.to_html(table)
    assert "<td>BitFit</td><td>ours</td>" + 7 * "<td>–</td>" in html
    assert "<li>–: bitfit on bart-base, because 50 % of &lt;it&gt; is missing</li>" in html
    again = formats.read_csv(formats.to_csv(table))
    pd.testing.assert_frame_equal(again, table.frame, check_exact=True)
    assert list(again.method[again.skipped != ""]) == ["bitfit"]
    assert "skipped" not in filled(results()).frame


def test_the_mini_worlds_pairs_are_left_out_under_its_own_names(results):
    scores = {"full": [60.0], "lora": [50.0]}
    left_out = [Skipped("mini-bart", "bitfit", "no"), Skipped("bart-base", "lora", "no")]
    table = filled(results("mini-image-text", "mini-bart", scores), skipped=left_out)
    assert list(table.frame.method[table.frame.skipped != ""]) == ["bitfit"]
    assert sum(note.startswith("–: ") for note in table.notes) == 1


def test_report_says_what_a_grid_left_out(call, monkeypatch, tmp_path):
    left_out, plan = Skipped("mini-bart-clips", "lst", "it needs an encoder"), Grid.plan
    monkeypatch.setattr(Grid, "plan", lambda grid: replace(plan(grid), skipped=(left_out,)))
    monkeypatch.setattr(sys.modules["pet_bench.cli.report"], "_figures", lambda found: [])
    code, text, _ = call("report", ROOT / "results" / "mini-video-text", "--to", tmp_path, "--html", "--examples", "0")
    assert code == 0
    assert "–: lst on mini-bart-clips, because it needs an encoder" in " ".join(text.split())
    assert "| *lst* | – |" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "index.html").read_text()
    assert '"name":"lst","kind":"skipped"' in page
    assert "–: lst on mini-bart-clips, because it needs an encoder" in page


# other people's styles ------------------------------------------------------------------------------------------------

OTHERS = """
name: other-table1
title: "Somebody (2031), Table 1"
suite: image-text
table: numbers
backbones: {bart-base: {name: BART}}
columns:
  - {name: VQA, tasks: [vqa], published: vqa}
  - {name: gain, tasks: [vqa], published: vqa, relative: {method: lora, name: LoRA}}
names: {my-method: My Method}
marks: {my-method: [wine, "s"]}
"""


@pytest.fixture
def other(tmp_path, monkeypatch):
    monkeypatch.setattr(STYLES, "_entries", dict(STYLES.entries))
    (tmp_path / "numbers.csv").write_text(
        "backbone,method,trainable_percent,vqa\nbart-base,lora,5,60\nbart-base,my-method,1,66\n"
    )
    (tmp_path / "table.yaml").write_text(OTHERS)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from pathlib import Path\nfrom pet_bench.report.tables.style import read_style\n"
        "STYLE = read_style(Path(__file__).with_name('table.yaml'))\n"
    )
    return plugin


def test_other_people_bring_their_styles(other, results):
    assert load_plugin(str(other)) == ["style other-table1"]
    table = filled(results(scores={"lora": [50.0], "my-method": [60.0]}), "other-table1")
    mine = row(table, "my-method")
    assert (mine["name"], mine["VQA published"], mine["VQA difference"]) == ("My Method", 66.0, -6.0)
    assert (mine["gain"], mine["gain published"]) == (pytest.approx(20.0), pytest.approx(10.0))
    axis = figures.relative_gain_figure(table).axes[0]
    assert axis.get_ylabel() == "relative gain over LoRA (%)"
    colors = {line.get_color() for line in axis.lines if line.get_marker() == "s"}
    assert "#882255" in colors


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("table: numbers", "table: nombers", 'its table "nombers.csv" is not beside it'),
        (
            "published: vqa}",
            "published: vqaa}",
            'its table has no column "vqaa" (possible: trainable_percent, vqa)',
        ),
        ('"s"', '"S"', 'marks: my-method: there is no marker "S"'),
        ("title:", "titel:", 'style "table.yaml": title is missing'),
    ],
)
def test_a_style_that_is_none_is_refused(other, old, new, said):
    path = other.with_name("table.yaml")
    path.write_text(path.read_text().replace(old, new))
    assert new in path.read_text()
    with pytest.raises(UserError) as caught:
        load_plugin(str(other))
    assert said in str(caught.value)
