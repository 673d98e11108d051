"""The mean of models that have one design: of ΔW where an update is linear, of parameters elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pet_bench.backbone.interface import Context, Model
from pet_bench.pet.build import ByTask
from pet_bench.pet.inserted import Inserted
from pet_bench.pet.trained import trained_parameters


class MeanOf(nn.Module):
    """f(x) = 1/k Σ f_i(x) of k modules that are linear in x, so that ΔW = 1/k Σ ΔW_i.

    A mean of factors would not be that: mean(B) mean(A) ≠ mean(B A), which has k times their rank. It has `weight` and
    `bias` where they do, and can then be merged (`pet.merge`). What else is asked of it, the first of them answers.
    """

    def __init__(self, modules: Sequence[nn.Module]):
        super().__init__()
        self.of = nn.ModuleList(modules)
        for name in ("weight", "bias"):
            if all(callable(getattr(module, name, None)) for module in modules):
                setattr(self, name, partial(self._mean, name))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            of: Any = super().__getattr__("of")
            return getattr(of[0], name)

    def _mean(self, name: str) -> Tensor:
        return _mean([getattr(module, name)() for module in self.of])

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return _mean([module(*args, **kwargs) for module in self.of])


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([*tensors]).mean(0)


@dataclass(frozen=True)
class Parts:
    """What of a trained model enters a mean. updates: modules that add ΔW x, by path, which run in `context`; tensors:
    the trained ones outside of them, fixed: those that do not train, both by name."""

    updates: dict[str, nn.Module]
    context: Context
    tensors: dict[str, Tensor]
    fixed: dict[str, Tensor]

    @classmethod
    def of(cls, model: Model) -> Parts:
        found = updates(model)
        named = [*model.named_parameters(), *model.named_buffers()]
        apart = {name: tensor.detach() for name, tensor in named if not _below(name, found)}
        trained = trained_parameters(model).keys()
        return cls(
            found,
            model.context,
            {name: tensor for name, tensor in apart.items() if name in trained},
            {name: tensor for name, tensor in apart.items() if name not in trained},
        )


def _below(name: str, paths: dict[str, nn.Module]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)


def updates(model: Model) -> dict[str, nn.Module]:
    """The modules that add ΔW x or a constant to what a layer gives, whatever x, by path.

    Those are the deltas of inserts that nothing gates or normalises, where they say what matrix or offset they are, and
    layers that peft has wrapped, where they say what they add.
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(module, Inserted):
            plain = module.gate is None and module.insert.norm is None
            if plain and module.delta is not None and _linear(module.delta) and [*module.delta.parameters()]:
                found[f"{path}.delta"] = module.delta
        elif hasattr(module, "get_delta_weight") and not _below(path, found):
            found[path] = module
    return found


def _linear(delta: nn.Module) -> bool:
    if isinstance(delta, ByTask):
        return all(map(_linear, delta.of.values()))
    return any(callable(getattr(delta, name, None)) for name in ("weight", "bias"))


@torch.no_grad()
def average(model: Model, members: Sequence[Parts]) -> Model:
    """Make a model the mean of several: ΔW by ΔW, and parameter by parameter where there is none.

    model: one of them, or built as they were; it is changed. The members' modules are copied, which costs k
    times their memory and, until they are merged, their time. Whether a mean of parameters means anything is for the
    caller to know: hidden units of modules that started at other values are in another order.
    """
    trained = trained_parameters(model)
    for name in members[0].tensors:
        trained[name].copy_(_mean([one.tensors[name].to(trained[name].device) for one in members]))
    for path in members[0].updates:
        parent, _, name = path.rpartition(".")
        copies = [deepcopy(one.updates[path], {id(one.context): model.context}) for one in members]
        setattr(model.get_submodule(parent), name, MeanOf(copies))
    return model


def differing(one: dict[str, Tensor], other: dict[str, Tensor], same: Callable[..., bool] = torch.equal) -> list[str]:
    """Names of the tensors that are not the same in both, or in one of them only."""
    return sorted(
        name for name in one.keys() | other.keys()
        if name not in one or name not in other or not same(one[name].cpu(), other[name].cpu())
    )  # fmt: skip
