"""InternVL: an InternViT tower that sees pictures in tiles, pixel shuffle, a two-layer projector, a Qwen2 decoder."""

from __future__ import annotations

from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor

from pet_bench.backbone.anatomy import Site, attention_sites, ffn_sites
from pet_bench.backbone.llava import LlavaLike
from pet_bench.backbone.pixels import TOWER_PROJECTIONS, tower_stack, without_videos
from pet_bench.packed import Packed


class InternVL(LlavaLike):
    """`OpenGVLab/InternVL3-1B-hf` and its like (Chen et al., CVPR 2024; Zhu et al., 2025)."""

    name = "internvl"
    stock = InternVLForConditionalGeneration
    config = InternVLConfig
    batch_size = 128
    scope = ("language",)

    @classmethod
    def vision(cls, config):
        tower = tower_stack(cls.tower, config.vision_config, "encoder.layer.{i}", config.vision_feature_layer)
        layer = tower.blocks
        mlp, projections = f"{layer}.mlp", TOWER_PROJECTIONS | {"out": "projection_layer"}
        sites = attention_sites("vision.self_attn", f"{layer}.layernorm_before", f"{layer}.attention", projections)
        feed = {"in": f"{mlp}.fc1", "out": f"{mlp}.fc2"}
        sites |= ffn_sites("vision.ffn", f"{layer}.layernorm_after", mlp, feed, feed["out"], before=True)
        return tower, sites | {"vision.layer": Site(layer, layer)}

    @classmethod
    def processor(cls, source):
        return without_videos(InternVLProcessor).from_pretrained(source)

    @classmethod
    def read(cls, processor, texts, pictures):
        given = super().read(processor, texts, pictures)
        given["tiles"] = (given["input_ids"] == processor.image_token_id).sum(1) // processor.image_seq_length
        return given

    @classmethod
    def rows(cls, given, images):
        """Pixels are a row a tile."""
        pixels, tiles = given.pop("pixel_values"), given.pop("tiles")
        return given | {"pixel_values": Packed(pixels, tiles)}
