"""What a score can be: no bar or band goes beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from pet_bench.registry import METRICS, TASKS

UNKNOWN = (-math.inf, math.inf)


def bounds(tasks: Iterable[str]) -> tuple[float, float]:
    """The lowest and the highest that the mean over some tasks of their primary metrics can be (`Metric.bounds`).

    Infinite where there is no limit, or none is known: of a plug-in's task that is not loaded here, say.
    """
    pairs = [_of(task) for task in dict.fromkeys(tasks)] or [UNKNOWN]
    low, high = np.mean(pairs, axis=0)
    return float(low), float(high)


def _of(task: str) -> tuple[float, float]:
    if task not in TASKS or TASKS.get(task).metric not in METRICS:
        return UNKNOWN
    low, high = getattr(METRICS.get(TASKS.get(task).metric), "bounds", UNKNOWN)
    return low, math.inf if high is None else high
