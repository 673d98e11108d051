from __future__ import annotations

import pytest

from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Cost, Parameters, Run, Score, TrialResult
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
