"""VL-PET (Hu et al., ICCV 2023): gated adapters in the encoder, a light decoder, and every ablation of both."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import (
    Bottleneck,
    Delta,
    DeltaGate,
    Design,
    Difference,
    FactorBottleneck,
    Gate,
    Identity,
    Insert,
    LargeGate,
    LowRankProjector,
    Method,
    MiddleXGate,
    NoVision,
    PHMBottleneck,
    SmallGate,
    VectorGate,
)
from pet_bench.spec import STRICT, Names, Size

Where = Literal["sequential", "parallel", "replace", "ia3", "ia3-add"]
Layout = Literal["down", "up", "down-up", "pair"]
Module = Literal["bottleneck", "phm", "factor", "none"]
GateName = Literal["large", "large-full", "middle-x", "middle-y", "small", "delta", "none"]
EncoderSite = Literal[
    "self_attn", "self_attn.query", "self_attn.key", "self_attn.value", "self_attn.out", "ffn", "ffn.in", "ffn.hidden",
    "ffn.out",
]  # fmt: skip
DecoderSite = Literal[
    EncoderSite, "cross_attn", "cross_attn.query", "cross_attn.key", "cross_attn.value", "cross_attn.out",
    "cross_attn.memory", "head",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VLPET(Method):
    """Encoder, after self-attention and feed-forward:

        Y  = b H + a (W_u gelu_new(W_d H + b_d) + b_u)
        H' = s · G ⊙ Y,  G the granularity gate

    Decoder, cross-attention values only: V = W_v E + b_v + W_u gelu_new(W_d E + b_d) + b_u, E the encoder output.

    What. module: ΔH at the encoder's sub-layers; bottleneck: its r (96 on BART, 192 on T5, at d = 768); heads,
    head_layout: the paper's multi-head projections, of which only "pair" is another function than one head
    (`Bottleneck`). value_module, value_bottleneck (96 on both), value_heads: likewise everywhere else.
    Where. encoder, decoder: sites below the stack, each "sequential" ΔH = f(H), "parallel" ΔH = f(X), "replace"
    (H' = X + f(X): the projection is dropped, as the reference's value-sequential adapter does), "ia3" H' = v ⊙ H or
    "ia3-add" H' = (1 + v) ⊙ H.
    Gate. gate and gate_width, r_g of the large one: at the encoder's sub-layers; value_gate, value_gate_width:
    everywhere else; gating: multiply by the gate, add it, or multiply "base", H alone; norm: a layer or l2
    normalisation of Y. "delta" is the gate in place of the module, σ(ΔH). gate_padding: padded positions count in the
    small gate's mean ("counted", as published) or not ("masked", as meant). gate_sigmoid: middle Y is σ(g), as the
    paper has it, instead of 1 + g, as published.
    Scale. scale: s (1 on BART, 0.3 on T5; it multiplies H too, not only what was added); delta_scale: a; base_scale:
    b: at the encoder's sub-layers; value_scale: a everywhere else; value_residual: V ← E + V in the cross-attention.
    Start. module_init, gate_init, value_init: "zero" sets the last layer to 0 (the published T5 runs, where every
    encoder sub-layer then starts at 0.3 · 0.5 of its output), an IA³ vector to what changes nothing; "one" is for
    middle Y and IA³ vectors.
    Also. train: what else trains; visual: the visual embedding is trained, frozen, of low rank (projector_width r,
    projector_heads, projector_gate_width, projector_residual; `LowRankProjector`) or left out with all images.

    The head count changes nothing: every head of the paper's multi-head down projection reads the whole of H, so that
    the heads side by side are one linear layer in function, count and initialisation (METHODS.md 3.2).
    """

    source: ClassVar = "VL-PET (Hu et al., ICCV 2023), sections 3.2-3.4"
    year: ClassVar = 2023
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}
    needs: ClassVar = ("encoder", "decoder.cross_attn")
    granularity: ClassVar[str]
    differences: ClassVar = (
        Difference(
            "small-gate-padding", "gate_padding", "counted", "masked", {"gate": "small"},
            "The small gate averages over padded positions too, so an example's gate depends on its batch; meant is "
            "a mean over the example's own tokens.",
            "METHODS.md 3.3 and 10, 7; parity/bart_vlpet_small",
        ),
        Difference(
            "middle-y-sigmoid", "gate_sigmoid", False, True, {"gate": "middle-y"},
            "The paper writes a sigmoid around every gate; the code's middle Y is 1 + g without one.",
            "METHODS.md 3.3; parity/bart_vlpet_middleY",
        ),
    )  # fmt: skip

    bottleneck: Size
    module: Module = "bottleneck"
    heads: Size = 4
    head_layout: Layout = "down"
    encoder: dict[EncoderSite, Where] = Field(default_factory=lambda: {"self_attn": "sequential", "ffn": "sequential"})
    gate: GateName
    gate_width: Size
    gating: Literal["multiply", "add", "base"] = "multiply"
    gate_sigmoid: bool = False
    gate_padding: Literal["counted", "masked"] = "counted"
    norm: Literal["layer", "l2"] | None = None
    scale: float = Field(gt=0)
    delta_scale: float = 1.0
    base_scale: float = 1.0
    value_module: Module = "bottleneck"
    value_bottleneck: Size
    value_heads: Size = 1
    decoder: dict[DecoderSite, Where] = Field(default_factory=lambda: {"cross_attn.value": "parallel"})
    value_gate: GateName = "none"
    value_gate_width: Size
    value_scale: float = 1.0
    value_residual: bool = False
    module_init: Literal["default", "zero"]
    gate_init: Literal["default", "zero", "one"]
    value_init: Literal["default", "zero", "one"]
    train: Names = ("encoder.norms",)
    visual: Literal["trained", "frozen", "low-rank", "none"] = "trained"
    projector_width: Size = 96
    projector_heads: Size = 1
    projector_gate_width: Size | None = None
    projector_residual: bool = False

    @classmethod
    def defaults(cls, anatomy) -> dict[str, Any]:
        width = anatomy.d // anatomy.among({"bart": 8, "t5": 4, "*": 8})
        start = anatomy.among({"t5": "zero", "*": "default"})
        return {
            "bottleneck": width,
            "gate_width": width,
            "value_bottleneck": anatomy.d // 8,
            "value_gate_width": anatomy.d // 8,
            "gate": cls.granularity,
            "scale": anatomy.among({"t5": 0.3, "*": 1.0}),
            "module_init": start,
            "gate_init": start,
            "value_init": start,
        }

    @property
    def batch_invariant(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        """False where a small gate's mean counts padding; the decoder's always does."""
        return (self.gate != "small" or self.gate_padding == "masked") and self.value_gate != "small"

    def design(self, anatomy):
        encoder = [self._insert("encoder", site, how) for site, how in self.encoder.items()]
        decoder = [self._insert("decoder", site, how) for site, how in self.decoder.items()]
        if self.value_residual:
            decoder.append(Insert(("decoder.cross_attn.value",), Identity(), reads="input"))
        doors = {
            "low-rank": LowRankProjector(
                self.projector_width, self.projector_heads, self.projector_gate_width, self.projector_residual
            ),
            "none": NoVision(),
        }
        return Design(
            inserts=(*encoder, *decoder),
            train=(*(("visual",) if self.visual in ("trained", "low-rank") else ()), *self.train),
            doors=(doors[self.visual],) if self.visual in doors else (),
        )

    def _insert(self, stack: str, site: str, how: Where) -> Insert:
        path, main = f"{stack}.{site}", stack == "encoder" and "." not in site
        if how in ("ia3", "ia3-add"):
            start = "one" if how == "ia3" and self.value_init == "zero" else self.value_init
            return Insert((path,), gate=VectorGate(float(how == "ia3-add"), start))
        if main:
            module = self._module(self.module, self.bottleneck, self.heads, self.head_layout, self.module_init)
            terms = {
                "gate": self._gate(self.gate, self.gate_width),
                "gating": self.gating,
                "norm": self.norm,
                "scale": self.scale,
            }
            terms |= {"delta_scale": self.delta_scale, "base_scale": self.base_scale}
        else:
            module = self._module(self.value_module, self.value_bottleneck, self.value_heads, "down", self.value_init)
            terms = {"gate": self._gate(self.value_gate, self.value_gate_width), "delta_scale": self.value_scale}
        reads = "output" if how == "sequential" else "input"
        return Insert((path,), module, reads, adds_to="input" if how == "replace" else "output", **terms)

    @staticmethod
    def _module(name: Module, width: int, heads: int, layout: Layout, start: str) -> Delta | None:
        return {
            "bottleneck": Bottleneck(width, start == "zero", heads=heads, layout=layout),
            "phm": PHMBottleneck(width),
            "factor": FactorBottleneck(width),
            "none": None,
        }[name]

    def _gate(self, name: GateName, width: int) -> Gate | None:
        zero = self.gate_init == "zero"
        return {
            "large": LargeGate(width, zero),
            "large-full": LargeGate(None, zero),
            "middle-x": MiddleXGate(zero),
            "middle-y": VectorGate(1.0, self.gate_init, self.gate_sigmoid),
            "small": SmallGate(zero, self.gate_padding),
            "delta": DeltaGate(),
            "none": None,
        }[name]


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
