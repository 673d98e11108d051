"""LoRA (Hu et al., ICLR 2022) on the query and value projections of every attention, or on more linear layers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.identity import Since
from pet_bench.pet import Design, Insert, LowRank, Method
from pet_bench.spec import STRICT, Names, Size

REAL = 512  # the width from which on a vision-language model is one that recipes are published for
ATTENTION, FFN = ("query", "key", "value", "out"), ("gate", "in", "out")
# Recipes by family, with the sources of every number in docs/published.md.
PUBLISHED: dict[str, dict[str, Any]] = {
    "llava": {"rank": 128, "alpha": 256.0, "dropout": 0.05},
    "qwen2.5-vl": {"rank": 8, "alpha": 16.0, "dropout": 0.0},
    "qwen3-vl": {"rank": 8, "alpha": 16.0, "dropout": 0.0},
    "paligemma2": {"rank": 8, "alpha": 8.0, "dropout": 0.0},
    "gemma3": {"rank": 16, "alpha": 16.0, "dropout": 0.05},
    "smolvlm": {"rank": 8, "alpha": 8.0, "dropout": 0.1},
    "internvl": {"rank": 16, "alpha": 32.0, "dropout": 0.05},
    "florence2": {
        "rank": 8, "alpha": 22.63, "dropout": 0.05, "projections": ("query", "key", "value"), "ffn": ("out",)
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoRA(Method):
    """y = W x + b + (alpha/r) B A dropout(x), A (r, d) ~ U(-1/√d, 1/√d), B (d, r) = 0.

    rank: r; 128 on BART and 150 on T5 at d = 768, in proportion elsewhere; vision-language models of real sizes have
    what is published for their families. projections: of self- and cross-attention alike. ffn: of the feed-forwards
    (gate, in, out), as far as they have them. biases: every bias of the backbone trains too, layer norms' included; the
    published BART runs do so, T5 has none. Among BART's are those of the key projections, whose gradient is zero in
    exact arithmetic (METHODS.md section 10, 11). per_task: every task has an A and a B of its own.
    """

    name: ClassVar = "lora"
    source: ClassVar = "LoRA (Hu et al., ICLR 2022); settings of VL-PET Table 2 and Ladder-Side-Tuning"
    year: ClassVar = 2022
    size: ClassVar = "rank"
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 2e-3, "mini-t5": 3e-3} | {
        "mini-llama": 2e-3, "mini-llava": 5e-3, "llava": 2e-4, "qwen2.5-vl": 1e-4, "qwen3-vl": 1e-4,
        "paligemma2": 2e-5, "gemma3": 2e-4, "smolvlm": 1e-4, "internvl": 4e-5, "florence2": 1e-5,
    }  # fmt: skip
    identity_at_start: ClassVar = True

    rank: Size
    biases: bool
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    projections: Names = ("query", "value")
    ffn: Annotated[Names, Since(2, neutral=())] = ()
    per_task: bool = False

    @classmethod
    def defaults(cls, anatomy):
        if anatomy.d >= REAL and anatomy.family in PUBLISHED:
            return {"projections": ATTENTION, "ffn": FFN, "biases": False} | PUBLISHED[anatomy.family]
        at_768 = anatomy.among({"bart": 128, "t5": 150, "*": 128})
        return {"rank": max(1, round(anatomy.d * at_768 / 768)), "biases": anatomy.among({"bart": True, "*": False})}

    def design(self, anatomy):
        update = LowRank(self.rank, self.alpha, self.dropout, self.per_task)
        sites = (*anatomy.projections(self.projections), *feed_forwards(anatomy, self.ffn))
        return Design(
            inserts=(Insert(sites, update, reads="input"),),
            train=("visual", "biases") if self.biases else ("visual",),
        )


def feed_forwards(anatomy: Anatomy, names: Names) -> list[str]:
    """These projections of the feed-forwards that have them; of all, which is then said, where none has."""
    places = [(name, f"{site}.{name}") for site in anatomy.sub_layers if site.endswith("ffn") for name in names]
    there = {name for name, site in places if site in anatomy.sites}
    return [site for name, site in places if site in anatomy.sites or name not in there]
