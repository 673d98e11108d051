from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml

from pet_bench.files import write_text
from pet_bench.grid.plan.spec import parse
from pet_bench.results import predictions, store
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Cost, Parameters, Part, Point, Run, Score, Selected, TrialResult
from pet_bench.spec import MethodSpec, Recipe, TrialSpec, Visual


@pytest.fixture
def make_spec():
    def make(method="lora", seed=0, control="none", label=None, backbone="bart-base", protocol=None, **recipe):
        return TrialSpec(
            backbone=backbone,
            method=MethodSpec(method),
            suite="image-text",
            tasks=("vqa", "gqa"),
            visual=Visual(8, 9, 9),
            seed=seed,
            recipe=Recipe(**{"lr": 1e-3, **recipe}),
            control=control,
            protocol=protocol or {},
            label=label or method,
        )

    return make


@pytest.fixture
def make_result(make_spec):
    def make(
        vqa=60.0, gqa=40.0, trainable=10, majority=25.0, commit="c0", data="d0",
        status="done", error=None, run=None, n=7, steps=4, **spec,
    ):  # fmt: skip
        trial = make_spec(**spec)
        scores = {"vqa": vqa, "gqa": gqa}
        origin = provenance("2026-01-01T00:00:00+00:00", device="cpu", threads=1, data=data)
        return TrialResult(
            id=trial.id,
            status=status,
            error=error,
            spec=trial.to_dict(),
            provenance=origin.model_copy(update={"commit": commit, "dirty": False}),
            run=run or Run(),
            parameters=Parameters(
                trainable=trainable, total=1000, percent=trainable / 10, groups={"encoder.delta": trainable}
            ),
            metrics={
                task: {
                    "accuracy": Score(value=value, split="test", n=n, majority=majority),
                    "extra": Score(value=1.0, split="test", n=n),
                }
                for task, value in scores.items()
            },
            average=(vqa + gqa) / 2,
            cost=Cost(
                train_seconds=3.0,
                eval_seconds=1.0,
                peak_memory_bytes=5,
                examples_per_second=2.0,
                steps=steps,
                adapter_bytes=40,
            ),
        )

    return make


GRID = {"name": "g", "suites": ["image-text/vqa+gqa"], "backbones": ["bart-base"], "methods": ["lora", "full"]}
EXAMPLES, STEPS = 8, 6
CURVE = [
    Point(step=3, epoch=1.0, split="train", task="vqa", loss=2.0),
    Point(step=3, epoch=1.0, split="valid", task="vqa", metrics={"accuracy": 50.0}),
    Point(step=6, epoch=2.0, split="train", task="gqa", loss=1.0),
    Point(step=6, epoch=2.0, split="train", loss=1.5),
]


@cache
def trials():
    return parse(GRID, "g").trials()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "g"


@pytest.fixture
def results_of_a_grid(made_once, make_result, tmp_path, monkeypatch):
    """results/g in the working folder: whole results of two methods, with their predictions and their grid.

    lora is right on 4 of vqa's 8 examples and full on 6; both are right on 2 of gqa's.
    """
    if not made_once.exists():
        write_text(made_once / "grid.yaml", yaml.safe_dump(GRID))
        for trial, right in zip(trials(), (4, 6), strict=True):
            result = make_result(n=EXAMPLES, steps=STEPS, vqa=100 * right / EXAMPLES, gqa=25.0)
            result.id, result.spec = trial.id, trial.to_dict()
            result.curve, result.selected = CURVE, Selected(step=3, epoch=1.0, score=50.0)
            result.predictions = {task: predictions.name(result.id, task) for task in result.metrics}
            parts = {"yes": Part(value=100.0, n=right), "no": Part(value=0.0, n=EXAMPLES - right)}
            result.breakdowns = {"vqa": {"answer": parts, "some": {"red": Part(value=50.0, n=2)}}}
            for task, hits in (("vqa", right), ("gqa", 2)):
                scores = {str(i): 100.0 * (i < hits) for i in range(EXAMPLES)}
                predictions.write(made_once / result.predictions[task], dict.fromkeys(scores, "yes"), scores)
            store.save(result, made_once)
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made_once, "results/g"))
