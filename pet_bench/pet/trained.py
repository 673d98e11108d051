"""What trains: counted, saved, loaded."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_bench.backbone.anatomy import Anatomy, as_part
from pet_bench.backbone.interface import Model
from pet_bench.errors import UserError
from pet_bench.files import impostor
from pet_bench.pet.parts import Door
from pet_bench.spec import ScopePart


def is_quantised(parameter: Tensor) -> bool:
    """Whether a few bits stand for each of its numbers, as bitsandbytes keeps them."""
    return getattr(parameter, "quant_state", None) is not None


def numbers(parameter: Tensor) -> int:
    """How many numbers it has, also where several of them share a byte."""
    return math.prod(getattr(parameter, "quant_state").shape) if is_quantised(parameter) else parameter.numel()  # noqa: B009


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name; a tied tensor appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def group_of(name: str, anatomy: Anatomy) -> str:
    """The part of a method that a parameter belongs to: `visual`, `encoder.delta`, `decoder.norms`, `prompt`, …

    What a door adds inside of the backbone has the door's kind in its name: `lm.….q_proj.lora_A.peft.weight`.
    """
    places = name.split(".")
    if places[0] == "pet":
        root, first = places[1:3]
        if root == "shared":
            return first
        if root not in anatomy.stacks:
            return root
        gates = any(of.isdigit() and what == "gate" for of, what in pairwise(places))  # no site of that name
        return f"{root}.{'gate' if gates else 'delta'}"
    if not is_added(name) and any(name.startswith(f"{table}.") for table in anatomy.embeddings):
        return "embeddings"
    stack = anatomy.stack_of(name)
    if stack == "projector":
        return "visual"
    kind = "norms" if "norm" in name else "biases" if name.endswith(".bias") else "weights"
    kind = next((door for door in Door.kinds if door in places), kind)
    return f"{stack}.{kind}" if stack else "head" if name.startswith(f"{anatomy.head}.") else "embeddings"


def place_of(name: str, anatomy: Anatomy) -> tuple[ScopePart, str]:
    """The part of the model that a parameter stands in, and the stack.

    `words` are the word tables and the output layer. What a door adds beside the stacks, or inserts share, is called as
    in `pet`, and is of the language model where that is in the scope.
    """
    places = name.split(".")
    if places[0] == "pet":
        if (root := places[1]) in anatomy.stacks:
            return as_part(root), root
        return next(part for part in ("language", "vision", "projector") if part in anatomy.scope), root
    if any(name.startswith(f"{path}.") for path in (*anatomy.embeddings, anatomy.head)):
        return "language", "words"
    return anatomy.part_of(name), anatomy.stack_of(name) or "words"


def is_added(name: str) -> bool:
    """Whether a parameter is an insert's or a door's."""
    places = name.split(".")
    return places[0] == "pet" or any(door in places for door in Door.kinds)


def count(model: Model) -> dict[str, Any]:
    """{trainable, total, percent, groups, parts, stacks}: exact integers; a tied tensor counts once.

    percent = 100 · trainable / total, total being the grown backbone, the visual embedding and every added module:
    the convention of the published tables. groups: trainable ones by `group_of`. parts, stacks: {state, trainable,
    total} by `place_of`; state is "adapted" where inserts or a door's modules stand, else "trained" where a part's own
    parameters train, else "frozen".
    """
    anatomy, groups = model.anatomy, Counter[str]()
    parts = {part: _nothing() for part in anatomy.parts}
    stacks = {stack: _nothing() for stack in (*anatomy.stacks, "words")}
    for name, parameter in model.named_parameters():
        part, stack = place_of(name, anatomy)
        for share in (parts[part], stacks.setdefault(stack, _nothing())):
            share["total"] += numbers(parameter)
            share["trainable"] += numbers(parameter) * parameter.requires_grad
            if is_added(name):
                share["state"] = "adapted"
            elif parameter.requires_grad and share["state"] == "frozen":
                share["state"] = "trained"
        if parameter.requires_grad:
            groups[group_of(name, anatomy)] += parameter.numel()
    trainable, total = (sum(share[key] for share in parts.values()) for key in ("trainable", "total"))
    return {
        "trainable": trainable,
        "total": total,
        "percent": 100 * trainable / total,
        "groups": dict(sorted(groups.items())),
        "parts": parts,
        "stacks": stacks,
    }


def _nothing() -> dict[str, Any]:
    return {"state": "frozen", "trainable": 0, "total": 0}


def save_trained(model: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> int:
    """Write exactly the trained tensors (safetensors); returns the file's size in bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_parameters(model).items()}
    save_file(tensors, path, metadata=metadata)
    return Path(path).stat().st_size


def load_trained(model: nn.Module, path: Path) -> None:
    """Load what `save_trained` wrote into a model with the same design attached.

    What is random and does not train, as the words that a backbone lacked, is in another file (`pet.frozen`).

    Raises UserError where the file is unreadable, its names, shapes or types are not exactly those that the model
    trains, or a value is not finite.
    """
    load_tensors(trained_parameters(model), path)


def load_tensors(places: dict[str, nn.Parameter], path: Path) -> None:
    """Load a safetensors file into parameters, by name; raises as `load_trained` does."""
    tensors = read_tensors(path)
    faults = [f"{path}: {name} is missing" for name in places.keys() - tensors.keys()]
    faults += [f"{path}: {name} is not trained by this method" for name in tensors.keys() - places.keys()]
    faults += [
        f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(places[name].shape)}"
        for name in places.keys() & tensors.keys()
        if tensors[name].shape != places[name].shape
    ]
    for name in places.keys() & tensors.keys():
        if (kind := tensors[name].dtype) != places[name].dtype:
            faults.append(f"{path}: {name} is of type {kind}, expected {places[name].dtype}")
        elif not tensors[name].isfinite().all():
            faults.append(f"{path}: {name} has values that are not finite")
    if faults:
        raise UserError.many(sorted(faults)[:20])
    with torch.no_grad():
        for name, parameter in places.items():
            parameter.copy_(tensors[name])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file's tensors by name; raises UserError where it is unreadable."""
    try:
        with Path(path).open("rb") as file:
            if odd := impostor(file.read(1024)):
                raise UserError(f"{path} {odd}")
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error
