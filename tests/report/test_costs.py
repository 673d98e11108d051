"""The table of costs beneath a comparison, its files, and the page's."""

from __future__ import annotations

import csv
import json
import re

import pytest

from pet_bench.report.costs import ASIDE, COSTS, costs, known
from pet_bench.report.page import page
from pet_bench.report.tables.cells import Cell, Role
from pet_bench.report.tables.costs import cost_notes, cost_sections
from pet_bench.report.tables.views import markdown_sections, rich_sections
from pet_bench.results import store
from pet_bench.results.schema import Forgetting, Inference

TEXT, OTHER = "0123456789ab", "ab0123456789"


def told(result, *, flops=2e6, merged=None, after=1.5, text=TEXT):
    """The same with what its answers take and what it forgot."""
    both = {} if merged is None else {"merged_flops": merged, "merged_latency_seconds": 0.001}
    result.inference = {
        task: Inference(batch_size=7, latency_seconds=0.002, flops=flops * (1 + i), **both)
        for i, task in enumerate(("vqa", "gqa"))
    }
    result.forgetting = {
        "text": Forgetting(before=1.0, after=after, tokens=9, text=text),
        "vqa": Forgetting(before=1.0, after=0.75, tokens=9, text=TEXT),
    }
    result.cost.p99_memory_bytes = 300 * 2**20
    return result


@pytest.fixture
def results(make_result):
    size = {"lora": 10, "full": 900, "lst": 30}
    found = [
        told(
            make_result(method=method, seed=seed, trainable=size[method]),
            merged=1e6 if method == "lora" else None, after=1.5 + seed / 10,
        )
        for method in ("lora", "full")
        for seed in (0, 1)
    ]  # fmt: skip
    return [*found, make_result(method="lst", trainable=30), told(make_result(control="text-only"), flops=9e9)]


def test_costs_are_means_over_trials_in_their_units(results):
    table = costs(store.to_frame(results)).set_index("method")
    lora = table.loc["lora"]
    expected = {
        "latency_seconds": 2.0, "merged_latency_seconds": 1.0, "flops": 3.0, "merged_flops": 1.0,
        "p99_memory_bytes": 300.0, "forgetting": 0.55, "forgetting std": 0.1 / 2**0.5, "forgetting_tasks": -0.25,
    }  # fmt: skip
    assert {key: lora[key] for key in expected} == pytest.approx(expected)
    assert table.loc["lst", [*ASIDE]].isna().all()
    assert known(costs(store.to_frame(results))) == [*ASIDE]
    assert known(costs(store.to_frame(results)[lambda rows: rows.method == "lst"])) == []


def test_the_table_has_what_is_known_of_each(results):
    frame = store.to_frame(results)
    text = markdown_sections(cost_sections(frame), cost_notes(frame))
    assert "### costs of image-text on bart-base" in text
    heads = "method | forgetting | on tasks | MFLOPs | merged MFLOPs | latency ms | merged ms | p99 MiB | n"
    assert f"| {heads} |" in text
    assert "| lora | +0.550 ± 0.071 | −0.250 ± 0.000 | 3.00 | 1.00 | 2.00 | 1.00 | 300 | 2 |" in text
    assert "| full | +0.550 ± 0.071 | −0.250 ± 0.000 | 3.00 | – | 2.00 | – | 300 | 2 |" in text
    assert "| lst | – | – | – | – | – | – | – | 1 |" in text
    assert text.index("| full") < text.index("| lst") < text.index("| lora")  # by what trains
    assert "merged: with what the method adds folded into the backbone" in text
    assert "caution" not in text


def test_columns_that_nobody_has_are_not_there(make_result):
    frame = store.to_frame([told(make_result(method="full"))])
    (section,) = cost_sections(frame)
    assert section.header == ["method", "forgetting", "on tasks", "MFLOPs", "latency ms", "p99 MiB", "n"]
    assert not any("merged" in note for note in cost_notes(frame))


def test_results_of_before_have_no_such_table(make_result):
    frame = store.to_frame([make_result(), make_result(method="full")])
    assert (cost_sections(frame), cost_notes(frame)) == ([], [])
    assert rich_sections([], []) == []


def test_forgetting_of_different_texts_is_said_not_to_compare(make_result):
    frame = store.to_frame([told(make_result()), told(make_result(method="full"), text=OTHER)])
    (line,) = [note for note in cost_notes(frame) if note.startswith("caution")]
    assert line == "caution: forgetting of image-text on bart-base was measured on 2 different texts"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_a_cost_has_three_digits(value, text):
    assert Cell.of(value, role=Role.COST).plain() == text


def test_the_page_has_them(results):
    html = page(store.to_frame(results))
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    data = json.loads(found)
    assert list(data["costs"]) == [*COSTS, *ASIDE]
    rows = {row["name"]: row["costs"] for row in data["places"][0]["rows"]}
    assert (rows["lora"]["merged_flops"], rows["full"]["merged_flops"]) == (1.0, None)
    assert rows["lora"]["forgetting"] == pytest.approx(0.55)
    assert rows["lst"]["flops"] is None
    before = page(store.to_frame(results)[lambda rows: rows.method == "lst"])
    assert list(json.loads(re.search(r'id="data">(.*?)</script>', before, re.DOTALL)[1])["costs"]) == [*COSTS]


def test_report_prints_and_writes_them(results_of_a_grid, call):
    for result in store.load_all(results_of_a_grid).values():
        store.save(told(result), results_of_a_grid)
    code, out, error = call("report", results_of_a_grid)
    assert (code, error) == (0, "")
    assert "costs of image-text/vqa+gqa on bart-base" in out and "forgetting" in out
    rows = list(csv.DictReader((results_of_a_grid / "report" / "costs.csv").open()))
    assert {row["method"]: float(row["flops"]) for row in rows} == {"lora": 3.0, "full": 3.0}
    assert "+0.500" in (results_of_a_grid / "report" / "costs.md").read_text()


def test_a_trial_is_shown_with_them(results_of_a_grid, call):
    result = next(iter(store.load_all(results_of_a_grid).values()))
    path = store.save(told(result, merged=1e6), results_of_a_grid)
    code, out, _ = call("show", path)
    assert code == 0
    assert "99th percentile 300 MiB" in out
    assert "vqa 2.00 ms and 2.00 MFLOPs an example, merged 1.00 ms and 1.00 MFLOPs" in out
    assert "text +0.500 a token, from 1.000 to 1.500" in out
    assert "vqa −0.250 a token, from 1.000 to 0.750" in out
