"""Which parameters of a stock model are one tensor: what its checkpoint has, not what a flag says."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def ties(lm: nn.Module) -> dict[str, str]:
    """Every further name of a parameter that has several → the first, as `named_parameters` gives it."""
    first: dict[int, str] = {}
    further: dict[str, str] = {}
    for name, parameter in lm.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            further[name] = first[id(parameter)]
    return further


def tied_modules(lm: nn.Module) -> set[nn.Module]:
    """The modules that hold a parameter which another module holds too."""
    names = {name for pair in ties(lm).items() for name in pair}
    return {lm.get_submodule(name.rpartition(".")[0]) for name in names}


def put(lm: nn.Module, name: str, parameter: Tensor) -> None:
    """Make that the parameter or buffer of that name, and of no other."""
    module, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(module), leaf, parameter)


def untie(lm: PreTrainedModel, names: Iterable[str]) -> None:
    """Give each of these names a tensor of its own, random with the mean and spread of the one it had a part in."""
    for name in names:
        tensor = lm.get_parameter(name).detach()
        put(lm, name, nn.Parameter(tensor.mean() + tensor.std() * torch.randn_like(tensor)))


def hold(lm: PreTrainedModel) -> PreTrainedModel:
    """Let the ties of the moment be those that `transformers` ties anew: after growth, on a move, in peft.

    It goes by a table that each class has for all its checkpoints; here, each model has its own.
    """
    for module in lm.modules():
        if isinstance(module, PreTrainedModel):
            module._tied_weights_keys, module.all_tied_weights_keys = {}, {}
    lm._tied_weights_keys, lm.all_tied_weights_keys = ties(lm), ties(lm)
    lm.config.tie_word_embeddings = True  # of what is in the table
    return lm
