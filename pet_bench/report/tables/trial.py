"""One trial in full: what it is, how it ran, where it comes from, what it scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from pet_bench.grid.shown import COLOURS, duration
from pet_bench.report.tables.digits import signed, three
from pet_bench.results import evaluations, store
from pet_bench.results.dropped import summary
from pet_bench.results.plugins import codes, differences, running
from pet_bench.results.schema import TrialResult, shares
from pet_bench.spec import Recipe, plain


def trial_view(path: Path, commit: str | None = None) -> list[RenderableType]:
    """The result in `path` as tables for a terminal of 100 columns. commit: of the running code, where known."""
    result = store.load(path)
    color, spec = COLOURS[result.status], result.spec
    method = spec.get("label") or spec["method"]["name"]
    control = "" if spec["control"] == "none" else f", [bold]{spec['control']}[/bold] control"
    title = f"[bold]{escape(method)}[/bold] on {escape(spec['backbone'])}, for {spec['suite']}, seed {spec['seed']}"
    reason = f": {escape(result.error)}" if result.error else ""
    status = [f"[{color}]{result.status.replace('_', ' ')}[/{color}]{reason}"]
    about = Table(box=None, show_header=False, pad_edge=False)
    about.add_column(no_wrap=True)
    about.add_column(overflow="fold")
    rows = {
        "trial": [result.id],
        "status": status,
        "recipe": [_recipe(spec["recipe"])],
        "protocol": [
            f"{task}: {', '.join(f'{key} = {plain(value)}' for key, value in options.items())}"
            for task, options in spec["protocol"].items()
        ],
        "differences": [f"{name}: {state}" for name, state in result.behaviour.items()],
        "ran": list(_ran(result)),
        "notes": result.run.notes,
        "made": list(_made(result, commit)),
        "parameters": list(_parameters(result)),
        "parts": _shares(result, "parts"),
        "stacks": _shares(result, "stacks"),
        "tested": _tested(result),
        "tested also": evaluations.lines(path.with_suffix("")),
        "answers": list(_answers(result)),
        "forgetting": list(_forgetting(result)),
        "files": list(_files(path)),
    }
    for name, lines in rows.items():
        for index, line in enumerate(lines):
            about.add_row("" if index else f"[bold]{name}[/bold]", line if name == "status" else escape(line))
    views: list[RenderableType] = [title + control, "", about]
    views += [part for view in (_scores(result), _curve(result)) if view.row_count for part in ("", view)]
    trace = path.with_suffix("") / "traceback.txt"
    if result.status in ("failed", "oom") and trace.is_file():
        views += [
            "",
            f"[bold]traceback[/bold] ({escape(str(trace))})",
            escape(trace.read_text(errors="replace").rstrip()),
        ]
    return views


def size(number: float) -> str:
    """`512 B`, `103 KiB`, `711 MiB`, `2.3 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _recipe(recipe: dict[str, Any]) -> str:
    """What everybody asks for, and what else is not as published."""
    published = asdict(Recipe(lr=1.0))
    asked = ("lr", "epochs", "batch_size")
    changed = [key for key, value in recipe.items() if key not in asked and value != published.get(key)]
    return ", ".join(f"{key} = {plain(recipe[key])}" for key in [*asked, *changed]) + "; else as published"


def _ran(result: TrialResult) -> Iterator[str]:
    run, cost, device = result.run, result.cost, result.provenance.device
    if cost:
        yield (
            f"{cost.steps:,} updates in {duration(cost.train_seconds)} ({cost.examples_per_second:,.0f} examples/s), "
            f"evaluation {duration(cost.eval_seconds)}"
        )
    if threads := result.provenance.threads:
        device += f", {threads} thread{'s' * (threads != 1)}"
    if peak := cost.peak_memory_bytes if cost else run.peak_memory_bytes:
        device += f"{', ' * bool(device)}peak memory {size(peak)}"
    if cost and cost.p99_memory_bytes:
        device += f", 99th percentile {size(cost.p99_memory_bytes)}"
    if device:
        yield device
    if run.accumulation > 1:
        yield f"each batch in {run.accumulation} parts, their gradients added up"
    if run.gradient_checkpointing:
        yield "activations computed again in the backward pass"
    if run.compile:
        yield "updates compiled"
    if run.resumed:
        yield f"resumed at update {', '.join(f'{step:,}' for step in run.resumed)}"


def _made(result: TrialResult, commit: str | None) -> Iterator[str]:
    origin = result.provenance
    yield f"{origin.started} to {origin.finished}"
    at = f" at commit {origin.commit[:7]}" if origin.commit else ", commit unknown"
    yield f"pet-bench {origin.version}{at}{', with uncommitted changes' if origin.dirty else ''}"
    if commit and origin.commit and commit != origin.commit:
        yield f"made with another commit ({origin.commit[:7]}) than this code ({commit[:7]})"
    yield ", ".join(f"{name} {version}" for name, version in origin.packages.items())
    yield from (f"{', '.join(plugin.provides)}: {plugin}" for plugin in origin.plugins)
    yield from differences([codes(origin.plugins)], running())
    if origin.data:
        yield f"data {origin.data}"
    if result.dropped:
        yield f"examples left out, since a feature was missing: {summary(result.dropped)}"


def _parameters(result: TrialResult) -> Iterator[str]:
    if counts := result.parameters:
        width = max(map(len, counts.groups), default=0)
        for group, number in counts.groups.items():
            yield f"{group:{width}} {number:>11,}"
        yield f"{'trainable':{width}} {counts.trainable:>11,} of {counts.total:,} ({counts.percent:.2f} %)"


def _shares(result: TrialResult, of: str) -> list[str]:
    return shares(result.parameters.model_dump().get(of, {})) if result.parameters else []


def _tested(result: TrialResult) -> list[str]:
    if best := result.selected:
        return [f"update {best.step:,} (epoch {best.epoch:g}), the best by validation: {best.score:.2f}"]
    return ["the model after the last update"] if result.metrics else []


def _answers(result: TrialResult) -> Iterator[str]:
    """What an example of each task takes."""

    def amount(seconds: float, operations: float) -> str:
        return f"{three(seconds * 1e3)} ms and {three(operations / 1e6)} MFLOPs"

    for task, taken in result.inference.items():
        line = f"{task} {amount(taken.latency_seconds, taken.flops)} an example"
        if taken.merged_latency_seconds is not None and taken.merged_flops is not None:
            line += f", merged {amount(taken.merged_latency_seconds, taken.merged_flops)}"
        yield line


def _forgetting(result: TrialResult) -> Iterator[str]:
    for kind, losses in result.forgetting.items():
        yield f"{kind} {signed(losses.after - losses.before)} a token, from {losses.before:.3f} to {losses.after:.3f}"


def _files(path: Path) -> Iterator[str]:
    folder = path.with_suffix("")
    sizes = {path.name: path.stat().st_size}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        parts = [part for part in file.rglob("*") if part.is_file()] if file.is_dir() else [file]
        name = f"{folder.name}/{file.name}{'/' * file.is_dir()}"
        sizes[name] = sum(part.stat().st_size for part in parts)
    for name, total in sizes.items():
        yield f"{name:{max(map(len, sizes))}} {size(total):>8}"


def _scores(result: TrialResult) -> Table:
    table = Table(box=SIMPLE_HEAD, title="scores", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("task", "metric", "score", "majority", "examples", "split"):
        table.add_column(name, justify="right" if name in ("score", "majority", "examples") else "left")
    for task, metrics in result.metrics.items():
        for index, (metric, score) in enumerate(metrics.items()):
            options = "".join(f" ({key} {value})" for key, value in score.options.items()) if not index else ""
            majority = "" if score.majority is None else f"{score.majority:.2f}"
            texts = (task, metric + options, f"{score.value:.2f}", majority, str(score.n), score.split)
            table.add_row(
                *map(escape, texts if not index else ("", *texts[1:4], "", "")), style="dim" if index else None
            )
        table.add_section()
    if result.average is not None:
        table.add_row("average", "", f"{result.average:.2f}")
    return table


def _curve(result: TrialResult) -> Table:
    """A row per moment: training loss and validation scores (the primary metric) by task."""
    table = Table(
        box=SIMPLE_HEAD, title="learning curve", title_justify="left", title_style="bold", collapse_padding=True
    )
    order = {task: index for index, task in enumerate(result.spec["tasks"])}
    points = sorted(result.curve, key=lambda point: order.get(point.task, len(order)))
    columns, cells = {}, {}
    for kind in ("loss", "valid"):
        for point in points:
            value = point.loss if kind == "loss" else next(iter(point.metrics.values()), None)
            if value is not None:
                task = point.task or "all tasks"
                metric = "loss" if kind == "loss" else f"{point.split}\n{next(iter(point.metrics))}"
                columns[kind, task, point.split] = f"{task}\n{metric}"
                cells[point.step, kind, task, point.split] = f"{value:.{3 if kind == 'loss' else 2}f}"
    for name in ("epoch", "update", *columns.values()):
        table.add_column(name, justify="right")
    for step, epoch in sorted({(point.step, point.epoch) for point in points}):
        mark = " ←" if result.selected and result.selected.step == step else ""
        table.add_row(
            f"{epoch:.2f}".rstrip("0").rstrip("."), f"{step:,}{mark}", *(cells.get((step, *key), "") for key in columns)
        )
    return table
