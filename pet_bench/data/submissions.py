"""Anybody's predictions in the official file formats, for a metric to score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import BeforeValidator, Field, NonNegativeInt
from typing_extensions import TypedDict

from pet_bench.data.clips import ascii_only
from pet_bench.data.rows import has_lines, read_json, read_json_lines, shown, starts_with
from pet_bench.errors import UserError, unknown
from pet_bench.files import read_text
from pet_bench.metrics.nlvr_accuracy import sentence_of
from pet_bench.metrics.scores import Item, length_group
from pet_bench.registry import TASKS

# an id or an answer, as a number or as text
Key = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
Truth = Literal["True", "False"]


class Submission(NamedTuple):
    """Predictions by id, and what they are scored against. notes: what is left out, and why."""

    predictions: dict[str, str]
    items: list[Item]
    notes: tuple[str, ...] = ()


class CaptionRow(TypedDict):
    id: Key
    prediction: str
    references: list[str]


class CocoResult(TypedDict):
    image_id: Key
    caption: str


class CocoImage(TypedDict):
    id: Key


class CocoCaptions(TypedDict):
    images: NotRequired[list[CocoImage]]
    annotations: list[CocoResult]


class Desc(TypedDict):
    desc: str


class Clip(TypedDict):
    """A clip has the name that the data set gives it, and in VALUE's files a number."""

    clip_id: NotRequired[Key]
    vid_name: NotRequired[str]
    video_id: NotRequired[str]
    videoID: NotRequired[str]


class ClipResult(Clip):
    descs: Annotated[list[Desc], Field(min_length=1, max_length=1)]


class ClipCaptions(Clip):
    descs: NotRequired[Annotated[list[Desc], Field(min_length=1)]]
    enCap: NotRequired[Annotated[list[str], Field(min_length=1)]]


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


Solutions = dict[str, dict[str, Key]]  # by show, by question


class Solution(TypedDict):
    solution: Solutions


class GQAQuestion(TypedDict):
    answer: str
    isBalanced: NotRequired[bool]
    question: NotRequired[str]
    types: NotRequired[GQATypes]


def captions(metric: str, file: Path, annotations: Path | None = None) -> Submission:
    """[{"id", "prediction", "references": [str, …]}]; or predictions and, in a file of their own, all references.

    With COCO's annotations, {"images": [{"id"}], "annotations": [{"image_id", "caption"}]}, go its results,
    [{"image_id", "caption"}]. With lines as VALUE has them for TVC, YC2C and VATEX, {"clip_id", "descs": [{"desc"},
    …]}, go lines with one of the `descs`: of the clip of the same `clip_id`, if all have one, else of the same
    `vid_name`, also called `video_id` or `videoID`. VATEX's own list, [{"videoID", "enCap": [str, …]}], is read as such
    lines. {id: caption} goes with all. Of clips, characters beyond ASCII become spaces, as in the official scorer.
    """
    if annotations is None:
        rows = unique(metric, file, ((row["id"], row) for row in read_json(metric, file, list[CaptionRow])))
        predictions = {key: row["prediction"] for key, row in rows.items()}
        return _captioned(predictions, {key: row["references"] for key, row in rows.items()})
    if not has_lines(annotations) and starts_with(annotations, b"{"):
        truth = read_json(metric, annotations, CocoCaptions)
        references: dict[str, list[str]] = {image["id"]: [] for image in truth.get("images", ())}
        for row in truth["annotations"]:
            references.setdefault(row["image_id"], []).append(row["caption"])
        if starts_with(file, b"{"):
            return _captioned(read_json(metric, file, dict[str, str]), references)
        results = read_json(metric, file, list[CocoResult])
        return _captioned(unique(metric, file, ((row["image_id"], row["caption"]) for row in results)), references)
    clips = _clips(metric, annotations, ClipCaptions)
    silent = [_clip(row) for row in clips if not row.keys() & {"descs", "enCap"}]
    if silent:
        where = f"{metric}: {annotations}"
        raise shown((f"{where}: {clip} has no descs, as in a split whose answers are hidden" for clip in silent), where)
    said = [row.get("enCap") or [desc["desc"] for desc in row["descs"]] for row in clips]
    if has_lines(file) or starts_with(file, b"["):
        results = _clips(metric, file, ClipResult)
        numbered = all("clip_id" in row for row in (*results, *clips))
        found = unique(metric, file, ((_clip(row, numbered), row["descs"][0]["desc"]) for row in results))
    else:
        found = read_json(metric, file, dict[str, str])
        numbered = all("clip_id" in row for row in clips) and not found.keys() & {_clip(row, False) for row in clips}
    names = (_clip(row, numbered) for row in clips)
    references = unique(metric, annotations, zip(names, said, strict=True))
    return _captioned(
        {key: ascii_only(text) for key, text in found.items()},
        {key: [*map(ascii_only, texts)] for key, texts in references.items()},
    )


def _captioned(predictions: dict[str, str], references: dict[str, list[str]]) -> Submission:
    items = [Item(key, {"captions": texts}, groups(*texts)) for key, texts in references.items()]
    return Submission(predictions, items)


def _clips(metric: str, path: Path, schema: type) -> list[Any]:
    """The clips of a file, one a line or in a list; raises UserError where one has neither name nor number."""
    whole = list[schema]  # type: ignore[valid-type]  # for pydantic, which makes of it what to read
    read = read_json_lines(metric, path, schema) if has_lines(path) else read_json(metric, path, whole)
    nameless = [i for i, row in enumerate(read) if not _clip(row)]
    if nameless:
        where = f"{metric}: {path}"
        raise shown((f"{where}: row {i}: clip_id, vid_name or video_id is missing" for i in nameless), where)
    return read


def _clip(row: Mapping[str, Any], numbered: bool = True) -> str:
    names = (("clip_id",) if numbered else ()) + ("vid_name", "video_id", "videoID", "clip_id")
    return next((row[name] for name in names if name in row), "")


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


def check_answered(metric: str, path: Path, rows: Iterable[tuple[str, list[str]]]) -> None:
    """Raises UserError for rows whose annotators say nothing."""
    if silent := [name for name, answers in rows if not any(answers)]:
        said = (f"{metric}: {path}: {name} has no answers, as in a split whose answers are hidden" for name in silent)
        raise shown(said, f"{metric}: {path}")


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
    found, faults = [], []
    for number, line in enumerate(read_text(file, f"{metric}: {file}").splitlines(), start=1):
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
    `qid` and `answer_idx` a line; TVQA's solution, {"solution": {show: {id: answer}}}, or that by show alone; or again
    {id: answer}."""
    predictions = read_json(metric, file, dict[str, Key])
    if has_lines(annotations):
        rows = read_json_lines(metric, annotations, ChoiceRow)
        truth = unique(metric, annotations, ((row["qid"], row) for row in rows))
        items = [
            Item(key, {"answer": f"a{row['answer_idx']}"}, groups(row.get("q"), show=row.get("show_name")))
            for key, row in truth.items()
        ]
    else:
        content = read_json(metric, annotations, dict[str, Any])
        if "solution" in content or any(isinstance(value, dict) for value in content.values()):
            within = "solution" in content
            shows = read_json(metric, annotations, Solution if within else Solutions)
            shows = shows["solution"] if within else shows
            answered = ((key, (show, answer)) for show, answers in shows.items() for key, answer in answers.items())
            truth = unique(metric, annotations, answered)
        else:
            answers = read_json(metric, annotations, dict[str, Key])
            truth = {key: (None, answer) for key, answer in answers.items()}
        items = [Item(key, {"answer": choice(answer)}, groups(show=show)) for key, (show, answer) in truth.items()]
    return Submission({key: choice(answer) for key, answer in predictions.items()}, items)


def choice(answer: str) -> str:
    """The name of a choice: "2" and "a2" are one."""
    return f"a{answer}" if answer.isdigit() else answer


def gqa(metric: str, file: Path, annotations: Path) -> Submission:
    """The official results, [{"questionId", "prediction"}], or {id: answer}, and the official questions.

    Only balanced ones count, as in the official accuracy, where the questions say which are; predictions for the others
    may be there.
    """
    if starts_with(file, b"{"):
        predictions = read_json(metric, file, dict[str, str])
    else:
        rows = read_json(metric, file, list[GQAResult])
        predictions = unique(metric, file, ((row["questionId"], row["prediction"]) for row in rows))
    questions = read_json(metric, annotations, dict[str, GQAQuestion])
    truth = {key: row for key, row in questions.items() if row.get("isBalanced", True)}
    unbalanced = questions.keys() - truth.keys()
    if unbalanced and not truth:
        raise UserError(f"{metric}: {annotations}: none of {len(questions)} questions is balanced; only those count")
    items = [
        Item(
            key,
            {"label": {row["answer"]: 1.0}},
            groups(row.get("question"), **{f"{kind}_type": name for kind, name in row.get("types", {}).items()}),
        )
        for key, row in truth.items()
    ]
    note = f"{len(unbalanced):,} of {len(questions):,} questions are not balanced and left out, as officially"
    predictions = {key: answer for key, answer in predictions.items() if key not in unbalanced}
    return Submission(predictions, items, (note,) if unbalanced else ())


READERS: dict[str, Callable[..., Submission]] = {
    **dict.fromkeys(("cider", "bleu", "rouge-l", "meteor"), captions),
    "vqa-accuracy": vqa,
    "nlvr-accuracy": nlvr2,
    "multiple-choice-accuracy": choices,
    "exact-match": gqa,
}


def of_tasks() -> dict[str, Callable[..., Submission]]:
    """The readers that tasks have of what is theirs alone, by metric."""
    return {task.metric: task.submission for task in TASKS if task.submission}


def read_submission(metric: str, file: Path, annotations: Path | None = None) -> Submission:
    """What a metric scores, from files as its reader describes them: here, or in the task that it is the metric of.

    Raises UserError for a metric without a file format, files that are not there, annotations that are missing or not
    wanted, and everything wrong in the files.
    """
    readers = READERS if metric in READERS else {**READERS, **of_tasks()}
    if metric not in readers:
        raise unknown("metric with a file format", metric, readers)
    reader = readers[metric]
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
    known_texts = [text for text in texts if text is not None]
    length = {"length": length_group(*known_texts)} if known_texts else {}
    return {name.replace("_", " "): value for name, value in known.items() if value} | length
