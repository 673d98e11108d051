"""What a model holds that neither trains nor comes with its checkpoint: saved, so that loading draws nothing anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_bench.errors import UserError
from pet_bench.files import replacing
from pet_bench.pet.sharded import whole
from pet_bench.pet.trained import is_quantised, read_tensors, trained_parameters

FROZEN = "frozen.safetensors"  # beside the trained tensors, where there is anything to be kept
HEAD = 16  # entries by which a stock tensor is looked for; a method may give it another name, as peft does


def frozen_tensors(model: nn.Module, stock: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model that neither train nor are equal to one of the stock model's, in the
    model's own type; what is quantised is the stock model's.

    Rows added to the vocabulary, a visual embedding that stays as drawn, random projections and whatever else a method
    has put in. Of a tensor that has grown along one axis, as word tables do, only what is behind the stock's own part.
    """
    trained, kept = trained_parameters(model), {}
    floats = {tensor.dtype for _, tensor in tensors_of(model, cpu=False) if tensor.is_floating_point()}
    alike = defaultdict(list)
    for _, tensor in tensors_of(stock):
        for kind in floats if tensor.is_floating_point() else {tensor.dtype}:
            alike[_head(tensor, kind)].append(tensor)
    for name, tensor in tensors_of(model):
        if name not in trained:
            same = (known.to(tensor.dtype) for known in alike[_head(tensor, tensor.dtype)])
            new = min((_behind(tensor, known) for known in same), key=Tensor.numel, default=tensor)
            if new.numel():
                kept[name] = new.clone(memory_format=torch.contiguous_format)
    return kept


def save_frozen(model: nn.Module, stock: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write what `frozen_tensors` gives (safetensors), atomically, or remove the file where that is nothing."""
    if tensors := frozen_tensors(model, stock):
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    else:
        path.unlink(missing_ok=True)


def load_frozen(model: nn.Module, path: Path) -> None:
    """Load what `save_frozen` wrote into a model with the same design attached, however that was drawn.

    Raises UserError where the file is unreadable, or a tensor is not the model's or of another shape or type.
    """
    tensors, state, faults = read_tensors(path), dict(tensors_of(model, cpu=False)), []
    for name, tensor in tensors.items():
        place = state.get(name)
        if place is None:
            faults.append(f"{path}: {name} is no tensor of this model")
        elif tensor.dtype != place.dtype:
            faults.append(f"{path}: {name} is of type {tensor.dtype}, expected {place.dtype}")
        elif len(axes := _axes(place, tensor)) > 1 or any(tensor.shape[i] > place.shape[i] for i in axes):
            faults.append(f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(place.shape)}")
        else:
            for axis in axes:
                place = place.narrow(axis, place.shape[axis] - tensor.shape[axis], tensor.shape[axis])
            state[name] = place
    if faults:
        raise UserError.many(sorted(faults)[:20])
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def tensors_of(model: nn.Module, *, cpu: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, also those that no state_dict has; a tied tensor once, by its first name.

    cpu: on the CPU and whole; where they are sharded, all processes have to ask.
    """
    for named in (model.named_parameters(), model.named_buffers()):
        for name, tensor in named:
            if not is_quantised(tensor):
                yield name, whole(tensor.detach()).cpu() if cpu else tensor.detach()


def _head(tensor: Tensor, kind: torch.dtype) -> tuple[torch.dtype, bytes]:
    return kind, tensor.flatten()[:HEAD].to(kind).contiguous().view(torch.uint8).numpy().tobytes()


def _axes(one: Tensor, other: Tensor) -> list[int]:
    """Where two shapes differ; all axes where they do not have as many."""
    if one.dim() != other.dim():
        return [*range(max(one.dim(), other.dim(), 2))]
    return [i for i in range(one.dim()) if one.shape[i] != other.shape[i]]


def _behind(tensor: Tensor, known: Tensor) -> Tensor:
    """The part of a tensor behind `known`, which it begins with along one axis; nothing where they are equal, and all
    of it where it does not begin so."""
    axes = _axes(tensor, known)
    if not axes:
        return tensor.new_empty(0) if torch.equal(tensor, known) else tensor
    if len(axes) > 1 or (size := known.shape[axes[0]]) > tensor.shape[axes[0]]:
        return tensor
    same = torch.equal(tensor.narrow(axes[0], 0, size), known)
    return tensor.narrow(axes[0], size, tensor.shape[axes[0]] - size) if same else tensor
