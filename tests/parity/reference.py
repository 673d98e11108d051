"""From the reference implementations' flags and parameter names to ours: the one place that knows both."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from pet_bench.backbone import Backbone, EncoderDecoder, build
from pet_bench.pet import Bottleneck, Design, Insert, attach, build_method
from pet_bench.spec import MethodSpec, Visual
from tests.reference.discover import Source, fixtures

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
    "unfreeze_decoder_input_layer_norms": "lm.model.decoder.layernorm_embedding.*",
    "unfreeze_decoder_self_attn_layer_norms": "lm.model.decoder.layers.*.self_attn_layer_norm.*",
    "unfreeze_decoder_encoder_attn_layer_norms": "lm.model.decoder.layers.*.encoder_attn_layer_norm.*",
    "unfreeze_decoder_ff_layer_norms": "lm.model.decoder.layers.*.final_layer_norm.*",
    "unfreeze_lm_head": "lm.*shared.weight",  # the output layer is the word table
}
INITS = {
    "use_encoder_multihead_up_zero_init", "use_encoder_gating_large_x_lowrank_up_zero_init",
    "use_encoder_gating_small_up_zero_init", "use_encoder_gating_middle_up_zero_init",
    "use_encoder_gating_middle_ia3_zero_init", "use_encoder_gating_middle_ia3_one_init",
    "use_decoder_enc_vpa_up_zero_init", "use_decoder_enc_attn_value_ia3_one_init", "use_decoder_ff_ia3_one_init",
    "use_decoder_self_attn_value_ia3_one_init", "use_encoder_attn_value_ia3_one_init",
}  # fmt: skip
GATE_INITS = {
    "large": "use_encoder_gating_large_x_lowrank_up_zero_init",
    "small": "use_encoder_gating_small_up_zero_init",
    "middle-x": "use_encoder_gating_middle_up_zero_init",
    "middle-y": "use_encoder_gating_middle_ia3_zero_init",
}
# What one encoder sub-layer's sequential adapter is multiplied by.
PART_SCALES = {"use_encoder_attn_adapter_scaling": "self_attn", "use_encoder_ff_adapter_scaling": "ffn"}
# What says nothing about the model: the data's, or on by default and read with `use_compacter` alone.
NEUTRAL = {
    "use_vision", "use_vis_order_embedding", "use_vis_layer_norm", "use_tasks_prompts", "use_vis_noise",
    "add_adapter_cross_attn", "shared_phm_rule", "factorized_phm", "use_adapter", "use_adapter_down_dim",
    "use_single_adapter", "use_single_lora", "use_single_prompt",
}  # fmt: skip
SWITCH = re.compile(
    r"(use|no|unfreeze|freeze|share|shared|factorized|unique|efficient|add|encoder_prompt|decoder_prompt)_.*"
)


class Switches:
    """The switches that are on. Asking for one is to translate it; `rest` are those that nobody has asked for."""

    def __init__(self, on: set[str]):
        self.on, self.asked = on, set()

    def __contains__(self, flag: str) -> bool:
        self.asked.add(flag)
        return flag in self.on

    def among(self, flags: Iterable[str]) -> list[str]:
        return [flag for flag in flags if flag in self]

    def rest(self) -> list[str]:
        return sorted(self.on - self.asked - NEUTRAL)


def sources() -> dict[str, Source]:
    """The whole models in the first parity set's form."""
    return fixtures() | {k: v for k, v in fixtures("followups/parity").items() if k.startswith("vlbart_")}


@dataclass(frozen=True)
class Fixture:
    name: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, name: str) -> Fixture:
        source = sources()[name]
        return cls(name, source.about, source.tensors)

    @property
    def family(self) -> str:
        return self.about["backbone"]

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

    Raises KeyError for flags that have no translation, alone or together, and names them.
    """
    about = fixture.about
    on = {key for key, value in about["args"].items() if value and SWITCH.fullmatch(key)}
    if not meant:
        on -= IGNORED | (set() if fixture.family == "bart" or about["repo"] != "VL-PET" else IGNORED_ON_T5)
    if fixture.family != "bart":
        on -= {"unfreeze_layer_norms"}  # METHODS.md section 10, 1
    switches = Switches(on)
    spec = _method(fixture, about["args"], switches)
    if switches.rest():
        raise KeyError(f"flags without a translation: {switches.rest()}")
    return spec


def _method(fixture: Fixture, args: dict[str, Any], on: Switches) -> MethodSpec:
    bart, d = fixture.family == "bart", fixture.about["config"]["d_model"]
    names = " ".join(fixture.tensors)
    width = args["adapter_down_dim"] if "use_adapter_down_dim" in on else d // args.get("reduction_factor", 16)
    if "unfreeze_language_model" in on:
        return MethodSpec("full")
    if "use_lora" in on:
        single = "use_single_lora" in on or ".lora_A" in names
        options = {"rank": args["lora_dim"], "alpha": args["lora_alpha"], "biases": bart}
        return MethodSpec("lora", options | {"per_task": not single})
    if on.among(("use_dora", "use_mlora")):
        rank = args["lora_dim"]
        options = {"rank": rank, "biases": "unfreeze_bias" in on, "norms": "unfreeze_layer_norms" in on}
        if "use_dora" in on:
            norm = "constant" if args.get("dora_simple") else "differentiated"
            return MethodSpec("dora", options | {"alpha": float(rank), "norm": norm})
        bank = {"ups": args["B_num"], "temperature": args["mlora_temperature"]}
        return MethodSpec("mtl-lora", options | bank | {"alpha": args["lora_alpha"]})
    if "use_side_transformers" in on:
        return MethodSpec("lst", {"reduction": args["side_reduction_factor"], "init": "random"})
    if on.among(("use_bitfit", "unfreeze_bias")):
        return MethodSpec("bitfit")
    if "encoder_prompt_len" in on:
        options = {"length": args["encoder_prompt_len"], "hidden": args["mid_dim"]}
        return MethodSpec("prompt-tuning", options | {"per_task": "use_single_prompt" not in on})
    if "use_hyperformer" in on:
        if "unique_hyper_net" not in on:
            raise KeyError("flags without a translation: ['use_hyperformer' without 'unique_hyper_net']")
        sizes = fixture.section("param")
        layers = next(t for name, t in sizes.items() if "hyper_net.layer_id_embeddings" in name)
        hidden = next(t for name, t in sizes.items() if "task_embeding_generator.0.weight" in name)
        options = {"bottleneck": width, "projected": args["projected_task_embedding_dim"]}
        options |= {"norms": "unfreeze_layer_norms" in on}
        return MethodSpec("hyperformer", options | {"embedding": layers.shape[1], "hidden": hidden.shape[0]})
    return _adapters(args, on, d, width)


def _per_task(on: Switches) -> str:
    """What every task has of an adapter for itself."""
    shared = on.among(("share_up_sampler", "share_down_sampler"))
    if "use_single_adapter" in on:
        return "none"
    return {(): "both", ("share_up_sampler",): "down", ("share_down_sampler",): "up"}.get(tuple(shared), "none")


def _adapters(args: dict[str, Any], on: Switches, d: int, width: int) -> MethodSpec:
    """VL-Adapter, Compacter, VL-PET; or, where none of them has an option for it, the equations spelled out."""
    compacter, factor = "use_compacter" in on, "use_lradapter" in on
    module = "phm" if compacter else "factor" if factor else "bottleneck"
    per_task = _per_task(on)
    around = {f"norm_{side}": f"add_layer_norm_{side}_adapter" in on for side in ("before", "after")}
    phm = {
        "n": args["hypercomplex_division"],
        "rank": args["phm_rank"] if "factorized_phm" in on else None,
        "shared_rule": "shared_phm_rule" in on,
        "init_range": args["phm_init_range"],
    }
    trains = [SELECTORS[flag] for flag in on.among(SELECTORS)]
    kinds = {*GATES, *NORMS, *HEADS, *DECODER, *IA3, *PART_SCALES, *VALUE_GATES} | {
        "no_decoder_adapter", "no_encoder_adapter", "use_lm_head_adapter", "use_encoder_gating_scaling",
        "use_encoder_adapter_scaling", "use_encoder_x2_scaling", "use_lowrank_visual_projector", "freeze_vis_emb",
        "no_vis", "no_encoder_attn_adapter", "use_encoder_gating_large_x_lowrank",
    }  # fmt: skip
    plain = not on.on & kinds and trains in ([], ["norms"]) and not factor
    if plain:
        options = {"bottleneck": width, "norms": bool(trains), "per_task": per_task}
        if compacter:
            return MethodSpec("compacter", options | phm)
        return MethodSpec("vl-adapter", options | around)

    width = d // args["reduction_factor"] if factor else width
    spec = MethodSpec("vl-pet-large", _vl_pet(args, on, module, width, trains))
    anatomy = Backbone("tiny", "bart" if "bart" in args["backbone"] else "t5", "", {"d_model": d}).anatomy
    design = build_method(spec, anatomy).design(anatomy)
    delta = {"phm": phm, "factor": {"rank": args["low_rank_rank"]}, "bottleneck": around}[module]
    delta |= {} if factor else {"per_task": per_task}
    scales = {PART_SCALES[flag]: args[f"{flag.removeprefix('use_')}_factor"] for flag in on.among(PART_SCALES)}
    inserts = []
    for insert in design.inserts:
        (site,) = insert.sites
        part = site.removeprefix("encoder.")
        if insert.delta and insert.delta.kind == module and not (part in ("self_attn", "ffn") and on.among(HEADS)):
            scale = scales.get(part, 1.0) * insert.delta_scale
            insert = replace(insert, delta=replace(insert.delta, **delta), delta_scale=scale)
        inserts.append(insert)
    if "use_lm_head_adapter" in on:
        inserts.append(Insert(("decoder.head",), Bottleneck(d // 16), reads="input"))
    changed = replace(design, inserts=tuple(inserts))
    return spec if changed == design else MethodSpec("design", TypeAdapter(Design).dump_python(changed, mode="json"))


def _vl_pet(args: dict[str, Any], on: Switches, module: str, width: int, trains: list[str]) -> dict[str, Any]:
    """The options of VL-PET that the reference's flags amount to."""
    layout = next((HEADS[flag] for flag in on.among(HEADS)), None)
    encoder, decoder = {}, {}
    if "no_encoder_adapter" not in on or layout:
        encoder = {"self_attn": "sequential", "ffn": "sequential"}
    if "no_encoder_attn_adapter" in on:
        encoder.pop("self_attn", None)
    options = {
        "module": module,
        "bottleneck": width,
        "heads": args["encoder_adapter_multihead_num_head"] if layout else 1,
        "head_layout": layout or "down",
        "gate": next((GATES[flag] for flag in on.among(GATES)), "none"),
        "gate_width": args["adapter_gating_down_dim"],
        "gating": "add" if "use_encoder_adapter_gating_add" in on else "multiply",
        "norm": next((NORMS[flag] for flag in on.among(NORMS)), None),
        "scale": args["encoder_gating_scaling_factor"] if "use_encoder_gating_scaling" in on else 1.0,
        "delta_scale": args["encoder_adapter_scaling_factor"] if "use_encoder_adapter_scaling" in on else 1.0,
        "base_scale": args["encoder_x2_scaling_factor"] if "use_encoder_x2_scaling" in on else 1.0,
        "value_module": module,
        "train": trains,
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
    options["value_residual"] = "use_decoder_enc_attn_value_residual_connection" in on
    for flag in on.among(VALUE_GATES):
        if options["value_residual"] or "_value_" not in flag:  # a gate of the values is built with the residual only
            options |= {"value_gate": "large", "value_gate_width": args[f"{flag.removeprefix('use_')}_down_dim"]}
    if "use_lowrank_visual_projector" in on:
        gated = "use_visual_projector_gating_large_x_lowrank" in on
        options |= {
            "visual": "low-rank",
            "projector_width": args["visual_projector_down_dim"],
            "projector_heads": args["visual_projector_multihead_num_head"],
            "projector_gate_width": args["visual_projector_gating_down_dim"] if gated else None,
            "projector_residual": "use_visual_projector_residual_connection" in on,
        }
    if "freeze_vis_emb" in on:
        options["visual"] = "frozen"
    if "no_vis" in on:
        options["visual"] = "none"
    return options | _starts(on, options, layout)


def _starts(on: Switches, options: dict[str, Any], layout: str | None) -> dict[str, str]:
    """Where the modules start, by the flags whose part is there."""
    inits, values = set(on.among(INITS)), set(options["decoder"].values())
    ones = any(flag.endswith("value_ia3_one_init") or flag.endswith("ff_ia3_one_init") for flag in inits)
    gate = "zero" if GATE_INITS.get(options["gate"]) in inits else "default"
    if options["gate"] == "middle-y" and (ones or "use_encoder_gating_middle_ia3_one_init" in inits):
        gate = "one"  # a flag of one IA³ vector sets them all
    zero = "parallel" in values and "use_decoder_enc_vpa_up_zero_init" in inits
    return {
        "module_init": "zero" if layout and "use_encoder_multihead_up_zero_init" in inits else "default",
        "gate_init": gate,
        "value_init": "zero" if zero else "one" if ones and values & {"ia3", "ia3-add"} else "default",
    }


def bare_model_of(fixture: Fixture, method: MethodSpec) -> EncoderDecoder:
    """Our model of the fixture's sizes with the method attached, weights random."""
    config = dict(fixture.about["config"])
    visual = Visual(config.pop("feat_dim"), config.pop("grid_tokens"), config.pop("n_boxes_after_pooling"))
    rows = config.pop("vocab_after_growth")
    if fixture.family == "t5":
        config |= {"num_decoder_layers": config["num_layers"], "decoder_start_token_id": 0}
    backbone = Backbone("tiny", fixture.family, "", config, rows=rows)
    model = build(backbone, visual)
    return attach(model, build_method(method, backbone.anatomy).design(backbone.anatomy), TASKS).eval()


def model_of(fixture: Fixture, method: MethodSpec) -> EncoderDecoder:
    """The same with the reference's weights."""
    model = bare_model_of(fixture, method)
    weights = translate(fixture.section("param"), Layout.of(fixture))
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
LEAVES = {"W": "W.0", "W_left": "W.0", "W_right": "W.1", "phm_rule": "rule.A"}
MIXED = {"lora_lambdas": "mixer", "lora_B_w": "w", "weight_m": "m"}
LAYER = re.compile(r"(?:model\.)?(encoder|decoder)\.(?:layers|block)\.(\d+)\.(?:layer\.\d\.)?(.+)")


def _leaf(name: str) -> str:
    return LEAVES.get(name, name)


# Tail of a layer's parameter → below `pet.<stack>.<layer>.`; groups refer to the pattern's.
ADAPTER = r"(?:adapters\.(?P<task>\w+)\.(?P<half>down|up)_sampler|(?P<norm>pre|post)_layer_norm)\.(?P<leaf>\w+)"
TAILS = [
    (rf"(?:decoder_)?(self_attn|enc_attn|attn|ff)_adapter\.{ADAPTER}", lambda m: _adapter(SUB_LAYER[m[1]], m)),
    (rf"decoder_enc_attn_key_value_adapter\.{ADAPTER}", lambda m: _adapter("cross_attn.memory", m)),
    (rf"(\w+)\.(?:attn_(key|value)_parallel|enc_attn_(value)_sequential)_adapter\.{ADAPTER}",
     lambda m: _adapter(f"{ATTENTION[m[1]]}.{m[2] or m[3]}", m)),
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
    (r"(\w+)\.\w+_value_parallel_adapter_multihead_(down|up)\.(?:\d+\.)?(\w+)",
     lambda m: f"{ATTENTION[m[1]]}.value.0.delta.{m[2]}.{m[3]}"),
    (r"(\w+)\.attn_value_ia3", lambda m: f"{ATTENTION[m[1]]}.value.0.gate.g"),
    (r"(?:DenseReluDense\.)?\w*ff_ia3", lambda m: "ffn.hidden.0.gate.g"),
    (r"(\w+)\.(q|k|v|o|out)(?:_proj)?\.lora_(A|B)s?(?:\.(\w+))?",
     lambda m: f"{ATTENTION[m[1]]}.{PROJECTION[m[2]]}.0.delta.of.{m[4]}.{m[3]}"),
    (r"(\w+)\.(q|v)_proj\.(lora_lambdas|lora_B_w|weight_m)",
     lambda m: f"{ATTENTION[m[1]]}.{PROJECTION[m[2]]}.0.delta.{MIXED[m[3]]}"),
]  # fmt: skip
# Whole names outside of the layers.
NAMES = [
    (r"(.*)\.weight_v", lambda m: f"lm.{m[1]}.weight"),  # which DoRA calls so, beside its own weight_m
    (r".*visual_embedding\.visual_projector_multihead_(down|up)\.(?:\d+\.)?(\w+)",
     lambda m: f"visual.feature.project.{m[1]}.{m[2]}"),
    (r".*visual_embedding\.visual_projector_gating_large_x_(down|up)\.(\w+)",
     lambda m: f"visual.feature.gate.{m[1]}.{m[2]}"),
    (r".*visual_embedding\.(.+)\.(\w+)", lambda m: f"visual.{VISUAL[m[1]]}.{m[2]}"),
    (r".*prompt_modules\.prompts\.(\w+)\.prefix_embedding\.0\.weight", lambda m: f"pet.prompt.of.{m[1]}.table"),
    (r".*prompt_modules\.prompts\.(\w+)\.prefix_embedding\.(1|3)\.(\w+)",
     lambda m: f"pet.prompt.of.{m[1]}.project.{int(m[2]) - 1}.{m[3]}"),
    (r"output_adapter\.adapter\.(down|up)_sampler\.(\w+)", lambda m: f"pet.decoder.head.0.delta.{m[1]}.{m[2]}"),
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


# The stock model's own parameters, whose names are ours too; BitFit adds biases to T5's.
STOCK = re.compile(
    r"((model\.)?shared\.weight"
    r"|model\.(encoder|decoder)\.(embed_positions\.weight|layernorm_embedding\.(weight|bias)|layers\.\d+\."
    r"((self_attn|encoder_attn)\.[qkv]_proj|(self_attn|encoder_attn)\.out_proj|fc[12]"
    r"|(self_attn|encoder_attn|final)_layer_norm)\.(weight|bias))"
    r"|(encoder|decoder)\.(final_layer_norm|block\.\d+\.layer\.\d\.(layer_norm|(Self|EncDec)Attention\.([qkvo]"
    r"|relative_attention_bias)|DenseReluDense\.w[io]))\.(weight|bias)"
    r"|lm_head\.bias)"
)


@dataclass(frozen=True)
class Layout:
    """What the names of parameters alone do not tell.

    pairs: heads are independent bottlenecks. per_task: what every task has of an adapter, a prompt or a LoRA ("none",
    "both", "down", "up"). before, after: a layer norm is there around adapters. factor: adapters are of low rank, not
    hypercomplex. shared_rule: all have one A.
    """

    pairs: bool = False
    per_task: str = "none"
    before: bool = False
    after: bool = False
    factor: bool = False
    shared_rule: bool = False

    @classmethod
    def of(cls, fixture: Fixture) -> Layout:
        args = fixture.about["args"]
        on = Switches({key for key, value in args.items() if value})
        single = on.among(("use_single_adapter", "use_single_lora", "use_single_prompt", "use_hyperformer"))
        single = single or on.among(("use_dora", "use_mlora"))
        adapters = not on.among(("use_lora", "encoder_prompt_len", "use_side_transformers"))
        lora = "use_lora" in on and ".lora_A" in " ".join(n.replace("lora_As", "") for n in fixture.tensors)
        return cls(
            pairs="use_encoder_adapter_down_up_pair_multihead" in on,
            per_task="none" if single or lora else _per_task(on) if adapters else "both",
            before="add_layer_norm_before_adapter" in on,
            after="add_layer_norm_after_adapter" in on,
            factor="use_lradapter" in on,
            shared_rule="use_compacter" in on and "shared_phm_rule" in on,
        )


def _adapter(place: str, match: re.Match) -> str:
    if match["norm"]:
        return f"{place}.0.delta.{match['norm']}_norm.{match['leaf']}"
    return f"{place}.0.delta.{match['half']}.of.{match['task']}.{_leaf(match['leaf'])}"


def rename(name: str, layout: Layout = Layout()) -> str:
    """Our name of a reference parameter; raises KeyError for one that has no translation."""
    try:
        for pattern, ours in NAMES:
            if match := re.fullmatch(pattern, name):
                return _placed(ours(match), name, layout)
        if layer := LAYER.fullmatch(name):
            for pattern, ours in TAILS:
                if match := re.fullmatch(pattern, layer[3]):
                    return _placed(f"pet.{layer[1]}.{layer[2]}.{ours(match)}", name, layout)
    except KeyError:  # a part of the pattern
        pass
    else:
        if STOCK.fullmatch(name):
            return f"lm.{name}"
    raise KeyError(f"a parameter without a translation: {name}")


def _placed(ours: str, name: str, layout: Layout) -> str:
    """A name with what the layout says of it."""
    half = re.search(r"\.(down|up)\.of\.", ours)
    if layout.per_task not in ("both", half[1] if half else "both"):
        ours = re.sub(r"\.of\.\w+(?=\.)", "", ours)
    if layout.factor and ".delta." in ours:
        ours = re.sub(r"W\.[01]$", lambda m: {"W.0": "U", "W.1": "V"}[m[0]], ours)
    if layout.shared_rule and ours.endswith(".rule.A"):
        return "pet.shared.phm_rule.A"
    if (layout.before or layout.after) and re.search(r"_adapter\.(adapters|pre_|post_)", name):
        position = int(layout.before)
        if ".delta.pre_norm." in ours or ".delta.post_norm." in ours:
            return ours.replace("pre_norm", "0").replace("post_norm", str(position + 1))
        ours = ours.replace(".delta.", f".delta.{position}.")
    if head := re.search(r"_multihead_up\.(\d+)\.(\w+)$", name) if layout.pairs else None:
        ours = f"{ours.rpartition('.')[0]}.groups.{head[1]}.{head[2]}"
    return ours


def translate(reference: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Reference tensors by our names; heads that read the whole of their input become one matrix.

    Raises KeyError for names that have no translation, or the same one without being heads of one matrix.
    """
    parts: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, tensor in reference.items():
        ours = rename(name, layout)
        kept = tensor[0] if name.endswith("lora_A") and tensor.dim() == 3 else tensor
        parts[ours].append((name, kept[:, 0] if ours.endswith("delta.m") else kept))
    for ours, found in parts.items():
        if len(found) > 1 and not all("_multihead_" in name for name, _ in found):
            raise KeyError(f"{ours} is the translation of several: {sorted(name for name, _ in found)}")
    return {
        ours: torch.cat([t for _, t in sorted(found)]) if len(found) > 1 else found[0][1]
        for ours, found in parts.items()
    }
