"""MixPHM, AdaMix and MoE-Adapters: their modules, and the whole VL-T5 of MixPHM."""

from __future__ import annotations

import re
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BartConfig

from pet_bench.backbone import Backbone, EncoderDecoder, build
from pet_bench.backbone.bart import Bart
from pet_bench.backbone.interface import Context, Model
from pet_bench.data.batches import labels_of
from pet_bench.methods.adamix import DenseExperts
from pet_bench.methods.mixphm import MixPHM, PHMExperts, Redundancy, first, mutual_information, redundancy
from pet_bench.methods.moe_adapter import Expert, RoutedExperts, RoutedModule, uneven
from pet_bench.pet import Insert, Place, attach
from pet_bench.pet.experts import Told
from pet_bench.pet.inserted import Inserted, states_of
from pet_bench.pet.linears import PHMLinear, PHMRule
from pet_bench.spec import Visual
from pet_bench.trial.loss import per_token_loss, reduce_loss
from tests.followups.restate import Fixture, Tensors, below, called
from tests.parity.reference import Layout, translate

EXPERT = re.compile(
    r"(?P<before>.*)MoA_(?P<layer>[AB])\.(?:deepspeed_experts\.(?P<i>\d+)\.(?P<leaf>\w+)|(?P<gate>gate)\.weight)"
)
ADAPTER = re.compile(r"experts\.(?P<i>\d+)\.(?P<half>down|up)_sampler\.(?P<leaf>\w+)")
LEAVES = {"W": "W.0", "W_left": "W.0", "W_right": "W.1", "phm_rule": "rule.A"}
SHARED: dict[tuple[int, int], Any] = {(0, 0): "none", (1, 0): "down", (0, 1): "up", (1, 1): "both"}
INFERENCE = ("token", "sample", "outputs", "factors")  # by the reference's level


def inserted(insert: Insert, d: int, *, doors: dict[str, nn.Module] | None = None, **about: Any) -> Inserted:
    """An insert that stands alone, with what an open door has put into the model."""
    torch.manual_seed(0)
    anatomy, pet = Bart.anatomy("alone", BartConfig()), nn.ModuleDict(doors or {})
    model = SimpleNamespace(context=Context(), pet=pet, family=Bart, anatomy=anatomy)
    place = Place(
        model=cast(Model, model), stack="encoder", layer=0, site=insert.sites[0], reader=None, writer=nn.Identity(),
        feeds=None, d_x=d, d_h=d, **about,
    )  # fmt: skip
    return Inserted(insert, place)


@contextmanager
def drawn(draws: list[int] | None):
    """Experts as the fixture drew them, one after the other."""
    with patch("pet_bench.pet.experts.draw", side_effect=draws):
        yield


def renamed(w: Tensors) -> Tensors:
    """The experts' weights below `delta.`, by our names. Their scores stay 0, and have no part."""
    ours = {}
    for name, value in w.items():
        if match := ADAPTER.fullmatch(name):
            ours[f"delta.experts.{match['i']}.{match['half']}.{LEAVES.get(match['leaf'], match['leaf'])}"] = value
        if name == "gate.weight":
            ours[f"delta.{name}"] = value
        if match := EXPERT.fullmatch(name):
            half = {"A": "down", "B": "up"}[match["layer"]]
            leaf = LEAVES.get(match["leaf"], match["leaf"])
            where = "gate.weight" if match["gate"] else f"experts.{match['i']}.{leaf}"
            ours[f"{match['before']}delta.{half}.{where}"] = value
    return ours


def shared(w: Tensors) -> Any:
    """Which of the two layers has one expert."""
    counts = [len({m["i"] for n in w if (m := EXPERT.fullmatch(n)) and m["layer"] == layer}) for layer in "AB"]
    return SHARED[(int(counts[0] == 1), int(counts[1] == 1))]


def adamix(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    layer = inserted(Insert(("encoder.ffn",), DenseExperts(flags["r"], flags["experts"], shared(w))), flags["d"])
    with drawn(flags.get("draws")):
        y = called(layer.train(flags["mode"] == "train"), renamed(w), given["h"], given["h"])
    return {"output/y": y}


def mixphm(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags, h = fixture.flags, given["h"]
    gated, training = flags.get("add_gate", False), flags.get("mode", "train") == "train"
    experts = PHMExperts(
        flags["d"] // flags["reduction"], flags["experts"], flags["n"],
        flags["rank"] if flags.get("factorized", True) else None, flags["shared_rule"], shared(w),
        any(name.startswith("experts.") for name in w), gated, INFERENCE[flags.get("inference_level", 3)],
        scale=flags.get("ada_alpha", 1.0),
    )  # fmt: skip
    redundant, balance = Told(), Told()
    told: dict[str, nn.Module] = {"redundancy": redundant, "expert-balance": balance}
    layer = inserted(Insert(("encoder.ffn",), experts), flags["d"], doors=told)
    if (
        not (training or gated) and experts.inference == "factors"
    ):  # the reference folds copies, which nothing flows through
        w = {name: value.detach() for name, value in w.items()}
    if experts.shared_rule:
        for module in layer.modules():
            if isinstance(module, PHMLinear):
                module.own_or_shared = (cast(PHMRule, SimpleNamespace(A=w["phm_rule"])),)
    with drawn(flags.get("draws")):
        outputs = {"output/y": called(layer.train(training), renamed(w), h, h)}
    if "aux/balance" in fixture.tensors:
        outputs["aux/balance"] = torch.stack([*balance.by.values()]).sum().reshape(1)
    if "output/up" in fixture.tensors:
        ((_, (h, outputs["output/up"])),) = redundant.by.items()
    for name, factor in (flags.get("aux_weights") or {}).items():
        tokens, pooled = first(given["mask"].bool()), given["context"].mean(dim=1)
        up = outputs["output/up"]
        value = redundancy(up, h, tokens) if name == "redundancy" else mutual_information(up, pooled, tokens)
        outputs[f"aux/{name}"] = (factor * value).reshape(1)
    return outputs


def moe_adapters(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    """A block of CLIP, (positions, batch, d), with our insert beside its feed-forward."""
    flags, x = fixture.flags, given["x"]
    normed = F.layer_norm(x, x.shape[-1:], w["ln_1.weight"], w["ln_1.bias"])
    causal = flags.get("causal", "text" in fixture.about["what"])  # a block of the tower of texts
    mask = torch.full((len(x), len(x)), -torch.inf).triu(1) if causal else None
    attended, _ = F.multi_head_attention_forward(
        normed, normed, normed, flags["d"], flags["heads"], w["attn.in_proj_weight"], w["attn.in_proj_bias"], None,
        None, False, 0.0, w["attn.out_proj.weight"], w["attn.out_proj.bias"], need_weights=False,
        attn_mask=mask,
    )  # fmt: skip
    h = x + attended
    normed = F.layer_norm(h, h.shape[-1:], w["ln_2.weight"], w["ln_2.bias"])
    hidden = F.linear(normed, w["mlp.c_fc.weight"], w["mlp.c_fc.bias"])
    mlp = F.linear(hidden * torch.sigmoid(1.702 * hidden), w["mlp.c_proj.weight"], w["mlp.c_proj.bias"])
    outputs = {"output/h": h, "output/y": h + mlp}
    spec = RoutedExperts(
        flags["bottleneck"], flags["experts"], flags["top_k"], flags["scale"], reads="first",
        routers="task" if flags.get("task_id", 0) >= 0 else "shared",
    )  # fmt: skip
    if flags.get("autorouter") and flags["val_task_id"] < 0:  # the selector knows no task: no expert runs
        return outputs
    if not flags.get("apply_moe", True):
        alone = {name.replace("_proj", ""): value for name, value in below(w, "adaptmlp").items()}
        return outputs | {"output/y": h + mlp + called(Expert(spec, flags["d"], flags["d"]), alone, h)}

    tasks = tuple(name.rpartition(".")[2] for name in w if name.startswith("router_list."))
    layer = inserted(Insert(("encoder.ffn",), spec, reads="input"), flags["d"], tasks=tasks)
    mixture = cast(RoutedModule, layer.train(flags.get("noise", False)).delta)
    routed: list[tuple[Tensor, Tensor]] = []
    route = mixture.route
    mixture.route = lambda pooled: routed.append(route(pooled)) or routed[0]
    layer.place.context.task = str(flags.get("task_id", 0))
    weights = {ours: w[name] for name in w if (ours := _routed(name))}
    with patch("torch.randn_like", return_value=given.get("noise")):
        y = called(layer, weights, h.transpose(0, 1), mlp.transpose(0, 1))
    ((gates, load),) = routed
    return outputs | {
        "output/y": h + y.transpose(0, 1), "output/gates": gates, "output/load": load,
        "output/unused_balance_loss": 0.01 * (uneven(gates.sum(dim=0)) + uneven(load)).reshape(1),
    }  # fmt: skip


def _routed(name: str) -> str | None:
    """Our name of an expert's or a router's weight; None of others."""
    for pattern, ours in (
        (r"adaptmlp_list\.(\d+)\.(down|up)_proj\.(\w+)", r"delta.experts.\1.\2.\3"),
        (r"router_list\.(\d+)", r"delta.router.of.\1.R"),
        (r"w_noise_list\.(\d+)", r"delta.router.of.\1.noise"),
        (r"router1", "delta.router.R"),
        (r"w_noise", "delta.router.noise"),
    ):
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None


class Whole(nn.Module):
    """All that the fixture of a whole model records of one pass."""

    def __init__(self, model: EncoderDecoder):
        super().__init__()
        self.model = model
        self.last: Tensors = {}
        model.at(model.anatomy.sites["decoder.output"].writer).register_forward_hook(
            lambda module, args, output: self.last.update(decoder=states_of(output))
        )

    def forward(self, batch: Tensors) -> Tensors:
        model, targets = self.model, batch["target_ids"]
        with patch.object(Model, "words", model.lm.shared.weight):  # that are looked for as a parameter
            encoded = model.encode(batch["input_ids"], batch["vis_feats"][:, None], batch["boxes"][:, None], task="vqa")
        logits = model.decode(encoded, model.shift_right(targets))
        labels = labels_of(targets)
        per_token = per_token_loss(logits.flatten(0, 1)[labels], targets, labels)
        return {
            "logits": logits,
            "encoder_last_hidden_state": encoded.last_hidden_state,
            "decoder_last_hidden_state": self.last["decoder"],
            "loss_per_token": per_token,
            "loss": reduce_loss(per_token, targets, "score-weighted", batch["scores"]).reshape(1),
        }


def vlt5(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    args, config = fixture.about["args"], dict(fixture.about["config"])
    visual = Visual(config.pop("feat_dim"), config.pop("grid_tokens"), config.pop("n_boxes_after_pooling"))
    rows, off = config.pop("vocab_after_growth"), {"dropout_rate": 0.0, "decoder_start_token_id": 0}
    config |= {"num_decoder_layers": config["num_layers"]} | off
    backbone = Backbone("tiny", fixture.about["backbone"], "", config, rows=rows)
    method = MixPHM(
        bottleneck=config["d_model"] // args["reduction_factor"], n=args["hypercomplex_division"],
        rank=args["phm_rank"] if args["factorized_phm"] else None, experts=args["num_experts"],
        shared_rule=args["shared_phm_rule"], shared="down" if args["sharing_down"] else "none", dropout=0.0,
        inference=INFERENCE[args["inference_level"]], scale=args["ada_alpha"],
        redundancy=args["red_w"] if args.get("use_adapter_r2loss") else 0.0,
        information=args["align_w"] if args.get("using_mi_loss") else 0.0, tokens="first",
    )  # fmt: skip
    design = method.design(backbone.anatomy)
    model = attach(build(backbone, visual), design)
    whole, weights = Whole(cast(EncoderDecoder, model)), _whole(w, model)
    with drawn(fixture.about["draws"]):
        outputs = called(whole.train(), weights, given)
    (door,) = cast(tuple[Redundancy], design.doors)
    task, aux = outputs["loss"], {name: torch.as_tensor(value).reshape(1) for name, value in door.terms(model).items()}
    outputs["loss"] = task + sum(aux.values())
    kept = called(whole.eval(), weights, given)
    every = {f"output/{name}": value for name, value in outputs.items()}
    every |= {f"output/eval/{name}": kept[name] for name in ("encoder_last_hidden_state", "logits")}
    every |= {"aux/task_loss": task} | {f"aux/{name}": value for name, value in aux.items()}
    return {name: value for name, value in every.items() if name in fixture.tensors}


def _whole(w: Tensors, model: nn.Module) -> Tensors:
    """The reference's weights by our names. Its visual linears are built without biases."""
    moe = {name: value for name, value in w.items() if ".phm_adapter_moe." in name}
    stock = {name: value for name, value in w.items() if name not in moe and name != "phm_rule"}
    places = re.compile(r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.phm_adapter_moe\.(delta\..+)")
    ours = translate(stock, Layout()) | {"pet.shared.phm_rule.A": w["phm_rule"]}
    for name, value in renamed(moe).items():
        stack, layer, rest = cast(re.Match, places.fullmatch(name)).groups()
        ours[f"pet.{stack}.{layer}.ffn.0.{rest}"] = value
    biases = {name: torch.zeros_like(p) for name, p in model.named_parameters() if name.endswith("bias")}
    return {f"model.{name}": value for name, value in (biases | ours).items()}


FIXTURES = {r"mixphm_\w+": mixphm, r"adamix_\w+": adamix, r"moe_adapters_\w+": moe_adapters, r"vlt5_mixphm\w*": vlt5}
