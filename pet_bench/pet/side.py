"""What networks beside a frozen backbone share: the features that they read, and the cut that keeps gradients out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

from pet_bench.backbone.interface import Model
from pet_bench.pet.inserted import states_of


class FrozenStack:
    """A stack of the backbone and what is left of a pass through it: `features` f_0 … f_L, (B, N, d), f_0 being what
    enters its first layer and f_l what its l-th gives, and the `cache` of the pass.

    cut: each layer reads a copy of its input without a graph, so that frozen layers keep nothing for a backward pass,
    and gradients reach what made f_0 through who reads f_0 here, and on no other way.
    """

    def __init__(self, model: Model, stack: str, *, cut: bool = True):
        self.cut, self.features = cut, list[Tensor]()
        self.cache: Cache | None = None
        place = model.anatomy.stacks[stack]
        layers = [model.at(place.blocks, place.name_of(i)) for i in range(place.layers)]
        for i, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._enter, i), with_kwargs=True)
        layers[-1].register_forward_hook(self._leave)

    def _enter(self, i: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any]):
        if i == 0:
            self.features = []
            self.cache = next((given for given in (*args, *kwargs.values()) if isinstance(given, Cache)), None)
        states = read(args, kwargs)
        self.features.append(states)
        return replaced(states.detach(), args, kwargs) if self.cut else None

    def _leave(self, layer: nn.Module, args: tuple, output: Any) -> None:
        self.features.append(states_of(output))

    def take(self) -> tuple[list[Tensor], Cache | None]:
        """The features and the cache, which are kept no longer."""
        features, cache = self.features, self.cache
        self.features, self.cache = [], None
        return features, cache


def read(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """The states that a layer, called so, reads."""
    return args[0] if args else kwargs["hidden_states"]


def replaced(states: Tensor, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The same call with other states."""
    return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})


class SideLayer(DynamicLayer):
    """What a side network keeps in a generation cache, where it follows the beams as all else does."""

    def __init__(self) -> None:
        super().__init__()


def grown(cache: Cache | None, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """States (B, n, T, w) and mask (B, T) of this step behind those of all steps before: (B, n, S, w), (B, S)."""
    if cache is None:
        return states, mask
    layers = cache.self_attention_cache.layers if isinstance(cache, EncoderDecoderCache) else cache.layers
    kept = next((layer for layer in layers if isinstance(layer, SideLayer)), None)
    if kept is None:
        layers.append(kept := SideLayer())
    states, values = kept.update(states, mask[:, None, :, None].to(states.dtype))
    return states, values[:, 0, :, 0].to(mask.dtype)


class NormedDown(nn.Module):
    """LN(W f + b), d → w."""

    def __init__(self, d: int, width: int):
        super().__init__()
        self.linear, self.norm = nn.Linear(d, width), nn.LayerNorm(width)

    def forward(self, f: Tensor) -> Tensor:
        return self.norm(self.linear(f))


class Wide(nn.Module):
    """LN(W_2 relu(W_1 u + b_1) + b_2), w → d → w."""

    def __init__(self, d: int, width: int):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, d), nn.Linear(d, width), nn.LayerNorm(width)

    def forward(self, u: Tensor) -> Tensor:
        return self.norm(self.down(torch.relu(self.up(u))))


def initialise(modules: Iterable[nn.Module], std: float) -> None:
    """W ~ N(0, std²), b = 0 in every linear layer."""
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
