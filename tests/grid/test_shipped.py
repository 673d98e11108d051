"""The grids that come with the package."""

from __future__ import annotations

import pytest

from pet_bench.grid.spec import load, shipped
from pet_bench.trial.check import check_designs


@pytest.mark.parametrize("name", shipped())
def test_every_trial_of_a_shipped_grid_can_be_built(name):
    trials = load(name).trials()
    assert len({trial.id for trial in trials}) == len(trials) > 0
    check_designs(trials)


def test_options_and_whole_designs_in_a_grid_file(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "name: g\nsuites: [image-text]\nbackbones: [bart-base]\n"
        "methods:\n"
        "  - {name: vl-pet-large, gate: none, heads: 8}\n"
        "  - name: design\n"
        "    inserts:\n"
        "      - {sites: [decoder.ffn.hidden], gate: {kind: vector, init: one}}\n"
        "      - {sites: [decoder.head], reads: input, delta: {kind: bottleneck, width: 4}}\n"
    )
    first, second = load(path).trials()
    assert first.label == "vl-pet-large(gate=none, heads=8)"
    assert (
        second.label == "design(decoder.ffn.hidden: vector(init=one); decoder.head: bottleneck(width=4), reads=input)"
    )
    assert second.method.options["inserts"][0]["gate"]["init"] == "one"
    check_designs([first, second])
