"""What the metrics of captions share: the tokeniser, and references that must be there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import ClassVar, Literal, get_args

from pet_bench.errors import UserError, unknown
from pet_bench.metrics import java, ptb
from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, paired

Tokenizer = Literal["ptb", "java"]


class CaptionMetric:
    """A metric of tokenised captions. An example's references: `{"captions": [str]}`.

    tokenizer: "ptb" is `pet_bench.metrics.ptb`; "java" is the official one, of which "ptb" differs where a caption
    falls outside its rules (corpus CIDEr by less than 0.0005 on the 0–10 scale on every set tested).
    """

    plugin_kind = "metric"
    name: ClassVar[str]
    bounds: ClassVar[Bounds] = PERCENT

    def __init__(self, tokenizer: Tokenizer = "ptb"):
        if tokenizer not in get_args(Tokenizer):
            raise unknown("tokeniser of captions", tokenizer, get_args(Tokenizer))
        self.tokenizer = tokenizer

    def check(self) -> None:
        """Raises UserError where what the metric needs is not installed."""
        if self.tokenizer == "java":
            java.check(f"{self.name}: the Java tokeniser")

    def tokenised(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> list[tuple[str, str, list[str]]]:
        """(id, prediction, reference captions), tokenised, of every example; raises UserError where one has none."""
        pairs = paired(self.name, predictions, examples)
        bare = [example.id for example in examples if not example.references["captions"]]
        if bare:
            raise UserError(f"{self.name}: {len(bare)} examples have no reference caption, the first is {bare[0]!r}")
        tokenize = java.tokenize if self.tokenizer == "java" else lambda texts: [*map(ptb.tokenize, texts)]
        # Apart, as the official scorer does: what its tokeniser makes of a line depends on the line that follows.
        texts = tokenize([prediction for prediction, _ in pairs])
        captions = iter(tokenize([caption for _, example in pairs for caption in example.references["captions"]]))
        return [
            (example.id, text, list(islice(captions, len(example.references["captions"]))))
            for text, (_, example) in zip(texts, pairs, strict=True)
        ]
