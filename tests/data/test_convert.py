"""`data convert`: official downloads become what the tasks' readers expect, or it is said what is wrong with them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from pet_bench.cli import main
from pet_bench.data import stream
from pet_bench.data.convert import CONVERTERS, ZOO, Missing, convert, read_back
from pet_bench.data.convert.vqa import rebuilt, soft_label
from pet_bench.data.convert.work import Job
from pet_bench.metrics.vqa_accuracy import question_accuracy
from pet_bench.registry import TASKS
from tests.data import roots
from tests.data.roots import dump, lines
from tests.data.test_check import edit, hashed, state, unreadable, with_bytes, with_text

PARTS = {"train2014": (1, 2), "val2014": (3, 4, 5)}  # images
SPLITS = {1: "train", 2: "train", 3: "restval", 4: "val", 5: "test"}
MINE = ("red", "Red.", "the red", "red", "blue", "blue", "2", "two", "a", "green")  # of one question
SAID = [{"text": " Castle : Hello? ", "start": 0.1, "end": 2.0}, {"text": "Yes.", "start": 2, "end": 3.5}]
QUESTION = {"ts": "20.16-25.12", "q": "Who calls?", "a0": "Beckett.", "a1": "Castle", "a2": "Ryan", "a3": "nobody"}


def vqa(folder: Path) -> None:
    """Two questions an image; of each image's first, the annotators disagree."""
    for part, numbers in PARTS.items():
        asked, answered = [], []
        for image in numbers:
            for key, given in ((10 * image, MINE), (10 * image + 1, ("yes",) * 10)):
                asked.append({"image_id": image, "question": f"what is this {key}?", "question_id": key})
                answers = [
                    {"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(given, 1)
                ]
                types = {"question_type": "what is", "answer_type": "other", "multiple_choice_answer": given[0]}
                answered.append({"question_id": key, "image_id": image, "answers": answers, **types})
        head = {"info": {"description": "x"}, "data_type": "mscoco", "license": {}, "data_subtype": part}
        dump(folder / f"v2_OpenEnded_mscoco_{part}_questions.json", head | {"questions": asked})
        dump(folder / f"v2_mscoco_{part}_annotations.json", head | {"annotations": answered})
    dump(folder / "lxmert/vqa/trainval_ans2label.json", {"": 0, "red": 1, "2": 2, "yes": 3})


def coco(folder: Path) -> None:
    images = [
        {
            "filepath": part,
            "filename": f"COCO_{part}_{image:012d}.jpg",
            "cocoid": image,
            "imgid": image,
            "split": SPLITS[image],
            "sentids": [1],
            "sentences": [{"raw": " a cat \n", "tokens": ["a", "cat"], "imgid": image, "sentid": 1}],
        }
        for part, numbers in PARTS.items()
        for image in numbers
    ]
    dump(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})


def gqa(folder: Path) -> None:
    for first, split in enumerate(("train", "val", "testdev"), start=1):
        rows = {
            f"{first}{i:07d}": {
                "imageId": f"n{i}" if split == "testdev" else str(i),
                "question": "Is the dog blue or red?",
                "answer": "blue",
                "fullAnswer": "It is blue.",
                "isBalanced": True,
                "semantic": [{"operation": "select", "dependencies": [], "argument": "dog (1)"}],
                "types": {"structural": "choose", "semantic": "attr", "detailed": "chooseAttr"},
            }
            for i in range(3)
        }
        dump(folder / f"{split}_balanced_questions.json", rows)


def nlvr2(folder: Path) -> None:
    for split in ("train", "dev", "test1"):
        rows = [
            {
                "identifier": f"{split}-{i}-{i}-0",
                "sentence": "There is a dog.",
                "label": ("True", "False")[i],
                "left_url": "http://x/1.jpg",
                "synset": "dog",
            }
            for i in range(2)
        ]
        lines(folder / "nlvr2" / "data" / f"{split}.json", rows)


def video(folder: Path) -> None:
    for i, split in enumerate(("train", "val", "test")):
        clip, hidden = {"vid_name": f"clip_{i}"}, split == "test"
        asked = clip | QUESTION | {"qid": i} | ({} if hidden else {"answer_idx": 2})
        public = "test_public" if hidden else split
        lines(folder / f"tvqa_{public}.jsonl", [asked | {"a4": "Gina", "show_name": "Castle"}])
        lines(folder / f"how2qa_{public}_release.jsonl", [asked])
        descs = [{"desc": "He calls.", "desc_id": 2 * i + n, "type": "vt"} for n in range(2)]
        told = {} if hidden else {"descs": descs}
        lines(folder / f"tvc_{split}_release.jsonl", [clip | {"clip_id": i, "ts": [1.5, 4], "duration": 9.5} | told])
        lines(folder / f"yc2c_{split}_release.jsonl", [clip | {"clip_id": i, "duration": 9} | told])
    for name in ("tvqa_preprocessed", "how2", "yc2"):
        lines(folder / f"{name}_subtitles.jsonl", [{"vid_name": f"clip_{i}", "sub": SAID} for i in range(3)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Official downloads of all eight tasks, small ones."""
    folder = tmp_path_factory.mktemp("sound") / "downloads"
    for make in (vqa, coco, gqa, nlvr2, video):
        make(folder)
    return folder


@pytest.fixture
def source(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "downloads")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "datasets"


def run(*arguments):
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(["data", "convert", *map(str, arguments)])
    return stopped.value.code or 0


def loaded(root, name):
    return json.loads((root / name).read_text())


def contents(root):
    """Times and contents of all files; folders get new times where something was written and removed again."""
    return {path: known for path, known in state(root).items() if known[-1]}


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


# what is written -----------------------------------------------------------------------------------------------------

LAYOUT = {
    "COCO/dataset_coco.json": 5,
    "GQA/testdev.json": 3,
    "GQA/train.json": 3,
    "GQA/valid.json": 3,
    "nlvr/test.json": 2,
    "nlvr/train.json": 2,
    "nlvr/valid.json": 2,
    **{f"video/ann/{task}_subtitles.jsonl": 3 for task in ("how2", "tv", "yc2")},
    **{f"video/ann/how2qa/how2qa_{split}_release.jsonl": 1 for split in ("test_public", "train", "val")},
    **{f"video/ann/tvc/tvc_{split}_release.jsonl": 1 for split in ("test", "train", "val")},
    **{f"video/ann/tvqa/tvqa_{split}.jsonl": 1 for split in ("test_public", "train", "val")},
    **{f"video/ann/yc2c/yc2c_{split}_release.jsonl": 1 for split in ("test", "train", "val")},
    "vqa/karpathy_test.json": 2,
    "vqa/karpathy_train.json": 6,
    "vqa/karpathy_val.json": 2,
    "vqa/trainval_ans2label.json": 4,
    "vqa/trainval_label2ans.json": 4,
    "vqa/v2_mscoco_train2014_annotations.json": 4,
    "vqa/v2_mscoco_val2014_annotations.json": 6,
}
ELSEWHERE = [converter.task for converter in ZOO]  # test_hub_zoo.py
COUNTS = {
    "vqa": [6, 2, 2],
    "gqa": [6, 3, 3],
    "nlvr2": [2, 2, 2],
    "coco-caption": [3, 1, 1],
    "tvqa": [1, 1, 1],
    "how2qa": [1, 1, 1],
    "tvc": [2, 2, 2],
    "yc2c": [2, 2, 2],
}


def test_all_eight_tasks(source, root, capsys):
    before = state(source)
    assert run(source, root) == 0
    assert files(root) == sorted(LAYOUT)
    out = capsys.readouterr().out
    assert out.endswith(f"{root}: {', '.join(COUNTS)} can be read; no downloads of {', '.join(ELSEWHERE)}\n")
    assert len(re.findall(r"^\S+ +written +\d+ rows  \S+ ← .", out, re.MULTILINE)) == len(LAYOUT)
    assert len(re.findall(r"^\S+ +(?:train|valid|test) .* read *$", out, re.MULTILINE)) == 24
    assert state(source) == before


def test_the_report(source, root):
    report = convert(source, root)
    assert {made.target: made.rows for made in report.written} == LAYOUT
    assert {made.state for made in report.written} == {"written"}
    assert (report.missing, report.notes, report.idle, report.tasks) == ([], [], ELSEWHERE, list(COUNTS))
    found = {task: [part.examples for part in read_back(root, [task])] for task in report.tasks}
    assert found == COUNTS


def test_what_can_be_read_is_what_was_asked(source, root):
    convert(source, root)
    for task in COUNTS:
        reader = TASKS.get(task)()
        reader.check_splits(root, {split: reader.examples(root, split) for split in ("train", "valid", "test")})
    (first, *_) = TASKS.get("gqa")().examples(root, "test")
    assert (first.id, first.images, first.targets) == ("30000000", ("GQA/n0",), (("blue", 1.0),))
    assert first.groups["structural type"] == "choose"
    (first, second) = TASKS.get("nlvr2")().examples(root, "valid")
    assert (first.id, first.images, first.targets[0][0]) == (
        "dev-0-0-0",
        ("nlvr/dev-0-0-img0", "nlvr/dev-0-0-img1"),
        "true",
    )
    assert second.targets[0][0] == "false"


def test_vqa_goes_to_the_split_of_its_image(source, root):
    convert(source, root, ["vqa"])
    rows = {split: loaded(root, f"vqa/karpathy_{split}.json") for split in ("train", "val", "test")}
    assert {split: [row["question_id"] for row in found] for split, found in rows.items()} == {
        "train": [10, 11, 20, 21, 30, 31],
        "val": [40, 41],
        "test": [50, 51],
    }
    assert rows["train"][4] == {
        "question_id": 30,
        "img_id": "COCO_val2014_000000000003",
        "sent": "what is this 30?",
        "label": {"red": 1.0, "2": 0.6},
        "answer_type": "other",
        "question_type": "what is",
        "is_topk_optimal": True,
    }
    assert not (root / "COCO").exists()
    (first, _) = TASKS.get("vqa")().examples(root, "test")
    assert first.references["answers"] == list(MINE)


@pytest.mark.parametrize(
    ("answers", "label", "optimal"),
    [
        (["red"] * 10, {"red": 1.0}, True),
        (["red"] * 4 + ["blue"] * 6, {"red": 1.0}, True),
        (["red"] * 3 + ["blue"] * 7, {"red": 0.9}, False),
        (["red"] * 2 + ["a big dog"] * 2, {"red": 0.6}, True),
        (["red", "two", "Two", "2."], {"red": 0.3, "2": 0.9}, True),
        (["1,000", "1000", "red"], {"1000": 0.6, "red": 0.3}, True),
        (["blue"] * 10, {}, False),
        (["a", "the", "an", "?", "red"], {"red": 0.3}, False),
    ],
)
def test_soft_labels(answers, label, optimal):
    assert soft_label(answers, {"": 0, "red": 1, "2": 2, "1000": 3}) == (label, optimal)


def test_soft_labels_are_of_officially_normalised_answers(expectations):
    """No comma is left either, so that the published rule's removal of commas is part of the normalisation."""
    for row in json.loads((expectations / "vqa" / "normalisation_official.json").read_text()):
        text, whole = row["input"], row["strip_then_punct_then_digitarticle"]
        assert "," not in whole
        assert soft_label([text] * 10, {whole: 1})[0] == ({whole: 1.0} if whole else {})


def test_answers_are_rebuilt_where_no_map_is_given(source, root, capsys):
    """The most frequent answer of each question counts, once it is normalised: nine questions make it one to learn."""
    (source / "lxmert/vqa/trainval_ans2label.json").unlink()

    def answered(part, answers):
        def change(content):
            for row, answer in zip(content["annotations"], answers, strict=True):
                row["multiple_choice_answer"] = answer

        edit(source / f"v2_mscoco_{part}_annotations.json", change)

    answered("train2014", ["Red.", "the red", "red", "red"])
    answered("val2014", ["red", "red", "red", "red", "red", "yes"])
    assert run(source, root, "--task", "vqa") == 0
    assert loaded(root, "vqa/trainval_ans2label.json") == {"": 0, "red": 1}
    assert loaded(root, "vqa/trainval_label2ans.json") == ["", "red"]
    assert "2 answers to learn were found by the published rule" in capsys.readouterr().out
    assert loaded(root, "vqa/karpathy_val.json")[0]["label"] == {"red": 1.0}
    before = contents(root)
    assert run(source, root, "--task", "vqa") == 0  # the map that lies there now is a given one
    assert contents(root) == before


def test_nothing_is_to_learn_that_eight_questions_have(source):
    class Plain(Job):
        def whole(self, *_):
            pass

        def note(self, _):
            pass

        def read(self, name, *_, **__):
            part = 0 if "train" in name else 1
            for i in range((3, 5)[part]):
                yield "", {"question_id": i, "multiple_choice_answer": "red"}
            for i in range(100, 109):
                yield "", {"question_id": 10 * i + part, "multiple_choice_answer": "blue" if part else "a"}

    assert rebuilt(Plain(None, CONVERTERS["vqa"], {})) == {"": 0, "blue": 1}


def test_tvc_and_tvqa_share_subtitles(source, root):
    report = convert(source, root, ["tvc", "tvqa"])
    assert [made.task for made in report.written if made.target == "video/ann/tv_subtitles.jsonl"] == ["tvc"]
    assert (root / "video/ann/tv_subtitles.jsonl").read_bytes() == (
        source / "tvqa_preprocessed_subtitles.jsonl"
    ).read_bytes()


# real files ----------------------------------------------------------------------------------------------------------


def test_adversarial_vqa_annotations(expectations, source, root):
    """The official synthetic questions: the label's score of an answer is what the official scorer would count."""
    folder = expectations / "vqa"
    asked = json.loads((folder / "synthetic_questions.json").read_text())["questions"]
    annotations = json.loads((folder / "synthetic_annotations.json").read_text())["annotations"]
    shutil.copy(folder / "synthetic_questions.json", source / "v2_OpenEnded_mscoco_val2014_questions.json")
    shutil.copy(folder / "synthetic_annotations.json", source / "v2_mscoco_val2014_annotations.json")

    def known(content):
        train = [image for image in content["images"] if image["split"] == "train"]
        named = {row["image_id"]: f"COCO_val2014_{row['image_id']:012d}.jpg" for row in asked}
        extra = [
            train[0] | {"cocoid": image, "filename": name, "split": "test" if image % 2 else "val"}
            for image, name in named.items()
        ]
        return {"images": train + extra}

    edit(source / "dataset_coco.json", known)
    answers = {answer["answer"] for row in annotations for answer in row["answers"]}
    vocabulary = dict.fromkeys(key for answer in answers for key in soft_label([answer], _Anything())[0])
    dump(source / "lxmert/vqa/trainval_ans2label.json", {answer: i for i, answer in enumerate(vocabulary)})
    assert run(source, root, "--task", "vqa") == 0
    rows = [row for split in ("val", "test") for row in loaded(root, f"vqa/karpathy_{split}.json")]
    assert len(rows) == len(annotations) == 145
    given = {row["question_id"]: [answer["answer"] for answer in row["answers"]] for row in annotations}
    for row in rows:
        for answer, score in row["label"].items():
            plain = [next(iter(soft_label([text], _Anything())[0]), "") for text in given[row["question_id"]]]
            expected = {1: 0.3, 2: 0.6, 3: 0.9}.get(Counter(plain)[answer], 1.0)
            assert score == expected
            assert score == pytest.approx(question_accuracy(answer, plain, "2021"), abs=1e-9) or len(set(plain)) == 1


class _Anything(dict):
    def __contains__(self, key):
        return True


# what is wrong -------------------------------------------------------------------------------------------------------

ASKED, ANSWERED = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
KARPATHY, MAP, BALANCED, DEV = (
    "dataset_coco.json",
    "lxmert/vqa/trainval_ans2label.json",
    "val_balanced_questions.json",
    "nlvr2/data/dev.json",
)


def in_json(name, change):
    return lambda source: edit(source / name, change)


def in_line(name, **changed):
    """The first line with other values; None takes a key away."""

    def change(source):
        first, *rest = (source / name).read_text().splitlines(keepends=True)
        row = {key: value for key, value in (json.loads(first) | changed).items() if value is not None}
        (source / name).write_text(json.dumps(row) + "\n" + "".join(rest))

    return change


def again(name):
    """The first line once more at the end."""
    return with_text(name, lambda text: text + text.splitlines()[0] + "\n")


def row(kind, number, **changed):
    def change(content):
        found = content[kind][number]
        found.update(changed)
        for key in [key for key, value in changed.items() if value is None]:
            del found[key]

    return change


# task, damage, parts of the line about it
DAMAGE = {
    # files
    "cut off": ("vqa", with_text(ANSWERED, lambda t: t[:-30]), [ANSWERED, "behind 5 rows", "ends too early"]),
    "a comma too many": ("vqa", with_text(ASKED, lambda t: t.replace("}]}", "},]}")), [ASKED, "not valid JSON"]),
    "broken inside": ("gqa", with_text(BALANCED, lambda t: t.replace('"n1"', "n1").replace('"1",', "1'")),
                      [BALANCED, "behind 1 rows", "not valid JSON"]),
    "empty": ("coco-caption", with_text(KARPATHY, lambda t: ""), [KARPATHY, "ends too early"]),
    "no text": ("gqa", with_bytes(BALANCED, lambda b: b"\xff\xfe" + b), [BALANCED, "utf-8"]),
    "text behind": ("vqa", with_text(ASKED, lambda t: t + "x"), [ASKED, "expected nothing more, found 'x'"]),
    "a list": ("gqa", with_text(BALANCED, lambda t: "[]"), [BALANCED, "expected '{', found '['"]),
    "another key": ("vqa", with_text(ASKED, lambda t: t.replace('"questions"', '"items"')),
                    [ASKED, 'no list "questions" in it']),
    "no rows": ("vqa", in_json(ANSWERED, lambda c: c["annotations"].clear()), [ANSWERED, "holds nothing"]),
    "no lines": ("yc2c", with_text("yc2c_val_release.jsonl", lambda t: "\n"), ["yc2c_val", "holds nothing"]),
    "no lines of subtitles": ("yc2c", with_text("yc2_subtitles.jsonl", lambda t: "\n"), ["yc2_sub", "holds nothing"]),
    "broken line": ("nlvr2", with_text(DEV, lambda t: t[:-9]), [DEV, "line 2 is not valid JSON"]),
    "may not be read": ("gqa", unreadable(BALANCED), [BALANCED, "cannot be read"]),
    "two that differ": ("coco-caption", lambda source: dump(source / "older" / KARPATHY, {"images": []}),
                        [KARPATHY, "differ; leave one of them"]),
    # VQA
    "question without id": ("vqa", in_json(ASKED, row("questions", 1, question_id=None)),
                            [ASKED, "questions.row 1: question_id is missing"]),
    "question without text": ("vqa", in_json(ASKED, row("questions", 1, question=None)),
                              [ASKED, "questions.row 1: question is missing"]),
    "question is a number": ("vqa", in_json(ASKED, row("questions", 1, question=7)),
                             [ASKED, "questions.row 1: question", "valid string, found 7"]),
    "question twice": ("vqa", in_json(ASKED, lambda c: c["questions"].append(c["questions"][2])),
                       [ASKED, "questions.row 6: question 40 occurs twice"]),
    "annotation twice": ("vqa", in_json(ANSWERED, lambda c: c["annotations"].append(c["annotations"][2])),
                         [ANSWERED, "annotations.row 6: question 40 occurs twice"]),
    "question without annotation": ("vqa", in_json(ANSWERED, lambda c: c["annotations"].pop(3) and None),
                                    [ASKED, "question 41 has no annotation in", ANSWERED]),
    "annotation without question": ("vqa", in_json(ASKED, lambda c: c["questions"].pop(3) and None),
                                    [ANSWERED, "question 41 is not in", ASKED]),
    "of another image": ("vqa", in_json(ANSWERED, row("annotations", 5, image_id=4)),
                         [ANSWERED, "question 51 is of image 4, but in the questions of image 5"]),
    "answers missing": ("vqa", in_json(ANSWERED, row("annotations", 0, answers=None)),
                        [ANSWERED, "annotations.row 0: answers is missing"]),
    "no answers": ("vqa", in_json(ANSWERED, row("annotations", 0, answers=[])), [ANSWERED, "row 0: answers", "1 item"]),
    "answer is null": ("vqa", in_json(ANSWERED, row("annotations", 0, answers=[{"answer": None}])),
                       [ANSWERED, "annotations.row 0: answers.row 0.answer is null"]),
    "type missing": ("vqa", in_json(ANSWERED, row("annotations", 2, answer_type=None)),
                     [ANSWERED, "annotations.row 2: answer_type is missing"]),
    "map without a number": ("vqa", in_json(MAP, lambda c: c.update(red=7)), [MAP, "number its 4 answers from 0 to 3"]),
    "map of words": ("vqa", in_json(MAP, lambda c: c.update(red="one")), [MAP, "red: content", "found 'one'"]),
    "answer twice": ("vqa", with_text(MAP, lambda t: t[:-1] + ', "red": 4}'), [MAP, "answer 'red' occurs twice"]),
    # the others
    "image twice": ("coco-caption", in_json(KARPATHY, lambda c: c["images"].append(c["images"][0])),
                    [KARPATHY, "images.row 5: cocoid 1 occurs twice"]),
    "another split": ("coco-caption", in_json(KARPATHY, row("images", 4, split="minival")),
                      [KARPATHY, "images.row 4: split", "found 'minival'"]),
    "empty caption": ("coco-caption", in_json(KARPATHY, row("images", 4, sentences=[{"raw": " \n"}])),
                      [KARPATHY, "images.row 4: sentences.row 0.raw", "at least 1 character"]),
    "no captions": ("coco-caption", in_json(KARPATHY, row("images", 4, sentences=[])),
                    [KARPATHY, "images.row 4: sentences", "at least 1 item"]),
    "GQA answer missing": ("gqa", in_json(BALANCED, row("20000002", "types", structural=None)),
                           [BALANCED, "20000002: types.structural is missing"]),
    "GQA question twice": ("gqa", with_text(BALANCED, lambda t: t.replace("20000002", "20000000")),
                           [BALANCED, "question '20000000' occurs twice"]),
    "GQA image is a number": ("gqa", in_json(BALANCED, lambda c: c["20000001"].update(imageId=5)),
                              [BALANCED, "20000001: imageId", "valid string, found 5"]),
    "label of another kind": ("nlvr2", in_line(DEV, label="true"), [DEV, "line 1: label", "found 'true'"]),
    "identifier of another form": ("nlvr2", in_line(DEV, identifier="dev-1-0"), [DEV, "line 1: ident", "'dev-1-0'"]),
    "pair twice": ("nlvr2", again(DEV), [DEV, "line 3: identifier 'dev-0-0-0' occurs twice"]),
    "sentence missing": ("nlvr2", in_line(DEV, sentence=None), [DEV, "line 1: sentence is missing"]),
    "no such choice": ("how2qa", in_line("how2qa_val_release.jsonl", answer_idx=4),
                       ["how2qa_val_release.jsonl", "line 1: answer_idx", "found 4"]),
    "no choice": ("tvqa", in_line("tvqa_val.jsonl", answer_idx=None), ["tvqa_val.jsonl", "answer_idx is missing"]),
    "choice missing": ("tvqa", in_line("tvqa_test_public.jsonl", a4=None), ["tvqa_test_public", "a4 is missing"]),
    "qid twice": ("tvqa", again("tvqa_train.jsonl"), ["tvqa_train.jsonl", "line 2: qid 0 occurs twice"]),
    "description empty": ("tvc", in_line("tvc_val_release.jsonl", descs=[{"desc": " ", "desc_id": 1}]),
                          ["tvc_val_release.jsonl", "line 1: descs.row 0.desc"]),
    "no descriptions": ("yc2c", in_line("yc2c_val_release.jsonl", descs=[]), ["yc2c_val", "line 1: descs"]),
    "description twice": ("yc2c", in_line("yc2c_val_release.jsonl", descs=[{"desc": "x", "desc_id": 1}] * 2),
                          ["yc2c_val", "line 1: desc_id 1 occurs twice"]),
    "moment of three": ("tvc", in_line("tvc_train_release.jsonl", ts=[1, 2, 3]), ["tvc_train", "line 1: ts", "most 2"]),
    "clip without subtitles": ("tvc", in_line("tvc_test_release.jsonl", vid_name="clip_9"),
                               ["tvc_test_release.jsonl", "line 1: clip 'clip_9' has no subtitles"]),
    "subtitles that differ": ("yc2c", lambda source: lines(source / "yc2_subtitles.jsonl", [
        {"vid_name": f"clip_{i % 3}", "sub": SAID[i % 2 :]} for i in (0, 1, 2, 3, 8)]),
                              ["yc2_subtitles.jsonl", "line 4: clip 'clip_0' occurs twice, with different"]),
    "subtitle without text": ("how2qa", in_line("how2_subtitles.jsonl", sub=[{"start": 0}]),
                              ["how2_subtitles.jsonl", "line 1: sub.row 0.text is missing"]),
}  # fmt: skip


def refused(capsys):
    return [line.removeprefix("pet-bench: error: ") for line in capsys.readouterr().err.strip().splitlines()]


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(name, source, root, capsys):
    task, damage, parts = DAMAGE[name]
    damage(source)
    before = state(source)
    assert run(source, root, "--task", task) == 2
    said = refused(capsys)
    assert len(said) == 1 and all(part in said[0] for part in parts), said
    assert said[0].startswith(f"{task}: {source}") or "leave one" in said[0]
    assert not root.exists()
    assert state(source) == before


def test_all_faults_are_said_together(source, root, capsys):
    in_line(DEV, label="true")(source)
    again("tvqa_train.jsonl")(source)
    edit(source / KARPATHY, row("images", 4, split="minival"))
    assert run(source, root) == 2
    said = refused(capsys)
    assert [line.split(":")[0] for line in said] == ["vqa", "nlvr2", "coco-caption", "tvqa"]
    assert not root.exists()


def test_an_image_in_no_split(source, root, capsys):
    edit(source / KARPATHY, lambda content: content["images"].pop(3) and None)
    assert run(source, root, "--task", "vqa") == 2
    said = refused(capsys)
    assert len(said) == 2 and all(ANSWERED in line for line in said)
    assert f"question 40: image 4 is in no split of {source / KARPATHY}" in said[0]


def test_many_faults_are_counted(source, root, capsys):
    lines(source / "tvqa_train.jsonl", [{}] * 30)
    assert run(source, root, "--task", "tvqa") == 2
    said = refused(capsys)
    assert len(said) == 21 and said[-1].endswith("faults more")


# what is missing -----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_where_it_comes_from(source, root, capsys):
    (source / ASKED).unlink()
    (source / "nlvr2/data/test1.json").unlink()
    assert run(source, root, "--task", "vqa", "--task", "nlvr2") == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "v2_OpenEnded_mscoco_val2014_questions.json the VQA download page" in out
    assert "nlvr2/data/test1.json VL-Adapter's data package" in out
    assert "lil-lab/nlvr" in out and out.endswith("no task can be read")
    assert convert(source, root, ["vqa"]).missing == [
        Missing(
            "vqa",
            "v2_OpenEnded_mscoco_val2014_questions.json",
            "the VQA download page (visualqa.org), Questions of Balanced Real Images, v2.0",
        )
    ]
    assert files(root) == [
        "nlvr/train.json",
        "nlvr/valid.json",
        "vqa/trainval_ans2label.json",
        "vqa/trainval_label2ans.json",
        "vqa/v2_mscoco_train2014_annotations.json",
        "vqa/v2_mscoco_val2014_annotations.json",
    ]


def test_karpathys_splits_are_missing(source, root, capsys):
    (source / KARPATHY).unlink()
    assert run(source, root, "--task", "vqa") == 1
    assert "caption_datasets.zip" in " ".join(capsys.readouterr().out.split())


def test_tasks_without_downloads_are_left_alone(tmp_path, root, capsys):
    coco(tmp_path / "downloads")
    assert run(tmp_path / "downloads", root) == 0
    others = [*(task for task in COUNTS if task != "coco-caption"), *ELSEWHERE]
    assert capsys.readouterr().out.endswith(f"coco-caption can be read; no downloads of {', '.join(others)}\n")
    assert files(root) == ["COCO/dataset_coco.json"]


def test_what_lies_in_its_place_already_is_used(source, root):
    """The splits of an earlier conversion, its subtitles, its answer map."""
    convert(source, root, ["coco-caption", "tvqa"])
    for name in (KARPATHY, "tvqa_preprocessed_subtitles.jsonl"):
        (source / name).unlink()
    report = convert(source, root, ["vqa", "tvc"])
    states = {made.target: made.state for made in report.written}
    assert states["video/ann/tv_subtitles.jsonl"] == "unchanged" and states["vqa/karpathy_test.json"] == "written"
    assert not any(part.missing or part.faults for part in read_back(root, report.tasks))


def test_what_lies_in_the_root_wakes_no_task(source, root, tmp_path):
    convert(source, root)
    (root / "video/ann/tvqa/tvqa_val.jsonl").write_text("broken")
    gqa(tmp_path / "more")
    assert convert(tmp_path / "more", root).tasks == ["gqa"]


def test_in_place(source, root):
    """The root is the folder of the downloads: what is converted is not taken for a download."""
    source.rename(root)
    before = files(root)
    for _ in range(2):
        assert run(root, root) == 0
    placed = {"COCO/dataset_coco.json", *LAYOUT} - set(before)
    assert files(root) == sorted({*before, *placed})


def test_the_authors_csv_of_how2qa(tmp_path, root, capsys):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "how2QA_val_release.csv").write_text("NOuQuofjk44,[7.2:18.0],10,12,16,how many?,1\n")
    assert run(tmp_path / "downloads", root) == 2
    said = refused(capsys)
    assert any("how2QA_val_release.csv is not converted" in line and "VALUE" in line for line in said)
    assert not root.exists()


def test_the_csv_does_not_matter_beside_the_release(source, root, capsys):
    (source / "how2QA_train_release.csv").write_text("x")
    assert run(source, root, "--task", "how2qa") == 0
    assert ".csv" not in capsys.readouterr().out


def test_version_1_of_vqa(tmp_path, root, capsys):
    dump(tmp_path / "downloads" / "mscoco_train2014_annotations.json", {})
    assert run(tmp_path / "downloads", root) == 2
    assert any("mscoco_train2014_annotations.json is not converted: of VQA v1" in line for line in refused(capsys))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nowhere", "root"], ["nowhere does not exist"]),
        (["file", "root"], ["file is no folder"]),
        (["empty", "file"], ["file is no folder"]),
        (["empty", "root"], ["holds no download to convert", "v2_mscoco_val2014_annotations.json"]),
        (["empty", "root", "--task", "gqa"], ["train_balanced_questions.json: the GQA download page"]),
        (["empty", "root", "--task", "gqaa"], ['unknown task with official downloads to convert "gqaa"', '"gqa"']),
        (["empty", "root", "--task", "nlvr-v1"], ["nlvr-v1 reads its files as they are published"]),
    ],
)
def test_arguments(tmp_path, monkeypatch, capsys, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert run(*arguments) == 2
    said = "\n".join(refused(capsys))
    assert all(part in said for part in parts), said
    assert not (tmp_path / "root").exists()


def test_a_fault_of_the_reader_is_said(source, root, capsys):
    """What only the reader knows to be wrong: an example in two splits that are read together."""
    shutil.copy(source / "train_balanced_questions.json", source / BALANCED)
    assert run(source, root, "--task", "gqa") == 1
    out = capsys.readouterr().out
    assert "✗ gqa: GQA/train.json, GQA/valid.json" in out and "1 faults" in out


# archives ------------------------------------------------------------------------------------------------------------


def pack(source, archive, *names):
    with zipfile.ZipFile(source / archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.write(source / name, name)
            (source / name).unlink()


def test_zip_archives_are_read(source, root):
    convert(source, root / "plain")
    pack(source, "v2_Questions_Val_mscoco.zip", ASKED)
    pack(source, "v2_Annotations_Val_mscoco.zip", ANSWERED)
    pack(source, "caption_datasets.zip", KARPATHY)
    pack(source, "questions1.2.zip", *(f"{split}_balanced_questions.json" for split in ("train", "val", "testdev")))
    pack(source, "nlvr-master.zip", "nlvr2/data/train.json", "nlvr2/data/dev.json", "nlvr2/data/test1.json")
    report = convert(source, root / "packed")
    used = {str(file) for made in report.written for file in made.sources}
    assert str(source / "caption_datasets.zip" / KARPATHY) in used
    for name in LAYOUT:
        assert (root / "packed" / name).read_bytes() == (root / "plain" / name).read_bytes()


def test_a_member_that_is_damaged(source, root, capsys):
    pack(source, "questions1.2.zip", BALANCED)
    content = bytearray((source / "questions1.2.zip").read_bytes())
    content[120] ^= 0xFF
    (source / "questions1.2.zip").write_bytes(content)
    assert run(source, root, "--task", "gqa") == 2
    assert any(f"questions1.2.zip/{BALANCED}" in line for line in refused(capsys))


def test_archives_that_are_not_read(source, root, capsys):
    (source / "tvqa_train.jsonl").unlink()
    (source / "tvqa_qa_release.tar.gz").touch()
    (source / "cut.zip").write_bytes(b"PK\x03\x04")
    assert run(source, root, "--task", "tvqa") == 1
    out = capsys.readouterr().out
    assert "tvqa_qa_release.tar.gz is not looked into; unpack it" in out
    assert "cut.zip cannot be read: File is not a zip file" in out
    shutil.copy(source / "tvqa_val.jsonl", source / "tvqa_train.jsonl")
    assert run(source, root, "--task", "tvqa") == 0
    assert "tar.gz" not in capsys.readouterr().out  # nothing is missing


# other people's files, other names -----------------------------------------------------------------------------------


def test_files_of_the_same_names(source, root):
    """NLVR v1, LXMERT's converted files and anybody's train.json lie about; folders link to one another."""
    roots.nlvr_v1(source / "v1")
    for split in ("train", "dev", "test1"):
        dump(source / "lxmert" / "nlvr2" / f"{split}.json", [{"identifier": f"{split}-0-0-0", "sent": "x"}])
        (source / "nlvr2" / "data" / f"{split}.json").rename(source / f"{split}.json")
    dump(source / "squad" / "train.json", {"data": []})
    (source / "v1" / "circle").symlink_to(source)
    assert run(source, root, "--task", "nlvr2") == 0
    assert [row["identifier"] for row in loaded(root, "nlvr/valid.json")] == ["dev-0-0-0", "dev-1-1-0"]


def test_the_same_download_twice(source, root):
    shutil.copytree(source, source / "copy")
    assert run(source, root) == 0


def test_linked_folders(source, root, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "all").symlink_to(source)
    assert run(tmp_path / "links", root) == 0


# what is there already -----------------------------------------------------------------------------------------------


def test_the_second_time_nothing_changes(source, root, capsys):
    assert run(source, root) == 0
    before = contents(root)
    capsys.readouterr()
    assert run(source, root) == 0
    assert contents(root) == before
    assert len(re.findall(r"^\S+ +unchanged ", capsys.readouterr().out, re.MULTILINE)) == len(LAYOUT)


def test_different_files_are_left_alone(source, root, capsys):
    for name in ("vqa/karpathy_test.json", "nlvr/valid.json"):
        dump(root / name, [])
    before = contents(root)
    assert run(source, root) == 2
    said = refused(capsys)
    assert [line.split(":")[0] for line in said] == ["vqa", "nlvr2"]
    assert str(root / "vqa/karpathy_test.json") in said[0] and "--force overwrites it" in said[0]
    assert contents(root) == before


def test_force(source, root, capsys):
    dump(root / "nlvr/valid.json", [])
    (root / "nlvr" / "notes.txt").write_text("mine")
    assert run(source, root, "--task", "nlvr2", "--force") == 0
    assert re.search("overwritten +2 rows  nlvr/valid.json ← nlvr2/data/dev.json", capsys.readouterr().out)
    assert len(loaded(root, "nlvr/valid.json")) == 2
    assert files(root) == ["nlvr/notes.txt", "nlvr/test.json", "nlvr/train.json", "nlvr/valid.json"]


def test_a_folder_in_the_way(source, root, capsys):
    (root / "nlvr" / "valid.json").mkdir(parents=True)
    assert run(source, root, "--task", "nlvr2", "--force") == 2
    assert "valid.json is there and differs from what would be written; it is no file" in refused(capsys)[0]
    assert files(root) == []


def test_force_does_not_excuse_faults(source, root):
    convert(source, root)
    before = contents(root)
    in_line(DEV, label="true")(source)
    assert run(source, root, "--force") == 2
    assert contents(root) == before


# interruption --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["reading", "checking"])
def test_interrupted_before_anything_is_in_its_place(source, root, monkeypatch, stop):
    (root / "mine").mkdir(parents=True)

    def interrupted(*_):
        raise KeyboardInterrupt

    if stop == "reading":
        many = [{"identifier": f"dev-{i}-0-0", "label": "True", "sentence": "x"} for i in range(2000)]
        lines(source / DEV, many)
    else:
        monkeypatch.setattr("pet_bench.data.convert.work.Work.check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, root, progress=interrupted if stop == "reading" else None)
    assert [path.name for path in root.rglob("*")] == ["mine"]


@pytest.mark.parametrize("after", [0, 1, 5])
def test_interrupted_between_two_files(source, root, tmp_path, monkeypatch, after):
    """Whole files stay, and the next call goes on."""
    convert(source, tmp_path / "whole")
    replace, done = Path.replace, []

    def some(self, target):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", some)
    with pytest.raises(KeyboardInterrupt):
        convert(source, root)
    monkeypatch.undo()
    assert len(files(root)) == after
    for name in files(root):
        assert hashed(root / name) == hashed(tmp_path / "whole" / name)
    convert(source, root)
    assert {name: hashed(root / name) for name in files(root)} == {
        name: hashed(tmp_path / "whole" / name) for name in LAYOUT
    }


def test_a_disk_that_is_full(source, root, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run(source, root) == 2
    assert "cannot be read or written: No space left on device" in refused(capsys)[0]
    assert not root.exists()


def test_a_folder_that_may_not_be_written(source, tmp_path, capsys):
    if os.geteuid() == 0:
        pytest.skip("unchecked: a folder without permission is one line (root may write everywhere)")
    (tmp_path / "locked").mkdir(mode=0o555)
    assert run(source, tmp_path / "locked" / "datasets") == 2
    assert "Permission denied" in refused(capsys)[0]


# streams -------------------------------------------------------------------------------------------------------------

TEXT = """ {"info": {"a": [1, "]}"], "b": null}, "n": 12345, "rows" : [ {"id": 1, "t": "\\u00e9 \\"x\\" \u00fc"} ,
 -1.5e3, [], "]", {}, true, 1234567 ] , "end": 7 } \n"""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_members_are_those_of_the_whole_text(monkeypatch, size):
    monkeypatch.setattr(stream, "CHUNK", size)
    known = json.loads(TEXT)
    assert list(stream.members(io.BytesIO(TEXT.encode()))) == list(known.items())
    found = list(stream.members(io.BytesIO(TEXT.encode()), "rows"))
    assert found == [(f"rows.row {i}", value) for i, value in enumerate(known["rows"])]


@pytest.mark.parametrize("within", [None, "rows"])
def test_every_text_that_is_cut_off_is_refused(within):
    text = TEXT.strip().encode()
    for end in range(len(text)):
        with pytest.raises(ValueError):
            list(stream.members(io.BytesIO(text[:end]), within))


def test_broken_text_is_not_read_to_its_end():
    text = io.BytesIO(b'{"rows": [1, oops' + b" " * (8 * stream.CHUNK))
    with pytest.raises(ValueError, match="not valid JSON"):
        list(stream.members(text, "rows"))


def test_memory_does_not_grow_with_the_file(source, root):
    row = loaded(source, BALANCED)["20000000"] | {"padding": ["x" * 50] * 20}
    with (source / "train_balanced_questions.json").open("w") as file:
        file.write("{" + ",".join(f'"{i:08d}": {json.dumps(row)}' for i in range(12000)) + "}")
    size = (source / "train_balanced_questions.json").stat().st_size
    seen = []
    tracemalloc.start()
    try:
        convert(source, root, ["gqa"], progress=lambda *numbers: seen.append(numbers))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 15e6 and peak < size / 2
    assert seen == sorted(seen) and {total for _, total in seen} == {size >> 20} and seen[-1][0] <= size >> 20


def test_damage_is_of_many_kinds():
    assert len(DAMAGE) >= 50
