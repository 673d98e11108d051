"""Tasks described in a YAML file: what they read, how they are scored, and every way in which one can be wrong."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pet_bench.cli import main
from pet_bench.data.patches import patches
from pet_bench.data.task import FEATURES, Choose, Generate
from pet_bench.errors import UserError
from pet_bench.registry import SUITES, TASKS, load_plugin
from pet_bench.spec import Visual
from tests.conftest import ROOT

SHAPES = ROOT / "examples" / "shapes"
ROWS = [
    {"part": "train", "n": 1, "image": "a/1.png", "question": "what bird is {it} ?", "answer": "owl"},
    {"part": "train", "n": 2, "image": "2.png", "question": "what ?", "answer": "hen"},
    {"part": "test", "n": 3, "image": "3.png", "question": "who ?", "answer": "owl"},
]
ABOUT = {
    "name": "birds", "file": "birds.csv", "split": "part", "splits": {"valid": "none"}, "text": "{question} {{}} {n}",
    "target": "{answer}", "prompt": "q: ",
}  # fmt: skip


def write_csv(path: Path, rows: list[dict], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


FORMS = {
    "birds.csv": write_csv,
    "birds.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "birds.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "birds.jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows))),
    "birds.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


@pytest.fixture
def task(tmp_path):
    """The task that a description stands for, of rows written as its file says."""

    def make(rows=ROWS, **changed):
        about = {key: value for key, value in (ABOUT | changed).items() if value is not None}
        (tmp_path / "birds.yaml").write_text(yaml.safe_dump(about))
        if rows and (write := FORMS.get(about["file"])):
            write(tmp_path / about["file"], rows)
        assert load_plugin(str(tmp_path / "birds.yaml")) == ["task birds", "suite birds"]
        return TASKS.get("birds")()

    return make


@pytest.mark.parametrize("file", FORMS)
def test_rows_of_every_kind_of_table(file, task, tmp_path):
    """Braces in a cell are a cell's, and no template's."""
    train = task(file=file).examples(tmp_path, "train")
    first, second = train
    assert first.text == "q: what bird is {it} ? {} 1"
    assert (first.id, second.id) == (("2", "3") if file.endswith("sv") else ("1", "2"))
    assert first.images == ("birds/a/1.png",)
    assert first.targets == (("owl", 1.0),)
    (tested,) = TASKS.get("birds")().examples(tmp_path, "test")
    assert tested.references["label"] == {"owl": 1.0}


def test_a_file_for_each_split(task, tmp_path):
    for name in ("train", "test"):
        FORMS["birds.json"](tmp_path / f"{name}.json", [row | {"answer": name} for row in ROWS])
    made = task(rows=None, file="{split}.json", split=None, id="n")
    assert [example.targets[0][0] for example in made.examples(tmp_path, "test")] == ["test"] * 3
    assert [example.id for example in made.examples(tmp_path, "train")] == ["1", "2", "3"]
    assert made.sources(tmp_path, "train") == [tmp_path / "train.json"]


@pytest.mark.parametrize(("file", "separator"), [("birds.json", None), ("birds.csv", "|")])
def test_several_answers(file, separator, task, tmp_path):
    """Each counts; what is said more often is learned more often."""
    answers = ["owl", "hen", "owl", "owl"]
    rows = [row | {"answer": "|".join(answers) if separator else answers} for row in ROWS]
    made = task(rows, file=file, separator=separator, metric="vqa-accuracy", also=["exact-match"])
    (tested,) = made.examples(tmp_path, "test")
    assert tested.targets == (("owl", 1.0), ("hen", 1 / 3))
    scores = made.score({tested.id: "hen"}, [tested])
    # of each annotator's three others min(1, how many said so / 3), averaged: (1/3 + 1/3 + 1/3 + 0) / 4
    assert scores.primary == scores.values["accuracy"] == pytest.approx(25.0)
    assert scores.values["accuracy (exact-match)"] == 100.0


def test_choices_are_chosen_among(task, tmp_path):
    made = task(choices=["owl", "hen"])
    assert made.decoding == Choose(("owl", "hen"))
    assert made.closed


def test_answers_are_written_where_none_are_named(task, tmp_path):
    assert task(num_beams=3, max_length=9).decoding == Generate(3, 9)


def test_features_and_pictures(task, tmp_path):
    made = task(features="patches")
    assert SUITES.get("birds").visual == Visual(192, 36, 36)
    (tmp_path / "images" / "a").mkdir(parents=True)
    picture = Image.effect_noise((40, 30), 90)
    picture.save(tmp_path / "images" / "a" / "1.png")
    assert np.array_equal(made.feature(tmp_path, "birds/a/1.png"), patches(picture))
    assert made.picture(tmp_path, "birds/a/1.png") == (tmp_path, "a/1.png")


def test_clip_features_are_where_data_features_writes_them(task, tmp_path):
    made = task(images=["image", "question"])
    assert SUITES.get("birds").visual == Visual(2048, 49, 36)
    assert made.feature_path(tmp_path, "birds/a/1.png") == tmp_path / FEATURES / "a" / "1.h5"


# what is wrong with a description ------------------------------------------------------------------------------------

WRONG = [
    ({"name": None}, "name is missing"),
    ({"text": None}, "text is missing"),
    ({"name": 7}, "name: Input should be a valid string, found 7"),
    ({"nmae": "x"}, 'unknown birds.yaml key "nmae": did you mean "name"?'),
    ({"splits": {"dev": "x"}}, 'unknown key "splits.dev"'),
    ({"file": "/etc/passwd.csv"}, "file: a path below its folder"),
    ({"file": "../birds.csv"}, "file: a path below its folder"),
    ({"file": "birds.xlsx"}, "file: a table ends with .csv, .tsv, .json, .jsonl, .parquet, found 'birds.xlsx'"),
    ({"file": "{part}.csv", "split": None}, "file: only {split} stands for something"),
    ({"split": None}, "split: a column, or else {split} in the name of the file; found neither"),
    ({"file": "{split}.csv"}, "split: a column, or else {split} in the name of the file; found both"),
    ({"text": "{question.__class__}"}, "text: braces hold the name of a column"),
    ({"text": "{question[0]}"}, "text: braces hold the name of a column"),
    ({"text": "{n:>3}"}, "text: braces hold the name of a column"),
    ({"text": "{n!r}"}, "text: braces hold the name of a column"),
    ({"text": "{}"}, "text: braces hold the name of a column"),
    ({"text": "{n"}, "text: "),
    ({"target": "yes"}, "target: it names no column"),
    ({"target": "the {answer}", "separator": "|"}, "separator: is for a target of one column alone"),
    ({"choices": ["owl"]}, "choices: List should have at least 2 items"),
    ({"images": []}, "images"),
    ({"metric": "exact-mach"}, 'unknown birds.yaml: metric: "exact-mach": did you mean "exact-match"?'),
    ({"also": ["nope"]}, '"nope"'),
    ({"max_length": 1}, "max_length: Input should be greater than or equal to 3, found 1"),
    ({"features": "vgg"}, "features: Input should be 'clip' or 'patches', found 'vgg'"),
    ({"name": "vqa"}, 'task "vqa" registered twice'),
    ({"name": "a b"}, "a name is 1 to 64 letters"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_description_that_is_wrong(change, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = {key: value for key, value in (ABOUT | change).items() if value is not None}
    Path("birds.yaml").write_text(yaml.safe_dump(about))
    with pytest.raises(UserError) as error:
        load_plugin("birds.yaml")
    assert any(said in line for line in error.value.faults), error.value.faults
    assert all("birds.yaml" in line for line in error.value.faults)


def test_all_that_is_wrong_is_said_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("birds.yaml").write_text(yaml.safe_dump(ABOUT | {"name": 7, "features": "vgg", "max_length": 0}))
    with pytest.raises(UserError) as error:
        load_plugin("birds.yaml")
    assert len(error.value.faults) == 3


# what is wrong with its table ----------------------------------------------------------------------------------------


def row(**changed):
    return [*ROWS, ROWS[0] | changed]


TABLES = [
    ([{"part": "train", "n": 1, "image": "1.png", "question": "x"}], "birds.csv: column (target)"),
    ([{key: value for key, value in one.items() if key != "image"} for one in ROWS], "birds.csv: column (images)"),
    ([one | {"part": "dev"} for one in ROWS], 'birds.csv: split (column part) "train": (possible: dev)'),
    (row(answer=" "), "line 5: answer is empty"),
    (row(question=""), "line 5: question is empty"),
    (row(image=""), "line 5: image is a path below its folder"),
    (row(image="/etc/passwd"), "line 5: image is a path below its folder"),
    (row(image="a/../../b.png"), "line 5: image is a path below its folder"),
    (row(image="..\\b.png"), "line 5: image is a path below its folder"),
]
TEXTS = [
    ("birds.csv", None, "birds.csv is missing"),
    ("birds.csv", "", "birds.csv"),
    ("birds.csv", "part,n,image,question,answer\n", "birds.csv holds no rows"),
    ("birds.csv", "part,part\na,b\n", "line 1: the column 'part' is there twice"),
    ("birds.csv", "part,n,image,question,answer\ntrain,1,1.png,x\n", "line 2: 4 values, expected 5"),
    ("birds.csv", 'part,n,image,question,answer\ntrain,1,"1.png,x,y', "line"),
    ("birds.json", "{", "not valid JSON"),
    ("birds.json", '{"part": 1}', "birds.json: content"),
    ("birds.jsonl", '{"part": "train"}\n[]', "line 2"),
    ("birds.json", json.dumps([ROWS[0], {"part": "train"}]), "row 2: n is missing"),
    ("birds.json", json.dumps([ROWS[0] | {"answer": {"a": 1}}]), "row 1: answer is text, a number or a list of texts"),
    ("birds.json", json.dumps([ROWS[0] | {"answer": None}]), "row 1: answer is empty"),
    ("birds.parquet", "version https://git-lfs.github.com/spec/v1\n", "birds.parquet is a Git LFS pointer"),
    ("birds.parquet", "PAR1", "birds.parquet cannot be read"),
    ("birds.parquet", None, "birds.parquet is missing"),
]


@pytest.mark.parametrize(("rows", "said"), TABLES, ids=lambda value: str(value)[-40:])
def test_a_table_that_is_wrong(rows, said, task, tmp_path):
    made = task(rows)
    with pytest.raises(UserError, match="birds") as error:
        made.examples(tmp_path, "train")
    assert any(said in line for line in error.value.faults), error.value.faults


@pytest.mark.parametrize(("file", "text", "said"), TEXTS, ids=lambda value: str(value)[-40:])
def test_a_file_that_is_wrong(file, text, said, task, tmp_path):
    made = task(None, file=file)
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match="birds") as error:
        made.examples(tmp_path, "train")
    assert any(said in line for line in error.value.faults), error.value.faults


def test_an_answer_that_is_no_choice(task, tmp_path):
    with pytest.raises(UserError, match="line 2: answer is 'owl', expected one of hen, cock"):
        task(choices=["hen", "cock"]).examples(tmp_path, "train")


def test_an_id_that_is_there_twice(task, tmp_path):
    with pytest.raises(UserError, match="more than once"):
        task([*ROWS, ROWS[0]], id="n").examples(tmp_path, "train")


# through the command line --------------------------------------------------------------------------------------------


def test_twenty_rows_become_a_table(tmp_path, capsys):
    root, file = tmp_path / "shapes", str(tmp_path / "shapes" / "shapes.yaml")
    shutil.copytree(SHAPES, root)
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(root), "--suite", "shapes", "--task-file", file])
    assert not ended.value.code
    out = str(tmp_path / "out")
    steps = ["--set", "recipe.max_steps=2", "--set", "recipe.valid_every=0", "--seed", "0", "--executor", "inline"]
    for line in (
        ["run", "--suite", "shapes", "--backbone", "mini-bart", "--method", "lora", "--data", str(root), *steps],
        ["report"],
    ):
        where = [out] if line == ["report"] else ["--out", out]
        with pytest.raises(SystemExit) as ended:
            main([*line, *where, "--task-file", file])
        assert not ended.value.code
    assert "shapes: accuracy on test, 5 examples" in capsys.readouterr().out
    (result,) = (path for path in Path(out).glob("*.json"))
    (plugin,) = json.loads(result.read_text())["provenance"]["plugins"]
    assert (plugin["module"], plugin["provides"]) == ("shapes.yaml", ['task "shapes"'])
    assert len(plugin["digest"]) == 64
