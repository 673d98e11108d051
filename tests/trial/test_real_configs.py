"""Exact counts of published models, from their config.json alone: against published totals, and peft's of LoRA."""

from __future__ import annotations

import csv
import json
import shutil

import peft
import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from pet_bench.backbone.known import family_for, find_backbone
from pet_bench.pet import build_method
from pet_bench.spec import MethodSpec
from pet_bench.trial.count import count_parameters
from tests.conftest import REFERENCE
from tests.report.conftest import call  # noqa: F401

CONFIGS = REFERENCE / "configs"
ROWS = {row["file"]: row for row in csv.DictReader((CONFIGS / "index.csv").open(encoding="utf-8"))}
RAW = {name: json.loads((CONFIGS / f"{name}.json").read_text()) for name in ROWS}
OURS = [name for name, raw in RAW.items() if family_for(raw["model_type"])]
LORA = MethodSpec("lora", {"rank": 16, "biases": False, "projections": ["query", "key", "value", "out"], "ffn": ["in"]})


def stock(name):
    """The stock model of a configuration, without weights."""
    config = CONFIG_MAPPING[RAW[name]["model_type"]].from_dict(RAW[name])
    with torch.device("meta"):
        model = getattr(transformers, RAW[name]["architectures"][0])(config)
    model.tie_weights()
    return model


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def folder(tmp_path):
    """A folder with nothing but a config.json."""

    def make(name):
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(CONFIGS / f"{name}.json", tmp_path / name / "config.json")
        return str(tmp_path / name)

    return make


def test_every_configuration_has_a_source():
    assert ROWS.keys() == {path.stem for path in CONFIGS.glob("*.json")}
    assert all(row["source"] and row["parameters_source"] for row in ROWS.values())
    page = (CONFIGS / "README.md").read_text(encoding="utf-8")
    assert all(f"{size(stock(name)):,}" in page and row["model"] in page for name, row in ROWS.items())


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row["parameters"]])
def test_a_configuration_makes_a_model_of_the_published_size(name):
    assert size(stock(name)) == int(ROWS[name]["parameters"])


def test_a_size_that_is_published_in_round_figures():
    assert f"{size(stock('florence-2-base')) / 1e9:.2f}B" in ROWS["florence-2-base"]["parameters_source"]


@pytest.mark.parametrize("name", OURS)
def test_we_count_what_the_stock_model_has(name, folder):
    counts = count_parameters(folder(name), MethodSpec("full"), "image-text")
    assert counts["total"] == size(stock(name))
    for kind in ("parts", "stacks"):
        assert sum(share["total"] for share in counts[kind].values()) == counts["total"]
    assert min(counts["stacks"][stack]["total"] for stack in ("vision", "projector", "words")) > 0


@pytest.mark.parametrize("scope", [("language",), ("language", "vision")], ids=" and ".join)
@pytest.mark.parametrize("name", OURS)
def test_lora_has_as_many_parameters_as_peft_s_on_the_same_layers(name, scope, folder):
    path = folder(name)
    anatomy = find_backbone(path).anatomy.scoped(scope)
    fused = any(anatomy.sites[site].part for site in anatomy.projections(("query",)))  # one layer to peft, three to us
    method = LORA.changed({"projections": ["out"], "ffn": []} if fused else {})
    sites = [site for insert in build_method(method, anatomy).design(anatomy).inserts for site in insert.sites]
    layers = []
    for site in sites:
        stack = anatomy.stacks[site.partition(".")[0]]
        layers += [anatomy.sites[site].writer.format(i=stack.name_of(i)) for i in range(stack.layers)]
    config = peft.LoraConfig(r=16, target_modules=[layer.removeprefix("lm.") for layer in layers])
    theirs = peft.get_peft_model(stock(name), config).get_nb_trainable_parameters()
    ours = count_parameters(path, method.changed({"scope": scope}), "image-text")
    assert (ours["trainable"], ours["total"]) == theirs


@pytest.mark.parametrize("name", OURS)
def test_the_command_line_needs_the_configuration_alone(name, folder, call):  # noqa: F811
    path = folder(name)
    flags = ["--method", "lora", "--backbone", path, "--scope", "language"]
    code, out, err = call("params", *flags, "--format", "json")
    assert (code, err) == (0, "")
    (counts,) = json.loads(out)
    assert counts["parts"]["vision"] == {
        "state": "frozen",
        "trainable": 0,
        "total": counts["stacks"]["vision"]["total"],
    }
    code, out, err = call("params", *flags, "--by", "stack", "--format", "csv")
    assert (code, err) == (0, "")
    rows = {row["stack"]: row for row in csv.DictReader(out.splitlines())}
    assert {stack: int(row["total"]) for stack, row in rows.items()} == {
        stack: share["total"] for stack, share in counts["stacks"].items()
    }
    assert {row["method"] for row in rows.values()} == {"lora [language]"}
    code, out, err = call("show", "lora", "--backbone", path, "--scope", "language")
    assert (code, err) == (0, "")
    assert f"trainable {counts['trainable']:,} of {counts['total']:,}" in out
    assert "lora [language] on" in out
    assert "vision frozen" in " ".join(out.split())
