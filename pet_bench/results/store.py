"""Result files: written atomically, read strictly, never deleted.

A folder of results holds `<id>.json` per trial, `<id>/` with what belongs to it (`predictions.<task>.jsonl.gz`,
`adapter.safetensors`, `frozen.safetensors`) and `grid.yaml`, a copy of the grid. Every `*.json` directly in the folder
is a result. While a trial runs, or where it was cut off, `<id>/` also holds a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pet_bench.errors import Faults, UserError
from pet_bench.files import is_file, read_json, write_text
from pet_bench.results import aliases, dropped
from pet_bench.results.aliases import Results
from pet_bench.results.consistency import contradictions
from pet_bench.results.plugins import codes
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import LATER, SCHEMA_VERSION, Run, Status, TrialResult
from pet_bench.results.upgrade import upgrade
from pet_bench.spec import TrialSpec

if TYPE_CHECKING:
    import pandas as pd

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
    """A result from plain data of any schema version so far.

    Raises UserError, in which it is called `where`, for what is no result and for all that contradicts itself in one.
    """
    result, faults = _examined(data, where)
    if faults:
        raise UserError(*faults)
    return result


def _examined(data: Any, where: str) -> tuple[TrialResult, list[str]]:
    """A result, and what in it is missing or contradicts the rest; raises UserError for what is no result."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise UserError(f"{where} is not a trial's: its schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise UserError(f"{where} has schema version {version}, this pet-bench reads up to {SCHEMA_VERSION}")
    data = upgrade(data)
    faults = [f"{where}: {key} is missing" for key in TrialResult.model_fields if key not in {*data, *LATER}]
    try:
        result = TrialResult.model_validate(data)
    except ValidationError as error:
        raise UserError.many([*faults, *(_line(where, fault) for fault in error.errors())]) from None
    return result, faults + [f"{where}: {fault}" for fault in contradictions(result)]


def _line(where: str, fault: ErrorDetails) -> str:
    place, given = ".".join(map(str, fault["loc"])), repr(fault["input"])
    return f"{where} is not valid: {place}: {fault['msg']}, found {given if len(given) <= 60 else given[:60] + '…'}"


def examine(path: Path) -> tuple[TrialResult, list[str]]:
    """One result, whatever it says, and all that cannot be true of it, a line each that names the file.

    Raises UserError for a file that is no result. Only for those who look for faults; others `load`.
    """
    what = f'result "{path}"'
    result, faults = _examined(read_json(path, what), what)
    return result, faults + [f"{what} says it is trial {result.id}"] * (result.id != path.stem)


def load(path: Path) -> TrialResult:
    """Read one result: the one way in, for whoever works with it.

    Raises UserError naming a file that is not a whole and valid one, or that contradicts itself, a line per fault.
    """
    result, faults = examine(path)
    if faults:
        raise UserError(*faults)
    return result


def files(out: Path) -> list[Path]:
    """The results of a folder, readable or not."""
    return sorted(Path(out).glob("*.json"))


def scan(out: Path) -> tuple[Results, list[UserError]]:
    """All valid results of a folder by id, and a fault for each file that is not one."""
    results, faults = Results(), []
    try:
        results.aliases = aliases.read(out)
    except UserError as fault:
        faults.append(fault)
    for path in files(out):
        try:
            results[path.stem] = load(path)
        except UserError as fault:
            faults.append(fault)
    return results, faults


def load_all(out: Path) -> Results:
    """All results of a folder by id, and by those of the trials that they stand for (`results.aliases`).

    Raises UserError naming every file that is not a valid one (`load`).
    """
    results, faults = scan(out)
    if faults:
        raise UserError.many(faults)
    return results


def finished(out: Path, also: Collection[Status] = ()) -> set[str]:
    """Ids of the trials that need not run again: the done and the suspect ones, and those with a status in `also`."""
    results = load_all(out)
    return {id for id in (*results, *results.aliases) if id in results and results[id].status in (*FINISHED, *also)}


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

    A file in its place that is no valid result is kept as `<id>.json.unreadable`. Raises UserError for a result that
    contradicts itself, which nobody could `load`.
    """
    if faults := contradictions(result):
        raise UserError(*(f"trial {result.id}: {fault}" for fault in faults))
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


def collect(
    folders: Iterable[Path], loaded: Mapping[Path, Results] | None = None
) -> dict[str, tuple[TrialResult, Path]]:
    """The results of several folders by id, each with the folder that it is from.

    A trial that several have is taken from the one where it is worth most (`rank`), of equals the first. loaded: what
    `load_all` gave of some of them. Raises UserError naming every unreadable file.
    """
    results: dict[str, tuple[TrialResult, Path]] = {}
    known, faults = loaded or {}, Faults()
    for folder in folders:
        with faults:
            for id, result in (known[folder] if folder in known else load_all(folder)).items():
                if id not in results or rank(result) > rank(results[id][0]):
                    results[id] = result, folder
    faults.check()
    return results


def find(name: str, folders: Iterable[Path], beside: str | None = None) -> Path | None:
    """A trial's result by path, or by id or the beginning of one (4 hex digits or more) in some folders.

    Of several copies of one trial, for grids share trials, that measured the same (`difference`) the newest, and with
    `beside` one that has a file of that name in its own folder. None where `name` is nothing of the kind or nothing is
    found; raises UserError where it may be several trials, or one that was measured differently.
    """
    if Path(name).suffix == ".json" or "/" in name:
        path = Path(name).with_suffix(".json")  # or its folder, as a shell completes it
        return path if is_file(path) else None
    if not re.fullmatch("[0-9a-f]{4,12}", name):
        return None
    paths = sorted({path for folder in folders for path in _named(name, folder)})
    if len(paths) < 2:
        return paths[0] if paths else None
    which, why = f'"{name}" may be {", ".join(map(str, paths))}', ""
    if len({path.name for path in paths}) == 1:
        copies = {path: load(path) for path in paths if not beside or (path.with_suffix("") / beside).is_file()}
        copies = copies or {path: load(path) for path in paths}
        (first, *others) = copies.values()
        if not (why := next(filter(None, (difference(first, other) for other in others)), "")):
            return max(copies, key=lambda path: copies[path].provenance.finished)
    raise UserError(f"{which}{f' (they differ in {why})' if why else ''}: give one of these paths")


def _named(name: str, folder: Path) -> Iterator[Path]:
    """The results in a folder of the trials whose ids begin so, and what stands for those that have none."""
    yield from (own := set(folder.glob(f"{name}*.json")))
    for new, alias in aliases.read(folder).items():
        stands = folder / f"{alias.old}.json"
        if new.startswith(name) and folder / f"{new}.json" not in own and stands.is_file():
            yield stands


MEASURED = {"metrics", "breakdowns", "average", "parameters", "behaviour", "selected"}
SHARES = {"parts", "stacks"}  # of parameters; results of before do not have them


def difference(one: TrialResult, other: TrialResult) -> str:
    """`metrics.vqa.accuracy.value: 50.0 and 60.0`: where two results of a trial measured different things, or "".

    What it cost, and the way to it, differs from run to run.
    """
    ours, theirs = (
        _flat(result.model_dump(include=MEASURED, exclude={"parameters": SHARES})) for result in (one, other)
    )
    key = next((key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)), None)
    return "" if key is None else f"{key}: {ours.get(key)} and {theirs.get(key)}"


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {place: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{place}.{key}".lstrip(".")).items()}


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
    "eval_seconds", "peak_memory_bytes", "examples_per_second", "steps", "adapter_bytes", "accumulation", "frozen",
    "resumed", "notes", "dropped", "commit", "dirty", "data", "plugins", "device", "error", "scope",
    "p99_memory_bytes", "latency_seconds", "flops", "merged_latency_seconds", "merged_flops", "forgetting",
    "forgetting_tasks", "forgetting_text",
]  # fmt: skip


def scope_of(result: TrialResult) -> str:
    """`language adapted, projector trained, vision frozen`.

    Nothing where there is nothing to choose: the method was given no scope, and the model has no tower.
    """
    parts = result.parameters.parts if result.parameters else {}
    told = "vision" in parts or result.spec["method"].get("scope")
    return ", ".join(f"{part} {share.state}" for part, share in parts.items()) if told else ""


def taken(result: TrialResult) -> dict[str, float]:
    """What an example takes to be answered, the mean over tasks; merged, where all of them were."""
    tasks = [task.model_dump() for task in result.inference.values()]
    keys = ("latency_seconds", "flops", "merged_latency_seconds", "merged_flops")
    return {key: sum(t[key] for t in tasks) / len(tasks) for key in keys if tasks and all(key in t for t in tasks)}


def forgot(result: TrialResult) -> dict[str, Any]:
    """The loss a token that was added on text (`forgetting`), as in peft's method comparison, and on held-out tasks,
    the mean over them (`forgetting_tasks`); `forgetting_text`: which text and tasks these are."""
    more = {kind: losses.after - losses.before for kind, losses in result.forgetting.items()}
    text = {"forgetting": more.pop("text")} if "text" in more else {}
    tasks = {"forgetting_tasks": sum(more.values()) / len(more)} if more else {}
    which = ", ".join(f"{kind} {losses.text}" for kind, losses in result.forgetting.items())
    return text | tasks | ({"forgetting_text": which} if which else {})


def to_frame(results: Iterable[TrialResult], missing: Iterable[TrialSpec] = ()) -> pd.DataFrame:
    """Tidy results: one row per trial × task × metric, one row without a task for a trial that has no scores.

    Trials of `missing` have the status "missing". `setup` is equal for trials that differ only in their seed.
    `resumed`: how often it was taken up again. `dropped`: examples left out for want of a feature, in words. `scope`:
    what became of the parts of the model, in words (`scope_of`). `error`: also why it is suspect. What an answer takes
    and what was forgotten: see `taken` and `forgot`.
    """
    import pandas as pd  # half a second, which `status` has no use for

    rows = []
    for result in results:
        row: dict[str, Any] = {
            "id": result.id,
            "status": result.status,
            "error": result.error,
            "average": result.average,
        }
        row |= base(result.spec)
        row |= result.provenance.model_dump(include={"commit", "dirty", "data", "device"})
        row |= {"plugins": codes(result.provenance.plugins), "scope": scope_of(result)}
        row |= {"accumulation": result.run.accumulation, "resumed": len(result.run.resumed)}
        row["frozen"] = result.spec["recipe"].get("frozen", "float32")
        row |= {"notes": "; ".join(result.run.notes), "dropped": dropped.summary(result.dropped)}
        row |= result.parameters.model_dump(exclude={"groups", *SHARES}) if result.parameters else {}
        row |= result.cost.model_dump() if result.cost else {}
        row |= taken(result) | forgot(result)
        scores = [
            {"task": task, "metric": metric, "primary": first == 0, **score.model_dump()}
            | {"options": ", ".join(f"{key} {value}" for key, value in score.options.items())}
            for task, metrics in result.metrics.items()
            for first, (metric, score) in enumerate(metrics.items())
        ]
        rows += [row | score for score in scores or [{}]]
    rows += [{"id": spec.id, "status": "missing", **base(spec.to_dict())} for spec in missing]
    return pd.DataFrame(rows, columns=COLUMNS)
