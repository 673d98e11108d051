"""Whether a folder of results is what it should be: whole, consistent, and the same on every machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from os.path import realpath
from pathlib import Path, PurePosixPath
from typing import Any

from pet_bench.errors import Faults, UserError
from pet_bench.results import aliases, dropped, store
from pet_bench.results import predictions as saved
from pet_bench.results.consistency import primary, unlike
from pet_bench.results.plugins import codes, differences
from pet_bench.results.schema import TrialResult

APART = ("published", "report")  # folders whose files are not trials'
HIDDEN = (".locks", ".gitignore", ".gitkeep")
ID = re.compile("[0-9a-f]{12}")
ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")


def folders(root: Path) -> Iterator[Path]:
    """`root` and the folders below it that may hold results."""
    yield root
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in APART and not path.name.startswith(".") and not ID.fullmatch(path.name):
            yield from folders(path)


def check(folder: Path) -> list[str]:
    """All faults of the results directly in `folder`, a line each: the files themselves, what each says against the
    others and against its predictions, and what has been left behind beside them."""
    results, faults = {}, Faults()
    for path in store.files(folder):
        with faults:
            results[path.stem], contradictions = store.examine(path)
            beside = _faults(results[path.stem], folder)
            raise UserError(*contradictions, *(f'result "{path}": {fault}' for fault in beside))
    with faults:
        rows = aliases.read(folder).values()
        lost = [row for row in rows if not (folder / f"{row.old}.json").is_file()]
        raise UserError(*(f"{row.old}, which stands for {row.new} in {aliases.FILE}, has no result" for row in lost))
    return [*UserError.many(faults.found).faults, *_left_behind(folder, results)]


def remarks(folder: Path) -> list[str]:
    """What is no fault of the results directly in `folder`, but to be known: whose code they differ in."""
    results, _ = store.scan(folder)
    return differences(codes(result.provenance.plugins) for result in results.values())


def _faults(result: TrialResult, folder: Path) -> Iterator[str]:
    """What is wrong with a result as one of this folder's."""
    for task in result.metrics.keys() - result.predictions.keys():
        yield f"{task}: it names no predictions"
    for task, path in result.predictions.items():
        for fault in _predictions(result, task, path, folder):
            yield f"{task}: {fault}"
    yield from _dropped(result, folder)
    yield from _private(result)


def _predictions(result: TrialResult, task: str, name: str, folder: Path) -> Iterator[str]:
    """Faults of a task's predictions: a line per example, each id once, and scores whose mean is the primary metric
    (by `metrics.scores.Scores` of all metrics but BLEU)."""
    path, parts = folder / name, PurePosixPath(name).parts
    if parts[:1] != (result.id,) or ".." in parts or not Path(realpath(path)).is_relative_to(realpath(folder)):
        yield f'predictions "{name}" are not in {result.id}/'
        return
    if not path.is_file():
        yield f'predictions "{name}" are missing'
        return
    metric, score = primary(result, task)
    try:
        kept = saved.read(path, metric)
    except UserError as error:
        yield from error.faults
        return
    if score is None:
        return
    if fault := unlike(score, metric, kept, name):
        yield fault


def _dropped(result: TrialResult, folder: Path) -> Iterator[str]:
    if strange := sorted(result.dropped.keys() - {*result.spec.get("tasks", ())}):
        yield f"it dropped examples of {', '.join(strange)}, which it was not trained on"
    if result.dropped:
        try:
            listed = dropped.counts(dropped.read(dropped.place(folder, result.id)))
        except UserError as error:
            yield from error.faults
        else:
            if listed != result.dropped:
                yield f"it dropped {dropped.summary(result.dropped)}, but {dropped.summary(listed)} are listed"


def _private(result: TrialResult) -> Iterator[str]:
    """What would be different on another machine, and is nobody's business."""
    host = socket.gethostname()
    for text in dict.fromkeys(_texts(result.model_dump())):
        if place := store.ABSOLUTE.search(text):
            yield f'it has an absolute path: "{text[place.start() :]}"'
    for text in (result.error or "", *result.run.notes, result.provenance.device):
        if ADDRESS.search(text) or (len(host) > 3 and re.search(rf"\b{re.escape(host)}\b", text)):
            yield f'it names a machine: "{text}"'


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *_texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _left_behind(folder: Path, results: dict[str, TrialResult]) -> Iterator[str]:
    ended = {id for id, result in results.items() if result.status in store.FINISHED}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.name not in HIDDEN:
            yield f'"{path}" is a temporary file of a process that was cut off'
        elif path.name.endswith(".unreadable"):
            yield f'"{path}" was no whole result and has been kept aside'
        elif path.is_dir() and ID.fullmatch(path.name):
            if not path.with_suffix(".json").exists():
                yield f'"{path}" belongs to no result: a trial that was cut off, or is running'
            for inside in sorted(path.iterdir()):
                if inside.name.startswith(".") or inside.name.endswith(".unreadable"):
                    yield f'"{inside}" is a temporary file of a process that was cut off'
                elif inside.name == store.CHECKPOINT and path.name in ended:
                    yield f'"{inside}" is a checkpoint of a trial that is finished'
