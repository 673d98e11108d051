"""Stock decoder-only language models fed with stored features: one stack reads [begin; visual; text; answer]."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pet_bench.backbone.anatomy import Anatomy, Site, Stack, attention_sites, gated_sites
from pet_bench.backbone.family import Family
from pet_bench.backbone.interface import Inputs, Model, plain_settings
from pet_bench.backbone.reader import ContinuingReader
from pet_bench.backbone.visual import VisualEmbedding, pool_grid
from pet_bench.spec import Visual


class DecoderOnly(Model):
    """[begin; visual; text] is read causally, `visual` being the visual embedding, and the answer continues it.

    Prompts of a batch end together: what is shorter, or hides visual tokens of images that are not there, has its
    padding on the left, which is masked and takes no position. So a batch changes nothing, and generation goes on from
    the last position in every row.
    """

    aligned = True
    family: type[DecoderOnlyFamily]

    def __init__(self, lm: PreTrainedModel, anatomy: Anatomy, family: type[DecoderOnlyFamily], visual: Visual):
        super().__init__(lm, anatomy, family)
        self.visual: nn.Module = VisualEmbedding(visual, anatomy.d, family.norm, family.visual_eps)
        self.pet = nn.ModuleDict()
        for linear in (self.visual.feature, self.visual.box):
            family.init_linear(linear)
        family.init_embedding(self.visual.image_order.weight)

    def prompt(
        self, text: Tensor, features: Tensor, boxes: Tensor | None = None, *, task: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """text (B, L) ids, features (B, I, N, f), boxes (B, I, N, 4) → the prompts (B, 1 + I·P + L, d), their mask."""
        self.context.task = task
        visual = self.visual(features, self.words, boxes)
        words, mask = self.embed(text), text != self.pad
        seen = mask.new_ones(visual.shape[:2])
        if task in self.masks_empty and seen.numel():
            seen = pool_grid(features, visual.shape[1] // features.shape[1]).any(dim=-1).flatten(1)
        self.context.visual, self.context.seen = visual, seen
        for edit in self.text_edits:
            words, mask = edit(words, mask)
        begin = self.embed(text.new_full((len(text), 1), self.lm.config.bos_token_id))
        states = torch.cat([begin, visual, words], dim=1)
        kept = torch.cat([mask.new_ones(len(text), 1), seen, mask], dim=1)
        kept, order = kept.byte().sort(dim=1, stable=True)
        return states.gather(1, order[..., None].expand_as(states)), kept.bool()

    def embed(self, ids: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(ids)

    def logits(self, inputs: Inputs, targets: Tensor) -> Tensor:
        states, mask = self.prompt(**inputs)
        answer = self.embed(targets[:, :-1].masked_fill(targets[:, :-1] == -100, self.pad))
        joint = torch.cat([mask, targets[:, :-1] != -100], dim=1)
        return self.read(torch.cat([states, answer], dim=1), joint, targets.shape[1])

    def read(self, states: Tensor, mask: Tensor, last: int) -> Tensor:
        """Logits (B, last, V) after the last positions of the joint sequence (B, N, d), mask (B, N)."""
        self.context.mask, self.context.prompt = mask, mask.shape[1] - last + 1
        return self.lm(
            inputs_embeds=states,
            attention_mask=mask.long(),
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=last,
        ).logits

    def read_before(self, answer: Tensor | None) -> Tensor:
        """What stands before each word of the answer, the prompt's last position aside: the answer itself."""
        return torch.empty(1, 0, dtype=torch.long, device=self.device) if answer is None else answer[:, :-1]

    @torch.no_grad()
    def generate(self, inputs: Inputs, *, num_beams: int, max_length: int, plain: bool = False) -> Tensor:
        """max_length counts a start token, as of an encoder-decoder, so that both may say as many words."""
        states, mask = self.prompt(**inputs)
        self.context.repeat(num_beams)
        self.context.mask, self.context.prompt = mask.repeat_interleave(num_beams, 0), mask.shape[1]
        return self.lm.generate(
            inputs_embeds=states,
            attention_mask=mask.long(),
            num_beams=num_beams,
            max_new_tokens=max_length - 1,
            do_sample=False,
            **plain_settings(plain),
        )

    def choose(self, inputs: Inputs, words: list[int]) -> Tensor:
        """After the prompt."""
        states, mask = self.prompt(**inputs)
        return self.read(states, mask, 1)[:, -1, words]


class DecoderOnlyFamily(Family):
    """What decoder-only models of one architecture have of their own: paths below a layer. reads: the norms in front
    of attention and feed-forward."""

    reads: ClassVar[tuple[str, str]] = ("input_layernorm", "post_attention_layernorm")
    biases: ClassVar[bool] = False

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        sites = {"projector.in": Site("visual.feature", "visual.feature"), "projector.output": Site(None, "visual")}
        sites |= decoder_sites("lm.model", *cls.reads)
        stacks = {
            "projector": Stack(1, config.hidden_size, 0, "visual"),
            "decoder": decoder_stack("lm.model", config),
        }
        return Anatomy(
            backbone,
            cls.name,
            stacks,
            sites | {"decoder.head": Site("lm.lm_head", "lm.lm_head")},
            reading="decoder",
            writing="decoder",
            embeddings=("lm.model.embed_tokens",),
            head="lm.lm_head",
            biases=cls.biases,
            rates_of=rates_of or backbone,
            offers=("prompts", "features"),
        )

    @classmethod
    def model(cls, lm, anatomy, visual):
        return DecoderOnly(lm, anatomy, cls, visual)

    @classmethod
    def reader(cls, tokenizer):
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        return ContinuingReader(tokenizer)


PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}


def decoder_stack(path: str, config: Any) -> Stack:
    """The stack of that path whose configuration calls its sizes as LLaMA does."""
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    return Stack(layers, config.hidden_size, heads, path, f"{path}.layers.{{i}}")


def decoder_sites(path: str, attention: str, ffn: str, stack: str = "decoder") -> dict[str, Site]:
    """The sites of a LLaMA-like stack; attention, ffn: the norms that its sub-layers read through."""
    layer = f"{path}.layers.{{i}}"
    sites = attention_sites(f"{stack}.self_attn", f"{layer}.{attention}", f"{layer}.self_attn", PROJECTIONS)
    sites |= gated_sites(f"{stack}.ffn", f"{layer}.{ffn}", f"{layer}.mlp")
    sites |= {f"{stack}.input": Site(None, layer.format(i=0), before=True), f"{stack}.layer": Site(layer, layer)}
    return sites | {f"{stack}.output": Site(None, f"{path}.norm")}
