"""OK-VQA from the hub's copy of its validation split (lmms-lab[-encoder]/OK-VQA), in the form of the official files.

The copy has neither the numbers of the images nor the answers as they were typed: a question's picture is named after
the question, and is sought in `okvqa/`, not among COCO's; `raw_answer` repeats the answer. It has no training split.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from pet_bench.data.answers import Name, Ten
from pet_bench.data.convert.downloads import Converter
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

VAL = Layout(
    "okvqa-val2014",
    {
        "question_id": "string", "image": "image", "question": "string", "answers": "list<string>",
        "question_type": "string", "answer_type": "string",
    },
    split="val*",
    needed=True,
    origin="lmms-lab-encoder/OK-VQA, data/val2014-*.parquet",
)  # fmt: skip


class Row(TypedDict):
    question_id: Name
    question: Text
    answers: Ten
    question_type: str
    answer_type: str


def run(job: Job) -> None:
    if not job.has(VAL.name):
        return
    questions, annotations = [], []
    with job.album("okvqa", VAL.name) as picture:
        for spot, row in job.table(VAL.name, Row, key="question_id"):
            key = row["question_id"]
            picture(key, spot)
            questions.append({"question_id": key, "image": f"{key}.jpg", "question": row["question"]})
            answers = [{"answer_id": n, "answer": a, "raw_answer": a} for n, a in enumerate(row["answers"], start=1)]
            annotations.append(
                {
                    "question_id": key,
                    "question_type": row["question_type"],
                    "answer_type": row["answer_type"],
                    "answers": answers,
                }
            )
    about = {"data_type": "mscoco", "data_subtype": "val2014"}
    job.whole("okvqa/OpenEnded_mscoco_val2014_questions.json", {**about, "questions": questions}, VAL.name,
              pretty=False, rows=len(questions))  # fmt: skip
    job.whole("okvqa/mscoco_val2014_annotations.json", {**about, "annotations": annotations}, VAL.name,
              pretty=False, rows=len(annotations))  # fmt: skip
    job.note("the copy does not say which of COCO's images its pictures are: features are wanted of each, in okvqa/")
    job.note("the copy has no train2014: to train, put the official questions and annotations in okvqa/")


OKVQA = Converter("okvqa", (), run, tables=(VAL,))
