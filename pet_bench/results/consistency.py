"""Whether what a result says agrees with itself; nothing beside its file is looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pet_bench.errors import UserError
from pet_bench.metrics.scores import averages, bounds, possible
from pet_bench.results.schema import Part, Score, TrialResult
from pet_bench.spec import TrialSpec


def contradictions(result: TrialResult) -> list[str]:
    """What cannot be true of one trial, a line each, beginning with the key where it is one key's."""
    checks = _spec, _status, _scores, _average, _breakdowns, _parameters, _curve, _aside, _times
    return [line for check in checks for line in check(result)]


def same(a: float | None, b: float | None) -> bool:
    """Whether two numbers are the same but for rounding."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def primary(result: TrialResult, task: str | None) -> tuple[str, Score | None]:
    """Name and score of a task's primary metric; "" and None where it was not scored."""
    return next(iter(result.metrics.get(task or "", {}).items()), ("", None))


def unlike(score: Score, metric: str, kept: Mapping[str, tuple[str, float | None]], name: str) -> str:
    """Why predictions (`results.predictions.read`), kept in `name`, did not give that score; nothing where they may."""
    if len(kept) != score.n:
        return f'"{name}" has {len(kept)} predictions, but {score.n} were scored'
    mean = sum(one for _, one in kept.values() if one is not None) / len(kept)
    if averages(metric) and not same(score.value, mean):
        return f'{metric} is {score.value}, but the mean score in "{name}" is {mean}'
    return ""


def _spec(result: TrialResult) -> Iterator[str]:
    try:
        spec = _trial(result.spec)
    except UserError as error:
        yield from error.faults
        return
    if spec.id != result.id:
        yield f"its spec is that of trial {spec.id}"


def _trial(spec: dict[str, Any]) -> TrialSpec:
    """As `TrialSpec.from_dict`: what trials of several seeds have in common is read once."""
    if type(seed := spec.get("seed")) is int and 0 <= seed < 2**32:
        return _of_seed_0(json.dumps(spec | {"seed": 0})).seeded(seed)
    return TrialSpec.from_dict(spec)


@lru_cache
def _of_seed_0(spec: str) -> TrialSpec:
    return TrialSpec.from_dict(json.loads(spec))


def _status(result: TrialResult) -> Iterator[str]:
    if result.status == "done":
        if result.error is not None:
            yield f"it is done, but has an error: {result.error}"
        for name in ("metrics", "average", "parameters", "cost"):
            if getattr(result, name) in (None, {}):
                yield f"it is done, but has no {name}"
    elif not result.error:
        yield f"it is {result.status}, but does not say why"


def _tasks(result: TrialResult) -> set[str]:
    tasks = result.spec.get("tasks")
    return {task for task in tasks if isinstance(task, str)} if isinstance(tasks, list) else set()


def _scores(result: TrialResult) -> Iterator[str]:
    if result.metrics and (odd := _tasks(result) ^ result.metrics.keys()):
        yield f"tasks of its spec and tasks with scores differ in {', '.join(sorted(odd))}"
    for task in sorted(result.predictions.keys() - _tasks(result)):
        yield f'predictions: "{task}" is not among its tasks'
    for task, name in result.predictions.items():
        if not name.startswith(f"{result.id}/") or ".." in name.split("/"):
            yield f'{task}: predictions "{name}" are not in {result.id}/'
    for task, scores in result.metrics.items():
        if not scores:
            yield f"metrics.{task} has no scores"
        for name, score in scores.items():
            yield from _possible(score.value, name, f"metrics.{task}.{name}.value")
            if score.majority is not None:
                yield from _possible(score.majority, name, f"metrics.{task}.{name}.majority")
        if len(counts := {score.n for score in scores.values()}) > 1:
            yield f"metrics.{task}: its metrics are over {' and '.join(map(str, sorted(counts)))} examples"


def _possible(value: float, metric: str, place: str) -> Iterator[str]:
    if not possible(metric, value):
        low, high = bounds(metric)
        yield f"{place} is {value}, which {metric} cannot be (possible: {low:g} to {high:g})"


def _average(result: TrialResult) -> Iterator[str]:
    values = [next(iter(scores.values())).value for scores in result.metrics.values() if scores]
    mean = sum(values) / len(values) if values else None
    if not same(result.average, mean):
        yield f"its average is {result.average}, the mean of the tasks' primary metrics {mean}"


def _breakdowns(result: TrialResult) -> Iterator[str]:
    for task, groups in result.breakdowns.items():
        metric, whole = primary(result, task)
        if whole is None:
            yield f"breakdowns.{task} is of a task without scores"
            continue
        for group, parts in groups.items():
            for name, part in parts.items():
                yield from _possible(part.value, metric, f"breakdowns.{task}.{group}.{name}.value")
            counted = sum(part.n for part in parts.values())
            if counted > whole.n:
                yield f'{task}: {counted} examples by "{group}", but {whole.n} were scored'
            elif counted == whole.n and not same(whole.value, mean := _mean(parts, counted)) and averages(metric):
                yield f'{task}: {metric} is {whole.value}, but its mean over the parts by "{group}" is {mean}'


def _mean(parts: dict[str, Part], count: int) -> float:
    return sum(part.value * part.n for part in parts.values()) / count


def _parameters(result: TrialResult) -> Iterator[str]:
    if counts := result.parameters:
        if not counts.trainable <= counts.total:
            yield f"{counts.trainable} of {counts.total} parameters are trainable"
        elif not same(counts.percent, 100 * counts.trainable / counts.total if counts.total else 0.0):
            yield f"percent is {counts.percent}, but {counts.trainable} of {counts.total} parameters are trainable"
        if (together := sum(counts.groups.values())) != counts.trainable:
            yield f"its groups have {together} parameters together, but {counts.trainable} are trainable"
        for name, shares in (("parts", counts.parts), ("stacks", counts.stacks)):
            for key in ("trainable", "total"):
                expected, together = getattr(counts, key), sum(getattr(share, key) for share in shares.values())
                if shares and together != expected:
                    yield f"its {name} have {together} {key} parameters together, but there are {expected}"


def _curve(result: TrialResult) -> Iterator[str]:
    """Points in order, of known tasks, within the run and each once; what was selected within the run too."""
    tasks, steps, seen = _tasks(result), result.cost.steps if result.cost else math.inf, set()
    for index, point in enumerate(result.curve):
        place = f"curve.{index}"
        if point.task is not None and point.task not in tasks:
            yield f'{place}.task is "{point.task}", which is not among its tasks'
        if point.step > steps:
            yield f"{place}.step is {point.step}, but {steps} updates were made"
        if point.loss is None and not point.metrics:
            yield f"{place} has neither a loss nor metrics"
        if point.loss is not None and (point.loss < 0 or (result.status == "done" and not math.isfinite(point.loss))):
            yield f"{place}.loss is {point.loss}"
        for name, value in point.metrics.items():
            yield from _possible(value, name, f"{place}.metrics.{name}")
        if (what := (point.step, point.split, point.task)) in seen:
            yield f"{place} is there for the second time: {point.split}, {point.task or 'all tasks'}, step {point.step}"
        seen.add(what)
    for index, (before, after) in enumerate(pairwise(result.curve), start=1):
        if after.step < before.step or after.epoch < before.epoch:
            yield (
                f"curve.{index} is out of order: step {after.step}, epoch {after.epoch:g} after step {before.step}, "
                f"epoch {before.epoch:g}"
            )
    if result.status == "done" and result.curve and (last := result.curve[-1].step) < steps < math.inf:
        yield f"its curve ends at step {last}, but {steps} updates were made"
    if (chosen := result.selected) and not (chosen.step <= steps and math.isfinite(chosen.score)):
        yield f"selected is step {chosen.step} with score {chosen.score}, but {steps} updates were made"


def _aside(result: TrialResult) -> Iterator[str]:
    """What a tested model takes, by tasks of its own and merged in full or not at all, and what it forgot."""
    for name in ("inference", "forgetting"):
        if getattr(result, name) and not result.metrics:
            yield f"it was not tested, but has {name}"
    for task in sorted(result.inference.keys() - _tasks(result)):
        yield f'inference: "{task}" is not among its tasks'
    for task, taken in result.inference.items():
        if (taken.merged_flops is None) != (taken.merged_latency_seconds is None):
            yield f"inference.{task} has one of merged_flops and merged_latency_seconds, and not the other"
    for kind, losses in result.forgetting.items():
        if not 0 <= losses.before < math.inf:
            yield f"forgetting.{kind}.before is {losses.before}"
        if losses.after < 0:
            yield f"forgetting.{kind}.after is {losses.after}"


def _times(result: TrialResult) -> Iterator[str]:
    times = {}
    for name in ("started", "finished"):
        text = getattr(result.provenance, name)
        try:
            times[name] = datetime.fromisoformat(text)
            if times[name].tzinfo is None:
                raise ValueError
        except ValueError:
            yield f'"{text}" ({name}) is not a time with its zone in ISO 8601'
            return
    if times["finished"] < times["started"]:
        yield f"it finished ({result.provenance.finished}) before it started ({result.provenance.started})"
