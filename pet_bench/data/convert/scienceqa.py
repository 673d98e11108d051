"""ScienceQA from the hub's copies (lmms-lab[-encoder]/ScienceQA, derek-thomas/ScienceQA), in the form of its files.

The copies have no numbers of the problems: they are counted in the order of the rows, from 1 in train, 100,001 in val
and 200,001 in test. A copy of the subset with images (`ScienceQA-IMG`) is taken where that of all is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.downloads import Converter
from pet_bench.data.convert.tables import Layout, Spot
from pet_bench.data.convert.work import Job
from pet_bench.data.lettered import GRADE, Subject
from pet_bench.data.rows import Text
from pet_bench.errors import UserError
from pet_bench.metrics.scienceqa_accuracy import LETTERS

TEXTS = ("hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution")
COLUMNS = {
    "image": "image", "question": "string", "choices": "list<string>", "answer": "int",
    **dict.fromkeys(TEXTS, "string"),
}  # fmt: skip
FIRST = {"train": 1, "val": 100_001, "test": 200_001}
SUBSET = {split: Layout(f"scienceqa-img-{split}", COLUMNS, split=f"{split}*", config="*IMG*") for split in FIRST}
WHOLE = {
    split: Layout(
        f"scienceqa-{split}",
        COLUMNS,
        split=f"{split}*",
        needed=True,
        instead=(),
        origin=f"derek-thomas/ScienceQA, data/{split}*.parquet; lmms-lab-encoder/ScienceQA has val and test",
    )
    for split in FIRST
}


class Row(TypedDict):
    question: Text
    choices: Annotated[list[str], Field(min_length=2, max_length=len(LETTERS))]
    answer: Annotated[int, Field(ge=0)]
    hint: str
    task: str
    grade: Annotated[str, Field(pattern=GRADE)]
    subject: Subject
    topic: str
    category: str
    skill: str
    lecture: str
    solution: str


def run(job: Job) -> None:
    names = {
        split: next((table[split].name for table in (WHOLE, SUBSET) if job.has(table[split].name)), None)
        for split in FIRST
    }
    read = {split: name for split, name in names.items() if name}
    if not read:
        return
    problems: dict[str, Any] = {}
    splits: dict[str, list[str]] = {}
    for split, name in read.items():
        splits[split] = []
        with job.album("scienceqa", name) as picture:
            for number, (spot, row, seen) in enumerate(_rows(job, name), start=FIRST[split]):
                pid = str(number)
                if row["answer"] >= len(row["choices"]):
                    job.fault(spot, f"answer {row['answer']} is none of {len(row['choices'])} choices, counted from 0")
                if seen:
                    picture(f"{split}/{pid}/image", spot)
                problems[pid] = {**row, "image": "image.png" if seen else None, "split": split}
                splits[split].append(pid)
    used = list(read.values())
    job.whole("scienceqa/problems.json", problems, *used, pretty=False)
    job.whole("scienceqa/pid_splits.json", splits, *used, pretty=False, rows=len(problems))
    job.note("the copies do not number the problems: these are counted in the order of their rows")
    subset = [name for name in used if "-img-" in name]
    if subset:
        job.note(f"{', '.join(subset)}: only the questions with images; scienceqa.questions=all would be no more")


def _rows(job: Job, name: str) -> Iterator[tuple[Spot, Row, bool]]:
    """Every row, and whether it has an image."""
    seen: set[tuple[str, int]] = set()
    try:
        for spot, (content,) in job.tables[name].pictures("image"):
            if content:
                seen.add((str(spot.path), spot.number))
    except UserError:
        pass  # the rows cannot be read either, and say so
    for spot, row in job.table(name, Row):
        yield spot, row, (str(spot.path), spot.number) in seen


SCIENCEQA = Converter("scienceqa", (), run, tables=(*SUBSET.values(), *WHOLE.values()))
