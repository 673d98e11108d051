"""The data of a trial: tasks as its protocol makes them, their splits, their packed features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pet_bench.data.albums import Albums
from pet_bench.data.images import ImageStore
from pet_bench.data.rows import shown
from pet_bench.data.shards import refuse_cache
from pet_bench.data.store import FeatureStore
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import SPLITS, Example, LeftOut, Split, Task, check_pictures, data_fingerprint
from pet_bench.errors import Faults, UserError, foreign
from pet_bench.registry import TASKS, ask
from pet_bench.spec import Fed, MissingFeatures, Runtime, TrialSpec, Visual, validate

Store = FeatureStore | ImageStore
Examples = dict[str, dict[Split, list[Example]]]  # by task and split


@dataclass(frozen=True)
class LeftOuts:
    """What is not used. dropped: ids by task and split, for want of a feature. notes: what does not count, in lines."""

    dropped: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, unused: Mapping[str, Mapping[Split, Sequence[LeftOut]]]) -> LeftOuts:
        dropped: dict[str, dict[str, list[str]]] = {}
        notes: list[str] = []
        for task, splits in unused.items():
            for split, items in splits.items():
                if missing := [item.id for item in items if item.missing]:
                    dropped.setdefault(task, {})[split] = missing
                reasons = Counter(item.why for item in items if not item.missing)
                notes += [f"{task}: {n:,} of the {split} split are left out: {why}" for why, n in reasons.items()]
        return cls(dropped, tuple(notes))


@dataclass(frozen=True)
class TrialData:
    """Tasks in the suite's order; their examples by task and split; the features of all of them.

    majorities: what `majority` has found, by task, for all trials on these data.
    """

    tasks: list[Task]
    examples: Examples
    store: Store
    fingerprint: str
    left_out: LeftOuts = field(default_factory=LeftOuts)
    majorities: dict[str, float] = field(default_factory=dict)

    def majority(self, task: Task) -> float:
        """`Task.majority` on the test split."""
        if task.name not in self.majorities:
            of = self.examples[task.name]
            self.majorities[task.name] = task.majority(of["train"], of["test"])
        return self.majorities[task.name]


class Read(NamedTuple):
    examples: Examples
    store: Store | None
    left_out: LeftOuts


def build_tasks(names: tuple[str, ...], protocol: dict[str, dict[str, Any]]) -> list[Task]:
    """The tasks with their protocol options; raises one UserError for all unknown names, options and bad values."""
    faults, tasks = Faults(), []
    for name in names:
        with faults, foreign(f'task "{name}": its options raised'):
            tasks.append(validate(TASKS.get(name), protocol.get(name, {}), f'task "{name}"'))
    faults.check()
    return tasks


def data_root(suite: str, runtime: Runtime) -> Path:
    """The folder of the data sets; raises UserError where there is none, or not one revision of it."""
    chosen = suite_by_name(suite)
    if runtime.data is None:
        if chosen.embedded is None:
            raise UserError(f'suite "{suite}" has no embedded data: say with --data where its folder is')
        return ask(chosen, "embedded", returns=Path)
    if not runtime.data.is_dir():
        raise UserError(f"data folder {runtime.data} does not exist")
    refuse_cache(runtime.data)
    return runtime.data


def read_and_pack(
    root: Path,
    tasks: Sequence[Task],
    visual: Visual,
    *,
    splits: Sequence[Split] = SPLITS,
    missing: MissingFeatures = "refuse",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    pack: bool = True,
    fed: Fed = "features",
    pooled: bool | None = None,
) -> Read:
    """Examples by task and split, and the packed features, or pixels, of all of them. missing: as in `Runtime`; pooled:
    as in `FeatureStore.pack`.

    Raises one UserError for everything that is wrong. Nothing is packed, and no values are read, where
    annotations are at fault and without `pack`; what is packed already has been read.
    """
    faults, albums = Faults(), None
    if fed == "pixels":
        albums = Albums()
        with faults:
            check_pictures(tasks)
        faults.check()
    examples: Examples = {}
    unused: dict[str, dict[Split, list[LeftOut]]] = {}
    for task in tasks:
        examples[task.name], unused[task.name] = {}, {}
        for split in splits:
            if split != "valid" or task.valid is not None:
                with faults:
                    part, unused[task.name][split] = task.used(root, split, missing, albums)
                    examples[task.name][split] = part
                    if split != "train":
                        task.check_scorable(split, part)
        with faults:
            task.check_splits(root, examples[task.name])
    wanted = [(task, part) for task in tasks for part in examples[task.name].values()]
    if faults.found or not pack:
        if albums is not None:
            said = ImageStore.faults(root, wanted, albums, cache)
        else:
            said = FeatureStore.faults(root, wanted, visual, cache)
        if said:
            faults.add(shown(said, "features" if albums is None else "images"))
        faults.check()
        return Read(examples, None, LeftOuts.of(unused))
    store = packed_for(fed, root, wanted, visual, cache, progress, albums, pooled)
    return Read(examples, store, LeftOuts.of(unused))


def packed_for(
    fed: Fed,
    root: Path,
    wanted: list[tuple[Task, list[Example]]],
    visual: Visual,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    albums: Albums | None = None,
    pooled: bool | None = None,
) -> Store:
    """The store of what a backbone sees of these examples; raises UserError as `pack` of either store does."""
    if fed == "pixels":
        return ImageStore.pack(root, wanted, cache=cache, progress=progress, albums=albums)
    return FeatureStore.pack(root, wanted, visual, cache=cache, progress=progress, pooled=pooled)


def read_data(
    spec: TrialSpec,
    runtime: Runtime,
    progress: Callable[[int, int], None] | None = None,
    *,
    pack: bool = True,
    fed: Fed = "features",
) -> TrialData | None:
    """Read all annotations and pack all features that the trial needs; without `pack`, only check them.

    Raises one UserError for everything that is wrong with them, and for what a metric needs and is not installed.
    """
    tasks, root = build_tasks(spec.tasks, spec.protocol), data_root(spec.suite, runtime)
    faults, read = Faults(), None
    for task in tasks:
        with faults:
            task.check_metrics()
    with faults:
        splits: tuple[Split, ...] = SPLITS if spec.recipe.valid_every else ("train", "test")
        read = read_and_pack(
            root,
            tasks,
            spec.visual,
            splits=splits,
            missing=runtime.missing_features,
            progress=progress,
            pack=pack,
            fed=fed,
        )
    faults.check()
    if read is None or read.store is None:
        return None
    there: set[Split] = {split for parts in read.examples.values() for split in parts}
    fingerprint = data_fingerprint(root, tasks, read.store.fingerprint, sorted(there))
    return TrialData(tasks, read.examples, read.store, fingerprint, read.left_out)
