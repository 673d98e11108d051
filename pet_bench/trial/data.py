"""The data of a trial: tasks as its protocol makes them, their splits, their packed features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_bench.data.store import FeatureStore
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import Example, Split, Task, data_fingerprint
from pet_bench.errors import Faults, UserError
from pet_bench.registry import TASKS
from pet_bench.spec import Runtime, TrialSpec, validate

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class TrialData:
    """Tasks in the suite's order; their examples by task and split; the features of all of them."""

    tasks: list[Task]
    examples: dict[str, dict[Split, list[Example]]]
    store: FeatureStore
    fingerprint: str


def build_tasks(names: tuple[str, ...], protocol: dict[str, dict[str, Any]]) -> list[Task]:
    """The tasks with their protocol options; raises one UserError for all unknown names, options and bad values."""
    faults, tasks = Faults(), []
    for name in names:
        with faults:
            tasks.append(validate(TASKS.get(name), protocol.get(name, {}), f'task "{name}"'))
    faults.check()
    return tasks


def data_root(suite: str, runtime: Runtime) -> Path:
    """The folder of the data sets; raises UserError where there is none."""
    embedded = suite_by_name(suite).embedded
    if runtime.data is None:
        if embedded is None:
            raise UserError(f'suite "{suite}" has no embedded data: say with --data where its folder is')
        return embedded()
    if not runtime.data.is_dir():
        raise UserError(f"data folder {runtime.data} does not exist")
    return runtime.data


def read_data(spec: TrialSpec, runtime: Runtime, progress: Callable[[int, int], None] | None = None) -> TrialData:
    """Read all annotations and pack all features that the trial needs.

    Raises one UserError for everything that is wrong with them, and for what a metric needs and is not installed.
    """
    tasks, root = build_tasks(spec.tasks, spec.protocol), data_root(spec.suite, runtime)
    faults, examples = Faults(), {}
    for task in tasks:
        with faults:
            task.check_metrics()
        examples[task.name] = {}
        for split in SPLITS:
            if split == "valid" and (task.valid is None or not spec.recipe.valid_every):
                continue
            with faults:
                examples[task.name][split] = task.examples(root, split)
    store = None
    with faults:
        wanted = [(task, part) for task in tasks for part in examples[task.name].values()]
        store = FeatureStore.pack(root, wanted, spec.visual, progress=progress)
    faults.check()
    read = {split for parts in examples.values() for split in parts}
    return TrialData(tasks, examples, store, data_fingerprint(root, tasks, store.fingerprint, sorted(read)))
