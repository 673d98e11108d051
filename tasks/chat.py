"""Conversations of one's own about images: LLaVA's form, TRL's messages, or prompts with completions.

Files: `train.json`, `test.json` and so on, a list, or with `.jsonl` an object a line, in the folder `chat/` of the data
root or the root itself; images by their paths below `images/` there (see `data.albums`), or as features
`clip_features/…/<path>.h5`. `data.conversations` has the forms. Tables of the hub with embedded images are made into
these files by `pet-bench data convert SOURCE ROOT --task chat`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.data.blank import BlankTask
from pet_bench.data.conversations import Conversation, conversation
from pet_bench.data.rows import read_json, read_json_lines, shown
from pet_bench.data.task import Example, Generate, OptionalSplit, Split
from pet_bench.errors import UserError
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT


@dataclass(frozen=True, config=STRICT)
class Chat(BlankTask):
    """Every turn is trained on, behind those before it; of a conversation that is tested, the last one is answered.

    A text is the system's message if any, the turns before (`user: … assistant: …`) and the question; of what is too
    long, the turns before are cut first. scorer: of the answer, "exact-match" to the letter or "cider". images: that an
    example has; where it has fewer, black pictures follow, or vectors of zeros, which are hidden from attention; one
    that has more is a fault. max_text, max_target: in training, max_length: of what is generated, in tokens.
    """

    name: ClassVar = "chat"
    loss: ClassVar = "token-mean"
    masks_empty: ClassVar = True
    origins: ClassVar = {"*": "your own: conversations in LLaVA's or TRL's form, see docs/data.md"}

    prompt: str = ""
    train: str = "train"
    valid: OptionalSplit = "valid"
    test: str = "test"
    scorer: Literal["exact-match", "cider"] = "exact-match"
    images: int = Field(default=1, ge=1, le=8)
    max_text: int = Field(default=512, ge=8, le=1 << 20)  # type: ignore[misc]  # options here, facts elsewhere
    max_target: int = Field(default=128, ge=2, le=1 << 16)  # type: ignore[misc]
    max_length: int = Field(default=64, ge=3, le=1024)

    @property
    def metric(self) -> str:  # type: ignore[override]  # by an option here, a fact elsewhere
        return self.scorer

    @property
    def decoding(self) -> Generate:  # type: ignore[override]  # as above
        return Generate(max_length=self.max_length)

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [_file(self.home(root), name) for name in self.names(split)]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = _file(self.home(root), name)
        if (other := path.with_suffix(".json")) != path and other.is_file():
            raise UserError(f"{self.name}: {path} and {other.name} are both there; leave one of them")
        read = read_json_lines if path.suffix == ".jsonl" else read_json
        rows = read(self.name, path, dict if path.suffix == ".jsonl" else list[dict])
        faults: list[str] = []
        for number, row in enumerate(rows):
            where = f"{self.name}: {path}: row {number}"
            said, told = conversation(where, row)
            if told and len(told.images) > self.images:
                many = f"{len(told.images)} images, at most {self.images} (--set {self.name}.images={len(told.images)})"
                said.append(f"{where}: it has {many}")
            faults += said
            if told and not faults:
                yield from self._examples(told, told.id or str(number), split)
        if faults:
            raise shown(faults, f"{self.name}: {path}")

    def _examples(self, told: Conversation, key: str, split: Split) -> Iterator[Example]:
        shown = [f"{self.name}/{image}" for image in told.images]
        shown += [self.blank] * (self.images - len(shown))
        last = len(told.turns) - 1
        for number, turn in enumerate(told.turns):
            if split != "train" and number < last:
                continue
            start = self.prompt + (f"{told.system} " if told.system else "")
            before = " ".join(f"user: {one.question} assistant: {one.answer}" for one in told.turns[:number])
            question = f" user: {turn.question}" if before else turn.question
            yield Example(
                id=f"{key}-{number}" if last else key,
                text=f"{start}{before}{question}",
                images=tuple(shown),
                targets=((turn.answer, 1.0),),
                references={"label": {turn.answer: 1.0}, "captions": [turn.answer]},
                groups={"turns": str(last + 1), "length": length_group(turn.question)},
                spare=(len(start), len(start) + len(before)),
            )

    def home(self, root: Path | str) -> Path:
        """A folder `chat` of the root, or the root itself."""
        own = super().home(root)
        return own if own.is_dir() else Path(root)


def _file(home: Path, name: str) -> Path:
    lines = home / f"{name}.jsonl"
    return lines if lines.is_file() else home / f"{name}.json"
