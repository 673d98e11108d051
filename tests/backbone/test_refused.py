"""A folder that is not a whole backbone is refused in one line a fault, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from pet_bench.backbone import build, find_backbone
from pet_bench.backbone.loading import read_stock
from pet_bench.errors import UserError
from pet_bench.spec import MethodSpec
from pet_bench.trial.check import check_backbones
from pet_bench.trial.resolve import resolve
from pet_bench.trial.shared import Shared
from tests.backbone.checkpoints import edit_config, edit_tensors, tensors_of, write
from tests.tiny import VISUAL

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"
PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"


def without(*patterns):
    return lambda tensors: {n: t for n, t in tensors.items() if not any(p in n for p in patterns)}


def prefixed(prefix):
    return lambda tensors: {prefix + n: t for n, t in tensors.items()}


def changed(name, change):
    return lambda tensors: tensors | {name: change(tensors[name])}


def halved(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tensors(edit):
    return lambda folder: edit_tensors(folder, edit)


def config(**changes):
    return lambda folder: edit_config(folder, changes)


def content(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def tokenizer(edit):
    def change(folder):
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        edit(found)
        path.write_text(json.dumps(found))

    return change


def fewer_rows(folder):
    table, rows = "model.shared.weight", 600
    edit_tensors(folder, lambda t: t | {table: t[table][:rows].clone(), "final_logits_bias": torch.zeros(1, rows)})
    edit_config(folder, {"vocab_size": rows})


def no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def more_rows(folder):
    table, rows = "shared.weight", 5000
    edit_tensors(folder, lambda t: t | {table: torch.randn(rows, 16)})
    edit_config(folder, {"vocab_size": rows})


def bad_pickle(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": Path("of a class that is no tensor's")}, folder / "pytorch_model.bin")


CASES = {
    "a tensor is missing": ("bart", tensors(without("decoder.layers.1.fc1.bias")),
                            r"lacks tensors: model\.decoder\.layers\.1\.fc1\.bias$"),
    "a layer is missing": ("t5", tensors(without("decoder.block.1.")),
                           r"lacks tensors: (decoder\.block\.1\.\S+, ){2}\S+ and \d+ more$"),
    "every name has a prefix": ("t5 gated", tensors(prefixed("module.")),
                                r"lacks tensors: .* more\n.*no such model has: module\..* more$"),
    "a tensor too many": ("bart", tensors(lambda t: t | {"classifier.weight": torch.zeros(2, 2)}),
                          r"tensors that no such model has: classifier\.weight$"),
    "a wrong shape": ("t5", tensors(changed("encoder.final_layer_norm.weight", lambda t: t[:8].clone())),
                      r"wrong shape: encoder\.final_layer_norm\.weight \(8,\) for \(16,\)$"),
    "not a number": ("bart", tensors(changed("model.decoder.layers.0.fc1.bias", lambda t: t / 0)),
                     r"not finite: model\.decoder\.layers\.0\.fc1\.bias$"),
    "whole numbers": ("t5", tensors(changed("shared.weight", lambda t: t.to(torch.int8))),
                      r"model\.safetensors cannot be read: its tensors are I8 \(possible: F64, F32, F16, BF16\)$"),
    "an output layer is missing": ("t5 gated own head", tensors(without("lm_head")),
                                   r"lacks lm_head\.weight, and config\.json has tie_word_embeddings false$"),
    "weights cut off": ("bart", halved, r"model\.safetensors cannot be read: .*incomplete"),
    "weights are a pointer": ("t5", content("model.safetensors", POINTER), r"model\.safetensors is a Git LFS pointer"),
    "weights are a page": ("bart", content("model.safetensors", PAGE), r"model\.safetensors is a web page"),
    "weights that run code": ("t5", bad_pickle, r"pytorch_model\.bin cannot be read: .*[Ww]eights.only"),
    "no weights": ("t5", lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded from"),
    "tokenizer is a pointer": ("bart", content("tokenizer.json", POINTER), r"tokenizer\.json is a Git LFS pointer"),
    "tokenizer is a page": ("t5", content("tokenizer.json", PAGE), r"tokenizer\.json is a web page"),
    "tokenizer cut off": ("t5", content("tokenizer.json", b'{"version": "1.0", '), r"tokenizer\.json cannot be read"),
    "no tokenizer": ("bart", no_tokenizer, r"it has no tokenizer \(possible: tokenizer\.json, vocab"),
    "no tokenizer but its settings": ("t5", lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "a word for no row": ("bart", fewer_rows, r"its tokenizer has ids up to 650, the model has 600 words"),
    "rows for no word": ("t5", more_rows, r"its tokenizer has 363 words, the model 5000: it is another model's$"),
    "another padding word": ("bart", config(pad_token_id=3), r"pad_token_id is 1 in its tokenizer and 3 in its config"),
    "another end word": ("t5", config(eos_token_id=[5, 6]), r"eos_token_id is 1 in its tokenizer and \[5, 6\] in its"),
    "no start word": ("t5", config(decoder_start_token_id=None), r"decoder_start_token_id .* must be one of 0 to 362"),
    "another generation": ("t5", lambda folder: edit_config(folder, {"eos_token_id": 9}, "generation_config.json"),
                           r"eos_token_id is 1 in config\.json and 9 in generation_config\.json$"),
    "a size in letters": ("bart", config(d_model="16"), r"config\.json: .*d_model"),
    "a size that is a truth": ("t5", config(num_layers=True), r"config\.json: .*num_layers.* got bool"),
    "a negative size": ("bart", config(encoder_layers=-2), r"encoder_layers must be a positive integer .*found -2$"),
    "sizes that do not go together": ("bart", config(encoder_attention_heads=3), "embed_dim must be divisible by"),
    "an activation that there is not": ("t5", config(feed_forward_proj="gated-nought"), "nought"),
    "settings are a list": ("t5", content("config.json", b"[1, 2]"), r"config\.json is no mapping$"),
    "settings are a pointer": ("t5", content("config.json", POINTER), r"config\.json is a Git LFS pointer"),
    "settings twice": ("t5", content("config.json", b'{"model_type": "t5", "model_type": "t5"}'), "is given twice"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    return {kind: write(home / kind, kind) for kind in {kind for kind, *_ in CASES.values()}}


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of a whole checkpoint."""
    return lambda kind: Path(shutil.copytree(whole[kind], tmp_path / "checkpoint"))


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused(case, folder):
    kind, damage, message = CASES[case]
    damage(path := folder(kind))
    with pytest.raises(UserError, match=message) as error:
        read_stock(find_backbone(str(path)))
    assert len(error.value.faults) <= 2
    assert all(len(fault) < 600 and fault.startswith('backbone "') for fault in error.value.faults)


def test_all_backbones_of_a_grid_are_refused_together(folder, tmp_path):
    edit_tensors(first := folder("bart"), without("decoder.layers.0.fc1"))
    no_tokenizer(second := Path(shutil.copytree(first, tmp_path / "second")))
    method = MethodSpec("projector-only")
    specs = [
        resolve(str(path), method, "mini-image-text", seed, recipe={"lr": 1e-3})
        for path in (first, second)
        for seed in (0, 1)
    ]
    with pytest.raises(UserError) as error:
        check_backbones(specs, Shared())
    lacks, none = error.value.faults
    assert "lacks tensors: model.decoder.layers.0.fc1.bias, model.decoder.layers.0.fc1.weight" in lacks
    assert "it has no tokenizer" in none


LEFT = {
    "bart": {"model.encoder.version": torch.ones(1), "model.decoder.version": torch.ones(1)},
    "t5": {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.zeros(32, 2)},
}


@pytest.mark.parametrize("family", LEFT)
def test_what_well_kept_checkpoints_have_besides_is_known(family, folder):
    """Tied copies, and what earlier versions of the families' code wrote."""
    table = "shared.weight" if family == "t5" else "model.shared.weight"
    inner = "" if family == "t5" else "model."
    copies = ("lm_head.weight", f"{inner}encoder.embed_tokens.weight", f"{inner}decoder.embed_tokens.weight")
    before = read_stock(find_backbone(str(path := folder(family)))).lm.state_dict()
    edit_tensors(path, lambda t: t | LEFT[family] | {name: t[table].clone() for name in copies})
    lm = read_stock(find_backbone(str(path))).lm
    after = lm.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in after)
    assert lm.lm_head.weight is lm.get_input_embeddings().weight
    assert [p.shape for p in lm.parameters()] == [
        p.shape for p in build(find_backbone(str(path)), VISUAL, device="meta").lm.parameters()
    ]


def test_a_bart_saved_without_its_output_layer(folder):
    """As bart-base is on the hub: names of the inner model, no bias of the logits."""
    whole = read_stock(find_backbone(str(path := folder("bart")))).lm.state_dict()
    edit_tensors(path, lambda t: {n.removeprefix("model."): v for n, v in without("final_logits")(t).items()})
    found = read_stock(find_backbone(str(path))).lm.state_dict()
    assert all(torch.equal(whole[key], found[key]) for key in whole)


@pytest.mark.parametrize("saved", ["in parts", "as pytorch_model.bin"])
def test_other_files_of_weights(saved, folder):
    """The untied head of a checkpoint in several files, or in torch's own format, is counted too."""
    path = folder("t5 gated own head")
    found = tensors_of(path)
    (path / "model.safetensors").unlink()
    if saved == "in parts":
        names = {f"model-0000{i}-of-00002.safetensors": sorted(found)[i - 1 :: 2] for i in (1, 2)}
        for name, part in names.items():
            save_file({n: found[n] for n in part}, path / name, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {n: name for name, part in names.items() for n in part}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        torch.save(found, path / "pytorch_model.bin")
    backbone = find_backbone(str(path))
    meta, lm = build(backbone, VISUAL, device="meta").lm, read_stock(backbone).lm
    assert torch.equal(lm.lm_head.weight, found["lm_head.weight"])
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in lm.named_parameters()}


def test_a_tokenizer_of_several_files(folder):
    """vocab.json and merges.txt are a tokenizer too; one of them is none."""
    path = folder("bart")
    whole = AutoTokenizer.from_pretrained(path)
    whole.backend_tokenizer.model.save(str(path))
    (path / "tokenizer.json").unlink()
    edit_config(path, {"tokenizer_class": "BartTokenizer"}, "tokenizer_config.json")
    text = "vqa: what is in the middle?"
    assert read_stock(find_backbone(str(path))).tokenizer(text).input_ids == whole(text).input_ids
    (path / "merges.txt").unlink()
    with pytest.raises(UserError, match="tokenizer"):
        read_stock(find_backbone(str(path)))


@pytest.mark.parametrize(
    ("changes", "why"), [({"decoder_attention_heads": 3}, "divisible"), ({"activation_function": "nought"}, "nought")]
)
def test_settings_that_make_no_model_are_said_without_weights_too(changes, why, folder):
    edit_config(path := folder("bart"), changes)
    with pytest.raises(UserError, match=rf"config\.json makes no model: .*{why}") as error:
        build(find_backbone(str(path)), VISUAL, device="meta")
    assert len(error.value.faults) == 1


@pytest.mark.parametrize(
    "name", ["x" * 10_000, "owner/" + "x" * 10_000, "a" * 300 + "/config.json", "nul\0l", "a/b\0c"]
)
def test_names_that_no_file_can_have(name):
    with pytest.raises(UserError) as error:
        find_backbone(name)
    assert len(error.value.faults) == 1
