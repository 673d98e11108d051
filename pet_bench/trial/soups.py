"""What soups of a method's trials score, against the mean of the trials' scores and against their ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pet_bench.data.task import Choose, Split, Task
from pet_bench.errors import UserError
from pet_bench.metrics.scores import Scores
from pet_bench.registry import ask
from pet_bench.results import evaluations, store
from pet_bench.results import predictions as saved
from pet_bench.results.consistency import primary
from pet_bench.results.provenance import now, provenance
from pet_bench.results.soups import Ingredient, Kind, Outcome, Soup
from pet_bench.trial.build import device_name
from pet_bench.trial.evaluate import evaluating, last_argmax
from pet_bench.trial.loaded import Loaded
from pet_bench.trial.resolve import check_selection
from pet_bench.trial.soup import Member, averaged, check_start, read_member
from pet_bench.trial.splits import read_splits

Predictions = dict[str, str]
OnStep = Callable[[str], None]


def compare_soups(
    paths: Sequence[Path],
    target: Path,
    *,
    kinds: Sequence[Kind] = ("uniform", "greedy"),
    data: Path | None = None,
    device: str = "cpu",
    unshared: bool = False,
    on_step: OnStep = lambda what: None,
) -> Soup:
    """Average the trials in `paths`, test what comes of it, and write a record to `target`, predictions beside it.

    uniform: the mean of all. greedy: it starts with the best by validation, and each next is kept where the mean then
    validates better; Wortsman et al. keep it also where it validates as well. The ensemble asks all of them. Where a
    task chooses, it takes the choice of the largest mean log-probability. Elsewhere a mean of every step's logits would
    cost as much as all members together: it takes the answer that most of them gave in their trials, of equals that of
    the best member by validation, or of the first seed. Captions hardly ever agree, and it is then one member's.

    Raises UserError, before anything is predicted, for members whose mean means nothing (`trial.soup`), unusable data,
    and for a greedy soup where a validation split is trained on or tested on.
    """
    started, greedy = now(), "greedy" in kinds
    first = read_member(paths[0], data=data, device=device)
    tasks = [first.trial.task(name) for name in first.trial.spec.tasks]
    if greedy:
        check_selection(tasks, "a greedy soup is chosen by validation (--kind uniform is not)")
    members = [first, *(read_member(path, first, data=data, device=device) for path in paths[1:])]
    shared = check_start([member.trial.spec for member in members], unshared=unshared)
    tests = Tests(first.trial, tasks, valid=greedy, on_step=on_step)

    validation = [tests.validation(member.trial) if greedy else None for member in members]
    order = sorted(range(len(members)), key=lambda i: -(validation[i] or 0.0))
    ranked = [members[i] for i in order]

    def outcome(
        name: str, of: Sequence[Member], answers: dict[str, Predictions], score: float | None = None
    ) -> Outcome:
        return _outcome(tests, name, of, answers, score, target)

    best, best_score = ranked[:1], validation[order[0]]
    for candidate in ranked[1:] if greedy else ():
        score = tests.validation(averaged([*best, candidate]))
        if best_score is not None and score > best_score:
            best, best_score = [*best, candidate], score
    record = Soup(
        method=store.base(first.trial.result.spec)["method"],
        backbone=first.trial.spec.backbone,
        suite=first.trial.spec.suite,
        setup=store.base(first.trial.result.spec)["setup"],
        shared=shared,
        updates=len(first.parts.updates),
        tensors=len(first.parts.tensors),
        ingredients=[
            Ingredient(
                trial=member.trial.spec.id,
                seed=member.trial.spec.seed,
                validation=score,
                scores=_recorded(member, tasks),
                average=member.trial.result.average or 0.0,
            )
            for member, score in zip(members, validation, strict=True)
        ],
        uniform=outcome("uniform", members, tests.answers(averaged(members))) if "uniform" in kinds else None,
        greedy=outcome("greedy", best, tests.answers(averaged(best)), best_score) if greedy else None,
        ensemble=outcome("ensemble", members, {task.name: tests.together(ranked, task) for task in tasks}),
        provenance=provenance(started, device=device_name(first.trial.model.device), data=tests.fingerprint),
    )
    evaluations.write(record, target)
    return record


class Tests:
    """The validation and test splits of the members' tasks, to be asked of any of them and of their means."""

    def __init__(self, trial: Loaded, tasks: Sequence[Task], *, valid: bool, on_step: OnStep):
        read = read_splits(trial, tasks, ("valid", "test") if valid else ("test",))
        assert read.store is not None  # it was packed
        self.tasks, self.examples, self.store, self.on_step = tasks, read.examples, read.store, on_step
        self.fingerprint = read.store.fingerprint

    def _predict(self, trial: Loaded, task: Task, split: Split) -> Predictions:
        self.on_step(f"{task.name}, {split}")
        return trial.answers(trial.batches(task, self.examples[task.name][split], self.store))

    def score(self, task: Task, predictions: Predictions, split: Split = "test") -> Scores:
        return ask(task, "score", predictions, self.examples[task.name][split], returns=Scores)

    def answers(self, trial: Loaded) -> dict[str, Predictions]:
        """To every task's test."""
        return {task.name: self._predict(trial, task, "test") for task in self.tasks}

    def validation(self, trial: Loaded) -> float:
        """The mean over tasks that have a validation split of the primary metric, larger being better."""
        scores = [
            (1 if task.higher_is_better else -1)
            * self.score(task, self._predict(trial, task, "valid"), "valid").primary
            for task in self.tasks
            if "valid" in self.examples[task.name]
        ]
        return sum(scores) / len(scores)

    def together(self, members: Sequence[Member], task: Task) -> Predictions:
        """What an ensemble answers: see `compare_soups`."""
        if not isinstance(task.decoding, Choose):
            given = [_given(member, task) for member in members]
            return {id: Counter(one[id] for one in given).most_common(1)[0][0] for id in given[0]}
        self.on_step(f"{task.name}, ensemble")
        logs = [self._logs(member.trial, task, task.decoding) for member in members]
        ids = [*logs[0]]
        means = torch.stack([torch.stack([one[id] for id in ids]) for one in logs]).mean(0)
        return dict(zip(ids, (task.decoding.choices[i] for i in last_argmax(means)), strict=True))

    def _logs(self, trial: Loaded, task: Task, decoding: Choose) -> dict[str, torch.Tensor]:
        """Of every test example, the log-softmax (C,) over its choices' first sub-tokens."""
        batches, model = trial.batches(task, self.examples[task.name]["test"], self.store), trial.model
        firsts = model.family.reader(trial.tokenizer).firsts(decoding.choices)
        logs: dict[str, torch.Tensor] = {}
        with evaluating(model, trial.spec.recipe.evaluation):
            for batch in batches.eval_batches(trial.batch_size):
                values = model.choose(batch.to(model.device).inputs, firsts).float().log_softmax(-1)
                logs |= dict(zip(batch.ids, values.cpu(), strict=True))
        return logs


def _given(member: Member, task: Task) -> Predictions:
    """The answers of the member's trial, by id; raises UserError where they have not been kept."""
    spec = member.trial.spec
    if not (file := saved.find(spec.id, task.name, [member.path.parent])):
        raise UserError(f"{task.name}: predictions {member.path.parent / saved.name(spec.id, task.name)} are missing")
    return {id: text for id, (text, _) in saved.read(file).items()}


def _recorded(member: Member, tasks: Sequence[Task]) -> dict[str, float]:
    scores = {task.name: primary(member.trial.result, task.name)[1] for task in tasks}
    return {name: score.value for name, score in scores.items() if score}


def _outcome(
    tests: Tests,
    name: str,
    members: Sequence[Member],
    answers: dict[str, Predictions],
    validation: float | None,
    target: Path,
) -> Outcome:
    """The test scores of some answers, which are written beside the record."""
    scores, files = {}, {}
    for task in tests.tasks:
        scored = tests.score(task, answers[task.name])
        scores[task.name] = scored.primary
        files[task.name] = f"{target.stem}.{name}.{task.name}.jsonl.gz"
        saved.write(target.with_name(files[task.name]), answers[task.name], scored.per_example)
    return Outcome(
        members=[member.trial.spec.id for member in members],
        validation=validation,
        scores=scores,
        average=sum(scores.values()) / len(scores),
        predictions=files,
    )
