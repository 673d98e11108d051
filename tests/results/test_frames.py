"""Results as tidy frames: every number of the result files is there once, under its trial."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import pet_bench
from pet_bench.errors import UserError
from pet_bench.results import frames, predictions, store
from pet_bench.results.schema import Part, Point

CURVE = [
    Point(step=5, epoch=0.5, split="train", task="vqa", loss=2.0),
    Point(step=10, epoch=1.0, split="valid", task="vqa", metrics={"accuracy": 50.0, "accuracy-number": 20.0}),
    Point(step=10, epoch=1.0, split="train", loss=1.0),
]


ANSWERS = "yes", "no"


@pytest.fixture
def folder(make_result, tmp_path):
    for method in ("lora", "full"):
        for seed in (0, 1):
            result = make_result(method=method, seed=seed)
            result.curve, result.cost.steps = CURVE, 10
            result.breakdowns = {"vqa": {"question type": {"how many": Part(value=40.0, n=3)}}}
            result.predictions = {"vqa": predictions.name(result.id, "vqa")}
            score = result.metrics["vqa"]["accuracy"]
            answers = {str(number): ANSWERS[number % 2] for number in range(score.n)}
            scores = dict.fromkeys(answers, score.value)
            predictions.write(tmp_path / "a" / result.predictions["vqa"], answers, scores)
            store.save(result, tmp_path / "a")
    return tmp_path / "a"


def test_scores(folder):
    frame = pet_bench.load_results(folder)
    assert set(frame.folder) == {str(folder)}
    expected = store.to_frame(store.load_all(folder).values())
    pd.testing.assert_frame_equal(frame.drop(columns="folder"), expected)


def test_curves(folder):
    frame = pet_bench.load_curves(folder)
    assert list(frame.columns[: len(frames.KEYS)]) == frames.KEYS
    one = frame[(frame.method == "lora") & (frame.seed == 1)]
    assert one[["step", "epoch", "split", "measure", "value", "primary"]].to_numpy().tolist() == [
        [5, 0.5, "train", "loss", 2.0, False],
        [10, 1.0, "valid", "accuracy", 50.0, True],
        [10, 1.0, "valid", "accuracy-number", 20.0, False],
        [10, 1.0, "train", "loss", 1.0, False],
    ]
    assert one.task.isna().tolist() == [False, False, False, True]


def test_breakdowns_and_predictions(folder):
    parts = pet_bench.load_breakdowns(folder)
    assert len(parts) == 4
    assert set(zip(parts.task, parts.group, parts.part, parts.value, parts.n, strict=True)) == {
        ("vqa", "question type", "how many", 40.0, 3)
    }
    found = pet_bench.load_predictions(folder)
    one = found[found.id == found.id[0]]
    score = store.load(folder / f"{found.id[0]}.json").metrics["vqa"]["accuracy"]
    assert one[["task", "example", "prediction"]].to_numpy().tolist() == [
        ["vqa", str(number), ANSWERS[number % 2]] for number in range(score.n)
    ]
    np.testing.assert_array_equal(one.score, [score.value] * score.n)
    file = folder / predictions.name(found.id[0], "vqa")
    predictions.write(file, {"1": "yes"}, {"1": 100.0})
    with pytest.raises(UserError, match="has 1 predictions"):
        pet_bench.load_predictions(folder)
    for file in folder.glob("*/predictions*"):
        file.unlink()
    assert pet_bench.load_predictions(folder).empty  # not kept
    assert list(pet_bench.load_predictions(folder).columns) == list(found.columns)


def test_settings_are_those_of_the_specs(folder):
    frame = pet_bench.load_settings(folder).set_index("id")
    for id, result in store.load_all(folder).items():
        spec, row = result.spec, frame.loc[id]
        assert row["method.name"] == spec["method"]["name"]
        assert row["recipe.lr"] == spec["recipe"]["lr"]
        for name, value in spec["method"]["options"].items():
            if not isinstance(value, dict | list):
                assert row[f"method.{name}"] == value


def test_nested_settings(make_result):
    spec = make_result().spec
    spec["method"]["options"] = {"decoder": {"cross_attn.value": "parallel"}, "train": ["norms"]}
    flat = frames._flat(spec)
    assert flat["method.decoder.cross_attn.value"] == "parallel"
    assert flat["method.train"] == ("norms",)


def test_a_trial_of_two_folders_is_there_once_and_at_its_best(folder, make_result, tmp_path):
    other = tmp_path / "b"
    again, new = make_result(method="lora", seed=0, vqa=1.0), make_result(method="bitfit")
    for result in (again, new):
        store.save(result, other)
    failed = make_result(method="lora", seed=1, status="failed", error="no")
    store.save(failed, other)
    for sources in ((folder, other), (other, folder)):
        frame = pet_bench.load_results(*sources).drop_duplicates("id").set_index("id")
        assert len(frame) == 5
        assert frame.folder[again.id] == str(sources[0])
        assert frame.folder[failed.id] == str(folder)
        assert frame.folder[new.id] == str(other)


def test_names_mean_folders_in_results(folder, monkeypatch):
    (folder.parent / "results").mkdir()
    folder.rename(folder.parent / "results" / "mine")
    monkeypatch.chdir(folder.parent)
    assert len(pet_bench.load_settings("mine")) == len(pet_bench.load_settings()) == 4
    with pytest.raises(UserError) as error:
        pet_bench.load_results("yours", "results/theirs", "mine")
    assert list(error.value.faults) == [
        'results folder "results/yours" does not exist', 'results folder "results/theirs" does not exist',
    ]  # fmt: skip


def test_there_is_nothing_else_to_import():
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        pet_bench.load_everything  # noqa: B018
