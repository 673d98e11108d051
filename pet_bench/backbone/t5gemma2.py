"""T5Gemma 2: Gemma 3 as an encoder-decoder, with a SigLIP tower in its encoder."""

from __future__ import annotations

from typing import ClassVar

from transformers import T5Gemma2Config, T5Gemma2ForConditionalGeneration
from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2RMSNorm

from pet_bench.backbone.anatomy import Anatomy, Site, Stack
from pet_bench.backbone.decoder_only import decoder_sites, decoder_stack
from pet_bench.backbone.gemma import GemmaFamily
from pet_bench.backbone.pixels import PixelEncoderDecoder, tower_sites, tower_stack


class T5Gemma2(GemmaFamily):
    """`google/t5gemma-2-270m-270m` and its like (Zhang et al., 2025).

    The decoder looks at itself and at the encoder's states in one softmax, through the same four projections: its
    `decoder.self_attn` is both attentions at once, keys and values are projected of the words before *and* of the
    encoder's states, and there is no `decoder.cross_attn`. A projection's X is one of the two at a time.

    Layers are sandwich-normed and the projector has no linear layer, as in Gemma 3.
    """

    name = "t5gemma2"
    stock = T5Gemma2ForConditionalGeneration
    config = T5Gemma2Config
    batch_size = 64  # our choice: no run of its tuning says one
    norm = T5Gemma2RMSNorm
    padding = "right"
    tower = "lm.model.encoder.vision_tower"
    reads: ClassVar = dict.fromkeys(
        ("t5gemma2_text", "t5gemma2_decoder"), ("pre_self_attn_layernorm", "pre_feedforward_layernorm")
    )
    gap = " "

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        roots = {"encoder": "lm.model.encoder.text_model", "decoder": "lm.model.decoder"}
        texts = {"encoder": config.encoder.text_config, "decoder": config.decoder}
        projector, head = "lm.model.encoder.multi_modal_projector", "lm.lm_head.out_proj"
        tower = tower_stack(cls.tower, config.encoder.vision_config)
        stacks = {"vision": tower, "projector": Stack(1, config.decoder.hidden_size, 0, projector)}
        sites = tower_sites(tower.blocks)
        for name, root in roots.items():
            stacks[name] = decoder_stack(root, texts[name])
            sites |= decoder_sites(root, *cls.reads[texts[name].model_type], stack=name)
        sites |= {"projector.output": Site(None, projector), "decoder.head": Site(head, head)}
        return Anatomy(
            backbone, cls.name, stacks, sites, "encoder", "decoder",
            tuple(f"{root}.embed_tokens" for root in roots.values()), head, biases=False, rates_of=rates_of or backbone,
        )  # fmt: skip

    @classmethod
    def model(cls, lm, anatomy, visual):
        return PixelEncoderDecoder(lm, anatomy, cls)

    @classmethod
    def read(cls, processor, texts, pictures):
        given = dict(super().read(processor, texts, pictures))
        given.pop("token_type_ids", None)  # which the encoder, that sees all in both directions, has no use for
        return given

    @classmethod
    def places(cls, config):
        return config.encoder.mm_tokens_per_image
