"""Anybody's predictions in the official file formats, for a metric to score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import BeforeValidator, NonNegativeInt
from typing_extensions import TypedDict

from pet_bench.data.rows import read_json, read_json_lines, shown, starts_with
from pet_bench.errors import UserError, unknown
from pet_bench.metrics.nlvr_accuracy import sentence_of
from pet_bench.metrics.scores import Item, length_group

# an id or an answer, as a number or as text
Key = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
Truth = Literal["True", "False"]


class Submission(NamedTuple):
    """Predictions by id, and what they are scored against."""

    predictions: dict[str, str]
    items: list[Item]


class CaptionRow(TypedDict):
    id: Key
    prediction: str
    references: list[str]


class VQAResult(TypedDict):
    question_id: Key
    answer: str


class VQAAnswer(TypedDict):
    answer: str


class VQAAnnotation(TypedDict):
    question_id: Key
    question_type: str
    answer_type: str
    answers: list[VQAAnswer]


class VQAAnnotations(TypedDict):
    annotations: list[VQAAnnotation]


class NLVRRow(TypedDict):
    identifier: str
    label: Truth
    sentence: NotRequired[str]


class ChoiceRow(TypedDict):
    qid: Key
    answer_idx: NonNegativeInt
    q: NotRequired[str]
    show_name: NotRequired[str]


class GQAResult(TypedDict):
    questionId: Key
    prediction: str


class GQATypes(TypedDict):
    structural: str
    semantic: str


class GQAQuestion(TypedDict):
    answer: str
    question: NotRequired[str]
    types: NotRequired[GQATypes]


def captions(metric: str, file: Path) -> Submission:
    """[{"id", "prediction", "references": [str, …]}]"""
    rows = unique(metric, file, ((row["id"], row) for row in read_json(metric, file, list[CaptionRow])))
    items = [Item(key, {"captions": row["references"]}, groups(*row["references"])) for key, row in rows.items()]
    return Submission({key: row["prediction"] for key, row in rows.items()}, items)


def vqa(metric: str, file: Path, annotations: Path) -> Submission:
    """The official results, [{"question_id", "answer"}], and the official annotations."""
    results = ((row["question_id"], row["answer"]) for row in read_json(metric, file, list[VQAResult]))
    rows = read_json(metric, annotations, VQAAnnotations)["annotations"]
    silent = [row["question_id"] for row in rows if not row["answers"]]
    if silent:
        raise shown((f"{metric}: {annotations}: question {key} has no answers" for key in silent), metric)
    truth = unique(metric, annotations, ((row["question_id"], row) for row in rows))
    items = [
        Item(
            key,
            {"answers": [answer["answer"] for answer in row["answers"]], "answer_type": row["answer_type"]},
            groups(question_type=row["question_type"], answer_type=row["answer_type"]),
        )
        for key, row in truth.items()
    ]
    return Submission(unique(metric, file, results), items)


def nlvr2(metric: str, file: Path, annotations: Path) -> Submission:
    """The official CSV, a line `identifier,True` an example, and the official annotations, one object a line."""
    rows = read_json_lines(metric, annotations, NLVRRow)
    truth = unique(metric, annotations, ((row["identifier"], row) for row in rows))
    odd = [key for key in truth if key.count("-") != 3]
    if odd:
        raise shown((f"{metric}: {annotations}: {key!r} does not have four fields" for key in odd), metric)
    items = [
        Item(key, {"label": row["label"].lower(), "group": sentence_of(key)}, groups(row.get("sentence")))
        for key, row in truth.items()
    ]
    return Submission(unique(metric, file, nlvr2_lines(metric, file)), items)


def nlvr2_lines(metric: str, file: Path) -> list[tuple[str, str]]:
    """(identifier, "true" or "false") of every line; a header `identifier,prediction` may stand above them."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise UserError(f"{metric}: {file} is not UTF-8 text") from None
    found, faults = [], []
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in line.split(",")]
        if line.strip() and (number, fields) != (1, ["identifier", "prediction"]):
            if len(fields) != 2 or fields[1].lower() not in ("true", "false"):
                faults.append(
                    f"{metric}: {file}: line {number}: expected identifier,True or False, found {line[:60]!r}"
                )
            else:
                found.append((fields[0], fields[1].lower()))
    if faults:
        raise shown(faults, f"{metric}: {file}")
    return found


def choices(metric: str, file: Path, annotations: Path) -> Submission:
    """{id: answer}, each answer a number from 0 or "a0", "a1", …, and annotations: the data set's own, one object with
    `qid` and `answer_idx` a line, or {id: answer} too."""
    predictions = read_json(metric, file, dict[str, Key])
    if annotations.suffix == ".jsonl":
        rows = read_json_lines(metric, annotations, ChoiceRow)
        truth = unique(metric, annotations, ((row["qid"], row) for row in rows))
        items = [
            Item(key, {"answer": f"a{row['answer_idx']}"}, groups(row.get("q"), show=row.get("show_name")))
            for key, row in truth.items()
        ]
    else:
        answers = read_json(metric, annotations, dict[str, Key])
        items = [Item(key, {"answer": choice(answer)}) for key, answer in answers.items()]
    return Submission({key: choice(answer) for key, answer in predictions.items()}, items)


def choice(answer: str) -> str:
    """The name of a choice: "2" and "a2" are one."""
    return f"a{answer}" if answer.isdigit() else answer


def gqa(metric: str, file: Path, annotations: Path) -> Submission:
    """The official results, [{"questionId", "prediction"}], or {id: answer}, and the official questions."""
    if starts_with(file, b"{"):
        predictions = read_json(metric, file, dict[str, str])
    else:
        rows = read_json(metric, file, list[GQAResult])
        predictions = unique(metric, file, ((row["questionId"], row["prediction"]) for row in rows))
    truth = read_json(metric, annotations, dict[str, GQAQuestion])
    items = [
        Item(
            key,
            {"label": {row["answer"]: 1.0}},
            groups(row.get("question"), **{f"{kind}_type": name for kind, name in row.get("types", {}).items()}),
        )
        for key, row in truth.items()
    ]
    return Submission(predictions, items)


READERS: dict[str, Callable[..., Submission]] = {
    **dict.fromkeys(("cider", "bleu", "rouge-l", "meteor"), captions),
    "vqa-accuracy": vqa,
    "nlvr-accuracy": nlvr2,
    "multiple-choice-accuracy": choices,
    "exact-match": gqa,
}


def read_submission(metric: str, file: Path, annotations: Path | None = None) -> Submission:
    """What a metric scores, from files as its reader in this module describes them.

    Raises UserError for a metric without a file format, files that are not there, annotations that are missing or not
    wanted, and everything wrong in the files.
    """
    if metric not in READERS:
        raise unknown("metric with a file format", metric, READERS)
    reader = READERS[metric]
    if reader is captions and annotations:
        raise UserError(f"{metric} takes no annotations: the references stand in the file")
    if reader is not captions and not annotations:
        raise UserError(f"{metric} needs the annotations beside the predictions: say with --annotations where they are")
    paths = [path for path in (file, annotations) if path]
    absent = [f"{metric}: file {path} does not exist" for path in paths if not path.is_file()]
    if absent:
        raise UserError.many(absent)
    return reader(metric, *paths)


def unique(metric: str, path: Path, rows: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The rows by id; raises UserError where an id occurs twice."""
    rows = list(rows)
    repeated = [key for key, count in Counter(key for key, _ in rows).items() if count > 1]
    if repeated:
        raise shown((f"{metric}: {path}: id {key!r} occurs more than once" for key in repeated), f"{metric}: {path}")
    return dict(rows)


def groups(*texts: str | None, **known: str | None) -> dict[str, str]:
    """What is known of an example, for the breakdowns, and the length of its text."""
    texts = [text for text in texts if text is not None]
    length = {"length": length_group(*texts)} if texts else {}
    return {name.replace("_", " "): value for name, value in known.items() if value} | length
