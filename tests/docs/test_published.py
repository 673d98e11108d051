"""The table of published recipes is that of the code, and every number in the code has a row."""

from __future__ import annotations

import re

import pytest

from pet_bench.backbone.anatomy import Anatomy, Stack
from pet_bench.methods.lora import PUBLISHED, REAL, LoRA
from pet_bench.registry import FAMILIES, METHODS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
LORA, FULL = (
    {
        row[0].strip("`"): row[1:]
        for line in re.findall(r"^\| `.*\|$", section, re.MULTILINE)
        if (row := [cell.strip() for cell in line.strip("|").split("|")])
    }
    for section in PAGE.split("\n## ")[1:3]
)
ORDINARY = {"bart", "t5"}  # of the reference implementations, see METHODS.md


def listed(text):
    return tuple(part.strip() for part in text.split(","))


def test_every_rate_of_a_family_has_a_row_and_every_row_a_source():
    for method in METHODS:
        if METHODS.origin(method.name).startswith("pet_bench."):
            rates = {name: rate for name, rate in method.learning_rates.items() if not name.startswith("mini-")}
            rates = {name: rate for name, rate in rates.items() if name not in ORDINARY}
            rows = {"lora": LORA, "full": FULL}.get(method.name, {})
            assert rates == {family: float(row[0]) for family, row in rows.items()}, method.name
    sources = set(re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE))
    assert {row[-1].strip("[]") for row in (*LORA.values(), *FULL.values())} == sources


def test_the_options_are_those_of_the_table():
    assert PUBLISHED.keys() == LORA.keys()


@pytest.mark.parametrize("family", LORA)
def test_a_family_of_real_size_has_its_recipe(family):
    _, rank, alpha, dropout, attention, ffn, scope, _ = LORA[family]

    def defaults(width):
        stack = Stack(2, width, 4, "lm.model")
        anatomy = Anatomy("it", family, {"decoder": stack}, {}, "decoder", "decoder", (), "lm.lm_head", biases=False)
        return LoRA.defaults(anatomy)

    given = defaults(REAL)
    assert (given["rank"], given["alpha"], given["dropout"]) == (int(rank), float(alpha), float(dropout))
    assert (given["projections"], given["ffn"]) == (listed(attention), listed(ffn))
    assert defaults(64).keys() == {"rank", "biases"}
    if family in FAMILIES.names():
        assert FAMILIES.get(family).scope == listed(scope)
