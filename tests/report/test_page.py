from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from hashlib import sha256
from html import unescape
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pet_bench.cli.page import write_page
from pet_bench.report.costs import costs
from pet_bench.report.figures.pareto import pareto_front
from pet_bench.report.marks import mark_of
from pet_bench.report.page import choose, page
from pet_bench.report.page.examples import Shown
from pet_bench.report.summary import comparison
from pet_bench.report.tables.beneath import notes
from pet_bench.results import predictions as saved
from pet_bench.results import store
from pet_bench.results.frames import collected, load_breakdowns, load_curves, load_predictions, load_results
from pet_bench.results.schema import Part, Point

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
SKILL = {"full": 0.8, "lora": 0.7, "bitfit": 0.5, EVIL: 0.4, "lst": 0.2}
SIZES = {"full": 900, "lora": 40, "bitfit": 10, EVIL: 60, "lst": 30}
IDS = [str(number) for number in range(40)]
TIMES = {"full": 50.0, "lora": 20.0, "bitfit": 30.0, EVIL: 10.0, "lst": 40.0}


@pytest.fixture
def results(make_result, tmp_path):
    """A folder of results: five methods × two seeds on bart-base with a control, two of them on t5-base."""
    generator, folder = np.random.default_rng(3), tmp_path / "results"
    settings = [("bart-base", name, seed, "none") for name in SKILL for seed in (0, 1)]
    settings += [("bart-base", "lora", 0, "text-only"), ("t5-base", "full", 0, "none"), ("t5-base", "lora", 0, "none")]
    for backbone, name, seed, control in settings:
        scores, kept = {}, {}
        for task in ("vqa", "gqa"):
            right = generator.uniform(size=len(IDS)) < (SKILL[name] if control == "none" else 0.1)
            kept[task] = {id: 100.0 * hit for id, hit in zip(IDS, right, strict=True)}
            scores[task] = float(np.mean(list(kept[task].values())))
        result = make_result(
            label=name, seed=seed, control=control, backbone=backbone, trainable=SIZES[name], n=len(IDS),
            method=name if name in ("full", "lora", "bitfit", "lst") else "adapter", steps=2, **scores,
        )  # fmt: skip
        result.cost.train_seconds = TIMES[name] + seed
        result.curve = [
            Point(step=step, epoch=step / 2, split=split, task=task, **measured)
            for step in (1, 2)
            for task in ("vqa", "gqa")
            for split, measured in (("train", {"loss": 3.0 / step}), ("valid", {"metrics": {"accuracy": 10.0 * step}}))
        ]
        part = {"colour": Part(value=scores["vqa"], n=30), "count": Part(value=2.0, n=9)}
        result.breakdowns = {"vqa": {"question type": part}}
        result.predictions = {task: saved.name(result.id, task) for task in kept}
        store.save(result, folder)
        for task, values in kept.items():
            said = {id: "yes" if value else EVIL if id == "7" else "no" for id, value in values.items()}
            saved.write(folder / saved.name(result.id, task), said, values)
    return folder


@pytest.fixture
def shown(tmp_path):
    found = {}
    for index, id in enumerate(IDS):
        picture = tmp_path / f"{id}.png"
        Image.new("RGB", (48, 48), (0, 6 * (index // 2), 200)).save(picture)  # two examples an image
        found[id] = Shown(id, f"is it {id}? {EVIL}", ("yes ×9", EVIL), (picture,) * (1 + index % 2))
    return {("image-text", task): found for task in ("vqa", "gqa")}


@pytest.fixture
def made(results, shown):
    frames = {"curves": load_curves(results), "breakdowns": load_breakdowns(results)}
    return page(
        load_results(results), predictions=load_predictions(results), shown=shown, title=f"a & b {EVIL}", count=32,
        best={("image-text", "bart-base", "lora", setup, "vqa") for setup in load_results(results).setup}, **frames,
    )  # fmt: skip


def content(html):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


# what is in the file --------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_comparison(results, made):
    table, data = comparison(load_results(results)), content(made)
    assert [place["name"] for place in data["places"]] == ["image-text on bart-base", "image-text on t5-base"]
    rows = [row for place in data["places"] for row in place["rows"]]
    assert len(rows) == len(table)
    for row, (_, expected) in zip(rows, table.iterrows(), strict=True):
        assert row["name"] == expected.method + (", text-only" if expected.kind == "control" else "")
        assert row["kind"] == expected.kind
        for task, (mean, std) in row["scores"].items():
            assert mean == pytest.approx(expected[task])
            assert std == (None if pd.isna(expected[f"{task} std"]) else pytest.approx(expected[f"{task} std"]))
        for column in ("percent", "trainable", "rank", "n", "trials", "suspect"):
            assert row[column] == (None if pd.isna(expected[column]) else pytest.approx(expected[column]))
    assert [row["name"] for row in rows if row["best"] == ["vqa"]] == ["lora"]
    minutes = costs(load_results(results)).set_index(["backbone", "method"]).train_seconds
    for row in data["places"][0]["rows"]:
        known = row["kind"] == "method"
        assert row["costs"]["train_seconds"] == (pytest.approx(minutes["bart-base", row["name"]]) if known else None)


def test_curves_and_breakdowns_are_means_over_seeds(results, made):
    curves, parts = load_curves(results), load_breakdowns(results)
    place = content(made)["places"][0]
    number = next(index for index, row in enumerate(place["rows"]) if row["name"] == "lora")
    assert list(place["curves"]) == ["gqa", "vqa"]
    assert place["curves"]["vqa"]["training loss"][str(number)] == [[0.5, 3, 0], [1, 1.5, 0]]
    here = curves[(curves.backbone == "bart-base") & (curves.method == "lora") & (curves.control == "none")]
    valid = here[(here.split == "valid") & (here.task == "vqa") & (here.step == 2)]
    assert place["curves"]["vqa"]["validation accuracy"][str(number)][1] == [1, valid.value.mean(), 0]
    here = parts[(parts.backbone == "bart-base") & (parts.method == "lora") & (parts.control == "none")]
    found = place["parts"]["vqa"]["question type"]["colour"]
    assert found["n"] == 30
    of = here[here.part == "colour"].value
    assert found["rows"][str(number)] == [pytest.approx(of.mean()), pytest.approx(of.std(), abs=1e-4)]


def test_every_trial_has_its_answers(results, made):
    data, kept = content(made), load_predictions(results)
    of = data["examples"]["image-text"]
    names = [[row["name"] for row in place["rows"]] for place in data["places"]]
    trials = [(index, names[index][row], seed) for index, row, seed in of["trials"]]
    assert len(trials) == kept.id.nunique()
    kept["name"] = kept.method + kept.control.map({"none": "", "text-only": ", text-only"})
    kept["place"] = kept.backbone.map({"bart-base": 0, "t5-base": 1})
    expected = kept.set_index(["task", "example", "place", "name", "seed"])
    for task, found in of["tasks"].items():
        assert (found["of"], len(found["items"]), found["graded"]) == (40, 32, True)
        for id, text, answers, pictures, _, said, given in found["items"]:
            assert (text, answers) == (f"is it {id}? {EVIL}", ["yes ×9", EVIL])
            assert len(said) == len({tuple(answer) for answer in said})
            for trial, answer in zip(trials, given, strict=True):
                row = expected.loc[(task, id, *trial)]
                assert said[answer] == [row.prediction, row.score]
            assert len(pictures) == 1 + int(id) % 2


def test_a_picture_is_there_once_and_unaltered_but_for_its_coding(made):
    pictures = content(made)["pictures"]
    assert 16 <= len(pictures) <= 20 and len(set(pictures)) == len(pictures)
    for uri in pictures:
        kind, _, code = uri.partition(";base64,")
        assert kind == "data:image/webp"
        image = Image.open(BytesIO(b64decode(code)))
        assert image.size == (96, 96)  # doubled
        red, _, blue = image.convert("RGB").getpixel((50, 50))
        assert red < 12 and abs(blue - 200) < 12


def test_large_pictures_are_made_small(results, tmp_path):
    Image.new("RGB", (800, 400)).save(tmp_path / "large.jpg")
    shown = {("image-text", "vqa"): {id: Shown(id, "", (), (tmp_path / "large.jpg",)) for id in IDS}}
    (uri,) = content(page(load_results(results), predictions=load_predictions(results), shown=shown))["pictures"]
    assert Image.open(BytesIO(b64decode(uri.partition(",")[2]))).size == (320, 160)


def test_examples_are_those_that_vary_most_and_some_at_random():
    rows = [
        {"backbone": "b", "method": method, "control": control, "setup": method, "seed": seed,
         "example": f"e{i:02}", "score": 100.0 * (control != "none" or (i < 20 and method == "a") or i == 30 + seed)}
        for method, control in (("a", "none"), ("b", "none"), ("c", "text-only"))
        for seed in (0, 1)
        for i in range(100)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    found = choose(frame, 28)
    drawn = {id for id, random in found.items() if random}
    assert len(found) == 28 and len(drawn) == 7
    # of those not drawn: the twenty that methods differ on, before seeds and controls alone
    assert {f"e{i:02}" for i in range(20)} <= found.keys()
    assert list(found)[:20] == [f"e{i:02}" for i in range(20)]
    assert found == choose(frame, 28) and drawn != {id for id, random in choose(frame, 28, seed=1).items() if random}
    assert len(choose(frame, 100)) == 100 and not any(choose(frame, 100).values())
    # the drawn are a sample of all, not of the rest
    share = np.mean(
        [sum(id < "e20" for id, random in choose(frame, 28, seed).items() if random) for seed in range(300)]
    )
    assert share == pytest.approx(7 * 20 / 100, abs=0.25)


def test_nothing_can_break_out_and_nothing_is_loaded(made):
    assert made.count("</script>") == 2
    assert "<img" not in made and "window.hacked" in made
    assert "<title>a &amp; b &lt;/script&gt;" in made
    assert set(re.findall(r"https?:[^\s\"'`]*", made)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|<iframe|<object|\bfetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", made)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', made)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    (script,) = re.findall(r'<script type="module">(.*?)</script>', made, re.DOTALL)
    assert rules["script-src"] == f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def test_odd_texts_and_numbers_survive(make_result):
    result = make_result()
    result.curve = [Point(step=1, epoch=1.0, split="train", task="vqa", loss=float("inf"))]
    frame = store.to_frame([result])
    keys = frame[["id", "status", "suite", "backbone", "method", "control", "seed", "setup"]].iloc[:1]
    point = {"step": 1, "epoch": 1.0, "split": "train", "task": None, "measure": "loss", "value": float("inf")}
    odd = "half \ud800 a pair, \u2028"
    data = content(page(frame, curves=keys.assign(**point, primary=False), notes=[odd]).encode().decode())
    assert data["notes"] == [odd]
    assert data["places"][0]["curves"]["all tasks"]["training loss"]["0"] == [[1, None, None]]
    assert data["examples"] == {}
    assert content(page(frame))["notes"] == notes(frame)


def test_equal_names_with_other_recipes_are_told_apart(make_result):
    frame = store.to_frame([make_result(seed=0), make_result(seed=1, epochs=3), make_result(method="full")])
    names = {row["name"] for row in content(page(frame))["places"][0]["rows"]}
    setups = frame[frame.method == "lora"].setup
    assert names == {"full", "majority answer", *(f"lora ({setup[:6]})" for setup in setups)}
    assert len(names) == 4


def test_nothing_finished_makes_a_page_too(make_spec, tmp_path):
    frame = store.to_frame([store.save_failure(make_spec(), tmp_path, "no", started="2026-01-01T00:00:00+00:00")])
    (row,) = content(page(frame, predictions=load_predictions(tmp_path)))["places"][0]["rows"]
    assert (row["scores"], row["n"], row["trials"]) == ({"average": [None, None]}, 0, 1)


def test_the_command_reads_all_that_belongs_to_the_trials(results, tmp_path):
    frame = load_results(results)
    frame = frame[frame.backbone == "bart-base"]
    path = write_page(frame, collected(results), tmp_path / "report", ["a note"], title="t", examples=20)
    assert path == tmp_path / "report" / "index.html"
    data = content(path.read_text("utf-8"))
    assert data["notes"] == ["a note"]
    assert [place["name"] for place in data["places"]] == ["image-text on bart-base"]
    assert data["places"][0]["curves"] and data["places"][0]["parts"]
    found = data["examples"]["image-text"]
    assert len(found["trials"]) == 11
    # image-text has no embedded data, and none were given: the page says so instead
    assert (len(found["tasks"]["vqa"]["items"]), found["tasks"]["vqa"]["described"]) == (20, False)


# in a browser ---------------------------------------------------------------------------------------------------------

HERE = Path(__file__).parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="unchecked: what the page shows in a browser (no chromium)")


def browse(html, steps, folder, address="", width=1280):
    """What a probe saw that ran `steps` in a real browser."""
    probe = (HERE / "probe.js").read_text("utf-8").replace("/* STEPS */", steps)
    allowed = f"script-src 'sha256-{b64encode(sha256(probe.encode()).digest()).decode()}' "
    copy = folder / "page.html"
    html = html.replace("script-src ", allowed, 1).replace("<title>", f"<script>{probe}</script><title>", 1)
    copy.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--enable-logging=stderr", f"--user-data-dir={folder / 'browser'}", f"--window-size={width},900",
            "--virtual-time-budget=10000", "--dump-dom", copy.as_uri() + address,
        ],
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    (found,) = re.findall(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    seen = json.loads(unescape(found))
    assert (seen["wrong"], seen["requests"], seen["hacked"]) == ([], [], None)
    return seen


@in_browser
def test_a_reader_sorts_filters_compares_and_browses(results, made, tmp_path):
    seen = browse(made, (HERE / "reader.js").read_text("utf-8"), tmp_path)
    table = comparison(load_results(results))[lambda rows: rows.backbone == "bart-base"].set_index("method")
    methods, vqa = table[table.kind == "method"], table[table.kind == "method"].vqa.astype(float)
    by_average = list(methods.average.astype(float).sort_values(ascending=False).index)
    assert seen["first"]["names"] == by_average
    assert seen["first"]["controls"] == ["lora, text-only"]
    assert seen["first"]["chips"] == list(dict.fromkeys([*by_average[::2], "full"]))
    assert len(seen["first"]["sorted"]) == 1 and "average" in seen["first"]["sorted"][0]
    assert [vqa[name] for name in seen["falling"]["names"]] == sorted(vqa, reverse=True)
    assert (seen["falling"]["sort"], seen["falling"]["focus"]) == ("descending", "sort-vqa")
    assert [vqa[name] for name in seen["rising"]["names"]] == sorted(vqa)
    assert seen["rising"]["sort"] == "ascending"
    assert seen["parameters"] == list(methods.trainable.sort_values().index)
    assert set(seen["filtered"]["names"]) == {name for name in methods.index if "l" in name.lower()} != set(vqa.index)
    assert seen["none"] == ["No method matches."]
    assert seen["bare"] == [[], [], []]
    assert seen["bold"] == [f"{vqa['lora']:.2f}"]

    assert seen["unchosen"] == []
    assert seen["chosen"] == {"chips": ["lora", "bitfit", "full"], "ticked": 3, "lines": 3}
    assert seen["pressed"] == 3
    spent = costs(load_results(results))[lambda rows: rows.backbone == "bart-base"].set_index("method")
    assert set(seen["front"]) == set(spent.index[pareto_front(spent.train_seconds, vqa[spent.index])])
    std = methods["vqa std"].astype(float)["lora"]
    assert seen["tip"].startswith(f"lora\nvqa {vqa['lora']:.2f} ± {std:.2f}\ntraining time (minutes) 0.34")
    assert seen["numbers"] == [
        ["epoch", "lora", "bitfit", "full"], ["0.5", *["3.00 ± 0.00"] * 3], ["1", *["1.50 ± 0.00"] * 3],
    ]  # fmt: skip
    head, *of = seen["parts"][0]
    assert " ".join(head.split()) == "colour 30 examples"
    assert of[:2] == [" lora", f"{vqa['lora']:.2f} ± {std:.2f}"]

    kept = load_predictions(results)
    kept = kept[(kept.task == "gqa") & (kept.backbone == "bart-base") & (kept.seed == 1) & (kept.control == "none")]
    scores = kept.pivot_table("score", "example", "method")[["lora", "bitfit", "full"]] > 50
    items = {item[0]: item for item in content(made)["examples"]["image-text"]["tasks"]["gqa"]["items"]}
    scores = scores.loc[list(items)]
    assert seen["all"]["ids"] == list(items)
    assert seen["all"]["pages"] == [12, 12, 8]
    assert seen["all"]["count"] == "25–32 of 32 examples."
    mixed = scores.any(axis=1) & ~scores.all(axis=1)
    assert seen["disagree"]["ids"] == list(scores.index[mixed])
    assert 0 < mixed.sum() < len(items)
    assert seen["wrongs"]["ids"] == list(scores.index[~scores.any(axis=1)])
    only = list(scores.index[scores.full & ~scores.bitfit])
    assert seen["pair"]["ids"] == only and only
    assert seen["drawn"]["ids"] == [id for id, item in items.items() if item[4]]
    assert (len(seen["drawn"]["ids"]), seen["badges"]) == (8, 8)
    assert seen["found"]["ids"] == [id for id in items if "3" in id]
    assert seen["card"]["id"] == "7" and seen["card"]["said"] == f"is it 7? {EVIL}"
    marks = {True: ("right", "✓right"), False: ("wrong", "✗wrong")}
    for name, row, kind in zip(scores, seen["card"]["texts"], seen["card"]["classes"], strict=True):
        how, sign = marks[bool(scores.loc["7", name])]
        assert (kind, row) == (how, f"{name}{'yes' if how == 'right' else EVIL}{sign}")
    assert len(seen["images"]) > 12 and set(seen["images"]) == {96}
    assert "No example “nobody” among them." in seen["nobody"]
    # the address restores the view
    assert seen["again"]["count"] == seen["pair"]["count"]
    assert seen["again"]["pair"] == ["full", "bitfit"] and seen["again"]["chips"] == ["lora", "bitfit", "full"]
    assert seen["place"][0] and set(seen["place"][0]) == {"full", "lora"} == set(seen["place"][1])


@in_browser
def test_a_link_opens_what_it_says_on_a_narrow_screen(results, made, tmp_path):
    steps = """
    seen.card = document.querySelector(".card.on").dataset.id;
    seen.rows = [at("task").value, at("place").value, at("seed").value, ...texts("#chosen li"), names("method")[0]];
    seen.width = innerWidth;
    """
    address = "#place=image-text+on+bart-base&task=gqa&seed=0&id=9&sort=method&m=lst&m=full"
    seen = browse(made, steps, tmp_path, address, width=360)
    assert seen["card"] == "9"
    assert seen["rows"][:-1] == ["gqa", "image-text on bart-base", "0", "lst", "full"]
    assert seen["rows"][-1] == EVIL  # markup comes before letters
    assert seen["width"] <= 500 and seen["overflow"] == 0


TWINS = ("vl-pet-large", "vl-adapter+large")


@pytest.fixture
def marked(make_result):
    """A page of twins, and of scores so near to 100 that the deviation goes beyond; one point to a curve."""
    results = []
    for name in (*TWINS, "lora"):
        for seed, vqa in enumerate((100.0, 90.0)):
            result = make_result(method=name, label=name, seed=seed, vqa=vqa - 2 * (name == "lora"), gqa=40.0 + seed)
            result.curve = [Point(step=1, epoch=0.5, split="valid", task="vqa", metrics={"accuracy": vqa})]
            results.append(result)
    results.append(make_result(method="lora", control="text-only", vqa=30.0))
    frame = store.to_frame(results)
    keys = frame.drop_duplicates("id")[["id", "status", "suite", "backbone", "method", "control", "seed", "setup"]]
    point = {"step": 1, "epoch": 0.5, "split": "valid", "task": "vqa", "measure": "accuracy", "primary": True}
    values = keys.seed.map({0: 100.0, 1: 90.0})
    return page(frame, curves=keys[keys.control == "none"].assign(**point, value=values))


def test_what_a_score_can_be_is_on_the_page(marked):
    (place,) = content(marked)["places"]
    assert place["bounds"] == {"vqa": [0, 100], "gqa": [0, 100], "average": [0, 100]}


SEE = """
set("y", "vqa");
const mark = (from) => from.querySelector("path[transform]"), y = (text) => +text.match(/,(-?[\\d.]+)V/)[1];
seen.points = Object.fromEntries(all(".point").map((one) => [one.id.replace("point-", ""), {
  place: mark(one).getAttribute("transform"), stroke: mark(one).getAttribute("stroke"),
  fill: mark(one).getAttribute("fill"), width: mark(one).getBBox().width,
  top: y(one.querySelector(".whisker").getAttribute("d")),
}]));
const hundred = all("#costs-plot text").filter((one) => one.textContent === "100");
seen.hundred = hundred.map((one) => one.getAttribute("y") - 4);
seen.caption = at("costs-note").textContent;
seen.legend = Object.fromEntries(all("#leaderboard tbody tr").filter((row) => row.querySelector(".mark"))
  .map((row) => [row.querySelector("th").textContent, mark(row).getAttribute("d") + mark(row).getAttribute("fill")]));
set("curve", "vqa");
seen.ticks = texts('#curves-plot text[text-anchor="middle"]').filter((text) => !isNaN(text));
seen.lines = all(".line").map((one) => [mark(one).getBBox().width, all(".whisker", one).length]);
seen.note = at("curves-note").textContent;
"""


@in_browser
def test_the_page_draws_methods_as_the_figures_do_and_twins_so_that_both_are_seen(marked, tmp_path):
    seen = browse(marked, SEE, tmp_path, "#m=vl-pet-large&m=vl-adapter%2Blarge&m=lora")
    points = seen["points"]
    assert points.keys() == {*TWINS, "lora"}
    one, other = (points[name] for name in TWINS)
    assert one["place"] == other["place"] and abs(one["width"] - other["width"]) > 6
    for name in points:
        assert mark_of(name).color in points[name]["stroke"] + points[name]["fill"]
    assert len({*seen["legend"].values()}) == 4  # the control, in its method's marker and hollow, is a fourth
    assert [one["top"]] * 2 == pytest.approx([other["top"], *seen["hundred"]], abs=0.01)  # not above 100
    for said in ("Filled", "open", "n = 2 seeds", "Bars", "one beneath is larger"):
        assert said in seen["caption"]
    assert seen["ticks"] == ["0", "1"]
    widths, bars = zip(*seen["lines"], strict=True)
    assert bars == (1, 1, 1) and widths[0] > widths[1] + 6 > widths[1]
    assert "bars where a curve has one point" in seen["note"]


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_on_a_phone_the_average_stands_beside_the_method(marked, tmp_path, width):
    steps = """
    document.body.style.width = `${Math.min(innerWidth, 390)}px`;
    seen.heads = all("thead th", at("leaderboard")).map((one) => one.querySelector("button").id);
    seen.right = at("sort-average").closest("th").getBoundingClientRect().right;
    """
    seen = browse(marked, steps, tmp_path, width=width)
    order = ["sort-method", "sort-average"] if width == 390 else ["sort-method", "sort-trainable %"]
    assert seen["heads"][:2] == order and len(set(seen["heads"])) == len(seen["heads"]) == 8
    assert width > 390 or seen["right"] <= 390
