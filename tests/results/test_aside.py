"""What answers take and what was forgotten, in results, frames and what contradicts itself."""

from __future__ import annotations

import json

import pytest

import pet_bench
from pet_bench.errors import UserError
from pet_bench.results import store
from pet_bench.results.schema import Forgetting, Inference
from tests.conftest import ROOT, part

TEXT = "0123456789ab"


@pytest.fixture
def result(make_result):
    made = make_result()
    made.inference = {
        "vqa": Inference(batch_size=7, latency_seconds=0.1, flops=30.0, merged_latency_seconds=0.05, merged_flops=20.0),
        "gqa": Inference(batch_size=7, latency_seconds=0.3, flops=50.0, merged_latency_seconds=0.15, merged_flops=40.0),
    }
    made.forgetting = {
        "text": Forgetting(before=1.0, after=1.5, tokens=9, text=TEXT),
        "vqa": Forgetting(before=0.5, after=0.25, tokens=9, text=TEXT),
        "nlvr2": Forgetting(before=0.5, after=2.25, tokens=9, text=TEXT),
    }
    made.cost.p99_memory_bytes = 4
    return made


def test_they_are_written_and_read(result, tmp_path):
    assert store.load(store.save(result, tmp_path)) == result


def test_a_frame_has_means_over_tasks(result):
    frame = store.to_frame([result])
    (row,) = frame.drop_duplicates("id").to_dict("records")
    expected = {
        "p99_memory_bytes": 4, "latency_seconds": 0.2, "flops": 40.0, "merged_latency_seconds": 0.1,
        "merged_flops": 30.0, "forgetting": 0.5, "forgetting_tasks": 0.75,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert row["forgetting_text"] == f"text {TEXT}, vqa {TEXT}, nlvr2 {TEXT}"


def test_frames_have_a_row_for_each(result, make_result, tmp_path):
    store.save(result, tmp_path)
    store.save(make_result(method="full"), tmp_path)
    taken, forgot = pet_bench.load_inference(tmp_path), pet_bench.load_forgetting(tmp_path)
    assert set(taken.method) == set(forgot.method) == {"lora"}
    assert taken[["task", "flops", "merged_flops"]].to_numpy().tolist() == [["vqa", 30.0, 20.0], ["gqa", 50.0, 40.0]]
    assert forgot[["kind", "forgetting", "text"]].to_numpy().tolist() == [
        ["text", 0.5, TEXT], ["vqa", -0.25, TEXT], ["nlvr2", 1.75, TEXT],
    ]  # fmt: skip


def test_of_tasks_of_which_one_was_not_merged_there_is_no_mean(result):
    result.inference["gqa"].merged_flops = result.inference["gqa"].merged_latency_seconds = None
    frame = store.to_frame([result])
    assert frame.merged_flops.isna().all() and frame.flops.eq(40).all()


def test_results_of_before_have_none_and_are_written_as_they_were(make_result, tmp_path):
    result = make_result()
    written = json.loads(store.save(result, tmp_path).read_text())
    assert not {"inference", "forgetting"} & written.keys()
    assert "p99_memory_bytes" not in written["cost"]
    assert store.to_frame([result])[["flops", "forgetting", "p99_memory_bytes"]].isna().all(axis=None)


@pytest.mark.parametrize("path", part(sorted((ROOT / "results").glob("mini-*/*.json")), 20), ids=lambda path: path.stem)
def test_committed_results_get_nothing_of_it(path):
    result, written = store.load(path), json.loads(path.read_text())
    data = result.model_dump(mode="json")
    assert [key for key in ("inference", "forgetting") if key in data and key not in written] == []
    if result.cost and "p99_memory_bytes" not in written["cost"]:
        assert "p99_memory_bytes" not in data["cost"]


LOSSES = {"before": 1.0, "after": 1.0, "tokens": 1, "text": TEXT}
TAKEN = {"batch_size": 1, "latency_seconds": 1.0, "flops": 1.0}
WRONG = {
    "untested": (
        {"metrics": {}, "average": None, "status": "suspect", "error": "collapsed"},
        ["it was not tested, but has inference", "it was not tested, but has forgetting"],
    ),
    "strange": ({"inference.nlvr2": TAKEN}, ['inference: "nlvr2" is not among its tasks']),
    "half merged": (
        {"inference.vqa": TAKEN | {"merged_flops": 1.0}},
        ["inference.vqa has one of merged_flops and merged_latency_seconds, and not the other"],
    ),
    "before": ({"forgetting.text": LOSSES | {"before": -1.0}}, ["before is -1.0"]),
    "after": ({"forgetting.text": LOSSES | {"after": -1.0}}, ["after is -1.0"]),
    "no tokens": ({"forgetting.text": LOSSES | {"tokens": 0}}, ["forgetting.text.tokens"]),
    "no batch": ({"inference.vqa": TAKEN | {"batch_size": 0}}, ["inference.vqa.batch_size"]),
    "negative": ({"inference.vqa": TAKEN | {"latency_seconds": -1.0}}, ["latency_seconds"]),
    "no text": ({"forgetting.text": LOSSES | {"text": "?"}}, ["forgetting.text.text"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused(name, result, tmp_path):
    path = store.save(result, tmp_path)
    changes, said = WRONG[name]
    data = json.loads(path.read_text())
    for key, value in changes.items():
        *way, last = key.split(".")
        place = data
        for step in way:
            place = place[step]
        place[last] = value
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as error:
        store.load(path)
    assert all(line in str(error.value) for line in said), error.value
