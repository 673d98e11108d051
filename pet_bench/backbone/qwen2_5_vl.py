"""Qwen2.5-VL: a tower with windowed attention that reads pictures of any size, its merger, a decoder with M-RoPE."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from pet_bench.backbone.anatomy import Anatomy, Site, Stack, attention_sites, gated_sites
from pet_bench.backbone.decoder_only import decoder_sites, decoder_stack
from pet_bench.backbone.pixels import PixelFamily, without_videos
from pet_bench.packed import Packed, Rows

GRID = "image_grid_thw"


class Qwen2_5VL(PixelFamily):
    """`Qwen/Qwen2.5-VL-3B-Instruct` and its like (Bai et al., arXiv 2502.13923).

    Positions have three axes (time, height, width), which the stock model counts itself from the kind of each token
    and the grid of patches of each picture. The tower reads the patches of all pictures of a batch one behind the
    other, (N, d), each picture looking at itself alone; H and X there have no axis of examples. q, k and v of its
    attention are one linear layer, whose output is their three parts one behind the other.

    Where the tower is frozen, what is to be kept of a picture is what its mergers read (`mergers`): they are the
    projector, and lie inside of it.
    """

    name = "qwen2.5-vl"
    stock: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration
    config: ClassVar[type[PreTrainedConfig]] = Qwen2_5_VLConfig
    batch_size = 16  # of the authors' LoRA script (QwenLM/Qwen3-VL, qwen-vl-finetune/scripts/trl_sft*.sh)
    scope = ("language",)
    norm: ClassVar[type[nn.Module]] = Qwen2_5_VLRMSNorm
    image_ids = ("image_token_id", "video_token_id")
    tower = "lm.model.visual"
    answers: ClassVar = {"mm_token_type_ids": 0}  # text
    linears: ClassVar = ("mlp.0", "mlp.2")  # of a merger

    @classmethod
    def mergers(cls, config) -> tuple[str, ...]:
        """The paths of what makes visual tokens of patches: first the one whose tokens the decoder begins with."""
        return (f"{cls.tower}.merger",)

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        text, root, vision = config.get_text_config(), "lm.model.language_model", config.vision_config
        merger, *others = cls.mergers(config)
        blocks = f"{cls.tower}.blocks.{{i}}"
        stacks = {
            "vision": Stack(vision.depth, vision.hidden_size, vision.num_heads, cls.tower, blocks, flat=True),
            "projector": Stack(1, text.hidden_size, 0, merger, also=tuple(others), flat=True),
            "decoder": decoder_stack(root, text),
        }
        sites = cls.tower_sites(blocks)
        sites |= decoder_sites(root, "input_layernorm", "post_attention_layernorm")
        sites |= {
            f"projector.{name}": Site(path, path)
            for name, path in zip(("in", "out"), (f"{merger}.{linear}" for linear in cls.linears), strict=True)
        }
        sites |= {"projector.output": Site(None, merger), "decoder.head": Site("lm.lm_head", "lm.lm_head")}
        return Anatomy(
            backbone, cls.name, stacks, sites, "decoder", "decoder", (f"{root}.embed_tokens",), "lm.lm_head",
            biases=False, rates_of=rates_of or backbone,
        )  # fmt: skip

    @classmethod
    def tower_sites(cls, layer: str) -> dict[str, Site]:
        """Those of a tower of which that is a layer's path."""
        attention = f"{layer}.attn"
        sites = attention_sites("vision.self_attn", f"{layer}.norm1", attention, {"out": "proj"})
        for k, name in enumerate(("query", "key", "value")):
            fused = f"{attention}.qkv"
            sites[f"vision.self_attn.{name}"] = Site(fused, fused, part=(k, 3))
        return sites | cls.feed_forward_sites(layer) | {"vision.layer": Site(layer, layer)}

    @classmethod
    def feed_forward_sites(cls, layer: str) -> dict[str, Site]:
        return gated_sites("vision.ffn", f"{layer}.norm2", f"{layer}.mlp")

    @classmethod
    def processor(cls, source):
        return without_videos(Qwen2_5_VLProcessor).from_pretrained(source)

    @classmethod
    def rows(cls, given, images):
        """Patches of a picture are as many as its grid has places, time × height × width."""
        words: dict[str, Rows] = {name: it for name, it in given.items() if name not in ("pixel_values", GRID)}
        if GRID not in given:
            return words
        grids = given[GRID]
        patches = torch.stack([grid.prod(1).sum() for grid in grids.split(images.tolist())])
        return words | {
            "pixel_values": Packed(given["pixel_values"], patches),
            GRID: Packed(grids, images),
        }

    @classmethod
    def positions(cls, mask):
        return {}
