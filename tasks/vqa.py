"""VQAv2 on the Karpathy splits (Goyal et al. 2017, arXiv:1612.00837).

Files, as in a VL-Adapter workspace: `vqa/karpathy_{train,val,test}.json`, the official
`vqa/v2_mscoco_{train,val}2014_annotations.json` for scoring, `COCO/clip_features/…/<image>.h5`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NotRequired

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.rows import Id, SoftLabel, Text, read_json, shown
from pet_bench.data.task import Example, OptionalSplit, Split, Task
from pet_bench.errors import UserError
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT


class Row(TypedDict):
    question_id: Id
    img_id: NotRequired[Text]
    label: SoftLabel
    sent: NotRequired[Text]
    question: NotRequired[Text]
    question_type: NotRequired[str]
    answer_type: NotRequired[str]


class Answer(TypedDict):
    answer: str


class Annotation(TypedDict):
    question_id: Id
    image_id: NotRequired[Id]
    question_type: str
    answer_type: str
    answers: list[Answer]


class Annotations(TypedDict):
    annotations: list[Annotation]


@dataclass(frozen=True, config=STRICT)
class VQA(Task):
    """Open-ended answers, learned from soft labels: one answer a time, drawn in proportion to its score.

    scorer: version of the official accuracy, "2016" in the published tables.
    """

    name: ClassVar = "vqa"
    hub: ClassVar = ("visual-question-answering", "vqa-v2", "VQA v2")
    loss: ClassVar = "score-weighted"
    max_text: ClassVar = 20
    max_target: ClassVar = 10
    metric: ClassVar = "vqa-accuracy"
    origins: ClassVar = {
        "vqa/karpathy_*.json": "VL-Adapter's data package, folder vqa",
        "vqa/v2_OpenEnded_*.json": "the VQA download page (visualqa.org), Questions of Balanced Real Images, v2.0",
        "vqa/v2_mscoco_*.json": "the VQA download page (visualqa.org), VQA Annotations of Balanced Real Images, v2.0",
        "COCO/clip_features": "VL-Adapter's data package, folder COCO; CLIP RN101 grids of COCO train2014 and val2014",
    }

    prompt: str = "vqa: "
    train: str = "karpathy_train"
    valid: OptionalSplit = "karpathy_val"
    test: str = "karpathy_test"
    scorer: Literal["2016", "2021"] = "2016"

    @property
    def metric_options(self) -> dict[str, Any]:
        return {"version": self.scorer}

    def sources(self, root: Path, split: Split) -> list[Path]:
        files = [root / "vqa" / f"{name}.json" for name in self.names(split)]
        present = [path for path in _official(root) if path.is_file()]
        return files if split == "train" else files + (present or _official(root))

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = root / "vqa" / f"{name}.json"
        rows = read_json(self.name, path, list[Row])
        silent = [f"{self.name}: {path}: row {i}: sent is missing" for i, r in enumerate(rows) if not r.keys() & _TEXT]
        if silent:
            raise shown(silent, f"{self.name}: {path}")
        truth = {} if split == "train" else self._truth(root, path, {str(row["question_id"]) for row in rows})
        for row in rows:
            key = str(row["question_id"])
            label = {} if "" in row["label"] else row["label"]
            sentence, known = row.get("sent", row.get("question", "")), truth.get(key, {})
            types = {name.replace("_", " "): known[name] for name in _TYPES if known}
            yield Example(
                id=key,
                text=self.prompt + sentence,
                images=(f"COCO/{row['img_id']}",),
                targets=tuple(label.items()),
                references={"label": label, **known} if truth else {},
                kind=row.get("question_type", ""),
                groups={**types, "length": length_group(sentence)} if truth else {},
            )

    def _truth(self, root: Path, path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
        """The annotators' answers by question; the second file is read only where the first does not have them all."""
        truth, faults = {}, []
        for file in _official(root):
            if wanted <= truth.keys():
                break
            try:
                rows = read_json(self.name, file, Annotations)["annotations"]
            except UserError as error:
                faults.append(error)
                continue
            truth |= {
                str(row["question_id"]): {
                    "answers": [answer["answer"] for answer in row["answers"]],
                    "answer_type": row["answer_type"],
                    "question_type": row["question_type"],
                }
                for row in rows
                if row["answers"] and str(row["question_id"]) in wanted
            }
        missing = wanted - truth.keys()
        if missing:
            first = f"the first is {min(missing)!r}"
            lacking = f"{self.name}: {path}: {len(missing)} questions have no annotators' answers, {first}"
            raise UserError.many(faults or [lacking])
        return truth


_TEXT = {"sent", "question"}
_TYPES = ("question_type", "answer_type")


def _official(root: Path) -> list[Path]:
    return [root / "vqa" / f"v2_mscoco_{part}_annotations.json" for part in ("val2014", "train2014")]
