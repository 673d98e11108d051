"""Test examples as people see them: text without prompts, the right answers, pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pet_bench.data.reading import build_tasks, data_root
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError, unknown
from pet_bench.spec import Runtime

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PARTS = {"Subs": "Subtitles", "Q": "Question", "TS": "Time", "Choices": "Choices"}  # of a clip's text


@dataclass(frozen=True)
class Shown:
    """An example as people see it. answers: the right ones, a reader's references. pictures: files; empty: none here.

    text: what the model reads, without its prompt; of a clip a line for each part, as in `Question: …`.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    pictures: tuple[Path, ...]


def examples(
    suite: str,
    task: str,
    data: Path | None = None,
    images: Path | None = None,
    protocol: dict[str, dict[str, Any]] | None = None,
    ids: Collection[str] | None = None,
) -> dict[str, Shown]:
    """The test examples of a task of a suite by id, in the order of its file.

    data: root folder of the data sets, needed where the suite has none embedded. images: a folder in which pictures
    lie, however deep, named after the ids of the images; by default those that the mini world draws beside its
    features. protocol: options by task, as of a trial. ids: only these.

    Raises UserError where the annotations cannot be read, for ids that are not in them and where `images` holds no
    picture of any example.
    """
    known = suite_by_name(suite)
    if task not in known.tasks:
        raise unknown(f"task of suite {suite}", task, known.tasks)
    root = data_root(suite, Runtime(Path(), data))
    (reader,) = build_tasks((task,), {task: (protocol or {}).get(task, {})})
    by_id = {example.id: example for example in reader.examples(root, "test")}
    if ids is not None:
        if strange := sorted(set(ids) - by_id.keys()):
            more = f" and {len(strange) - 1} more" * (len(strange) > 1)
            raise UserError(f"{task}: the test split in {root} has no example {strange[0]!r}{more}")
        by_id = {id: example for id, example in by_id.items() if id in set(ids)}
    pictures = partial(_drawn, root, reader) if images is None else partial(_found, _pictures_in(images))
    shown = {
        id: Shown(id, _text(reader, example), _answers(example), tuple(dict.fromkeys(pictures(example))))
        for id, example in by_id.items()
    }
    if images is not None and shown and not any(example.pictures for example in shown.values()):
        first = _name(next(iter(by_id.values())).images[0])
        raise UserError(f'{task}: "{images}" holds no picture of any example; the first is looked for as {first}.jpg')
    return shown


def _text(task: Task, example: Example) -> str:
    text = example.text.removeprefix(task.prompt).removesuffix(task.prompt)
    if not text.startswith("[Subs]"):
        return text.strip()
    parts = re.split(rf"\[({'|'.join(PARTS)})\]", text)[1:]
    lines = zip(parts[::2], parts[1::2], strict=True)
    return "\n".join(f"{PARTS[part]}: {said.strip()}" for part, said in lines if said.strip())


def _answers(example: Example) -> tuple[str, ...]:
    """Annotators' answers with counts, `red ×8`; captions; the label; a choice with its text, `a2: red`."""
    known = example.references
    if "answers" in known:
        return tuple(f"{answer} ×{n}" for answer, n in Counter(known["answers"]).most_common())
    if "captions" in known:
        return tuple(dict.fromkeys(known["captions"]))
    if choice := known.get("answer"):
        said = re.search(rf"\[Choices\].*?\b{choice}: (.*?)\.(?= a\d+: | *$| [^ ]+: *$)", example.text)
        return (f"{choice}: {said[1]}" if said else choice,)
    return tuple(answer for answer, _ in example.targets)


def _name(key: str) -> str:
    """The id of an image: of its feature's key, `COCO/COCO_val2014_000000000481`, what stands last."""
    name = key.partition("#")[0].rpartition("/")[2]
    return name.removesuffix(".png")


def _pictures_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f'pictures folder "{folder}" does not exist')
    return {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}


def _found(files: dict[str, Path], example: Example) -> Iterator[Path]:
    return (files[name] for name in map(_name, example.images) if name in files)


def _drawn(root: Path, task: Task, example: Example) -> Iterator[Path]:
    """What the mini world draws: pictures, strips of a clip's frames; and data sets whose features are pictures."""
    for key in example.images:
        folder, _, name = key.partition("/")
        places = root / folder / "images", root / "video" / "frames" / folder
        files = [place / f"{name}.png" for place in places] + [task.feature_path(root, key)]
        yield from [file for file in files if file.suffix in SUFFIXES and file.is_file()][:1]
