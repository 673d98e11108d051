"""Trials and methods in Python, by their names: what `pet_bench` itself offers beside loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pet_bench.backbone.interface import Model
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import load
from pet_bench.backbone.reader import Tokenizer
from pet_bench.data.suite import suite_by_name
from pet_bench.errors import UserError
from pet_bench.pet import attach as attach_design
from pet_bench.pet import build_method, design_of
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import Control, MethodSpec, Runtime, ScopePart, TrialSpec
from pet_bench.trial import run
from pet_bench.trial.build import OnProgress
from pet_bench.trial.resolve import resolve

Method = str | Mapping[str, Any] | MethodSpec  # by name; with options as a grid file writes it; or as a trial has it


def run_trial(
    spec: TrialSpec | None = None,
    /,
    *,
    out: str | Path,
    backbone: str | None = None,
    method: Method | None = None,
    suite: str | None = None,
    seed: int = 0,
    control: Control = "none",
    recipe: dict[str, Any] | None = None,
    protocol: dict[str, dict[str, Any]] | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    forgetting: str | Path | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> TrialResult:
    """Train and evaluate one trial; its result is written to `<out>/<id>.json` (see `trial.run.run_trial`).

    A trial that is resolved, or its parts by name: `run_trial(backbone="mini-bart", method="lora",
    suite="mini-image-text", recipe={"max_steps": 100}, out="results/try")`. What is not given is as a grid would have
    it (see `trial.resolve.resolve`). data, device, threads, forgetting: as of `Runtime`.

    Raises UserError, with all faults together, before training.
    """
    if spec is None:
        if backbone is None or method is None or suite is None:
            names = {"backbone": backbone, "method": method, "suite": suite}
            raise UserError.many(f"{name} is missing" for name, value in names.items() if value is None)
        spec = resolve(
            backbone, method_spec(method), suite, seed, control=control, recipe=recipe, protocol=protocol
        )  # fmt: skip
    elif any((backbone, method, suite, seed, control != "none", recipe, protocol)):
        raise UserError("a resolved trial is given: it has backbone, method, suite, seed, control, recipe and protocol")
    text = None if forgetting is None else Path(forgetting)
    runtime = Runtime(Path(out), None if data is None else Path(data), device, threads, forgetting=text)
    store.check_writable(runtime.out)
    return run.run_trial(spec, runtime, on_progress)


def load_backbone(name: str, suite: str = "image-text") -> tuple[Model, Tokenizer]:
    """A stock backbone with a visual embedding for the features of a suite, newly drawn, and its tokenizer.

    Both have VL-T5's extra words. Raises UserError for an unknown name and a checkpoint that is not whole.
    """
    return load(find_backbone(name), suite_by_name(suite).visual)


def attach(
    model: Model | str,
    method: Method,
    /,
    *,
    suite: str | None = None,
    scope: Iterable[ScopePart] | None = None,
    **options: Any,
) -> Model:
    """A model with a method attached and exactly what the method trains trainable, for a loop of one's own.

    model: one without a method, which is changed; or a backbone's name, which is loaded (`load_backbone` gives its
    tokenizer as well). suite: what the visual embedding and the parts that tasks have of their own are made for; by
    default image-text for a name, and no tasks for a model. scope: the parts of the model that the method touches, of
    language, projector and vision; by default as the backbone's family has it. options: the method's. Raises UserError,
    with all faults together, as a grid would.

        model = pet_bench.attach("mini-bart", "lora", suite="mini-image-text", rank=8)
    """
    chosen = method_spec(method)
    chosen = chosen.changed(options if scope is None else {**options, "scope": list(scope)})
    anatomy = (find_backbone(model).anatomy if isinstance(model, str) else model.anatomy).scoped(chosen.scope)
    design = design_of(build_method(chosen, anatomy), anatomy)
    if isinstance(model, str):
        suite = suite or "image-text"
        model, _ = load_backbone(model, suite)
    elif len(model.pet):
        raise UserError(f"the model has a method already ({', '.join(model.pet)}): load another")
    model.anatomy = anatomy
    return attach_design(model, design, suite_by_name(suite).tasks if suite else ())


def method_spec(method: Method) -> MethodSpec:
    if isinstance(method, MethodSpec):
        return method
    return MethodSpec.parse(method if isinstance(method, str) else dict(method))
