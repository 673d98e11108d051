"""What trains: counted, saved, loaded."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.interface import Model
from pet_bench.errors import UserError
from pet_bench.files import impostor
from pet_bench.pet.parts import Door


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
        return f"{root}.{'gate' if 'gate' in places else 'delta'}"
    added = any(door in places for door in Door.kinds)
    if not added and any(name.startswith(f"{table}.") for table in anatomy.embeddings):
        return "embeddings"
    stack = next((stack for stack, place in anatomy.stacks.items() if name.startswith(f"{place.path}.")), None)
    if stack == "projector":
        return "visual"
    kind = "norms" if "norm" in name else "biases" if name.endswith(".bias") else "weights"
    kind = next((door for door in Door.kinds if door in places), kind)
    return f"{stack}.{kind}" if stack else "head" if name.startswith(f"{anatomy.head}.") else "embeddings"


def count(model: Model) -> dict:
    """{trainable, total, percent, groups}: exact integers; a tied tensor counts once.

    percent = 100 · trainable / total, total being the grown backbone, the visual embedding and every added module:
    the convention of the published tables.
    """
    trained = trained_parameters(model)
    groups: Counter[str] = Counter()
    for name, parameter in trained.items():
        groups[group_of(name, model.anatomy)] += parameter.numel()
    trainable = sum(groups.values())
    total = sum(map(numbers, model.parameters()))
    return {
        "trainable": trainable,
        "total": total,
        "percent": 100 * trainable / total,
        "groups": dict(sorted(groups.items())),
    }


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
    tensors = read_tensors(path)
    trained = trained_parameters(model)
    faults = [f"{path}: {name} is missing" for name in trained.keys() - tensors.keys()]
    faults += [f"{path}: {name} is not trained by this method" for name in tensors.keys() - trained.keys()]
    faults += [
        f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(trained[name].shape)}"
        for name in trained.keys() & tensors.keys()
        if tensors[name].shape != trained[name].shape
    ]
    for name in trained.keys() & tensors.keys():
        if (kind := tensors[name].dtype) != trained[name].dtype:
            faults.append(f"{path}: {name} is of type {kind}, expected {trained[name].dtype}")
        elif not tensors[name].isfinite().all():
            faults.append(f"{path}: {name} has values that are not finite")
    if faults:
        raise UserError.many(sorted(faults)[:20])
    with torch.no_grad():
        for name, parameter in trained.items():
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
