"""What the mini backbones were pre-trained to know: fresh exercises about scenes that no training draws."""

from __future__ import annotations

from functools import cache
from random import Random

from pet_bench.backbone.knowledge import Knowledge
from pet_bench.mini.language import PROMPTS, Exercise

LINES, EACH = 64, 32  # of text, and exercises of a task
NAMES = {"nlvr": "nlvr2", "caption": "coco-caption"}  # as the suites call these tasks


@cache
def knowledge() -> Knowledge:
    """Lines as they were denoised, or written on, and a task's question over scenes written out, with its answer.

    Always the same, drawn from a seed that is no number, as that of every course is.
    """
    rng = Random("what the mini backbones know")
    tasks = tuple(PROMPTS)
    told = (Exercise.sample(tasks[i % len(tasks)], rng) for i in range(LINES))
    lines = tuple(rng.choice((e.written(rng), f"{e.text} {e.target}")) for e in told)
    asked = {task: [Exercise.sample(task, rng) for _ in range(EACH)] for task in tasks}
    return Knowledge(
        lines,
        {
            NAMES.get(task, task): tuple((f"{e.text} {e.written(rng)}", e.target) for e in exercises)
            for task, exercises in asked.items()
        },
    )
