"""The vision-language mini backbone while it learns to see: a LLaVA with its processor, and what is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from pet_bench.errors import UserError
from pet_bench.mini.readers import HEADS, LAYERS, WIDTH, Continuing, Reader
from pet_bench.mini.world import GRID, PATCH

CELLS, SIDE = GRID * GRID, GRID * PATCH
TURNS = (  # what the pictures and texts of a talk become
    "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>{% for part in turn.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% if turn.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Seer:
    """A SigLIP tower of one token a cell, a projector and a decoder-only language model, with their processor."""

    def __init__(self, lm: Any, processor: Any):
        self.lm, self.processor, self.tokenizer = lm, processor, processor.tokenizer
        self.pad, self.image = self.tokenizer.pad_token_id, lm.config.image_token_id

    @classmethod
    def new(cls, start: Reader) -> Seer:
        """A language model behind a tower and a projector of random weights. Raises UserError for another kind."""
        if not isinstance(start, Continuing):
            raise UserError(f"a {start.lm.config.model_type} is no decoder-only language model")
        tokenizer: Any = start.tokenizer
        tokenizer.add_tokens(["<image>", "<user>", "<assistant>"], special_tokens=True)
        start.lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        pictures = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
        processor = LlavaProcessor(
            pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="full", chat_template=TURNS
        )
        tower = SiglipVisionConfig(
            hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            image_size=SIDE, patch_size=PATCH, vision_use_head=False,
        )  # fmt: skip
        start.lm.config.name_or_path = ""  # where it lay is nobody else's
        config = LlavaConfig(
            vision_config=tower, text_config=start.lm.config, vision_feature_layer=-1, image_seq_length=CELLS,
            vision_feature_select_strategy="full", image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            tie_word_embeddings=True,
        )  # fmt: skip
        lm = LlavaForConditionalGeneration(config)
        lm.model.language_model.load_state_dict(start.lm.model.state_dict())
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos")}
        lm.generation_config = GenerationConfig(**ids)
        return cls(lm, processor)

    @classmethod
    def load(cls, folder: Path) -> Seer:
        lm = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        return cls(lm.eval(), LlavaProcessor.from_pretrained(folder))

    def save(self, folder: Path) -> None:
        """The usual `transformers` files."""
        self.lm.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)

    def prompt(self, text: str, images: int) -> str:
        """The user's turn, with so many image tokens, as the chat template writes it."""
        return f"{self.tokenizer.bos_token}<user>{'<image>' * images}{text}<assistant>"

    def seen(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What the language model reads of pictures, (B, cells, d)."""
        pixels = self.processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        return torch.stack(self.lm.model.get_image_features(pixels).pooler_output)

    def loss(self, prompts: Sequence[str], answers: Sequence[str], seen: Tensor | None) -> Tensor:
        """Token-mean cross-entropy of the answers with their end; seen: what stands at all of the image tokens."""
        asked = self.tokenizer(list(prompts), add_special_tokens=False).input_ids
        said = self.tokenizer([f"{a}{self.tokenizer.eos_token}" for a in answers], add_special_tokens=False).input_ids
        rows = [torch.tensor(a + b) for a, b in zip(asked, said, strict=True)]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        places = torch.arange(ids.shape[1])
        ends = torch.tensor([[len(a), len(a) + len(b)] for a, b in zip(asked, said, strict=True)])
        answered = (places >= ends[:, :1]) & (places < ends[:, 1:])
        words = self.lm.get_input_embeddings()(ids)
        if seen is not None:
            words = words.masked_scatter((ids == self.image)[..., None], seen)
        states = self.lm.model.language_model(inputs_embeds=words, use_cache=False).last_hidden_state
        return F.cross_entropy(self.lm.lm_head(states[:, :-1][answered[:, 1:]]), ids[answered])

    @torch.no_grad()
    def says(self, pictures: Sequence[Sequence[Image.Image]], asked: Sequence[str]) -> list[str]:
        """Its answers to a text about pictures each, greedily, through the processor."""
        prompts = [self.prompt(text, len(row)) for text, row in zip(asked, pictures, strict=True)]
        self.tokenizer.padding_side = "left"
        given = self.processor(
            text=prompts, images=[list(row) for row in pictures], add_special_tokens=False, padding=True,
            return_tensors="pt",
        )  # fmt: skip
        ids = self.lm.generate(**given, max_new_tokens=80, do_sample=False)
        self.tokenizer.padding_side = "right"
        return self.tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
