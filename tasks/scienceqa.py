"""ScienceQA: multiple choice from the natural, social and language sciences (Lu et al. 2022, arXiv:2209.09513).

Files, as published: `scienceqa/problems.json`, `scienceqa/pid_splits.json`, `scienceqa/images/<split>/<pid>/image.png`,
in archives too; with `captions`, `scienceqa/captions.json`, the machine's captions that come with the official code.
Features of a question's image are `scienceqa/clip_features/…/<pid>.h5`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.blank import BlankTask
from pet_bench.data.lettered import FORMS, GRADE, Style, Subject
from pet_bench.data.rows import Text, read_json, shown
from pet_bench.data.submissions import Submission, groups
from pet_bench.data.task import Choose, Example, Generate, LeftOut, OptionalSplit, Split
from pet_bench.errors import Faults, UserError, unknown
from pet_bench.metrics.scienceqa_accuracy import LETTERS
from pet_bench.metrics.scores import Item, length_group
from pet_bench.spec import STRICT

HOME = "scienceqa"
Pid = Annotated[str, Field(pattern=r"^\d+$")]


class Problem(TypedDict):
    question: Text
    choices: Annotated[list[str], Field(min_length=2, max_length=len(LETTERS))]
    answer: Annotated[int, Field(ge=0)]
    hint: str
    image: Literal["image.png"] | None
    grade: Annotated[str, Field(pattern=GRADE)]
    subject: Subject
    split: Literal["train", "val", "test"]


class Captions(TypedDict):
    captions: dict[Pid, str]


class Answered(TypedDict):
    """Of a problem, what its score needs."""

    answer: Annotated[int, Field(ge=0, lt=len(LETTERS))]
    hint: str
    image: str | None
    grade: Annotated[str, Field(pattern=GRADE)]
    subject: Subject
    split: str


class Results(TypedDict):
    results: dict[str, Annotated[int, Field(ge=-1, lt=len(LETTERS))]]


def submitted(metric: str, file: Path, annotations: Path) -> Submission:
    """The official results, {"results": {id: number of the choice, -1 for none}}, and `problems.json`, of whose test
    split the results are, or of those of its questions that have an image."""
    results = read_json(metric, file, Results)["results"]
    problems = read_json(metric, annotations, dict[str, Answered])
    test = {key: row for key, row in problems.items() if row["split"] == "test"}
    seen = {key: row for key, row in test.items() if row["image"]}
    asked, notes = test, []
    if results.keys() == seen.keys() != test.keys():
        asked = seen
        notes.append(
            f"{len(test) - len(seen):,} of {len(test):,} questions of the test split have no image and are left out"
        )
    items = [Item(key, _known(row), groups(subject=row["subject"])) for key, row in asked.items()]
    predictions = {key: LETTERS[number] if number >= 0 else "" for key, number in results.items()}
    return Submission(predictions, items, tuple(notes))


def _known(row: Answered | Problem) -> dict[str, Any]:
    """What the metric asks for."""
    return {
        "answer": LETTERS[row["answer"]],
        "subject": row["subject"],
        "text": bool(row["hint"]),
        "image": bool(row["image"]),
        "grade": int(row["grade"].removeprefix("grade")),
    }


@dataclass(frozen=True, config=STRICT)
class ScienceQA(BlankTask):
    """One of two to five choices, by its letter; scored by subject, context and grade.

    questions: "image" is the subset whose questions have an image, as most vision-and-language models are compared on;
    "all" is the whole set, where a question without one is shown a black picture or, of features, vectors of zeros,
    which are hidden from attention. style: how a question is put, and what is learned. "memvp" has lines "Question:",
    "Context:" ("N/A" for none), "Options: (A) … (B) …" and "Response:", and "The answer is A.", as MemVP's code has
    from LaVIN's; "gpt-3" is the QCM→A format of the data set's paper, with "Answer:" for "Response:"; "llava-1.5" has
    the hint, if any, the question, a line "A. …" a choice and an instruction, and the letter alone. To ask exactly as
    there, leave the prompt empty. captions: whether those of the images stand behind the hint, as in MemVP.

    answered: "generated", as published, or "chosen", the letter that is likeliest to begin the answer, which only
    "llava-1.5" has answers for. max_text: tokens of a text; of one that is too long the context is cut first.
    """

    name: ClassVar = "scienceqa"
    hub: ClassVar = ("visual-question-answering", "scienceqa", "ScienceQA")
    metric: ClassVar = "scienceqa-accuracy"
    submission: ClassVar = staticmethod(submitted)
    picture_name: ClassVar = re.compile(r"(?P<name>\d+)/image")
    closed: ClassVar = True
    origins: ClassVar = {
        f"{HOME}/*.json": "the lupantech/ScienceQA repository, folder data (captions.json) and data/scienceqa",
        f"{HOME}/images": "the download page of ScienceQA (tools/download.sh of its repository), train, val, test.zip",
        f"{HOME}/clip_features": "`pet-bench data features` of the images; none are published",
    }

    prompt: str = "scienceqa: "
    train: str = "train"
    valid: OptionalSplit = "val"
    test: str = "test"
    questions: Literal["image", "all"] = "image"
    style: Style = "memvp"
    captions: bool = False
    answered: Literal["generated", "chosen"] = "generated"
    max_text: int = Field(default=512, ge=32, le=1 << 20)  # type: ignore[misc]  # an option here, a fact elsewhere

    def __post_init__(self):
        super().__post_init__()
        if self.answered == "chosen" and self.style != "llava-1.5":
            raise UserError(
                f'{self.name}: answered is "chosen", which letters alone can be, and the answers of style '
                f'"{self.style}" are sentences; choose style "llava-1.5"'
            )

    @property
    def decoding(self) -> Generate | Choose:  # type: ignore[override]  # by an option here, a fact elsewhere
        return Choose(LETTERS) if self.answered == "chosen" else Generate()

    @property
    def masks_empty(self) -> bool:  # type: ignore[override]  # as above
        return self.questions == "all"

    def sources(self, root: Path, split: Split) -> list[Path]:
        files = ["pid_splits.json", "problems.json", *(["captions.json"] if self.captions else [])]
        return [root / HOME / file for file in files]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example | LeftOut]:
        splits, problems, said = self._files(root)
        if name not in splits:
            raise unknown(f"{self.name} split in {root / HOME / 'pid_splits.json'}", name, splits)
        pids, of_problems = splits[name], root / HOME / "problems.json"
        listed, where = f"{self.name}: {root / HOME / 'pid_splits.json'}: {name}", f"{self.name}: {of_problems}"
        wrong = [f"{listed}: {pid} occurs twice" for pid, count in Counter(pids).items() if count > 1]
        wrong += [f"{listed}: {pid} is not in {of_problems}" for pid in pids if pid not in problems]
        for pid in (pid for pid in dict.fromkeys(pids) if pid in problems):
            if (at := problems[pid]["answer"]) >= (count := len(problems[pid]["choices"])):
                wrong.append(f"{where}: {pid}.answer is {at}, but there are {count} choices, counted from 0")
        if wrong:
            raise shown(wrong, self.name)
        for pid in pids:
            problem = problems[pid]
            if problem["image"] is None and self.questions == "image":
                yield LeftOut(pid, 'no image (scienceqa.questions is "image")')
            else:
                yield self._of(pid, problem, said.get(pid, ""))

    def _files(self, root: Path) -> tuple[dict[str, list[str]], dict[str, Problem], dict[str, str]]:
        """Splits, problems and captions; raises UserError for the faults of all three."""
        faults, splits, problems, said = Faults(), {}, {}, Captions(captions={})
        with faults:
            splits = read_json(self.name, root / HOME / "pid_splits.json", dict[str, list[Pid]])
        with faults:
            problems = read_json(self.name, root / HOME / "problems.json", dict[Pid, Problem])
        with faults:
            said = read_json(self.name, root / HOME / "captions.json", Captions) if self.captions else said
        faults.check()
        return splits, problems, said["captions"]

    def _of(self, pid: str, problem: Problem, caption: str) -> Example:
        form, hint, known = FORMS[self.style], problem["hint"], _known(problem)
        context = " ".join(part for part in (hint.strip(), caption.strip()) if part)
        text, spare = form.asked(self.prompt, problem["question"], context, problem["choices"])
        kinds = [kind for kind in ("text", "image") if known[kind]]
        return Example(
            id=pid,
            text=text,
            images=(f"{HOME}/{problem['split']}/{pid}" if known["image"] else self.blank,),
            targets=((form.answer.format(known["answer"]), 1.0),),
            references=known,
            groups={
                "subject": problem["subject"],
                "context": " and ".join(kinds) or "none",
                "grades": "1-6" if known["grade"] <= 6 else "7-12",
                "length": length_group(problem["question"]),
            },
            spare=spare,
        )

    def feature_name(self, key: str) -> str:
        """A key is `scienceqa/<split>/<pid>`, and the ids of all splits differ."""
        return key.rsplit("/", 1)[1]

    def picture_place(self, key: str) -> str:
        return f"{key.removeprefix(f'{HOME}/')}/image"
