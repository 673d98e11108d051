"""A finished trial on a task that it was not trained on, or on one of its own by another protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pet_bench.data.batches import Batch, TaskBatches
from pet_bench.data.reading import build_tasks, data_root, read_and_pack
from pet_bench.data.suite import Suite, suite_by_name
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError, unknown
from pet_bench.identity import normal
from pet_bench.metrics.scores import Scores, breakdowns
from pet_bench.pet.method import build_method, restored
from pet_bench.registry import SUITES, TASKS, ask
from pet_bench.results import evaluations, store
from pet_bench.results import predictions as saved
from pet_bench.results.evaluations import Transfer
from pet_bench.results.provenance import now, provenance
from pet_bench.results.schema import Part, Score
from pet_bench.trial.build import device_name
from pet_bench.trial.evaluate import OnBatch, evaluating, unheard
from pet_bench.trial.loaded import Loaded


@dataclass(frozen=True)
class Asked:
    """What a trial is to be tested on. parts_of: the task of its own whose parts of the method are used, where the
    method has parts of each task."""

    task: Task
    suite: Suite
    options: dict[str, Any]
    split: Literal["valid", "test"] = "test"
    parts_of: str | None = None


def asked(
    trial: Loaded,
    name: str,
    options: dict[str, Any] | None = None,
    split: Literal["valid", "test"] = "test",
    parts_of: str | None = None,
) -> Asked:
    """What a trial is tested on, and by what protocol; nothing is read yet.

    A task of the trial's own keeps the trial's protocol but for `options`. Any other has its published one, without a
    prompt where the trial's method has no task prompts. Raises UserError for unknown tasks and options, a split that
    the task has not, and features of another shape than the trial was trained on.
    """
    spec, given = trial.spec, options or {}
    own = spec.protocol.get(name, {})
    if name not in TASKS:
        raise unknown("task", name, TASKS.names())
    if name not in spec.tasks:
        method = build_method(restored(spec.method), trial.model.anatomy)
        own = {} if ask(method, "has_prompts", spec.suite, returns=bool) else {"prompt": ""}
    (task,) = build_tasks((name,), {name: own | given})
    if getattr(task, split) is None:
        raise UserError(f"{name}: there is no {split} split (option {split} is none)")
    if parts_of is not None and parts_of not in spec.tasks:
        raise unknown(f"task of trial {spec.id}", parts_of, spec.tasks)
    suite, fed = _home(name, spec.suite), trial.model.family.fed
    shape, seen = ((v.tokens, v.width) for v in (suite.visual, spec.visual))
    if fed == "pixels" and not task.pictures:
        raise UserError(f"{name} has features of clips and no pictures, and {spec.backbone} is fed with pixels")
    if fed == "features" and shape != seen:
        raise UserError(
            f"{name} has features {shape}, and trial {spec.id} was trained on {seen} ({spec.suite}): only tasks with "
            "the same features can be asked of it"
        )
    return Asked(task, suite, normal(task, own | given), split, parts_of)


def _home(name: str, suite: str) -> Suite:
    """The task as one of the trial's suite, whose data lie beside the others'; else in the suite that has it."""
    base = suite.partition("/")[0]
    if base in SUITES and name in SUITES.get(base).tasks:
        return suite_by_name(f"{base}/{name}")
    return suite_by_name(name)


def transfer(trial: Loaded, asked: Asked, folder: Path, on_batch: OnBatch = unheard) -> Transfer:
    """Test a trial and write the record to `<folder>/transfer.<task>….json`, with the predictions beside it.

    Raises UserError for unusable data, and where the method has parts of each task and none of this one, unless
    `parts_of` says whose are to be used.
    """
    started, task = now(), asked.task
    task.check_metrics()
    root, fed = data_root(asked.suite.name, trial.runtime), trial.model.family.fed
    missing = trial.runtime.missing_features
    read = read_and_pack(root, [task], trial.spec.visual, splits=(asked.split,), missing=missing, fed=fed)
    examples = read.examples[task.name][asked.split]
    assert read.store is not None  # it was packed
    told = Told(
        task, examples, trial.model.family.reader(trial.tokenizer), read.store, control=trial.spec.control
    )  # fmt: skip
    with _as_read(trial, task):
        parts_of = whose(trial, told, asked)
        told.name = parts_of or task.name
        predictions = trial.answers(told, on_batch)
    scores = ask(task, "score", predictions, examples, returns=Scores)
    majority, notes = _majority(task, root, examples)
    name = evaluations.transfer_name(task.name, asked.split, asked.options, parts_of)
    record = Transfer(
        trial=trial.spec.id,
        task=task.name,
        trained=task.name in trial.spec.tasks,
        options=asked.options,
        parts_of=parts_of,
        split=asked.split,
        metrics={
            metric: Score(
                value=value,
                split=getattr(task, asked.split),
                n=len(examples),
                majority=None if i else majority,
                options={key: str(value) for key, value in task.metric_options.items()},
            )
            for i, (metric, value) in enumerate(scores.values.items())
        },
        breakdowns={
            group: {value: Part(value=score, n=n) for value, (score, n) in parts.items()}
            for group, parts in breakdowns(scores, examples).items()
        },
        predictions=f"{name}.jsonl.gz",
        notes=[*notes, *read.left_out.notes],
        provenance=provenance(started, device=device_name(trial.model.device), data=read.store.fingerprint),
    )
    saved.write(folder / record.predictions, predictions, scores.per_example)
    evaluations.write(record, folder / f"{name}.json")
    return record


class Told(TaskBatches):
    """A task's batches that a model is told are of the task `name`."""

    name: str = ""

    def batch(self, indices: np.ndarray, targets: np.ndarray) -> Batch:
        made = super().batch(indices, targets)
        return replace(made, task=self.name or made.task)


@contextmanager
def _as_read(trial: Loaded, task: Task) -> Iterator[None]:
    """The model hides what is empty as this task has it, by whatever name it is told."""
    model, before = trial.model, trial.model.masks_empty
    model.masks_empty = frozenset({task.name, *trial.spec.tasks} if task.masks_empty else ())
    try:
        yield
    finally:
        model.masks_empty = before


def whose(trial: Loaded, batches: Told, asked: Asked) -> str | None:
    """The task whose parts of the method read a task that the trial was not trained on; None: it has none, or its own.

    Whether there are any is seen by reading one example as one of the trial's first task.
    """
    name, known = asked.task.name, trial.spec.tasks
    batches.name, trial.model.context.by_task = known[0], False
    one = next(batches.eval_batches(1)).to(trial.model.device)
    with evaluating(trial.model, trial.spec.recipe.evaluation):
        trial.model.choose(one.inputs, [0])
    method = trial.spec.label or str(trial.spec.method)
    if not trial.model.context.by_task:
        if asked.parts_of is not None:
            raise UserError(f"{method} has no parts of each task, so --as {asked.parts_of} says nothing")
        return None
    if asked.parts_of is None and name not in known:
        raise UserError(
            f"{method} has parts of each task ({', '.join(known)}), and none of {name}: say whose with --as TASK"
        )
    return None if asked.parts_of in (None, name) else asked.parts_of


def _majority(task: Task, root: Path, examples: Sequence[Example]) -> tuple[float | None, list[str]]:
    """Of the training answers, where those are there; else a note that says why not."""
    try:
        return task.majority(task.read_split(root, "train")[0], examples), []
    except UserError as error:
        why = store.ABSOLUTE.sub("…/", error.faults[0])
        return None, [f"no majority answer, since the training split cannot be read: {why}"]
