"""VL-Adapter (Sung et al., CVPR 2022): one adapter after every sub-layer."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from pet_bench.pet import Bottleneck, Design, Difference, Insert, Method
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VLAdapter(Method):
    """H' = H + W_u gelu_new(W_d H + b_d) + b_u after self-attention, cross-attention and feed-forward, everywhere.

    bottleneck: r; d/8 on BART (VL-PET repository), d/4 on T5 (Ladder-Side-Tuning repository). per_task: "none" shares
    the adapters among the tasks ("single", the published tables), "both" gives every task its own ("multiple"), "down"
    or "up" one of the two layers ("half-shared"). task_prompts: whether texts begin with the task's prompt ("vqa: ");
    None is as published: not where every task has its own adapters, in the suite image-text. norm_before, norm_after:
    a layer norm around the adapter. norms: layer norms of encoder and decoder train too: as published on BART, as
    meant on T5, whose published runs trained none by mistake and whose default is False.
    """

    name: ClassVar = "vl-adapter"
    source: ClassVar = "VL-Adapter (Sung et al., CVPR 2022), single adapter; widths of VL-PET Table 2 and LST"
    year: ClassVar = 2022
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}
    differences: ClassVar = (
        Difference(
            "t5-norms", "norms", False, True, {"family": "t5"},
            "The published T5 runs ask for trained layer norms, but their trainer looks for another norm class than "
            "their model uses, so none ever trained.",
            "METHODS.md 10, 1; parity/t5_vladapter (`unfreeze_layer_norms` is set, no norm has a gradient)",
        ),
    )  # fmt: skip

    bottleneck: Size
    norms: bool
    per_task: Literal["none", "both", "down", "up"] = "none"
    task_prompts: bool | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  an option here
    norm_before: bool = False
    norm_after: bool = False

    @property
    def promptless(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return ("image-text",) if self.per_task == "both" else ()

    @classmethod
    def defaults(cls, anatomy):
        return {
            "bottleneck": anatomy.d // anatomy.among({"bart": 8, "t5": 4, "*": 8}),
            "norms": anatomy.among({"bart": True, "*": False}),
        }

    def design(self, anatomy):
        adapter = Bottleneck(
            self.bottleneck, per_task=self.per_task, norm_before=self.norm_before, norm_after=self.norm_after
        )
        return Design(
            inserts=(Insert(anatomy.sub_layers, adapter),),
            train=("visual", "norms") if self.norms else ("visual",),
        )
