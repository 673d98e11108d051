"""Frozen weights in half precision while a trial trains in it, made once and not anew at each update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.interface import Model


class Halves:
    """Copies in bfloat16 of the linear layers' frozen weights, which autocast would cast in each pass: the same bits.

    What is also read as numbers stays as it is: words, of which the output layer has a copy besides, and all weights
    where a part of the method reads them (`keeps`).
    """

    def __init__(self, model: Model, *, keeps: bool = False):
        linears = [] if keeps else [module for module in model.lm.modules() if type(module) is nn.Linear]
        words = {id(module.weight) for module in model.lm.modules() if isinstance(module, nn.Embedding)}
        frozen = {p: None for linear in linears for p in linear.parameters(recurse=False) if _is_whole(p)}
        self.others = [(p, _half(p)) for p in frozen if id(p) not in words]
        self.tied: list[tuple[Any, Callable[[Tensor], Tensor]]] = [  # the same each time: a compiled graph looks
            (linear, partial(_linear, _half(linear.weight), linear.bias))
            for linear in linears
            if linear.weight in frozen and id(linear.weight) in words
        ]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside of it the model computes with these."""
        whole = [p.data for p, _ in self.others]
        for p, half in self.others:
            p.data = half
        for linear, forward in self.tied:
            linear.forward = forward
        try:
            yield
        finally:
            for (p, _), data in zip(self.others, whole, strict=True):
                p.data = data
            for linear, _ in self.tied:
                del linear.forward


def _is_whole(parameter: Tensor) -> bool:
    return parameter.dtype == torch.float32 and not parameter.requires_grad


def _half(parameter: Tensor) -> Tensor:
    return parameter.detach().to(torch.bfloat16)


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)
