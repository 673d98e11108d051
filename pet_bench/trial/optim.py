"""The published runs' optimiser: AdamW as transformers 4.2.1 had it, linear warm-up and decay.

It differs from `torch.optim.AdamW` in two places: eps is added to √v before the bias correction, and the decay acts
on the updated parameter instead of before the update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

foreach: Any = torch  # whose stubs leave these functions out
PIECE = 2**18  # numbers that are updated together, while they and their moments are in the processor's cache


class ReferenceAdamW(Optimizer):
    """m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²
    p ← p - lr √(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + eps),  then  p ← p - lr·λ·p

    On the CPU large tensors are updated piece by piece, so that nothing of their size is made on the way: number for
    number the same.

    capturable, by default on an accelerator: steps t and rates lr are tensors there, and nothing waits for the host, so
    that `update` can stand in a CUDA graph; before each replay `take_rates` says the rates of now. Equal to the above
    within rounding.
    """

    def __init__(
        self,
        params,
        lr: float,
        betas=(0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        capturable: bool | None = None,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.device = next((p.device for group in self.param_groups for p in group["params"]), torch.device("cpu"))
        self.capturable = self.device.type != "cpu" if capturable is None else capturable
        self.rates = [torch.zeros((), device=self.device) for _ in self.param_groups] if self.capturable else []

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.take_rates()
        self.update()

    def take_rates(self) -> None:
        for rate, group in zip(self.rates, self.param_groups, strict=False):
            rate.fill_(group["lr"])

    @torch.no_grad()
    def update(self) -> None:
        for i, group in enumerate(self.param_groups):
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not (state := self.state[p]):
                    state |= {"step": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
                if self.capturable and not isinstance(state["step"], Tensor):  # a CPU's, from a checkpoint
                    state["step"] = torch.tensor(float(state["step"]), device=p.device)
                elif not self.capturable and isinstance(state["step"], Tensor):
                    state["step"] = int(state["step"])
            states = [self.state[p] for p in params]
            if self.capturable and params:
                self._capturable(group, self.rates[i], params, states)
                continue
            held: list[Held] = []
            for p, state in zip(params, states, strict=True):
                state["step"] += 1
                held += pieces(p, p.grad, state["m"], state["v"], self._size(group, state["step"]))
            for some in together(held):
                self._update(group, *some)

    def _size(self, group: dict[str, Any], step: int) -> float:
        beta1, beta2 = group["betas"]
        return -group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)

    def _update(self, group: dict[str, Any], params, gradients, m, v, sizes) -> None:
        foreach._foreach_addcdiv_(params, m, self._moved(group, gradients, m, v), sizes)
        if group["weight_decay"]:
            foreach._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])

    def _capturable(self, group: dict[str, Any], rate: Tensor, params: list, states: list[dict[str, Any]]) -> None:
        """1 - βᵗ is -expm1(t ln β), which loses nothing in single precision."""
        steps, m, v = ([state[key] for state in states] for key in ("step", "m", "v"))
        foreach._foreach_add_(steps, 1)
        t = torch.stack(steps)
        first, second = (-torch.expm1(t * (math.log(beta) if beta else -math.inf)) for beta in group["betas"])
        sizes = -rate * second.sqrt() / first
        changes = self._moved(group, [p.grad for p in params], m, v)
        foreach._foreach_reciprocal_(changes)
        foreach._foreach_mul_(changes, m)
        foreach._foreach_mul_(changes, [*sizes.unbind()])
        foreach._foreach_add_(params, changes)
        if group["weight_decay"]:
            foreach._foreach_mul_(params, 1 - rate * group["weight_decay"])

    def _moved(self, group: dict[str, Any], gradients, m, v) -> Any:
        """The moments of these gradients too, in place; √v + eps."""
        beta1, beta2 = group["betas"]
        foreach._foreach_lerp_(m, gradients, 1 - beta1)
        foreach._foreach_mul_(v, beta2)
        foreach._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        denominators = foreach._foreach_sqrt(v)
        foreach._foreach_add_(denominators, group["eps"])
        return denominators


Held = tuple[Tensor, Tensor, Tensor, Tensor, float]  # parameter, gradient, moments, and the size of its step


def pieces(p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, size: float) -> Iterator[Held]:
    """On the CPU, of at most `PIECE` numbers each."""
    four = p, gradient, m, v
    if p.device.type != "cpu" or p.numel() <= PIECE or not all(tensor.is_contiguous() for tensor in four):
        yield *four, size
        return
    for parts in zip(*(tensor.view(-1).split(PIECE) for tensor in four), strict=True):
        yield *parts, size


def together(held: list[Held]) -> Iterator[tuple[list, ...]]:
    """As many of them at a time as make a piece; on an accelerator, all."""
    some: list[Held] = []
    size = 0
    for one in held:
        numbers = one[0].numel()
        if some and one[0].device.type == "cpu" and size + numbers > PIECE:
            yield tuple(map(list, zip(*some, strict=True)))
            some, size = [], 0
        some.append(one)
        size += numbers
    if some:
        yield tuple(map(list, zip(*some, strict=True)))


def decayed(name: str) -> bool:
    """Whether a parameter gets weight decay: as published, all but names with "bias" or "LayerNorm.weight".

    No BART or T5 norm is called LayerNorm, so layer norms are decayed (`Recipe.decay_norms`); T5's relative-bias table
    is not.
    """
    return "bias" not in name and "LayerNorm.weight" not in name


def linear_schedule(optimizer: Optimizer, *, warmup: int, total: int) -> LambdaLR:
    """From 0 over `warmup` updates to the peak, then linearly to 0 at `total`; the first update has rate 0."""

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        return max(0.0, (total - step) / max(1, total - warmup))

    return LambdaLR(optimizer, factor)
