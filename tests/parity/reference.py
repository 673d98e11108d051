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

TASKS = ("vqa", "gqa", "nlvr", "caption")
# Flags that build what the reference never uses, or that it does not read (METHODS.md section 10, 5).
IGNORED = {
    "use_decoder_self_attn_value_ia3", "use_encoder_attn_value_ia3",
    "use_decoder_self_attn_value_parallel_adapter_down_dim", "use_encoder_attn_value_parallel_adapter_down_dim",
    "use_decoder_enc_attn_value_parallel_adapter_down_multihead",
}  # fmt: skip
IGNORED_ON_T5 = {"use_encoder_adapter_gating_add", "use_decoder_enc_attn_value_parallel_adapter_scaling", "use_lora"}
GATES = {
    "use_encoder_adapter_gating_large_x_lowrank": "large",
    "use_encoder_adapter_gating_large_x": "large-full",
    "use_encoder_adapter_gating_middle_xy_add": "middle-x",
    "use_encoder_adapter_gating_middle_ia3_add": "middle-y",
    "use_encoder_adapter_gating_small_xy_cat": "small",
}
VALUE_GATES = {
    f"use_decoder_enc_attn{kind}_adapter_gating_large_x_lowrank"
    for kind in ("", "_value_parallel", "_value_sequential")
}
NORMS = {"use_encoder_adapter_gating_layernorm": "layer", "use_encoder_adapter_gating_l2norm": "l2"}
HEADS = {
    "use_encoder_adapter_down_multihead": "down",
    "use_encoder_adapter_up_multihead": "up",
    "use_encoder_adapter_down_up_multihead": "down-up",
    "use_encoder_adapter_down_up_pair_multihead": "pair",
}
# One decoder site each, and how; the width is the flag's own argument.
DECODER = {
    "use_decoder_self_attn_adapter_down_dim": ("self_attn", "sequential"),
    "use_decoder_enc_attn_adapter_down_dim": ("cross_attn", "sequential"),
    "use_decoder_ff_adapter_down_dim": ("ffn", "sequential"),
    "use_decoder_enc_attn_key_value_adapter_down_dim": ("cross_attn.memory", "sequential"),
    "use_decoder_enc_attn_key_parallel_adapter_down_dim": ("cross_attn.key", "parallel"),
    "use_decoder_enc_attn_value_parallel_adapter_down_dim": ("cross_attn.value", "parallel"),
    "use_decoder_enc_attn_value_sequential_adapter_down_dim": ("cross_attn.value", "replace"),
    "use_decoder_self_attn_value_parallel_adapter_down_dim": ("self_attn.value", "parallel"),
}
IA3 = {
    "use_decoder_enc_attn_value_ia3": ("decoder", "cross_attn.value"),
    "use_decoder_self_attn_value_ia3": ("decoder", "self_attn.value"),
    "use_decoder_ff_ia3": ("decoder", "ffn.hidden"),
    "use_encoder_attn_value_ia3": ("encoder", "self_attn.value"),
}
SELECTORS = {
    "unfreeze_layer_norms": "norms",
    "unfreeze_encoder_layer_norms": "encoder.norms",
    "unfreeze_decoder_layer_norms": "decoder.norms",
    "unfreeze_bias": "biases",
    "unfreeze_encoder_bias": "encoder.biases",
    "unfreeze_decoder_bias": "decoder.biases",
}
# What says nothing about the model, or goes with another flag.
NEUTRAL = {
    "use_vision", "use_vis_order_embedding", "use_vis_layer_norm", "use_tasks_prompts", "add_adapter_cross_attn",
    "use_single_adapter", "use_single_lora", "use_single_prompt", "use_adapter_down_dim", "no_encoder_adapter",
    "no_decoder_adapter", "shared_phm_rule", "factorized_phm", "unique_hyper_net", "use_decoder_adapter_down_multihead",
    "use_encoder_gating_scaling", "use_adapter", "use_compacter", "use_lora", "unfreeze_language_model", "use_bitfit",
    "use_hyperformer", "use_side_transformers", "encoder_prompt_len", "freeze_vis_emb", "no_vis",
    "use_lowrank_visual_projector", "use_lowrank_visual_projector_gating_large_x_lowrank", "no_encoder_attn_adapter",
    "use_lowrank_visual_projector_residual_connection", "use_decoder_enc_attn_value_parallel_adapter_scaling",
    "use_encoder_adapter_gating_add", "use_encoder_adapter_scaling", "use_encoder_x2_scaling",
    "use_decoder_enc_attn_value_ia3_add", "use_decoder_ff_ia3_add", "use_encoder_gating_large_x_lowrank",
    "use_encoder_gating_large_x_lowrank_add_x2_deltay", "use_decoder_enc_attn_value_parallel_adapter_down_multihead",
    "use_encoder_attn_value_parallel_adapter_down_dim", "share_up_sampler", "share_down_sampler",
    "add_layer_norm_before_adapter", "add_layer_norm_after_adapter", "use_decoder_enc_attn_value_residual_connection",
}  # fmt: skip
SWITCH = re.compile(r"(use|no|unfreeze|freeze|share|unique|efficient|add|encoder_prompt|decoder_prompt)_.*")


@dataclass(frozen=True)
class Fixture:
    name: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Fixture:
        return cls(path.stem, cls.about_of(path), load_file(path))

    @staticmethod
    def about_of(path: Path) -> dict[str, Any]:
        return json.loads(path.with_suffix(".json").read_text())

    @property
    def family(self) -> str:
        return self.about["backbone"]

    @property
    def pairs(self) -> bool:
        """Whether heads are independent bottlenecks, and not slices of one."""
        return bool(self.about["args"].get("use_encoder_adapter_down_up_pair_multihead"))

    @property
    def unused(self) -> list[str]:
        """Parameters that the reference builds and never uses."""
        return self.about["trainable_without_gradient"] if "ignored_by_reference" in self.name else []

    def section(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below `prefix/`, by the reference's names, without those never used."""
        found = {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{prefix}/")}
        return {name: value for name, value in found.items() if name not in self.unused}


def method_of(fixture: Fixture, *, meant: bool = False) -> MethodSpec:
    """The fixture's flags as a method spec: what the reference computes, or what its flags mean.

    Raises KeyError for a flag that is not known here.
    """
    args, bart, d = fixture.about["args"], fixture.family == "bart", fixture.about["config"]["d_model"]
    on = {key for key, value in args.items() if value and SWITCH.fullmatch(key) and not key.endswith("_init")}
    strange = (
        on
        - NEUTRAL
        - GATES.keys()
        - NORMS.keys()
        - HEADS.keys()
        - DECODER.keys()
        - IA3.keys()
        - SELECTORS.keys()
        - VALUE_GATES
    )
    if strange:
        raise KeyError(f"flags without a translation: {sorted(strange)}")
    if not meant:
        on -= IGNORED | (set() if bart or fixture.about["repo"] != "VL-PET" else IGNORED_ON_T5)
    if not bart:
        on -= {"unfreeze_layer_norms"}  # METHODS.md section 10, 1
    names = " ".join(fixture.tensors)
    width = args["adapter_down_dim"] if "use_adapter_down_dim" in on else d // args.get("reduction_factor", 16)
    norms = "unfreeze_layer_norms" in on
    if "unfreeze_language_model" in on:
        return MethodSpec("full")
    if "use_lora" in on:
        single = "use_single_lora" in on or ".lora_A" in names
        options = {"rank": args["lora_dim"], "alpha": args["lora_alpha"], "biases": bart}
        return MethodSpec("lora", options | {"per_task": not single})
    if "use_side_transformers" in on:
        return MethodSpec("lst", {"reduction": args["side_reduction_factor"], "init": "random"})
    if on & {"use_bitfit", "unfreeze_bias"}:
        return MethodSpec("bitfit")
    if "encoder_prompt_len" in on:
        options = {"length": args["encoder_prompt_len"], "hidden": args["mid_dim"]}
        return MethodSpec("prompt-tuning", options | {"per_task": "use_single_prompt" not in on})
    if "use_hyperformer" in on:
        sizes = fixture.section("param")
        layers = next(t for name, t in sizes.items() if "hyper_net.layer_id_embeddings" in name)
        hidden = next(t for name, t in sizes.items() if "task_embeding_generator.0.weight" in name)
        options = {"bottleneck": width, "projected": args["projected_task_embedding_dim"], "norms": norms}
        return MethodSpec("hyperformer", options | {"embedding": layers.shape[1], "hidden": hidden.shape[0]})
    per_task = "none"
    if "use_single_adapter" not in on:
        per_task = "down" if "share_up_sampler" in on else "up" if "share_down_sampler" in on else "both"
    module = "phm" if "use_compacter" in on else "bottleneck"
    if not on & (GATES.keys() | NORMS.keys() | HEADS.keys() | DECODER.keys() | IA3.keys() | {"no_decoder_adapter"}):
        options = {"bottleneck": width, "norms": norms, "per_task": per_task}
        if module == "phm":
            return MethodSpec("compacter", options | {"n": args["hypercomplex_division"]})
        around = {f"norm_{side}": f"add_layer_norm_{side}_adapter" in on for side in ("before", "after")}
        return MethodSpec("vl-adapter", options | around)
    return MethodSpec("vl-pet-large", _vl_pet(args, on, module, width))


def _vl_pet(args: dict[str, Any], on: set[str], module: str, width: int) -> dict[str, Any]:
    """The options of VL-PET that the reference's flags amount to."""
    layout = next((HEADS[flag] for flag in HEADS if flag in on), None)
    encoder, decoder = {}, {}
    if layout or "no_encoder_adapter" not in on:
        encoder = {"self_attn": "sequential", "ffn": "sequential"}
    if "no_encoder_attn_adapter" in on:
        encoder.pop("self_attn", None)
    options = {
        "module": module,
        "bottleneck": width,
        "heads": args["encoder_adapter_multihead_num_head"] if layout else 1,
        "head_layout": layout or "down",
        "gate": next((GATES[flag] for flag in GATES if flag in on), "none"),
        "gate_width": args["adapter_gating_down_dim"],
        "gating": "add" if "use_encoder_adapter_gating_add" in on else "multiply",
        "norm": next((NORMS[flag] for flag in NORMS if flag in on), None),
        "scale": args["encoder_gating_scaling_factor"] if "use_encoder_gating_scaling" in on else 1.0,
        "delta_scale": args["encoder_adapter_scaling_factor"] if "use_encoder_adapter_scaling" in on else 1.0,
        "base_scale": args["encoder_x2_scaling_factor"] if "use_encoder_x2_scaling" in on else 1.0,
        "value_module": module,
        "train": [SELECTORS[flag] for flag in SELECTORS if flag in on],
    }
    if "use_encoder_gating_large_x_lowrank" in on:  # the gate in place of the module
        gating = "multiply" if "use_encoder_gating_large_x_lowrank_add_x2_deltay" in on else "base"
        options |= {"gate": "delta", "gating": gating, "bottleneck": args["gating_down_dim"]}
        encoder = {"self_attn": "parallel", "ffn": "parallel"}
    widths = set()
    if "no_decoder_adapter" not in on or "use_decoder_adapter_down_multihead" in on:
        decoder |= dict.fromkeys(("self_attn", "cross_attn", "ffn"), "sequential")
        widths.add(width)
    for flag, (site, how) in DECODER.items():
        if flag in on:
            decoder[site] = how
            widths.add(args[flag.removeprefix("use_")])
            if flag.startswith("use_decoder_self_attn_value") and args["backbone"] == "t5-base":
                encoder["self_attn.value"] = how  # the flag goes by the kind of attention, not by the stack
    if "use_decoder_enc_attn_value_parallel_adapter_down_multihead" in on:
        decoder["cross_attn.value"] = "parallel"
        widths.add(args["decoder_enc_attn_value_parallel_adapter_down_dim"])
    if "use_encoder_attn_value_parallel_adapter_down_dim" in on:
        encoder["self_attn.value"] = "parallel"
    for flag, (stack, site) in IA3.items():
        if flag in on:
            how = "ia3-add" if f"{flag}_add" in on else "ia3"
            (encoder if stack == "encoder" else decoder)[site] = how
    assert len(widths) < 2, f"decoder modules of several widths: {widths}"
    options |= {"encoder": encoder, "decoder": decoder, "value_bottleneck": min(widths, default=1)}
    if "use_decoder_enc_attn_value_parallel_adapter_scaling" in on:
        options["value_scale"] = args["decoder_enc_attn_value_parallel_adapter_scaling_factor"]
    for flag in on & VALUE_GATES:
        options |= {"value_gate": "large", "value_gate_width": args[f"{flag.removeprefix('use_')}_down_dim"]}
    options["value_residual"] = "use_decoder_enc_attn_value_residual_connection" in on
    if "use_lowrank_visual_projector" in on:
        gated = "use_lowrank_visual_projector_gating_large_x_lowrank" in on
        options |= {
            "visual": "low-rank",
            "projector_width": args["visual_projector_down_dim"],
            "projector_heads": args["visual_projector_multihead_num_head"],
            "projector_gate_width": args["visual_projector_gating_down_dim"] if gated else None,
            "projector_residual": "use_lowrank_visual_projector_residual_connection" in on,
        }
    if "freeze_vis_emb" in on:
        options["visual"] = "frozen"
    if "no_vis" in on:
        options["visual"] = "none"
    return options


def bare_model_of(fixture: Fixture, method: MethodSpec) -> VisionLanguageModel:
    """Our model of the fixture's sizes with the method attached, weights random."""
    config = dict(fixture.about["config"])
    visual = Visual(config.pop("feat_dim"), config.pop("grid_tokens"), config.pop("n_boxes_after_pooling"))
    rows = config.pop("vocab_after_growth")
    if fixture.family == "t5":
        config |= {"num_decoder_layers": config["num_layers"], "decoder_start_token_id": 0}
    backbone = Backbone("tiny", fixture.family, "", config, rows=rows)
    model = build(backbone, visual)
    return attach(model, build_method(method, backbone.shape).design(backbone.shape), TASKS).eval()


def model_of(fixture: Fixture, method: MethodSpec) -> VisionLanguageModel:
    """The same with the reference's weights."""
    model = bare_model_of(fixture, method)
    weights = translate(fixture.section("param"), pairs=fixture.pairs)
    ours = dict(model.named_parameters())
    assert weights.keys() == ours.keys(), sorted(weights.keys() ^ ours.keys())
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(weights[name])
    return model


def batch_of(fixture: Fixture, task: str) -> dict[str, Tensor]:
    """The fixture's inputs for a task, images in their own dimension."""
    batch = fixture.section("input.nlvr" if task == "nlvr" else "input.vqa")
    if batch["vis_feats"].dim() == 3:
        batch = batch | {"vis_feats": batch["vis_feats"][:, None], "boxes": batch["boxes"][:, None]}
    return batch


VISUAL = {
    "feat_embedding.0": "feature",
    "feat_embedding.1": "feature_norm",
    "absolute_vis_pos_embedding.0": "box",
    "absolute_vis_pos_embedding.1": "box_norm",
    "img_order_embedding": "image_order",
    "visual_projector_layer_norm": "feature_norm",
}
SUB_LAYER = {"attn": "self_attn", "self_attn": "self_attn", "enc_attn": "cross_attn", "ff": "ffn"}
ATTENTION = {
    "self_attn": "self_attn",
    "SelfAttention": "self_attn",
    "encoder_attn": "cross_attn",
    "EncDecAttention": "cross_attn",
}
PROJECTION = {"q": "query", "k": "key", "v": "value", "out": "out", "o": "out"}
HYPER = {"self_attention": "self_attn", "cross_attention": "cross_attn", "feed_forward": "ffn"}
LEAVES = {"W": "W.0", "phm_rule": "rule.A"}
LAYER = re.compile(r"(?:model\.)?(encoder|decoder)\.(?:layers|block)\.(\d+)\.(?:layer\.\d\.)?(.+)")


def _leaf(name: str) -> str:
    return LEAVES.get(name, name)


# Tail of a layer's parameter → below `pet.<stack>.<layer>.`; groups refer to the pattern's.
TAILS = [
    (r"(?:decoder_)?(self_attn|enc_attn|attn|ff)_adapter\.adapters\.\w+\.(down|up)_sampler\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.delta.{m[2]}.{_leaf(m[3])}"),
    (r"decoder_enc_attn_key_value_adapter\.adapters\.\w+\.(down|up)_sampler\.(\w+)",
     lambda m: f"cross_attn.memory.0.delta.{m[1]}.{_leaf(m[2])}"),
    (r"(self_attn|enc_attn|attn|ff)_adapter_multihead_(down|up)\.(?:\d+\.)?(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.delta.{m[2]}.{m[3]}"),
    (r"encoder_(attn|ff)_adapter_gating_large_x_(down|up)\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.gate.project.{m[2]}.{m[3]}"),
    (r"decoder_(enc_attn)_adapter_gating_large_x_(down|up)\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.gate.project.{m[2]}.{m[3]}"),
    (r"(\w+)\.\w+_value_(?:parallel|sequential)_adapter_gating_large_x_(down|up)\.(\w+)",
     lambda m: f"{ATTENTION[m[1]]}.value.0.gate.project.{m[2]}.{m[3]}"),
    (r"encoder_(attn|ff)_gating_large_x_(down|up)\.(\w+)", lambda m: f"{SUB_LAYER[m[1]]}.0.delta.{m[2]}.{m[3]}"),
    (r"encoder_(attn|ff)_adapter_gating_(?:small_xy_cat|middle_xy_add|large_x)\.(\w+)",
     lambda m: f"{SUB_LAYER[m[1]]}.0.gate.project.{m[2]}"),
    (r"encoder_(attn|ff)_adapter_gating_layernorm\.(\w+)", lambda m: f"{SUB_LAYER[m[1]]}.0.norm.{m[2]}"),
    (r"encoder_(attn|ff)_adapter_gating_middle_ia3_add", lambda m: f"{SUB_LAYER[m[1]]}.0.gate.g"),
    (r"(\w+)\.attn_(key|value)_(?:parallel|sequential)_adapter\.adapters\.\w+\.(down|up)_sampler\.(\w+)",
     lambda m: f"{ATTENTION[m[1]]}.{m[2]}.0.delta.{m[3]}.{_leaf(m[4])}"),
    (r"(\w+)\.\w+_value_parallel_adapter_multihead_(down|up)\.(?:\d+\.)?(\w+)",
     lambda m: f"{ATTENTION[m[1]]}.value.0.delta.{m[2]}.{m[3]}"),
    (r"(\w+)\.attn_value_ia3", lambda m: f"{ATTENTION[m[1]]}.value.0.gate.g"),
    (r"(?:DenseReluDense\.)?\w*ff_ia3", lambda m: "ffn.hidden.0.gate.g"),
    (r"(\w+)\.(q|k|v|o|out)(?:_proj)?\.lora_(A|B)s?(?:\.\w+)?",
     lambda m: f"{ATTENTION[m[1]]}.{PROJECTION[m[2]]}.0.delta.{m[3]}"),
]  # fmt: skip
# Whole names outside of the layers.
NAMES = [
    (r".*visual_embedding\.visual_projector_multihead_(down|up)\.(?:\d+\.)?(\w+)",
     lambda m: f"visual.feature.project.{m[1]}.{m[2]}"),
    (r".*visual_embedding\.visual_projector_gating_large_x_(down|up)\.(\w+)",
     lambda m: f"visual.feature.gate.{m[1]}.{m[2]}"),
    (r".*visual_embedding\.(.+)\.(\w+)", lambda m: f"visual.{VISUAL[m[1]]}.{m[2]}"),
    (r".*prompt_modules\.prompts\.\w+\.prefix_embedding\.0\.weight", lambda m: "pet.prompt.table"),
    (r".*prompt_modules\.prompts\.\w+\.prefix_embedding\.(1|3)\.(\w+)",
     lambda m: f"pet.prompt.project.{int(m[1]) - 1}.{m[2]}"),
    (r".*shared_task_embed\.task_to_embeddings\.(\w+)", lambda m: f"pet.shared.task_vectors.vectors.{m[1]}"),
    (r"(?:model\.)?(encoder|decoder)\.adapter_layers_hyper_net\.(.+)",
     lambda m: f"pet.shared.{m[1]}_hypernetwork.{_hyper(m[2])}"),
    (r"(?:model\.)?(encoder|decoder)\.side_block\.(.+)", lambda m: f"pet.side.{m[1]}.blocks.{m[2]}"),
    (r"(?:model\.)?(encoder|decoder)\.side_downsamples\.(.+)", lambda m: f"pet.side.{m[1]}.downs.{m[2]}"),
    (r"(?:model\.)?(encoder|decoder)\.side_first_downsample\.(.+)", lambda m: f"pet.side.{m[1]}.first.{m[2]}"),
    (r"(?:model\.)?(encoder|decoder)\.side_gate_params\.(\d+)", lambda m: f"pet.side.{m[1]}.gates.{m[2]}"),
    (r"(?:model\.)?(encoder|decoder)\.final_side_layer_norm\.(.+)", lambda m: f"pet.side.{m[1]}.norm.{m[2]}"),
    (r"side_final_upsample\.(.+)", lambda m: f"pet.side.up.{m[1]}"),
]  # fmt: skip


def _hyper(name: str) -> str:
    if match := re.fullmatch(r"(\w+)_(down|up)_sampler_hyper_net\.(weight|bias)_generator\.0\.(\w+)", name):
        return f"places.{HYPER[match[1]]}.{match[3]}.{match[2]}.{match[4]}"
    name = name.replace("task_hypernet.task_embeding_generator.0", "first")
    name = name.replace("task_hypernet.task_embeding_generator.2", "second")
    return name.replace("layer_id_embeddings.weight", "layers")


def rename(name: str) -> str:
    """Our name of a reference parameter."""
    for pattern, ours in NAMES:
        if match := re.fullmatch(pattern, name):
            return ours(match)
    if layer := LAYER.fullmatch(name):
        for pattern, ours in TAILS:
            if match := re.fullmatch(pattern, layer[3]):
                return f"pet.{layer[1]}.{layer[2]}.{ours(match)}"
    return f"lm.{name}"


def translate(reference: dict[str, Tensor], *, pairs: bool = False) -> dict[str, Tensor]:
    """Reference tensors by our names; heads that read the whole of their input become one matrix.

    pairs: the up projections' heads stay apart.
    """
    parts: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, tensor in reference.items():
        ours, head = rename(name), re.search(r"_multihead_up\.(\d+)\.(\w+)$", name)
        if pairs and head:
            ours = f"{ours.rpartition('.')[0]}.groups.{head[1]}.{head[2]}"
        parts[ours].append((name, tensor))
    return {
        ours: torch.cat([t for _, t in sorted(found)]) if len(found) > 1 else found[0][1]
        for ours, found in parts.items()
    }
