"""What there is of the data of some tasks, what is missing or broken, and where it comes from. Alters nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from glob import escape
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pet_bench.data import images, store
from pet_bench.data.albums import Albums
from pet_bench.data.images import ImageStore
from pet_bench.data.packing import PackedFolder, Progress
from pet_bench.data.pictures import Contents
from pet_bench.data.rows import shown
from pet_bench.data.shards import annotations_of, shards_of
from pet_bench.data.store import FeatureStore
from pet_bench.data.suite import Suite
from pet_bench.data.task import Example, Split, Task, annotation_files, check_pictures
from pet_bench.errors import UserError
from pet_bench.registry import SUITES, TASKS
from pet_bench.spec import Fed, Visual

State = Literal["found", "missing", "broken"]  # of an annotation file
Wanted = tuple[Task, list[Example]]
HUB = {"features/*": "the data set ylsung/VL-Adapter-datasets on the Hugging Face hub"}
SAMPLE = 256  # features whose values are read where not all are


@dataclass
class Part:
    """One split of a task. images: distinct images or clips that its examples name; ready: those with features.

    left_out: how many are not used, by reason. dropped: those that lack a feature, which a run may be told to drop.
    """

    task: str
    split: Split
    name: str
    files: dict[Path, State]
    examples: int = 0
    images: int = 0
    ready: int = 0
    faults: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    dropped: int = 0


@dataclass
class Report:
    """faults: a line each, long lists cut with a count. origins: where to get what is at fault, by glob pattern.

    layout: what there is, where features are in shards. fed: whether features were looked at, or pictures. sampled: of
    how many of them all was read. packed: the folder of the packed ones, where there is one; whole: whether they can be
    used.
    """

    parts: list[Part] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    layout: str = ""
    fed: Fed = "features"
    sampled: int = 0
    features: int = 0
    packed: Path | None = None
    whole: bool = False

    @property
    def dropped(self) -> dict[str, dict[str, int]]:
        """By task and split, where a run could drop examples."""
        counts: dict[str, dict[str, int]] = {}
        for part in self.parts:
            if part.dropped:
                counts.setdefault(part.task, {})[part.split] = part.dropped
        return counts


def check(
    root: Path | str,
    tasks: Sequence[Task],
    visual: Visual,
    *,
    whole: bool = False,
    packed: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    fed: Fed = "features",
) -> Report:
    """Everything that would stop a run of these tasks, and more.

    Annotations are read by the tasks' own readers. Of every feature the presence, shape and type are checked, and the
    values of a sample, or with `whole` of all; of shards, a sample is the first rows of each, and with `whole` all
    files are compared with the checksums that came with them. With fed "pixels", of every picture the presence and, in
    a file of its own, the header, and the pixels of a sample or all. packed: also compare what is packed, if anything
    is, with its checksums.
    """
    root, report = Path(root), Report(fed=fed)
    wanted: list[Wanted] = []
    lines: list[str] = []
    for task in tasks:
        lines += _tried(task.check_metrics)[1]
        read: dict[Split, list[Example]] = {}
        for split in get_args(Split):
            if getattr(task, split) is None:
                continue
            parts, said = _tried(partial(task.read_split, root, split))
            examples, unused = parts or ([], [])
            lacking = [f"{task.name}: {item.why}" for item in unused if item.missing]
            said = [*said, *(shown(lacking, task.name).faults if lacking else ())]
            if split != "train" and examples:
                said += _tried(partial(task.check_scorable, split, examples))[1]
            read[split] = examples
            files: dict[Path, State] = {path: _state(path, said) for path in annotation_files(task, root, split)}
            name = getattr(task, split)
            reasons = dict(Counter(item.why for item in unused if not item.missing))
            report.parts.append(
                Part(
                    task.name, split, name, files, examples=len(examples) + len(lacking), faults=len(said),
                    left_out=reasons, dropped=len(lacking),
                )
            )  # fmt: skip
            wanted.append((task, examples))
            lines += said
        lines += _tried(partial(task.check_splits, root, read))[1]
    some = [(task, examples) for task, examples in wanted if examples]
    if fed == "pixels":
        seen = _pictures(root, some, whole, cache, progress)
    else:
        seen = _features(root, some, visual, whole, cache, progress)
    report.features, report.sampled = len(seen.readers), seen.sampled
    for part, (_, examples) in zip(report.parts, wanted, strict=True):
        keys = {key for example in examples for key in example.images}
        part.images, part.ready = len(keys), len(keys - seen.bad.keys())
        part.faults += part.images - part.ready
        part.dropped += sum(not seen.missing.isdisjoint(example.images) for example in examples)
    lines += seen.faults
    for task in tasks:
        said = [line for key, lines_of in seen.bad.items() if seen.readers[key] is task for line in lines_of]
        lines += shown(said, f"{task.name}: {seen.store.what}").faults if said else ()
    if seen.folder and seen.folder.exists():
        report.packed, report.whole = seen.folder, seen.store.open(seen.folder) is not None
        lines += seen.store.verify(seen.folder) if packed else ()
    report.faults = list(dict.fromkeys(lines))
    shards = shards_of(root)
    report.layout = shards.summary() if shards else ""
    places = [(annotations_of(root), task.origins) for task in tasks] + [(root, HUB if shards else {})]
    for home, origins in places:
        for pattern, origin in origins.items():
            if any(fnmatchcase(line, f"*{escape(str(home))}/{pattern}*") for line in report.faults):
                report.origins.setdefault(pattern, origin)
    return report


def suites_in(root: Path | str) -> list[Suite]:
    """The suites on user data of which at least one annotation file is there."""
    suites = []
    for suite in SUITES:
        tasks = [TASKS.get(name)() for name in suite.tasks] if suite.embedded is None else []
        if any(path.exists() for task in tasks for path in _annotations(task, Path(root))):
            suites.append(suite)
    return suites


def _annotations(task: Task, root: Path) -> Iterable[Path]:
    for split in get_args(Split):
        if getattr(task, split) is not None:
            yield from annotation_files(task, root, split)[:1]


def _tried(call: Callable[[], Any]) -> tuple[Any, Sequence[str]]:
    """What it returns, if it does, and the faults that it raises."""
    try:
        return call(), ()
    except UserError as error:
        return None, error.faults


def _state(path: Path, said: Sequence[str]) -> State:
    if not path.exists():
        return "missing"
    return "broken" if any(str(path) in line for line in said) else "found"


class Seen(NamedTuple):
    """What examples' images are: features, or pictures. store: what packs them.

    readers: a task that reads each, by key. bad: what is wrong with those that cannot be used; missing: which of these
    are not there. faults: what else is wrong. sampled: of how many all was read. folder: where they are packed, if so.
    """

    store: type[PackedFolder]
    readers: Mapping[str, Task]
    bad: dict[str, Sequence[str]]
    missing: set[str]
    faults: list[str]
    sampled: int
    folder: Path | None


def _features(
    root: Path, wanted: list[Wanted], visual: Visual, whole: bool, cache: Path | None, progress: Progress | None
) -> Seen:
    sources, faults = store.sources_of(root, wanted, visual)
    faults += store.unlike_sent(root, wanted, sources, contents=whole)
    shards = shards_of(root)
    sharded = [key for key, source in sources.items() if source.shards]
    sample = _sample(sources.keys() - {*sharded}, whole)
    sample |= {*sharded} if whole or not shards else shards.near(sharded, SAMPLE)
    bad: dict[str, Sequence[str]] = {}
    headers = (
        (key, _tried(partial(store.look, root, key, source, visual))[1])
        for key, source in sources.items()
        if key not in sample
    )
    values = (
        (key, found.faults if isinstance(found, UserError) else ())
        for key, found in store.read_features(root, sources, visual, (key for key in sources if key in sample))
    )
    for done, (key, said) in enumerate(chain(headers, values), start=1):
        if said:
            bad[key] = said
        if progress:
            progress(done, len(sources))
    bad = {key: bad[key] for key in sources if key in bad}
    missing = {key for key in bad if sources[key].absent(root, key)}
    listing = store.files_of(root, sources)
    folder = store.packed_in(listing, visual, cache) if listing else None
    readers = {key: source.task for key, source in sources.items()}
    return Seen(FeatureStore, readers, bad, missing, faults, len(sample), folder)


def _pictures(root: Path, wanted: list[Wanted], whole: bool, cache: Path | None, progress: Progress | None) -> Seen:
    sources, lacking, faults = images.look_for(root, wanted, Albums())
    _, said = _tried(partial(check_pictures, [task for task, _ in wanted]))
    sample, bad = _sample(sources, whole), {key: lines for key, (_, lines) in lacking.items()}
    with Contents() as contents:
        for done, (key, source) in enumerate(sources.items(), start=1):
            read = partial(images.read_picture, contents, key, source)
            if lines := _tried(read if key in sample else partial(images.check_picture, source))[1]:
                bad[key] = lines
            if progress:
                progress(done, len(sources))
    folder = images.packed_in(sources, cache) if sources and not lacking else None
    readers = {key: source.task for key, source in sources.items()} | {key: task for key, (task, _) in lacking.items()}
    return Seen(ImageStore, readers, bad, {*lacking}, [*said, *faults], len(sample), folder)


def _sample(sources: Iterable[str], whole: bool) -> set[str]:
    """Keys of what is read as a whole."""
    keys = sorted(sources)
    return set(keys if whole else islice(keys, 0, None, max(1, -(-len(keys) // SAMPLE))))
