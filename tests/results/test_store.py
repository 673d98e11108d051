from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pet_bench.errors import UserError
from pet_bench.files import write_text
from pet_bench.results import store
from pet_bench.results.schema import SCHEMA_VERSION, Point, Record, Run, TrialResult


def test_round_trip(make_result, tmp_path):
    result = make_result()
    path = store.save(result, tmp_path)
    assert path == tmp_path / f"{result.id}.json"
    assert store.load(path) == result
    assert store.load_all(tmp_path) == {result.id: result}
    assert store.finished(tmp_path) == {result.id}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_losses_of_a_diverged_trial_that_json_has_no_word_for(make_result, tmp_path, value):
    result = make_result(status="suspect", error="the loss is not finite")
    result.curve = [Point(step=4, epoch=1.0, split="train", task="vqa", loss=abs(value))]
    path = store.save(result, tmp_path)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert repr(store.load(path).curve[0].loss) == repr(abs(value))
    path.write_text(path.read_text().replace('"suspect"', '"done"').replace('"the loss is not finite"', "null"))
    with pytest.raises(UserError, match=f"curve.0.loss is {abs(value)}"):
        store.load(path)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt) if broken == "fsync" else monkeypatch.setattr(
        Path, "replace", interrupt
    )
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "old"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"done"', '"finished"'),
        lambda text: text.replace('"schema_version":', '"unknown": 1, "schema_version":'),
        lambda text: text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'),
        lambda text: text.replace('"schema_version"', '"version"'),
        lambda text: text.replace('"id": "', '"id": "0', 1),
        lambda text: "\ud800".encode("utf-16", "surrogatepass"),
    ],
)
def test_a_damaged_file_is_named_and_kept(make_result, tmp_path, damage):
    path = store.save(make_result(), tmp_path)
    damaged = damage(path.read_text())
    damaged = damaged if isinstance(damaged, bytes) else damaged.encode()
    path.write_bytes(damaged)
    for read in (store.load_all, store.finished):
        with pytest.raises(UserError, match=path.name):
            read(tmp_path)
    results, faults = store.scan(tmp_path)
    assert results == {}
    assert len(faults) == 1
    assert path.read_bytes() == damaged


def test_a_file_under_another_name_is_refused(make_result, tmp_path):
    path = store.save(make_result(), tmp_path)
    path.rename(tmp_path / "000000000000.json")
    with pytest.raises(UserError, match="000000000000"):
        store.load_all(tmp_path)


RANKED = [
    {"status": "done"},
    {"status": "suspect", "error": "collapsed"},
    {"status": "suspect", "error": "the loss is nan", "metrics": {}, "average": None},
    {"status": "stopped_early", "error": "by the search", "metrics": {}, "average": None},
    {"status": "oom", "error": "no memory", "metrics": {}, "average": None},
]


@pytest.fixture
def ranked(make_result):
    """A result of each rank, the highest first, all of the same trial."""
    return [make_result().model_copy(update=change) for change in RANKED]


@pytest.mark.parametrize("new", range(len(RANKED)))
@pytest.mark.parametrize("held", range(len(RANKED)))
def test_a_result_is_never_replaced_by_a_lesser_one(ranked, tmp_path, held, new):
    store.save(ranked[held], tmp_path)
    path = store.save(ranked[new], tmp_path)
    assert store.load(path) == ranked[min(held, new)]


def test_of_equal_results_the_newer_is_kept(make_spec, make_result, tmp_path):
    before = store.save_failure(make_spec(), tmp_path, "no memory", status="oom", started="2026-01-01T00:00:00+00:00")
    after = store.save_failure(make_spec(), tmp_path, "no luck", started="2026-01-01T00:00:00+00:00")
    assert store.load_all(tmp_path) == {before.id: after}


def test_finished_are_the_done_and_the_suspect(ranked, tmp_path):
    for result, expected in zip(ranked, [True, True, True, False, False], strict=True):
        out = tmp_path / f"{result.status}-{bool(result.metrics)}"
        store.save(result, out)
        assert store.finished(out) == ({result.id} if expected else set())
        assert store.finished(out, also=["stopped_early", "oom"]) == {result.id}


def test_a_failure_says_its_first_line_how_it_ran_and_no_folder(make_spec, tmp_path):
    error = '\n ValueError: "/home/me/data/vqa/train.json" is not in ~/x/y and/or https://a.b/c\nsecond'
    failed = store.save_failure(make_spec(), tmp_path, error, started="2026-01-01T00:00:00+00:00", run=Run(resumed=[3]))
    assert failed.error == 'ValueError: "…/train.json" is not in …/y and/or https://a.b/c'
    assert failed.run.resumed == [3]
    assert store.load_all(tmp_path) == {failed.id: failed}


def test_saving_over_an_unreadable_file_keeps_it(make_result, tmp_path):
    result = make_result()
    (tmp_path / f"{result.id}.json").write_text("half")
    store.save(result, tmp_path)
    assert store.finished(tmp_path) == {result.id}
    assert (tmp_path / f"{result.id}.json.unreadable").read_text() == "half"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        store.check_writable(tmp_path / "file" / "out")


def test_to_frame_has_a_row_per_trial_task_and_metric(make_result, make_spec, tmp_path):
    failed = store.save_failure(make_spec(seed=1), tmp_path, "no", started="2026-01-01T00:00:00+00:00")
    frame = store.to_frame([make_result(vqa=61.0, gqa=41.0), failed], missing=[make_spec(seed=2)])
    assert list(frame.columns) == store.COLUMNS
    assert list(frame.status) == ["done"] * 4 + ["failed", "missing"]
    rows = frame[frame.primary.eq(True)]
    assert dict(zip(rows.task, rows.value, strict=True)) == {"vqa": 61.0, "gqa": 41.0}
    assert frame.setup.nunique() == 1
    assert store.to_frame([make_result(epochs=3)]).setup[0] != frame.setup[0]


@pytest.mark.parametrize("record", [TrialResult, *Record.__subclasses__()])
def test_every_key_of_the_schema_is_described(record):
    assert [name for name, field in record.model_fields.items() if not field.description] == []
