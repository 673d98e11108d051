"""The JSON of peft's method comparison."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pet_bench.results.exchange.names import experiment, finite, hub_name
from pet_bench.results.schema import Point, TrialResult
from pet_bench.spec import TrialSpec

STATUS = {"done": "success", "stopped_early": "canceled"}  # peft's words; everything else has "failed"


def to_peft(result: TrialResult) -> dict[str, Any]:
    """A trial with the keys of a result of peft's `method_comparison`, in their order.

    What is not measured here, or has no counterpart, is null: mean and maximum of the reserved memory (our maximum is
    the allocated), tokens, commits, a query template for all tasks. Their forgetting is on text of an encyclopedia,
    ours on what a backbone knew (`trial.forgetting`). "valid accuracy" and "test accuracy" are there, as fractions,
    where a trial has one task that is scored by accuracy. Further keys: per task in `metrics` ("test vqa accuracy" and
    "test average" on the metric's own scale), and `meta_info.pet-bench` with what the trial is and, where known, what
    its answers take (`inference`) and what it forgot of each kind (`forgetting`). `peft_config` is null for full
    fine-tuning only; its `peft_type` is peft's (`LORA`) for methods of peft and else ours (`vl-pet-large`).
    """
    spec, origin, cost, counts = TrialSpec.from_dict(result.spec), result.provenance, result.cost, result.parameters
    began, ended = map(datetime.fromisoformat, (origin.started, origin.finished))
    device = None if origin.device in ("", "cpu") else origin.device
    packages = {
        f"{name}-{what}": origin.packages.get(name) if what == "version" else None
        for name in ("transformers", "peft", "datasets", "bitsandbytes", "torch")
        for what in ("version", "commit-hash")
    }
    aside = json.loads(result.model_dump_json(include={"inference", "forgetting"}))  # in words what is not finite
    ours = {"pet-bench-version": origin.version, "pet-bench-commit-hash": origin.commit}
    return {
        "run_info": {
            "created_at": origin.started,
            # where it was interrupted, the start is that of its last part
            "total_time": None if result.run.resumed else (ended - began).total_seconds(),
            "experiment_name": experiment(result),
            "peft_branch": None,
            "peft_worktree_is_dirty": None,
            "train_config": _train_config(result, spec),
            "peft_config": _peft_config(spec),
            "error_msg": result.error or "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": None,
            "accelerator_memory_reserved_99th": cost.p99_memory_bytes if cost and device else None,
            "train_time": cost and finite(cost.train_seconds),
            "file_size": cost and cost.adapter_bytes,
            "num_trainable_params": counts and counts.trainable,
            "num_total_params": counts and counts.total,
            "status": STATUS.get(result.status, "failed"),
            "metrics": _moments(result) + ([_tested(result, device)] if result.metrics else []),
        },
        "meta_info": {
            "model_info": {"sha": None, "created_at": None},
            "dataset_info": {task: {"sha": None, "created_at": None} for task in spec.tasks},
            "package_info": packages | ours,
            "system_info": {
                **dict.fromkeys(("system", "release", "version", "machine", "processor")),
                "accelerator": device,
            },
            "pytorch_info": None,
            "pet-bench": {"id": result.id, "status": result.status, "data": origin.data, "spec": result.spec, **aside},
        },
    }


def _train_config(result: TrialResult, spec: TrialSpec) -> dict[str, Any]:
    recipe, validated = spec.recipe, [point.step for point in result.curve if point.split == "valid"]
    return {
        "model_id": hub_name(spec.backbone) or spec.backbone,
        "dtype": {"4bit": "int4"}.get(recipe.frozen, recipe.frozen),  # of what is frozen; the rest is float32
        "max_seq_length": None,
        "batch_size": recipe.batch_size,
        "batch_size_eval": -(-recipe.batch_size // result.run.accumulation),
        "max_steps": result.cost.steps if result.cost else recipe.max_steps,
        "eval_steps": min(validated, default=None),
        "compile": result.run.compile,
        "use_gc": result.run.gradient_checkpointing,
        "query_template": None,
        "seed": spec.seed,
        "grad_norm_clip": recipe.clip,
        "optimizer_type": "AdamW",
        "optimizer_kwargs": {
            "lr": recipe.lr,
            "weight_decay": recipe.weight_decay,
            "betas": [recipe.beta1, recipe.beta2],
            "eps": recipe.eps,
        },
        "lr_scheduler": "linear",
        "use_amp": recipe.precision == "bfloat16",
        "autocast_adapter_dtype": None,
        "generation_kwargs": None,
        "attn_implementation": None,
        "init_kv_cache_prefix": None,
    }


def _peft_config(spec: TrialSpec) -> dict[str, Any] | None:
    name, options = spec.method.name, spec.method.options
    if name == "full":
        return None
    family, _, kind = name.partition(":")
    theirs = family == "peft" and kind
    about = {"task_type": "SEQ_2_SEQ_LM", "peft_type": kind.upper() if theirs else name}
    return {**about, "base_model_name_or_path": hub_name(spec.backbone) or spec.backbone, **options}


def _moments(result: TrialResult) -> list[dict[str, Any]]:
    """Where validation splits were measured, with the last training losses until then."""
    entries = []
    for step in sorted({point.step for point in result.curve if point.split == "valid"}):
        points = [point for point in result.curve if point.split == "valid" and point.step == step and point.task]
        scores = {task: point.metrics for point in points if (task := point.task)}
        losses = _losses(result.curve, step)
        unknown = (
            "train samples", "train time", "eval time", "tokens / sec", "mem allocated avg", "mem reserved avg",
            "elapsed time",
        )  # fmt: skip
        entries.append(
            {
                "step": step,
                "valid accuracy": _accuracy(scores),
                "train loss": _mean(losses),
                **dict.fromkeys(unknown),
                **_named("valid", scores),
                **_named("train", losses),
            }
        )
    return entries


def _tested(result: TrialResult, device: str | None) -> dict[str, Any]:
    cost = result.cost
    scores = {task: {name: score.value for name, score in metrics.items()} for task, metrics in result.metrics.items()}
    step = result.selected.step if result.selected else cost.steps if cost else None
    losses = _losses(result.curve, step)
    return {
        "step": step,
        "test accuracy": _accuracy(scores),
        "train loss": _mean(losses),
        "train samples": cost and round(cost.examples_per_second * cost.train_seconds),
        "train total tokens": None,
        "forgetting": finite(text.after - text.before) if (text := result.forgetting.get("text")) else None,
        "mem allocated max": cost.peak_memory_bytes if cost and device else None,  # on a CPU it is the process's
        "test average": finite(result.average),
        **_named("test", scores),
        **_named("train", losses),
    }


def _accuracy(scores: dict[str, dict[str, float]]) -> float | None:
    """Of the only task, as a fraction, where it is scored by accuracy."""
    primary = [next(iter(values.items()), ("", None)) for values in scores.values()]
    value = finite(primary[0][1]) if len(primary) == 1 and primary[0][0].startswith("accuracy") else None
    return None if value is None else value / 100


def _losses(curve: list[Point], step: int | None) -> dict[str, dict[str, float]]:
    """Each task's last mean training loss up to a step; the curve is in order."""
    points = [point for point in curve if point.split == "train" and (step is None or point.step <= step)]
    return {task: {"loss": loss} for one in points if (task := one.task) and (loss := one.loss) is not None}


def _mean(losses: dict[str, dict[str, float]]) -> float | None:
    """Over tasks."""
    return finite(sum(values["loss"] for values in losses.values()) / len(losses)) if losses else None


def _named(split: str, values: dict[str, dict[str, float]]) -> dict[str, float | None]:
    """`{"test vqa accuracy": 60.0}`."""
    return {f"{split} {task} {name}": finite(value) for task, of in values.items() for name, value in of.items()}
