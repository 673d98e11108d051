"""Exact counts, against those of the reference implementations and the literature."""

from __future__ import annotations

import csv

import pytest

from pet_bench.spec import MethodSpec
from pet_bench.trial.count import count_parameters, describe
from tests.conftest import ROOT

ROWS = list(csv.DictReader((ROOT / "results" / "published" / "parameter_counts.csv").open(encoding="utf-8")))


def test_counts_are_the_published_ones():
    ours = [count_parameters(row["backbone"], MethodSpec(row["method"]), row["suite"]) for row in ROWS]
    assert [(o["trainable"], o["total"]) for o in ours] == [(int(r["trainable"]), int(r["total"])) for r in ROWS]
    assert [f"{o['percent']:.4f}" for o in ours] == [row["percent"] for row in ROWS]


@pytest.mark.parametrize(
    ("backbone", "expected"), [("bart-base", 1_582_848), ("t5-base", 1_581_312)], ids=["bart", "t5"]
)
def test_projector_only_is_the_visual_embedding(backbone, expected):
    """METHODS.md section 1 gives its size."""
    assert count_parameters(backbone, MethodSpec("projector-only"), "image-text")["trainable"] == expected


def test_describe_says_where_and_what():
    found = describe(MethodSpec("vl-pet-large", {"gate": "none"}), "t5-base", "image-text")
    assert found.options["bottleneck"] == 192
    assert found.options["gate"] == "none"
    assert [sites for sites, _ in found.inserts] == [
        ("encoder.self_attn", "encoder.ffn"),
        ("decoder.cross_attn.value",),
    ]
    assert found.inserts[0][1].startswith("H' = 0.3 · (H + ΔH),  ΔH = W_u gelu_new(W_d H")
    assert found.train == ("visual", "encoder.norms")
