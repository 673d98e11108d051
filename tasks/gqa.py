"""GQA, balanced questions (Hudson and Manning 2019, arXiv:1902.09506).

Files, as in a VL-Adapter workspace: `GQA/{train,valid,testdev}.json`, `VG/clip_features/…/<image>.h5` for train and
valid, `GQA/clip_features/…/<image>.h5` for testdev. The official files are read too
(`train="train_balanced_questions+val_balanced_questions"`, `test="testdev_balanced_questions"`); of one that holds all
questions those that are not balanced are trained on, but not tested, since the official accuracy leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NotRequired

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.rows import Id, SoftLabel, Text, read_json, starts_with
from pet_bench.data.submissions import GQATypes
from pet_bench.data.task import Example, LeftOut, OptionalSplit, Split, Task
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT


class Row(TypedDict):
    question_id: Id
    img_id: Text
    sent: Text
    label: SoftLabel
    types: NotRequired[GQATypes]


class OfficialRow(TypedDict):
    imageId: Text
    question: Text
    answer: Text
    isBalanced: NotRequired[bool]
    types: NotRequired[GQATypes]


def from_official(key: str, row: OfficialRow) -> Row:
    made: Row = {
        "question_id": key, "img_id": row["imageId"], "sent": row["question"], "label": {row["answer"]: 1.0}
    }  # fmt: skip
    if "types" in row:
        made["types"] = row["types"]
    return made


def kind_of(question: str) -> str:
    """The files name no question type; the first two words tell it, and between which words there is to choose."""
    words = question.lower().rstrip("?").split()
    choices = [f"{words[i - 1]} or {words[i + 1]}" for i in range(1, len(words) - 1) if words[i] == "or"]
    return " ".join(words[:2] + choices)


def groups_of(row: Row) -> dict[str, str]:
    types = {f"{key} type": str(value) for key, value in row.get("types", {}).items()}
    return {**types, "length": length_group(row["sent"])}


@dataclass(frozen=True, config=STRICT)
class GQA(Task):
    """Short answers. As published: trained on train and valid, `testdev` is both validation and test split.

    prompt: "gpa: " is how the published scripts spell it.
    """

    name: ClassVar = "gqa"
    hub: ClassVar = ("visual-question-answering", "gqa", "GQA")
    max_text: ClassVar = 20
    batch_ratio: ClassVar = 100 / 60
    metric: ClassVar = "exact-match"
    origins: ClassVar = {
        "GQA/*_balanced_questions.json": "the GQA download page, Questions 1.2, balanced",
        "GQA/*.json": "VL-Adapter's data package, folder GQA",
        "VG/clip_features": "VL-Adapter's data package, folder VG; CLIP RN101 grids of the Visual Genome images",
        "GQA/clip_features": "VL-Adapter's data package, folder GQA; CLIP RN101 grids of the GQA testdev images",
    }

    prompt: str = "gpa: "
    train: str = "train+valid"
    valid: OptionalSplit = "testdev"
    test: str = "testdev"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / "GQA" / f"{name}.json" for name in self.names(split)]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example | LeftOut]:
        path = root / "GQA" / f"{name}.json"
        folder = "GQA" if name.startswith(("testdev", "submi")) else "VG"
        if starts_with(path, b"{"):
            rows = []
            for key, row in read_json(self.name, path, dict[Text, OfficialRow]).items():
                if split == "train" or row.get("isBalanced", True):
                    rows.append(from_official(key, row))
                else:
                    yield LeftOut(key, "it is not balanced, which the official accuracy does not count")
        else:
            rows = read_json(self.name, path, list[Row])
        for row in rows:
            yield Example(
                id=str(row["question_id"]),
                text=self.prompt + row["sent"],
                images=(f"{folder}/{row['img_id']}",),
                targets=tuple((answer, score) for answer, score in row["label"].items() if answer),
                references={"label": row["label"]},
                kind=kind_of(row["sent"]),
                groups={} if split == "train" else groups_of(row),
            )
