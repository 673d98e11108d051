"""LLaVA: a CLIP or SigLIP tower, a two-layer projector, a LLaMA-like decoder."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pet_bench.backbone.anatomy import Anatomy, Site, Stack
from pet_bench.backbone.decoder_only import decoder_sites, decoder_stack
from pet_bench.backbone.known import mini
from pet_bench.backbone.pixels import PixelFamily, tower_sites, tower_stack


class LlavaLike(PixelFamily):
    """Families of a tower, a projector and a LLaMA-like decoder behind it.

    root, projector: where decoder and projector are. ends: the projector's linear layers, the first and the last. also:
    parameters of the projector that lie outside of it.
    """

    norm: ClassVar[type[nn.Module]] = LlamaRMSNorm
    tower = "lm.model.vision_tower"
    root: ClassVar[str] = "lm.model.language_model"
    projector: ClassVar[str] = "lm.model.multi_modal_projector"
    ends: ClassVar[dict[str, str]] = {"in": "linear_1", "out": "linear_2"}
    also: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def vision(cls, config: Any) -> tuple[Stack, dict[str, Site]]:
        """The tower's stack and sites."""
        tower = tower_stack(cls.tower, config.vision_config, read=getattr(config, "vision_feature_layer", -1))
        return tower, tower_sites(tower.blocks)

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        text, (tower, sites) = config.get_text_config(), cls.vision(config)
        stacks = {
            "vision": tower,
            "projector": Stack(1, text.hidden_size, 0, cls.projector, also=cls.also),
            "decoder": decoder_stack(cls.root, text),
        }
        for name, path in cls.ends.items():
            sites[f"projector.{name}"] = Site(f"{cls.projector}.{path}", f"{cls.projector}.{path}")
        sites |= decoder_sites(cls.root, "input_layernorm", "post_attention_layernorm")
        sites |= {"projector.output": Site(None, cls.projector), "decoder.head": Site("lm.lm_head", "lm.lm_head")}
        return Anatomy(
            backbone, cls.name, stacks, sites, "decoder", "decoder", (f"{cls.root}.embed_tokens",), "lm.lm_head",
            biases=False, rates_of=rates_of or backbone,
        )  # fmt: skip


class Llava(LlavaLike):
    """`llava-hf/llava-1.5-7b-hf` and its like (Liu et al., NeurIPS 2023; CVPR 2024)."""

    name = "llava"
    stock = LlavaForConditionalGeneration
    config = LlavaConfig
    batch_size = 128  # of fine-tuning (Liu et al., CVPR 2024, Table 9)


MINI_LLAVA = mini("mini-llava", "llava", epochs=1, batch_size=32)
