"""NLVR2: is a statement true of a pair of photographs (Suhr et al. 2019, arXiv:1811.00491).

Files, as in a VL-Adapter workspace: `nlvr/{train,valid,test}.json` in LXMERT's format (valid is the official dev,
test the official test1), `nlvr/clip_features/…/<image>.h5`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.rows import read_json
from pet_bench.data.task import Choose, Example, OptionalSplit, Split, Task
from pet_bench.errors import UserError
from pet_bench.spec import STRICT

ANSWERS = ("true", "false")


class Row(TypedDict):
    identifier: str
    img0: str
    img1: str
    label: Literal[0, 1]
    sent: str


def sentence_of(identifier: str) -> str:
    """The key that all image pairs of one sentence share: the identifier without its third field."""
    split, group, _, sentence = identifier.split("-")
    return f"{split}-{group}--{sentence}"


@dataclass(frozen=True, config=STRICT)
class NLVR2(Task):
    """True or false, by comparing the two words after one decoder pass. The text is never cut."""

    name: ClassVar = "nlvr2"
    batch_ratio: ClassVar = 20 / 60
    decoding: ClassVar = Choose(ANSWERS)
    metric: ClassVar = "nlvr-accuracy"

    prompt: str = "nlvr: "
    train: str = "train"
    valid: OptionalSplit = "valid"
    test: str = "test"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / "nlvr" / f"{name}.json" for name in getattr(self, split).split("+")]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = root / "nlvr" / f"{name}.json"
        for i, row in enumerate(read_json(self.name, path, list[Row])):
            key = row["identifier"]
            if key.count("-") != 3:
                raise UserError(f"{self.name}: {path}: row {i}: identifier must have four fields, found {key!r}")
            answer = "true" if row["label"] else "false"
            yield Example(
                id=key,
                text=self.prompt + row["sent"],
                images=(f"nlvr/{row['img0']}", f"nlvr/{row['img1']}"),
                targets=((answer, 1.0),),
                references={"label": answer, "group": sentence_of(key)},
            )
