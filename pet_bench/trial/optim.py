"""The published runs' optimiser: AdamW as transformers 4.2.1 had it, linear warm-up and decay.

It differs from `torch.optim.AdamW` in two places: eps is added to √v before the bias correction, and the decay acts
on the updated parameter instead of before the update.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

foreach: Any = torch  # whose stubs leave these functions out


class ReferenceAdamW(Optimizer):
    """m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²
    p ← p - lr √(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + eps),  then  p ← p - lr·λ·p
    """

    def __init__(self, params, lr: float, betas=(0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"step": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
                self.state[p]["step"] += 1
            self._update(group, params)

    def _update(self, group, params) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        gradients = [p.grad for p in params]
        m = [self.state[p]["m"] for p in params]
        v = [self.state[p]["v"] for p in params]
        foreach._foreach_lerp_(m, gradients, 1 - beta1)
        foreach._foreach_mul_(v, beta2)
        foreach._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        denominators = foreach._foreach_sqrt(v)
        foreach._foreach_add_(denominators, group["eps"])
        sizes = []
        for p in params:
            step = self.state[p]["step"]
            sizes.append(-lr * math.sqrt(1 - beta2**step) / (1 - beta1**step))
        foreach._foreach_addcdiv_(params, m, denominators, sizes)
        if group["weight_decay"]:
            foreach._foreach_mul_(params, 1 - lr * group["weight_decay"])


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
