"""Full fine-tuning: the reference every PET method is compared with."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Method
from pet_bench.spec import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Full(Method):
    """Every parameter of the backbone and of the visual embedding trains; nothing is added.

    task_prompts: whether texts begin with the task's prompt ("vqa: "). None is as published: not in the suite
    image-text (METHODS.md section 6).
    """

    name: ClassVar = "full"
    source: ClassVar = "VL-T5 (Cho et al., ICML 2021); baseline of VL-Adapter and VL-PET"
    year: ClassVar = 2021
    learning_rates: ClassVar = {"bart": 1e-4, "t5": 1e-4, "mini-bart": 2e-3, "mini-t5": 2e-3} | {
        "mini-llama": 1e-3, "mini-llava": 1e-3, "llava": 2e-5, "paligemma2": 2e-5, "florence2": 1e-6,
    }  # fmt: skip
    identity_at_start: ClassVar = True
    promptless: ClassVar = ("image-text",)

    task_prompts: bool | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  an option here

    def design(self, anatomy):
        return Design(train=("all",))
