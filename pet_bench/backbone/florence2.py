"""Florence-2: a DaViT tower, one linear layer and BART, whose encoder reads pictures before the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from PIL import Image
from transformers import Florence2Config, Florence2ForConditionalGeneration

from pet_bench.backbone.anatomy import Site, Stack, attention_sites, ffn_sites
from pet_bench.backbone.bart import Bart
from pet_bench.backbone.pixels import PixelEncoderDecoder, PixelFamily

TEXT = "lm.model.language_model"
PROJECTOR = "lm.model.multi_modal_projector"


class Text(Bart):
    """BART where it lies in Florence-2."""

    stacks: ClassVar = {"encoder": (f"{TEXT}.encoder", "layers"), "decoder": (f"{TEXT}.decoder", "layers")}
    decoder_input = f"{TEXT}.decoder.layernorm_embedding"
    decoder_output = f"{TEXT}.decoder"


class Block(str):
    """What a layer of the tower is called, and what its attention: over places in a window, or over channels."""

    @property
    def attention(self) -> str:
        return f"{self}.{'window' if self.endswith('spatial_block') else 'channel'}_attn"


class Florence2(PixelFamily):
    """`florence-community/Florence-2-base` and its like (Xiao et al., CVPR 2024).

    The tower is no flat stack: a layer is one of its blocks, of the width of its stage, and what one passes on is
    (B, d, H, W), so that whole layers are no site.
    """

    name = "florence2"
    stock = Florence2ForConditionalGeneration
    config = Florence2Config
    batch_size = 64
    scope = ("language",)
    language = Bart.name
    norm = Bart.norm
    padding = "right"
    turns = False
    before_choice = Bart.before_choice
    tower = "lm.model.vision_tower"

    @classmethod
    def model(cls, lm, anatomy, visual):
        return PixelEncoderDecoder(lm, anatomy, cls)

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        bart = Text.anatomy(backbone, config.text_config, rates_of)
        encoder = bart.stacks["encoder"]
        sites = {name: site for name, site in bart.sites.items() if not name.startswith("projector")}
        sites |= {
            "projector.in": Site(f"{PROJECTOR}.image_projection", f"{PROJECTOR}.image_projection"),
            "projector.output": Site(None, PROJECTOR),
            "encoder.input": Site(None, encoder.blocks.format(i=0), before=True),
            "encoder.output": Site(None, encoder.path),
        }
        stacks = {
            "vision": cls.vision(config.vision_config),
            "projector": Stack(1, encoder.width, 0, PROJECTOR),
            "encoder": encoder,
            "decoder": bart.stacks["decoder"],
        }
        return replace(bart, family=cls.name, stacks=stacks, sites=cls.vision_sites() | sites, offers=())

    @classmethod
    def vision(cls, config: Any) -> Stack:
        """The tower's blocks, in the order in which a picture passes through them."""
        stages = list(zip(config.depths, config.embed_dim, strict=True))
        names = tuple(
            Block(f"{stage}.{i}.{kind}_block")
            for stage, (depth, _) in enumerate(stages)
            for i in range(depth)
            for kind in ("spatial", "channel")
        )
        widths = tuple(width for depth, width in stages for _ in range(2 * depth))
        return Stack(
            len(names),
            widths[-1],
            config.num_heads[-1],
            cls.tower,
            f"{cls.tower}.blocks.{{i}}",
            names,
            widths,
            over_channels=True,
        )

    @classmethod
    def vision_sites(cls) -> dict[str, Site]:
        layer, attention = f"{cls.tower}.blocks.{{i}}", f"{cls.tower}.blocks.{{i.attention}}"
        sites = attention_sites("vision.self_attn", f"{layer}.norm1", attention, {"out": "proj"})
        for k, name in enumerate(("query", "key", "value")):
            sites[f"vision.self_attn.{name}"] = Site(f"{attention}.qkv", f"{attention}.qkv", part=(k, 3))
        feed = {"in": f"{layer}.ffn.fc1", "out": f"{layer}.ffn.fc2"}
        return sites | ffn_sites("vision.ffn", f"{layer}.norm2", f"{layer}.ffn", feed, feed["out"], before=True)

    @classmethod
    def read(cls, processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]) -> Any:
        """As the processor has it: a picture, the begin token, the text; further pictures stand between these two."""
        words = [processor.image_token * (len(of) - 1) + text for text, of in zip(texts, pictures, strict=True)]
        flat = [picture for of in pictures for picture in of]
        return processor(images=flat, text=words, padding=True, return_tensors="pt")
