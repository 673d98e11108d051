"""A model card for the trained tensors of a trial, as the hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.known import family_of, find_backbone
from pet_bench.data.suite import suite_by_name
from pet_bench.files import dump_yaml
from pet_bench.pet import Design, Method, build_method
from pet_bench.pet.method import restored
from pet_bench.pet.select import beyond
from pet_bench.results.dropped import summary
from pet_bench.results.exchange.model_index import to_model_index
from pet_bench.results.exchange.names import hub_name, is_drawn
from pet_bench.results.schema import TrialResult
from pet_bench.spec import Fed, TrialSpec, plain

READ: dict[Fed, str] = {"features": "feature", "pixels": "picture"}  # of an image
CARD = "README.md"  # as the hub wants it, beside the trained tensors


def card(result: TrialResult, *, beside: str = "../") -> str:
    """What the trained tensors are, how they came about, what they score and how to load them: Markdown after YAML.

    beside: the way from the card's folder to the result's; in a repository of the hub's they are one. Of equal trials
    only what their provenance and notes say differs; no times.
    """
    spec = TrialSpec.from_dict(result.spec)
    backbone = find_backbone(spec.backbone)
    anatomy, fed = backbone.anatomy.scoped(spec.method.scope), family_of(backbone).fed
    method = build_method(restored(spec.method), anatomy)
    sections = {
        "Method": _method(spec, method, anatomy, result),
        "Data": _data(spec, fed, result),
        "Parameters": _parameters(fed, result),
        "Scores": _scores(result),
        "Recipe": _recipe(spec),
        "How to load it": _loading(spec, fed, method, result, beside),
        "Provenance": _provenance(result),
        "Limits": _limits(spec, result),
    }
    control = "" if spec.control == "none" else f", {spec.control} control"
    lines = [
        f"# {_code(spec.label or str(spec.method))} on {_code(spec.backbone)}, {spec.suite}, seed {spec.seed}{control}",
        "",
        *_warnings(result),
        f"The trained tensors (`adapter.safetensors`) of trial {result.id} of pet-bench, a benchmark of "
        "parameter-efficient tuning of vision-and-language models. They are no model by themselves: they belong in the "
        f"backbone {_code(spec.backbone)} with the method attached.",
    ]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body]
    head = dump_yaml(_metadata(spec, result), allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n".join(lines) + "\n"


def _metadata(spec: TrialSpec, result: TrialResult) -> dict[str, Any]:
    """Without a licence: the backbone and the data have theirs, which are not known here."""
    base = hub_name(spec.backbone)
    tags = ["pet-bench", "parameter-efficient-tuning", "vision-and-language", spec.method.name]
    marks = {"peft": spec.method.name.startswith("peft:"), "mini-world": is_drawn(spec.suite),
             "suspect": result.status == "suspect", spec.control: spec.control != "none"}  # fmt: skip
    index = to_model_index([result])
    primary = (scores["metrics"][0]["type"] for scores in index[0]["results"] if scores["metrics"])
    return {
        **({"base_model": base} if base else {}),
        "library_name": "pet-bench",
        "language": "en",
        "tags": tags + [mark for mark, holds in marks.items() if holds],
        "metrics": list(dict.fromkeys(primary)),
        "model-index": index,
    }


def _warnings(result: TrialResult) -> Iterator[str]:
    if result.status == "suspect":
        yield f"> **Suspect**: {_line(result.error or '').rstrip('.')}. Its scores are not to be relied on."
    for note in result.run.notes:
        yield f"> **Note**: {_line(note).rstrip('.')}."
    if result.status == "suspect" or result.run.notes:
        yield ""


def _method(spec: TrialSpec, method: Method, anatomy: Anatomy, result: TrialResult) -> Iterator[str]:
    design = method.design(anatomy)
    yield f"{_line(method.source)}. H is what a site gives, X what it reads."
    yield ""
    for formula, sites in _formulas(design):
        yield f"- {_code(formula)}{' at ' if sites else ''}{', '.join(map(_code, sites))}"
    if train := [selector for selector in design.train if not beyond(selector, anatomy)]:
        yield f"- trained besides: {', '.join(map(_code, train))}"
    options = (f"{key} = {plain(value)}" for key, value in restored(spec.method).options.items())
    yield f"- options: {', '.join(map(_code, options)) or 'none'}"
    for name, state in result.behaviour.items():
        yield f"- where published code differs from its paper or intent: {_code(name)}, {state}"


def _formulas(design: Design) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each formula with all its sites; doors have none."""
    sites: dict[str, tuple[str, ...]] = {}
    for insert in design.inserts:
        sites[insert.formula] = sites.get(insert.formula, ()) + insert.sites
    yield from sites.items()
    yield from ((door.formula, ()) for door in design.doors)


def _data(spec: TrialSpec, fed: Fed, result: TrialResult) -> Iterator[str]:
    visual = spec.visual
    shown = f"An image, or a clip, is {visual.tokens} vectors of width {visual.width}"
    if fed == "pixels":
        shown = "An image is read by the backbone's own processor"
    yield (
        f"Suite {_code(spec.suite)}, trained jointly on {', '.join(map(_code, spec.tasks))}. {shown}; an example has "
        f"at most {visual.images}."
    )
    for task, options in spec.protocol.items():
        changed = (f"{key} = {plain(value)!r}" for key, value in options.items())
        yield f"- {_code(task)} not as published: {', '.join(map(_code, changed))}"
    if result.provenance.data:
        yield ""
        yield f"Fingerprint of the annotations and {READ[fed]}s read: `{result.provenance.data}`."
    if result.dropped:
        yield ""
        yield f"Examples left out, since a {READ[fed]} was missing: {summary(result.dropped)} (`dropped.json`)."


def _parameters(fed: Fed, result: TrialResult) -> Iterator[str]:
    counts = result.parameters
    assert counts is not None  # of a trial that has trained something
    backbone = "with its 200 extra words, the visual embedding" if fed == "features" else "as it comes"
    published = "As in the published tables, the" if fed == "features" else "The"
    yield (
        f"{counts.trainable:,} of {counts.total:,} parameters were trained ({counts.percent:.2f} %). {published} total "
        f"is that of the backbone {backbone} and everything added; a tied tensor counts once."
    )
    yield ""
    yield from _table(("group", "trained"), ((name, f"{n:,}") for name, n in counts.groups.items()), left=1)
    if counts.parts:
        yield ""
        rows = ((part, it.state, f"{it.trainable:,}", f"{it.total:,}") for part, it in counts.parts.items())
        yield from _table(("part of the model", "", "trained", "of"), rows, left=2)


def _scores(result: TrialResult) -> Iterator[str]:
    yield "Majority is what the commonest training answer would score. Each task's first metric counts."
    yield ""
    rows = (
        (task, metric + "".join(f", {key} {value}" for key, value in score.options.items() if not i), score.split,
         f"{score.value:.2f}", "" if score.majority is None else f"{score.majority:.2f}", f"{score.n:,}")
        for task, metrics in result.metrics.items()
        for i, (metric, score) in enumerate(metrics.items())
    )  # fmt: skip
    yield from _table(("task", "metric", "split", "score", "majority", "examples"), rows, left=3)
    yield ""
    tested = "The model after the last update was tested"
    if best := result.selected:
        tested = f"The model of update {best.step:,} was tested, the best by validation"
    yield f"Average over tasks: {result.average:.2f}. {tested}."


def _recipe(spec: TrialSpec) -> Iterator[str]:
    if spec.imported:
        yield "Trained elsewhere, and imported: how is not known here. SHA-256 of what was imported:"
        yield f"`{spec.imported}`."
    else:
        yield ", ".join(f"{key} = {plain(value)}" for key, value in asdict(spec.recipe).items()) + "."


def _loading(spec: TrialSpec, fed: Fed, method: Method, result: TrialResult, beside: str) -> Iterator[str]:
    """Code that asks the model as it was when the trial ended, to be run in the folder of the card."""
    where = "beside which" if beside else "in which"
    yield f"In this folder, {where} the result `{result.id}.json` lies, with pet-bench installed:"
    yield ""
    yield "```python"
    yield "import pet_bench"
    if not type(method).__module__.startswith("pet_bench."):
        yield "from pet_bench.registry import load_plugin"
        yield ""
        yield f'load_plugin("my_plugin.py")  # your file with the method {_line(spec.method.name)}'
    yield (
        f'pet_bench.load_trial("{beside}{result.id}.json")'
        f'.predict([{{"text": "what color is the ball?", "image": image}}], task={spec.tasks[0]!r})'
    )
    visual = spec.visual
    image = f"an array ({visual.tokens}, {visual.width}) of features as it was trained on"
    if fed == "pixels":
        image = "the path of a picture, one of Pillow's or an array (height, width, 3) of uint8"
    elif suite_by_name(spec.suite).extractor:
        image += " or the path of a picture"
    yield "```"
    yield ""
    yield (
        f"`image` is {image}; of several images, `images` is a list of them. Instead of one's own examples it takes "
        'those of `load_trial(…, data="folder").test_examples(task)`.'
    )
    if method.name.startswith("peft:"):
        yield ""
        yield "The folder `peft/` holds the same as peft reads it, but for the visual embedding."


def _provenance(result: TrialResult) -> Iterator[str]:
    origin = result.provenance
    state = ", with uncommitted changes" if origin.dirty else ""
    yield f"- pet-bench {origin.version}, commit {_code(origin.commit) if origin.commit else 'unknown'}{state}"
    yield f"- {', '.join(f'{name} {version}' for name, version in origin.packages.items())}"
    for plugin in origin.plugins:
        yield f"- {_line(', '.join(plugin.provides))}: {_line(str(plugin))}"
    if origin.device:
        yield f"- trained on {_line(origin.device)}"


def _limits(spec: TrialSpec, result: TrialResult) -> Iterator[str]:
    if is_drawn(spec.suite):
        yield (
            f"- **The data are a mini world**: pet-bench draws {_code(spec.suite)} itself, in the form of the real "
            "data sets. Its scores say nothing about those, and cannot be compared with published ones."
        )
    if spec.control != "none":
        yield f"- A control ({spec.control}): trained and tested without the images. It is there to be compared with."
    yield "- One run with one seed. Scores of others compare where the fingerprint of the data is the same."
    yield "- Made for comparing methods, not for use: nothing was done about biases of the data and the backbone."
    yield "- No licence is stated: those of the backbone and of the data apply."


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, left: int) -> Iterator[str]:
    """A Markdown table; the columns after the first `left` ones are set to the right."""
    marks = (":--" if i < left else "--:" for i in range(len(heads)))
    for row in (heads, tuple(marks), *rows):
        yield f"| {' | '.join(_line(cell).replace('|', chr(92) + '|') for cell in row)} |"


def _line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    """A code span, whatever is in it."""
    text = _line(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " * (len(ticks) > 1)
    return f"{ticks}{space}{text}{space}{ticks}"
