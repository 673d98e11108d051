"""Anybody's predictions and the official answers, for `score --metric`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fuzzing import mutations
from fuzzing.case import Case, Mutation, Reader, product, sound
from fuzzing.mutations import Rule

KIND = "scored"
FORMATS = {  # metric → predictions, annotations
    "cider": ("captions.json", None),
    "bleu": ("captions.json", None),
    "rouge-l": ("captions.json", None),
    "vqa-accuracy": ("vqa.json", "vqa_truth.json"),
    "exact-match": ("gqa.json", "gqa_truth.json"),
    "nlvr-accuracy": ("nlvr.csv", "nlvr_truth.json"),
    "multiple-choice-accuracy": ("choices.json", "choices_truth.jsonl"),
}
ID = ("id", "question_id", "questionId", "identifier", "qid")
RULES = [
    # an id may be a number or text; another one has no match, which is for the scorer to say
    *(Rule(f"*{key}", "number", "either") for key in ID),
    *(Rule(f"*{key}", "numeral", "either") for key in ID),
    Rule("*.prediction", "[els]*[!e]", "either"),
    Rule("*.prediction", "empty", "either"),
    Rule("*.answer", "[els]*[!e]", "either"),
    Rule("*.answer", "empty", "either"),
    Rule("*.references", "again", "either"),
    Rule("*.references.*", "[el]*", "either"),
    Rule("*.references.*", "slash", "either"),
    Rule("*", "junk", "either"),
    *(
        Rule(f"*{key}", "*", "either")
        for key in (
            "image_id",
            "answer_id",
            "answer_confidence",
            "question_type",
            "answer_type",
            "question",
            "types*",
            "q",
            "show_name",
            "sentence",
            "isBalanced",
            "structural",
            "semantic",
        )
    ),
    Rule("answer_idx", "numeral", "either"),
    Rule("*answers", "again", "either"),
    Rule("*.answers.*", "dropped", "either"),
]
CHOICES = [  # {id: answer}: an answer that is none of the choices is wrong, not broken
    *(Rule("[0-9]", name, "either") for name in ("slash", "long", "lines", "empty", "number", "numeral", "text")),
]
KEYS = [Rule(place, name, "either") for place in ("[0-9]", "[0-9][0-9]") for name in ("dropped", "renamed")]
CSV = {
    "no comma": "dev-1-0-0 True\n",
    "maybe": "dev-1-0-0,Maybe\n",
    "three fields": "dev-1-0-0,True,x\n",
    "id twice": "dev-1-0-0,True\ndev-1-0-0,False\n",
    "nothing": "",
    "number": "dev-1-0-0,1\n",
    "unknown id": "dev-1-0-0,True\ndev-1-0-1,True\ndev-9-9-9,True\n",
    "one less": "dev-1-0-0,True\n",
}


def cases(base: Path) -> Iterator[Case]:
    for metric, (file, truth) in FORMATS.items():
        given = ("--annotations", f"WORK/scored/{truth}") if truth else ()
        readers = [Reader(metric, ("score", "--metric", metric, f"WORK/scored/{file}", *given))]
        yield from sound(KIND, ["scored"], readers)
        for name in filter(None, (file, truth)):
            path = base / "scored" / name
            yield from product(KIND, ["scored"], f"scored/{name}", _changes(path), readers)


def _changes(path: Path) -> Iterator[Mutation]:
    yield from [*mutations.text(), mutations.missing()] if path.suffix != ".csv" else mutations.whole()
    text = path.read_text()
    if path.suffix == ".csv":
        yield from (Mutation(name, mutations.written(content)) for name, content in CSV.items())
        yield Mutation("mark", mutations.written("\ufeff" + text), "accept")
        yield Mutation("carriage returns", mutations.written(text.replace("\n", "\r\n")), "accept")
    elif path.suffix == ".jsonl" or path.name.startswith("nlvr"):
        yield from mutations.rows([json.loads(line) for line in text.splitlines()], 0, RULES)
    else:
        content = json.loads(text)
        by_id = [*(CHOICES if path.name.startswith("choices") else ()), *KEYS] if isinstance(content, dict) else []
        yield from mutations.tree(content, [*by_id, *RULES])
