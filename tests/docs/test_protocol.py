"""The table of protocol decisions is that of the code."""

from __future__ import annotations

import re

import pytest
import yaml

from pet_bench.errors import UserError
from pet_bench.grid.plan.spec import parse
from pet_bench.registry import TASKS
from pet_bench.spec import Recipe
from tests.conftest import ROOT

ROWS = re.findall(
    r"^\|.*\| `([\w-]+)\.(\w+)` \| `(.+)` \| `(.+)` \|$",
    (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_every_decision_has_a_row():
    assert len(ROWS) == 26


@pytest.mark.parametrize(("target", "option", "published", "otherwise"), ROWS, ids=lambda row: row)
def test_the_default_is_the_published_one_and_the_other_is_possible(target, option, published, otherwise):
    published, otherwise = yaml.safe_load(published), yaml.safe_load(otherwise)
    owner = Recipe(lr=1) if target == "recipe" else TASKS.get(target)()
    assert str(getattr(owner, option)) == str(published)
    changes = {option: str(otherwise) if option == "scorer" else otherwise}
    suite = "image-text" if target == "recipe" else target
    grid = {"name": "g", "suites": [suite], "backbones": ["bart-base"], "methods": ["lora"], "recipe": {"lr": 1e-3}}
    if target == "recipe":
        grid["recipe"] |= changes
        grid["protocol"] = {"gqa": {"valid": "none"}}
    else:
        grid["protocol"] = {target: changes}
    (trial,) = parse(grid).trials()
    recorded = trial.recipe if target == "recipe" else TASKS.get(target)(**trial.protocol[target])
    assert getattr(recorded, option) == changes[option] != getattr(owner, option)


def test_selection_on_what_is_tested_is_refused():
    grid = {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora"],
            "recipe": {"lr": 1e-3, "selection": "best"}}  # fmt: skip
    with pytest.raises(UserError, match='gqa has "testdev" in its valid and in its test split'):
        parse(grid).trials()
    held_out = {"gqa": {"train": "train+valid[:95%]", "valid": "valid[95%:]"}}
    (trial,) = parse(grid | {"protocol": held_out}).trials()
    assert trial.recipe.selection == "best"
