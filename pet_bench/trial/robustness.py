"""A finished trial's own tasks under corruptions of text and images (`data.corrupt`): how much of a score is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pet_bench.data.corrupted import Corruption
from pet_bench.data.reading import Read
from pet_bench.data.task import Task
from pet_bench.errors import UserError, unknown
from pet_bench.metrics.scores import Scores
from pet_bench.registry import ask
from pet_bench.results import evaluations
from pet_bench.results.consistency import primary, same
from pet_bench.results.evaluations import Clean, Corrupted, Robustness
from pet_bench.results.provenance import now, provenance
from pet_bench.trial.build import device_name
from pet_bench.trial.loaded import Loaded
from pet_bench.trial.splits import read_splits


def robustness(
    trial: Loaded,
    corruptions: Sequence[Corruption],
    folder: Path,
    tasks: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Robustness:
    """Test a trial under corruptions and add what is new to `<folder>/robustness.<seed>.json`, a row each.

    Relative robustness is 1 - (clean - corrupted) / clean of a task's primary metric (Chen et al., NeurIPS 2023,
    arXiv:2306.02080), clean being measured here too, as strength 0. A task in which a corruption finds nothing to
    change, as text in captioning, has no row of it. Rows that the file has already are not measured again.

    Raises UserError for tasks that are not the trial's, unusable data, and data of which the trial was tested on more
    or fewer examples.
    """
    started, names = now(), tasks or trial.spec.tasks
    if strange := [name for name in names if name not in trial.spec.tasks]:
        raise UserError.many(unknown(f"task of trial {trial.spec.id}", name, trial.spec.tasks) for name in strange)
    (seed,) = {corruption.seed for corruption in corruptions}
    file = folder / f"{evaluations.robustness_name(seed)}.json"
    known = evaluations.read(Robustness, file) if file.is_file() else None
    clean = dict(known.clean) if known else {}
    rows = {(row.task, row.corruption, row.strength): row for row in known.scores} if known else {}
    notes = list(known.notes) if known else []

    chosen, visual, done = [trial.task(name) for name in names], trial.spec.visual, 0
    grids = trial.model.family.fed == "features" and visual.pooled != visual.tokens
    read = read_splits(trial, chosen, pooled=False if grids else None)  # what has been pooled is corrupted otherwise
    store = read.store
    assert store is not None  # it was packed
    wanted: list[tuple[Task, Corruption]] = []
    for task in chosen:
        examples = read.examples[task.name]["test"]
        every = [one for one in corruptions if one.strength and one.changes(task, examples, trial.spec.control)]
        wanted += [(task, one) for one in every if (task.name, one.name, one.strength) not in rows]
    missing = [task for task in chosen if task.name not in clean]
    total = len(missing) + len(wanted)
    on_progress(0, total)

    def score(task: Task, corruption: Corruption) -> float:
        nonlocal done
        _, scores = under(trial, task, read, corruption)
        on_progress(done := done + 1, total)
        return scores.primary

    for task in missing:
        metric, recorded = primary(trial.result, task.name)
        n = len(read.examples[task.name]["test"])
        value = score(task, Corruption("", 0, seed))
        clean[task.name] = Clean(metric=metric, value=value, n=n)
        if recorded and not same(recorded.value, value):
            notes.append(f"{task.name}: {metric} is {value:.4f} here, and was {recorded.value:.4f} in the trial")
    for task, one in wanted:
        value, whole = score(task, one), clean[task.name].value
        relative = 1 - (whole - value) / whole if whole else None
        rows[task.name, one.name, one.strength] = Corrupted(
            task=task.name, corruption=one.name, strength=one.strength, value=value, relative=relative
        )
    if known and not total:
        return known
    record = Robustness(
        trial=trial.spec.id,
        seed=seed,
        clean=clean,
        scores=list(rows.values()),
        relative=None,
        notes=notes,
        provenance=provenance(started, device=device_name(trial.model.device), data=store.fingerprint),
    )
    record.relative = record.means().get(())
    evaluations.write(record, file)
    return record


def under(trial: Loaded, task: Task, read: Read, corruption: Corruption) -> tuple[dict[str, str], Scores]:
    """Predictions and scores of a task's test under a corruption; answers and references are those without it."""
    examples = read.examples[task.name]["test"]
    assert read.store is not None  # it was packed
    seen = corruption.store(read.store, task, trial.model.family.fed)
    predictions = trial.answers(trial.batches(task, corruption.examples(task, examples), seen))
    return predictions, ask(task, "score", predictions, examples, returns=Scores)
