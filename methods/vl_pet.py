"""VL-PET (Hu et al., ICCV 2023): gated adapters in the encoder, a light decoder."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Bottleneck, Design, Insert, LargeGate, Method, MiddleXGate, MiddleYGate, SmallGate
from pet_bench.spec import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VLPET(Method):
    """Encoder, after self-attention and feed-forward:

        Y  = H + W_u gelu_new(W_d H + b_d) + b_u
        H' = s · G ⊙ Y,  G the granularity gate

    Decoder, cross-attention values only: V = W_v E + b_v + W_u gelu_new(W_d E + b_d) + b_u, E the encoder output.

    bottleneck: r (96 on BART, 192 on T5, at d = 768); gate_width: r_g of the large gate, likewise;
    decoder_bottleneck: 96 on both; gate: the granularity; scale: s (1 on BART, 0.3 on T5; it multiplies H too, not
    only what was added); norms: the encoder's layer norms train; zero_init: the last layer of adapter, gate and value
    module starts at 0 (the published T5 runs): there every encoder sub-layer starts at 0.3 · 0.5 of its output.

    The paper's multi-head down projection is built as one matrix: every head reads the whole of H, so that the heads
    side by side are one linear layer in function, count and initialisation (METHODS.md 3.2). The published middle Y
    has no sigmoid, and the small gate's mean counts padded positions; both are kept.
    """

    source: ClassVar = "VL-PET (Hu et al., ICCV 2023), sections 3.2-3.4"
    year: ClassVar = 2023
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}
    granularity: ClassVar[str]

    bottleneck: int = Field(gt=0)
    gate_width: int = Field(gt=0)
    decoder_bottleneck: int = Field(gt=0)
    gate: Literal["large", "middle-x", "middle-y", "small", "none"]
    scale: float = Field(gt=0)
    zero_init: bool
    norms: bool = True

    @classmethod
    def defaults(cls, shape):
        bart = shape.family == "bart"
        width = shape.d // (8 if bart else 4)
        return {
            "bottleneck": width,
            "gate_width": width,
            "decoder_bottleneck": shape.d // 8,
            "gate": cls.granularity,
            "scale": 1.0 if bart else 0.3,
            "zero_init": not bart,
        }

    def design(self, shape):
        gates = {
            "large": LargeGate(self.gate_width, self.zero_init),
            "middle-x": MiddleXGate(self.zero_init),
            "middle-y": MiddleYGate(self.zero_init),
            "small": SmallGate(self.zero_init),
            "none": None,
        }
        encoder = Insert(
            ("encoder.self_attn", "encoder.ffn"),
            Bottleneck(self.bottleneck, self.zero_init),
            gate=gates[self.gate],
            scale=self.scale,
        )
        values = Insert(
            ("decoder.cross_attn.value",), Bottleneck(self.decoder_bottleneck, self.zero_init), reads="input"
        )
        return Design(inserts=(encoder, values), train=("visual", "encoder.norms") if self.norms else ("visual",))


class VLPETLarge(VLPET):
    """A gate per token and dimension: G = σ(W_2 gelu_new(W_1 X + b_1) + b_2), (B, T, d)."""

    name: ClassVar = "vl-pet-large"
    granularity: ClassVar = "large"


class VLPETMiddleX(VLPET):
    """A gate per token: G = σ(w (X + Y) + b), (B, T, 1)."""

    name: ClassVar = "vl-pet-middle-x"
    granularity: ClassVar = "middle-x"


class VLPETMiddleY(VLPET):
    """A gate per dimension: G = 1 + g, (d,)."""

    name: ClassVar = "vl-pet-middle-y"
    granularity: ClassVar = "middle-y"


class VLPETSmall(VLPET):
    """A gate per example: G = mean over positions of σ(w [X; Y] + b), (B, 1, 1)."""

    name: ClassVar = "vl-pet-small"
    granularity: ClassVar = "small"
    batch_invariant: ClassVar = False  # the gate's mean counts padding
