"""Annotation files as the tasks read them, made from the official downloads.

`convert` finds the downloads below a folder, writes what can be made of them and says what is missing; `read_back` has
the tasks' own readers read the result. Each module here states the rule for one data set and where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from pet_bench.data.convert.coco import COCO
from pet_bench.data.convert.downloads import Converter, File, Source, in_place
from pet_bench.data.convert.gqa import GQA
from pet_bench.data.convert.nlvr2 import NLVR2
from pet_bench.data.convert.video import HOW2QA, TVC, TVQA, YC2C
from pet_bench.data.convert.vqa import VQA
from pet_bench.data.convert.work import Job, Progress, Work, Written
from pet_bench.data.shards import annotations_of
from pet_bench.data.task import Split, annotation_files
from pet_bench.errors import Faults, UserError, unknown
from pet_bench.registry import TASKS

CONVERTERS = {converter.task: converter for converter in (VQA, GQA, NLVR2, COCO, TVQA, HOW2QA, TVC, YC2C)}


@dataclass(frozen=True)
class Missing:
    """A download that a task needs and that was not found, and where it comes from."""

    task: str
    download: str
    origin: str


@dataclass
class Report:
    """tasks: those with any download, or asked for. idle: those without.

    notes: files that were found and not used, and why.
    """

    tasks: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(
    source: Path | str,
    root: Path | str,
    tasks: Sequence[str] = (),
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write the annotation files of these tasks, by default of all of which `source` holds a download, below `root`.

    Downloads are looked for anywhere below `source`, in ZIP archives too, by their official names; one that is not
    there is taken from its place below `root`, if it is there. A file that holds what would be written stays
    unchanged; one that holds something else is overwritten only with `force`. progress(done, total) counts MiB read.

    Raises UserError, with all faults of all files together and before anything is written: unreadable files, broken
    JSON, missing keys, wrong types, ids that occur twice, what has no match in the file that belongs to it, files in
    the way, and where nothing can be made at all.
    """
    downloads, root = Source(Path(source)), annotations_of(Path(root))
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is no folder")
    report, jobs, faults, work = Report(), [], Faults(), Work(root, progress)
    for converter in [_converter(task) for task in dict.fromkeys(tasks)] or CONVERTERS.values():
        files: dict[str, File] = {}
        posing: dict[str, str] = {}
        wanted = bool(tasks)
        for download in converter.downloads:
            with faults:
                file = downloads.find(download)
                wanted |= file is not None and not download.shared
                newer = [part for part in converter.downloads if part.name in download.instead and downloads.find(part)]
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
        if not wanted and not refused:
            report.idle.append(converter.task)
            continue
        report.tasks.append(converter.task)
        jobs.append(Job(work, converter, files))
        lacking = list(converter.lacking(files))
        report.missing += [Missing(converter.task, d.title, _origin(converter.task, d.place)) for d in lacking]
        report.notes += refused if lacking else ()
    faults.check()
    nothing = not any(job.files for job in jobs)
    if report.missing or nothing:
        report.notes += [f"{path} {why}" for path, why in downloads.sealed.items()]
    if nothing:
        raise UserError.many([f"{downloads.folder} holds no download to convert", *_wanted(report), *report.notes])
    try:
        work.expect({file for job in jobs for file in job.files.values()})
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


def read_back(root: Path | str, tasks: Iterable[str], progress: Progress | None = None) -> list[Part]:
    """What the tasks' own readers, with their default protocol, make of the files below `root`."""
    wanted = [(TASKS.get(name)(), split) for name in tasks for split in get_args(Split)]
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


def _origin(task: str, place: str) -> str:
    origins = [item for name in (task, *CONVERTERS) for item in TASKS.get(name).origins.items()]
    return next(origin for pattern, origin in origins if fnmatchcase(place, f"{pattern}*"))


def _wanted(report: Report) -> Iterable[str]:
    if not report.tasks:
        yield "it looks for " + ", ".join(dict.fromkeys(d.title for c in CONVERTERS.values() for d in c.downloads))
    yield from (f"{missing.task}: no {missing.download}: {missing.origin}" for missing in report.missing)
