from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pet_bench.errors import UserError
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.mini.write_clips import ClipSizes, write_video_text
from pet_bench.report.page.examples import examples

SUITE, VIDEO = "mini-image-text", "mini-video-text"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("examples") / "world"
    write_image_text(root, sizes=Sizes(2, 1, 1, 3, 2, 1, 3, 1, 1, 1, per_image=2))
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("examples") / "clips"
    write_video_text(root, sizes=ClipSizes(2, 2, 2, 2, 2, 2, per_clip=2))
    return root


def raw(path):
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def test_a_question_has_its_text_answers_with_counts_and_the_drawn_picture(world):
    rows, found = raw(world / "vqa" / "karpathy_test.json"), examples(SUITE, "vqa", world)
    assert list(found) == [str(row["question_id"]) for row in rows]
    annotated = raw(world / "vqa" / "v2_mscoco_val2014_annotations.json")["annotations"]
    truth = {str(row["question_id"]): [answer["answer"] for answer in row["answers"]] for row in annotated}
    for row in rows:
        shown = found[str(row["question_id"])]
        assert shown.text == row["sent"]
        counts = dict(answer.rsplit(" ×", 1) for answer in shown.answers)
        assert {answer: int(n) for answer, n in counts.items()} == {
            a: truth[shown.id].count(a) for a in truth[shown.id]
        }
        assert sorted(map(int, counts.values()), reverse=True) == list(map(int, counts.values()))
        assert shown.pictures == (world / "COCO" / "images" / f"{row['img_id']}.png",)
        assert Image.open(shown.pictures[0]).size == (48, 48)


def test_other_tasks_of_images(world):
    for row in raw(world / "GQA" / "testdev.json"):
        shown = examples(SUITE, "gqa", world, ids=[row["question_id"]])[row["question_id"]]
        assert (shown.text, shown.answers) == (row["sent"], tuple(row["label"]))
    pairs = examples(SUITE, "nlvr2", world)
    for row in raw(world / "nlvr" / "test.json"):
        shown = pairs[row["identifier"]]
        assert (shown.text, shown.answers) == (row["sent"], ("true" if row["label"] else "false",))
        assert [path.stem for path in shown.pictures] == [row["img0"], row["img1"]]
    captions = examples(SUITE, "coco-caption", world)
    tested = [row for row in raw(world / "COCO" / "dataset_coco.json")["images"] if row["split"] == "test"]
    assert len(captions) == len(tested) == 3
    for row in tested:
        shown = captions[str(row["cocoid"])]
        assert shown.text == ""
        assert set(shown.answers) == {sentence["raw"] for sentence in row["sentences"]}


def test_clips_in_lines_with_the_right_choice_and_a_strip_of_frames(clips):
    found = examples(VIDEO, "tvqa", clips)
    for row in raw(clips / "video" / "ann" / "tvqa" / "tvqa_val.jsonl"):
        shown, right = found[str(row["qid"])], f"a{row['answer_idx']}"
        assert shown.answers == (f"{right}: {row[right]}",)
        lines = dict(line.split(": ", 1) for line in shown.text.splitlines())
        assert list(lines) == ["Subtitles", "Question", "Time", "Choices"]
        assert lines["Question"] == row["q"]
        assert re.findall(r"a\d: (.*?)\.", lines["Choices"]) == [row[f"a{i}"] for i in range(5)]
        assert shown.pictures == (clips / "video" / "frames" / "tv" / f"{row['vid_name']}.png",)
    last = raw(clips / "video" / "ann" / "how2qa" / "how2qa_val_release.jsonl")[-1]  # of four choices
    right = f"a{last['answer_idx']}"
    assert examples(VIDEO, "how2qa", clips)[str(last["qid"])].answers == (f"{right}: {last[right]}",)
    row = raw(clips / "video" / "ann" / "yc2c" / "yc2c_val_release.jsonl")[0]
    shown = examples(VIDEO, "yc2c", clips)[str(row["descs"][0]["desc_id"])]
    assert shown.answers == (row["descs"][0]["desc"],)
    assert shown.text.startswith("Subtitles: ") and "yc2c" not in shown.text


def test_the_protocol_says_what_is_read(world):
    protocol = {"vqa": {"prompt": "Q? ", "test": "karpathy_val", "valid": "none"}, "gqa": {"prompt": "x"}}
    shown = next(iter(examples(SUITE, "vqa", world, protocol=protocol).values()))
    assert shown.text == raw(world / "vqa" / "karpathy_val.json")[0]["sent"]


def test_pictures_are_found_by_name_however_deep(world, tmp_path):
    rows = raw(world / "nlvr" / "test.json")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(deep / f"{rows[0]['img1']}.JPG", "JPEG")
    found = examples(SUITE, "nlvr2", world, images=tmp_path)
    assert found[rows[0]["identifier"]].pictures == (deep / f"{rows[0]['img1']}.JPG",)
    others = {row["identifier"] for row in rows if row["img1"] != rows[0]["img1"]}
    assert others and all(found[id].pictures == () for id in others)


def test_without_pictures_there_are_none(world, tmp_path):
    root = tmp_path / "bare"
    (root / "vqa").mkdir(parents=True)
    for name in ("karpathy_test.json", "v2_mscoco_val2014_annotations.json"):
        (root / "vqa" / name).write_bytes((world / "vqa" / name).read_bytes())
    assert all(shown.pictures == () for shown in examples("image-text", "vqa", root).values())


def test_features_that_are_pictures_are_shown_once(tmp_path):
    folder = tmp_path / "nlvr" / "test" / "images" / "0"
    folder.mkdir(parents=True)
    Image.new("RGB", (400, 100)).save(folder / "test-7-0-0.png")
    row = {"sentence": "there is a box", "label": "false", "identifier": "7-0", "directory": "0"}
    (tmp_path / "nlvr" / "test" / "test.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (shown,) = examples("nlvr-v1", "nlvr-v1", tmp_path).values()
    assert (shown.answers, shown.pictures) == (("false",), (folder / "test-7-0-0.png",))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"task": "vqua"}, 'unknown task of suite mini-image-text "vqua": did you mean "vqa"?'),
        ({"ids": ["0"]}, "has no example '0'"),
        ({"images": "nowhere"}, 'pictures folder "nowhere" does not exist'),
        ({"images": "vqa"}, "holds no picture of any example; the first is looked for as COCO_val2014_"),
    ],
)
def test_faults_are_told(world, monkeypatch, arguments, said):
    monkeypatch.chdir(world)
    images = arguments.pop("images", None)
    with pytest.raises(UserError, match=re.escape(said)):
        examples(SUITE, **{"task": "vqa", "data": world, "images": images and Path(images), **arguments})
