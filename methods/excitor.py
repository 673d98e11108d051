"""LLaMA-Excitor (Zou et al., CVPR 2024): every key gets a learned mixture of prompts added, and values none."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.backbone.interface import Context
from pet_bench.errors import UserError
from pet_bench.methods.llama_adapter import stacks_of, topmost
from pet_bench.pet import Delta, Design, Insert, Method, Place
from pet_bench.pet.visual_memory import FeaturesBeside, width_beside
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class ExtraKey(Delta):
    """f(x) = g ⊙ k^X, k^X = softmax(s B A x · Kᵀ) V, by heads, K = V = P; for a projection of keys, before rotary.

    P (length, d_k) ~ N(0, 1), A (rank, d_in) ~ N(0, 1/d_in), B (d_k, rank) ~ N(0, 1/rank), g (heads,) = 0, s as the
    attention's own scores have it. visual: K = [P; W_k I], V = [P; W_v I], I (M, f) the rows of features that the
    context keeps beside the sequence.
    """

    kind: ClassVar = "extra-key"
    length: Size
    rank: Size
    visual: bool = False

    @property
    def formula(self) -> str:
        key, value = ("[P; W_k I]", "[P; W_v I]") if self.visual else ("P", "P")
        return f"g ⊙ softmax(s B A {{x}} · {key}ᵀ) {value} (P ({self.length}, d), rank {self.rank})"

    def build(self, place, d_in):
        attention: Any = place.model.at(
            place.anatomy.sites[place.site.rpartition(".")[0]].writer,
            place.anatomy.stacks[place.stack].name_of(place.layer),
        )
        width = width_beside(place) if self.visual else None
        return ExtraKeys(self, d_in, place.d_h, heads_of(place), attention.scaling, width, place.context)


def heads_of(place: Place) -> int:
    """Of the keys, of which there may be fewer than of the queries."""
    stack = place.anatomy.stacks[place.stack]
    query = place.model.at(
        place.anatomy.sites[f"{place.site.rpartition('.')[0]}.query"].writer, stack.name_of(place.layer)
    )
    return place.d_h * stack.heads // cast(nn.Linear, query).out_features


class ExtraKeys(nn.Module):
    """scale: of the scores. width: of the rows of features, None: there are none."""

    def __init__(
        self, spec: ExtraKey, d_in: int, d: int, heads: int, scale: float, width: int | None, context: Context
    ):
        super().__init__()
        self.heads, self.scale, self.context = heads, scale, context
        self.prompts = _normal(spec.length, d, var=1)
        self.A, self.B = _normal(spec.rank, d_in, var=1 / d_in), _normal(d, spec.rank, var=1 / spec.rank)
        self.gate = nn.Parameter(torch.zeros(heads))
        self.key = self.value = None
        if width is not None:
            self.key, self.value = (_normal(d, width, var=1 / width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixture(x)
        return (self.gate[:, None] * mixed.unflatten(-1, (self.heads, -1))).flatten(-2)

    def mixture(self, x: Tensor) -> Tensor:
        """k^X: (B, T, d_in) → (B, T, d_k)."""
        query = self._split(x @ self.A.T @ self.B.T)
        key = value = self._split(self.prompts[None])
        if self.key is not None and self.value is not None:
            images = self.context.beside
            if images is None:
                raise UserError("there are no features beside the sequence: the model has not read any image")
            key, value = (self._with(prompts, images @ w.T) for prompts, w in ((key, self.key), (value, self.value)))
        weights = (self.scale * query @ key.mT).softmax(dim=-1).to(value.dtype)
        return (weights @ value).transpose(1, 2).flatten(-2)

    def _split(self, states: Tensor) -> Tensor:
        """(B, N, d) → (B, heads, N, width)."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _with(self, prompts: Tensor, images: Tensor) -> Tensor:
        return torch.cat([prompts.to(images.dtype).expand(len(images), -1, -1, -1), self._split(images)], dim=2)


def _normal(*shape: int, var: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).normal_(std=var**0.5))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Excitor(Method):
    """k ← k + g ⊙ k^X in the topmost layers' self-attentions, k^X = softmax(q^E Pᵀ / √c) P, q^E = B A x, by heads.

    The paper adds scores, S + g S^X with S^X = q (k^X)ᵀ / √c and the same frozen query q. That is q (k + g ⊙ k^X)ᵀ / √c
    and, as rotary positions are linear maps of keys, an insert at the key projection: caches, beams, masks and kernels
    are the stock ones. Where a family norms its keys behind the projection, it norms the sum, and the scores are no
    longer such a sum. Values are never touched.

    length: rows of P, one P a layer. rank: of W^E = B A. With 30 and 16 in 30 of 32 layers LLaMA-7B has the published
    7.6M. layers: so many of the topmost of each stack; by default all but the lowest 1/16. visual: the multi-modal
    form, softmax over prompts and image features, K = [P; W_k I] and V = [P; W_v I]; no visual token enters the
    sequence.

    There is no released code. Heads, divisor, rotary and starts are our own reading. g is by head and starts at 0; P
    starts as LLaMA-Adapter's, A and B so that q^E is as large as x. Were B = 0 too, or all of them as small as 0.02,
    k^X would be all but the same at every token, which a softmax without rotary positions does not see. BART and T5,
    whose scores have no divisor: our transfer.
    """

    name: ClassVar = "excitor"
    source: ClassVar = "LLaMA-Excitor (Zou et al., CVPR 2024), figures and tables, no code; METHODS_A section 6"
    reference: ClassVar = "none: no code was released"
    year: ClassVar = 2024
    size: ClassVar = "rank"
    learning_rates: ClassVar = {"mini-bart": 2e-3, "mini-t5": 5e-3, "mini-llama": 5e-3}

    length: Size = 30
    rank: Size = 16
    layers: Size | None = None
    visual: bool = False

    @property
    def identity_at_start(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return not self.visual

    def skip(self, anatomy):
        if self.visual and "features" not in anatomy.offers:
            return "the backbone has no visual tokens that are made of stored features"
        return None if stacks_of(anatomy) else "the backbone has no self-attention whose keys a projection makes"

    def design(self, anatomy):
        key = ExtraKey(self.length, self.rank, self.visual)
        inserts = tuple(
            Insert(
                (f"{stack}.self_attn.key",),
                key,
                reads="input",
                layers=topmost(anatomy.stacks[stack].layers, self.layers),
            )
            for stack in stacks_of(anatomy)
        )
        return Design(inserts, train=(), doors=(FeaturesBeside(),)) if self.visual else Design(inserts)
