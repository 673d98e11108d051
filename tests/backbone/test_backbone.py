"""The joint encoder input, the site table, and finding backbones by name, folder or hub name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pet_bench.backbone import find_backbone, load
from pet_bench.backbone.known import EXTRA_WORDS
from pet_bench.backbone.loading import grow_vocabulary
from pet_bench.backbone.visual import pool_grid
from pet_bench.errors import UserError
from pet_bench.registry import BACKBONES, FAMILIES
from tests.tiny import TINY, VISUAL, tiny_batch, tiny_model

families = pytest.mark.parametrize("family", TINY)


@families
def test_without_visual_tokens_the_encoder_is_the_stock_one(family):
    """Positions, norm, relative bias and masks are then what `transformers` itself computes."""
    model, batch = tiny_model(family), tiny_batch()
    text = batch["text"].clone()
    text[1, 4:] = model.lm.config.pad_token_id
    mask = text != model.lm.config.pad_token_id
    with torch.no_grad():
        ours = model.family.encode(model.lm, model.family.embed(model.lm, text), torch.zeros(3, 0, 32), mask)
        stock = model.lm.get_encoder()(input_ids=text, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours[mask], stock[mask], atol=1e-5, rtol=1e-5)


@families
def test_every_site_names_modules_of_the_stock_model(family):
    model = tiny_model(family)
    for site, paths in model.anatomy.sites.items():
        assert site.split(".")[0] in model.anatomy.stacks
        assert [model.at(path, 1) for path in (paths.reader, paths.writer, paths.feeds) if path]
    for stack in ("encoder", "decoder"):
        assert model.anatomy.stacks[stack].layers == 2 and model.at(model.anatomy.stacks[stack].blocks, 1)


def test_grid_pooling_is_a_two_by_two_maximum():
    """TASKS.md 0.2: 7×7 → 6×6 equals max pooling of 2×2 at stride 1."""
    grid = torch.randn(2, 1, 49, 5)
    square = grid.reshape(2, 7, 7, 5).permute(0, 3, 1, 2)
    expected = torch.nn.functional.max_pool2d(square, 2, stride=1).flatten(2).transpose(1, 2)[:, None]
    assert torch.equal(pool_grid(grid, 36), expected)


@families
def test_two_images_differ_by_their_order_alone(family):
    model, batch = tiny_model(family), tiny_batch(images=2)
    features = batch["features"][:, :1].expand(-1, 2, -1, -1)
    tokens = model.visual(features, model.lm.get_input_embeddings().weight)
    first, second = tokens.chunk(2, dim=1)
    order = model.visual.image_order.weight
    torch.testing.assert_close(second - first, (order[1] - order[0]).expand_as(first), atol=1e-5, rtol=1e-4)


@families
def test_growth_keeps_the_words_and_the_tie(family):
    model = tiny_model(family)
    before = model.lm.get_input_embeddings().weight.detach().clone()
    grow_vocabulary(model.lm, 70, 0.02, model.anatomy)
    table = model.lm.get_input_embeddings().weight
    assert table.shape == (70, 32)
    assert torch.equal(table[:60], before)
    assert model.lm.get_output_embeddings().weight is table
    assert 0.01 < table[60:].std() < 0.03


@pytest.mark.parametrize("name", ["mini-bart", "mini-t5"])
def test_mini_backbones_load_with_the_extra_words_last(name):
    model, tokenizer = load(find_backbone(name), VISUAL)
    words = tokenizer.convert_tokens_to_ids(list(EXTRA_WORDS))
    rows = model.lm.get_input_embeddings().num_embeddings
    assert words == list(range(rows - 200, rows))
    assert model.anatomy == find_backbone(name).anatomy
    assert next(model.parameters()).dtype == torch.float32


@families
def test_any_folder_is_a_backbone(family, tmp_path):
    """A hub-style folder of stock weights: the vocabulary grows by the 200 words on loading."""
    source = find_backbone(f"mini-{family}")
    _, tokenizer = load(source, VISUAL)
    lm = tiny_model(family).lm
    lm.resize_token_embeddings(len(tokenizer) + 5, mean_resizing=False)
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    lm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = find_backbone(str(tmp_path))
    assert found.family == family
    model, _ = load(found, VISUAL)
    assert model.anatomy.d == 32
    torch.testing.assert_close(model.lm.get_input_embeddings().weight, lm.get_input_embeddings().weight, atol=0, rtol=0)


def test_names_that_are_no_backbone(tmp_path):
    with pytest.raises(UserError, match=r'unknown backbone "bart-bse": did you mean "bart-base"\?'):
        find_backbone("bart-bse")
    with pytest.raises(UserError, match=r"has no config\.json"):
        find_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match=f"is a gpt2; possible: {', '.join(FAMILIES.names())}"):
        find_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read \(half-written\?\)"):
        find_backbone(str(tmp_path))
    with pytest.raises(UserError, match=r'backbone "nobody/nothing": there is no such folder, and no configuration'):
        find_backbone("nobody/nothing")


def test_a_backbone_without_weights_is_one_line(tmp_path):
    (tmp_path / "config.json").write_bytes((Path(find_backbone("mini-bart").source) / "config.json").read_bytes())
    with pytest.raises(UserError, match="cannot be loaded from") as error:
        load(find_backbone(str(tmp_path)), VISUAL)
    assert len(error.value.faults) == 1


def test_registered_backbones():
    minis = ["mini-bart", "mini-bart-clips", "mini-llama", "mini-llava", "mini-t5"]
    assert BACKBONES.names() == ["bart-base", *minis, "t5-base"]


@families
def test_generation_keeps_the_checkpoints_settings_but_forces_as_published(family):
    """TASKS.md 0.5: n-gram blocking is the checkpoint's; no first word is forced, the last one in BART's beams only."""
    model, batch = tiny_model(family), tiny_batch()
    settings = model.lm.generation_config
    settings.no_repeat_ngram_size, settings.forced_bos_token_id, settings.forced_eos_token_id = 1, 7, 9
    settings.eos_token_id = None  # so that nothing ends early
    for beams in (1, 5):
        ids = model.generate({key: batch[key] for key in ("text", "features")}, num_beams=beams, max_length=8)
        forced = family == "bart" and beams > 1
        body = ids[:, :-1] if forced else ids
        assert all(len(set(row.tolist())) == body.shape[1] for row in body)
        assert not (ids[:, 0] == 7).all()
        assert (ids[:, -1] == model.lm.config.eos_token_id).all() == forced
