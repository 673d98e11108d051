from __future__ import annotations

import io
from itertools import chain
from statistics import mean, stdev

import pandas as pd
import pytest
from rich.console import Console

from pet_bench.grid.plan.spec import Skipped
from pet_bench.report.summary import comparison, scored, tasks_of, without_suspect
from pet_bench.report.tables.beneath import notes, skipped_notes
from pet_bench.report.tables.cells import Cell, Role, Row, Trials
from pet_bench.report.tables.views import sections, to_csv, to_markdown, to_rich, to_text  # fmt: skip
from pet_bench.results import store
from pet_bench.results.schema import OTHER_SOFTWARE, Run
from pet_bench.trial import checkpoint

VQA = {"lora": [60.0, 62.0, 67.0], "full": [70.0, 71.0, 69.0], "bitfit": [50.0, 50.0, 50.0]}


@pytest.fixture
def results(make_result):
    size = {"lora": 10, "full": 900, "bitfit": 2}
    found = [
        make_result(method=method, seed=seed, vqa=value, gqa=40.0 + seed, trainable=size[method])
        for method, values in VQA.items()
        for seed, value in enumerate(values)
    ]
    return [*found, make_result(method="full", vqa=30.0, gqa=30.0, control="text-only", trainable=900)]


def row(table, method, control="none"):
    found = table[(table.method == method) & (table.control == control)]
    assert len(found) == 1
    return found.iloc[0]


def test_means_and_sample_deviations_over_seeds(results):
    table = comparison(store.to_frame(results))
    assert tasks_of(table) == ["vqa", "gqa"]
    for method, values in VQA.items():
        found = row(table, method)
        assert found["vqa"] == pytest.approx(mean(values))
        assert found["vqa std"] == pytest.approx(stdev(values))
        averages = [(value + 40.0 + seed) / 2 for seed, value in enumerate(values)]
        assert found["average"] == pytest.approx(mean(averages))
        assert found["average std"] == pytest.approx(stdev(averages))
        assert (found["n"], found["trials"]) == (3, 3)


def test_one_seed_has_no_deviation(results):
    table = comparison(store.to_frame(results))
    assert pd.isna(row(table, "full", "text-only")["vqa std"])
    assert "| *full, text-only* | 90.00 | 900 | 30.00 | 30.00 | 30.00 | – | 1 |" in to_markdown(table, [])


def test_what_is_marked_is_bold_and_nothing_else(results):
    table = comparison(store.to_frame(results))
    marks = {("image-text", "bart-base", name, row(table, name).setup, "vqa") for name in ("full", "lora")}
    text = to_markdown(table, [], marks)
    assert text.count("**") == 4
    assert "| **70.00 ± 1.00** |" in text
    assert "| **63.00 ± 3.61** |" in text
    view = to_rich(table, [], marks)[0]
    shown = "".join(segment.text for segment in Console(width=200).render(view) if segment.style and segment.style.bold)
    assert "70.00 ± 1.00" in shown and "63.00 ± 3.61" in shown and "50.00" not in shown
    assert "**" not in to_markdown(table, [])


def test_ranks_are_means_over_tasks_among_methods(make_result):
    scores = {"lora": (60.0, 40.0), "full": (70.0, 40.0), "bitfit": (50.0, 60.0)}
    found = [make_result(method=method, vqa=vqa, gqa=gqa) for method, (vqa, gqa) in scores.items()]
    table = comparison(store.to_frame([*found, make_result(vqa=99.0, control="text-only")]))
    assert [row(table, name)["rank"] for name in scores] == [(2 + 2.5) / 2, (1 + 2.5) / 2, (3 + 1) / 2]
    assert pd.isna(row(table, "lora", "text-only")["rank"])
    assert "| 1.75 | 1 |" in to_markdown(table, [])
    assert "rank" not in to_markdown(comparison(store.to_frame(found[:1])), [])


def test_controls_and_majority_stand_below_the_methods(results):
    (section,) = sections(comparison(store.to_frame(results)))
    assert [row.labels[0] for row in section.rows["method"]] == ["full", "lora", "bitfit"]
    assert [row.labels[0] for row in section.rows["control"]] == ["full, text-only"]
    (majority,) = section.rows["majority"]
    assert majority.texts() == ["majority answer", "–", "–", "25.00", "25.00", "25.00", "–", "–"]


def test_unfinished_trials_are_counted(results, make_spec, tmp_path):
    failed = store.save_failure(
        make_spec("lora", seed=3), tmp_path, "no", status="oom", started="2026-01-01T00:00:00+00:00"
    )
    frame = store.to_frame([*results, failed], missing=[make_spec("full", seed=3)])
    table = comparison(frame)
    assert (row(table, "lora")["n"], row(table, "lora")["trials"]) == (3, 4)
    text = to_markdown(table, notes(frame))
    assert text.count("| 3 of 4 |") == 2
    assert "not in any mean: 1 oom, 1 missing" in text


def test_a_method_without_a_finished_trial_still_has_a_row(make_result, make_spec, tmp_path):
    failed = store.save_failure(make_spec("full"), tmp_path, "no", started="2026-01-01T00:00:00+00:00")
    table = comparison(store.to_frame([make_result(), failed]))
    assert "| full | – | – | – | – | – | 0 of 1 |" in to_markdown(table, [])


def test_backbones_are_compared_apart(make_result):
    frame = store.to_frame([make_result(backbone="bart-base", vqa=1.0), make_result(backbone="t5-base", vqa=2.0)])
    assert [section.title for section in sections(comparison(frame))] == [
        "image-text on bart-base",
        "image-text on t5-base",
    ]


@pytest.mark.parametrize(
    "difference, caution",
    [
        ({"data": "d1"}, "2 different versions of the data"),
        ({"commit": "c1"}, "2 different commits"),
        ({"epochs": 3}, "differ in their recipe"),
        ({}, None),
    ],
)
def test_what_makes_rows_incomparable_is_said_beneath(make_result, difference, caution):
    frame = store.to_frame([make_result(seed=0), make_result(seed=1, **difference)])
    cautions = [note for note in notes(frame) if note.startswith("caution")]
    assert len(cautions) == (caution is not None)
    assert all(caution in note for note in cautions)


def test_which_scorer_it_was_is_said_beneath(make_result):
    results = [make_result(seed=seed) for seed in (0, 1)]
    for result, version in zip(results, ("2016", "2021"), strict=True):
        next(iter(result.metrics["vqa"].values())).options = {"version": version}
    (line,) = (note for note in notes(store.to_frame(results)) if note.startswith("vqa: "))
    assert "(version 2016) on " in line and "(version 2021) on " in line
    (plain,) = (note for note in notes(store.to_frame(results)) if note.startswith("gqa: "))
    assert "(" not in plain


def test_equal_names_with_other_recipes_are_never_averaged(make_result):
    table = comparison(store.to_frame([make_result(seed=0), make_result(seed=1, epochs=3)]))
    assert list(table[table.kind == "method"].n) == [1, 1]


def test_csv_reads_back_unrounded(results):
    table = comparison(store.to_frame(results))
    again = pd.read_csv(io.StringIO(to_csv(table)))
    assert list(again.columns) == list(table.columns)
    pd.testing.assert_series_equal(again["vqa std"], table["vqa std"].astype(float))
    assert again.trainable[0] == 900


def test_terminal_and_markdown_show_the_same_scores(results):
    frame = store.to_frame(results)
    table, beneath = comparison(frame), notes(frame)
    shown = to_text(table, beneath)
    for section in sections(table):
        for row in chain.from_iterable(section.rows.values()):
            assert all(text in shown and text in to_markdown(table, beneath) for text in row.texts())
    assert all(note in shown for note in beneath)


@pytest.mark.parametrize("label", ["a|b", "lora(rank=8)", "[bold]x", "<script>", "a_b*c"])
def test_labels_cannot_break_the_table(make_result, label):
    table = comparison(store.to_frame([make_result(label=label), make_result(method="full")]))
    assert label in to_text(table, [])
    lines = [line for line in to_markdown(table, []).splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert "<script>" not in to_markdown(table, [])


# trials that are not simply done --------------------------------------------------------------------------------------


@pytest.fixture
def mixed(make_result):
    """lora: done, suspect with and without scores, stopped early with a score that nobody may use; full: done."""
    lost = {"metrics": {}, "average": None}
    return [
        make_result(seed=0, vqa=60.0),
        make_result(seed=1, vqa=30.0, status="suspect", error="vqa: all 7 predictions are 'yes|no'"),
        make_result(seed=2, status="suspect", error="the loss of task vqa is nan").model_copy(update=lost),
        make_result(seed=3, vqa=99.0, status="stopped_early", error="by the search at epoch 1"),
        make_result(seed=4, status="oom", error="out of memory").model_copy(update=lost),
        make_result(method="full", vqa=50.0),
    ]


def test_a_suspect_trial_with_scores_enters_means_and_is_marked(mixed):
    frame = store.to_frame(mixed)
    table, beneath = comparison(frame), notes(frame)
    found = row(table, "lora")
    assert found["vqa"] == pytest.approx(45.0)
    assert found["average std"] == pytest.approx(stdev([50.0, 35.0]))
    assert (found["n"], found["trials"], found["suspect"]) == (2, 5, 1)
    for text in (to_text(table, beneath), to_markdown(table, beneath)):
        assert "2 of 5†" in text
        assert "not in any mean: " in text
        assert "† suspect: lora, seed 1: vqa: all 7" in text
        assert "suspect, not in any mean: lora, seed 2: the loss of task vqa is nan" in text
    (line,) = (note for note in beneath if note.startswith("not in any mean"))
    assert sorted(line.partition(": ")[2].split(", ")) == ["1 oom", "1 stopped early", "1 suspect"]
    again = pd.read_csv(io.StringIO(to_csv(table)))
    assert dict(zip(again.method, again.suspect, strict=True))["lora"] == 1


def test_suspect_trials_can_be_left_out(mixed):
    frame = without_suspect(store.to_frame(mixed))
    table, beneath = comparison(frame), notes(frame)
    found = row(table, "lora")
    assert (found["vqa"], found["n"], found["trials"], found["suspect"]) == (60.0, 1, 5, 0)
    assert "†" not in to_text(table, beneath)
    assert "2 suspect" in next(note for note in beneath if note.startswith("not in any mean"))
    assert sum("lora, seed 1" in note for note in beneath) == 1
    assert set(scored(frame).status) == {"done"}


def test_suspect_trials_alone_still_make_a_table(mixed):
    frame = without_suspect(store.to_frame(mixed[1:3]))
    assert scored(frame).empty
    assert "| lora | – | – | – | 0 of 2 |" in to_markdown(comparison(frame), notes(frame))


def test_a_trial_is_named_with_its_place_where_there_are_several(make_result):
    suspect = make_result(status="suspect", error="collapsed", control="noise")
    frame = store.to_frame([suspect, make_result(backbone="t5-base")])
    assert "† suspect: lora, noise, seed 0, image-text on bart-base: collapsed" in notes(frame)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([3], "seed 3"), ([1, 0], "seeds 0 and 1"), ([2, 1, 0, 7], "seeds 0 to 2 and 7"),
        ([0, 1, 2, 5, 9], "seeds 0 to 2, 5 and 9"), ([4, 5, 6, 7], "seeds 4 to 7"),
    ],
)  # fmt: skip
def test_trials_that_are_suspect_for_one_reason_are_one_line(make_result, seeds, said):
    results = [make_result(seed=seed, status="suspect", error="collapsed") for seed in seeds]
    other = make_result(seed=99, status="suspect", error="the loss is nan")
    beneath = notes(store.to_frame([*results, other]))
    assert [note for note in beneath if note.startswith("† suspect")] == [
        f"† suspect: lora, {said}: collapsed", "† suspect: lora, seed 99: the loss is nan",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "commits, this, line",
    [
        (["a" * 40] * 2, "a" * 40, None),
        (["a" * 40] * 2, None, None),
        ([None] * 2, "a" * 40, None),
        (["b" * 40] * 2, "a" * 40, "made with another commit of pet-bench (bbbbbbb) than this code (aaaaaaa)"),
        (
            ["a" * 40, "b" * 40, "b" * 40, None],
            "a" * 40,
            "caution: made with 3 different commits of pet-bench: aaaaaaa (1 trial, this code), bbbbbbb (2 trials), "
            "unknown (1 trial)",
        ),
    ],
)
def test_other_commits_are_shown_as_such(make_result, commits, this, line):
    frame = store.to_frame(make_result(seed=seed, commit=commit) for seed, commit in enumerate(commits))
    assert [note for note in notes(frame, this) if "commit" in note] == ([line] if line else [])


def test_how_trials_ran_is_one_line(make_result, monkeypatch, tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, {}, steps=1)
    checkpoints.write(3, {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "made_with", lambda: {"commit": "another"})
        _, said = checkpoints.read()
    assert OTHER_SOFTWARE in said[0]
    frame = store.to_frame([
        make_result(seed=0, run=Run(accumulation=2)),
        make_result(seed=1, run=Run(resumed=[3], notes=said)),
        make_result(seed=2, run=Run(resumed=[3, 4])),
    ])  # fmt: skip
    assert list(frame.drop_duplicates("id").resumed) == [0, 1, 2]
    assert [note for note in notes(frame) if "seed" in note and "mean" not in note] == [
        "in parts of each batch: lora, seed 0 (accumulation 2); "
        "resumed with other software than they began with: lora, seed 1"
    ]


# cells ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, text",
    [
        (Cell.of(1.005, 0.5, 3), "1.00 ± 0.50"),
        (Cell.of(73.24499999999998), "73.25"),  # the mean of the same ten scores,
        (Cell.of(73.245), "73.25"),  # added in another order
        (Cell.of(-2.5, None), "−2.50"),
        (Cell.of(pd.NA, 0.5), "–"),
        (Cell.of(float("nan")), "–"),
        (Cell.of(1_234_567, role=Role.PARAMETERS), "1,234,567"),
        (Cell.of(5.84, role=Role.DIFFERENCE), "+5.84"),
        (Cell.of(-5.11, role=Role.DIFFERENCE), "−5.11"),
        (Cell.of(0, role=Role.DIFFERENCE), "+0.00"),
    ],
)
def test_a_cell_is_written_as_what_it_is(cell, text):
    assert cell.plain() == text


def test_a_row_tells_what_its_means_are_over():
    assert [Trials(*counts).plain() for counts in ((3, 3), (2, 3), (2, 3, 1), (0, 1), (0, 0))] == [
        "3", "2 of 3", "2 of 3†", "0 of 1", "missing"
    ]  # fmt: skip
    row = Row("published", ("", "published"), (Cell(1.0, best=True), Cell()), missing="")
    assert (row.texts(), row.best()) == (["", "published", "1.00", "", ""], [False, False, True, False, False])


# what a grid leaves out -----------------------------------------------------------------------------------------------

NO_ENCODER = Skipped("bart-base", "lst", "it needs an encoder")


def test_what_is_left_out_has_a_row_of_dashes_and_a_reason(results):
    frame = store.to_frame(results)
    table = comparison(frame, [NO_ENCODER, NO_ENCODER])
    assert list(table[table.kind == "skipped"].method) == ["lst"]
    assert row(table, "lst").reason == "it needs an encoder"
    beneath = skipped_notes([NO_ENCODER, NO_ENCODER])
    assert beneath == ["–: lst on bart-base, because it needs an encoder"]
    text = to_markdown(table, beneath)
    assert "| *lst* | – | – | – | – | – | – | – |" in text
    assert "- –: lst on bart-base, because it needs an encoder" in text
    shown = to_text(table, beneath)
    assert beneath[0] in shown and shown.index("bitfit") < shown.index("lst") < shown.index("full, text-only")
    assert ",skipped," in to_csv(table) and "it needs an encoder" in to_csv(table)
    assert "reason" not in to_csv(comparison(frame))


def test_what_has_results_after_all_is_not_left_out(results):
    table = comparison(store.to_frame(results), [Skipped("bart-base", "lora", "it was once")])
    assert "skipped" not in set(table.kind)


def test_a_place_without_any_result_has_its_row_too(results):
    table = comparison(store.to_frame(results), [Skipped("mini-gru", "lst", "it needs an encoder")])
    first, second = sections(table)
    assert second.title == "image-text on mini-gru"
    assert [row.texts() for row in second.rows["skipped"]] == [["lst", "–", "–", "–", "–"]]
    assert not first.rows["skipped"]
