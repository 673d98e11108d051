"""The official accuracy of VizWiz's visual questions (Gurari et al. 2018, arXiv:1802.08218).

The rule is that of the data set's evaluation code (`vqaEval.py` by Qing Li, in the APIs of the download page), which
comes from VQA's of 2016: the prediction is normalised as there, the annotators' answers are taken as they are, also
where they disagree. Its table of contractions is spelt with typographic apostrophes; the ones here are VQA's.

Whether a question can be answered at all is a task of its own in the challenge, scored by the average precision of a
confidence that none of our models gives; here are the accuracies on both kinds of question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired
from pet_bench.metrics.vqa_accuracy import normalise, shared


class VizWizAccuracy:
    """Mean over the ten annotators of min(1, others of them who gave the predicted answer / 3); also by answer type.

    An example's references: `{"answers": [the annotators' answers], "answer_type": str}`, the last one optional.
    """

    plugin_kind = "metric"
    name = "vizwiz-accuracy"
    bounds: ClassVar[Bounds] = PERCENT

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example, by_type = {}, defaultdict(list)
        for prediction, example in paired(self.name, predictions, examples):
            score = 100.0 * shared(normalise(prediction), example.references["answers"])
            per_example[example.id] = score
            by_type[example.references.get("answer_type", "")].append(score)
        values = {"accuracy": mean(list(per_example.values()))}
        values |= {f"accuracy-{kind}": mean(scores) for kind, scores in sorted(by_type.items()) if kind}
        return Scores(values, per_example)
