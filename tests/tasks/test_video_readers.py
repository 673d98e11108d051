"""The video-text tasks on real rows, on every damage of their files, and under the options of their protocol."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from pet_bench.backbone import Reader, build
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import load
from pet_bench.data.batches import TaskBatches
from pet_bench.data.store import FeatureStore
from pet_bench.errors import UserError
from pet_bench.pet import attach, build_method
from pet_bench.spec import MethodSpec, Runtime, Visual
from pet_bench.tasks.how2qa import How2QA
from pet_bench.tasks.suites import VIDEO_TEXT
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.yc2c import YC2C
from pet_bench.trial import run
from pet_bench.trial.resolve import resolve
from tests.tasks.test_clips import FILES, MOMENT, QUESTION, SAID, write
from tests.tiny import TINY, tiny_batch

FOUR = {key: value for key, value in QUESTION.items() if key != "a4"}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def silent(rows):
    """Subtitle files are not public: these have no lines."""
    return [{"vid_name": clip, "sub": []} for clip in sorted({row["vid_name"] for row in rows})]


# real rows -----------------------------------------------------------------------------------------------------------


# damage --------------------------------------------------------------------------------------------------------------


def without(row, *keys):
    return {key: value for key, value in row.items() if key not in keys}


TORN = (SAID, SAID | {"sub": [{"text": "No."}]})


@pytest.mark.parametrize(
    ("task", "rows", "said", "parts"),
    [
        (TVQA, [QUESTION | {"answer_idx": -1}], (SAID,), ["tvqa_val.jsonl", "qid 7", "answer_idx -1 is no choice"]),
        (TVQA, [without(QUESTION, "a3")], (SAID,), ["line 1", "a3 is missing"]),
        (TVQA, [QUESTION | {"q": None}], (SAID,), ["line 1", "q is null"]),
        (TVQA, [without(QUESTION, "ts")], (SAID,), ["line 1", "ts is missing"]),
        (How2QA, [FOUR | {"vid_name": 12}], (SAID,), ["how2qa_val_release.jsonl", "line 1", "vid_name", "found 12"]),
        (How2QA, [FOUR, json.dumps(FOUR)[:-9]], (SAID,), ["line 2 is not valid JSON"]),
        (TVC, [MOMENT | {"ts": [1.5]}], (SAID,), ["tvc_val_release.jsonl", "line 1", "ts", "at least 2"]),
        (TVC, [MOMENT | {"descs": [{"desc": "He calls."}]}], (SAID,), ["line 1", "descs.row 0.desc_id is missing"]),
        (TVC, [MOMENT, MOMENT | {"clip_id": 4}], (SAID,), ["2 ids occur more than once", "'11'"]),
        (YC2C, [MOMENT | {"descs": "He calls."}], (SAID,), ["yc2c_val_release.jsonl", "line 1", "descs"]),
        (YC2C, [MOMENT], TORN, ["yc2_subtitles.jsonl", "clip 'castle_1' has two different subtitles"]),
        (TVC, [MOMENT], ({"vid_name": "castle_1"},), ["tv_subtitles.jsonl", "line 1", "sub is missing"]),
        (TVC, [MOMENT], ({"vid_name": "castle_1", "sub": [{}]},), ["line 1", "sub.row 0.text is missing"]),
        (TVQA, [QUESTION], (), ["tv_subtitles.jsonl", "no subtitles of clip 'castle_1'"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and isinstance(value[-1], str) else "",
)
def test_damaged_rows(tmp_path, task, rows, said, parts):
    root = write(tmp_path, task, *rows, said=said)
    before = contents(root)
    with pytest.raises(UserError) as error:
        task().examples(root, "test")
    (line,) = error.value.faults
    assert line.startswith(f"{task.name}: {root}") and all(part in line for part in parts), line
    assert "\n" not in line and contents(root) == before


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_repeated_subtitle_that_is_the_same_does_no_harm(tmp_path):
    assert len(TVQA().examples(write(tmp_path, TVQA, said=(SAID, SAID)), "test")) == 1


def test_bytes_that_are_no_text(tmp_path):
    root = write(tmp_path, TVQA)
    path = TVQA().sources(root, "test")[0]
    path.write_bytes(path.read_bytes().replace(b"Castle", b"Ca\xffstle"))
    with pytest.raises(UserError, match=r"tvqa: .*tvqa_val.jsonl: line 1 ") as error:
        TVQA().examples(root, "test")
    assert len(error.value.faults) == 1


def test_faults_of_both_files_are_said_together(tmp_path):
    root = write(tmp_path, TVQA, "[]", said=({"vid_name": 3, "sub": []},))
    with pytest.raises(UserError) as error:
        TVQA().examples(root, "test")
    assert ["tv_subtitles" in line for line in error.value.faults] == [True, False]


def spoil(path, at=-3000):
    """Turn a byte of the array, so that the archive's checksum is wrong."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def bad_frame(path, value, frames=200):
    features = np.ones((frames, 512), np.float16)
    features[frames // 2, 3] = value
    np.savez(path, features=features)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda path: np.savez(path, features=np.ones((40, 512), np.int64)), "is of type int64, expected floating"),
        (lambda path: np.savez(path, features=np.full((40, 512), "1.0")), "is of type <U3, expected floating"),
        (lambda path: np.savez(path, features=np.ones((1, 40, 512))), "shape (1, 40, 512), expected (frames, width)"),
        (lambda path: np.savez(path, features=np.ones((40, 768))), "shape (64, 768), expected (64, 512)"),
        (lambda path: np.savez(path, features=np.array([{}] * 40)), "Object arrays cannot be loaded"),
        (lambda path: path.write_bytes(pickle.dumps({"features": [1.0]})), "File is not a zip file"),
        (lambda path: path.write_bytes(b""), "File is not a zip file"),
        (lambda path: np.save(path.open("wb"), np.ones((40, 512))), "File is not a zip file"),
        (spoil, "Bad CRC-32"),
        (lambda path: bad_frame(path, np.nan), "NaN"),
        (lambda path: bad_frame(path, np.inf), "infinity"),
    ],
    ids=["integers", "text", "3-D", "ViT-L", "pickled", "a pickle", "empty", "npy", "checksum", "nan", "inf"],
)
def test_damaged_clips(tmp_path, change, part):
    root = write(tmp_path / "root", How2QA)
    task, path = How2QA(), How2QA().feature_path(root, "how2/castle_1")
    change(path)
    before = contents(root)
    with pytest.raises(UserError) as error:
        FeatureStore.pack(root, [(task, task.examples(root, "test"))], VIDEO_TEXT.visual, cache=tmp_path / "cache")
    (line,) = error.value.faults
    assert line.startswith("how2qa: ") and str(path) in line and "'how2/castle_1'" in line and part in line, line
    assert "\n" not in line and contents(root) == before


# protocol options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", FILES, ids=lambda task: task.name)
def test_options_and_their_published_values(task):
    """TASKS.md section 11, points 4 to 7 and 12."""
    default = task()
    published = {"truncation": "right", "padded_frames": "attended", "max_target": 20, "max_length": 20}
    if task in (TVC, YC2C):
        published |= {"unit": "description", "tokenizer": "ptb"}
    assert {name: getattr(default, name) for name in published} == published
    assert not default.masks_empty and task(padded_frames="masked").masks_empty
    assert (task(max_target=40).max_target, task(max_length=40).decoding.max_length) == (40, 40)


@pytest.fixture(scope="module", params=["mini-bart", "mini-t5"])
def tokenizer(request):
    return load(find_backbone(request.param), VIDEO_TEXT.visual)[1]


def tokens(tmp_path, tokenizer, task, row, words):
    root = write(tmp_path / "root", type(task), row, said=[{"vid_name": "castle_1", "sub": [{"text": words}]}])
    examples = task.examples(root, "test")
    store = FeatureStore.pack(root, [(task, examples)], VIDEO_TEXT.visual, cache=tmp_path / "cache")
    (batch,) = TaskBatches(task, examples, Reader(tokenizer), store).eval_batches(4)
    return examples[0].text, batch.tensors["text"][0].tolist()


def test_a_text_too_long_is_cut_on_the_right(tmp_path, tokenizer):
    text, found = tokens(tmp_path, tokenizer, TVQA(), QUESTION, "red cube left of it " * 300)
    assert len(found) == 600
    assert found == tokenizer(text, truncation=True, max_length=600)["input_ids"]
    assert "[Q]" not in tokenizer.decode(found)


@pytest.mark.parametrize("task", FILES, ids=lambda task: task.name)
def test_or_its_subtitles_are(tmp_path, tokenizer, task):
    """All that stands behind them is left, and as many of their tokens as there is room for."""
    row = FILES[task][2]
    text, found = tokens(tmp_path, tokenizer, task(truncation="subtitles"), row, "red cube left of it " * 300)
    behind = tokenizer(text.rpartition("left of it")[2], add_special_tokens=False)["input_ids"]
    whole, rest = tokenizer(text)["input_ids"], len(behind) + 1
    assert len(whole) > len(found) == 600
    assert found == whole[: 600 - rest] + whole[-rest:]


def test_a_text_that_fits_is_whole(tmp_path, tokenizer):
    for i, cut in enumerate(("right", "subtitles")):
        text, found = tokens(tmp_path / str(i), tokenizer, TVQA(truncation=cut), QUESTION, "red cube")
        assert found == tokenizer(text)["input_ids"]


def test_where_subtitles_are_too_few_the_end_goes_too(tmp_path, tokenizer):
    row = QUESTION | {"q": "left of the red cube " * 300}
    _, found = tokens(tmp_path, tokenizer, TVQA(truncation="subtitles"), row, "green")
    text, _ = tokens(tmp_path, tokenizer, TVQA(), row, "green")
    assert found == tokenizer(text.replace(" green", ""), truncation=True, max_length=600)["input_ids"]


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("method", ["vl-pet-large", "lst"])
def test_masked_frames_are_as_if_they_were_not_there(family, method):
    """Against the same model on clips without their padding."""
    models = []
    for frames in (9, 4):
        torch.manual_seed(0)
        model = build(TINY[family], Visual(width=12, tokens=frames, pooled=frames))
        design = build_method(MethodSpec(method), model.anatomy).design(model.anatomy)
        models.append(attach(model, design, ("tvc", "tvqa")).double().eval())
    padded, short = models
    short.load_state_dict(padded.state_dict())
    padded.masks_empty = frozenset({"tvqa"})
    batch = tiny_batch() | {"task": "tvqa"}
    features = batch["features"].double()
    cut = batch | {"features": features[:, :, :4]}
    features = torch.where(torch.arange(9)[:, None] < 4, features, 0.0)
    with torch.no_grad():
        expected = short(**cut)
        masked, attended = (padded(**batch | {"features": features, "task": task}) for task in ("tvqa", "tvc"))
    torch.testing.assert_close(masked, expected)
    assert not torch.allclose(attended, masked, atol=1e-6)


# a trial -------------------------------------------------------------------------------------------------------------


def test_a_trial_with_every_option_changed(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    root = tmp_path / "root"
    for task in (TVQA, TVC):
        row = FILES[task][2]
        other = row | {"qid": 8, "descs": [{"desc": "She runs.", "desc_id": 21}]}
        write(root, task, other, split="train")
        second = row | {"qid": 9, "clip_id": 4, "descs": [{"desc": "They hug.", "desc_id": 31}]}
        write(root, task, row, second, features=rng.standard_normal((40, 512)).astype(np.float16))
    masked, train = [], run.train
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "train", lambda trial: (masked.append(trial.model.masks_empty), train(trial)))
    recipe = {"max_steps": 3, "batch_size": 2, "epochs": 2}
    protocol = {
        "tvqa": {"truncation": "subtitles", "padded_frames": "masked"},
        "tvc": {"unit": "clip", "max_target": 40, "max_length": 40},
    }
    spec = resolve("mini-bart", MethodSpec("lora"), "video-text/tvqa+tvc", 0, recipe=recipe, protocol=protocol)
    result = run.run_trial(spec, Runtime(out=tmp_path / "out", data=root, device="cpu", threads=1))
    assert masked == [frozenset({"tvqa"})]
    assert result.spec["protocol"] == protocol
    assert {task: next(iter(scores)) for task, scores in result.metrics.items()} == {"tvqa": "accuracy", "tvc": "CIDEr"}
    assert all(next(iter(scores.values())).n == 2 for scores in result.metrics.values())
    assert {(point.split, point.task) for point in result.curve} >= {("valid", "tvqa"), ("valid", "tvc")}
