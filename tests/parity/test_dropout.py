"""Dropout sits where the reference has it: the same sequence of shapes and rates in one training pass."""

from __future__ import annotations

import json
from math import prod

import pytest
import torch

from pet_bench.backbone import Backbone, build
from pet_bench.pet import attach, build_method
from pet_bench.spec import MethodSpec, Visual
from tests.conftest import REFERENCE
from tests.parity.reference import TASKS, Fixture, batch_of, method_of
from tests.reference.discover import fixtures

TRACES = json.loads((REFERENCE / "parity" / "dropout_trace.json").read_text())
RATES = {
    "bart": {"dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1},
    "t5": {"dropout_rate": 0.1, "decoder_start_token_id": 0},
}


@pytest.mark.parametrize("name", TRACES)
def test_dropout(name, monkeypatch):
    family, known = name.split("_")[0], name in fixtures()
    fixture = Fixture.read(name if known else f"{family}_full")
    method = method_of(fixture) if known else MethodSpec("lora", {"rank": 6})
    config = dict(fixture.about["config"]) | RATES[family]
    visual = Visual(config.pop("feat_dim"), config.pop("grid_tokens"), config.pop("n_boxes_after_pooling"))
    rows = config.pop("vocab_after_growth")
    if family == "t5":
        config["num_decoder_layers"] = config["num_layers"]
    backbone = Backbone("tiny", family, "", config, rows=rows)
    model = build(backbone, visual)
    attach(model, build_method(method, backbone.anatomy).design(backbone.anatomy), TASKS).train()
    for module in model.modules():
        if hasattr(module, "config"):  # the fused kernel drops weights out of sight
            module.config._attn_implementation = "eager"
    seen = []

    def dropout(x, p=0.5, training=True, inplace=False):
        if training and p:
            seen.append((_shape(x.shape), p))
        return x

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    batch = batch_of(fixture, "vqa")
    model(batch["input_ids"], batch["vis_feats"], batch["target_ids"], batch["boxes"], task="vqa")
    assert seen == [(_shape(entry["shape"]), entry["p"]) for entry in TRACES[name]]


def _shape(shape) -> tuple[int, ...]:
    """Attention weights are (B·heads, T, S) or (B, heads, T, S)."""
    return (prod(shape[:-2]), *shape[-2:])
