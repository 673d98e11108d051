"""The generated pages are those of the code, and what they tell a reader to write works."""

from __future__ import annotations

import re
import shutil

import pytest

from pet_bench.files import parse_yaml, read_yaml
from pet_bench.grid.plan.spec import parse
from pet_bench.pet import build_method
from pet_bench.pet.method import restored
from pet_bench.registry import METHODS
from pet_bench.results.contributed import About
from pet_bench.spec import validate
from pet_bench.trial.check import check_designs
from pet_bench.trial.resolve import known
from tests.conftest import ROOT
from tests.docs.pages import PAGES, TYPED, blocks, text_of
from tests.reference.discover import fixtures
from tests.vlms.attached import TINY, skipped

pytestmark = pytest.mark.xdist_group("pages")  # the generator describes each method once
GRID = {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["vl-pet-large"],
        "recipe": {"lr": 1e-3}}  # fmt: skip
OURS = [name for name in METHODS.names() if METHODS.origin(name).startswith("pet_bench.")]
BLOCKS = [parse_yaml(block, page) for page in PAGES if page != TYPED for block in blocks(page, "yaml")]
GRIDS = [block for block in BLOCKS if not {"file", "by"} & block.keys()]


def page(name):
    return text_of(f"docs/{name}")


def test_the_pages_are_up_to_date(generator):
    for path, text in generator.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run `python docs/build.py`"


def test_every_method_and_every_difference_is_there(generator):
    methods, differences = page("methods.md"), page("differences.md")
    headings = set(re.findall(r"^##+ (.+)$", methods + differences, re.MULTILINE))
    assert set(generator.OURS) <= headings
    assert generator.own_differences().keys() <= headings
    anchors = {generator.anchor(heading) for heading in headings}
    assert set(re.findall(r"\]\((?:differences\.md)?#([^)]+)\)", methods)) <= anchors


def test_the_matrix_is_what_the_tiny_models_show():
    """A method works on a family where it does on tiny random models, which are of other sizes."""
    rows = [line.strip("| ").split(" | ") for line in page("backbones.md").splitlines() if line.startswith("| ")]
    start = next(i for i, row in enumerate(rows) if row[0] == "method")
    families = [name.strip("`") for name in rows[start][1:]]
    assert {*families} >= {*TINY} and len(rows) == start + 2 + len(OURS)
    for method, *cells in rows[start + 2 :]:
        for family, cell in zip(families, cells, strict=True):
            if family in TINY:
                assert (cell == "works") == (skipped(family, method.strip("`")) is None), (method, family)


def test_the_yaml_of_a_task_is_the_example():
    """Whose lines of comment are its own."""
    assert [block for block in BLOCKS if "file" in block] == [
        read_yaml(ROOT / "examples/shapes/shapes.yaml", "example")
    ]


def test_the_yaml_about_results_is_what_a_contribution_has():
    (about,) = [block for block in BLOCKS if "by" in block]
    assert validate(About, about, "CONTRIBUTING.md").seen


@pytest.mark.parametrize("block", GRIDS, ids=str)
def test_the_yaml_is_a_grid_that_can_run(block, tmp_path, monkeypatch):
    """As it stands where it has a name; else it is keys of a grid. A reader's own checkpoint is a small one here."""
    for backbone in block.get("backbones", ()):
        if "/" in backbone:
            shutil.copytree(ROOT / "pet_bench/mini/backbones/mini-llava", tmp_path / backbone)
    monkeypatch.chdir(tmp_path)
    check_designs(parse(block if "name" in block else GRID | block).trials())


def test_the_yaml_of_an_option_makes_the_intended_behaviour(generator):
    for difference, users in generator.own_differences().values():
        if difference.published == difference.intended:
            continue
        (trial,) = parse(GRID | generator.switch(difference, users)).trials()
        shape = known(trial.backbone)[1]
        assert build_method(restored(trial.method), shape).behaviour(shape)[difference.name] == "intended"


def test_what_is_called_as_evidence_exists():
    text = page("differences.md")
    for path, function in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text):
        assert f"def {function}" in (ROOT / path).read_text(), (path, function)
    for name in re.findall(r"parity/(\w+)(?![\w/.])", text.replace("tests/parity/", "")):
        assert name in fixtures() or name in fixtures("followups/parity"), name
    for name in re.findall(r"published/(\w+\.csv)", text):
        assert (ROOT / "results" / "published" / name).is_file(), name
    last = {"METHODS": 10, "TASKS": 12}
    for note, section in re.findall(r"(METHODS|TASKS)\.md (\d+)", text):
        assert int(section) <= last[note]


def test_printed_percentages_stand_beside_ours(generator, tmp_path):
    assert "printed" not in generator.methods_page({})
    rows = "suite,backbone,method,percent,published_percent\n"
    rows += "image-text,bart-base,lora,5.9275,5.93\nvideo-text,bart-base,lora,5.17,\nvideo-text,bart-base,full,5,7\n"
    (tmp_path / "counts.csv").write_text(rows)
    (tmp_path / "table.csv").write_text("backbone,method,trainable_percent,vqa\nt5-base,lora,7.54,63.7\n")
    percents = generator.published(tmp_path)
    assert percents == {("bart-base", "lora"): "5.93", ("t5-base", "lora"): "7.54"}
    line = next(line for line in generator.methods_page(percents).splitlines() if line.startswith("| [lora]"))
    assert line.split("|")[3:-1] == [" 8,786,688 ", " 5.93 ", " 5.93 ", " 18,170,112 ", " 7.54 ", " 7.54 "]
