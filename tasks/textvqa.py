"""TextVQA: questions about what is written in an image (Singh et al. 2019, arXiv:1904.08920).

Files, as published: `textvqa/TextVQA_0.5.1_{train,val,test}.json`; with `ocr`, the words that Rosetta read in the
images, `textvqa/TextVQA_Rosetta_OCR_v0.2_{train,val,test}.json`; pictures in `textvqa/images/`, in folders or archives
(`train_images/`, `test_images/`). The answers of the test split are not public.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NotRequired

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.answers import AnswerTask, Name, Ten, soft_label
from pet_bench.data.rows import Id, Text, read_json, shown
from pet_bench.data.submissions import Key, Submission, VQAResult, check_answered, groups, unique
from pet_bench.data.task import Example, OptionalSplit, Split
from pet_bench.errors import Faults
from pet_bench.metrics.scores import Item, length_group
from pet_bench.metrics.textvqa_accuracy import processed
from pet_bench.spec import STRICT


class Row(TypedDict):
    question_id: Id
    question: Text
    image_id: Name
    answers: NotRequired[Ten]


class Rows(TypedDict):
    data: list[Row]


class Words(TypedDict):
    image_id: Name
    ocr_tokens: list[str]


class Read(TypedDict):
    data: list[Words]


class Asked(TypedDict):
    question_id: Key
    question: NotRequired[str]
    answers: NotRequired[Ten]


class Answered(TypedDict):
    data: list[Asked]


def submitted(metric: str, file: Path, annotations: Path) -> Submission:
    """The evaluation server's results, [{"question_id", "answer"}], and the official file, `TextVQA_0.5.1_val.json`."""
    results = ((row["question_id"], row["answer"]) for row in read_json(metric, file, list[VQAResult]))
    rows = read_json(metric, annotations, Answered)["data"]
    check_answered(metric, annotations, [(f"question {row['question_id']}", row.get("answers", [])) for row in rows])
    truth = unique(metric, annotations, ((row["question_id"], row) for row in rows))
    items = [Item(key, {"answers": row.get("answers")}, groups(row.get("question"))) for key, row in truth.items()]
    return Submission(unique(metric, file, results), items)


@dataclass(frozen=True, config=STRICT)
class TextVQA(AnswerTask):
    """Scored as on the evaluation server, so val is both validation and test split.

    ocr: whether the words that Rosetta read stand in the text, in their order; those that are too many are cut. How:
    "question ocr: words" in the styles that have no published form of it, and as LLaVA-1.5 lists them in its own, where
    questions begin with a capital too.
    """

    name: ClassVar = "textvqa"
    hub: ClassVar = ("visual-question-answering", "textvqa", "TextVQA")
    max_target: ClassVar = 20
    metric: ClassVar = "textvqa-accuracy"
    submission: ClassVar = staticmethod(submitted)
    origins: ClassVar = {
        "textvqa/TextVQA_0.5.1": "the TextVQA download page (textvqa.org/dataset), v0.5.1",
        "textvqa/TextVQA_Rosetta": "the TextVQA download page (textvqa.org/dataset), Rosetta OCR tokens, v0.2",
        "textvqa/images": "the TextVQA download page (textvqa.org/dataset), train_val_images.zip and test_images.zip",
        "textvqa/clip_features": "`pet-bench data features` of the images; none are published",
    }

    prompt: str = "textvqa: "
    train: str = "train"
    valid: OptionalSplit = "val"
    test: str = "val"
    ocr: bool = False

    @property
    def max_text(self) -> int:  # type: ignore[override]  # by an option here, a fact elsewhere
        return 256 if self.ocr else 64

    def sources(self, root: Path, split: Split) -> list[Path]:
        names = self.names(split)
        return [_rows(root, name) for name in names] + ([_words(root, name) for name in names] if self.ocr else [])

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path, faults = _rows(root, name), Faults()
        rows: list[Row] = []
        words: dict[str, list[str]] = {}
        with faults:
            rows = read_json(self.name, path, Rows)["data"]
        with faults:
            words = self._words(_words(root, name)) if self.ocr else {}
        faults.check()
        where = f"{self.name}: {path}"
        wrong = [
            f"{where}: data.row {i}: question {row['question_id']} has no answers, as in the test split, where they "
            "are hidden"
            for i, row in enumerate(rows)
            if not any(answer.strip() for answer in row.get("answers", ()))
        ]
        if self.ocr:
            wrong += [
                f"{where}: data.row {i}: image {row['image_id']} is not in {_words(root, name)}"
                for i, row in enumerate(rows)
                if row["image_id"] not in words
            ]
        if wrong:
            raise shown(wrong, where)
        for row in rows:
            answers = row.get("answers", [])
            text, spare = self.asked(self._put(row["question"]), self._seen(words.get(row["image_id"], [])))
            yield Example(
                id=str(row["question_id"]),
                text=text,
                images=(f"textvqa/{row['image_id']}",),
                targets=tuple(soft_label(answers, processed).items()),
                references={"answers": answers},
                groups={"length": length_group(row["question"])},
                spare=spare,
            )

    def _put(self, question: str) -> str:
        return question.capitalize() if self.style == "llava-1.5" else question

    def _seen(self, words: list[str]) -> str:
        return (", " if self.style == "llava-1.5" else " ").join(words)

    def _words(self, path: Path) -> dict[str, list[str]]:
        """The words in every image; raises UserError where an image occurs twice."""
        found, twice = {}, []
        for i, row in enumerate(read_json(self.name, path, Read)["data"]):
            if row["image_id"] in found:
                twice.append(f"{self.name}: {path}: data.row {i}: image {row['image_id']} occurs twice")
            found[row["image_id"]] = row["ocr_tokens"]
        if twice:
            raise shown(twice, f"{self.name}: {path}")
        return found


def _rows(root: Path, split: str) -> Path:
    return root / "textvqa" / f"TextVQA_0.5.1_{split}.json"


def _words(root: Path, split: str) -> Path:
    return root / "textvqa" / f"TextVQA_Rosetta_OCR_v0.2_{split}.json"
