"""The official accuracy of open-ended visual question answering (Antol et al. 2015, arXiv:1505.00468).

The answer normalisation follows the evaluation code of the VQA team (GT-Vision-Lab/VQA), quirks included. That
code exists in two versions, which differ in when answers are normalised.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Literal, get_args

from pet_bench.errors import unknown
from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired

Version = Literal["2016", "2021"]

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMERALS = {"none": "0"} | {word: str(number) for number, word in enumerate(DIGITS)}
ARTICLES = {"a", "an", "the"}

# The official table maps a contraction that lost one of its apostrophes to the whole one; these are the whole ones.
# Its rows whose key holds a capital never match, since the text is lower-cased first, and are left out.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
    not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
TABLE = {
    whole[: mark.start()] + whole[mark.end() :]: whole
    for whole in CONTRACTIONS.split()
    for mark in re.finditer("'", whole)
} | {"somebody'd": "somebodyd"}


def strip_punctuation(text: str) -> str:
    """Step 1. A mark goes where it touches a space anywhere in the text, or where the text holds digit-comma-digit;
    elsewhere it becomes a space. Then the first 32 periods that no digit follows go (the original passes a flag of
    value 32 where a count is expected)."""
    squeeze = re.search(r"\d,\d", text)
    result = text
    for mark in PUNCTUATION:
        result = result.replace(mark, "" if squeeze or f"{mark} " in text or f" {mark}" in text else " ")
    return re.sub(r"\.(?!\d)", "", result, count=32)


def map_words(text: str) -> str:
    """Step 2. Lower case, numerals to digits, no articles, apostrophes put back into contractions."""
    words = (NUMERALS.get(word, word) for word in text.lower().split())
    return " ".join(TABLE.get(word, word) for word in words if word not in ARTICLES)


def trim(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """The whole chain: trim, then step 1, then step 2."""
    return map_words(strip_punctuation(trim(text)))


def shared(answer: str, answers: Sequence[str]) -> float:
    """Mean over the annotators of min(1, others of them who gave this answer / 3), in [0, 1]; strings must be equal."""
    agree = sum(other == answer for other in answers)
    return mean([min(1.0, (agree - (other == answer)) / 3) for other in answers])


def question_accuracy(prediction: str, answers: Sequence[str], version: Version = "2016") -> float:
    """Mean over the annotators of min(1, other annotators who gave the predicted answer / 3), in [0, 1]."""
    if version == "2016":
        disagree = len(set(answers)) > 1
        prediction = normalise(prediction)
        answers = [strip_punctuation(answer) for answer in answers] if disagree else answers
    else:
        prediction, answers = trim(prediction), [trim(answer) for answer in answers]
        if len(set(answers)) > 1:
            prediction, answers = normalise(prediction), [normalise(answer) for answer in answers]
    return shared(prediction, answers)


class VQAAccuracy:
    """Official accuracy, and beside it that of the other version, by answer type, and soft-label exact match.

    version: "2016" (commit 458a8b2; the evaluator of the published tables) always normalises the prediction, and
    strips the annotators' punctuation only where they disagree; "2021" (a013f00) normalises both alike, where the
    annotators disagree. An example's references: `{"answers": [the annotators' answers], "answer_type": str,
    "label": {answer: score}}`, the last two optional.
    """

    plugin_kind = "metric"
    name = "vqa-accuracy"
    bounds: ClassVar[Bounds] = PERCENT

    def __init__(self, version: Version = "2016"):
        if version not in get_args(Version):
            raise unknown("version of the VQA accuracy", version, get_args(Version))
        self.version = version

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        pairs = paired(self.name, predictions, examples)
        by_version = {
            version: {e.id: 100.0 * question_accuracy(p, e.references["answers"], version) for p, e in pairs}
            for version in get_args(Version)
        }
        per_example = by_version[self.version]
        values = {"accuracy": mean(list(per_example.values()))}
        values |= {f"accuracy-{version}": mean(list(scores.values())) for version, scores in by_version.items()}
        by_type = defaultdict(list)
        for example in examples:
            by_type[example.references.get("answer_type", "")].append(per_example[example.id])
        values |= {f"accuracy-{kind}": mean(scores) for kind, scores in sorted(by_type.items()) if kind}
        if all("label" in example.references for example in examples):
            values["label-score"] = mean([100.0 * e.references["label"].get(p, 0.0) for p, e in pairs])
        return Scores(values, per_example)
