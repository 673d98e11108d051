"""One trial: build, train on the suite's tasks jointly, evaluate, record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pet_bench.backbone.known import find_backbone
from pet_bench.errors import UserError, shortened
from pet_bench.files import replacing, write_text
from pet_bench.metrics.scores import breakdowns
from pet_bench.pet import FROZEN, Method, ask_part, build_method, count, design_of, save_frozen, save_trained
from pet_bench.pet.large import PACKAGE
from pet_bench.pet.method import restored
from pet_bench.pet.parts import titled
from pet_bench.pet.sharded import shard
from pet_bench.registry import METRICS, ask, title
from pet_bench.results import dropped, store
from pet_bench.results import predictions as saved
from pet_bench.results.card import CARD, card
from pet_bench.results.plugins import code
from pet_bench.results.provenance import now, provenance
from pet_bench.results.schema import Cost, Parameters, Part, Progress, Score, TrialResult
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.build import OnProgress, Trial, build_trial, device_name
from pet_bench.trial.divided import check_divided, check_ranks
from pet_bench.trial.evaluate import evaluate
from pet_bench.trial.forgetting import Losses, forgetting, stock_losses
from pet_bench.trial.imported import take
from pet_bench.trial.inference import inference
from pet_bench.trial.memory import peak_memory
from pet_bench.trial.ranks import device_of, together
from pet_bench.trial.shared import Shared
from pet_bench.trial.suspect import Diverged, suspicions
from pet_bench.trial.train import checkpoints_of, train

ADAPTER = "adapter.safetensors"


def run_trial(
    spec: TrialSpec,
    runtime: Runtime,
    on_progress: OnProgress = lambda progress: None,
    shared: Shared | None = None,
    adapter_of: Path | None = None,
) -> TrialResult:
    """Train and evaluate one trial and write its result to `<out>/<id>.json`, last of all.

    Beside it, in `<out>/<id>/`, are the trained tensors (`adapter.safetensors`) with their model card (`README.md`),
    what else the checkpoint does not give (`frozen.safetensors`, where there is anything), the test predictions with
    their scores (`predictions.<task>.jsonl.gz`) and, where examples were left out for want of a feature, which
    (`dropped.json`). Equal specs give equal numbers on one machine, also where a trial was interrupted: it goes on from
    the checkpoint in its folder, which is removed in the end. `on_progress` may raise `Stop` at any call, which passes;
    in training a checkpoint is written first. The result is suspect where the loss is not finite, which ends the trial,
    or predictions have collapsed.
    shared: what other trials have read already. adapter_of: the folder of the adapter that an imported trial has
    instead of training. Raises UserError for unusable data or backbones, before training.
    """
    started = now()
    if spec.imported and adapter_of is None:
        raise UserError(f"trial {spec.id} is of an imported adapter: run pet-bench import again, with its folder")
    check_ranks(runtime)
    check_divided([spec], runtime)
    on_progress(Progress(spec.id, "prepare"))
    shared = shared or Shared()
    before = stock_losses(spec, replace(runtime, device=device_of(0, runtime)), shared)
    trial = build_trial(spec, replace(runtime, device=device_of(0, runtime)), on_progress, shared)
    method = build_method(restored(spec.method), trial.model.anatomy)
    plugins = code(_used(trial, method))
    model, data, device, folder = trial.model, trial.data, trial.device, runtime.out / spec.id
    trial.checkpoints = checkpoints_of(trial, runtime)

    adapter = folder / ADAPTER
    outcome: dict[str, Any]
    try:
        with together(spec, runtime) as trial.ranks:
            if runtime.shard:
                shard(model, device)
            if adapter_of:
                take(model, spec, adapter_of)
            else:
                train(trial)
            save_tensors(trial, folder, shared)
            outcome = test(trial, folder)
    except Diverged as error:
        for stale in (adapter, folder / FROZEN, folder / CARD):  # an earlier attempt's
            stale.unlink(missing_ok=True)
        outcome = {"status": "suspect", "error": str(error)}
    trial.run.peak_memory_bytes = peak_memory(device)
    if "metrics" in outcome:
        outcome |= aside(trial, runtime, before)
    trial.run.notes += [note for note in data.left_out.notes if note not in trial.run.notes]
    dropped.write(dropped.place(runtime.out, spec.id), data.left_out.dropped)
    result = TrialResult(
        id=spec.id,
        spec=spec.to_dict(),
        provenance=provenance(
            started,
            device=device_name(device),
            threads=torch.get_num_threads(),
            data=data.fingerprint,
            plugins=plugins,
            also=(PACKAGE,) if spec.recipe.frozen == "4bit" else (),
        ),
        run=trial.run,
        parameters=Parameters(**count(model)),
        behaviour=ask(method, "behaviour", model.anatomy, returns=dict[str, str]),
        cost=_cost(trial, adapter),
        curve=trial.curve,
        dropped=dropped.counts(data.left_out.dropped),
        **outcome,
    )
    if adapter.exists():
        write_text(folder / CARD, card(result))
    store.save(result, runtime.out)
    trial.checkpoints.remove()
    return result


def aside(trial: Trial, runtime: Runtime, before: Losses) -> dict[str, Any]:
    """What the tuned model takes and what it forgot, for the result; a note says what could not be measured.

    Nothing of either is worth a trial that is done. Weights in parts are asked by all processes or by none.
    """
    measured: dict[str, Any] = {}
    measures = {"inference": lambda: inference(trial), "forgetting": lambda: forgetting(trial, runtime, before)}
    for name, measure in measures.items() if not runtime.shard else ():
        try:
            measured[name] = measure()
        except Exception as error:
            trial.run.notes.append(f"{name} was not measured: {type(error).__name__}: {shortened(str(error), 300)}")
    return measured


def _cost(trial: Trial, adapter: Path) -> Cost:
    p99 = trial.memory.percentile(99)
    return Cost(
        train_seconds=trial.clock.train,
        eval_seconds=trial.clock.evaluate,
        peak_memory_bytes=(trial.run.peak_memory_bytes or 0) - trial.data.store.bytes_on_device,
        p99_memory_bytes=None if p99 is None else max(0, p99 - trial.data.store.bytes_on_device),
        examples_per_second=trial.examples / max(trial.clock.train, 1e-9),
        steps=trial.steps,
        adapter_bytes=adapter.stat().st_size if adapter.exists() else 0,
    )


def _used(trial: Trial, method: Method) -> dict[str, Any]:
    """What a trial is made of, by what messages call it."""
    metrics = [METRICS.get(name) for task in trial.data.tasks for name in (task.metric, *task.also)]
    plugins = [type(method), find_backbone(trial.spec.backbone), *map(type, trial.data.tasks), *metrics]
    parts = design_of(method, trial.model.anatomy).parts()
    return {title(one): one for one in plugins} | {titled(part): type(part) for part in parts}


def save_tensors(trial: Trial, folder: Path, shared: Shared) -> None:
    """Save what the checkpoint does not give: the trained tensors last, so that where they are all is."""
    spec, model = trial.spec, trial.model
    (folder / CARD).unlink(missing_ok=True)  # it is of tensors that are about to be replaced
    about = {"pet-bench": json.dumps({"trial": spec.id, "backbone": spec.backbone, "method": str(spec.method)})}
    save_frozen(model, shared.stock(spec).lm, folder / FROZEN, about)
    with replacing(folder / ADAPTER) as temporary:
        save_trained(model, temporary, about)
    for door in trial.doors:
        ask_part(door, "export", model, folder)


def test(trial: Trial, folder: Path) -> dict[str, Any]:
    """Save the test predictions and score them: what they add to the result."""
    spec, data = trial.spec, trial.data
    metrics, groups, primary, suspicious = {}, {}, [], []
    for task in data.tasks:
        name, examples = task.name, data.examples[task.name]["test"]
        predictions, scores = evaluate(trial, task, "test", keep=folder.parent / saved.name(spec.id, name))
        assert scores is not None  # this process's are all
        majority = data.majority(task)
        options = {key: str(value) for key, value in task.metric_options.items()}
        metrics[name] = {
            metric: Score(
                value=value, split=task.test, n=len(examples), majority=None if i else majority, options=options
            )
            for i, (metric, value) in enumerate(scores.values.items())
        }
        groups[name] = {
            group: {value: Part(value=score, n=n) for value, (score, n) in parts.items()}
            for group, parts in breakdowns(scores, examples).items()
        }
        primary.append(scores.primary)
        if spec.control == "none":  # what cannot see may well collapse
            suspicious += suspicions(task, predictions, examples, scores.primary, majority)
    return {
        "status": "suspect" if suspicious else "done",
        "error": "; ".join(suspicious) or None,
        "metrics": metrics,
        "breakdowns": groups,
        "average": sum(primary) / len(primary),
        "selected": trial.best,
        "predictions": {name: saved.name(spec.id, name) for name in metrics},
    }
