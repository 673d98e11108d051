"""`pet-bench list suites` and `list tasks`: what is in them, from what is registered; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pet_bench.data.suite import Suite
from pet_bench.data.task import Choose, Task
from pet_bench.registry import SUITES, TASKS

Entry = tuple[str, dict[str, str]]  # a name, and what there is to say of it


def suites() -> Iterator[Entry]:
    """Every suite with its tasks, the shape of its features and where its data come from."""
    for suite in SUITES:
        yield suite.name, {"tasks": ", ".join(suite.tasks), "features": features(suite), "data": data(suite)}


def features(suite: Suite) -> str:
    """`49 vectors of 2048 an image, pooled to 36; up to 2 images`"""
    visual = suite.visual
    pooled = "" if visual.pooled == visual.tokens else f", pooled to {visual.pooled}"
    return f"{visual.tokens} vectors of {visual.width} an image or clip{pooled}; up to {visual.images} an example"


def data(suite: Suite) -> str:
    return "comes with the package" if suite.embedded else "yours: --data FOLDER"


def tasks() -> Iterator[Entry]:
    """Every task with its metrics, its answers, its splits, the suites it is in, and the files that it reads."""
    for cls in TASKS:
        task = cls()
        homes = [suite.name for suite in SUITES if task.name in suite.tasks]
        splits = (f"{split} {getattr(task, split) or 'none'}" for split in ("train", "valid", "test"))
        yield (
            task.name,
            {
                "suites": ", ".join(homes) or "none",
                "answers": answers(task),
                "metric": ", ".join((task.metric, *task.also)),
                "splits": ", ".join(splits),
                "reads": ", ".join(dict.fromkeys(sources(task))),
            },
        )


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
            yield from (path.as_posix() for path in task.sources(Path(), split))
    yield from (place for place in task.origins if "features" in place)
