"""OK-VQA: questions that need knowledge from outside of the image (Marino et al. 2019, arXiv:1906.00067).

Files, as published: `okvqa/OpenEnded_mscoco_{train,val}2014_questions.json` and
`okvqa/mscoco_{train,val}2014_annotations.json`; the images are COCO's, `COCO/clip_features/…/<image>.h5`. VQA v1 has
files of the same names; its annotations lack `raw_answer`, and are refused.

Names, the ten pairs of `answer` and `raw_answer` a question, the image's number in both files and the categories' codes
are as google-research/big_vision reads the published files (`big_vision/datasets/okvqa/okvqa.py`). No public reader
that was looked at has the table `question_types`; where it is not there, codes have big_vision's names. `answer` is
`raw_answer` stemmed ("riding", "ride"; mlfoundations/open_flamingo, `eval/ok_vqa_utils.py`), and what is learned and
scored, by VQA's accuracy. What is generated is not stemmed, as in EvolvingLMMs-Lab/lmms-eval (`tasks/ok_vqa`);
open_flamingo and salesforce/LAVIS (`apply_lemmatizer`) do so for models that were not trained on stems.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NotRequired

from pydantic import Field
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.answers import ANNOTATORS, AnswerTask, Name, soft_label
from pet_bench.data.rows import Id, Text, read_json, shown
from pet_bench.data.task import Example, OptionalSplit, Split
from pet_bench.errors import Faults
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT

Number = Annotated[int, Field(ge=0)]
CATEGORIES = {
    "one": "Vehicles and Transportation",
    "two": "Brands, Companies and Products",
    "three": "Objects, Material and Clothing",
    "four": "Sports and Recreation",
    "five": "Cooking and Food",
    "six": "Geography, History, Language and Culture",
    "seven": "People and Everyday life",
    "eight": "Plants and Animals",
    "nine": "Science and Technology",
    "ten": "Weather and Climate",
    "other": "Other",
}


class Question(TypedDict):
    """image: the name of a picture of its own, where COCO's number of the image is not known."""

    question_id: Id
    image_id: NotRequired[Number]
    image: NotRequired[Name]
    question: Text


class Questions(TypedDict):
    questions: list[Question]


class Answer(TypedDict):
    answer: str
    raw_answer: str


class Annotation(TypedDict):
    question_id: Id
    image_id: NotRequired[Number]
    question_type: str
    answer_type: str
    answers: Annotated[list[Answer], Field(min_length=ANNOTATORS, max_length=ANNOTATORS)]


class Annotations(TypedDict):
    annotations: list[Annotation]
    question_types: NotRequired[dict[str, str]]


@dataclass(frozen=True, config=STRICT)
class OKVQA(AnswerTask):
    """Scored by VQA's accuracy. As published: trained on train2014; val2014, whose answers are public, is tested.

    scorer: version of the accuracy, as of task vqa. The kind of a question is its category, "Cooking and Food" say.
    """

    name: ClassVar = "okvqa"
    hub: ClassVar = ("visual-question-answering", "ok-vqa", "OK-VQA")
    metric: ClassVar = "vqa-accuracy"
    origins: ClassVar = {
        "okvqa": "the OK-VQA download page (okvqa.allenai.org), questions and annotations, v1.1",
        "COCO/clip_features": "VL-Adapter's data package, folder COCO; CLIP RN101 grids of COCO train2014 and val2014",
    }

    prompt: str = "okvqa: "
    train: str = "train2014"
    valid: OptionalSplit = "val2014"
    test: str = "val2014"
    scorer: Literal["2016", "2021"] = "2016"

    @property
    def metric_options(self):
        return {"version": self.scorer}

    def sources(self, root: Path, split: Split) -> list[Path]:
        names = self.names(split)
        return [_questions(root, name) for name in names] + [_annotations(root, name) for name in names]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        asked, said = _questions(root, name), _annotations(root, name)
        faults, questions, truth = Faults(), [], Annotations(annotations=[])
        with faults:
            questions = read_json(self.name, asked, Questions)["questions"]
        with faults:
            truth = read_json(self.name, said, Annotations)
        faults.check()
        answered: dict[str, Annotation] = {}
        wrong = []
        for row in truth["annotations"]:
            key = str(row["question_id"])
            if key in answered:
                wrong.append(f"{self.name}: {said}: question {key} occurs twice")
            answered[key] = row
        known = {str(row["question_id"]) for row in questions}
        wrong += [f"{self.name}: {said}: question {key} is not in {asked}" for key in answered if key not in known]
        for i, row in enumerate(questions):
            key, where = str(row["question_id"]), f"{self.name}: {asked}: questions.row {i}"
            if key not in answered:
                wrong.append(f"{where}: question {key} has no annotation in {said}")
            elif answered[key].get("image_id", image := row.get("image_id")) != image:
                other = answered[key].get("image_id")
                wrong.append(f"{where}: question {key} is of image {image}, but in {said} of image {other}")
            if not row.keys() & {"image_id", "image"}:
                wrong.append(f"{where}: image_id is missing")
        if wrong:
            raise shown(wrong, self.name)
        kinds = CATEGORIES | truth.get("question_types", {})
        for row in questions:
            key = str(row["question_id"])
            annotation = answered[key]
            text, spare = self.asked(row["question"])
            kind = kinds.get(annotation["question_type"], annotation["question_type"])
            answers = [answer["answer"] for answer in annotation["answers"]]
            coco = f"COCO/COCO_{name}_{row.get('image_id', 0):012d}"
            yield Example(
                id=key,
                text=text,
                images=(f"okvqa/{Path(row['image']).stem}" if "image" in row else coco,),
                targets=tuple(soft_label(answers).items()),
                references={"answers": answers, "answer_type": annotation["answer_type"]},
                kind=kind,
                groups={"question type": kind, "length": length_group(row["question"])},
                spare=spare,
            )


def _questions(root: Path, part: str) -> Path:
    return root / "okvqa" / f"OpenEnded_mscoco_{part}_questions.json"


def _annotations(root: Path, part: str) -> Path:
    return root / "okvqa" / f"mscoco_{part}_annotations.json"
