"""Images beside the sequence: made of the stored features once per batch, kept for the decoder, read where it suits.

`Beside` stands in the place of the visual embedding, so that no visual token, or one an image, enters the sequence.
`VisualMemory` is what MemVP and ADEM-VL share: rows of keys and values beside those of every feed-forward.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import activation
from transformers import activations

from pet_bench.backbone.interface import Context, Model
from pet_bench.backbone.visual import pool_grid
from pet_bench.errors import UserError, unknown
from pet_bench.pet.build import Builder
from pet_bench.pet.deltas import TwoLayer
from pet_bench.pet.doors import visual_embedding
from pet_bench.pet.parts import Door
from pet_bench.spec import STRICT, Names, Size


class Beside(nn.Module, ABC):
    """In the place of the visual embedding: `memory` goes to the context's `beside`, `tokens` into the sequence."""

    def __init__(self, build: Builder):
        super().__init__()
        self.visual, self.d = visual_embedding(build).visual, build.anatomy.d
        self.model: tuple[Model] = (build.model,)  # in a tuple: the backbone is no part of this

    @abstractmethod
    def memory(self, features: Tensor) -> Tensor:
        """(B, I, N, f) → (B, M, …)."""

    def tokens(self, features: Tensor) -> Tensor:
        """(B, I, N, f) → (B, P, d); by default there are none."""
        return features.new_zeros(len(features), 0, self.d)

    def forward(self, features: Tensor, words: Tensor, boxes: Tensor | None = None) -> Tensor:
        """(B, I, N, f) → the visual tokens of the sequence, (B, P, d). words, boxes: not used."""
        self.model[0].context.beside = self.memory(features)
        return self.tokens(features)

    def there(self, rows: Tensor) -> Tensor:
        """(…, f) → (…, 1): 0 for rows of zeros where these are of no image (`Model.masks_empty`), else 1."""
        (model,) = self.model
        if model.context.task in model.masks_empty:
            return rows.any(dim=-1, keepdim=True).to(rows.dtype)
        return torch.ones_like(rows[..., :1])


class Rows(Beside):
    """The pooled features themselves, (B, M, width); an image that is not there is rows of 0."""

    def memory(self, features):
        return pool_grid(features, self.visual.pooled).flatten(1, 2)


@dataclass(frozen=True, config=STRICT)
class FeaturesBeside(Door):
    """No visual tokens in the sequence: the pooled features are kept beside it, for inserts that read them."""

    kind: ClassVar = "features-beside"

    @property
    def formula(self) -> str:
        return "sequence = [text], I = features"

    def open(self, build):
        build.model.visual = Rows(build)


def width_beside(build: Builder) -> int:
    """Of the features that are kept beside the sequence; raises UserError where none are."""
    if not isinstance(rows := getattr(build.model, "visual", None), Rows):
        raise UserError('no features are kept beside the sequence, which the door "features-beside" does')
    return rows.visual.width


def beta_at(d: int) -> float:
    """β of E: as published, and in narrow models, in which x Eᵀ would be nothing, ten times that."""
    return 0.01 if d >= 512 else 0.1


def two_layer(d_in: int, hidden: int, d_out: int) -> TwoLayer:
    """W_b silu(W_a x + b_a) + b_b, weights Xavier-uniform, biases 0."""
    layers = nn.Linear(d_in, hidden), nn.Linear(hidden, d_out)
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return TwoLayer(*layers, "silu")


class MemoryRows(Beside):
    """E = β · W_b silu(W_a f + b_a) + b_b of every row f of the pooled grids, 0 for images that are not there, and rows
    of 0 behind them: (B, rows, d). token: a further visual token an image, another such network on the mean of f."""

    def __init__(self, spec: VisualMemory, build: Builder):
        super().__init__(build)
        self.beta, pooled = spec.beta, self.visual.pooled
        if spec.grids == "pooled":
            self.sides = []
        elif spec.grids == "pyramid":
            self.sides = [_side(pooled), math.ceil(_side(pooled) / 2)]
        else:
            self.sides = [_side(rows) for rows in spec.grids]
        self.rows = self.visual.images * (sum(n**2 for n in self.sides) or pooled) + spec.extra
        self.project = two_layer(self.visual.width, spec.hidden, self.d)
        self.token = two_layer(self.visual.width, spec.hidden, self.d) if spec.token else None

    def pooled(self, features: Tensor) -> Tensor:
        """(B, I, N, f) → (B, I, M, f), the largest grid first, each row by row."""
        if not self.sides:
            return pool_grid(features, self.visual.pooled)
        batch, images, tokens, width = self.whole(features).shape
        side = _side(tokens)
        grid = features.reshape(batch * images, side, side, width).permute(0, 3, 1, 2)
        pools = [F.adaptive_avg_pool2d(grid, n).flatten(2).transpose(1, 2) for n in self.sides]
        pooled = torch.cat(pools, dim=1)
        return pooled.reshape(batch, images, pooled.shape[1], width)

    def memory(self, features):
        features = self.pooled(features)
        rows = (self.beta * self.there(features) * self.project(features)).flatten(1, 2)
        return F.pad(rows, (0, 0, 0, self.rows - rows.shape[1]))

    def tokens(self, features):
        return super().tokens(features) if self.token is None else self.token(self.whole(features).mean(dim=2))

    def whole(self, features: Tensor) -> Tensor:
        """(B, I, N, f) as they are; raises UserError where the store has pooled them."""
        if features.shape[2] != self.visual.tokens:
            there = f"{features.shape[2]} of {self.visual.tokens}"
            raise UserError(f"the method reads the whole grid of features, packed are {there}: pack without --pooled")
        return features


def _side(rows: int) -> int:
    """Of a square grid of so many rows."""
    side = math.isqrt(rows)
    if side**2 != rows:
        raise UserError(f"{rows} features of an image are no square grid, as average pooling needs")
    return side


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisualMemory(Door):
    """Visual rows as further keys K = E + P_1 and values V = E + P_2 of every feed-forward; x is what its W_in reads:

        FFN(x) ← FFN(x) + s · dropout(φ(x Kᵀ)) V               scores: φ the feed-forward's "own" activation, or "silu"
        FFN(x) ← FFN(x) + s · keep ⊙ (silu(x) silu(K)ᵀ) V      scores: "linear"

    E (B, M, d) as in `MemoryRows`, of two-layer networks of width `hidden`; P_1 ~ N(0, 0.02²) and P_2 = 0, (M, d), are
    shared by all layers of `stacks`. M: the rows of the most images that an example may have, and `extra`.
    grids: the rows of each grid that features are average-pooled to; "pooled", as the visual embedding pools them;
    "pyramid": to that size and to half of that side. drop: that share of the scores of each token, the lowest, counts
    as 0, also in evaluation. dropout: of the scores, in training. token: one visual token an image stays.
    """

    kind: ClassVar = "visual-memory"
    hidden: Size
    scores: Literal["own", "silu", "linear"]
    scale: float
    beta: float
    stacks: Names = ("encoder", "decoder")
    grids: Literal["pooled", "pyramid"] | tuple[Size, ...] = "pooled"
    extra: int = Field(default=0, ge=0, le=1_000_000)
    drop: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    token: bool = False

    @property
    def formula(self) -> str:
        scores = {"own": "φ(x Kᵀ)", "silu": "silu(x Kᵀ)", "linear": "(silu(x) silu(K)ᵀ)"}[self.scores]
        keep = "keep ⊙ " if self.drop else ""
        memory = f"K = E + P_1, V = E + P_2, E = {self.beta:g} · W_b silu(W_a f + b_a) + b_b (hidden {self.hidden})"
        return f"{', '.join(self.stacks)}: FFN(x) + {self.scale:g} · {keep}{scores} V, {memory}"

    def open(self, build):
        model, anatomy = build.model, build.anatomy
        model.visual = rows = MemoryRows(self, build)
        memory = Memory(self, rows.rows, anatomy.d, build.context)
        for stack in self.stacks:
            if stack not in anatomy.words:
                raise unknown("stack", stack, anatomy.words)
            reads, writes = (anatomy.sites[f"{stack}.{name}"].writer for name in ("ffn.in", "ffn"))
            for layer in range(anatomy.stacks[stack].layers):
                act = _activation(model.at(reads.rpartition(".")[0], layer))
                memory.stand(model.at(reads, layer), model.at(writes, layer), act)
        return memory


def _activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The activation function among the modules in one."""
    places = (activation.__name__, activations.__name__)
    return cast(nn.Module, next(one for one in module.children() if type(one).__module__ in places))


class Memory(nn.Module):
    def __init__(self, spec: VisualMemory, rows: int, d: int, context: Context):
        super().__init__()
        self.spec, self.context = spec, context
        self.keys = nn.Parameter(torch.empty(rows, d).normal_(std=0.02))
        self.values = nn.Parameter(torch.zeros(rows, d))

    def forward(self, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        """What, times s, is added to a feed-forward that reads x (B, T, d) and has the activation `act`: (B, T, d)."""
        spec, images = self.spec, self.context.beside
        if images is None:
            raise UserError("there is no visual memory: the model has not read any image")
        keys, values = (images + self.keys).to(x.dtype), (images + self.values).to(x.dtype)
        if spec.scores == "linear":
            scores = F.silu(x) @ F.silu(keys).mT
        else:
            scores = (act if spec.scores == "own" else F.silu)(x @ keys.mT)
        if dropped := int(spec.drop * scores.shape[-1]):
            scores = scores * (scores >= scores.detach().kthvalue(dropped + 1, keepdim=True).values)
        return F.dropout(scores, spec.dropout, self.training) @ values

    def stand(self, reader: nn.Module, writer: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
        """Add to what `writer` gives whenever the pair of a feed-forward runs: x is what `reader` was given."""
        kept: list[Tensor] = []

        def read(module: nn.Module, args: tuple) -> None:
            kept[:] = args[:1]

        def write(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            return output + (self.spec.scale * self(kept.pop(), act)).to(output.dtype)

        reader.register_forward_pre_hook(read)
        writer.register_forward_hook(write)
