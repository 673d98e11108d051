"""Multiple choice by letter, with context: the forms in which published models are asked and answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pet_bench.metrics.scienceqa_accuracy import LETTERS

Style = Literal["memvp", "gpt-3", "llava-1.5"]
Subject = Literal["natural science", "social science", "language science"]  # of ScienceQA's problems
GRADE = r"^grade([1-9]|1[0-2])$"


@dataclass(frozen=True)
class Form:
    """text: with the fields question, context and choices. context: of one that is there; none: in place of one that is
    not. choice: of its letter and itself; between: two choices. answer: what is learned, of the letter."""

    text: str
    context: str = "{}"
    none: str = "N/A"
    choice: str = "({}) {}"
    between: str = " "
    answer: str = "The answer is {}."

    def asked(self, prompt: str, question: str, context: str, choices: Sequence[str]) -> tuple[str, tuple[int, int]]:
        """The text, behind the prompt, and where in it the context is."""
        context = self.context.format(context) if context else self.none
        pairs = zip(LETTERS, choices, strict=False)
        fields = {"question": question, "choices": self.between.join(self.choice.format(*pair) for pair in pairs)}
        before, behind = (part.format(**fields) for part in self.text.split("{context}"))
        start = len(prompt) + len(before)
        return prompt + before + context + behind, (start, start + len(context))


FORMS: dict[Style, Form] = {
    "memvp": Form("Question: {question}\nContext: {context}\nOptions: {choices}\nResponse:"),
    "gpt-3": Form("Question: {question}\nContext: {context}\nOptions: {choices}\nAnswer:"),
    "llava-1.5": Form(
        "{context}{question}\n{choices}\nAnswer with the option's letter from the given choices directly.",
        context="Context: {}\n",
        none="",
        choice="{}. {}",
        between="\n",
        answer="{}",
    ),
}
