"""The grids that come with the package: they build, and what their headers promise is what the literature has."""

from __future__ import annotations

import csv
import re
from functools import cache

import pytest

from pet_bench.backbone.known import find_backbone
from pet_bench.grid.plan.spec import SHIPPED, load, shipped
from pet_bench.pet import build_method
from pet_bench.spec import MethodSpec
from pet_bench.trial.check import check_designs
from tests.conftest import ROOT, part

PUBLISHED = ROOT / "results" / "published"
TABLES = {
    "vlpet-table2-bart": ("vlpet_table2_image_text", "bart-base"),
    "vlpet-table2-t5": ("vlpet_table2_image_text", "t5-base"),
    "vlpet-table9": ("vlpet_table9_transfer", "bart-base"),
}
PUBLISHING = (*TABLES, "vlpet-video")
ABLATIONS = [name for name in shipped() if name.startswith("ablation-") and name != "ablation-scope"]
MINI = ("mini-image-text-bart", "mini-image-text-t5", "mini-video-text", "mini-ablation")
SCOPES = ("mini-scope", "ablation-scope")  # of which nothing is published
COLUMNS = {
    "trained %": "trainable_percent", "VQA": "vqa", "GQA": "gqa", "NLVR2": "nlvr2", "COCO": "coco_cider",
    "TVQA": "tvqa", "How2QA": "how2qa", "TVC": "tvc_cider", "YC2C": "yc2c_cider", "average": "avg",
}  # fmt: skip


@cache
def trials_of(name):
    return load(name).trials()


def published(table, backbone, suite="image-text"):
    with (PUBLISHED / f"{table}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["method"]: row for row in rows if row["backbone"] == backbone and row.get("suite", suite) == suite}


def header(name):
    """The comment that a grid file begins with, without its marks."""
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return [line[2:] for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]


def expected(name):
    """The table of a header as {label: {column of the CSV: cell}}, and the tables it is from; neither where none is."""
    text = "\n".join(header(name))
    lines = text[text.find("Expected:") :].splitlines() if "Expected:" in text else []
    titles, *rows = [re.split(r"\s{2,}", line.strip()) for line in lines if line.startswith("  ")] or [[]]
    table = {label: dict(zip((COLUMNS[title] for title in titles[1:]), cells, strict=True)) for label, *cells in rows}
    return table, re.findall(r"results/published/(\w+)\.csv", text)


def labels(name):
    """One trial of every method, by label."""
    return {trial.label: trial for trial in reversed(trials_of(name))}


def design(backbone, method):
    shape = find_backbone(backbone).anatomy
    return build_method(method, shape).design(shape)


built = set()


@pytest.mark.parametrize("name", part(shipped(), 12))
def test_every_trial_of_a_shipped_grid_can_be_built(name):
    trials = trials_of(name)
    assert len({trial.id for trial in trials}) == len(trials) > 0
    designs = {(trial.backbone, str(trial.method), trial.visual, trial.tasks): trial for trial in trials}
    check_designs(designs[key] for key in designs.keys() - built)  # what grids have in common, once
    built.update(designs)


@pytest.mark.parametrize("name", shipped())
def test_a_header_says_what_a_grid_is_how_to_run_it_and_how_large_it_is(name):
    lines, trials = header(name), trials_of(name)
    assert re.match(r"[A-Z].*[.?]$", lines[0])
    assert max(map(len, lines)) <= 118
    if name != "smoke":
        assert any(line.startswith(f"  pet-bench run {name}") for line in lines)
    if name in (*PUBLISHING, *ABLATIONS, *MINI):
        methods, seeds = list(labels(name)), load(name).seeds
        said = f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
        assert f"{len(trials)} trials: {len(methods)} methods, seeds {said}." in lines
        assert len(trials) == len(methods) * len(seeds)
        assert any("published" in line for line in lines)


@pytest.mark.parametrize("name", SCOPES)
def test_grids_of_scope_compare_methods_over_the_same_scopes_with_a_floor(name):
    scopes = {}
    for trial in trials_of(name):
        if trial.control == "none":
            scopes.setdefault(trial.method.name, {}).setdefault(trial.seed, set()).add(trial.method.scope)
    assert scopes.pop("projector-only").keys() == set(load(name).seeds)
    (first, *_), (second, *_) = (list(seeds.values()) for seeds in scopes.values())
    assert scopes.keys() == {"lora", "adapter"} and first == second
    assert all(seeds.keys() == set(load(name).seeds) for seeds in scopes.values())
    assert None in first, "a family's own scope is among them"
    assert {part for scope in first if scope for part in scope} == {"language", "projector", "vision"}
    count = len(labels(name))
    assert any(line.startswith(f"{len(trials_of(name))} trials: {count} methods, seeds") for line in header(name))


@pytest.mark.parametrize("name", [*PUBLISHING, *ABLATIONS])
def test_expected_scores_are_the_published_ones(name):
    """Digit by digit, for every method whose design some published row is of, with the recipe of that row's grid."""
    trials, (table, sources) = labels(name), expected(name)
    assert sources
    backbone, suite = load(name).backbones[0], load(name).suites[0]
    rows = [row for source in sources for row in published(source, backbone, suite).values()]
    designs = [(design(backbone, MethodSpec(row["method"])), row) for row in rows]
    recipes = {
        trial.method.name: trial.recipe
        for grid in PUBLISHING
        for trial in trials_of(grid)
        if (trial.backbone, trial.suite) == (backbone, suite)
    }
    for label, trial in trials.items():
        found = [row for one, row in designs if one == design(backbone, trial.method)]
        assert bool(found) == (label in table), label
        for row in found:
            cells = {
                column: row[column] + (f" ± {row[f'{column}_std']}" if row.get(f"{column}_std") else "")
                for column in COLUMNS.values()
                if row.get(column)
            }
            assert table[label] == cells
            assert trial.recipe == recipes[row["method"]]
    assert table.keys() <= trials.keys()


@pytest.mark.parametrize("name", TABLES)
def test_the_rows_of_a_table_are_the_published_ones(name):
    rows = published(*TABLES[name])
    trials = trials_of(name)
    assert load(name).methods == list(rows)
    assert list(expected(name)[0]) == list(rows)
    assert {trial.label for trial in trials} == rows.keys()
    assert {(trial.suite, trial.backbone, trial.control) for trial in trials} == {
        ("image-text", TABLES[name][1], "none")
    }


def test_the_rows_of_the_video_table_are_those_that_something_is_known_of():
    with (PUBLISHED / "parameter_counts.csv").open(encoding="utf-8") as file:
        counted = {row["method"] for row in csv.DictReader(file) if row["suite"] == "video-text"}
    assert set(load("vlpet-video").methods) == counted | published("dora_readme", "bart-base", "video-text").keys()


@pytest.mark.parametrize("name", [*PUBLISHING, *ABLATIONS])
def test_seeds_are_the_published_ones(name):
    assert load(name).seeds == [42, 43, 9595]


RATES = {  # METHODS.md 8; of compacter and prompt-tuning on BART, and Table 9's Compacters, none is published
    "vlpet-table2-bart": (500, 1e-3, {"full": 1e-4}),
    "vlpet-table2-t5": (300, 3e-4, {"full": 1e-4, "bitfit": 3e-3, "prompt-tuning": 3e-3, "lst": 3e-3}),
    "vlpet-table9": (500, 1e-3, {}),
}


@pytest.mark.parametrize("name", RATES)
def test_recipes_of_the_image_text_tables(name):
    batch, rate, others = RATES[name]
    for trial in trials_of(name):
        recipe, method = trial.recipe, trial.method.name
        assert (recipe.batch_size, recipe.epochs, recipe.lr) == (batch, 20, others.get(method, rate))
        assert (recipe.warmup, recipe.clip, recipe.beta1, recipe.beta2, recipe.eps) == (0.1, 5.0, 0.9, 0.999, 1e-6)
        assert recipe.weight_decay == (0.03 if method == "lst" else 0.01)
        assert (recipe.selection, recipe.max_steps, recipe.precision) == ("last", None, "float32")
        promptless = {task: {"prompt": ""} for task in trial.tasks} if method in ("full", "hyperformer") else {}
        assert trial.protocol == promptless  # METHODS.md 6


def test_recipes_of_the_video_table():
    """METHODS.md 8: VL-PET's. TASKS.md 10: full and VL-Adapter."""
    for trial in trials_of("vlpet-video"):
        recipe, method = trial.recipe, trial.method.name
        short = {"full": (7, 3e-5), "vl-adapter": (7, 3e-4), "lora": (7, 3e-4), "dora": (7, 3e-4)}
        assert (recipe.epochs, recipe.lr) == short.get(method, (20, 7e-4))
        assert recipe.batch_size == 50
        assert trial.protocol == {}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_has_its_reference_in_the_table_of_its_backbone(name):
    table = "vlpet-table2-t5" if name == "ablation-t5" else "vlpet-table2-bart"
    reference = [trial.id for trial in trials_of(table) if trial.label == "vl-pet-large"]
    assert reference == [trial.id for trial in trials_of(name) if trial.label == "vl-pet-large"]


def test_the_mini_grids_have_every_method_of_the_tables_once():
    rows = {*published(*TABLES["vlpet-table2-bart"]), *published(*TABLES["vlpet-table2-t5"])}
    rows |= published(*TABLES["vlpet-table9"]).keys()
    for backbone in ("bart", "t5"):
        methods = load(f"mini-image-text-{backbone}").methods
        assert set(methods) == rows | {"projector-only"}
        assert len(set(methods)) == len(methods)


@pytest.mark.parametrize(("name", "demo"), [("mini-image-text-bart", "demo"), ("mini-video-text", "demo-video")])
def test_the_demonstrations_are_part_of_the_mini_grids(name, demo):
    ids = {trial.id for trial in trials_of(name)}
    assert {trial.id for trial in trials_of(demo) if trial.control == "none"} <= ids


def test_the_mini_ablation_starts_from_a_trial_of_the_mini_grid():
    ids = {trial.id for trial in trials_of("mini-image-text-bart")}
    assert {trial.id for trial in trials_of("mini-ablation") if trial.label == "vl-pet-large"} <= ids


def test_options_and_whole_designs_in_a_grid_file(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "name: g\nsuites: [image-text]\nbackbones: [bart-base]\n"
        "methods:\n"
        "  - {name: vl-pet-large, gate: none, heads: 8}\n"
        "  - name: design\n"
        "    inserts:\n"
        "      - {sites: [decoder.ffn.hidden], gate: {kind: vector, init: one}}\n"
        "      - {sites: [decoder.head], reads: input, delta: {kind: bottleneck, width: 4}}\n"
    )
    first, second = load(path).trials()
    assert first.label == "vl-pet-large(gate=none, heads=8)"
    assert (
        second.label == "design(decoder.ffn.hidden: vector(init=one); decoder.head: bottleneck(width=4), reads=input)"
    )
    assert second.method.options["inserts"][0]["gate"]["init"] == "one"
    check_designs([first, second])
