"""A process of a trial other than its first, which tells it on standard input what the trial is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pet_bench.pet.frozen import tensors_of
from pet_bench.pet.sharded import shard
from pet_bench.registry import load_plugin
from pet_bench.spec import Runtime, TrialSpec, validate
from pet_bench.trial.build import build_trial
from pet_bench.trial.evaluate import evaluate
from pet_bench.trial.ranks import Ranks, device_of, met
from pet_bench.trial.suspect import Diverged
from pet_bench.trial.train import checkpoints_of, train


def follow(spec: TrialSpec, runtime: Runtime, rank: int, meet: Path) -> None:
    """Do what rank 0 does, but for all that it writes."""
    trial = build_trial(spec, replace(runtime, device=device_of(rank, runtime)))
    trial.ranks = Ranks(rank, runtime.ranks, runtime.shard)
    trial.checkpoints = checkpoints_of(trial, runtime)
    (meet.parent / str(rank)).touch()
    with met(rank, runtime, meet), suppress(Diverged):  # which all of them see
        if runtime.shard:
            shard(trial.model, trial.device)
        train(trial)
        if runtime.shard:  # which rank 0 saves
            for _ in tensors_of(trial.model):
                pass
        for task in trial.data.tasks:
            evaluate(trial, task, "test")


def main(lines: Iterable[str]) -> None:
    told = json.loads("".join(lines))
    runtime = validate(Runtime, told["runtime"], "runtime")
    for plugin in runtime.plugins:
        load_plugin(plugin)
    follow(TrialSpec.from_dict(told["spec"]), runtime, told["rank"], Path(told["meet"]))


if __name__ == "__main__":
    main(sys.stdin)
