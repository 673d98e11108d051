"""LLaVA: a CLIP or SigLIP tower, a two-layer projector, a LLaMA-like decoder."""

from __future__ import annotations

from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pet_bench.backbone.anatomy import Anatomy, Site, Stack
from pet_bench.backbone.decoder_only import decoder_sites, decoder_stack
from pet_bench.backbone.known import mini
from pet_bench.backbone.pixels import PixelFamily, tower_sites, tower_stack


class Llava(PixelFamily):
    """`llava-hf/llava-1.5-7b-hf` and its like (Liu et al., NeurIPS 2023; CVPR 2024)."""

    name = "llava"
    stock = LlavaForConditionalGeneration
    config = LlavaConfig
    batch_size = 128  # of fine-tuning (Liu et al., CVPR 2024, Table 9)
    norm = LlamaRMSNorm
    tower = "lm.model.vision_tower"

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        text, root = config.get_text_config(), "lm.model.language_model"
        projector = "lm.model.multi_modal_projector"
        tower = tower_stack(cls.tower, config.vision_config)
        stacks = {
            "vision": tower,
            "projector": Stack(1, text.hidden_size, 0, projector),
            "decoder": decoder_stack(root, text),
        }
        sites = tower_sites(tower.blocks) | decoder_sites(root, "input_layernorm", "post_attention_layernorm")
        sites |= {f"projector.{name}": Site(path, path) for name, path in (
            ("in", f"{projector}.linear_1"), ("out", f"{projector}.linear_2")
        )}  # fmt: skip
        sites |= {"projector.output": Site(None, projector), "decoder.head": Site("lm.lm_head", "lm.lm_head")}
        return Anatomy(
            backbone, cls.name, stacks, sites, "decoder", "decoder", (f"{root}.embed_tokens",), "lm.lm_head",
            biases=False, rates_of=rates_of or backbone,
        )  # fmt: skip


MINI_LLAVA = mini("mini-llava", "llava", epochs=2, batch_size=32)
