"""The methods that followed equal the authors' own modules and models: outputs, losses and gradients of every fixture.

Fixtures are discovered: those of `tests/reference/followups` and those in the shared folder. A name that nothing here
restates is an error.
"""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from tests.followups.restate import ELSEWHERE, FOLDER, Computed, Fixture, elsewhere, restatement, restatements
from tests.reference.discover import fixtures

ALL = list(fixtures(FOLDER))
RESTATED = [name for name in ALL if not elsewhere(name)]
STRAIGHT = [name for name in RESTATED if not name.endswith("__scrambled_by_reference")]
WRONG = [name for name in RESTATED if name not in STRAIGHT]


@cache
def computed(name: str) -> tuple[Fixture, Computed]:
    fixture = Fixture.read(name)
    return fixture, Computed(fixture)


@pytest.mark.parametrize("name", ALL)
def test_every_fixture_is_known(name):
    assert elsewhere(name) or restatement(name)


def test_an_unknown_fixture_is_named():
    with pytest.raises(KeyError, match="fixture nobodys_method: 0 restatements"):
        restatement("nobodys_method")


@pytest.mark.parametrize("pattern", [*restatements(), *ELSEWHERE])
def test_every_restatement_has_a_fixture(pattern):
    assert any(re.fullmatch(pattern, name) for name in ALL)


@pytest.mark.parametrize("name", STRAIGHT)
def test_outputs(name):
    fixture, ours = computed(name)
    reference = {key: value for key, value in fixture.tensors.items() if key.startswith(("output/", "aux/"))}
    assert ours.outputs.keys() == reference.keys()
    for key, value in reference.items():
        mine = ours.outputs[key].detach()
        assert mine.shape == value.shape, key
        if not value.is_floating_point():
            assert torch.equal(mine, value), key
            continue
        # a loss that is a sum with random signs cancels
        cancels = key in ("output/scalar", "output/loss") and "probe" in fixture.section("input")
        limit = (1e-4 if cancels else fixture.tolerance()) * float(value.abs().max())
        assert float((mine - value).abs().max()) <= limit, key


@pytest.mark.parametrize("name", STRAIGHT)
def test_gradients(name):
    fixture, ours = computed(name)
    for leaf, reference in fixture.gradients.items():
        assert leaf in ours.gradients, leaf
        error = float((ours.gradients[leaf] - reference).abs().max())
        assert error <= fixture.tolerance(reference), (leaf, error, float(reference.abs().max()))
    assert fixture.gradients
    assert not fixture.no_gradient & ours.gradients.keys()


@pytest.mark.parametrize("name", WRONG)
def test_what_the_reference_scrambles_is_not_met(name):
    fixture, ours = computed(name)
    reference = fixture.tensors["output/y"]
    assert float((ours.outputs["output/y"].detach() - reference).abs().max()) > 1e-2 * float(reference.abs().max())
