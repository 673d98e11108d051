"""`pet-bench list suites` and `list tasks`: what is in them, from what is registered; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pet_bench.data.suite import Suite
from pet_bench.data.task import Choose, Task, annotation_files
from pet_bench.errors import Faults, foreign
from pet_bench.registry import SUITES, TASKS, title

Entry = tuple[str, dict[str, str]]  # a name, and what there is to say of it


def suites(lost: Faults) -> Iterator[Entry]:
    """Every suite with its tasks, the shape of its features and where its data come from; `lost` takes what fails."""
    lost.found += SUITES.load()
    for suite in SUITES:
        yield suite.name, {"tasks": ", ".join(suite.tasks), "features": features(suite), "data": data(suite)}


def features(suite: Suite) -> str:
    """`49 vectors of 2048 an image, pooled to 36; up to 2 images`"""
    visual = suite.visual
    pooled = "" if visual.pooled == visual.tokens else f", pooled to {visual.pooled}"
    return f"{visual.tokens} vectors of {visual.width} an image or clip{pooled}; up to {visual.images} an example"


def data(suite: Suite) -> str:
    return "comes with the package" if suite.embedded else "yours: --data FOLDER"


def tasks(lost: Faults) -> Iterator[Entry]:
    """Every task with its metrics, its answers, its splits, the suites it is in, and the files that it reads.

    `lost` takes what fails.
    """
    lost.found += TASKS.load()
    for cls in TASKS:
        about = None
        with lost, foreign(f"{title(cls)}: it raised"):
            about = about_task(cls())
        if about:
            yield cls.name, about


def about_task(task: Task) -> dict[str, str]:
    homes = [suite.name for suite in SUITES if task.name in suite.tasks]
    splits = (f"{split} {getattr(task, split) or 'none'}" for split in ("train", "valid", "test"))
    return {
        "suites": ", ".join(homes) or "none",
        "answers": answers(task),
        "metric": ", ".join((task.metric, *task.also)),
        "splits": ", ".join(splits),
        "reads": ", ".join(dict.fromkeys(sources(task))),
    }


def answers(task: Task) -> str:
    decoding = task.decoding
    if isinstance(decoding, Choose):
        return f"one of {', '.join(decoding.choices)}"
    beams = f", {decoding.num_beams} beams" if decoding.num_beams > 1 else ""
    return f"written, up to {decoding.max_length} tokens{beams}"


def sources(task: Task) -> Iterator[str]:
    """The annotation files below the root, and the places of what else it reads."""
    for split in ("train", "valid", "test"):
        if getattr(task, split):
            yield from (path.as_posix() for path in annotation_files(task, Path(), split))
    yield from (place for place in task.origins if "features" in place)
