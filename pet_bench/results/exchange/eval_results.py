"""The hub's evaluation results, a YAML file in a model repository's `.eval_results/`.

Written and read by huggingface_hub's own classes. A data set must be one that the hub knows as a benchmark, so that
which one a task is has to be said: nothing here claims it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pet_bench.errors import Faults, UserError
from pet_bench.results.exchange.names import is_drawn
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec


def to_eval_results(
    result: TrialResult, benchmarks: Mapping[str, str], source: str | None = None
) -> list[dict[str, Any]]:
    """A trial's primary scores on the metrics' own scale (accuracies in percent), an entry for each task.

    benchmarks: by task `owner/dataset`, or `owner/dataset:task_id` where the benchmark calls the task otherwise than
    here. source: an address that shows where the numbers are from. The data's revision is left out, since ours is a
    fingerprint of all files that were read and no commit of the hub's; it stands in the notes.

    Raises UserError, all faults together, for a mini world's suite, which is no data set of the hub's, for a control,
    for a trial without scores, and for tasks that `benchmarks` lacks.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    spec, faults = TrialSpec.from_dict(result.spec), Faults()
    if is_drawn(spec.suite):
        faults.add(UserError(f"{result.id}: {spec.suite} is drawn by pet-bench: it is no data set of the hub's"))
    if spec.control != "none":
        faults.add(UserError(f"{result.id} is a {spec.control} control: its scores are no model's"))
    if not result.metrics:
        faults.add(UserError(f"{result.id} has no scores"))
    if lacking := [task for task in result.metrics if task not in benchmarks]:
        faults.add(UserError(f"{result.id}: which benchmark of the hub is {', '.join(lacking)}? (TASK=OWNER/DATASET)"))
    faults.check()
    entries = []
    for task, metrics in result.metrics.items():
        metric, score = next(iter(metrics.items()))
        if math.isfinite(score.value):
            dataset, _, task_id = benchmarks[task].partition(":")
            entries.append(
                EvalResultEntry(
                    dataset_id=dataset,
                    task_id=task_id or task,
                    value=score.value,
                    date=datetime.fromisoformat(result.provenance.finished).date().isoformat(),
                    source_url=source,
                    source_name=source and "pet-bench",
                    notes=f"{metric} of {score.n} examples of {score.split}; {spec.label} on {spec.backbone}, seed "
                    f"{spec.seed}; pet-bench {result.provenance.version}, trial {result.id}, data "
                    f"{result.provenance.data}" + "; suspect" * (result.status == "suspect"),
                )
            )
    return eval_result_entries_to_yaml(entries)
