"""Results that a trial ends with and that nobody should trust: training that diverged, predictions that collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pet_bench.data.task import Example, Task

ENOUGH = 20  # examples, from which on equal predictions are no coincidence
MARGIN = 1.0  # points above the majority answer that may be luck


class Diverged(Exception):
    """The loss is not finite; the message names task, value, step and learning rate."""


def suspicions(
    task: Task, predictions: Mapping[str, str], examples: Sequence[Example], primary: float, majority: float
) -> list[str]:
    """What speaks against a task's test predictions, a line each.

    They are all the same although the best answers are not; or the answers are closed (`Task.closed`) and the primary
    score is no more than a point above the majority answer's.
    """
    lines = []
    best = {max(example.targets, key=lambda pair: pair[1])[0] for example in examples if example.targets}
    if len(examples) >= ENOUGH and len(set(predictions.values())) == 1 < len(best):
        lines.append(f'{task.name}: all {len(predictions)} predictions are "{next(iter(predictions.values()))}"')
    if task.closed and primary <= majority + MARGIN:
        lines.append(f"{task.name} is at chance: {primary:.2f}, the majority answer has {majority:.2f}")
    return lines
