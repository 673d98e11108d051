"""Whether a folder of results is what it should be: whole, consistent, and the same on every machine."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pet_bench.errors import UserError
from pet_bench.results import dropped, store
from pet_bench.results import predictions as saved
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec

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
    results, unreadable = store.scan(folder)
    faults = [line for fault in unreadable for line in fault.faults]
    for id, result in results.items():
        faults += [f'result "{folder / id}.json": {fault}' for fault in _faults(result, folder)]
    return faults + list(_left_behind(folder, results))


def _faults(result: TrialResult, folder: Path) -> Iterator[str]:
    try:
        if (of := TrialSpec.from_dict(result.spec).id) != result.id:
            yield f"its spec is that of trial {of}"
    except UserError as error:
        yield from error.faults
    yield from _status(result)
    yield from _numbers(result)
    yield from _times(result)
    if result.metrics:
        for task in result.metrics.keys() - result.predictions.keys():
            yield f"{task}: it names no predictions"
    for task, path in result.predictions.items():
        for fault in _predictions(result, task, path, folder):
            yield f"{task}: {fault}"
    yield from _dropped(result, folder)
    yield from _private(result)


def _status(result: TrialResult) -> Iterator[str]:
    if result.status == "done":
        if result.error is not None:
            yield f"it is done, but has an error: {result.error}"
        for name in ("metrics", "average", "parameters", "cost"):
            if getattr(result, name) in (None, {}):
                yield f"it is done, but has no {name}"
    elif not result.error:
        yield f"it is {result.status}, but does not say why"


def _numbers(result: TrialResult) -> Iterator[str]:
    tasks = set(result.spec.get("tasks", ()))
    if result.metrics and (odd := tasks ^ result.metrics.keys()):
        yield f"tasks of its spec and tasks with scores differ in {', '.join(sorted(odd))}"
    primary = [next(iter(scores.values())).value for scores in result.metrics.values() if scores]
    mean = sum(primary) / len(primary) if primary else None
    if not _same(result.average, mean):
        yield f"its average is {result.average}, the mean of the tasks' primary metrics {mean}"
    for task, groups in result.breakdowns.items():
        n = next((score.n for score in result.metrics.get(task, {}).values()), 0)
        for group, parts in groups.items():
            if (counted := sum(part.n for part in parts.values())) > n:
                yield f'{task}: {counted} examples by "{group}", but {n} were scored'
    if counts := result.parameters:
        if not counts.trainable <= counts.total:
            yield f"{counts.trainable} of {counts.total} parameters are trainable"
        elif not _same(counts.percent, 100 * counts.trainable / counts.total if counts.total else 0.0):
            yield f"percent is {counts.percent}, but {counts.trainable} of {counts.total} parameters are trainable"
        if (together := sum(counts.groups.values())) != counts.trainable:
            yield f"its groups have {together} parameters together, but {counts.trainable} are trainable"


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


def _times(result: TrialResult) -> Iterator[str]:
    times = {}
    for name in ("started", "finished"):
        text = getattr(result.provenance, name)
        try:
            times[name] = datetime.fromisoformat(text)
            if times[name].tzinfo is None:
                raise ValueError
        except ValueError:
            yield f'"{text}" ({name}) is not a time with its zone in ISO 8601'
            return
    if times["finished"] < times["started"]:
        yield f"it finished ({result.provenance.finished}) before it started ({result.provenance.started})"


def _predictions(result: TrialResult, task: str, name: str, folder: Path) -> Iterator[str]:
    """Faults of a task's predictions: a line per example, each id once, and scores whose mean is the primary metric
    (by `metrics.scores.Scores` of all metrics but BLEU)."""
    path, parts = folder / name, PurePosixPath(name).parts
    if parts[:1] != (result.id,) or ".." in parts or not path.resolve().is_relative_to(folder.resolve()):
        yield f'predictions "{name}" are not in {result.id}/'
        return
    if not path.is_file():
        yield f'predictions "{name}" are missing'
        return
    try:
        scores = [score for _, score in saved.read(path).values()]
    except UserError as error:
        yield from error.faults
        return
    metric, primary = next(iter(result.metrics.get(task, {}).items()), (None, None))
    if primary is None:
        return
    if len(scores) != primary.n:
        yield f'"{name}" has {len(scores)} predictions, but {primary.n} were scored'
    elif None in scores:
        yield f'"{name}" has predictions without a score'
    elif not metric.startswith("BLEU") and not _same(primary.value, mean := sum(scores) / len(scores)):
        yield f'{metric} is {primary.value}, but the mean score in "{name}" is {mean}'


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
        if found := store.ABSOLUTE.search(text):
            yield f'it has an absolute path: "{text[found.start() :]}"'
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
