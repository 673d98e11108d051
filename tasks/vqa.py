"""VQAv2 on the Karpathy splits (Goyal et al. 2017, arXiv:1612.00837).

Files, as in a VL-Adapter workspace: `vqa/karpathy_{train,val,test}.json`, the official
`vqa/v2_mscoco_{train,val}2014_annotations.json` for scoring, `COCO/clip_features/…/<image>.h5`. Where a row does not
name its image, the official annotations do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NotRequired

from pydantic import Field
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
    image_id: NotRequired[Annotated[int, Field(ge=0)]]
    question_type: str
    answer_type: str
    answers: list[Answer]


class Annotations(TypedDict):
    annotations: list[Annotation]


class Official(NamedTuple):
    """truth: what the metric and the breakdowns need; image: the name of its file, where it is said."""

    truth: dict[str, Any]
    image: str | None


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
        official = [_annotations(root, part) for part in _PARTS]
        return files if split == "train" else files + ([path for path in official if path.is_file()] or official)

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = root / "vqa" / f"{name}.json"
        rows = read_json(self.name, path, list[Row])
        silent = [f"{self.name}: {path}: row {i}: sent is missing" for i, r in enumerate(rows) if not r.keys() & _TEXT]
        if silent:
            raise shown(silent, f"{self.name}: {path}")
        wanted = {str(row["question_id"]) for row in rows if split != "train" or "img_id" not in row}
        official = self._official(root, path, wanted) if wanted else {}
        images = [row.get("img_id") or official[str(row["question_id"])].image for row in rows]
        nowhere = [f"{self.name}: {path}: row {i}: img_id is missing" for i, image in enumerate(images) if not image]
        if nowhere:
            raise shown(nowhere, f"{self.name}: {path}")
        for row, image in zip(rows, images, strict=True):
            key = str(row["question_id"])
            label = {} if "" in row["label"] else row["label"]
            sentence = row.get("sent", row.get("question", ""))
            known = official[key].truth if split != "train" else {}
            types = {name.replace("_", " "): known[name] for name in _TYPES if known}
            yield Example(
                id=key,
                text=self.prompt + sentence,
                images=(f"COCO/{Path(str(image)).stem}",),
                targets=tuple(label.items()),
                references={"label": label, **known} if known else {},
                kind=row.get("question_type", ""),
                groups={**types, "length": length_group(sentence)} if known else {},
            )

    def _official(self, root: Path, path: Path, wanted: set[str]) -> dict[str, Official]:
        """What the official files say, by question; the second is read only where the first does not have them all."""
        official: dict[str, Official] = {}
        faults: list[UserError | str] = []
        for part in _PARTS:
            if wanted <= official.keys():
                break
            file = _annotations(root, part)
            try:
                rows = read_json(self.name, file, Annotations)["annotations"]
            except UserError as error:
                faults.append(error)
                continue
            for row in rows:
                key = str(row["question_id"])
                if row["answers"] and key in wanted:
                    if key in official:
                        faults.append(f"{self.name}: {file}: question {key} occurs twice")
                    image = f"COCO_{part}_{row['image_id']:012d}" if "image_id" in row else None
                    truth = {
                        "answers": [answer["answer"] for answer in row["answers"]],
                        "answer_type": row["answer_type"],
                        "question_type": row["question_type"],
                    }
                    official[key] = Official(truth, image)
        missing = wanted - official.keys()
        twice = [fault for fault in faults if isinstance(fault, str)]
        if missing:
            first = f"the first is {min(missing)!r}"
            lacking = f"{self.name}: {path}: {len(missing)} questions have no annotators' answers, {first}"
            raise UserError.many(faults or [lacking])
        if twice:
            raise shown(twice, self.name)
        return official


_TEXT = {"sent", "question"}
_TYPES = ("question_type", "answer_type")
_PARTS = ("val2014", "train2014")


def _annotations(root: Path, part: str) -> Path:
    return root / "vqa" / f"v2_mscoco_{part}_annotations.json"
