"""MemVP and ADEM-VL: blocks and whole models of LLaMA, our transfers to BART and T5, and the adapter inside CLIP."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.interface import Model
from pet_bench.pet import Bottleneck, Design, Insert
from pet_bench.pet.visual_memory import VisualMemory
from pet_bench.spec import Visual
from tests.followups import llamas
from tests.followups.places import Alone
from tests.followups.restate import Fixture, Tensors, below, called

EMPTY = "task"  # in which features of zeros are no image


def door(fixture: Fixture, **options: Any) -> VisualMemory:
    """As the flags have it, of ADEM-VL's or of MemVP's."""
    flags = fixture.flags
    adem = fixture.about["method"] == "adem"
    scores = "linear" if adem else flags.get("activation") or "silu"
    drop = flags.get("drop_ratio", flags.get("ratio")) or 0.0
    given = {"hidden": 1, "scores": scores, "scale": flags["s"], "beta": flags.get("beta", 0.01), "drop": drop}
    return VisualMemory(**given | options)


def memory_of(w: Tensors, keys: str, values: str, projector: str) -> Tensors:
    """Ours: the rows and the projector."""
    rows = {"keys": w[keys], "values": w[values]}
    ours = {f"pet.visual-memory.{name}": value.reshape(value.shape[-2:]) for name, value in rows.items()}
    names = {"fc1": "down", "fc2": "up"}
    for name, value in below(w, projector).items():
        layer, leaf = name.split(".")
        ours[f"visual.project.{names[layer]}.{leaf}"] = value
    return ours


def block(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    rows = flags["N_visual"]
    model = llamas.llama(
        fixture, Design(doors=(door(fixture, stacks=("decoder",), extra=rows - 1),)), Visual(3, 1, 1, images=1)
    )
    layer, seen = model.lm.model.layers[0], {}
    layer.post_attention_layernorm.register_forward_pre_hook(lambda m, args: seen.update(after_attention=args[0]))
    model.pet["visual-memory"].register_forward_hook(lambda m, args, output: seen.update(branch=output))
    layer.register_forward_hook(lambda m, args, output: seen.update(y=output))

    def through(model: Model, x: Tensor, memory: Tensor) -> None:
        model.context.beside = memory
        model.lm.model(inputs_embeds=x, use_cache=False)

    weights = {f"lm.model.layers.0.{name}": value for name, value in llamas.block(w, flags["heads"]).items()}
    weights |= memory_of(given, "P1", "P2", "none")
    llamas.called_on(model, weights, through, given["x"], given["E"])
    return {f"output/{name}": value for name, value in seen.items()}


def whole(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    """The authors' loop: begun, with a class token, with words for the image, and cut after the last label."""
    flags, adem = fixture.flags, fixture.about["method"] == "adem"
    heads, layers, token = flags["heads"], flags["layers"], flags.get("with_cls", False)
    features = given["features"]
    if math.isqrt(features.shape[1]) ** 2 != features.shape[1]:
        features = features[:, 1:]  # without the class token
    rows, (n, width) = w["adapter_emb1"].shape[-2], features.shape[1:]
    grids = {"grids": tuple(flags["down_sample_num"])} if adem else {}
    extra = 0 if adem else rows - n
    options = {"stacks": ("decoder",), "hidden": flags["projector_hidden"], "extra": extra, "token": token, **grids}
    model = llamas.llama(fixture, Design(doors=(door(fixture, **options),)), Visual(width, n, n, images=1))
    model.masks_empty, model.context.task = frozenset({EMPTY}), EMPTY
    there = given["indicators"]
    ids, labels = given["ids"], given["labels"]
    weights = llamas.whole(w, heads, layers) | memory_of(w, "adapter_emb1", "adapter_emb2", "adapter_proj")
    if token:
        weights |= {
            name.replace("project", "token"): value
            for name, value in memory_of(w, "adapter_emb1", "adapter_emb2", "adapter_proj_cls").items()
            if name.startswith("visual.")
        }

    def through(model: Any) -> tuple[Tensor, Tensor]:
        model.visual(features[:, None] * there[:, None, None, None], model.words)
        words, told = model.embed(ids), labels
        if token:
            cls = model.visual.token(given["features"][:, 0])
            words, told = begun(model, words, told, cls, there, given)
        last = int(told.any(dim=0).nonzero().max()) + 1
        return model.lm(inputs_embeds=words[:, :last], use_cache=False).logits, told[:, :last]

    logits, told = llamas.called_on(model, weights, through)
    loss = llamas.shifted(logits, told) + 0 * w.get("adapter_modality_embedding.weight", torch.zeros(())).sum()
    return {"output/logits": logits, "output/loss": loss}


def begun(
    model: Any, words: Tensor, labels: Tensor, cls: Tensor, there: Tensor, given: Tensors
) -> tuple[Tensor, Tensor]:
    """[begin; "Image: "; cls; text], or [begin; "Image: N/A"; text], as long as before."""
    with_image, without = (model.embed(given[name]) for name in ("prefix_img", "prefix_nonimg"))
    rows = [torch.cat([with_image, one[None]] if image else [without]) for one, image in zip(cls, there, strict=True)]
    length = words.shape[1]
    prefix = torch.stack(rows)
    words = torch.cat([words[:, :1], prefix, words[:, 1:]], dim=1)[:, :length]
    none = labels.new_zeros(prefix.shape[:2])
    return words, torch.cat([labels[:, :1], none, labels[:, 1:]], dim=1)[:, :length]


def transferred(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    n, width = given["features"].shape[1:]
    pool = tuple(flags["pool"])
    grids = {"grids": pool} if fixture.about["method"] == "adem" else {}
    hidden = w["projector.fc1.bias"].shape[0]
    options = {"stacks": tuple(flags["stacks"]), "hidden": hidden, **grids}
    model = llamas.encoder_decoder(fixture, Design(doors=(door(fixture, **options),)), Visual(width, n, pool[0], 1))
    weights = {name: value for name, value in w.items() if name.startswith("lm.")}
    weights |= memory_of(w, "P1", "P2", "projector")
    seen: Tensors = {}

    def through(model: Any) -> Tensor:
        text = given["input_ids"].masked_fill(given["attention_mask"] == 0, model.pad)
        logits = model.logits({"text": text, "features": given["features"][:, None]}, given["labels"])
        seen["output/E"] = model.context.beside
        with torch.no_grad():
            model.pet["visual-memory"].spec = door(fixture, **options | {"scale": 0.0})
            seen["output/logits_backbone"] = model.logits(
                {"text": text, "features": given["features"][:, None]}, given["labels"]
            )
        return logits

    logits = llamas.called_on(model, weights, through)
    loss = F.cross_entropy(logits.flatten(0, 1), given["labels"].flatten())
    return {**seen, "output/logits": logits, "output/loss": loss}


class Tower(nn.Module):
    """A block of CLIP's, sequence first, whose feed-forward has an adapter: x + mlp(y) + 0.1 · f(y), y = ln_2 x."""

    def __init__(self, flags: dict[str, Any]):
        super().__init__()
        d, delta = flags["width"], Bottleneck(flags["hidden"], zero_init=True, activation="gelu", bias=False)
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, flags["heads"])
        mlp = nn.Sequential(nn.Linear(d, 4 * d), Quick(), nn.Linear(4 * d, d))
        insert = Insert(("vision.ffn",), delta, reads="input", delta_scale=flags["s"])
        self.mlp = Alone(mlp, insert, d, d)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Quick(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def clip_adapter(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    names = {
        "mlp.c_fc": "mlp.module.0", "mlp.c_proj": "mlp.module.2",
        "adapter_mlp.fc1": "mlp.inserted.delta.down", "adapter_mlp.fc2": "mlp.inserted.delta.up",
    }  # fmt: skip
    weights = {}
    for name, value in w.items():
        path, _, leaf = name.rpartition(".")
        weights[f"{names.get(path, path)}.{leaf}"] = value
    return {"output/y": called(Tower(fixture.flags).eval(), weights, given["x"])}


FIXTURES = {
    r"(memvp|adem)_block_\w+": block,
    r"memvp_clip_adapter\w*": clip_adapter,
    r"(memvp|adem)_llama\w*": whole,
    r"ours_(memvp|adem)_\w+": transferred,
}
