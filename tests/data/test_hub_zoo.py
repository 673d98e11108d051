"""The hub's copies of OK-VQA, TextVQA, VizWiz, ScienceQA and Flickr30k: converted, read, looked at, and damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pet_bench.cli import main
from pet_bench.data.features import Encoder, extract, find
from pet_bench.data.images import ImageStore
from pet_bench.data.task import FEATURES
from pet_bench.registry import TASKS
from pet_bench.tasks.scienceqa import ScienceQA
from tests.data import hub_zoo, zoo_roots
from tests.data.hub_layouts import in_cache, shards
from tests.data.roots import dump
from tests.data.test_features import ORIGIN, cells

COPIES = {
    "okvqa": (hub_zoo.okvqa, (None, 3, 3)),
    "textvqa": (hub_zoo.textvqa, (4, 4, 4)),
    "vizwiz": (hub_zoo.vizwiz, (None, 4, 4)),
    "scienceqa": (hub_zoo.scienceqa, (4, 4, 4)),
    "flickr30k-caption": (hub_zoo.flickr30k, (4, 2, 2)),
}
every = pytest.mark.parametrize("name", COPIES)


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return (caught.value.code or 0), *capsys.readouterr()

    return run


@every
def test_a_copy_is_read_as_the_official_files_are(name, call, tmp_path):
    write, counts = COPIES[name]
    code, text, err = call("data", "convert", write(tmp_path / "hub"), tmp_path / "root")
    assert code == (1 if None in counts else 0), text + err
    task = TASKS.get(name)()
    for split, count in zip(("train", "valid", "test"), counts, strict=True):
        if count is not None:
            assert len(task.examples(tmp_path / "root", split)) == count
    examples = task.examples(tmp_path / "root", "test")
    store = ImageStore.pack(tmp_path / "root", [(task, examples)], cache=tmp_path / "cache")
    assert len(store.index) == len({e.images for e in examples})


@every
def test_what_a_copy_lacks_is_said(name, call, tmp_path):
    write, counts = COPIES[name]
    _, text, _ = call("data", "convert", write(tmp_path / "hub"), tmp_path / "root")
    assert ("the copy has no train" in text) == (counts[0] is None)


@pytest.mark.parametrize("name", ["textvqa", "scienceqa"])
def test_from_the_librarys_cache(name, call, tmp_path):
    write, _ = COPIES[name]
    write(tmp_path / "hub")
    (repository,) = (tmp_path / "hub").iterdir()
    home = in_cache(tmp_path / "cached", f"anyone/{repository.name}", repository)
    code, text, err = call("data", "convert", home, tmp_path / "root", "--task", name)
    assert code == 0, text + err
    assert TASKS.get(name)().examples(tmp_path / "root", "test")


def pixels(task, root, example, cache):
    return ImageStore.pack(root, [(task, [example])], cache=cache).picture(0)


def test_each_question_has_the_picture_of_its_row(call, tmp_path):
    """Rows of ScienceQA that have none are counted over."""
    import io

    from PIL import Image

    call("data", "convert", hub_zoo.scienceqa(tmp_path / "hub"), tmp_path / "root")
    task = TASKS.get("scienceqa")()
    for example, row in zip(
        task.examples(tmp_path / "root", "test"), [r for r in hub_zoo.scienceqa_rows(20) if r["image"]], strict=True
    ):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert (pixels(task, tmp_path / "root", example, tmp_path / "cache") == np.asarray(image)).all()
    every = task.__class__(questions="all").examples(tmp_path / "root", "test")
    assert [e.id for e in every] == [str(200_001 + i) for i in range(6)]


def test_features_of_what_convert_names(call, tmp_path):
    """All of ScienceQA's pictures are called `image`; a feature is called after the number."""
    root = tmp_path / "root"
    call("data", "convert", hub_zoo.scienceqa(tmp_path / "hub"), root)
    listing = find(root / "scienceqa", "images")
    task = TASKS.get("scienceqa")(questions="all")
    keys = {key for split in ("train", "valid", "test") for e in task.examples(root, split) for key in e.images}
    assert {f"scienceqa/{split}/{name}" for split in ("train", "val", "test") for name in listing.items} >= keys - {
        ScienceQA().blank
    }
    assert len(listing.items) == len(keys) - 1
    extract(listing, root / "scienceqa" / FEATURES, Encoder(cells, ORIGIN))
    code, text, _ = call("data", "check", root, "--suite", "science", "--set", "scienceqa.questions=all")
    assert code == 0, text


def test_words_are_where_the_option_reads_them(call, tmp_path):
    call("data", "convert", hub_zoo.textvqa(tmp_path / "hub"), tmp_path / "root")
    task = TASKS.get("textvqa")(ocr=True)
    assert task.examples(tmp_path / "root", "test")[0].text == "textvqa: what brand is this? ocr: ALE 1924"
    test = json.loads((tmp_path / "root/textvqa/TextVQA_0.5.1_test.json").read_text())["data"]
    assert len(test) == 4 and not any("answers" in row for row in test)


def test_a_copy_without_words_says_so(call, tmp_path):
    for split, name in (("train", "train"), ("val", "validation")):
        rows = [{k: v for k, v in row.items() if k != "ocr_tokens"} for row in hub_zoo.textvqa_rows(split, 0)]
        shards(tmp_path / "hub", name, hub_zoo.TEXTVQA.remove(len(hub_zoo.TEXTVQA) - 1), rows)
    code, text, _ = call("data", "convert", tmp_path / "hub", tmp_path / "root")
    assert code == 0 and "the copy of train, val has no ocr_tokens: textvqa.ocr needs Rosetta's official files" in text


def test_the_whole_copy_of_scienceqa_goes_before_the_subset(call, tmp_path):
    for config, kept in (("ScienceQA-FULL", lambda row: True), ("ScienceQA-IMG", lambda row: row["image"])):
        for split, first in (("train", 0), ("validation", 10), ("test", 20)):
            rows = [row for row in hub_zoo.scienceqa_rows(first) if kept(row)]
            shards(tmp_path / config / config, split, hub_zoo.SCIENCEQA, rows)
    for folder, count, noted in ((tmp_path / "ScienceQA-FULL", 6, False), (tmp_path / "ScienceQA-IMG", 4, True)):
        root = tmp_path / f"root-{count}"
        code, text, err = call("data", "convert", folder, root)
        assert code == 0 and ("only the questions with images" in text) == noted, text + err
        assert len(TASKS.get("scienceqa")(questions="all").examples(root, "test")) == count
    both, root = tmp_path / "both", tmp_path / "root"
    both.mkdir()
    for config in ("ScienceQA-FULL", "ScienceQA-IMG"):
        (tmp_path / config / config).rename(both / config)
    assert call("data", "convert", both, root)[0] == 0
    assert len(TASKS.get("scienceqa")(questions="all").examples(root, "test")) == 6


def test_flickr30k_without_splits_needs_karpathys_file(call, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "split"} for row in hub_zoo.flickr30k_rows()]
    shards(tmp_path / "hub", "test", hub_zoo.FLICKR30K.remove(3), rows)
    code, _, err = call("data", "convert", tmp_path / "hub", tmp_path / "root")
    assert code == 2 and "names no splits, and there is no dataset_flickr30k.json" in err
    assert not (tmp_path / "root").exists()
    zoo_roots.flickr30k(tmp_path / "official")
    karpathy = json.loads((tmp_path / "official/flickr30k/dataset_flickr30k.json").read_text())
    dump(tmp_path / "hub/dataset_flickr30k.json", karpathy)
    code, text, err = call("data", "convert", tmp_path / "hub", tmp_path / "root")
    assert code == 0, text + err
    assert json.loads((tmp_path / "root/flickr30k/dataset_flickr30k.json").read_text()) == karpathy
    karpathy["images"].append({**karpathy["images"][0], "filename": "7.jpg"})
    dump(tmp_path / "hub/dataset_flickr30k.json", karpathy)
    code, _, err = call("data", "convert", tmp_path / "hub", tmp_path / "root", "--force")
    assert code == 2 and "lacks 1 of the images of" in err and "the first is 7.jpg" in err


def changed(rows, number, **values):
    return [row | (values if i == number else {}) for i, row in enumerate(rows)]


OKVQA, VIZWIZ, SCIENCE = hub_zoo.okvqa_rows(), hub_zoo.vizwiz_rows("val"), hub_zoo.scienceqa_rows(0)
TEXT, FLICKR = hub_zoo.textvqa_rows("train", 0), hub_zoo.flickr30k_rows()
DAMAGE = [
    ("val2014", hub_zoo.OKVQA, changed(OKVQA, 1, answers=["a"] * 5), "row 1: answers: List should have at least 10"),
    ("val2014", hub_zoo.OKVQA, changed(OKVQA, 1, answers=None), "row 1: answers is null"),
    ("val2014", hub_zoo.OKVQA, changed(OKVQA, 1, question_id="297145"), "row 1: question_id '297145' occurs twice"),
    ("val2014", hub_zoo.OKVQA, changed(OKVQA, 1, question_id="../1"), "row 1: question_id: String should match"),
    ("val2014", hub_zoo.OKVQA.remove(4), OKVQA, "but column question_type (string) is missing"),
    ("train", hub_zoo.TEXTVQA, changed(TEXT, 2, image_id=None), "row 2: image_id is null"),
    ("train", hub_zoo.TEXTVQA, changed(TEXT, 2, question_id=1), "row 2: question_id 1 occurs twice"),
    ("train", hub_zoo.TEXTVQA, changed(TEXT, 1, ocr_tokens=["no"]), "ocr_tokens differ from those of another question"),
    ("train", hub_zoo.TEXTVQA.remove(9), TEXT, "but column answers (list<string>) is missing"),
    ("val", hub_zoo.VIZWIZ, changed(VIZWIZ, 0, category="none"), "row 0: category: Input should be 'yes/no'"),
    ("val", hub_zoo.VIZWIZ, changed(VIZWIZ, 0, question=""), "row 0: question: String should have at least 1"),
    ("val", hub_zoo.VIZWIZ, changed(VIZWIZ, 3, answers=[]), "row 3: answers: List should have at least 10"),
    ("test", hub_zoo.SCIENCEQA, changed(SCIENCE, 4, answer=2), "row 4: answer 2 is none of 2 choices"),
    ("test", hub_zoo.SCIENCEQA, changed(SCIENCE, 4, grade="7"), "row 4: grade: String should match pattern"),
    ("test", hub_zoo.SCIENCEQA, changed(SCIENCE, 4, hint=None), "row 4: hint is null"),
    ("test", hub_zoo.SCIENCEQA.set(3, hub_zoo.SCIENCEQA.field(1).with_name("answer")),
     [row | {"answer": "A"} for row in SCIENCE], "but column answer is string, expected int"),
    ("test", hub_zoo.FLICKR30K, changed(FLICKR, 0, split="restval"), "row 0: split: Input should be 'train', 'val'"),
    ("test", hub_zoo.FLICKR30K, changed(FLICKR, 1, filename="1000092795.jpg"), "row 1: filename '1000092795.jpg'"),
    ("test", hub_zoo.FLICKR30K, changed(FLICKR, 1, caption=[]), "row 1: caption: List should have at least 1 item"),
]  # fmt: skip


@pytest.mark.parametrize(("split", "schema", "rows", "said"), DAMAGE, ids=[said[:50] for *_, said in DAMAGE])
def test_damage(split, schema, rows, said, call, tmp_path):
    known = {*schema.names}
    shards(tmp_path / "hub", split, schema, [{k: v for k, v in row.items() if k in known} for row in rows])
    code, _, err = call("data", "convert", tmp_path / "hub", tmp_path / "root")
    (line,) = [line for line in err.splitlines() if said in line]
    assert code == 2 and f"{tmp_path / 'hub' / split}-00000-of-00001.parquet" in line
    assert not (tmp_path / "root").exists()


def test_a_picture_that_is_none_is_said_with_its_row(call, tmp_path):
    rows = changed(OKVQA, 1, image={"bytes": b"\x89PNG\r\n\x1a\n no", "path": None})
    shards(tmp_path / "hub", "val2014", hub_zoo.OKVQA, rows)
    call("data", "convert", tmp_path / "hub", tmp_path / "root")
    code, text, _ = call("data", "check", tmp_path / "root", "--suite", "vqa-zoo/okvqa", "--fed", "pixels", "--all")
    assert code == 1 and "val2014-00000-of-00001.parquet, row 1 of row group 0" in text.replace("\n", "")
