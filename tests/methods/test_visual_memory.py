"""MemVP and ADEM-VL: what enters the sequence, what is kept beside it, and the formulas written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from pet_bench.errors import UserError
from pet_bench.pet import attach, build_method, count
from pet_bench.pet.visual_memory import Memory
from pet_bench.registry import FAMILIES
from pet_bench.spec import MethodSpec, Visual
from tests.pet.minis import SUITE, batch, logits, mini, nudge, stock

both = pytest.mark.parametrize("family", ["bart", "t5"])
methods = pytest.mark.parametrize("method", ["memvp", "adem-vl"])


@both
@methods
def test_the_sequence_is_the_text_alone(family, method):
    model, one = nudge(mini(family, method)), batch(family)
    logits(model, one)
    context = model.context
    assert context.mask.shape == one["text"].shape
    assert context.visual.shape[1] == 0
    assert context.beside.shape == (3, len(model.pet["visual-memory"].keys), model.anatomy.d)


@both
def test_a_class_token_is_one_visual_token_an_image(family):
    model, one = mini(family, "adem-vl", token=True), batch(family, images=2)
    logits(model, one)
    assert model.context.visual.shape[1] == 2
    assert model.context.mask.shape[1] == one["text"].shape[1] + 2


@methods
def test_all_rows_are_there_whatever_an_example_has(method):
    """Those of a second image that there is not are the learned P_1 and P_2 alone."""
    model = nudge(mini("bart", method))
    logits(model, batch("bart"))
    rows = model.context.beside
    half = rows.shape[1] // SUITE.visual.images
    assert rows[:, :half].all() and not rows[:, half:].any()


@both
@methods
def test_an_image_that_is_not_there(family, method):
    """It has E = 0 in a task whose empty features are no image, and else E of zeros, which has biases."""
    model, one = nudge(mini(family, method)), batch(family)
    one["features"][1] = 0
    logits(model, one)
    assert model.context.beside[1].any()
    model.masks_empty = frozenset({one["task"]})
    logits(model, one)
    assert not model.context.beside[1].any() and model.context.beside[0].any()


def test_the_lowest_scores_of_each_token_are_dropped():
    """With their signs, of all rows, and no gradient comes from them."""
    model = nudge(mini("bart", "adem-vl", drop=0.3))
    memory = model.pet["visual-memory"]
    assert isinstance(memory, Memory)
    logits(model, batch("bart"))
    x = torch.randn(3, 4, model.anatomy.d)
    keys, values = (model.context.beside + p for p in (memory.keys, memory.values))
    scores = F.silu(x) @ F.silu(keys).mT
    lowest = scores.argsort(dim=-1)[..., : int(0.3 * scores.shape[-1])]
    expected = scores.scatter(-1, lowest, 0.0) @ values
    torch.testing.assert_close(memory(x, F.relu), expected)


@pytest.mark.parametrize("method", ["memvp", "adem-vl"])
@both
def test_x_is_what_the_first_layer_of_a_feed_forward_reads(family, method):
    """In a pre-norm model the normed states: written out at the first layer of the encoder."""
    model, one, given, read = nudge(mini(family, method)), batch(family), [], []
    model.pet["visual-memory"].register_forward_pre_hook(lambda module, args: given.append(args[0]))
    first = model.at(model.anatomy.sites["encoder.ffn.in"].writer)
    first.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    logits(model, one)
    assert given[0].shape == (*one["text"].shape, model.anatomy.d)
    assert torch.equal(given[0], read[0])


def test_dropout_is_of_the_scores_and_in_training_alone():
    model, one = nudge(mini("bart", "memvp")), batch("bart")
    logits(model, one)
    memory, x = model.pet["visual-memory"], torch.randn(3, 4, model.anatomy.d)
    assert torch.equal(memory(x, F.gelu), memory(x, F.gelu))
    memory.train()
    torch.manual_seed(0)
    first = memory(x, F.gelu)
    torch.manual_seed(0)
    keys, values = (model.context.beside + p for p in (memory.keys, memory.values))
    assert torch.equal(first, F.dropout(F.gelu(x @ keys.mT), 0.1) @ values)


def test_beams_read_their_own_image():
    model, one = nudge(mini("bart", "memvp", scale=1.0)), batch("bart")
    inputs = {key: value for key, value in one.items() if key != "targets"}
    together = model.generate(inputs, num_beams=3, max_length=6)
    for row in range(3):
        alone = {k: v[row : row + 1] if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        said = model.generate(alone, num_beams=3, max_length=6)
        pad = stock("bart")[0].lm.config.pad_token_id
        assert said[said != pad].tolist() == together[row][together[row] != pad].tolist()


@pytest.mark.parametrize(("method", "published"), [("memvp", 3_879_040), ("adem-vl", 4_530_432)])
def test_what_it_counts_on_the_authors_model(method, published):
    """LLaMA-7B with 256 patches of CLIP ViT-L/14, less the adapters in CLIP and, of MemVP, what is never used."""
    config = LlamaConfig(hidden_size=4096, intermediate_size=8, num_attention_heads=32, num_hidden_layers=1)
    family = FAMILIES.get("llama")
    anatomy = family.anatomy("llama-7b", config)
    with torch.device("meta"):
        model = family.model(LlamaForCausalLM(config), anatomy, Visual(width=1024, tokens=256, pooled=256, images=1))
    attach(model, build_method(MethodSpec(method), anatomy).design(anatomy))
    in_clip, unused = 24 * 2 * 12 * 1024, 2 * 4096 if method == "memvp" else 0
    assert count(model)["trainable"] == published - in_clip - unused


@methods
def test_pooled_features_do_where_no_more_is_read(method):
    """Packed pooled, of which a grid's means cannot be had any more."""
    model, inputs = mini("bart", method), batch("bart")
    model.visual.visual = replace(model.visual.visual, tokens=49)
    if method == "memvp":
        model(**inputs)
        return
    with pytest.raises(UserError, match="reads the whole grid of features, packed are 36 of 49: pack without --pooled"):
        model(**inputs)


def test_what_cannot_be_pooled_or_is_no_stack_is_said():
    with pytest.raises(UserError, match=r"^8 features of an image are no square grid"):
        mini("bart", "adem-vl", grids=(8,))
    with pytest.raises(UserError, match=r'^unknown stack "vision"'):
        mini("bart", "memvp", stacks=("vision",))
