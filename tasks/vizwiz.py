"""VizWiz: questions that blind people asked about pictures that they took (Gurari et al. 2018, arXiv:1802.08218).

Files, as published: `vizwiz/{train,val,test}.json` of Annotations.zip, a list of `{"image", "question", "answers":
[{"answer", "answer_confidence"}], "answer_type", "answerable"}`; pictures in `vizwiz/images/`, in folders or archives.
The answers of the test split are not public. Each picture has one question, which is known by the picture's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, NotRequired

from pydantic import Field
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.answers import ANNOTATORS, BRIEFLY, AnswerTask, AnswerType, Name, soft_label
from pet_bench.data.rows import Flag, Text, read_json, shown
from pet_bench.data.submissions import Submission, check_answered, groups, unique
from pet_bench.data.task import Example, OptionalSplit, Split
from pet_bench.metrics.scores import Item, length_group
from pet_bench.spec import STRICT


class Answer(TypedDict):
    answer: str


class Row(TypedDict):
    image: Name
    question: Text
    answers: NotRequired[Annotated[list[Answer], Field(min_length=ANNOTATORS, max_length=ANNOTATORS)]]
    answer_type: NotRequired[AnswerType]
    answerable: NotRequired[Flag]


class Result(TypedDict):
    image: str
    answer: str


class Annotation(TypedDict):
    image: str
    answers: NotRequired[Annotated[list[Answer], Field(min_length=ANNOTATORS, max_length=ANNOTATORS)]]
    answer_type: NotRequired[AnswerType]


KNOWN = ("answers", "answer_type", "answerable")


def submitted(metric: str, file: Path, annotations: Path) -> Submission:
    """The evaluation server's results, [{"image", "answer"}], and the official annotations, a list."""
    results = ((row["image"], row["answer"]) for row in read_json(metric, file, list[Result]))
    rows = read_json(metric, annotations, list[Annotation])
    known = [(row["image"], [answer["answer"] for answer in row.get("answers", ())]) for row in rows]
    check_answered(metric, annotations, known)
    kinds = {row["image"]: row.get("answer_type") for row in rows}
    items = []
    for key, answers in unique(metric, annotations, known).items():
        kind = kinds[key]
        items.append(
            Item(key, {"answers": answers, **({"answer_type": kind} if kind else {})}, groups(answer_type=kind))
        )
    return Submission(unique(metric, file, results), items)


@dataclass(frozen=True, config=STRICT)
class VizWiz(AnswerTask):
    """Scored by the data set's own accuracy, so val is both validation and test split.

    A question that cannot be answered has the answer "unanswerable", which is learned and scored as any other; scores
    are broken down by answer type, and by whether a question can be answered. LLaVA-1.5 asks for the word itself.
    """

    name: ClassVar = "vizwiz"
    hub: ClassVar = ("visual-question-answering", "vizwiz-vqa", "VizWiz")
    max_text: ClassVar = 128
    metric: ClassVar = "vizwiz-accuracy"
    submission: ClassVar = staticmethod(submitted)
    instruction: ClassVar = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{BRIEFLY}"
    origins: ClassVar = {
        "vizwiz/*.json": "the VizWiz download page (vizwiz.org/tasks-and-datasets/vqa), Annotations.zip",
        "vizwiz/images": "the VizWiz download page (vizwiz.org/tasks-and-datasets/vqa), train.zip, val.zip, test.zip",
        "vizwiz/clip_features": "`pet-bench data features` of the images; none are published",
    }

    prompt: str = "vizwiz: "
    train: str = "train"
    valid: OptionalSplit = "val"
    test: str = "val"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / "vizwiz" / f"{name}.json" for name in self.names(split)]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = root / "vizwiz" / f"{name}.json"
        rows, where = read_json(self.name, path, list[Row]), f"{self.name}: {path}"
        hidden = [
            f"{where}: row {i}: {key} is missing, as in the test split, where it is hidden"
            for i, row in enumerate(rows)
            for key in KNOWN
            if key not in row
        ]
        if hidden:
            raise shown(hidden, where)
        for row in rows:
            key, answers = Path(row["image"]).stem, [answer["answer"] for answer in row["answers"]]
            text, spare = self.asked(row["question"])
            yield Example(
                id=key,
                text=text,
                images=(f"vizwiz/{key}",),
                targets=tuple(soft_label(answers).items()),
                references={"answers": answers, "answer_type": row["answer_type"]},
                groups={
                    "answer type": row["answer_type"],
                    "answerable": "yes" if row["answerable"] else "no",
                    "length": length_group(row["question"]),
                },
                spare=spare,
            )
