"""Answer maps: `trainval_ans2label.json` and the list that it is the inverse of."""

from __future__ import annotations

from pet_bench.data.convert.work import Job

ANSWERS, LABELS = "trainval_ans2label.json", "trainval_label2ans.json"


def given(job: Job, folder: str, *, pretty: bool) -> dict[str, int]:
    """The downloaded map, to be put in place with its inverse; its numbers must be 0, 1, 2, …, each once.

    pretty: as LXMERT's VQA list is; its GQA list is one line.
    """
    numbers: dict[str, int] = {}
    for answer, number in job.read(ANSWERS, int):
        if answer in numbers:
            job.fault(ANSWERS, f"answer {answer!r} occurs twice")
        numbers.setdefault(answer, number)
    ordered = sorted(numbers, key=numbers.__getitem__)
    if ANSWERS not in job.torn and [numbers[answer] for answer in ordered] != list(range(len(ordered))):
        job.fault(ANSWERS, f"does not number its {len(ordered)} answers from 0 to {len(ordered) - 1}")
    job.place(ANSWERS)
    job.whole(f"{folder}/{LABELS}", ordered, ANSWERS, pretty=pretty)
    return numbers
