"""`pet-bench export`: results in the formats of others."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_bench.cli.shared import Plugins, load_plugins, trials_of, writing
from pet_bench.errors import Faults, UserError

if TYPE_CHECKING:
    from pet_bench.results.schema import TrialResult


class ExportFormat(StrEnum):
    PEFT, MODEL_INDEX = "peft", "model-index"


def export(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="A grid, a results folder, or a trial by path or id.")
    ],
    format: Annotated[ExportFormat, typer.Option(help="peft: a file per trial. model-index: one document for all.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="peft: folder, by default report/peft of each results folder. "
            "model-index: file, JSON if it ends so, else YAML; by default printed as YAML. "
            "Or the folder of an id's results."
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Export results to the JSON of peft's method comparison, or to the model-index of Hugging Face's model cards.

    peft: what is not measured here is null, and scores per task stand among the metrics. model-index: trials without
    scores are left out.
    """
    import sys

    from pet_bench.results import store

    load_plugins(plugin)
    faults = Faults()
    trials: dict[str, tuple[TrialResult, Path]] = {}
    home = out if out and out.is_dir() and any(store.find(one, [out]) for one in source if "/" not in one) else None
    out = None if home else out
    for one in source:
        with faults:
            results, folder = _find(one, [home] if home else store.known_folders())
            if not results:
                raise UserError(f'"{one}" has no results in "{folder}"')
            trials |= {id: (result, folder) for id, result in results.items() if id not in trials}
    faults.check()
    if out and (place := out if format == ExportFormat.PEFT else out.parent).resolve() in {
        folder.resolve() for _, folder in trials.values()
    }:
        raise UserError(f'--out "{out}" is beside results: every JSON file in "{place}" is taken for a result')
    if format == ExportFormat.PEFT:
        _write_peft(trials, out)
        return

    from pet_bench.files import dump_yaml, write_text
    from pet_bench.results.exchange import to_model_index

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


def _write_peft(trials: dict[str, tuple[TrialResult, Path]], out: Path | None) -> None:
    from collections import Counter

    from pet_bench.files import write_text
    from pet_bench.results.exchange import experiment, to_peft

    written: Counter[Path] = Counter()
    for result, folder in trials.values():
        target = out or folder / "report" / "peft"
        text = json.dumps(to_peft(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with writing("--out FOLDER writes to another folder"):
            write_text(target / f"{experiment(result).replace('/', '--')}.json", text)
        written[target] += 1
    for target, count in written.items():
        print(f"wrote {count} file{'s' * (count != 1)} to {target}")
