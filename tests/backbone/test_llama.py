"""A decoder-only model fed with features is the stock one on [begin; visual; text; answer], whatever the batch."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pet_bench.backbone import find_backbone, load
from pet_bench.data.suite import suite_by_name
from pet_bench.mini.tokens import llama_tokenizer

SUITE = suite_by_name("mini-image-text")
TEXTS = ["vqa: what color is the circle?", "caption:", "gpa: is there a large red cross above the blue square?"]
ANSWERS = ["green", "a small red circle and a large blue cross.", "yes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model, its weights large enough for each token to matter, as stock transformers saves it."""
    folder, tokenizer = tmp_path_factory.mktemp("llama"), llama_tokenizer(0)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=3, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(folder):
    torch.manual_seed(1)
    model, tokenizer = load(find_backbone(str(folder)), SUITE.visual)
    return model.eval(), model.family.reader(tokenizer)


def batch(reader, texts=TEXTS, answers=ANSWERS, images=1):
    """Inputs and targets of some examples, padded as trials pad them."""

    def padded(rows, value):
        width = max(map(len, rows))
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    features = torch.stack(
        [torch.randn(images, SUITE.visual.tokens, SUITE.visual.width, generator=torch.Generator().manual_seed(len(t)))
         for t in texts]
    )  # fmt: skip
    inputs = reader.inputs(padded(reader.tokens(texts, None), reader.pad), features, texts)
    return {**inputs, "task": "vqa"}, padded(reader.targets(answers, None), -100)


def test_a_text_is_its_words_and_an_answer_ends(loaded):
    _, reader = loaded
    (ids,), (answer,) = reader.tokens(["a red cross"], None), reader.targets(["a red cross"], None)
    assert answer == [*ids, 1]
    assert reader.tokenizer.convert_ids_to_tokens(ids) == ["▁a", "▁red", "▁cross"]
    assert reader.targets(["a red cross"], 3) == [[*ids[:2], 1]]
    assert reader.tokens(["a red cross"], 2) == [ids[:2]]
    assert reader.firsts(["yes", "no"]) == [reader.tokens([word], None)[0][0] for word in ("yes", "no")]


@torch.no_grad()
def test_logits_are_the_stock_models_on_the_joint_sequence(loaded):
    """Each example by hand, without padding; only the positions of the answer are looked at."""
    model, reader = loaded
    inputs, targets = batch(reader)
    ours = model.logits(inputs, targets)
    assert ours.shape == (*targets.shape, len(model.words))
    words = model.lm.get_input_embeddings()
    for i, target in enumerate(targets):
        text, answer = inputs["text"][i], target[target != -100]
        visual = model.visual(inputs["features"][i : i + 1], model.words)[0]
        prompt = torch.cat([words.weight[3][None], visual, words(text[text != 0])])
        joint = torch.cat([prompt, words(answer)])[None]
        stock = model.lm(inputs_embeds=joint).logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(ours[i, : len(answer)], stock, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_batch_and_its_padding_change_nothing(loaded):
    model, reader = loaded
    inputs, targets = batch(reader)
    together, said = model.logits(inputs, targets), model.generate(inputs, num_beams=1, max_length=8)
    for i in range(len(targets)):
        one, target = batch(reader, TEXTS[i : i + 1], ANSWERS[i : i + 1])
        alone = model.logits(one, target)
        torch.testing.assert_close(alone, together[i : i + 1, : target.shape[1]], rtol=1e-4, atol=1e-4)
        assert reader.texts(model.generate(one, num_beams=1, max_length=8)) == reader.texts(said[i : i + 1])


@torch.no_grad()
@pytest.mark.parametrize("images", [1, 2])
def test_cached_generation_says_what_teacher_forcing_would(loaded, images):
    model, reader = loaded
    inputs, _ = batch(reader, images=images)
    said = model.generate(inputs, num_beams=1, max_length=9)
    assert said.shape == (3, 8)
    best = model.logits(inputs, said).argmax(-1)
    ended = (said == 1).cumsum(1) - (said == 1).int() > 0  # behind the end
    assert torch.equal(best[~ended], said[~ended])


@torch.no_grad()
def test_beams_have_the_image_each(loaded):
    model, reader = loaded
    inputs, _ = batch(reader)
    said = model.generate(inputs, num_beams=3, max_length=6)
    assert len(said) == 3
    assert model.context.visual.shape[0] == model.context.seen.shape[0] == model.context.mask.shape[0] == 9
    assert torch.equal(model.context.visual[0], model.context.visual[2])
    one, _ = batch(reader, TEXTS[:1])
    alone = model.generate(one, num_beams=3, max_length=6)
    assert reader.texts(alone) == reader.texts(said[:1])


@torch.no_grad()
def test_a_choice_is_its_first_word_behind_the_prompt(loaded):
    model, reader = loaded
    inputs, _ = batch(reader)
    words = reader.firsts(["yes", "no", "left"])
    blank = torch.full((3, 1), -100)
    torch.testing.assert_close(model.choose(inputs, words), model.logits(inputs, blank)[:, 0, words], rtol=0, atol=1e-6)


@torch.no_grad()
def test_images_that_are_not_there_take_no_place(loaded):
    """In tasks that mask them; elsewhere zeros are an image like any other."""
    model, reader = loaded
    inputs, targets = batch(reader, images=2)
    inputs["features"][0, 1] = 0
    model.masks_empty = frozenset({"vqa"})
    masked = model.logits(inputs, targets)
    one = {**inputs, "features": inputs["features"][:, :1]}
    torch.testing.assert_close(masked[0], model.logits(one, targets)[0], rtol=1e-4, atol=1e-4)
    assert not model.context.seen.any(dim=1).logical_not().any()
    model.masks_empty = frozenset()
    assert not torch.allclose(model.logits(inputs, targets)[0], masked[0], atol=1e-2)


@torch.no_grad()
def test_the_image_matters_and_so_does_its_order(loaded):
    model, reader = loaded
    inputs, targets = batch(reader, images=2)
    swapped = {**inputs, "features": inputs["features"].flip(1)}
    assert (model.logits(inputs, targets) - model.logits(swapped, targets)).abs().amax() > 1e-2
