"""Result files: written atomically, read strictly, never deleted.

A folder of results holds `<id>.json` per trial, `<id>/` with what belongs to it (`predictions.<task>.jsonl.gz`,
`adapter.safetensors`) and `grid.yaml`, a copy of the grid. Every `*.json` directly in the folder is a result. While a
trial runs, or where it was cut off, `<id>/` also holds a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from pet_bench.errors import Faults, UserError
from pet_bench.files import is_file, read_json, replacing, write_text
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import SCHEMA_VERSION, Run, Status, TrialResult
from pet_bench.results.upgrade import upgrade
from pet_bench.spec import TrialSpec

CHECKPOINT = "checkpoint.safetensors"
FINISHED = ("done", "suspect")
# no `and/or`, no `https://…`: a slash (or a drive) that begins a word, and another after it
ABSOLUTE = re.compile(r"(?<![\w./\\…])(?:~?/(?:[\w.+@-]+/)+|[A-Za-z]:\\(?:[\w.+@ -]+\\)*)(?=[\w.+@-])")


def check_writable(out: Path) -> None:
    """Make the folder; raises UserError where results could not be written to it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(f'results folder "{out}" cannot be written to: {error.strerror or error}') from error


def parse(data: Any, where: str) -> TrialResult:
    """A result from plain data of any schema version so far; raises UserError, in which it is called `where`."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise UserError(f"{where} is not a trial's: its schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise UserError(f"{where} has schema version {version}, this pet-bench reads up to {SCHEMA_VERSION}")
    try:
        return TrialResult.model_validate(upgrade(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where} is not valid: {place}: {first['msg']}") from None


def load(path: Path) -> TrialResult:
    """Read one result; raises UserError naming a file that is not a whole and valid one."""
    what = f'result "{path}"'
    result = parse(read_json(path, what), what)
    if result.id != path.stem:
        raise UserError(f'result "{path}" says it is trial {result.id}')
    return result


def scan(out: Path) -> tuple[dict[str, TrialResult], list[UserError]]:
    """All readable results of a folder by id, and a fault for each file that is not one."""
    results, faults = {}, []
    for path in sorted(Path(out).glob("*.json")):
        try:
            results[path.stem] = load(path)
        except UserError as fault:
            faults.append(fault)
    return results, faults


def load_all(out: Path) -> dict[str, TrialResult]:
    """All results of a folder by id; raises UserError naming every unreadable file."""
    results, faults = scan(out)
    if faults:
        raise UserError.many(faults)
    return results


def finished(out: Path, also: Collection[Status] = ()) -> set[str]:
    """Ids of the trials that need not run again: the done and the suspect ones, and those with a status in `also`."""
    return {id for id, result in load_all(out).items() if result.status in (*FINISHED, *also)}


def sweep(out: Path, id: str) -> None:
    """Remove what a process that was killed while it wrote for this trial left; nobody else may be writing for it."""
    for temporary in (*out.glob(f".{id}.json.*"), *(out / id).glob(".*")):
        if temporary.is_file():
            temporary.unlink()


def rank(result: TrialResult) -> int:
    """How much a result is worth: done > suspect with scores > suspect > stopped early > failed and out of memory."""
    return {"done": 4, "suspect": 3 if result.metrics else 2, "stopped_early": 1}.get(result.status, 0)


def save(result: TrialResult, out: Path) -> Path:
    """Write `<out>/<id>.json` atomically, but never over a result of a higher rank.

    An unreadable file in its place is kept as `<id>.json.unreadable`.
    """
    path = Path(out) / f"{result.id}.json"
    if path.exists():
        try:
            if rank(load(path)) > rank(result):
                return path
        except UserError:
            path.replace(path.with_suffix(".json.unreadable"))
    write_text(path, result.model_dump_json(indent=1) + "\n")
    return path


def save_failure(
    spec: TrialSpec, out: Path, error: str, *, status: Status = "failed", started: str, run: Run | None = None
) -> TrialResult:
    """Record that a trial failed, with the first line of the reason; folders in it are left out, as in any result."""
    line = next((line.strip() for line in error.splitlines() if line.strip()), "no message")
    result = TrialResult(
        id=spec.id, status=status, error=ABSOLUTE.sub("…/", line), spec=spec.to_dict(), provenance=provenance(started),
        run=run or Run(),
    )  # fmt: skip
    save(result, out)
    return result


def known_folders() -> list[Path]:
    """The folders in `results/`: where trials are looked for when nobody says where."""
    return sorted(path for path in Path("results").glob("*") if path.is_dir())


def collect(folders: Iterable[Path]) -> dict[str, tuple[TrialResult, Path]]:
    """The results of several folders by id, each with the folder that it is from.

    A trial that several have is taken from the one where it is worth most (`rank`), of equals the first. Raises
    UserError naming every unreadable file.
    """
    found, faults = {}, Faults()
    for folder in folders:
        with faults:
            for id, result in load_all(folder).items():
                if id not in found or rank(result) > rank(found[id][0]):
                    found[id] = result, folder
    faults.check()
    return found


def find(name: str, folders: Iterable[Path], beside: str | None = None) -> Path | None:
    """A trial's result by path, or by id or the beginning of one (4 hex digits or more) in some folders.

    None where `name` is nothing of the kind or nothing is found; raises UserError where several are. But grids share
    trials: of several results of one, the first that has a file called `beside` in its own folder will do.
    """
    if Path(name).suffix == ".json" or "/" in name:
        path = Path(name).with_suffix(".json")  # or its folder, as a shell completes it
        return path if is_file(path) else None
    if not re.fullmatch("[0-9a-f]{4,12}", name):
        return None
    found = sorted(path for folder in folders for path in folder.glob(f"{name}*.json"))
    if beside and len({path.name for path in found}) == 1:
        found = [path for path in found if (path.with_suffix("") / beside).is_file()][:1] or found
    if len(found) > 1:
        raise UserError(f'"{name}" may be {", ".join(map(str, found))}: give one of these paths')
    return found[0] if found else None


@dataclass(frozen=True)
class Merged:
    """What a merge did. copied: id → the folder it came from. present: ids whose results were there, no lesser ones.

    grid: whether the folder's `grid.yaml` is that of every source; None: it has none, for theirs are not all the same.
    """

    copied: dict[str, Path]
    present: tuple[str, ...]
    grid: bool | None


def merge(sources: Iterable[Path], out: Path) -> Merged:
    """Copy the results of several folders, and what belongs to them but for checkpoints, into one.

    Of several results of a trial the one of the highest rank is kept, of equals the one that is there, has scores and
    comes first, or else the newer. A trial's folder comes before its result, so that a merge that was cut off is
    completed by repeating it. Raises UserError, with nothing copied, for unreadable files and where the same
    trial scored differently in two folders.
    """
    sources, out = [Path(source) for source in sources], Path(out)
    known, faults, copies = load_all(out) if out.is_dir() else {}, [], {}
    present = set()
    for source in sources:
        if not source.is_dir():
            faults.append(f'results folder "{source}" does not exist')
            continue
        results, unreadable = scan(source)
        faults += unreadable
        for id, result in results.items():
            held, place = known.get(id), copies.get(id, out)
            if held and held.metrics and result.metrics and _scores(held) != _scores(result):
                faults.append(f'trial {id} scored differently in "{place}" and in "{source}": take one of them away')
            elif held is None or _better(result, held):
                known[id], copies[id] = result, source
            elif place is out:
                present.add(id)
    if faults:
        raise UserError.many(faults)
    check_writable(out)
    try:
        for id, source in copies.items():
            _copy_folder(source / id, out / id)
            save(known[id], out)
        return Merged(copies, tuple(sorted(present - copies.keys())), _merge_grids(sources, out))
    except OSError as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
        raise UserError(f'results cannot be copied to "{out}": {reason}') from error


def _better(result: TrialResult, held: TrialResult) -> bool:
    if rank(result) != rank(held) or held.metrics:
        return rank(result) > rank(held)
    return result.provenance.finished > held.provenance.finished


def _scores(result: TrialResult) -> str:
    return result.model_dump_json(include={"metrics"})


def _copy_folder(source: Path, target: Path) -> None:
    """Put a copy of `source` in the place of `target`; either may not be there. Cut off, it can be repeated."""
    staged, replaced = (target.with_name(f".{target.name}.{what}") for what in ("merging", "replaced"))
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    _clear_up(target)
    try:
        if source.is_dir():
            left_out = shutil.ignore_patterns(f"{CHECKPOINT}*", "*.lock", ".*")
            shutil.copytree(source, staged, ignore=left_out, copy_function=_copy_file)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    if target.exists():
        target.rename(replaced)
    if staged.exists():
        staged.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _clear_up(target: Path) -> None:
    """Remove what an earlier merge or write of `target` left beside it when it was cut off."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _copy_file(source: str, target: str) -> None:
    with replacing(Path(target)) as temporary:
        shutil.copyfile(source, temporary)


def _merge_grids(sources: list[Path], out: Path) -> bool | None:
    texts = {_read(source / "grid.yaml") for source in sources}
    common = texts.pop() if len(texts) == 1 else None
    if common and not (out / "grid.yaml").exists():
        _clear_up(out / "grid.yaml")
        write_text(out / "grid.yaml", common)
    kept = _read(out / "grid.yaml")
    return None if kept is None else kept == common


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _setup(spec: dict[str, Any]) -> str:
    """Equal for trials that differ in nothing but their seed."""
    content = {key: value for key, value in spec.items() if key not in ("seed", "label")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def base(spec: dict[str, Any]) -> dict[str, Any]:
    """What tells a trial from others in a frame."""
    return {
        "suite": spec["suite"],
        "backbone": spec["backbone"],
        "method": spec.get("label") or spec["method"]["name"],
        "control": spec.get("control", "none"),
        "seed": spec["seed"],
        "setup": _setup(spec),
    }


COLUMNS = [
    "id", "status", "suite", "backbone", "method", "control", "seed", "setup", "task", "metric", "primary",
    "value", "split", "n", "majority", "options", "average", "trainable", "total", "percent", "train_seconds",
    "eval_seconds", "peak_memory_bytes", "examples_per_second", "steps", "adapter_bytes", "accumulation", "resumed",
    "notes", "commit", "dirty", "data", "device", "error",
]  # fmt: skip


def to_frame(results: Iterable[TrialResult], missing: Iterable[TrialSpec] = ()) -> pd.DataFrame:
    """Tidy results: one row per trial × task × metric, one row without a task for a trial that has no scores.

    Trials of `missing` have the status "missing". `setup` is equal for trials that differ only in their seed.
    `resumed`: how often it was taken up again. `error`: also why it is suspect.
    """
    rows = []
    for result in results:
        row = {"id": result.id, "status": result.status, "error": result.error, "average": result.average}
        row |= base(result.spec)
        row |= result.provenance.model_dump(include={"commit", "dirty", "data", "device"})
        row |= {"accumulation": result.run.accumulation, "resumed": len(result.run.resumed)}
        row |= {"notes": "; ".join(result.run.notes)}
        row |= result.parameters.model_dump(exclude={"groups"}) if result.parameters else {}
        row |= result.cost.model_dump() if result.cost else {}
        scores = [
            {"task": task, "metric": metric, "primary": first == 0, **score.model_dump()}
            | {"options": ", ".join(f"{key} {value}" for key, value in score.options.items())}
            for task, metrics in result.metrics.items()
            for first, (metric, score) in enumerate(metrics.items())
        ]
        rows += [row | score for score in scores or [{}]]
    rows += [{"id": spec.id, "status": "missing", **base(spec.to_dict())} for spec in missing]
    return pd.DataFrame(rows, columns=COLUMNS)
