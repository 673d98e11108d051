"""Results and predictions, for every command that reads them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzzing import mutations
from fuzzing.case import Case, Mutation, Reader, product, sound
from fuzzing.mutations import Rule

KIND, PREDICTED = "results", "predictions"
PYTHON = frozenset({1})  # how a script ends
RULES = [
    Rule("dropped", "dropped", "either"),
    Rule("predictions.*", "dropped", "either"),  # they were not kept
    Rule("error", "*", "refuse"),
    Rule("provenance.commit", "null", "either"),
    Rule("provenance.dirty", "null", "either"),
    Rule("provenance.threads", "null", "either"),
    Rule("provenance.data", "null", "either"),
    Rule("provenance.device", "*", "either"),
    Rule("provenance.version", "[!nbl]*", "either"),
    Rule("provenance.packages*", "*", "either"),
    Rule("provenance.[cdt]*", "dropped", "either"),
    Rule("run.peak_memory_bytes", "null", "either"),
    Rule("run*", "dropped", "either"),
    Rule("metrics.*.*.majority", "null", "either"),
    Rule("metrics.*.*.majority", "dropped", "either"),
    Rule("metrics.*.*.options*", "dropped", "either"),
    Rule("metrics.*.*.options", "junk", "refuse"),
    Rule("metrics.*.*.options*", "empty", "either"),
    Rule("metrics.*.*.options*", "renamed", "either"),
    Rule("metrics.*.*.options.*", "[ls]*", "either"),
    Rule("metrics.*.*.split", "*", "either"),
    Rule("metrics.vqa.accuracy*", "dropped", "either"),  # what is then the first is equal
    Rule("metrics.vqa.accuracy*", "renamed", "either"),
    Rule("metrics.vqa.label-score", "dropped", "either"),
    Rule("metrics.vqa.label-score", "renamed", "either"),
    Rule("metrics.nlvr2.consistency", "dropped", "either"),
    Rule("metrics.nlvr2.consistency", "renamed", "either"),
    Rule("breakdowns", "dropped", "either"),
    Rule("breakdowns", "empty", "either"),
    Rule("breakdowns.*", "dropped", "either"),
    Rule("breakdowns.*", "renamed", "either"),
    Rule("breakdowns.*", "empty", "either"),
    Rule("behaviour*", "dropped", "either"),
    Rule("curve.*.loss", "null", "either"),
    Rule("curve.*.loss", "negative", "either"),
    Rule("curve.*.loss", "dropped", "either"),
    Rule("curve.*.task", "null", "either"),
    Rule("curve.*.task", "dropped", "either"),
    Rule("curve.*.split", "*", "either"),
    Rule("curve.*.metrics*", "dropped", "either"),
    Rule("curve.*.metrics*", "renamed", "either"),
    Rule("curve.*.metrics", "empty", "either"),
    Rule("selected", "dropped", "either"),
    Rule("spec.label", "dropped", "either"),
    Rule("spec.label", "[elns]*", "either"),
    Rule("spec.recipe.*", "dropped", "either"),  # if it is the default, the trial is the same
    Rule("spec.control", "dropped", "either"),
    Rule("spec.protocol", "dropped", "either"),
    Rule("spec.method.options", "null", "refuse"),
    Rule("parameters.groups.*", "renamed", "either"),
    Rule("cost.*", "negative", "refuse"),
]
VALUES = {"metrics.*.accuracy.value": {"more than all": 250.0}, "breakdowns.vqa.*.value": {"more than all": 250.0}}


def _edit(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        result = json.loads(path.read_text())
        change(result)
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    return made


def _set(place: str, value: Any) -> Callable[[Path], None]:
    """value: what is put there, or a function of what is."""

    def change(result: dict) -> None:
        *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        for key in path:
            result = result[key]
        result[last] = value(result[last]) if callable(value) else value

    return _edit(change)


def _swap(result: dict) -> None:
    curve = result["curve"]
    curve[0], curve[-1] = curve[-1], curve[0]


def _meaning() -> list[Mutation]:
    """What is a valid record and does not add up."""
    changes = {
        "average off": _set("average", lambda value: value + 1),
        "percent off": _set("parameters.percent", lambda value: value * 2),
        "trainable off": _set("parameters.trainable", lambda value: value + 1),
        "more than all trainable": _set("parameters.total", 5),
        "group off": _set("parameters.groups.visual", lambda value: value + 1),
        "counted too many": _set(
            "breakdowns.vqa.length", lambda parts: {key: part | {"n": 99} for key, part in parts.items()}
        ),
        "counted one less": _set("metrics.nlvr2.accuracy.n", lambda value: value - 1),
        "score off": _set("metrics.nlvr2.accuracy.value", lambda value: value + 1),
        "curve out of order": _edit(_swap),
        "curve beyond the end": _set("curve.0.step", 10**6),
        "steps off": _set("cost.steps", 1),
        "another seed": _set("spec.seed", 7),
        "another method": _set("spec.method.name", "adapter"),
        "another backbone": _set("spec.backbone", "mini-t5"),
        "another control": _set("spec.control", "noise"),
        "another id": _set("id", "0123456789ab"),
        "failed without a reason": _set("status", "failed"),
        "unknown status": _set("status", "fine"),
        "done with an error": _set("error", "it broke"),
        "a task more": _set("spec.tasks", lambda tasks: [*tasks, "gqa"]),
        "a task less": _set("spec.tasks", lambda tasks: tasks[1:]),
        "a task of a number": _set("spec.tasks", lambda tasks: [*tasks, 5]),
        "ended before it began": _set("provenance.finished", "1999-01-01T00:00:00+00:00"),
        "a time of no zone": _set("provenance.finished", "2030-01-01T00:00:00"),
        "no such day": _set("provenance.started", "2026-02-31T00:00:00+00:00"),
        "schema of tomorrow": _set("schema_version", 99),
        "schema zero": _set("schema_version", 0),
        "predictions elsewhere": _set("predictions.nlvr2", "../../etc/passwd"),
        "predictions of another task": _edit(
            lambda result: result["predictions"].update(nlvr2=result["predictions"]["vqa"])
        ),
        "no predictions of a task": _edit(lambda result: result["predictions"].pop("vqa")),
        "no scores of a task": _edit(lambda result: result["metrics"].pop("vqa")),
        "a path": _set("run.notes", ["found in /home/me/data/x.json"]),
    }
    return [Mutation(name, change) for name, change in changes.items()]


PREDICTION_RULES = [
    Rule("prediction", "[els]*", "either"),
    Rule("prediction", "surrogate", "refuse"),
    Rule("id", "surrogate", "refuse"),
    Rule("id", "[els]*", "either"),  # only the data know which ids there are
]


def cases(base: Path) -> Iterator[Case]:
    folder, data = base / "results", ("--data", "WORK/data")
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    id = next(
        key for key, one in found.items() if one["spec"]["method"]["name"] == "vl-pet-large" and not one["spec"]["seed"]
    )
    other = next(key for key in found if key != id)
    file = f"results/{id}.json"
    writes = ("results/report",)
    readers = [
        Reader("check", ("results", "check", "WORK/results")),
        Reader("status", ("status", "WORK/results"), said=("unreadable",)),
        Reader("show", ("show", f"WORK/{file}")),
        Reader("compare", ("compare", "lora", "vl-pet-large", "--out", "WORK/results"), cost=2),
        Reader("export-peft", ("export", "WORK/results", "--format", "peft"), writes=writes),
        Reader("export-model-index", ("export", "WORK/results", "--format", "model-index")),
        Reader("merge", ("merge", "WORK/results", "--out", "WORK/merged"), writes=("merged",)),
        Reader("score", ("score", f"WORK/{file}", *data)),
        Reader("report", ("report", "WORK/results"), writes=writes, cost=20),
        Reader("load_results", ("load_results", "WORK/results"), codes=PYTHON),
        Reader("load_curves", ("load_curves", "WORK/results"), codes=PYTHON),
    ]
    bases = ("results", "data")
    yield from sound(KIND, bases, readers)
    changes = [
        *mutations.text(),
        *_meaning(),
        *mutations.tree(found[id], RULES, VALUES),
        Mutation("another's", lambda path: path.write_bytes((folder / f"{other}.json").read_bytes())),
    ]
    yield from product(KIND, bases, file, changes, readers, place="file")

    options = ("--task", "vqa", "--examples", "3")
    readers = [
        Reader("check", ("results", "check", "WORK/results")),
        Reader("compare", ("compare", "lora", "vl-pet-large", "--out", "WORK/results", *options), cost=2),
        Reader("score", ("score", f"WORK/{file}", *data)),
        Reader("show", ("show", f"WORK/{file}"), lenient=True, understood=lambda work, out: ""),  # it says their size
        Reader("merge", ("merge", "WORK/results", "--out", "WORK/merged"), writes=("merged",), lenient=True),
        Reader("load_predictions", ("load_predictions", "WORK/results"), codes=PYTHON),
        Reader("html", ("report", "WORK/results", "--html", *data), writes=writes, cost=40),
    ]
    yield from sound(PREDICTED, bases, readers)
    name = found[id]["predictions"]["vqa"]
    rows = [json.loads(line) for line in gzip.decompress((folder / name).read_bytes()).splitlines()]

    def again(change: Callable[[list], list]) -> Callable[[Path], None]:
        return mutations.written("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in change(rows)))

    changes = [
        *mutations.text(),
        *mutations.flipped("refuse", (0.0, 0.3, 0.6, 0.97)),
        *mutations.rows(rows, 0, PREDICTION_RULES),
        Mutation("one less", again(lambda rows: rows[1:])),
        Mutation("other order", again(lambda rows: rows[::-1]), "either"),
    ]
    yield from product(PREDICTED, bases, f"results/{name}", changes, readers, place="vqa")
    scores = [
        Mutation("scores off", again(lambda rows: [row | {"score": 1.0} for row in rows])),
        Mutation("a score too large", again(lambda rows: [rows[0] | {"score": 700.0}, *rows[1:]])),
        Mutation("no scores", again(lambda rows: [row | {"score": None} for row in rows])),
    ]
    using = [reader for reader in readers if reader.name != "score"]  # that scores what was predicted anew
    yield from product(PREDICTED, bases, f"results/{name}", scores, using, place="vqa")
    asking = [reader for reader in readers if reader.name != "load_predictions"]  # that takes them for not kept
    yield from product(PREDICTED, bases, f"results/{name}", [mutations.missing()], asking, place="vqa")
    ids = Mutation("other ids", again(lambda rows: [row | {"id": f"x{row['id']}"} for row in rows]))
    knowing = [reader for reader in readers if reader.name in ("score", "compare", "html")]
    yield from product(PREDICTED, bases, f"results/{name}", [ids], knowing, place="vqa")
