"""Examples whose images cannot be had any more: refused, or dropped in every split and said to be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pet_bench.errors import UserError
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.plan.spec import parse
from pet_bench.metrics.scores import mean
from pet_bench.report import tables
from pet_bench.results import dropped, predictions, store
from pet_bench.results.check import check
from pet_bench.spec import Runtime
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.trial.score import score_trial
from tests.test_cli import call  # noqa: F401

SUITE = "mini-image-text/nlvr2"
GONE = ("train-0-0-img0", "train-0-1-img1", "test1-0-0-img0", "test1-0-0-img1")


@pytest.fixture
def grid():
    names = {"name": "x", "suites": [SUITE], "backbones": ["mini-bart"], "methods": ["projector-only"], "seeds": [0]}
    return parse(names | {"recipe": {"max_steps": 1, "valid_every": 0, "batch_size": 24}})


@pytest.fixture
def data(world, tmp_path):
    return Path(shutil.copytree(world / "nlvr", tmp_path / "data" / "nlvr")).parent


def remove(data):
    lost = {name: NLVR2().feature_path(data, f"nlvr/{name}") for name in GONE}
    content = {path: path.read_bytes() for path in lost.values()}
    for path in content:
        path.unlink()
    return content


def test_what_lacks_a_picture_is_refused_or_dropped_and_never_mixed(grid, data, tmp_path, call):  # noqa: F811
    before = {split: NLVR2().examples(data, split) for split in ("train", "valid", "test")}
    lost = {
        split: [e.id for e in examples if any(key.partition("/")[2] in GONE for key in e.images)]
        for split, examples in before.items()
    }
    content = remove(data)
    runtime = Runtime(tmp_path / "out", data, "cpu", 1)
    with pytest.raises(UserError, match="is missing"):
        run_grid(grid, runtime, "inline")

    dropping = replace(runtime, missing_features="drop")
    run_grid(grid, dropping, "inline")
    (trial,) = grid.trials()
    path = runtime.out / f"{trial.id}.json"
    result = store.load(path)
    numbers = {split: len(ids) for split, ids in lost.items() if ids and split != "valid"}
    assert result.dropped == {"nlvr2": numbers} and numbers["train"] > 1 < numbers["test"]
    assert json.loads((runtime.out / trial.id / "dropped.json").read_text()) == {
        "nlvr2": {split: lost[split] for split in numbers}
    }
    scores = predictions.read(runtime.out / result.predictions["nlvr2"])
    assert scores.keys() == {e.id for e in before["test"]} - set(lost["test"])
    assert result.metrics["nlvr2"]["accuracy"].value == mean([score for _, score in scores.values()])
    assert check(runtime.out) == []
    said = f"nlvr2 {numbers['train']} training, {numbers['test']} test"
    frame = store.to_frame([result])
    assert f"caution: without examples whose images are missing ({said}): all trials" in tables.notes(frame)
    (scored,) = score_trial(path, data)
    assert scored.scores.values == scored.old
    code, out, _ = call("data", "check", data, "--suite", SUITE)
    assert code == 1 and f"--missing-features drop would leave out {sum(numbers.values())} examples: {said}" in out

    assert run_grid(grid, dropping, "inline").skipped == (trial.id,)
    with pytest.raises(UserError, match="is missing"):  # what lacks examples does not count as the whole
        run_grid(grid, runtime, "inline")
    assert store.load(path) == result
    for file, bytes_ in content.items():
        file.write_bytes(bytes_)
    assert run_grid(grid, runtime, "inline").skipped == ()
    whole = store.load(path)
    assert whole.dropped == {} and not (runtime.out / trial.id / "dropped.json").exists()
    assert whole.provenance.data != result.provenance.data
    assert run_grid(grid, dropping, "inline").skipped == (trial.id,)


def test_a_list_that_does_not_fit_the_counts_is_a_fault(grid, data, tmp_path):
    remove(data)
    runtime = Runtime(tmp_path / "out", data, "cpu", 1, missing_features="drop")
    run_grid(grid, runtime, "inline")
    place = dropped.place(runtime.out, grid.trials()[0].id)
    listed = dropped.read(place)
    dropped.write(place, {"nlvr2": {"test": listed["nlvr2"]["test"]}})
    assert ["are listed" in fault for fault in check(runtime.out)] == [True]
    place.unlink()
    assert ["dropped.json" in fault and "missing" in fault for fault in check(runtime.out)] == [True]


def test_a_split_of_which_nothing_is_left(data):
    for key in {key for example in NLVR2().examples(data, "test") for key in example.images}:
        NLVR2().feature_path(data, key).unlink()
    with pytest.raises(UserError, match='split "test": each of its examples lacks a feature'):
        NLVR2().used(data, "test", "drop")
