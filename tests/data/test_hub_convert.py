"""`data convert` from tables of the hub, through the command line: read back, trained on, scored."""

from __future__ import annotations

import json

import pytest

from pet_bench.cli import main
from pet_bench.data.albums import Albums
from pet_bench.data.pictures import Contents
from pet_bench.registry import TASKS
from tests.data import hub_layouts as hub
from tests.data import roots
from tests.data.hub_layouts import picture
from tests.data.test_convert import coco, contents, loaded, vqa


def command(*arguments):
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return stopped.value.code or 0


def convert(*arguments):
    return command("data", "convert", *arguments)


def options(out, task):
    """What `data convert` says a task is to be read with."""
    said = (line.removeprefix(f"{task}: read with ") for line in out.splitlines() if line.startswith(f"{task}: read"))
    return next(said, "").split()


def examples(root, task, split, *settings):
    protocol = dict(setting.removeprefix(f"{task}.").split("=") for setting in settings[1::2])
    return TASKS.get(task)(**protocol).examples(root, split)


def shown(root, task, example):
    """The encoded pictures of an example."""
    albums = Albums()
    with Contents() as contents:
        return [contents._content(albums.find(*task.picture(root, key))) for key in example.images]


def settings_of(task, **splits):
    return [word for key, name in splits.items() for word in ("--set", f"{task}.{key}={name}")]


def run(root, tmp_path, capsys, suite, backbone, *more):
    """Two updates, a test, and the table of it."""
    out = tmp_path / "results"
    assert not command(
        "run", "--suite", suite, "--backbone", backbone, "--method", "lora", "--data", root, "--out", out,
        "--set", "recipe.max_steps=2", "--set", "recipe.batch_size=4", "--device", "cpu", "--executor", "inline", *more,
    )  # fmt: skip
    (result,) = out.glob("*.json")
    assert not command("score", result, "--data", root)
    assert not command("report", out)
    return capsys.readouterr().out


# VQAv2 ---------------------------------------------------------------------------------------------------------------


def test_vqa_from_the_hub_alone_to_a_table(tmp_path, capsys):
    """What the copy lacks is said first; val2014 is tested on, in pixels that are read from the hub's own files."""
    hub.vqa(tmp_path / "copy" / "VQAv2")
    hub.vqa_cauldron(tmp_path / "copy" / "the_cauldron")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 0
    told = capsys.readouterr()
    assert told.err == (
        "! vqa: no dataset_coco.json (VL-Adapter's data package, folder COCO; or Karpathy's caption_datasets.zip)\n"
    )
    settings = options(told.out, "vqa")
    assert settings == ["--set", "vqa.valid=none", "--set", "vqa.test=hub_val", "--set", "vqa.train=hub_train"]
    tested = examples(root, "vqa", "test", *settings)
    assert [example.id for example in tested] == ["30", "31", "40", "41", "50", "51"]
    assert tested[0].references["answers"] == ["red"] * 7 + ["blue"] * 3
    assert tested[0].targets == (("red", 1.0), ("blue", 0.9))
    assert shown(root, TASKS.get("vqa")(), tested[3]) == [picture(4)["bytes"]]
    trained = examples(root, "vqa", "train", *settings)
    assert (trained[3].text, trained[3].targets) == ("vqa: Is the dog blue?", (("yes", 1.0),))
    assert trained[3].id == "vqav2-train-00000-1-1" and trained[3].images == ("COCO/vqav2-train-00000-1",)
    assert shown(root, TASKS.get("vqa")(), trained[7]) == [picture(23)["bytes"]]
    annotation = loaded(root, "vqa/v2_mscoco_val2014_annotations.json")["annotations"][0]
    row = hub.vqa_rows()[0]
    assert annotation == {key: row[key] for key in row if key not in ("question", "image")}
    out = run(root, tmp_path, capsys, "image-text/vqa", "mini-llava", *settings)
    assert "lora" in out and "vqa" in out
    before = contents(root)
    assert convert(tmp_path / "copy", root) == 0
    assert contents(root) == before


def test_vqa_on_karpathys_val_and_test(tmp_path, capsys):
    """They are of val2014, so that they are whole; what is of val2014 and neither is a split of its own."""
    hub.vqa(tmp_path / "copy" / "VQAv2")
    hub.vqa_cauldron(tmp_path / "copy" / "FineVision", hub.FINEVISION)
    hub.karpathy(tmp_path / "copy" / "coco-karpathy")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root, "--task", "vqa") == 0
    told = capsys.readouterr()
    settings = options(told.out, "vqa")
    assert settings == ["--set", "vqa.train=hub_train+karpathy_restval"]
    ids = {split: [e.id for e in examples(root, "vqa", split, *settings)] for split in ("valid", "test")}
    assert ids == {"valid": ["40", "41"], "test": ["50", "51"]}
    assert [row["question_id"] for row in loaded(root, "vqa/karpathy_restval.json")] == [30, 31]


def test_the_copy_has_no_train(tmp_path, capsys):
    hub.vqa(tmp_path / "copy")
    assert convert(tmp_path / "copy", tmp_path / "data") == 1
    told = capsys.readouterr()
    for what in ("questions", "annotations"):
        assert f"train2014_{what}.json (the VQA download page (visualqa.org)" in told.err
    assert "no karpathy_train.json" in told.out


def test_the_hubs_val_beside_the_official_train(tmp_path, capsys):
    """Together they are the published protocol, to the byte."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder in (whole, half):
        vqa(folder)
        coco(folder)
    for path in half.glob("v2_*val2014*"):
        path.unlink()
    rows = json.loads((whole / "v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"]
    marked = json.loads((whole / "v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    table = [{**row, **note, "image": picture(row["image_id"])} for row, note in zip(rows, marked, strict=True)]
    hub.shards(half / "VQAv2" / "data", "validation", hub.VQA, table, 2)
    for folder, root in ((whole, tmp_path / "one"), (half, tmp_path / "two")):
        assert convert(folder, root, "--task", "vqa") == 0
    for split in ("train", "val", "test"):
        name = f"vqa/karpathy_{split}.json"
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()


# the others ----------------------------------------------------------------------------------------------------------


def test_gqa_to_a_table(tmp_path, capsys):
    """From the library's cache, with features that are stored."""
    hub.gqa(tmp_path / "copy")
    root = tmp_path / "data"
    assert convert(hub.in_cache(tmp_path / "cache", "somebody/GQA", tmp_path / "copy"), root) == 0
    found = {split: examples(root, "gqa", split) for split in ("train", "test")}
    assert [len(part) for part in found.values()] == [12, 6]
    first = found["test"][0]
    assert (first.id, first.images, first.targets) == ("n70", ("GQA/n7",), (("red", 1.0),))
    assert first.groups["structural type"] == "query"
    assert shown(root, TASKS.get("gqa")(), found["train"][0]) == [picture(30)["bytes"]]
    for key in {key for part in found.values() for example in part for key in example.images}:
        roots.grid(root, *key.split("/"), 1.0)
    assert "gqa" in run(root, tmp_path, capsys, "image-text/gqa", "mini-bart")


def test_gqa_without_pictures(tmp_path, capsys):
    hub.gqa(tmp_path / "copy")
    for path in (tmp_path / "copy").glob("*_images/*"):
        path.unlink()
    assert convert(tmp_path / "copy", tmp_path / "data") == 0
    assert "testdev_balanced_images/*.parquet, are not there: it serves with features" in capsys.readouterr().out


def test_questions_that_are_not_balanced_are_left_out(tmp_path, capsys):
    hub.gqa(tmp_path / "copy")
    path = tmp_path / "copy" / "val_balanced_instructions" / "val-00000-of-00001.parquet"
    hub.edited(path, lambda rows: rows[1].update(isBalanced=False))
    assert convert(tmp_path / "copy", tmp_path / "data") == 0
    assert len(loaded(tmp_path / "data", "GQA/valid.json")) == 5
    assert "1 questions are not balanced and left out" in capsys.readouterr().out


def test_nlvr2_rows_of_the_cauldron(tmp_path, capsys):
    hub.nlvr2_cauldron(tmp_path / "copy")
    hub.nlvr2_official(tmp_path / "copy" / "official")
    for path in (tmp_path / "copy" / "official" / "data").glob("train*"):
        path.unlink()
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 0
    settings = options(capsys.readouterr().out, "nlvr2")
    first, second, *_ = examples(root, "nlvr2", "train", *settings)
    assert (first.text, first.targets, second.targets) == (
        "nlvr: the cat is on the mat", (("true", 1.0),), (("false", 1.0),)
    )  # fmt: skip
    assert shown(root, TASKS.get("nlvr2")(), second) == [picture(42)["bytes"], picture(43)["bytes"]]
    assert [example.id for example in examples(root, "nlvr2", "test")] == ["test1-0-0-0", "test1-1-1-0"]
    halves = settings_of("nlvr2", train="hub_train[:50%]", valid="none", test="hub_train[50%:]")
    assert "nlvr2: accuracy on" in run(root, tmp_path, capsys, "image-text/nlvr2", "mini-llava", *halves)


def test_karpathys_splits_with_pictures(tmp_path, capsys):
    hub.karpathy(tmp_path / "copy" / "coco-karpathy")
    hub.coco_caption(tmp_path / "copy" / "COCO-Caption")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 0
    found = {split: examples(root, "coco-caption", split) for split in ("train", "valid", "test")}
    assert [len(part) for part in found.values()] == [6, 1, 1]
    (test,) = found["test"]
    assert test.references["captions"] == ["a dog on a mat", "a red dog"]
    assert shown(root, TASKS.get("coco-caption")(), test) == [picture(5)["bytes"]]
    turned = settings_of("coco-caption", train="restval", valid="none", test="val+test")
    assert "coco-caption on mini-llava" in run(root, tmp_path, capsys, "image-text/coco-caption", "mini-llava", *turned)


def test_karpathys_splits_in_archives(tmp_path, capsys):
    """Read where they lie; beside the tables they are called as these say."""
    hub.webdataset(tmp_path / "copy" / "wds")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 0
    found = {split: examples(root, "coco-caption", split, "--set", "coco-caption.train=train")[0] for split in
             ("train", "valid", "test")}  # fmt: skip
    assert found["test"].images == ("COCO/000000005",)
    for split, image in (("train", 1), ("valid", 4), ("test", 5)):
        assert shown(root, TASKS.get("coco-caption")(), found[split]) == [picture(image)["bytes"]]
    turned = settings_of("coco-caption", train="train", valid="none", test="val+test")
    assert "coco-caption on mini-llava" in run(root, tmp_path, capsys, "image-text/coco-caption", "mini-llava", *turned)
    hub.karpathy(tmp_path / "copy" / "tables")
    assert convert(tmp_path / "copy", tmp_path / "both") == 0
    (test,) = examples(tmp_path / "both", "coco-caption", "test")
    assert test.images == ("COCO/COCO_val2014_000000000005",)
    assert shown(tmp_path / "both", TASKS.get("coco-caption")(), test) == [picture(5)["bytes"]]


def test_coco_caption_is_a_split_of_its_own(tmp_path, capsys):
    hub.coco_caption(tmp_path / "copy")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 1
    out = capsys.readouterr().out
    assert "no published number is on it: it is the split val2014" in out
    assert len(examples(root, "coco-caption", "test", *options(out, "coco-caption"))) == 3
    before = contents(root)
    assert convert(tmp_path / "copy", root) == 1
    assert contents(root) == before
    parts = settings_of("coco-caption", train="val2014[:34%]", valid="none", test="val2014[34%:]")
    assert "coco-caption on mini-llava" in run(root, tmp_path, capsys, "image-text/coco-caption", "mini-llava", *parts)
    hub.vqa(tmp_path / "more")
    assert convert(tmp_path / "more", root) == 1
    assert "vqa.test=hub_val" in capsys.readouterr().out


def test_pictures_that_two_tables_have(tmp_path):
    hub.coco_caption(tmp_path / "copy" / "COCO-Caption")
    hub.vqa(tmp_path / "copy" / "VQAv2")
    convert(tmp_path / "copy", tmp_path / "data")
    place = Albums().find(tmp_path / "data" / "COCO", "COCO_val2014_000000000004")
    assert place.file.parent.name == "images-coco-val2014"


def test_youcook2(tmp_path, capsys):
    """Segments in the order of their starts are VALUE's clips; a part of val can be trained on."""
    hub.youcook2(tmp_path / "copy")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 1
    assert "published with captions of its val alone" in capsys.readouterr().out
    rows = [json.loads(line) for line in (root / "video/ann/yc2c/yc2c_val_release.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "vid_name": "ljyO7IaGWLY_0", "clip_id": 0, "duration": 20.5, "ts": [30.0, 50.5],
        "descs": [{"desc": "add the cat to a mat", "desc_id": 0}],
    }  # fmt: skip
    for row in rows:
        roots.clip(root, "yc2", row["vid_name"], 70, 1.0)
    settings = ["yc2c.train=val[:50%]", "yc2c.valid=none", "yc2c.test=val[50%:]"]
    run(root, tmp_path, capsys, "video-text/yc2c", "mini-bart-clips", *(x for one in settings for x in ("--set", one)))


def test_tvc_can_no_longer_be_had(tmp_path, capsys):
    hub.youcook2(tmp_path / "copy")
    assert convert(tmp_path / "copy", tmp_path / "data", "--task", "tvc") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "tvc: its files can no longer be had" in line and "HenryHZY/VL-PET#6" in line and "yc2c" in line
    assert not (tmp_path / "data").exists()
