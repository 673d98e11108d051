"""What tasks with ten annotators' free answers share: soft labels, and the ways in which published models are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.data.rows import Text
from pet_bench.data.task import Task
from pet_bench.metrics.vqa_accuracy import normalise, shared
from pet_bench.spec import STRICT

ANNOTATORS = 10
Ten = Annotated[list[str], Field(min_length=ANNOTATORS, max_length=ANNOTATORS)]
Name = Annotated[Text, Field(pattern=r"^[^/\\]+$")]  # of a file: no path
AnswerType = Literal["yes/no", "number", "other", "unanswerable"]  # of VizWiz's questions
BRIEFLY = "Answer the question using a single word or phrase."


def soft_label(answers: Sequence[str], form: Callable[[str], str] = normalise) -> dict[str, float]:
    """The official score of every answer that the annotators gave, normalised; the empty one is none."""
    formed = [form(answer) for answer in answers]
    return {answer: shared(answer, formed) for answer in dict.fromkeys(formed) if answer}


@dataclass(frozen=True, config=STRICT)
class AnswerTask(Task):
    """Open-ended answers, learned from soft labels: one answer a time, drawn in proportion to its score.

    style: what stands around a question, behind the prompt. "plain" is nothing, as in VL-Adapter; "llava-1.5" is the
    instruction of LLaVA-1.5's evaluation (`haotian-liu/LLaVA`, docs/Evaluation.md), on a line of its own; "paligemma"
    the prefix of PaliGemma's transfers (`google-research/big_vision`, configs/proj/paligemma/transfers). To ask exactly
    as there, leave the prompt empty.
    """

    loss: ClassVar = "score-weighted"
    max_text: ClassVar = 64
    max_target: ClassVar = 10
    instruction: ClassVar[str] = BRIEFLY

    style: Literal["plain", "llava-1.5", "paligemma"] = "plain"

    def asked(self, question: str, seen: str = "") -> tuple[str, tuple[int, int]]:
        """The text of an example, and where in it `seen` is, the words read in its image, which are cut first."""
        parts = {
            "plain": ("", f" ocr: {seen}", ""),
            "llava-1.5": ("", f"\nReference OCR token: {seen}", f"\n{self.instruction}"),
            "paligemma": ("answer en ", f" ocr: {seen}", ""),
        }
        before, read, behind = parts[self.style]
        start = f"{self.prompt}{before}{question}"
        text = f"{start}{read if seen else ''}{behind}"
        return text, (len(start), len(start) + len(read)) if seen else (0, 0)
