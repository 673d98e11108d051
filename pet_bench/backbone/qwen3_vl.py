"""Qwen3-VL: as Qwen2.5-VL, with more mergers, whose tokens are added to the states of the decoder's first layers."""

from __future__ import annotations

from typing import ClassVar

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm

from pet_bench.backbone.anatomy import ffn_sites
from pet_bench.backbone.pixels import without_videos
from pet_bench.backbone.qwen2_5_vl import Qwen2_5VL


class Qwen3VL(Qwen2_5VL):
    """`Qwen/Qwen3-VL-4B-Instruct` and its like (Bai et al., arXiv 2511.21631).

    DeepStack (Meng et al., NeurIPS 2024): a merger of its own reads what each of some layers of the tower wrote.
    """

    name = "qwen3-vl"
    stock = Qwen3VLForConditionalGeneration
    config = Qwen3VLConfig
    norm = Qwen3VLTextRMSNorm
    linears: ClassVar = ("linear_fc1", "linear_fc2")

    @classmethod
    def processor(cls, source):
        return without_videos(Qwen3VLProcessor).from_pretrained(source)

    @classmethod
    def mergers(cls, config):
        deep = range(len(config.vision_config.deepstack_visual_indexes))
        return (f"{cls.tower}.merger", *(f"{cls.tower}.deepstack_merger_list.{k}" for k in deep))

    @classmethod
    def feed_forward_sites(cls, layer):
        mlp = f"{layer}.mlp"
        feed = {"in": f"{mlp}.linear_fc1", "out": f"{mlp}.linear_fc2"}
        return ffn_sites("vision.ffn", f"{layer}.norm2", mlp, feed, feed["out"], before=True)
