"""Result files: written atomically, read strictly, never deleted.

A folder of results holds `<id>.json` per trial, `<id>/` with what belongs to it (`predictions.jsonl`,
`adapter.safetensors`) and `grid.yaml`, a copy of the grid. Every `*.json` directly in the folder is a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from pet_bench.errors import UserError
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import SCHEMA_VERSION, Status, TrialResult
from pet_bench.spec import TrialSpec


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: to a temporary file beside it, flushed to disk, then renamed over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)  # mkstemp is private to its user; a result is as readable as any other file
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def check_writable(out: Path) -> None:
    """Make the folder; raises UserError where results could not be written to it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(f'results folder "{out}" cannot be written to: {error.strerror or error}') from error


def load(path: Path) -> TrialResult:
    """Read one result; raises UserError naming a file that is not a whole and valid one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(found, int) and found > SCHEMA_VERSION:
            raise UserError(f'result "{path}" has schema version {found}, this pet-bench reads up to {SCHEMA_VERSION}')
        result = TrialResult.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f'result "{path}" is not valid: {place}: {first["msg"]}') from None
    except (OSError, ValueError) as error:
        raise UserError(f'result "{path}" cannot be read (half-written?): {error}') from error
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


def finished(out: Path) -> set[str]:
    """Ids of the trials that need not run again."""
    return {id for id, result in load_all(out).items() if result.status == "done"}


def save(result: TrialResult, out: Path) -> Path:
    """Write `<out>/<id>.json` atomically. A done result is never replaced by one that is not.

    An unreadable file in its place is kept as `<id>.json.unreadable`.
    """
    path = Path(out) / f"{result.id}.json"
    if path.exists():
        try:
            if load(path).status == "done" and result.status != "done":
                return path
        except UserError:
            path.replace(path.with_suffix(".json.unreadable"))
    write_text(path, result.model_dump_json(indent=1) + "\n")
    return path


def save_failure(spec: TrialSpec, out: Path, error: str, *, status: Status = "failed", started: str) -> TrialResult:
    """Record that a trial failed, with the first line of the reason."""
    line = next((line.strip() for line in error.splitlines() if line.strip()), "no message")
    result = TrialResult(id=spec.id, status=status, error=line, spec=spec.to_dict(), provenance=provenance(started))
    save(result, out)
    return result


def merge(sources: Iterable[Path], out: Path) -> list[str]:
    """Copy the results of several folders into one; a done trial wins over any other, else the first.

    Returns the ids copied. Raises UserError for unreadable files, and where the same finished trial scored
    differently in two folders.
    """
    known, faults, copies = load_all(out) if Path(out).is_dir() else {}, [], {}
    for source in map(Path, sources):
        if not source.is_dir():
            faults.append(f'results folder "{source}" does not exist')
            continue
        results, unreadable = scan(source)
        faults += unreadable
        for id, result in results.items():
            held = known.get(id)
            if held is None or (held.status != "done" and result.status == "done"):
                known[id], copies[id] = result, source
            elif held.status == result.status == "done" and held.metrics != result.metrics:
                faults.append(f'trial {id} scored differently in "{copies.get(id, out)}" and in "{source}"')
    if faults:
        raise UserError.many(faults)
    check_writable(Path(out))
    for id, source in copies.items():
        if (source / id).is_dir():
            shutil.copytree(source / id, Path(out) / id, dirs_exist_ok=True)
        save(known[id], out)
    return list(copies)


def _setup(spec: dict[str, Any]) -> str:
    """Equal for trials that differ in nothing but their seed."""
    content = {key: value for key, value in spec.items() if key not in ("seed", "label")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _base(spec: dict[str, Any]) -> dict[str, Any]:
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
    "eval_seconds", "peak_memory_bytes", "examples_per_second", "steps", "adapter_bytes", "commit", "dirty",
    "data", "device", "error",
]  # fmt: skip


def to_frame(results: Iterable[TrialResult], missing: Iterable[TrialSpec] = ()) -> pd.DataFrame:
    """Tidy results: one row per trial × task × metric, one row without a task for a trial that has no scores.

    Trials of `missing` have the status "missing". `setup` is equal for trials that differ only in their seed.
    """
    rows = []
    for result in results:
        row = {"id": result.id, "status": result.status, "error": result.error, "average": result.average}
        row |= _base(result.spec)
        row |= result.provenance.model_dump(include={"commit", "dirty", "data", "device"})
        row |= result.parameters.model_dump(exclude={"groups"}) if result.parameters else {}
        row |= result.cost.model_dump() if result.cost else {}
        scores = [
            {"task": task, "metric": metric, "primary": first == 0, **score.model_dump()}
            | {"options": ", ".join(f"{key} {value}" for key, value in score.options.items())}
            for task, metrics in result.metrics.items()
            for first, (metric, score) in enumerate(metrics.items())
        ]
        rows += [row | score for score in scores or [{}]]
    rows += [{"id": spec.id, "status": "missing", **_base(spec.to_dict())} for spec in missing]
    return pd.DataFrame(rows, columns=COLUMNS)
