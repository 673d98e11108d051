"""Stock models of tiny sizes inside of ours, with a design attached, that run on the reference's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from pet_bench.backbone.interface import Model
from pet_bench.pet import Design, Method, attach
from pet_bench.registry import FAMILIES
from pet_bench.spec import Visual
from tests.followups.restate import Fixture, Tensors, called

BLOCK = {  # the authors' names in a block → stock ones
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
WHOLE = {"tok_embeddings": "embed_tokens", "norm": "norm"}


def llama(fixture: Fixture, design: Design | Method, visual: Visual) -> Model:
    """As large as the fixture says, a part by itself with one layer, and with a vocabulary of 8 where it has none."""
    flags = fixture.flags
    config = LlamaConfig(
        hidden_size=flags["dim"], num_attention_heads=flags["heads"], num_hidden_layers=flags.get("layers", 1),
        intermediate_size=flags.get("ffn", 8), vocab_size=flags.get("vocab", 8), rms_norm_eps=1e-5, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    return _attached("llama", LlamaForCausalLM(config), design, visual)


def encoder_decoder(fixture: Fixture, design: Design | Method, visual: Visual) -> Model:
    """T5 or BART, as the conventions in the fixture's JSON say."""
    flags, told = fixture.flags, fixture.about["conventions"]
    d, heads, layers, ffn = (flags[key] for key in ("d", "heads", "layers", "ffn"))
    if "T5: " in told:
        config = T5Config(
            vocab_size=flags["vocab"], d_model=d, d_kv=flags["key_width"], d_ff=ffn, num_layers=layers, num_heads=heads,
        )  # fmt: skip
        config.decoder_start_token_id = 0
        return _attached("t5", T5ForConditionalGeneration(config), design, visual)
    rows = fixture.tensors["param/lm.model.encoder.embed_positions.weight"].shape[0] - 2
    config = BartConfig(
        vocab_size=flags["vocab"], d_model=d, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn, encoder_attention_heads=heads, decoder_attention_heads=heads,
        max_position_embeddings=rows, activation_function="gelu",
    )  # fmt: skip
    return _attached("bart", BartForConditionalGeneration(config), design, visual)


def _attached(name: str, lm: Any, design: Design | Method, visual: Visual) -> Model:
    torch.manual_seed(0)
    family = FAMILIES.get(name)
    anatomy = family.anatomy(name, lm.config)
    if isinstance(design, Method):
        design = design.design(anatomy)
    return attach(family.model(lm.eval(), anatomy, visual), design).eval()


def halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of a projection whose rotary pairs are neighbours, ordered as where they are half a head apart."""
    rows = torch.arange(len(weight)).view(heads, -1, 2).mT.flatten()
    return weight[rows]


def block(w: Tensors, heads: int) -> Tensors:
    """Stock names, in a layer, of the authors' weights that there are; adapters and all else are left out."""
    stock = {}
    for name, weight in w.items():
        path, _, leaf = name.rpartition(".")
        if path in BLOCK:
            turned = path in ("attention.wq", "attention.wk")
            stock[f"{BLOCK[path]}.{leaf}"] = halves(weight, heads) if turned else weight
    return stock


def whole(w: Tensors, heads: int, layers: int) -> Tensors:
    """Likewise in our model."""
    stock = {f"lm.model.{WHOLE[path]}.weight": w[f"{path}.weight"] for path in WHOLE}
    stock["lm.lm_head.weight"] = w["output.weight"]
    for i in range(layers):
        own = {k.removeprefix(f"layers.{i}."): v for k, v in w.items() if k.startswith(f"layers.{i}.")}
        stock |= {f"lm.model.layers.{i}.{name}": weight for name, weight in block(own, heads).items()}
    return stock


def shifted(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of next words; a label of 0 does not count."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0)


def called_on(model: Model, weights: Tensors, run: Callable[..., Any], *inputs: Any) -> Any:
    """What `run` gives of the model with these weights; all others have no part in it, and stay."""
    others = {name: p.detach() for name, p in model.named_parameters() if name not in weights}
    ours = {f"model.{name}": value for name, value in (weights | others).items()}
    return called(Run(model, run), ours, *inputs)


class Run(nn.Module):
    """A model and something that is run with it, as one module."""

    def __init__(self, model: Model, run: Callable[..., Any]):
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *inputs: Any) -> Any:
        return self.run(self.model, *inputs)
