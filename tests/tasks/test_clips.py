"""The video-text tasks: texts, targets, frame features, and every fault of their files in a line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pet_bench.data.clips import resample
from pet_bench.data.store import FeatureStore
from pet_bench.data.task import Example
from pet_bench.errors import UserError
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.tasks.how2qa import How2QA
from pet_bench.tasks.suites import VIDEO_TEXT
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.yc2c import YC2C
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial

QUESTION = {
    "qid": 7, "vid_name": "castle_1", "show_name": "Castle", "ts": "20.16-25.12", "q": " Who calls? ",
    "a0": "Beckett..", "a1": " Castle", "a2": "Ryan.", "a3": "nobody", "a4": "Gina. ", "answer_idx": 2,
}  # fmt: skip
MOMENT = {
    "vid_name": "castle_1", "clip_id": 3, "duration": 60.0, "ts": [35.73, 40.9],
    "descs": [{"desc": "He calls.", "desc_id": 11}, {"desc": "A man phones.", "desc_id": 12}],
}  # fmt: skip
ASKED = "[Subs] Castle : Hello? Yes. [Q] Who calls? [TS] (20.16-25.12) [Choices] a0: Beckett. a1: Castle. a2: Ryan."
SAID = {"vid_name": "castle_1", "sub": [{"text": " Castle : Hello? ", "start": 0.1, "end": 2}, {"text": "Yes."}]}
FILES = {
    TVQA: ("tv", "tvqa/tvqa_{}.jsonl", QUESTION),
    How2QA: ("how2", "how2qa/how2qa_{}_release.jsonl", {k: v for k, v in QUESTION.items() if k != "a4"}),
    TVC: ("tv", "tvc/tvc_{}_release.jsonl", MOMENT),
    YC2C: ("yc2", "yc2c/yc2c_{}_release.jsonl", {k: v for k, v in MOMENT.items() if k != "ts"}),
}
every = pytest.mark.parametrize("task", FILES, ids=lambda task: task.name)


def write(root, task, *rows, said=(SAID,), split="val", features=None):
    folder, pattern, row = FILES[task]
    annotations = root / "video" / "ann" / pattern.format(split)
    annotations.parent.mkdir(parents=True, exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows or [row]]
    annotations.write_text("\n".join(lines) + "\n")
    spoken = root / "video" / "ann" / f"{folder}_subtitles.jsonl"
    spoken.write_text("\n".join(json.dumps(line) for line in said) + "\n")
    clips = root / "video" / "vis_features" / folder / "clip-vit"
    clips.mkdir(parents=True, exist_ok=True)
    frames = np.ones((40, 512), np.float16) if features is None else features
    np.savez(clips / "castle_1.npz", features=frames)
    return root


@pytest.mark.parametrize(
    ("task", "text", "targets", "references"),
    [
        (
            TVQA(),
            f"{ASKED} a3: nobody. a4: Gina. tvqa: ",
            ["a2"],
            {"answer": "a2"},
        ),
        (
            How2QA(),
            f"{ASKED} a3: nobody. how2qa: ",
            ["a2"],
            {"answer": "a2"},
        ),
        (TVC(), "[Subs] Castle : Hello? Yes. [TS] ([35.73, 40.9]) tvc: ", ["He calls."], {"captions": ["He calls."]}),
        (YC2C(), "[Subs] Castle : Hello? Yes. yc2c: ", ["He calls."], {"captions": ["He calls."]}),
        (
            TVC(unit="clip"),
            "[Subs] Castle : Hello? Yes. [TS] ([35.73, 40.9]) tvc: ",
            ["He calls."],
            {"captions": ["He calls.", "A man phones."]},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_texts_and_targets(tmp_path, task, text, targets, references):
    """TASKS.md sections 5 to 8."""
    example = task.examples(write(tmp_path, type(task)), "test")[0]
    assert (example.text, [answer for answer, _ in example.targets]) == (text, targets)
    assert example.references == references
    assert example.images == (f"{task.folder}/castle_1",)


def test_items_of_the_captions(tmp_path):
    """Published: each description is an item, in validation too; official: each clip."""
    root = write(write(tmp_path, TVC), TVC, split="train")
    assert [e.id for e in TVC().examples(root, "test")] == ["11", "12"]
    assert [e.id for e in TVC(unit="clip").examples(root, "test")] == ["3"]
    assert [e.id for e in TVC(unit="clip").examples(root, "train")] == ["11", "12"]


@every
def test_protocol_of_the_published_runs(task):
    task = task()
    assert (task.max_text, task.max_target, task.loss, task.batch_ratio) == (600, 20, "sample-mean", 1.0)
    assert (task.decoding.num_beams, task.decoding.max_length) == (5, 20)
    assert task.prompt == f"{task.name}: "
    assert (task.train, task.valid, task.test) == ("train", "val", "val")


@pytest.mark.parametrize("length", [1, 40, 64, 65, 100, 200])
def test_frames_are_brought_to_64(length):
    frames = np.random.default_rng(length).standard_normal((length, 5)).astype(np.float16)
    found = resample(frames)
    if length <= 64:
        expected = np.concatenate([frames, np.zeros((64 - length, 5))])
    else:
        pooled = F.adaptive_max_pool1d(torch.from_numpy(frames.astype(np.float32)).T[None], 64)[0].T
        expected = pooled.numpy()
    assert found.dtype == np.float16 and np.array_equal(found, expected)


@every
def test_features_are_packed(tmp_path, task):
    root = write(tmp_path / "root", task)
    examples = task().examples(root, "test")
    store = FeatureStore.pack(root, [(task(), examples)], VIDEO_TEXT.visual, cache=tmp_path)
    features = store.gather(store.rows(examples[:1]))
    assert features.shape == (1, 1, 64, 512)
    assert features[0, 0, :40].eq(1).all() and features[0, 0, 40:].eq(0).all()


@pytest.mark.parametrize(
    ("task", "rows", "parts"),
    [
        (TVQA, ['{"qid": 7,'], ["line 1", "not valid JSON"]),
        (TVQA, [{k: v for k, v in QUESTION.items() if k != "answer_idx"}], ["line 1", "answer_idx is missing"]),
        (TVQA, [QUESTION | {"answer_idx": 5}], ["qid 7", "answer_idx 5 is no choice"]),
        (How2QA, [FILES[How2QA][2] | {"answer_idx": 4}], ["qid 7", "answer_idx 4 is no choice"]),
        (TVQA, [QUESTION | {"answer_idx": "two"}], ["answer_idx", "found 'two'"]),
        (TVQA, [QUESTION, QUESTION], ["an id occurs more than once", "'7'"]),
        (TVQA, [QUESTION | {"vid_name": "castle_2"}], ["tv_subtitles.jsonl", "no subtitles of clip 'castle_2'"]),
        (TVC, [MOMENT | {"descs": [{"desc": " ", "desc_id": 1}]}], ["clip_id 3 has an empty description or none"]),
        (YC2C, [MOMENT | {"descs": []}], ["clip_id 3 has an empty description or none"]),
        (TVC, [MOMENT | {"ts": "35-40"}], ["line 1", "ts"]),
        (YC2C, ["[]"], ["line 1"]),
        (How2QA, [""], ['split "val" holds no examples']),
    ],
)
def test_damaged_annotations(tmp_path, task, rows, parts):
    with pytest.raises(UserError) as error:
        task().examples(write(tmp_path, task, *rows), "test")
    assert len(error.value.faults) == 1
    assert task.name in str(error.value) and all(part in str(error.value) for part in parts), error.value


@every
def test_a_missing_file_is_named(tmp_path, task):
    root = write(tmp_path, task)
    subtitle_file, annotations = task().sources(root, "test")[::-1]
    for path in (subtitle_file, annotations):
        path.unlink()
        with pytest.raises(UserError, match=f"{task.name}: annotation file .*{path.name} is missing"):
            task().examples(root, "test")


@pytest.mark.parametrize(
    ("features", "part"),
    [
        (np.ones((40, 256)), "shape (64, 256), expected (64, 512)"),
        (np.ones(512), "features have shape (512,), expected (frames, width)"),
        (np.ones((0, 512)), "features have shape (0, 512)"),
        (np.full((40, 512), np.nan), "NaN"),
        (np.full((40, 512), 1e9), "beyond half precision"),
        (np.array([[{"a": 1}]], dtype=object), "cannot be read"),
    ],
    ids=["width", "flat", "no frames", "nan", "overflow", "pickle"],
)
def test_damaged_features(tmp_path, features, part):
    root = write(tmp_path / "root", TVQA, features=features)
    task = TVQA()
    with pytest.raises(UserError) as error:
        FeatureStore.pack(root, [(task, task.examples(root, "test"))], VIDEO_TEXT.visual, cache=tmp_path)
    assert len(error.value.faults) == 1
    assert "tvqa" in str(error.value) and "castle_1" in str(error.value) and part in str(error.value), error.value


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read"),
        (lambda path: np.savez(path, other=np.ones((40, 512))), "has no key"),
    ],
    ids=["missing", "truncated", "key"],
)
def test_damaged_archives(tmp_path, change, part):
    root = write(tmp_path / "root", YC2C)
    change(YC2C().feature_path(root, "yc2/castle_1"))
    with pytest.raises(UserError, match=part):
        FeatureStore.pack(root, [(YC2C(), YC2C().examples(root, "test"))], VIDEO_TEXT.visual, cache=tmp_path)


def test_a_joint_trial(tmp_path):
    """All four tasks on files of the real layout and feature size, for a few updates."""
    root = tmp_path / "root"
    for task, (_, _, row) in FILES.items():
        other = row | {"qid": 8, "descs": [d | {"desc_id": d["desc_id"] + 10} for d in row.get("descs", ())]}
        write(root, task, other, split="train", features=np.ones((70, 512), np.float16))
        write(root, task, features=np.ones((70, 512), np.float16))
    recipe = {"max_steps": 4, "batch_size": 2, "valid_every": 0}
    spec = resolve("mini-bart", MethodSpec("vl-pet-large"), "video-text", 0, recipe=recipe)
    result = run_trial(spec, Runtime(out=tmp_path / "out", data=root, device="cpu"))
    assert {task: score.n for task, scores in result.metrics.items() for score in list(scores.values())[:1]} == {
        "tvqa": 1, "how2qa": 1, "tvc": 2, "yc2c": 2,
    }  # fmt: skip
    assert result.cost.steps == 4


def test_the_official_protocol_scores_ascii_alone():
    """VALUE's scorer puts a space for "é" in predictions and references alike, so "café" is the word "caf"."""
    captions = {"1": ["he is in a café now", "Ted leaves"], "2": ["Amy naïvely smiles"], "3": ["the dog barks at Ted"]}
    examples = [Example(key, "", ("tv/x",), references={"captions": said}) for key, said in captions.items()]
    written = {"1": "he is in a café", "2": "Amy naïvely smiles", "3": "the dog barks"}
    spelled = {"1": "he is in a caf", "2": "Amy na vely smiles", "3": "the dog barks"}
    official, plain = TVC(unit="clip"), TVC()
    assert official.score(written, examples).values == official.score(spelled, examples).values
    assert plain.score(written, examples).values != plain.score(spelled, examples).values
