from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pet_bench.errors import UserError
from pet_bench.results import store
from pet_bench.results.schema import Record, TrialResult


def test_round_trip(make_result, tmp_path):
    result = make_result()
    path = store.save(result, tmp_path)
    assert path == tmp_path / f"{result.id}.json"
    assert store.load(path) == result
    assert store.load_all(tmp_path) == {result.id: result}
    assert store.finished(tmp_path) == {result.id}


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_values_that_json_has_no_word_for(make_result, tmp_path, value):
    path = store.save(make_result(vqa=value), tmp_path)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert store.load(path).metrics["vqa"]["accuracy"].value == value


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.json"
    store.write_text(path, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt) if broken == "fsync" else monkeypatch.setattr(
        Path, "replace", interrupt
    )
    with pytest.raises(KeyboardInterrupt):
        store.write_text(path, "new")
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
        lambda text: text.replace('"schema_version": 1', '"schema_version": 99'),
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


def test_a_failure_never_replaces_a_done_result(make_result, make_spec, tmp_path):
    done = make_result()
    path = store.save(done, tmp_path)
    store.save_failure(make_spec(), tmp_path, "out of luck", started=done.provenance.started)
    assert store.load(path) == done


def test_a_done_result_replaces_a_failure(make_result, make_spec, tmp_path):
    failed = store.save_failure(
        make_spec(), tmp_path, "\n ValueError: first\nsecond", status="oom", started="2026-01-01T00:00:00+00:00"
    )
    assert (failed.status, failed.error) == ("oom", "ValueError: first")
    assert store.finished(tmp_path) == set()
    store.save(make_result(), tmp_path)
    assert store.finished(tmp_path) == {failed.id}


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


def test_merge(make_result, make_spec, tmp_path):
    first, second, third = (make_result(seed=seed) for seed in range(3))
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    store.save(first, a)
    store.save_failure(make_spec(seed=1), a, "no", started="2026-01-01T00:00:00+00:00")
    store.save(second, b)
    store.write_text(b / second.id / "predictions.vqa.jsonl", "{}\n")
    store.save(third, out)
    assert sorted(store.merge([a, b], out)) == sorted([first.id, second.id])
    assert store.load_all(out) == {result.id: result for result in (first, second, third)}
    assert (out / second.id / "predictions.vqa.jsonl").is_file()
    assert store.merge([a, b], out) == []


def test_merge_refuses_different_scores_and_missing_folders(make_result, tmp_path):
    store.save(make_result(vqa=1.0), tmp_path / "a")
    store.save(make_result(vqa=2.0), tmp_path / "b")
    with pytest.raises(UserError) as caught:
        store.merge([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "out")
    assert len(caught.value.faults) == 2
    assert not (tmp_path / "out").exists()


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
