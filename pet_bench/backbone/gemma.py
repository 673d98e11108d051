"""What vision-language models of the Gemma kind share: a SigLIP tower of square pictures, sandwich-normed layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from pet_bench.backbone.anatomy import Anatomy, Site, Stack
from pet_bench.backbone.decoder_only import decoder_sites, decoder_stack
from pet_bench.backbone.pixels import PixelFamily, tower_sites, tower_stack
from pet_bench.errors import UserError


class GemmaFamily(PixelFamily):
    """reads: the norms that attention and feed-forward read through, by the model_type of the text; linear: the
    projector's linear layer, where it has one; gap: what is between pictures and text where there is no chat template.

    In a sandwich-normed layer X of a sub-layer is the residual stream, as in a pre-norm one, and H what attention or
    feed-forward give *before* the norm behind them: an insert's ΔH is normed together with H, so its size counts only
    beside H's.
    """

    turns = False  # pre-trained checkpoints have no chat template
    tower = "lm.model.vision_tower"
    reads: ClassVar[dict[str, tuple[str, str]]]
    linear: ClassVar[str] = ""
    gap: ClassVar[str] = ""

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        text, root, projector = config.get_text_config(), "lm.model.language_model", "lm.model.multi_modal_projector"
        if text.model_type not in cls.reads:
            kinds = ", ".join(cls.reads)
            raise UserError(f'backbone "{backbone}": its text_config is a {text.model_type} (possible: {kinds})')
        tower = tower_stack(cls.tower, config.vision_config)
        stacks = {
            "vision": tower,
            "projector": Stack(1, text.hidden_size, 0, projector),
            "decoder": decoder_stack(root, text),
        }
        sites = tower_sites(tower.blocks) | decoder_sites(root, *cls.reads[text.model_type])
        if cls.linear:
            sites["projector.in"] = Site(f"{projector}.{cls.linear}", f"{projector}.{cls.linear}")
        sites |= {"projector.output": Site(None, projector), "decoder.head": Site("lm.lm_head", "lm.lm_head")}
        return Anatomy(
            backbone, cls.name, stacks, sites, "decoder", "decoder", (f"{root}.embed_tokens",), "lm.lm_head",
            biases=False, rates_of=rates_of or backbone,
        )  # fmt: skip

    @classmethod
    def read(cls, processor: Any, texts, pictures):
        if processor.chat_template:
            return super().read(processor, texts, pictures)
        prompts = [
            cls.gap.join([*[processor.image_token] * len(each), text])
            for text, each in zip(texts, pictures, strict=True)
        ]
        return processor(images=pictures, text=prompts, padding=True, return_tensors="pt")

    @classmethod
    @abstractmethod
    def places(cls, config: Any) -> int:
        """How many image tokens a picture has."""

    @classmethod
    def processor_faults(cls, processor: Any, config: Any) -> Iterator[str]:
        faults = list(super().processor_faults(processor, config))
        yield from faults
        if faults:
            return
        if getattr(processor.image_processor, "do_pan_and_scan", None):
            yield "cuts pictures into several (do_pan_and_scan), which is not provided for"
        size, side = processor.image_processor.size, getattr(config, "encoder", config).vision_config.image_size
        if (size.height, size.width) != (side, side):
            yield f"makes pictures of {size.height} × {size.width}, and the tower looks at {side} × {side}"
        if (ours := cls.places(config)) != (theirs := processor.image_seq_length):
            yield f"has {theirs} image tokens for a picture, and the model {ours}"
