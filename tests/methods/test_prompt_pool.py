"""Coarse prompts of a pool, fine prefixes, and the two stages of their training."""

from __future__ import annotations

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.pet import trained_parameters
from tests.pet.minis import FAMILIES, batch, built, logits, mini, nudge
from tests.pet.test_methods import differences
from tests.vlms.attached import attached
from tests.vlms.attached import batch as tiny_batch
from tests.vlms.attached import logits as tiny_logits

both = pytest.mark.parametrize("family", FAMILIES)
KEYED = {"pool": 4, "top_k": 2, "fine": "key"}


@both
@pytest.mark.parametrize("query", ["text", "visual"])
def test_each_example_chooses_for_itself(family, query):
    """And generates as it reads, its beams with its own prompts."""
    model = nudge(mini(family, "prompt-pool", query=query, **KEYED))
    assert max(differences(model, family)) < 1e-5
    chosen = model.pet["prompt-pool"].coarse.chosen
    inputs = {key: value for key, value in batch(family).items() if key != "targets"}
    logits(model, batch(family))
    chosen = model.pet["prompt-pool"].coarse.chosen
    assert chosen.shape == (3, 2)
    words = model.generate(inputs, num_beams=1, max_length=6)
    end = model.lm.config.eos_token_id
    ended = (words == end).cumsum(1) - (words == end).long()
    assert torch.equal(logits(model, inputs | {"targets": words}).argmax(-1).where(ended == 0, words), words)
    assert model.generate(inputs, num_beams=3, max_length=6).shape[0] == 3


@both
def test_a_batch_that_votes_is_no_batch_of_single_examples(family):
    assert not built(family, "prompt-pool", batchwise=True, **KEYED).batch_invariant
    assert built(family, "prompt-pool", batchwise=True).batch_invariant  # there is nothing to choose
    model = nudge(mini(family, "prompt-pool", batchwise=True, **KEYED))
    logits(model, batch(family))
    chosen = model.pet["prompt-pool"].coarse.chosen
    assert (chosen == chosen[0]).all()


def test_a_decoder_only_model_chooses_too():
    """Each row of a batch, padded on the left, as it does alone."""
    model = attached("llama", "prompt-pool", **KEYED)
    together = tiny_logits(model, *tiny_batch("llama"))
    alone = tiny_logits(model, *tiny_batch("llama", (0,)))
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-5)


@both
def test_two_stages(family):
    """First the coarse prompts alone, as if there were no fine ones; then these, behind coarse ones that stay."""
    model = nudge(mini(family, "prompt-pool", stages=2))
    (door,) = built(family, "prompt-pool", stages=2).design(model.anatomy).doors
    whole, pools = logits(model, batch(family)), model.pet["prompt-pool"]

    def train():
        return {name.split(".")[2] for name in trained_parameters(model) if name.startswith("pet.")}

    door.before_training(model, [])
    assert train() == {"coarse"}
    alone = nudge(mini(family, "prompt-pool", fine="none"))
    alone.pet["prompt-pool"].coarse.load_state_dict(pools.coarse.state_dict())
    alone.visual.load_state_dict(model.visual.state_dict())
    assert torch.equal(logits(model, batch(family)), logits(alone, batch(family)))
    assert door.penalty(model) != 0
    for step in range(1, 8):
        door.after_step(model, step, 7)
        assert train() == ({"coarse"} if step < 4 else {"fine"})
    assert torch.equal(logits(model, batch(family)), whole)
    assert door.penalty(model) == 0
    door.restore(model, {"stage": 1})
    assert train() == {"coarse"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 2}, r"top_k: 2 of 1 prompts \(possible: 1 to 1\)"),
        ({"layers": (0, 2)}, r"layers: encoder has no layer 2 \(possible: 0 to 1\)"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        mini("bart", "prompt-pool", **options)
