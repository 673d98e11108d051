"""What lmms-eval writes: a JSON file of results and, for each task, a JSON line per example.

Read against lmms-eval 0.7: its `--baseline FILE` pairs the examples of a run with those of such lines by `doc_id` and
tests the difference of their scores. A `doc_id` is an example's place in the split, from 0, so that files of one data
set pair; those of lmms-eval's own runs do where its data set has the same order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pet_bench.data.task import Example
from pet_bench.errors import UserError
from pet_bench.results import predictions
from pet_bench.results.exchange.names import experiment, finite, hub_name
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec


def model_name(result: TrialResult) -> str:
    """Of the folder that holds a trial's files."""
    return experiment(result).replace("/", "__")


def date_of(result: TrialResult) -> str:
    """`20261130_084012`, in UTC: how the names of a run's files begin."""
    return datetime.fromisoformat(result.provenance.finished).strftime("%Y%m%d_%H%M%S")


def samples(result: TrialResult, task: str, examples: Sequence[Example], folder: Path) -> list[dict[str, Any]]:
    """A task's examples with what was said to each, in the order of the split.

    score: that of the primary metric, as a fraction (CIDEr in its own units, hence above 1 at times). Lacking are
    token counts. folder: that of the results.

    Raises UserError where the predictions are not there, cannot be read or are of other examples than these.
    """
    metric = next(iter(result.metrics[task]))
    if not (file := predictions.find(result.id, task, [folder])):
        raise UserError(f'{result.id}: its predictions for {task} are not in "{folder}"')
    said = predictions.read(file, metric)
    strange, known = said.keys() - {example.id for example in examples}, len(said)
    if strange:
        raise UserError(f"{file}: {len(strange)} of {known} examples are not in the data, first {min(strange)!r}")
    rows = []
    for place, example in enumerate(examples):
        if example.id not in said:  # left out for want of a picture: `dropped.json`
            continue
        text, score = said[example.id]
        targets = sorted(example.targets, key=lambda target: -target[1])
        shown = json.dumps({"id": example.id, "text": example.text, "images": example.images}, ensure_ascii=False)
        rows.append(
            {
                "doc_id": place,
                "target": targets[0][0] if targets else "",
                "filtered_resps": text,
                "doc_hash": sha256(shown.encode()).hexdigest(),
                "input": example.text,
                "id": example.id,
                "score": None if score is None else score / 100,
            }
        )
    return rows


def results(result: TrialResult, said: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The other file, with what is measured here. said: each task's `samples`.

    Values are fractions, as there. `<metric>_stderr,none` is over examples, of the primary metric's mean; "N/A" where
    it is no mean of examples. What has no counterpart is left out, and what a trial is stands under "pet-bench".
    """
    spec, origin = TrialSpec.from_dict(result.spec), result.provenance
    began, ended = map(datetime.fromisoformat, (origin.started, origin.finished))
    tasks = list(result.metrics)
    return {
        "results": {task: _scores(result, task, said[task]) for task in tasks},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {
            task: {
                "task": task,
                "test_split": next(iter(result.metrics[task].values())).split,
                "output_type": "generate_until",
                "num_fewshot": 0,
                "score_key": "score",
                "metadata": dict(spec.protocol.get(task, {})),
            }
            for task in tasks
        },
        "versions": dict.fromkeys(tasks, origin.data),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: dict.fromkeys(result.metrics[task], True) for task in tasks},
        "n-samples": {task: {"original": len(said[task]), "effective": len(said[task])} for task in tasks},
        "config": {
            "model": "pet-bench",
            "model_args": f"pretrained={hub_name(spec.backbone) or spec.backbone},method={spec.label}",
            "batch_size": -(-spec.recipe.batch_size // result.run.accumulation),
            "device": origin.device or "cpu",
            "random_seed": spec.seed,
            "torch_seed": spec.seed,
        },
        "git_hash": origin.commit,
        "date": date_of(result),
        "task_hashes": {task: _hash([one["doc_hash"] for one in said[task]]) for task in tasks},
        "model_source": "pet-bench",
        "model_name": experiment(result),
        "model_name_sanitized": model_name(result),
        "total_evaluation_time_seconds": str((ended - began).total_seconds()),
        "pet-bench": {"id": result.id, "status": result.status, "version": origin.version, "spec": result.spec},
    }


def _hash(hashes: Sequence[str]) -> str:
    return sha256("".join(f"sample_{place}{one}" for place, one in enumerate(hashes)).encode()).hexdigest()


def _scores(result: TrialResult, task: str, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"alias": task}
    for place, (metric, score) in enumerate(result.metrics[task].items()):
        value = finite(score.value)
        row[f"{metric},none"] = None if value is None else value / 100
        row[f"{metric}_stderr,none"] = _error([one["score"] for one in said], score.value / 100) if not place else "N/A"
    return row


def _error(scores: Sequence[float | None], mean: float) -> float | str:
    """Standard error of the mean, sample standard deviation / √n."""
    known = [score for score in scores if score is not None]
    if len(known) < 2 or len(known) < len(scores) or not math.isclose(sum(known) / len(known), mean, abs_tol=1e-6):
        return "N/A"
    return math.sqrt(sum((score - mean) ** 2 for score in known) / (len(known) - 1) / len(known))
