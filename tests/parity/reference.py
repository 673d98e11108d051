"""From the reference implementations' flags and parameter names to ours: the one place that knows both."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pet_bench.backbone import Backbone, VisionLanguageModel, build
from pet_bench.pet import attach, build_method
from pet_bench.spec import MethodSpec, Visual

# Flags that change which model is built, and that `method_of` understands. A fixture with any other such flag set
# belongs to a method that is not registered.
SWITCH = re.compile(r"^(use|no|unfreeze|freeze|share|unique|efficient|add|encoder_prompt|decoder_prompt)_")
NEUTRAL = {
    "use_vision", "use_vis_order_embedding", "use_vis_layer_norm", "use_tasks_prompts", "add_adapter_cross_attn",
    "use_single_adapter", "use_single_lora", "use_adapter_down_dim", "no_encoder_adapter", "no_decoder_adapter",
    "use_encoder_adapter_down_multihead", "unfreeze_layer_norms", "unfreeze_encoder_layer_norms",
    "use_encoder_gating_scaling", "use_adapter", "use_lora", "unfreeze_bias", "unfreeze_language_model",
    "use_decoder_enc_attn_value_parallel_adapter_down_dim",
}  # fmt: skip
GATES = {
    "use_encoder_adapter_gating_large_x_lowrank": "large",
    "use_encoder_adapter_gating_middle_xy_add": "middle-x",
    "use_encoder_adapter_gating_middle_ia3_add": "middle-y",
    "use_encoder_adapter_gating_small_xy_cat": "small",
}


@dataclass(frozen=True)
class Fixture:
    name: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Fixture:
        return cls(path.stem, json.loads(path.with_suffix(".json").read_text()), load_file(path))

    @property
    def family(self) -> str:
        return self.about["backbone"]

    def section(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below `prefix/`, by the reference's names."""
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{prefix}/")}


def method_of(fixture: Fixture) -> MethodSpec | None:
    """The fixture's flags as a method spec of ours, or None where no registered method covers them."""
    args, bart = fixture.about["args"], fixture.family == "bart"
    switches = {key for key, value in args.items() if value and SWITCH.match(key) and not key.endswith("zero_init")}
    if switches - NEUTRAL - GATES.keys() or "ignored_by_reference" in fixture.name:
        return None
    if "unfreeze_language_model" in switches:
        return MethodSpec("full")
    if "use_lora" in switches:
        options = {"rank": args["lora_dim"], "alpha": args["lora_alpha"], "biases": bart}
        return MethodSpec("lora", options)
    light_decoder = "use_decoder_enc_attn_value_parallel_adapter_down_dim" in switches
    if light_decoder and "use_adapter" in switches:
        gate = next((GATES[key] for key in switches & GATES.keys()), "none")
        scaled = "use_encoder_gating_scaling" in switches
        options = {
            "bottleneck": args["adapter_down_dim"],
            "gate_width": args["adapter_gating_down_dim"],
            "decoder_bottleneck": args["decoder_enc_attn_value_parallel_adapter_down_dim"],
            "scale": args["encoder_gating_scaling_factor"] if scaled else 1.0,
            "gate": gate,
        }
        return MethodSpec("vl-pet-large" if gate == "none" else f"vl-pet-{gate}", options)
    if "use_adapter" in switches:
        width = fixture.about["config"]["d_model"] // args["reduction_factor"]
        return MethodSpec("vl-adapter", {"bottleneck": width, "norms": bart and "unfreeze_layer_norms" in switches})
    return None


def model_of(fixture: Fixture, method: MethodSpec) -> VisionLanguageModel:
    """Our model of the fixture's sizes with the method attached and the reference's weights, in evaluation mode."""
    config = dict(fixture.about["config"])
    visual = Visual(config.pop("feat_dim"), config.pop("grid_tokens"), config.pop("n_boxes_after_pooling"))
    rows = config.pop("vocab_after_growth")
    if fixture.family == "t5":
        config |= {"num_decoder_layers": config["num_layers"], "decoder_start_token_id": 0}
    backbone = Backbone("tiny", fixture.family, "", config, rows=rows)
    model = build(backbone, visual)
    attach(model, build_method(method, backbone.shape).design(backbone.shape))
    weights = translate(fixture.section("param"), fixture.family)
    ours = dict(model.named_parameters())
    assert weights.keys() == ours.keys(), sorted(weights.keys() ^ ours.keys())
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(weights[name])
    return model.eval()


VISUAL = {
    "feat_embedding.0": "visual.feature",
    "feat_embedding.1": "visual.feature_norm",
    "absolute_vis_pos_embedding.0": "visual.box",
    "absolute_vis_pos_embedding.1": "visual.box_norm",
    "img_order_embedding": "visual.image_order",
}
LAYER = re.compile(r"(?:model\.)?(encoder|decoder)\.(?:layers|block)\.(\d+)\.(?:layer\.\d\.)?(.+)")
# Tail of a layer's parameter → below `pet.<stack>.<layer>.`; groups refer to the pattern's.
SUB_LAYER = {"attn": "self_attn", "self_attn": "self_attn", "enc_attn": "cross_attn", "ff": "ffn"}
ATTENTION = {
    "self_attn": "self_attn",
    "SelfAttention": "self_attn",
    "encoder_attn": "cross_attn",
    "EncDecAttention": "cross_attn",
}
PROJECTION = {"q": "query", "k": "key", "v": "value", "out": "out", "o": "out"}
TAILS = [
    (r"(self_attn|enc_attn|attn|ff)_adapter\.adapters\.\w+\.(down|up)_sampler\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.delta.{m[2]}.{m[3]}"),
    (r"(attn|ff)_adapter_multihead_(down|up)\.(?:\d+\.)?(\w+)", lambda m: f"{SUB_LAYER[m[1]]}.0.delta.{m[2]}.{m[3]}"),
    (r"encoder_(attn|ff)_adapter_gating_large_x_(down|up)\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.gate.project.{m[2]}.{m[3]}"),
    (r"encoder_(attn|ff)_adapter_gating_(?:small_xy_cat|middle_xy_add)\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.gate.project.{m[2]}"),
    (r"encoder_(attn|ff)_adapter_gating_middle_ia3_add", lambda m: f"{SUB_LAYER[m[1]]}.0.gate.g"),
    (r"(\w+)\.attn_value_parallel_adapter\.adapters\.\w+\.(down|up)_sampler\.(\w+)",
     lambda m: f"{ATTENTION[m[1]]}.value.0.delta.{m[2]}.{m[3]}"),
    (r"(\w+)\.(q|k|v|o|out)(?:_proj)?\.lora_(A|B)s?(?:\.\w+)?",
     lambda m: f"{ATTENTION[m[1]]}.{PROJECTION[m[2]]}.0.delta.{m[3]}"),
]  # fmt: skip


def rename(name: str, family: str) -> str:
    """Our name of a reference parameter."""
    if ".visual_embedding." in name:
        key, leaf = name.split(".visual_embedding.")[1].rsplit(".", 1)
        return f"{VISUAL[key]}.{leaf}"
    layer = LAYER.fullmatch(name)
    if layer:
        for pattern, ours in TAILS:
            if match := re.fullmatch(pattern, layer[3]):
                return f"pet.{layer[1]}.{layer[2]}.{ours(match)}"
    return f"lm.{name}"


def translate(reference: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """Reference tensors by our names; the heads of a multi-head down projection become one matrix."""
    parts: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, tensor in reference.items():
        parts[rename(name, family)].append((name, tensor))
    return {
        ours: torch.cat([t for _, t in sorted(found)]) if len(found) > 1 else found[0][1]
        for ours, found in parts.items()
    }
