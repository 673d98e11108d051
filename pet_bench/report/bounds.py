"""What a score can be: no bar or band goes beyond it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pet_bench.metrics.scores import ANY, Bounds
from pet_bench.registry import METRICS, TASKS


def bounds(tasks: Iterable[str]) -> Bounds:
    """The lowest and the highest that the mean over some tasks of their primary metrics can be (`Metric.bounds`).

    Infinite where there is no limit, or none is known: of a plug-in's task that is not loaded here, or of one whose
    metric an option chooses.
    """
    pairs = [_of(task) for task in dict.fromkeys(tasks)] or [ANY]
    low, high = np.mean(pairs, axis=0)
    return float(low), float(high)


def _of(task: str) -> Bounds:
    metric = TASKS.get(task).metric if task in TASKS else None
    if not isinstance(metric, str) or metric not in METRICS:
        return ANY
    return getattr(METRICS.get(metric), "bounds", ANY)
