"""The data of a trial: tasks as its protocol makes them, their splits, their packed features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_bench.data.rows import shown
from pet_bench.data.store import FeatureStore, damage, sources_of
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import Example, Split, Task, data_fingerprint
from pet_bench.errors import Faults, UserError, foreign
from pet_bench.registry import TASKS, ask
from pet_bench.spec import Runtime, TrialSpec, Visual, validate

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
        with faults, foreign(f'task "{name}": its options raised'):
            tasks.append(validate(TASKS.get(name), protocol.get(name, {}), f'task "{name}"'))
    faults.check()
    return tasks


def data_root(suite: str, runtime: Runtime) -> Path:
    """The folder of the data sets; raises UserError where there is none."""
    chosen = suite_by_name(suite)
    if runtime.data is None:
        if chosen.embedded is None:
            raise UserError(f'suite "{suite}" has no embedded data: say with --data where its folder is')
        return ask(chosen, "embedded", returns=Path)
    if not runtime.data.is_dir():
        raise UserError(f"data folder {runtime.data} does not exist")
    return runtime.data


def read_and_pack(
    root: Path,
    tasks: Sequence[Task],
    visual: Visual,
    *,
    splits: Sequence[Split] = SPLITS,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, dict[Split, list[Example]]], FeatureStore]:
    """Examples by task and split, and the packed features of all of them.

    Raises one UserError for everything that is wrong. Nothing is packed, and of features no values are read, where
    annotations are at fault.
    """
    faults, examples = Faults(), {}
    for task in tasks:
        examples[task.name] = {}
        for split in splits:
            if split != "valid" or task.valid is not None:
                with faults:
                    examples[task.name][split] = task.examples(root, split)
        with faults:
            task.check_splits(root, examples[task.name])
    wanted = [(task, part) for task in tasks for part in examples[task.name].values()]
    if faults.found:
        sources, said = sources_of(root, wanted, visual)
        said += damage(root, sources, visual)
        if said:
            faults.add(shown(said, "features"))
        faults.check()
    return examples, FeatureStore.pack(root, wanted, visual, cache=cache, progress=progress)


def read_data(spec: TrialSpec, runtime: Runtime, progress: Callable[[int, int], None] | None = None) -> TrialData:
    """Read all annotations and pack all features that the trial needs.

    Raises one UserError for everything that is wrong with them, and for what a metric needs and is not installed.
    """
    tasks, root = build_tasks(spec.tasks, spec.protocol), data_root(spec.suite, runtime)
    faults = Faults()
    for task in tasks:
        with faults:
            task.check_metrics()
    with faults:
        splits = SPLITS if spec.recipe.valid_every else ("train", "test")
        examples, store = read_and_pack(root, tasks, spec.visual, splits=splits, progress=progress)
    faults.check()
    read = {split for parts in examples.values() for split in parts}
    return TrialData(tasks, examples, store, data_fingerprint(root, tasks, store.fingerprint, sorted(read)))
