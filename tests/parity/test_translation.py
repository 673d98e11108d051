"""Every switch of the reference that METHODS.md section 9 names has a translation, or is an error that names it.

To options of ours, and the parameters it brings to parameters of ours: each to one, and none of ours is left over.
"""

from __future__ import annotations

import re

import pytest

from pet_bench.pet import build_method
from pet_bench.spec import MethodSpec
from tests.conftest import ROOT
from tests.parity.reference import Fixture, Layout, bare_model_of, method_of, rename

CONFIG = {
    "vocab_size": 80, "vocab_after_growth": 100, "d_model": 32, "feat_dim": 16, "grid_tokens": 9,
    "n_boxes_after_pooling": 4,
}  # fmt: skip
SIZES = {
    "bart": {
        "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 40,
    },
    "t5": {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
}  # fmt: skip
# Values of the reference's arguments that are no switches; every width another, so that a mix-up shows.
VALUES = {
    "adapter_down_dim": 4, "adapter_gating_down_dim": 6, "gating_down_dim": 3, "reduction_factor": 4,
    "hypercomplex_division": 4, "phm_rank": 1, "phm_init_range": 0.02, "low_rank_rank": 2, "lora_dim": 5,
    "lora_alpha": 16, "mid_dim": 7, "encoder_adapter_multihead_num_head": 2, "decoder_adapter_multihead_num_head": 2,
    "encoder_gating_scaling_factor": 0.3, "encoder_adapter_scaling_factor": 0.5, "encoder_x2_scaling_factor": 0.7,
    "encoder_attn_adapter_scaling_factor": 0.25, "encoder_ff_adapter_scaling_factor": 4.0,
    "decoder_enc_attn_value_parallel_adapter_scaling_factor": 2.0, "visual_projector_down_dim": 8,
    "visual_projector_multihead_num_head": 2, "visual_projector_gating_down_dim": 9, "side_reduction_factor": 4,
    **{f"decoder_{place}_adapter_down_dim": 10 for place in (
        "self_attn", "enc_attn", "ff", "enc_attn_key_value", "enc_attn_key_parallel", "enc_attn_value_parallel",
        "enc_attn_value_sequential", "self_attn_value_parallel")},
    **{f"decoder_enc_attn{kind}_adapter_gating_large_x_lowrank_down_dim": 11
       for kind in ("", "_value_parallel", "_value_sequential")},
}  # fmt: skip
BARE = ("use_single_adapter", "use_adapter_down_dim", "no_encoder_adapter", "no_decoder_adapter")
HEADS = (*BARE, "use_encoder_adapter_down_multihead")
EVERYWHERE = BARE[:2]


def linear(path: str, *leaves: str) -> list[str]:
    return [f"{path}.{leaf}" for leaf in leaves or ("weight", "bias")]


def adapter(path: str, *leaves: str, task: str = "vqa") -> list[str]:
    halves = [f"{path}.adapters.{task}.{half}_sampler" for half in ("down", "up")]
    return [name for half in halves for name in linear(half, *leaves)]


def both(path: str, then: str = "") -> list[str]:
    """The two linear layers of a bottleneck or a low-rank gate."""
    return linear(f"{path}_down{then}") + linear(f"{path}_up")


ENCODER, DECODER = "model.encoder.layers.{i}.", "model.decoder.layers.{i}."
CROSS = f"{DECODER}encoder_attn."
SUB = ("attn", "ff")
ENCODER_HEADS = [n for part in SUB for h in range(2) for n in linear(f"{ENCODER}{part}_adapter_multihead_down.{h}")] + [
    n for part in SUB for n in linear(f"{ENCODER}{part}_adapter_multihead_up")
]
GATE = f"{ENCODER}encoder_{{part}}_adapter_gating_"
PLACES = [f"{ENCODER}{part}_adapter" for part in SUB] + [
    f"{DECODER}{part}_adapter" for part in ("self_attn", "enc_attn", "ff")
]
ADAPTERS = [n for p in PLACES for n in adapter(p)]
ENCODER_ADAPTERS = ADAPTERS[: 2 * 4]


def of_encoder(pattern: str, *leaves: str, make=linear) -> list[str]:
    return [n for part in SUB for n in make(pattern.replace("{part}", part), *leaves)]


def vector(path: str) -> list[str]:
    return [path]


VISUAL = "model.encoder.visual_embedding.visual_projector_"
PROJECTOR = [n for h in range(2) for n in linear(f"{VISUAL}multihead_down.{h}")] + linear(f"{VISUAL}multihead_up")
VALUE_PARALLEL = "use_decoder_enc_attn_value_parallel_adapter_down_dim"
VALUE_SEQUENTIAL = "use_decoder_enc_attn_value_sequential_adapter_down_dim"
RESIDUAL = "use_decoder_enc_attn_value_residual_connection"
PARALLEL = adapter(f"{CROSS}attn_value_parallel_adapter")
SEQUENTIAL = adapter(f"{CROSS}enc_attn_value_sequential_adapter")
LORA = [
    f"model.{stack}.layers.{{i}}.{attention}.{p}_proj.lora_{half}s.vqa"
    for stack, attention in (("encoder", "self_attn"), ("decoder", "self_attn"), ("decoder", "encoder_attn"))
    for p in "qv"
    for half in "AB"
]
PROMPT = "model.encoder.prompt_modules.prompts.vqa.prefix_embedding."
# Switch → others that it goes with, the parameters that all of them bring, and some of the options they amount to.
SWITCHES: dict[str, tuple[tuple[str, ...], list[str], dict]] = {
    # where, encoder
    "no_encoder_adapter": (EVERYWHERE, [n for p in PLACES[2:] for n in adapter(p)], {"encoder": {}}),
    "no_encoder_attn_adapter": ((*EVERYWHERE, "no_decoder_adapter"), adapter(PLACES[1]),
                                {"encoder": {"ffn": "sequential"}}),
    "use_adapter": (EVERYWHERE, ADAPTERS, {"bottleneck": 4}),
    "use_compacter": (EVERYWHERE, [n for p in PLACES for n in adapter(p, "W", "b", "phm_rule")], {"n": 4}),
    "use_lradapter": (EVERYWHERE, [n for p in PLACES for n in adapter(p, "W_left", "W_right", "b")], {}),
    "use_encoder_attn_value_parallel_adapter_down_dim": (BARE, [], {"encoder": {}}),
    "use_encoder_attn_value_ia3": (BARE, [], {"encoder": {}}),
    # where, decoder
    "no_decoder_adapter": (EVERYWHERE, ENCODER_ADAPTERS, {"decoder": {}}),
    "add_adapter_cross_attn": (EVERYWHERE, ADAPTERS, {}),
    "use_decoder_self_attn_adapter_down_dim": (BARE, adapter(f"{DECODER}decoder_self_attn_adapter"),
                                               {"decoder": {"self_attn": "sequential"}}),
    "use_decoder_enc_attn_adapter_down_dim": (BARE, adapter(f"{DECODER}decoder_enc_attn_adapter"),
                                              {"decoder": {"cross_attn": "sequential"}}),
    "use_decoder_ff_adapter_down_dim": (BARE, adapter(f"{DECODER}decoder_ff_adapter"),
                                        {"decoder": {"ffn": "sequential"}}),
    "use_decoder_enc_attn_key_value_adapter_down_dim": (
        BARE, adapter(f"{DECODER}decoder_enc_attn_key_value_adapter"),
        {"decoder": {"cross_attn.memory": "sequential"}}),
    VALUE_PARALLEL: (BARE, PARALLEL, {"decoder": {"cross_attn.value": "parallel"}, "value_bottleneck": 10}),
    VALUE_SEQUENTIAL: (BARE, SEQUENTIAL, {"decoder": {"cross_attn.value": "replace"}, "value_bottleneck": 10}),
    "use_decoder_enc_attn_key_parallel_adapter_down_dim": (
        BARE, adapter(f"{CROSS}attn_key_parallel_adapter"), {"decoder": {"cross_attn.key": "parallel"}}),
    "use_decoder_self_attn_value_parallel_adapter_down_dim": (BARE, [], {"decoder": {}}),
    # what
    "use_adapter_down_dim": (BARE[:1], ADAPTERS, {"bottleneck": 4}),
    "shared_phm_rule": ((*EVERYWHERE, "use_compacter"), [n for p in PLACES for n in adapter(p, "W", "b")]
                        + ["model.encoder.layers.0.attn_adapter.adapters.vqa.down_sampler.phm_rule"],
                        {"shared_rule": True}),
    "factorized_phm": ((*EVERYWHERE, "use_compacter"),
                       [n for p in PLACES for n in adapter(p, "W_left", "W_right", "b", "phm_rule")], {"rank": 1}),
    "use_single_adapter": ((*EVERYWHERE,), ADAPTERS, {"per_task": "none"}),
    "use_single_lora": (("use_lora",), LORA, {"rank": 5, "alpha": 16, "per_task": False}),
    "use_single_prompt": (("encoder_prompt_len",), [f"{PROMPT}0.weight", *linear(f"{PROMPT}1"), *linear(f"{PROMPT}3")],
                          {"length": 3, "hidden": 7, "per_task": False}),
    "share_up_sampler": (("use_adapter_down_dim",), [
        n for p in PLACES for t in ("vqa", "gqa", "nlvr", "caption") for n in adapter(p, task=t)
        if t == "vqa" or ".down_" in n], {"per_task": "down"}),
    "share_down_sampler": (("use_adapter_down_dim",), [
        n for p in PLACES for t in ("vqa", "gqa", "nlvr", "caption") for n in adapter(p, task=t)
        if t == "vqa" or ".up_" in n], {"per_task": "up"}),
    "add_layer_norm_before_adapter": (EVERYWHERE, ADAPTERS + [n for p in PLACES for n in linear(f"{p}.pre_layer_norm")],
                                      {"norm_before": True, "norm_after": False}),
    "add_layer_norm_after_adapter": (EVERYWHERE, ADAPTERS + [n for p in PLACES for n in linear(f"{p}.post_layer_norm")],
                                     {"norm_before": False, "norm_after": True}),
    "use_decoder_enc_attn_value_ia3": (BARE, [f"{CROSS}attn_value_ia3"], {"decoder": {"cross_attn.value": "ia3"}}),
    "use_decoder_enc_attn_value_ia3_add": ((*BARE, "use_decoder_enc_attn_value_ia3"), [f"{CROSS}attn_value_ia3"],
                                           {"decoder": {"cross_attn.value": "ia3-add"}}),
    "use_decoder_ff_ia3": (BARE, [f"{DECODER}decoder_ff_ia3"], {"decoder": {"ffn.hidden": "ia3"}}),
    "use_decoder_ff_ia3_add": ((*BARE, "use_decoder_ff_ia3"), [f"{DECODER}decoder_ff_ia3"],
                               {"decoder": {"ffn.hidden": "ia3-add"}}),
    "use_lm_head_adapter": (
        BARE, [n for half in ("down", "up") for n in linear(f"output_adapter.adapter.{half}_sampler")], {}),
    # gate
    "use_encoder_adapter_gating_large_x": (HEADS, ENCODER_HEADS + of_encoder(f"{GATE}large_x"), {"gate": "large-full"}),
    "use_encoder_adapter_gating_large_x_lowrank": (HEADS, ENCODER_HEADS + of_encoder(f"{GATE}large_x", make=both),
                                                   {"gate": "large", "gate_width": 6}),
    "use_encoder_adapter_gating_small_xy_cat": (HEADS, ENCODER_HEADS + of_encoder(f"{GATE}small_xy_cat"),
                                                {"gate": "small"}),
    "use_encoder_adapter_gating_middle_xy_add": (HEADS, ENCODER_HEADS + of_encoder(f"{GATE}middle_xy_add"),
                                                 {"gate": "middle-x"}),
    "use_encoder_adapter_gating_middle_ia3_add": (
        HEADS, ENCODER_HEADS + of_encoder(f"{GATE}middle_ia3_add", make=vector), {"gate": "middle-y"}),
    "use_encoder_adapter_gating_add": ((*HEADS, "use_encoder_adapter_gating_middle_xy_add"),
                                       ENCODER_HEADS + of_encoder(f"{GATE}middle_xy_add"), {"gating": "add"}),
    "use_encoder_adapter_gating_layernorm": (HEADS, ENCODER_HEADS + of_encoder(f"{GATE}layernorm"), {"norm": "layer"}),
    "use_encoder_adapter_gating_l2norm": (HEADS, ENCODER_HEADS, {"norm": "l2"}),
    "use_encoder_gating_large_x_lowrank": (
        BARE, of_encoder(f"{ENCODER}encoder_{{part}}_gating_large_x", make=both),
        {"gate": "delta", "gating": "base", "bottleneck": 3, "encoder": {"self_attn": "parallel", "ffn": "parallel"}}),
    "use_encoder_gating_large_x_lowrank_add_x2_deltay": (
        (*BARE, "use_encoder_gating_large_x_lowrank"),
        of_encoder(f"{ENCODER}encoder_{{part}}_gating_large_x", make=both), {"gating": "multiply"}),
    "use_decoder_enc_attn_adapter_gating_large_x_lowrank": (
        (*BARE, "use_decoder_enc_attn_adapter_down_dim"),
        adapter(f"{DECODER}decoder_enc_attn_adapter") + both(f"{DECODER}decoder_enc_attn_adapter_gating_large_x"),
        {"value_gate": "large", "value_gate_width": 11}),
    "use_decoder_enc_attn_value_parallel_adapter_gating_large_x_lowrank": (
        (*BARE, VALUE_PARALLEL, RESIDUAL),
        PARALLEL + both(f"{CROSS}decoder_enc_attn_value_parallel_adapter_gating_large_x"), {"value_gate_width": 11}),
    "use_decoder_enc_attn_value_sequential_adapter_gating_large_x_lowrank": (
        (*BARE, VALUE_SEQUENTIAL, RESIDUAL),
        SEQUENTIAL + both(f"{CROSS}decoder_enc_attn_value_sequential_adapter_gating_large_x"), {"value_gate": "large"}),
    RESIDUAL: ((*BARE, VALUE_SEQUENTIAL), SEQUENTIAL, {"value_residual": True}),
    # heads
    "use_encoder_adapter_down_multihead": (BARE, ENCODER_HEADS, {"heads": 2, "head_layout": "down", "bottleneck": 4}),
    "use_encoder_adapter_up_multihead": (
        BARE, [n for p in SUB for n in linear(f"{ENCODER}{p}_adapter_multihead_down")]
        + [n for p in SUB for h in range(2) for n in linear(f"{ENCODER}{p}_adapter_multihead_up.{h}")],
        {"head_layout": "up"}),
    **{f"use_encoder_adapter_{flag}_multihead": (
        BARE, [n for p in SUB for half in ("down", "up") for h in range(2)
               for n in linear(f"{ENCODER}{p}_adapter_multihead_{half}.{h}")], {"head_layout": layout})
       for flag, layout in (("down_up", "down-up"), ("down_up_pair", "pair"))},
    "use_decoder_adapter_down_multihead": (
        BARE, [n for p in ("self_attn", "enc_attn", "ff") for h in range(2)
               for n in linear(f"{DECODER}{p}_adapter_multihead_down.{h}")]
        + [n for p in ("self_attn", "enc_attn", "ff") for n in linear(f"{DECODER}{p}_adapter_multihead_up")],
        {"decoder": dict.fromkeys(("self_attn", "cross_attn", "ffn"), "sequential")}),
    # init
    "use_encoder_multihead_up_zero_init": (HEADS, ENCODER_HEADS, {"module_init": "zero", "gate_init": "default"}),
    **{f"use_encoder_gating_{init}": ((*HEADS, f"use_encoder_adapter_gating_{gate}"),
                                      ENCODER_HEADS + of_encoder(GATE + name, make=make), {"gate_init": start})
       for init, gate, name, make, start in (
           ("large_x_lowrank_up_zero_init", "large_x_lowrank", "large_x", both, "zero"),
           ("small_up_zero_init", "small_xy_cat", "small_xy_cat", linear, "zero"),
           ("middle_up_zero_init", "middle_xy_add", "middle_xy_add", linear, "zero"),
           ("middle_ia3_zero_init", "middle_ia3_add", "middle_ia3_add", vector, "zero"),
           ("middle_ia3_one_init", "middle_ia3_add", "middle_ia3_add", vector, "one"))},
    "use_decoder_enc_vpa_up_zero_init": ((*BARE, VALUE_PARALLEL), PARALLEL, {"value_init": "zero"}),
    "use_decoder_enc_attn_value_ia3_one_init": ((*BARE, "use_decoder_enc_attn_value_ia3"), [f"{CROSS}attn_value_ia3"],
                                                {"value_init": "one"}),
    # scaling
    "use_encoder_gating_scaling": (HEADS, ENCODER_HEADS, {"scale": 0.3}),
    "use_encoder_adapter_scaling": (HEADS, ENCODER_HEADS, {"delta_scale": 0.5}),
    "use_encoder_x2_scaling": (HEADS, ENCODER_HEADS, {"base_scale": 0.7}),
    "use_encoder_attn_adapter_scaling": ((*EVERYWHERE, "no_decoder_adapter"), ENCODER_ADAPTERS,
                                         {}),
    "use_encoder_ff_adapter_scaling": ((*EVERYWHERE, "no_decoder_adapter"), ENCODER_ADAPTERS,
                                       {}),
    "use_decoder_enc_attn_value_parallel_adapter_scaling": ((*BARE, VALUE_PARALLEL), PARALLEL, {"value_scale": 2.0}),
    # unfreeze
    "unfreeze_layer_norms": (EVERYWHERE, ADAPTERS, {"norms": True}),
    **{f"unfreeze_{what}": (BARE, [], {"train": [selector]}) for what, selector in (
        ("encoder_layer_norms", "encoder.norms"), ("decoder_layer_norms", "decoder.norms"),
        ("decoder_input_layer_norms", "lm.model.decoder.layernorm_embedding.*"),
        ("decoder_self_attn_layer_norms", "lm.model.decoder.layers.*.self_attn_layer_norm.*"),
        ("decoder_encoder_attn_layer_norms", "lm.model.decoder.layers.*.encoder_attn_layer_norm.*"),
        ("decoder_ff_layer_norms", "lm.model.decoder.layers.*.final_layer_norm.*"),
        ("encoder_bias", "encoder.biases"), ("decoder_bias", "decoder.biases"), ("lm_head", "lm.*shared.weight"))},
    "unfreeze_bias": ((), [], {"added": False}),
    "unfreeze_language_model": ((), [], {}),
    # visual projector
    "use_lowrank_visual_projector": (
        BARE, PROJECTOR, {"visual": "low-rank", "projector_width": 8, "projector_heads": 2}),
    "use_visual_projector_gating_large_x_lowrank": (
        (*BARE, "use_lowrank_visual_projector"), PROJECTOR + both(f"{VISUAL}gating_large_x"),
        {"projector_gate_width": 9, "projector_residual": False}),
    "use_visual_projector_residual_connection": (
        (*BARE, "use_lowrank_visual_projector", "use_visual_projector_gating_large_x_lowrank"),
        PROJECTOR + both(f"{VISUAL}gating_large_x"), {"projector_gate_width": 9, "projector_residual": True}),
    "freeze_vis_emb": (BARE, [], {"visual": "frozen"}),
    "no_vis": (BARE, [], {"visual": "none"}),
    "use_vis_noise": (BARE, [], {}),  # features of another file: nothing of the model
}  # fmt: skip
# What nothing here does: METHODS.md names it, no script uses it.
WITHOUT = ("decoder_prompt_len", "efficient_unique_hyper_net", "share_vis_lang_layer_norm")
# Shown by a fixture, whose tensors its translation reads; and numbers, which go with a switch.
BY_FIXTURE = ("unique_hyper_net",)
NUMBERS = {*VALUES, "encoder_prompt_len", "projected_task_embedding_dim"}


def fixture(*flags: str, family: str = "bart", names: list[str] | None = None) -> Fixture:
    args = {"backbone": f"{family}-base"} | VALUES | dict.fromkeys(flags, True)
    args |= {"encoder_prompt_len": 3} if "encoder_prompt_len" in flags else {}
    about = {"repo": "VL-PET", "backbone": family, "args": args, "config": CONFIG | SIZES[family]}
    return Fixture("made up", about, dict.fromkeys(names or [], None))


def every_layer(names: list[str]) -> list[str]:
    return [name.replace("{i}", str(i)) for name in names for i in (range(2) if "{i}" in name else (0,))]


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_is_translated_and_so_are_its_parameters(switch):
    others, brings, options = SWITCHES[switch]
    names = every_layer(brings)
    made = fixture(switch, *others, names=[f"param/{name}" for name in names])
    spec = method_of(made)
    method = build_method(spec, bare_model_of(made, MethodSpec("projector-only")).anatomy)
    for name, value in options.items():
        found = getattr(method, name)
        assert (list(found) if isinstance(found, tuple) else found) == value, name
    ours = {name for name, _ in bare_model_of(made, spec).named_parameters()}
    added = {n for n in ours if n.startswith("pet.") or re.match(r"visual\.feature\.(project|gate)\.", n)}
    renamed = {name: rename(name, Layout.of(made)) for name in names}
    assert set(renamed.values()) == added
    assert {n.rpartition(".")[2] for n, o in renamed.items() if list(renamed.values()).count(o) > 1} <= {
        "weight",
        "bias",
    }


def test_what_vl_pet_has_no_option_for_is_spelled_out():
    def inserts(switch):
        found = method_of(fixture(switch, *SWITCHES[switch][0])).options["inserts"]
        return {insert["sites"][0]: insert for insert in found}

    for switch, scales in (
        ("use_encoder_attn_adapter_scaling", {"encoder.self_attn": 0.25, "encoder.ffn": 1.0}),
        ("use_encoder_ff_adapter_scaling", {"encoder.self_attn": 1.0, "encoder.ffn": 4.0}),
    ):
        assert {site: insert["delta_scale"] for site, insert in inserts(switch).items()} == scales
    low_rank = [insert["delta"] for insert in inserts("use_lradapter").values()]
    assert {(delta["kind"], delta["width"], delta["rank"]) for delta in low_rank} == {("factor", 8, 2)}
    assert len(low_rank) == 5
    (head,) = inserts("use_lm_head_adapter").values()
    assert (head["sites"], head["reads"], head["delta"]["width"]) == (["decoder.head"], "input", 2)


@pytest.mark.parametrize("switch", [*WITHOUT, "use_something_new", "use_hyperformer"])
def test_a_switch_without_a_translation_is_named(switch):
    with pytest.raises(KeyError, match=switch):
        method_of(fixture(switch, *BARE))


@pytest.mark.parametrize(
    "gate", ["use_decoder_enc_attn_value_parallel_adapter_gating_large_x_lowrank",
             "use_decoder_enc_attn_value_sequential_adapter_gating_large_x_lowrank"],
)  # fmt: skip
def test_a_gate_of_the_values_is_there_with_the_residual_alone(gate):
    """Without it the reference builds no gate (METHODS.md section 9)."""
    adapter = VALUE_PARALLEL if "parallel" in gate else VALUE_SEQUENTIAL
    assert "value_gate" not in method_of(fixture(*BARE, adapter, gate)).options
    assert method_of(fixture(*BARE, adapter, gate, RESIDUAL)).options["value_gate"] == "large"


def test_what_the_t5_reference_does_not_read_is_left_out():
    """METHODS.md section 10, 1 and 5."""
    for flag in ("unfreeze_layer_norms", "use_lora", "use_decoder_enc_attn_value_parallel_adapter_scaling"):
        assert method_of(fixture(*HEADS, flag, family="t5")) == method_of(fixture(*HEADS, family="t5"))


@pytest.mark.parametrize(
    "name",
    ["model.encoder.layers.0.attn_adapter_new.weight", "model.decoder.layers.1.encoder_attn.attn_query_ia3",
     "model.encoder.visual_embedding.layer_norm.weight", "encoder.block.0.layer.0.SelfAttention.w.weight",
     "lm_head.scale"],
)  # fmt: skip
def test_a_parameter_without_a_translation_is_named(name):
    with pytest.raises(KeyError) as error:
        rename(name)
    assert name in str(error.value)


def test_no_switch_that_the_methods_name_is_left_out():
    """Section 9 of METHODS.md, which abbreviates names to their ends: `..._x`, `one_init`."""
    text = (
        (ROOT / "docs" / "reference" / "methods.md").read_text(encoding="utf-8").split("\n## 9")[1].split("\n## 10")[0]
    )
    known = {*SWITCHES, *WITHOUT, *BY_FIXTURE, *NUMBERS}
    named = set(re.findall(r"`(\.{3}_\w+|[a-z]\w+_\w+|no_vis)`", text))
    assert len(named) > 80
    ends = tuple(named - known)
    assert {end for end in ends if not any(name.endswith(end.lstrip(".")) for name in known)} == set()
    assert all(end.startswith("...") or end == "one_init" for end in ends)
