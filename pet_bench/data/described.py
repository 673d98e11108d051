"""A task in a YAML file, without code: which table, which of its columns are what, how it is asked and scored.

    name: birds
    file: birds.csv                # below the data folder; or {split}.jsonl, a file for each split
    split: part                    # the column that says in which split a row is
    images: picture                # the column that names a picture in images/, or a list of such columns
    text: "what bird is {colour}?"
    target: "{bird}"
    metric: exact-match

The file is a plug-in (`--task-file birds.yaml`): it brings a task and a suite of its name. Tables are CSV or TSV with a
line of names, JSON (a list of objects), JSON lines or parquet; values are text, numbers and, but in CSV, lists of text.
Features of an image `a/b.jpg` are `clip_features/data_clip_RN101_att/a/b.h5` below the data folder, or raw patches of
`images/a/b.jpg`; its picture is looked for as `data.albums` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from string import Formatter
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from pet_bench.data.patches import patches
from pet_bench.data.rows import Text, shown
from pet_bench.data.suite import Suite
from pet_bench.data.tabular import FORMS, Row, read_table
from pet_bench.data.task import FEATURES, Choose, Example, Generate, OptionalSplit, Split, Task
from pet_bench.errors import Faults, unknown
from pet_bench.files import read_yaml
from pet_bench.registry import METRICS
from pet_bench.spec import STRICT, Size, Visual, validate

CLIP = Visual(width=2048, tokens=49, pooled=36)
PATCHES = Visual(width=192, tokens=36, pooled=36)


def _inside(path: str) -> str:
    """Raises ValueError where a path leads out of its folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or ".." in parts:
        raise ValueError(f"a path below its folder, with / between its parts, found {path!r}")
    return path


def _template(text: str) -> str:
    """Raises ValueError where braces hold anything else than the name of a column."""
    for _, name, form, conversion in Formatter().parse(text):
        if name is not None and (not name or form or conversion or set(name) & set(".[]")):
            raise ValueError(f"braces hold the name of a column, found {text!r}")
    return text


Inside = Annotated[Text, AfterValidator(_inside)]
Template = Annotated[str, AfterValidator(_template)]


@dataclass(frozen=True, config=STRICT)
class Splits:
    """What the three splits are called in the column `split`, or in the names of files."""

    train: Text = "train"
    valid: OptionalSplit = "valid"
    test: Text = "test"


@dataclass(frozen=True, config=STRICT)
class Description:
    """The fields of the file.

    id: the column of ids; else rows are counted from 1. text, target: columns in braces, {{ and }} for braces. target:
    where it is one column alone that holds a list, each is an answer; separator: likewise of one text. choices: the
    only answers; the model chooses among them. groups: columns by which scores are broken down. max_text, max_target,
    max_length: of text and target in training, and of what is generated, in tokens, special ones included. features:
    what backbones that are not fed with pixels see, CLIP's RN101 grids or raw patches of the pictures.
    """

    name: Text
    file: Inside
    text: Template
    target: Annotated[Template, Field(min_length=1)]
    split: Text | None = None
    splits: Splits = field(default_factory=Splits)
    id: Text | None = None
    images: Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)] = "image"
    separator: Annotated[str, Field(min_length=1)] | None = None
    choices: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    groups: tuple[Text, ...] = ()
    metric: Text = "exact-match"
    also: tuple[Text, ...] = ()
    prompt: str = ""
    max_text: Size | None = None
    max_target: Size | None = None
    max_length: Annotated[int, Field(ge=3, le=1024)] = 20
    num_beams: Annotated[int, Field(ge=1, le=64)] = 1
    features: Literal["clip", "patches"] = "clip"

    @property
    def pictures(self) -> tuple[str, ...]:
        """The columns of images."""
        return (self.images,) if isinstance(self.images, str) else self.images

    @property
    def columns(self) -> dict[str, list[str]]:
        """Those that each field names."""
        named = {
            "split": [self.split], "id": [self.id], "images": self.pictures, "groups": self.groups,
            "text": _columns(self.text), "target": _columns(self.target),
        }  # fmt: skip
        return {key: [name for name in names if name is not None] for key, names in named.items()}

    def check(self, what: str) -> None:
        """Raises UserError for fields that do not go together, all of them."""
        faults = Faults()
        if PurePosixPath(self.file).suffix.lower() not in FORMS:
            faults.add(f"{what}: file: a table ends with {', '.join(FORMS)}, found {self.file!r}")
        if ("{split}" in self.file) == (self.split is not None):
            found = "both" if self.split else "neither"
            faults.add(f"{what}: split: a column, or else {{split}} in the name of the file; found {found}")
        if _columns(self.file.replace("{split}", "")):
            faults.add(f"{what}: file: only {{split}} stands for something, found {self.file!r}")
        if not _columns(self.target):
            faults.add(f"{what}: target: it names no column, so every answer were the same: {self.target!r}")
        if self.separator is not None and not _alone(self.target):
            faults.add(f"{what}: separator: is for a target of one column alone, found {self.target!r}")
        for name in (self.metric, *self.also):
            if name not in METRICS:
                faults.add(unknown(f"{what}: metric:", name, METRICS.names()))
        faults.check()


@dataclass(frozen=True, config=STRICT)
class Described(Task):
    """What all tasks of a YAML file share; `about` is the file's content."""

    about: ClassVar[Description]

    prompt: str = ""
    train: str = "train"
    valid: OptionalSplit = "valid"
    test: str = "test"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / name for name in dict.fromkeys(map(self._file, self.names(split)))]

    def _file(self, name: str) -> str:
        return self.about.file.replace("{split}", name)

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        about, path = self.about, root / _inside(self._file(name))
        rows = read_table(self.name, path, about.columns)
        there = Counter(str(row[about.split]) for _, row in rows) if about.split else {name: len(rows)}
        if name not in there:
            raise unknown(f"{self.name}: {path}: split (column {about.split})", name, there)
        faults: list[str] = []
        for place, row in rows:
            if about.split is None or str(row[about.split]) == name:
                try:
                    yield self._one(place, row)
                except ValueError as error:
                    faults += [f"{self.name}: {path}: {place}: {line}" for line in str(error).splitlines()]
        if faults:
            raise shown(faults, f"{self.name}: {path}")

    def _one(self, place: str, row: Row) -> Example:
        """Raises ValueError with a line for each fault."""
        about = self.about
        answers, said = self._answers(row)
        said += [f"{key} is empty" for key in _columns(about.text) if row[key] in ("", None)]
        images = []
        for column in about.pictures:
            try:
                images.append(_inside(str(row[column] or "")))
            except ValueError as error:
                said.append(f"{column} is {error}")
        if about.id and row[about.id] in ("", None):
            said.append(f"{about.id} is empty")
        if said:
            raise ValueError("\n".join(said))
        counts = Counter(answers)
        most = max(counts.values())
        return Example(
            id=str(row[about.id]) if about.id else place.split()[-1],
            text=self.prompt + about.text.format_map(row),
            images=tuple(f"{self.name}/{image}" for image in images),
            targets=tuple((answer, count / most) for answer, count in counts.items()),
            references={
                "label": dict.fromkeys(answers, 1.0), "answer": answers[0], "answers": answers, "captions": answers
            },
            groups={column: str(row[column]) for column in about.groups},
        )  # fmt: skip

    def _answers(self, row: Row) -> tuple[list[str], list[str]]:
        """The answers of a row, and what is wrong with them."""
        about, alone = self.about, _alone(self.about.target)
        value = row[alone] if alone else about.target.format_map(row)
        each = value if isinstance(value, list) else [value]
        if about.separator is not None:
            each = str(value or "").split(about.separator)
        answers = [str(one).strip() for one in each if one is not None]
        if not answers or "" in answers:
            return [], [f"{alone or 'target'} is empty"]
        return answers, [
            f"{alone or 'target'} is {one!r}, expected one of {', '.join(about.choices)}"
            for one in answers
            if about.choices and one not in about.choices
        ]

    def feature_path(self, root: Path | str, key: str) -> Path:
        image = key.removeprefix(f"{self.name}/")
        if self.about.features == "patches":
            return Path(root) / "images" / image
        return Path(root) / FEATURES / PurePosixPath(image).with_suffix(".h5")

    def dataset(self, file: Any, key: str) -> Any:
        return file[f"{PurePosixPath(key).stem}/features"]

    def picture(self, root: Path | str, key: str) -> tuple[Path, str]:
        return Path(root), key.removeprefix(f"{self.name}/")


class Patched(Described):
    """With raw patches of the pictures for features."""

    def feature(self, root: Path | str, key: str) -> np.ndarray:
        with Image.open(self.feature_path(root, key)) as image:
            return patches(image)


def define(module: ModuleType, path: Path, what: str) -> None:
    """Put the task and the suite that a file describes into a module, as if it had defined them.

    what: how messages call the file. Raises UserError with all that is wrong with it, by field.
    """
    about = validate(Description, read_yaml(path, what), what)
    about.check(what)
    options: Mapping[str, tuple[Any, Any]] = {
        "prompt": (str, about.prompt), "train": (str, about.splits.train),
        "valid": (OptionalSplit, about.splits.valid), "test": (str, about.splits.test),
    }  # fmt: skip
    facts = {
        "about": about, "name": about.name, "metric": about.metric, "also": about.also, "max_text": about.max_text,
        "max_target": about.max_target, "closed": about.choices is not None,
        "decoding": Choose(about.choices) if about.choices else Generate(about.num_beams, about.max_length),
    }  # fmt: skip
    own = {"__annotations__": {name: kind for name, (kind, _) in options.items()}, "__module__": module.__name__}
    base = Patched if about.features == "patches" else Described
    task = type("OwnTask", (base,), own | {name: value for name, (_, value) in options.items()} | facts)
    visual = PATCHES if about.features == "patches" else CLIP
    shape = Visual(visual.width, visual.tokens, visual.pooled, max(visual.images, len(about.pictures)))
    module.TASK = dataclass(frozen=True, config=STRICT)(task)  # type: ignore[attr-defined]
    module.SUITE = Suite(about.name, (about.name,), shape)  # type: ignore[attr-defined]


def _columns(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def _alone(template: str) -> str | None:
    """The column that a template is, and nothing else."""
    names = _columns(template)
    return names[0] if len(names) == 1 and template == f"{{{names[0]}}}" else None
