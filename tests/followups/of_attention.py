"""LLaMA-Adapter's attention, its model, our transfers of it, and Excitor's attention, which is a formula of our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.interface import Context
from pet_bench.methods.excitor import ExtraKey, ExtraKeys
from pet_bench.methods.llama_adapter import LLaMAAdapter
from pet_bench.spec import Visual
from tests.followups import llamas
from tests.followups.restate import Fixture, Tensors, called

ATTENTION = "lm.model.layers.0"
PROMPTS = "pet.gated-prompts"
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "o": "out"}


def attention(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags, prompt, heads = fixture.flags, given["prompt"], fixture.flags["heads"]
    each = prompt.shape[0] > 1 or flags["version"] == 2  # prompts of each sample, with what is seen
    rank = flags["lora_rank"] if flags.get("w_lora") else 0
    method = LLaMAAdapter(
        length=flags["K"], layers=1, images="mean" if each else "tokens", lora=rank,
        bias=flags.get("w_bias", False), new_gate=flags.get("w_new_gate", False),
    )  # fmt: skip
    model = llamas.llama(fixture, method, Visual(3, 1, 1, images=1))
    own = f"{PROMPTS}.decoder.0"
    weights = {f"{ATTENTION}.{name}": value for name, value in llamas.block(_renamed(w), heads).items()}
    weights |= {f"{own}.prompt": torch.zeros_like(prompt[0]) if each else prompt[0]}
    weights |= {f"{own}.gate": w["gate"].flatten()}
    if method.new_gate:
        weights[f"{own}.factor"] = w["new_gate"].flatten()
    for short, name in PROJECTIONS.items():
        turned = (lambda rows: llamas.halves(rows, heads)) if short in "qk" else lambda rows: rows
        site = f"pet.decoder.0.self_attn.{name}"
        if method.lora:
            weights[f"{site}.0.delta.A"] = w[f"lora_w{short}_l1.weight"]
            weights[f"{site}.0.delta.B"] = turned(w[f"lora_w{short}_l2.weight"])
        if method.bias and short in "qo":
            weights[f"{site}.{1 if method.lora else 0}.delta.beta"] = turned(w[f"w{short}.bias"])

    def through(model: Any, x: Tensor) -> Tensor:
        model.context.beside = prompt if each else None
        return _attend(model.lm.model, x)

    outputs = {"output/y": llamas.called_on(model, weights, through, given["x"])}
    if "output/y_without_prompt" in fixture.tensors:
        without = weights | {f"{own}.gate": torch.zeros(heads)}
        outputs["output/y_without_prompt"] = llamas.called_on(model, without, through, given["x"])
    return outputs


def _renamed(w: Tensors) -> Tensors:
    """The four projections alone, as in a block."""
    return {f"attention.{name}": value for name, value in w.items() if name.endswith("weight") and name[:2] in WEIGHTS}


WEIGHTS = ("wq", "wk", "wv", "wo")


def _attend(stack: Any, x: Tensor) -> Tensor:
    """The first layer's attention by itself, causal."""
    length = x.shape[1]
    positions = stack.rotary_emb(x, torch.arange(length)[None])
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    return stack.layers[0].self_attn(x, position_embeddings=positions, attention_mask=mask)[0]


def whole(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    method = LLaMAAdapter(length=flags["K"], layers=flags["adapter_layer"])
    model = llamas.llama(fixture, method, Visual(3, 1, 1, images=1))
    weights = llamas.whole(w, flags["heads"], flags["layers"])
    first = flags["layers"] - flags["adapter_layer"]
    for i, prompt in enumerate(w["adapter_query.weight"].view(flags["adapter_layer"], flags["K"], -1), first):
        own = f"{PROMPTS}.decoder.{i}"
        weights |= {f"{own}.prompt": prompt, f"{own}.gate": w[f"layers.{i}.attention.gate"].flatten()}
    logits = llamas.called_on(model, weights, lambda model: model.lm(input_ids=given["ids"], use_cache=False).logits)
    return {"output/logits": logits, "output/loss": llamas.shifted(logits, given["labels"])}


def transferred(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    method = LLaMAAdapter(
        length=flags["K"], layers=flags["topmost"], images="mean" if flags["visual"] else "tokens"
    )  # fmt: skip
    seen = given["features"] if flags["visual"] else torch.zeros(len(given["input_ids"]), 0, 3)
    rows, width = seen.shape[1:]
    model = llamas.encoder_decoder(fixture, method, Visual(width, max(rows, 1), max(rows, 1), images=1))
    weights = {name: value for name, value in w.items() if name.startswith("lm.")}
    for name, value in w.items():
        if name.startswith("visual."):
            weights[f"visual.project.{name.removeprefix('visual.')}"] = value
        elif not name.startswith("lm."):
            weights[f"{PROMPTS}.{name}"] = value

    def through(model: Any) -> Tensor:
        text = given["input_ids"].masked_fill(given["attention_mask"] == 0, model.pad)
        if flags["visual"]:
            return model.logits({"text": text, "features": seen[:, None]}, given["labels"])
        return model.lm(
            input_ids=text, attention_mask=given["attention_mask"],
            decoder_input_ids=model.shift_right(given["labels"]), use_cache=False,
        ).logits  # fmt: skip

    logits = llamas.called_on(model, weights, through)
    off = {name: torch.zeros_like(value) if name.endswith(".gate") else value for name, value in weights.items()}
    loss = F.cross_entropy(logits.flatten(0, 1), given["labels"].flatten())
    return {
        "output/logits": logits,
        "output/logits_backbone": llamas.called_on(model, off, through),
        "output/loss": loss,
    }


class Attention(nn.Module):
    """Any family's: rotary positions of neighbouring pairs, causality, a divisor, biases, a bias of positions, or not.

    The extra key is added to the key, and nothing to the scores.
    """

    def __init__(self, flags: dict[str, Any], width: int | None):
        super().__init__()
        d, heads = flags["dim"], flags["heads"]
        self.flags, self.context = flags, Context()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(d, d, bias=flags["bias"]) for _ in range(4))
        scale = (d // heads) ** -0.5 if flags["scaled"] else 1.0
        self.excitor = ExtraKeys(
            ExtraKey(flags["K"], flags["rank"], width is not None), d, d, heads, scale, width, self.context
        )
        self.scale = scale

    def forward(self, x: Tensor, images: Tensor | None, position_bias: Tensor | None) -> tuple[Tensor, Tensor]:
        self.context.beside = images
        states = self.wq(x), self.wk(x) + self.excitor(x), self.wv(x), self.excitor.mixture(x)
        query, key, value, extra = (t.unflatten(-1, (self.flags["heads"], -1)).transpose(1, 2) for t in states)
        if self.flags["rope"]:
            query, key, extra = _rotated(query), _rotated(key), _rotated(extra)
        scores = self.scale * query @ key.mT
        if position_bias is not None:
            scores = scores + position_bias
        if self.flags["causal"]:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        return self.wo((scores.softmax(-1) @ value).transpose(1, 2).flatten(2)), extra.transpose(1, 2).flatten(2)


def _rotated(states: Tensor) -> Tensor:
    """Rotary positions 0, 1 … of neighbouring pairs, θ = 10000."""
    length, width = states.shape[-2:]
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    pairs = torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def excitor(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    images = given.get("visual")
    names = {"excitor.wk": "excitor.key", "excitor.wv": "excitor.value"}
    weights = {names.get(name, name): value for name, value in w.items()}
    bias = given.get("position_bias")
    if bias is None:
        bias = weights.pop("position_bias", None)
    module = Attention(fixture.flags, None if images is None else images.shape[-1])
    y, key = called(module, weights, given["x"], images, bias)
    return {"output/y": y, "output/extra_key": key}


FIXTURES = {
    r"llama_adapter_v\d_attention\w*": attention,
    r"llama_adapter_v\d_model\w*": whole,
    r"ours_llama_adapter_\w+": transferred,
    r"excitor_ours_\w+": excitor,
}
