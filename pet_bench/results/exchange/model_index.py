"""The model-index of Hugging Face's model cards."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pet_bench.registry import TASKS
from pet_bench.results.exchange.names import experiment, is_drawn, slug
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec


def to_model_index(results: Iterable[TrialResult]) -> list[dict[str, Any]]:
    """The metadata `model-index` of a hub's model card: one model per trial, its scores by task.

    Data that come with the package are named as what they are, and so are controls and suspect results. A data set's
    revision is our fingerprint of all that the trial read. Values are on the metric's own scale: accuracies in percent.
    """
    return [{"name": experiment(result).replace("/", "-"), "results": list(_by_task(result))} for result in results]


def _by_task(result: TrialResult) -> Iterable[dict[str, Any]]:
    spec, doubt = TrialSpec.from_dict(result.spec), " (suspect result)" * (result.status == "suspect")
    drawn = is_drawn(spec.suite)
    for task, metrics in result.metrics.items():
        hub = TASKS.get(task).hub if task in TASKS else None  # a plug-in's that is not loaded here
        kind, identifier, name = hub or ("image-text-to-text", task, task)
        if drawn:
            suite = spec.suite.split("/")[0]
            identifier, name = f"{suite}-{task}", f"Stand-in for {name}, drawn by pet-bench ({suite})"
        if spec.control != "none":
            name += f" ({spec.control} control: the model does not see the images)"
        first = next(iter(metrics.values()))
        dataset = {
            "name": name,
            "type": identifier,
            "split": first.split,
            "revision": result.provenance.data,
            "args": {"examples": first.n, **spec.protocol.get(task, {})},
        }
        yield {
            "task": {"type": kind, "name": task},
            "dataset": {key: value for key, value in dataset.items() if value is not None},
            "metrics": [
                {"type": slug(metric).lower(), "value": score.value, "name": metric + doubt}
                | ({"args": dict(score.options)} if score is first and score.options else {})
                for metric, score in metrics.items()
                if math.isfinite(score.value)
            ],
        }
