"""Annotations and features as people have them: marks, pointers and pages in their place, rows that lack something."""

from __future__ import annotations

import fcntl
import json
import os
import zipfile
from pathlib import Path

import pytest

from pet_bench.data.check import check
from pet_bench.data.convert import convert, read_back
from pet_bench.data.task import Task
from pet_bench.errors import UserError
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.nlvr_v1 import NLVRv1
from pet_bench.tasks.suites import VIDEO_TEXT
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.vqa import VQA
from tests.data import roots

BOM = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
PAGE = BOM + b"\n<!DOCTYPE html><html><head><title>Too many requests</title></head></html>"
IMPOSTORS = pytest.mark.parametrize(
    ("content", "said"), [(POINTER, "is a Git LFS pointer"), (PAGE, "is a web page")], ids=["pointer", "page"]
)
ROOTS = {
    VQA: roots.vqa, GQA: roots.gqa, NLVR2: roots.nlvr2, CocoCaption: roots.coco_caption, NLVRv1: roots.nlvr_v1,
    TVQA: roots.video, TVC: roots.video,
}  # fmt: skip
every = pytest.mark.parametrize("kind", ROOTS, ids=lambda kind: kind.name)


def said_of(kind: type[Task], root: Path, split: str = "test") -> str:
    with pytest.raises(UserError) as error:
        kind().examples(root, split)
    return str(error.value)


@every
def test_a_byte_order_mark_changes_nothing(kind, tmp_path):
    task, root = kind(), ROOTS[kind](tmp_path)
    before = [task.examples(root, split) for split in ("train", "test")]
    for path in {*task.sources(root, "train"), *task.sources(root, "test")}:
        path.write_bytes(BOM + path.read_bytes())
    assert [task.examples(root, split) for split in ("train", "test")] == before


@every
@IMPOSTORS
def test_what_lies_in_an_annotation_files_place_is_named(kind, content, said, tmp_path):
    root = ROOTS[kind](tmp_path)
    path = kind().sources(root, "test")[0]
    path.write_bytes(content)
    assert f"{path} {said}" in said_of(kind, root)


@IMPOSTORS
@pytest.mark.parametrize("kind", [GQA, TVC], ids=["h5", "npz"])
def test_what_lies_in_a_features_place_is_named(kind, content, said, tmp_path):
    task, root = kind(), ROOTS[kind](tmp_path)
    path = task.feature_path(root, task.examples(root, "test")[0].images[0])
    path.write_bytes(content)
    found = check(root, [task], roots.VISUAL if kind is GQA else VIDEO_TEXT.visual, cache=tmp_path / "cache")
    assert len(found.faults) == 1 and said in found.faults[0] and str(path) in found.faults[0]


@IMPOSTORS
def test_what_lies_in_a_downloads_place_is_named(content, said, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    names = ("dev.json", "val_balanced_questions.json", "archive.zip", "captions.zip/dataset_coco.json")
    for name in names[:3]:
        (downloads / name).write_bytes(content)
    with zipfile.ZipFile(downloads / "captions.zip", "w") as archive:
        archive.writestr("dataset_coco.json", content)
    with pytest.raises(UserError) as error:
        convert(downloads, tmp_path / "root")
    for name in names:
        assert any(f"{name} {said}" in line for line in error.value.faults)
    question = {"7": {"imageId": "n1", "question": "is it", "answer": "yes"}}
    roots.dump(downloads / "testdev_balanced_questions.json", question)
    report = convert(downloads, tmp_path / "root")
    assert [written.target for written in report.written] == ["GQA/testdev.json"]
    assert any(f"val_balanced_questions.json {said}" in note for note in report.notes)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "in an archive"])
def test_downloads_with_a_byte_order_mark_are_converted(packed, tmp_path):
    pair = {"identifier": "test1-3-0-0", "label": "True", "sentence": "a dog"}
    question = {"7": {"imageId": "n1", "question": "is it", "answer": "yes"}}
    images = [{"filename": "COCO_val2014_000000000009.jpg", "cocoid": 9, "split": "test", "sentences": [{"raw": "x"}]}]
    files = {"test1.json": pair, "testdev_balanced_questions.json": question, "dataset_coco.json": {"images": images}}
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with zipfile.ZipFile(downloads / "all.zip", "w") as archive:
        for name, content in files.items():
            text = BOM + json.dumps(content).encode()
            if packed:
                archive.writestr(name, text)
            else:
                (downloads / name).write_bytes(text)
    convert(downloads, tmp_path / "root")
    tests = [part for part in read_back(tmp_path / "root", ("gqa", "nlvr2", "coco-caption")) if part.split == "test"]
    assert [(part.examples, part.missing, part.faults) for part in tests] == [(1, [], ())] * 3


# rows ----------------------------------------------------------------------------------------------------------------


def edited(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


ROWS = {VQA: "vqa/karpathy_test.json", GQA: "GQA/testdev.json", NLVR2: "nlvr/test.json"}


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (VQA, {"question_id": True}, "row 1.question_id"),
        (VQA, {"question_id": -3}, "row 1.question_id"),
        (VQA, {"question_id": 30.0}, "row 1.question_id"),
        (VQA, {"question_id": ""}, "row 1.question_id"),
        (VQA, {"label": {"yes": True}}, "row 1.label.yes: Input should be a valid number, found True"),
        (VQA, {"label": {"yes": 1.5}}, "row 1.label.yes: Input should be less than or equal to 1"),
        (VQA, {"label": {"yes": "0.3"}}, "row 1.label.yes"),
        (VQA, {"label": {"yes": float("inf")}}, "row 1.label.yes: no number, found inf"),
        (VQA, {"sent": " "}, "row 1.sent: String should have at least 1 character"),
        (VQA, {"sent": "\ud800"}, "row 1.sent: half of a surrogate pair"),
        (VQA, {"img_id": ""}, "row 1.img_id"),
        (VQA, {"answer_type": 5}, "row 1.answer_type"),
        (GQA, {"question_id": False}, "row 1.question_id"),
        (GQA, {"sent": ""}, "row 1.sent"),
        (GQA, {"note": float("nan")}, "row 1.note: no number, found nan"),
        (NLVR2, {"label": True}, "row 1.label"),
        (NLVR2, {"label": "1"}, "row 1.label"),
    ],
)
def test_a_row_is_what_its_schema_says_without_conversions(kind, change, said, tmp_path):
    root = ROOTS[kind](tmp_path)
    edited(root / ROWS[kind], lambda rows: rows[1].update(change))
    assert said in said_of(kind, root)


def test_a_key_given_twice(tmp_path):
    path = roots.gqa(tmp_path) / ROWS[GQA]
    path.write_text(path.read_text().replace('"sent": ', '"sent": "what", "sent": ', 1))
    assert f"{path} is not valid JSON: key 'sent' is given twice" in said_of(GQA, tmp_path)


def test_an_annotated_question_that_occurs_twice(tmp_path):
    path = roots.vqa(tmp_path) / "vqa/v2_mscoco_val2014_annotations.json"
    edited(path, lambda content: content["annotations"].append(content["annotations"][-1]))
    assert f"{path}: question 33 occurs twice" in said_of(VQA, tmp_path)


# derived -------------------------------------------------------------------------------------------------------------


def without(*keys: str):
    return lambda rows: [row.pop(key) for row in rows for key in keys]


def named_after_their_folder(content):
    for image in content["images"]:
        image["filepath"] = image.pop("filename").split("_")[1]


@pytest.mark.parametrize(
    ("kind", "file", "change"),
    [
        (NLVR2, "nlvr/test.json", without("img0", "img1", "uid")),
        (CocoCaption, "COCO/dataset_coco.json", lambda content: without("cocoid")(content["images"])),
        (CocoCaption, "COCO/dataset_coco.json", named_after_their_folder),
        (VQA, "vqa/karpathy_test.json", without("img_id")),
        (VQA, "vqa/karpathy_test.json", lambda rows: [row.update(img_id=f"{row['img_id']}.jpg") for row in rows]),
    ],
)
def test_what_is_said_elsewhere_is_derived(kind, file, change, tmp_path):
    task, root = kind(), ROOTS[kind](tmp_path)
    before = task.examples(root, "test")
    edited(root / file, change)
    assert task.examples(root, "test") == before


def test_the_show_of_a_clip_is_in_its_name(tmp_path):
    task, root = TVQA(), roots.video(tmp_path)
    before = task.examples(root, "test")
    path = task.sources(root, "test")[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    roots.lines(path, [{key: value for key, value in row.items() if key != "show_name"} for row in rows])
    assert task.examples(root, "test") == before and before[0].kind == "Castle"


def test_hidden_pictures_are_found_in_whichever_folder(tmp_path):
    task, root = NLVRv1(train="dev", valid=None, test="hidden"), roots.nlvr_v1(tmp_path, splits=("dev", "hidden"))
    home = root / "nlvr" / "hidden"
    path, images = home / "hidden.json", home / "images"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    roots.lines(path, [{key: value for key, value in row.items() if key != "directory"} for row in rows])
    (images / "6").mkdir()
    (images / "1" / "hidden-12-1-0.png").rename(images / "6" / "hidden-12-1-0.png")
    examples = task.examples(root, "test")
    assert [example.id for example in examples] == ["hidden-12-0-0", "hidden-12-1-0", "hidden-12-2-0"]
    assert examples[1].images[0] == "nlvr-v1/hidden/images/6/hidden-12-1-0.png#0"
    assert task.feature(root, examples[1].images[2]).shape == (36, 192)
    (images / "0" / "hidden-12-1-0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"hidden-12-1-0\.png is in another folder too"):
        task.examples(root, "test")


PER_SPLIT = {
    "train": [("train2014", 9, "a dog"), ("val2014", 25, "a tree"), ("train2014", 9, "a brown dog")],
    "val": [("val2014", 30, ["a vase", "flowers"])],
    "test": [("val2014", 391895, ["a man", "a man on a bike"])],
}


@pytest.mark.parametrize("keys", [("image", "caption"), ("file_name", "captions")])
def test_karpathys_captions_a_file_for_each_split(keys, tmp_path):
    for split, rows in PER_SPLIT.items():
        listed = [
            {keys[0]: f"{part}/COCO_{part}_{number:012d}.jpg", "image_id": f"coco_{number}", keys[1]: captions}
            for part, number, captions in rows
        ]
        roots.dump(tmp_path / "downloads" / f"coco_karpathy_{split}.json", listed)
    root = tmp_path / "root"
    report = convert(tmp_path / "downloads", root)
    assert not report.missing and not report.notes
    content = json.loads((root / "COCO" / "dataset_coco.json").read_text())
    splits = {image["cocoid"]: image["split"] for image in content["images"]}
    assert splits == {9: "train", 25: "restval", 30: "val", 391895: "test"}
    train, (test,) = (CocoCaption().examples(root, split) for split in ("train", "test"))
    assert [example.targets[0][0] for example in train] == ["a dog", "a brown dog", "a tree"]
    assert (test.id, test.images) == ("391895", ("COCO/COCO_val2014_000000391895",))
    assert test.references == {"captions": ["a man", "a man on a bike"]}


def test_one_split_of_karpathys_captions_is_converted_and_the_others_are_missed(tmp_path):
    rows = [{"image": "val2014/COCO_val2014_000000000030.jpg", "caption": ["a vase"]}]
    roots.dump(tmp_path / "downloads" / "coco_karpathy_test.json", rows)
    roots.dump(tmp_path / "downloads" / "coco_karpathy_test_gt.json", {"images": []})
    report = convert(tmp_path / "downloads", tmp_path / "root")
    assert [missing.download for missing in report.missing] == ["coco_karpathy_train.json", "coco_karpathy_val.json"]
    assert "coco_karpathy_test_gt.json is not converted: it has the captions in COCO's form" in report.notes[0]
    assert len(CocoCaption().examples(tmp_path / "root", "test")) == 1
    rows = [{"image": "val2014/COCO_val2014_000000000031.jpg", "caption": ["a cat"]}]
    roots.dump(tmp_path / "downloads" / "coco_karpathy_val.json", rows)
    with pytest.raises(UserError, match=r"dataset_coco\.json is there and differs .*--force overwrites it"):
        convert(tmp_path / "downloads", tmp_path / "root")
    convert(tmp_path / "downloads", tmp_path / "root", force=True)
    assert [len(CocoCaption().examples(tmp_path / "root", split)) for split in ("valid", "test")] == [1, 1]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "COCO_val2014_000000000030.jpg", "caption": ["a"]}] * 2, "row 1: image COCO_val2014"),
        ([{"caption": ["a"]}], "row 0: no image named as COCO names them"),
        ([{"image": "COCO_val2014_000000000030.jpg", "caption": ["a"]}, {"image": "1.jpg"}], "row 1: no caption"),
        ([{"image": "1.jpg", "caption": [" "]}], "row 0: caption"),
    ],
)
def test_bad_rows_of_a_splits_captions(rows, said, tmp_path):
    roots.dump(tmp_path / "downloads" / "coco_karpathy_val.json", rows)
    with pytest.raises(UserError) as error:
        convert(tmp_path / "downloads", tmp_path / "root")
    assert said in str(error.value)


# left out ------------------------------------------------------------------------------------------------------------


def test_gqa_tests_balanced_questions_and_trains_on_all(tmp_path):
    root = roots.gqa(tmp_path)
    question = {"question": "is it", "answer": "yes"}
    for name, image in (("train_all_questions", "1"), ("testdev_all_questions", "n7")):
        rows = {f"{name}{i}": question | {"imageId": image, "isBalanced": i != 1} for i in range(3)}
        roots.dump(root / "GQA" / f"{name}.json", rows)
    task = GQA(train="train_all_questions", valid=None, test="testdev_all_questions")
    assert [len(task.examples(root, split)) for split in ("train", "test")] == [3, 2]
    _, part = check(root, [task], roots.VISUAL, cache=tmp_path).parts
    assert part.left_out == {"it is not balanced, which the official accuracy does not count": 1}


def test_the_converter_says_which_questions_it_leaves_out(tmp_path):
    questions = {str(i): {"imageId": "n1", "question": "is it", "answer": "yes", "isBalanced": i > 0} for i in range(3)}
    roots.dump(tmp_path / "downloads" / "testdev_balanced_questions.json", questions)
    roots.dump(tmp_path / "downloads" / "val_all_questions.json", questions)
    report = convert(tmp_path / "downloads", tmp_path / "root")
    assert len(GQA().examples(tmp_path / "root", "test")) == 2
    for said in ("val_all_questions.json is not converted", "1 of 3 questions are not balanced and left out"):
        assert any(said in note for note in report.notes)


# locks ---------------------------------------------------------------------------------------------------------------


def test_features_are_read_while_another_holds_their_file(tmp_path):
    root = roots.gqa(tmp_path)
    holder = os.open(GQA().feature_path(root, "GQA/n8"), os.O_RDWR)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert check(root, [GQA()], roots.VISUAL, whole=True, cache=tmp_path / "cache").faults == []
    finally:
        os.close(holder)
