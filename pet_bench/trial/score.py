"""Scores anew: of a trial from its saved predictions, of anybody's predictions from official files."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from pet_bench.data.reading import build_tasks, data_root
from pet_bench.data.submissions import read_submission
from pet_bench.errors import Faults, UserError, foreign, unknown
from pet_bench.metrics.scores import Scores, breakdowns, scored
from pet_bench.registry import METRICS, ask, title
from pet_bench.results import dropped, store
from pet_bench.results import predictions as saved
from pet_bench.spec import Runtime, TrialSpec


@dataclass(frozen=True)
class Scored:
    """One scoring. old: the values recorded in the result, if there is one. n: examples. notes: what was left out."""

    what: str
    scores: Scores
    n: int
    breakdowns: dict[str, dict[str, tuple[float, int]]]
    old: dict[str, float] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        parts = {
            group: {value: {"value": score, "n": n} for value, (score, n) in values.items()}
            for group, values in self.breakdowns.items()
        }
        old = {} if self.old is None else {"old": self.old}
        values, each = self.scores.values, self.scores.per_example
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {
            "name": self.what, "n": self.n, "values": values, **old, **notes, "breakdowns": parts, "per_example": each
        }  # fmt: skip


def score_trial(path: Path, data: Path | None = None) -> list[Scored]:
    """Score the saved test predictions of a trial again, task by task, against the data in `data`; writes nothing.

    path: the trial's `<id>.json`; the predictions of one that failed while scoring count too. Raises one UserError for
    predictions that are not there and data they do not fit.
    """
    result = store.load(path)
    spec = TrialSpec.from_dict(result.spec)
    left_out = dropped.read(dropped.place(path.parent, spec.id)) if result.dropped else {}
    tasks, root = build_tasks(spec.tasks, spec.protocol), data_root(spec.suite, Runtime(path.parent, data))
    faults, scorings = Faults(), []
    for task in tasks:
        with faults:
            task.check_metrics()
            if not (file := saved.find(spec.id, task.name, [path.parent])):
                raise UserError(f"{task.name}: predictions {path.parent / saved.name(spec.id, task.name)} are missing")
            predictions = {id: text for id, (text, _) in saved.read(file).items()}
            gone = set(left_out.get(task.name, {}).get("test", ()))
            examples = [example for example in task.read_split(root, "test")[0] if example.id not in gone]
            scores = ask(task, "score", predictions, examples, returns=Scores)
            old = {name: score.value for name, score in result.metrics.get(task.name, {}).items()}
            scorings.append(Scored(task.name, scores, len(examples), breakdowns(scores, examples), old))
    faults.check()
    return scorings


def score_file(name: str, file: Path, annotations: Path | None = None, options: dict[str, str] | None = None) -> Scored:
    """Score anybody's predictions by the metric called `name`; formats as in `pet_bench.data.submissions`."""
    kind = METRICS.get(name)
    possible = signature(kind).parameters
    for option in (options or {}).keys() - possible.keys():
        raise unknown(f"option of {name}", option, possible)
    with foreign(f"{title(kind)}: it raised"):
        metric = kind(**options or {})
        getattr(metric, "check", lambda: None)()
    predictions, items, notes = read_submission(name, file, annotations)
    scores = scored(metric, predictions, items)
    return Scored(name, scores, len(items), breakdowns(scores, items), notes=notes)
