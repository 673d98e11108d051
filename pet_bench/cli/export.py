"""`pet-bench export`: results in the formats of others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_bench.cli.shared import Plugins, load_plugins, only_with, trials_of, writing
from pet_bench.errors import Faults, UserError, shortened

if TYPE_CHECKING:
    from pet_bench.data.task import Example
    from pet_bench.results.schema import TrialResult


class ExportFormat(StrEnum):
    PEFT, MODEL_INDEX, EVAL_RESULTS, LMMS_EVAL = "peft", "model-index", "eval-results", "lmms-eval"
    MERGED, PEFT_ADAPTER = "merged", "peft-adapter"


BENCHMARK = re.compile(r"(?P<task>[^=]+)=(?P<dataset>[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?)")
Trials = dict[str, tuple["TrialResult", Path]]


def export(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="A grid, a results folder, or a trial by path or id.")
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="model-index: one document for all; else files per trial: of peft's method comparison, of the hub's "
            ".eval_results/, of lmms-eval; or a folder per trial: a merged checkpoint, an adapter of peft's."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder, by default report/FORMAT of each results folder. "
            "model-index: file, JSON if it ends so, else YAML; by default printed as YAML. "
            "Or the folder of an id's results."
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=OWNER/DATASET[:TASK_ID]", help="eval-results: which benchmark of the hub's it is; repeatable."
        ),
    ] = None,
    source_url: Annotated[str | None, typer.Option(help="eval-results: where these numbers are shown.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="lmms-eval: root folder of the datasets; mini suites need none.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="merged: which, of methods with weights of their own for each task.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Export results in the formats of others: peft's method comparison, Hugging Face's model-index and evaluation
    results, lmms-eval; and trained models.

    peft: what is not measured here is null, and scores per task stand among the metrics. model-index: trials without
    scores are left out. lmms-eval: results, and a JSON line per example, which its --baseline reads. merged: what
    transformers' from_pretrained loads, where the method folds into the backbone. peft-adapter: LoRA and its kin.
    """
    load_plugins(plugin)
    only_with("--format eval-results", format == ExportFormat.EVAL_RESULTS, benchmark=benchmark, source_url=source_url)
    only_with("--format lmms-eval", format == ExportFormat.LMMS_EVAL, data=data)
    only_with("--format merged", format == ExportFormat.MERGED, task=task)
    benchmarks = _benchmarks(benchmark or [])
    trials, out = _sources(source, out)
    if out and (place := out.parent if format == ExportFormat.MODEL_INDEX else out).resolve() in {
        folder.resolve() for _, folder in trials.values()
    }:
        raise UserError(f'--out "{out}" is beside results: every JSON file in "{place}" is taken for a result')
    match format:
        case ExportFormat.PEFT:
            _write_files(trials, out, format, _peft)
        case ExportFormat.EVAL_RESULTS:
            _write_files(trials, out, format, partial(_eval_results, benchmarks=benchmarks, source=source_url))
        case ExportFormat.LMMS_EVAL:
            _write_files(trials, out, format, partial(_lmms_eval, data=data, read={}))
        case ExportFormat.MODEL_INDEX:
            _model_index(trials, out)
        case ExportFormat.MERGED | ExportFormat.PEFT_ADAPTER:
            _models(trials, out, format, task)


def _benchmarks(texts: list[str]) -> dict[str, str]:
    found, faults = {}, Faults()
    for text in texts:
        if match := BENCHMARK.fullmatch(text):
            found[match["task"]] = match["dataset"]
        else:
            faults.add(UserError(f'--benchmark takes TASK=OWNER/DATASET[:TASK_ID], found "{shortened(text)}"'))
    faults.check()
    return found


def _sources(sources: list[str], out: Path | None) -> tuple[Trials, Path | None]:
    """All trials by id with their folders, and where to write, which `out` is not if it holds the results of an id."""
    from pet_bench.results import store

    faults = Faults()
    trials: Trials = {}
    home = out if out and out.is_dir() and any(store.find(one, [out]) for one in sources if "/" not in one) else None
    for one in sources:
        with faults:
            results, folder = _find(one, [home] if home else store.known_folders())
            if not results:
                raise UserError(f'"{one}" has no results in "{folder}"')
            trials |= {id: (result, folder) for id, result in results.items() if id not in trials}
    faults.check()
    return trials, None if home else out


def _write_files(
    trials: Trials, out: Path | None, format: ExportFormat, files_of: Callable[..., dict[str, str]]
) -> None:
    """Everything is made before anything is written; all trials that cannot be are named together."""
    from collections import Counter

    from pet_bench.files import write_text

    faults, files = Faults(), []
    for result, folder in trials.values():
        with faults:
            target = out or folder / "report" / format.value
            files += [(target, name, text) for name, text in files_of(result, folder).items()]
    faults.check()
    for target, name, text in files:
        with writing("--out FOLDER writes to another folder"):
            write_text(target / name, text)
    for target, count in Counter(target for target, *_ in files).items():
        print(f"wrote {count} file{'s' * (count != 1)} to {target}")


def _peft(result: TrialResult, folder: Path) -> dict[str, str]:
    from pet_bench.results.exchange.names import experiment
    from pet_bench.results.exchange.peft import to_peft

    text = json.dumps(to_peft(result), indent=2, ensure_ascii=False, allow_nan=False)
    return {f"{experiment(result).replace('/', '--')}.json": text + "\n"}


def _eval_results(result: TrialResult, folder: Path, benchmarks: dict[str, str], source: str | None) -> dict[str, str]:
    from pet_bench.files import dump_yaml
    from pet_bench.results.exchange.eval_results import to_eval_results
    from pet_bench.results.exchange.names import experiment

    entries = to_eval_results(result, benchmarks, source)
    return {f"{experiment(result).replace('/', '--')}.yaml": dump_yaml(entries, allow_unicode=True)}


def _lmms_eval(result: TrialResult, folder: Path, data: Path | None, read: dict[str, list[Example]]) -> dict[str, str]:
    """read: the examples of each task as its trials read it, kept from one trial to the next."""
    from pet_bench.data.reading import build_tasks, data_root
    from pet_bench.results.exchange import lmms_eval
    from pet_bench.spec import Runtime, TrialSpec

    spec, said, files = TrialSpec.from_dict(result.spec), {}, {}
    if not result.metrics:
        raise UserError(f"{result.id} has no scores")
    root = data_root(spec.suite, Runtime(folder, data))
    start = f"{lmms_eval.model_name(result)}/{lmms_eval.date_of(result)}"
    for task in build_tasks(spec.tasks, spec.protocol):
        if (key := repr((spec.suite, task))) not in read:
            read[key] = task.examples(root, "test")
        said[task.name] = lmms_eval.samples(result, task.name, read[key], folder)
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in said[task.name])
        files[f"{start}_samples_{task.name}.jsonl"] = "".join(lines)
    text = json.dumps(lmms_eval.results(result, said), indent=2, ensure_ascii=False, allow_nan=False)
    return {f"{start}_results.json": text + "\n"} | files


def _models(trials: Trials, out: Path | None, format: ExportFormat, task: str | None) -> None:
    """A folder per trial; those that cannot be are told together, once the others are written."""
    from pet_bench.results.exchange.names import experiment
    from pet_bench.trial.exported import write_adapter, write_merged
    from pet_bench.trial.loaded import load_trial

    faults, write = Faults(), partial(write_merged, task=task) if format == ExportFormat.MERGED else write_adapter
    for result, folder in trials.values():
        target = (out or folder / "report" / format.value) / experiment(result).replace("/", "--")
        with faults, writing("--out FOLDER writes to another folder"):
            if target.is_dir() and any(target.iterdir()):
                raise UserError(f'"{target}" is not empty: remove it, or write to another folder with --out')
            write(load_trial(folder / f"{result.id}.json"), target)
            print(f"wrote {target}")
    faults.check()


def _model_index(trials: Trials, out: Path | None) -> None:
    import sys

    from pet_bench.files import dump_yaml, write_text
    from pet_bench.results.exchange.model_index import to_model_index

    scored = [result for result, _ in trials.values() if result.metrics]
    if not scored:
        raise UserError(f"none of {len(trials)} trials has scores")
    index = {"model-index": to_model_index(scored)}
    if out and out.suffix == ".json":
        text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    else:
        text = dump_yaml(index, allow_unicode=True)
    if left := len(trials) - len(scored):
        print(f"{left} without scores {'is' if left == 1 else 'are'} left out", file=sys.stderr)
    if out:
        with writing("--out writes to another file"):
            write_text(out, text)
        print(f"wrote {out}")
    else:
        sys.stdout.write(text)


def _find(source: str, folders: list[Path]) -> tuple[dict[str, TrialResult], Path]:
    """Results by id, and their folder: one trial's, by an id in `folders`, those of a grid's trials, or a folder's."""
    from pet_bench.files import is_folder
    from pet_bench.grid.plan.spec import shipped
    from pet_bench.results import store

    if source in shipped() or Path(source).suffix in (".yaml", ".yml"):
        trials, folder = trials_of(source, None)
        ids = {trial.id for trial in trials}
        return {id: result for id, result in store.load_all(folder).items() if id in ids}, folder
    if path := store.find(source, folders):
        return {path.stem: store.load(path)}, path.parent
    for folder in (Path(source), Path("results") / source):
        if is_folder(folder):
            return store.load_all(folder), folder
    raise UserError(
        f"\"{source}\" is no grid (a file or a shipped one's name), no results folder and no trial (its result's path, "
        "or the first 4 digits or more of an id in results/*/)"
    )
