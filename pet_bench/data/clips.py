"""What tasks on video clips share: subtitles, frame features of one length, multiple choice, captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.captions import CaptionTask
from pet_bench.data.rows import read_json_lines, shown
from pet_bench.data.task import Example, Generate, OptionalSplit, Split, Task
from pet_bench.errors import Faults
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT

FRAMES = 64


class Line(TypedDict):
    text: str


class Subtitles(TypedDict):
    vid_name: str
    sub: list[Line]


class Description(TypedDict):
    desc: str
    desc_id: int


def resample(features: np.ndarray, frames: int = FRAMES) -> np.ndarray:
    """Frame features (T, f) as (frames, f): zero rows behind a short clip, a long one max-pooled in time.

    Window i of the pooling reaches from ⌊i T/frames⌋ to ⌈(i+1) T/frames⌉ (TASKS.md 0.3).
    """
    length = len(features)
    if length <= frames:
        return np.pad(features, ((0, frames - length), (0, 0)))
    starts = np.arange(frames) * length // frames
    ends = -(-np.arange(1, frames + 1) * length // frames)
    return np.stack([features[a:b].max(axis=0) for a, b in zip(starts, ends, strict=True)])


@dataclass(frozen=True, config=STRICT)
class ClipTask(Task):
    """A task whose examples are clips with subtitles.

    Files: `video/ann/<folder>_subtitles.jsonl`, `video/vis_features/<folder>/clip-vit/<clip>.npz` with `features`
    (T, 512), and annotations as each task says. The prompt stands at the end of the text, after the subtitles of the
    whole clip.

    truncation: what a text of more than 600 tokens loses: its end, question and prompt included ("right", as
    published), or the end of its subtitles alone. padded_frames: whether the zero rows behind a clip of fewer than 64
    frames are attended, as published, or masked. max_target: tokens of a target that is learned. max_length: tokens
    of a prediction.
    """

    folder: ClassVar[str]
    pictures: ClassVar = False
    max_text: ClassVar = 600
    origins: ClassVar = {
        "video/ann": "VL-Adapter's data package, folder video; annotations and subtitles are the VALUE benchmark's",
        "video/vis_features": "VL-Adapter's data package, folder video; the VALUE benchmark's CLIP-ViT features",
    }

    prompt: str
    train: str = "train"
    valid: OptionalSplit = "val"
    test: str = "val"  # the test splits' answers are not public
    truncation: Literal["right", "subtitles"] = "right"
    padded_frames: Literal["attended", "masked"] = "attended"
    max_target: int = Field(default=20, ge=3, le=1024)  # type: ignore[misc]  # an option here, a fact elsewhere
    max_length: int = Field(default=20, ge=3, le=1024)

    @property
    def decoding(self) -> Generate:  # type: ignore[override]  # an option here, a fact elsewhere
        return Generate(num_beams=5, max_length=self.max_length)

    @property
    def masks_empty(self) -> bool:  # type: ignore[override]  # as above
        return self.padded_frames == "masked"

    def annotations(self, root: Path, name: str) -> Path:
        """The file of the split called `name`."""
        raise NotImplementedError

    def sources(self, root: Path, split: Split) -> list[Path]:
        files = [self.annotations(root, name) for name in self.names(split)]
        return [*files, self.subtitle_path(root)]

    def subtitle_path(self, root: Path) -> Path:
        return root / "video" / "ann" / f"{self.folder}_subtitles.jsonl"

    def rows(self, root: Path, name: str, schema: Any) -> Iterator[tuple[dict[str, Any], str, tuple[str, ...]]]:
        """(row, subtitles of its clip, its feature keys) for every line of a split's file.

        Raises UserError for clips without subtitles.
        """
        faults, rows = Faults(), []
        spoken: dict[str, str] = {}
        with faults:
            spoken = subtitles(self.name, self.subtitle_path(root))
        with faults:
            rows = read_json_lines(self.name, self.annotations(root, name), schema)
        faults.check()
        silent = [row["vid_name"] for row in rows if row["vid_name"] not in spoken]
        if silent:
            where = f"{self.name}: {self.subtitle_path(root)}"
            raise shown((f"{where}: no subtitles of clip {clip!r}" for clip in silent), where)
        return ((row, spoken[row["vid_name"]], (f"{self.folder}/{row['vid_name']}",)) for row in rows)

    def parts(self, row: dict[str, Any]) -> list[str]:
        """What stands between subtitles and prompt."""
        return []

    def text(self, row: dict[str, Any], spoken: str) -> tuple[str, tuple[int, int]]:
        """The text of an example, and the part of it that is cut before the rest is."""
        text = " ".join(["[Subs]", spoken, *self.parts(row), self.prompt])
        start = len("[Subs]")
        return text, (start, start + 1 + len(spoken)) if self.truncation == "subtitles" else (0, 0)

    def feature_path(self, root: Path | str, key: str) -> Path:
        folder, clip = key.split("/", 1)
        return Path(root) / "video" / "vis_features" / folder / "clip-vit" / f"{clip}.npz"

    def feature(self, root: Path | str, key: str) -> np.ndarray:
        """Frame features of one clip, (64, 512). Objects in the archive are not loaded: they could run code."""
        with self.feature_path(root, key).open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            features = archive["features"]
        if features.ndim != 2 or not len(features):
            raise ValueError(f"features have shape {features.shape}, expected (frames, width)")
        return resample(features)


def subtitles(task: str, path: Path) -> dict[str, str]:
    """Clip → all that is said in it, lines joined by single spaces."""
    return _subtitles(task, path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _subtitles(task: str, path: Path, changed: int) -> dict[str, str]:
    spoken: dict[str, str] = {}
    torn: list[str] = []
    for row in read_json_lines(task, path, Subtitles):
        said = " ".join(line["text"].strip() for line in row["sub"])
        if spoken.setdefault(row["vid_name"], said) != said:
            torn.append(f"{task}: {path}: clip {row['vid_name']!r} has two different subtitles")
    if torn:
        raise shown(torn, f"{task}: {path}")
    return spoken


@dataclass(frozen=True, config=STRICT)
class ChoiceTask(ClipTask):
    """Questions about a clip with several answers to choose from; the target is the right one's name, "a2"."""

    choices: ClassVar[int]
    row: ClassVar[type]
    metric: ClassVar = "multiple-choice-accuracy"
    closed: ClassVar = True

    def parts(self, row):
        answers = " ".join(f"a{i}: {row[f'a{i}'].strip('. ')}." for i in range(self.choices))
        return [f"[Q] {row['q'].strip()}", f"[TS] ({row['ts']})", f"[Choices] {answers}"]

    def kind(self, row: dict[str, Any]) -> str:
        """The show that a question is about, if there are several."""
        return ""

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        rows = list(self.rows(root, name, self.row))
        path = self.annotations(root, name)
        wrong = [row for row, _, _ in rows if not 0 <= row["answer_idx"] < self.choices]
        if wrong:
            said = (f"{self.name}: {path}: qid {r['qid']}: answer_idx {r['answer_idx']} is no choice" for r in wrong)
            raise shown(said, f"{self.name}: {path}")
        for row, spoken, clip in rows:
            text, spare = self.text(row, spoken)
            answer = f"a{row['answer_idx']}"
            kind = self.kind(row)
            groups = ({"show": kind} if kind else {}) | {"length": length_group(row["q"])}
            references = {"answer": answer}
            yield Example(str(row["qid"]), text, clip, ((answer, 1.0),), references, kind, groups, spare)


@dataclass(frozen=True, config=STRICT)
class DescriptionTask(CaptionTask, ClipTask):  # pyright: ignore[reportIncompatibleVariableOverride]  # `also`
    """Captions of a clip.

    unit: what is validated and tested. "description", as published, makes every reference an item of its own, with one
    reference; "clip" is the official protocol: one prediction against all references of the clip, characters beyond
    ASCII replaced by spaces.
    """

    row: ClassVar[type]

    unit: Literal["description", "clip"] = "description"

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = self.annotations(root, name)
        rows = list(self.rows(root, name, self.row))
        empty = [
            row["clip_id"] for row, _, _ in rows if not all(d["desc"].strip() for d in row["descs"] or [{"desc": ""}])
        ]
        if empty:
            where = f"{self.name}: {path}"
            raise shown((f"{where}: clip_id {clip} has an empty description or none" for clip in empty), where)
        for row, spoken, clip in rows:
            text, spare = self.text(row, spoken)
            items = [(description["desc_id"], [description["desc"]]) for description in row["descs"]]
            if split != "train" and self.unit == "clip":
                items = [(row["clip_id"], [caption for _, captions in items for caption in captions])]
            for key, captions in items:
                groups, references = {"length": length_group(*captions)}, {"captions": captions}
                yield Example(str(key), text, clip, ((captions[0], 1.0),), references, groups=groups, spare=spare)

    def score(self, predictions, examples):
        if self.unit == "clip":
            predictions = {key: ascii_only(text) for key, text in predictions.items()}
            captions = [[ascii_only(caption) for caption in example.references["captions"]] for example in examples]
            examples = [replace(e, references={"captions": c}) for e, c in zip(examples, captions, strict=True)]
        return super().score(predictions, examples)


def ascii_only(text: str) -> str:
    return "".join(character if character.isascii() else " " for character in text)
