"""Annotation files as the tasks read them, made from the official downloads and from tables of the hub.

`convert` finds the downloads and tables below a folder, writes what can be made of them and says what is missing;
`read_back` has the tasks' own readers read the result. Each module here states the rule for one data set and where it
comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from pet_bench.data.convert.chat import CHAT
from pet_bench.data.convert.coco import COCO
from pet_bench.data.convert.downloads import Converter, Download, File, Source, in_place
from pet_bench.data.convert.flickr30k import FLICKR30K
from pet_bench.data.convert.gqa import GQA
from pet_bench.data.convert.hub import Found, Hub
from pet_bench.data.convert.nlvr2 import NLVR2
from pet_bench.data.convert.okvqa import OKVQA
from pet_bench.data.convert.scienceqa import SCIENCEQA
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.textvqa import TEXTVQA
from pet_bench.data.convert.video import HOW2QA, TVC, TVQA, YC2C
from pet_bench.data.convert.vizwiz import VIZWIZ
from pet_bench.data.convert.vqa import VQA
from pet_bench.data.convert.work import Job, Progress, Work, Written
from pet_bench.data.shards import annotations_of
from pet_bench.data.task import Split, annotation_files
from pet_bench.errors import Faults, UserError, unknown
from pet_bench.registry import TASKS

ZOO = (OKVQA, TEXTVQA, VIZWIZ, SCIENCEQA, FLICKR30K)
CONVERTERS = {converter.task: converter for converter in (VQA, GQA, NLVR2, COCO, TVQA, HOW2QA, TVC, YC2C, *ZOO, CHAT)}


@dataclass(frozen=True)
class Missing:
    """A download that a task needs and that was not found, and where it comes from."""

    task: str
    download: str
    origin: str


@dataclass
class Report:
    """tasks: those with any download, or asked for. idle: those without.

    notes: files that were found and not used, and why. protocol: options of a task that name the splits written, where
    they are not the task's own.
    """

    tasks: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    protocol: dict[str, dict[str, str]] = field(default_factory=dict)


def convert(
    source: Path | str,
    root: Path | str,
    tasks: Sequence[str] = (),
    *,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Write the annotation files of these tasks, by default of all of which `source` holds a download, below `root`.

    Downloads are looked for anywhere below `source`, in ZIP archives too, by their official names; one that is not
    there is taken from its place below `root`, if it is there. Tables of the hub are known by their columns. A file
    that holds what would be written stays unchanged; one that holds something else is overwritten only with `force`.
    progress(done, total) counts MiB read. say: is told, before anything is read, what tasks lack whose tables were
    found.

    Raises UserError, with all faults of all files together and before anything is written: unreadable files, broken
    JSON, missing keys, wrong types, ids that occur twice, what has no match in the file that belongs to it, files in
    the way, and where nothing can be made at all.
    """
    downloads, root = Source(Path(source)), annotations_of(Path(root))
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is no folder")
    report, jobs, faults, work = Report(), [], Faults(), Work(root, progress)
    hub = Hub(downloads.tables, downloads.folder)
    faults.found += hub.faults.found
    known = [layout for converter in CONVERTERS.values() for layout in converter.tables]
    unused: list[str] = []
    every = [converter for converter in CONVERTERS.values() if not converter.asked]
    for converter in [_converter(task) for task in dict.fromkeys(tasks)] or every:
        files: dict[str, File] = {}
        posing: dict[str, str] = {}
        tables = Found()
        with faults:
            tables = hub.find(converter.tables, known)
        shared = {layout.name for layout in converter.tables if layout.shared}
        wanted = bool(tasks or tables.tables.keys() - shared)
        aside = [f"{converter.task}: {said}" for said in tables.unused]
        for download in converter.downloads:
            with faults:
                file = downloads.find(download)
                wanted |= file is not None and not download.shared
                newer = any(part.name in download.instead and downloads.find(part) for part in converter.downloads)
                newer |= any(download.name in one.instead for one in converter.tables if one.name in tables.tables)
                if file := file or (None if newer else in_place(download, root)):
                    files[download.name] = file
                elif not download.shared:
                    posing |= downloads.impostors(download)
        refused = [f"{converter.task}: {file} {what}" for file, what in posing.items()]
        refused += [
            f"{converter.task}: {file} is not converted: {why}"
            for pattern, why in converter.refused
            for file in downloads.matching(pattern)
        ]
        own = [download.name for download in converter.downloads if not download.shared]
        if converter.gone and tasks and not files.keys() & {*own}:
            faults.add(f"{converter.task}: {converter.gone}")
            continue
        if not wanted and not refused:
            report.idle.append(converter.task)
            unused += aside
            continue
        report.tasks.append(converter.task)
        jobs.append(Job(work, converter, files, tables.tables))
        lacking = list(converter.lacking({*files, *tables.tables}))
        report.missing += [_missing(converter.task, one) for one in lacking]
        report.notes += [*(refused if lacking else ()), *aside]
    faults.check()
    tabled = {job.task for job in jobs if job.tables}
    for missing in report.missing:
        if say and missing.task in tabled:
            say(f"{missing.task}: no {missing.download} ({missing.origin})")
    nothing = not any(job.files or job.tables for job in jobs)
    if report.missing or nothing:
        report.notes += [f"{path} {why}" for path, why in downloads.sealed.items()]
    if nothing:
        nowhere = f"{downloads.folder} holds no download to convert"
        raise UserError.many([nowhere, *_wanted(report), *unused, *hub.strange(known), *report.notes])
    try:
        work.expect({source for job in jobs for source in (*job.files.values(), *job.shards())})
        for job in jobs:
            job.converter.run(job)
        work.check(force)
        work.publish()
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read or written: {error.strerror or error}") from None
    finally:
        work.clear()
    report.written = [written for written, _ in work.drafts]
    report.notes += work.notes
    report.protocol = {job.task: job.protocol for job in jobs if job.protocol}
    return report


@dataclass
class Part:
    """One split as the task's reader finds it. missing: files that are not there."""

    task: str
    split: Split
    name: str
    examples: int = 0
    missing: list[Path] = field(default_factory=list)
    faults: Sequence[str] = ()


def read_back(
    root: Path | str,
    tasks: Iterable[str],
    progress: Progress | None = None,
    protocol: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Part]:
    """What the tasks' own readers make of the files below `root`, with their default protocol but for what is given."""
    built = [TASKS.get(name)(**(protocol or {}).get(name, {})) for name in tasks]
    wanted = [(task, split) for task in built for split in get_args(Split) if getattr(task, split) is not None]
    parts = []
    for done, (task, split) in enumerate(wanted, start=1):
        part = Part(task.name, split, getattr(task, split))
        part.missing = [path for path in annotation_files(task, root, split) if not path.exists()]
        if not part.missing:
            try:
                part.examples = len(task.examples(root, split))
            except UserError as error:
                part.faults = error.faults
        parts.append(part)
        if progress:
            progress(done, len(wanted))
    return parts


def _converter(task: str) -> Converter:
    if task in CONVERTERS:
        return CONVERTERS[task]
    if task in TASKS:
        raise UserError(f"{task} reads its files as they are published: there is nothing to convert")
    raise unknown("task with official downloads to convert", task, CONVERTERS)


def _missing(task: str, one: Download | Layout) -> Missing:
    if isinstance(one, Layout):
        return Missing(task, one.name, one.origin)
    return Missing(task, one.title, _origin(task, one.place))


def _origin(task: str, place: str) -> str:
    origins = [item for name in (task, *CONVERTERS) for item in TASKS.get(name).origins.items()]
    return next(origin for pattern, origin in origins if fnmatchcase(place, f"{pattern}*"))


def _wanted(report: Report) -> Iterable[str]:
    if not report.tasks:
        yield "it looks for " + ", ".join(dict.fromkeys(d.title for c in CONVERTERS.values() for d in c.downloads))
    yield from (f"{missing.task}: no {missing.download}: {missing.origin}" for missing in report.missing)
