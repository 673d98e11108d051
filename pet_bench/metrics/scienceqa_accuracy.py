"""The official accuracies of ScienceQA (Lu et al. 2022, arXiv:2209.09513): by subject, context and grade.

The groups are those of `tools/evaluate_acc.py` in lupantech/ScienceQA, as its tables print them: a question that has
both a text and an image counts in TXT and in IMG, one that has neither in NO. Which choice an answer names is read as
LLaVA's `eval_science_qa.py` reads it, which takes in the official "The answer is A."; an answer that names none is
wrong, as there and in MemVP, while the official code draws a choice for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired

LETTERS = ("A", "B", "C", "D", "E")
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
GROUPS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12")
NAMED = re.compile(r"The answer is ([A-E])")


def chosen(answer: str) -> str:
    """The letter of the choice that an answer names: alone, in front of a period and more, or in a sentence of its own;
    "" for none."""
    text = answer.replace("\n", ". ").strip()
    if text in LETTERS or (text[:1] in LETTERS and text[1:3] == ". "):
        return text[0]
    found = NAMED.search(text)
    return found[1] if found else ""


def groups(references: Mapping[str, Any]) -> Iterator[str]:
    """The columns of the official table that a question counts in."""
    yield SUBJECTS[references["subject"]]
    yield from (name for name, has in (("TXT", references["text"]), ("IMG", references["image"])) if has)
    if not references["text"] and not references["image"]:
        yield "NO"
    yield "G1-6" if references["grade"] <= 6 else "G7-12"


class ScienceQAAccuracy:
    """Share of right answers, of all questions and of those of each group that there are.

    An example's references: `{"answer": the right choice's letter, "subject": str, "text": whether there is a hint,
    "image": whether there is an image, "grade": 1 to 12}`.
    """

    plugin_kind = "metric"
    name = "scienceqa-accuracy"
    bounds: ClassVar[Bounds] = PERCENT

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example, by_group = {}, defaultdict(list)
        for prediction, example in paired(self.name, predictions, examples):
            score = 100.0 * (chosen(prediction) == example.references["answer"])
            per_example[example.id] = score
            for group in groups(example.references):
                by_group[group].append(score)
        values = {"accuracy": mean(list(per_example.values()))}
        values |= {f"accuracy-{group}": mean(by_group[group]) for group in GROUPS if group in by_group}
        return Scores(values, per_example)
