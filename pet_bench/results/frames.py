"""Results as tidy DataFrames, to explore in a notebook: what tables and figures take.

Each starts from folders of results, by path or, for those in `results/`, by name:

    frame = pet_bench.load_results("demo")                    # a row per trial × task × metric
    frame[frame.primary == True].pivot_table("value", "method", "task")

All have the columns `KEYS` of the trial that a row is of; join them on `id`. A trial in several folders is taken
from the one where it is worth most, of equals the first. Trials come in the order in which they were started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pet_bench.errors import Faults, UserError
from pet_bench.results import predictions as saved
from pet_bench.results import store
from pet_bench.results.aliases import Results
from pet_bench.results.consistency import primary, unlike
from pet_bench.results.schema import TrialResult

KEYS = ["id", "status", "suite", "backbone", "method", "control", "seed", "setup", "folder"]
Collected = Mapping[str, tuple[TrialResult, Path]]
Rows = Callable[[TrialResult, Path], Iterator[tuple[Any, ...]]]  # of a trial, without its keys


def load_results(*sources: str | Path) -> pd.DataFrame:
    """A row per trial × task × metric, one without a task for a trial without scores (`results.store.to_frame`).

    Among the columns: task, metric, primary (the task's own measure), value, split, n, average (mean over tasks of the
    primary metrics), trainable and percent (parameters), train_seconds, peak_memory_bytes, latency_seconds and flops
    (of an answer, means over tasks), forgetting (loss a token added on the backbone's text), commit, folder. Without
    sources all of `results/`. Raises UserError naming every folder that is not there and every unreadable file.
    """
    results = collected(*sources)
    frame = store.to_frame(result for result, _ in results.values())
    frame["folder"] = frame.id.map({id: str(folder) for id, (_, folder) in results.items()})
    return frame


def load_curves(*sources: str | Path) -> pd.DataFrame:
    """The learning curves: a row per trial × point × measure.

    Columns after `KEYS`: step, epoch, split, task (None: all tasks), measure ("loss" or a metric), value, primary
    (whether it is the task's own metric).
    """
    return curves(collected(*sources))


def load_breakdowns(*sources: str | Path) -> pd.DataFrame:
    """The primary metric over parts of the test: a row per trial × task × group × part.

    Columns after `KEYS`: task, metric, group ("question type", "answer type", "length", …), part, value, n.
    """
    return breakdowns(collected(*sources))


def load_inference(*sources: str | Path) -> pd.DataFrame:
    """What an answer takes: a row per trial × task.

    Columns after `KEYS`: task, batch_size, latency_seconds and flops (of an example), merged_latency_seconds and
    merged_flops (missing where nothing could be merged). Trials of before have no rows.
    """
    return inference(collected(*sources))


def load_forgetting(*sources: str | Path) -> pd.DataFrame:
    """What was forgotten: a row per trial × kind of exercise ("text", or a task that the backbone knew from text).

    Columns after `KEYS`: kind, before and after (mean loss a token), forgetting (after − before), tokens, text (twelve
    hex digits of what was asked). Trials of which it was not measured have no rows.
    """
    return forgetting(collected(*sources))


def load_settings(*sources: str | Path) -> pd.DataFrame:
    """What the trials were made of: a row per trial and, after `KEYS`, a column for each key of their specs.

    `method.gate`, `method.encoder.ffn.rank`, `recipe.lr`, `protocol.gqa.prompt`, …; missing where a trial has none.
    """
    return settings(collected(*sources))


def load_predictions(*sources: str | Path) -> pd.DataFrame:
    """What was predicted: a row per trial × task × example.

    Columns after `KEYS`: task, example, prediction, score (its share of the primary metric). Trials whose predictions
    have not been kept have no rows; raises UserError for those that are damaged.
    """
    return predictions(collected(*sources))


# from results that have been read -------------------------------------------------------------------------------------


def collected(*sources: str | Path, loaded: Mapping[Path, Results] | None = None) -> Collected:
    """What frames are made of: the results of some folders by id, each with its folder, in the order of their starts.

    loaded: what has been read of the folders already. Raises as `load_results`.
    """
    faults, results = Faults(), {}
    folders = list(_folders(sources, faults))
    with faults:
        results = store.collect(folders, loaded)
    faults.check()
    return dict(sorted(results.items(), key=lambda item: item[1][0].provenance.started))


def curves(results: Collected) -> pd.DataFrame:
    """As `load_curves`."""
    return _tidy(results, _curve, ["step", "epoch", "split", "task", "measure", "value", "primary"])


def breakdowns(results: Collected) -> pd.DataFrame:
    """As `load_breakdowns`."""
    return _tidy(results, _breakdowns, ["task", "metric", "group", "part", "value", "n"])


def inference(results: Collected) -> pd.DataFrame:
    """As `load_inference`."""
    keys = ["batch_size", "latency_seconds", "flops", "merged_latency_seconds", "merged_flops"]
    return _tidy(
        results,
        lambda result, folder: (
            (task, *(getattr(taken, key) for key in keys)) for task, taken in result.inference.items()
        ),
        ["task", *keys],
    )


def forgetting(results: Collected) -> pd.DataFrame:
    """As `load_forgetting`."""
    return _tidy(
        results,
        lambda result, folder: (
            (kind, one.before, one.after, one.after - one.before, one.tokens, one.text)
            for kind, one in result.forgetting.items()
        ),
        ["kind", "before", "after", "forgetting", "tokens", "text"],
    )


def settings(results: Collected) -> pd.DataFrame:
    """As `load_settings`."""
    rows = [_keys(result, folder) | _flat(result.spec) for result, folder in results.values()]
    return pd.DataFrame(rows, columns=None if rows else KEYS)


def predictions(results: Collected) -> pd.DataFrame:
    """As `load_predictions`."""
    return _tidy(results, _predictions, ["task", "example", "prediction", "score"])


def _folders(sources: tuple[str | Path, ...], faults: Faults) -> Iterator[Path]:
    if not sources:
        yield from store.known_folders()
    for source in sources:
        folder = Path(source)
        if not folder.is_dir() and folder.parts == (folder.name,):
            folder = Path("results") / folder
        if folder.is_dir():
            yield folder
        else:
            faults.add(f'results folder "{folder}" does not exist')


def _tidy(results: Collected, rows_of: Rows, columns: list[str]) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for result, folder in results.values():
        keys = tuple(_keys(result, folder).values())
        rows += [keys + row for row in rows_of(result, folder)]
    return pd.DataFrame(rows, columns=[*KEYS, *columns])


def _keys(result: TrialResult, folder: Path) -> dict[str, Any]:
    return {"id": result.id, "status": result.status, **store.base(result.spec), "folder": str(folder)}


def _curve(result: TrialResult, folder: Path) -> Iterator[tuple[Any, ...]]:
    for point in result.curve:
        where = point.step, point.epoch, point.split, point.task
        measures = point.metrics if point.loss is None else {"loss": point.loss, **point.metrics}
        own, _ = primary(result, point.task)
        for measure, value in measures.items():
            yield *where, measure, value, measure == own


def _breakdowns(result: TrialResult, folder: Path) -> Iterator[tuple[Any, ...]]:
    for task, groups in result.breakdowns.items():
        metric, _ = primary(result, task)
        for group, parts in groups.items():
            for part, score in parts.items():
                yield task, metric, group, part, score.value, score.n


def _predictions(result: TrialResult, folder: Path) -> Iterator[tuple[Any, ...]]:
    for task in result.predictions:
        if file := saved.find(result.id, task, [folder]):
            metric, whole = primary(result, task)
            kept = saved.read(file, metric)
            if whole and (fault := unlike(whole, metric, kept, str(file))):
                raise UserError(fault)
            for example, (text, score) in kept.items():
                yield task, example, text, score


def _flat(spec: dict[str, Any]) -> dict[str, Any]:
    """`{"recipe": {"lr": 0.1}, "method": {"name": "lora", "options": {"rank": 4}}}` → recipe.lr, method.rank."""
    of = spec["method"]
    method = {"name": of["name"], **of["options"], **({"scope": of["scope"]} if of.get("scope") else {})}
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = tuple(value) if isinstance(value, list) and all(map(_plain, value)) else value

    for key, value in {"method": method, "recipe": spec["recipe"], "protocol": spec.get("protocol", {})}.items():
        walk(key, value)
    return flat


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)
