from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pet_bench.errors import UserError
from pet_bench.files import write_text
from pet_bench.report.statistics import (
    both,
    compare,
    disagreements,
    effect,
    holm,
    joint_test,
    mcnemar,
    paired_bootstrap,
    rank_notes,
    ranks,
    right_and_wrong,
    seed_test,
    significantly_best,
    together,
)
from pet_bench.report.summary import comparison
from pet_bench.report.tables.views import to_markdown
from pet_bench.results import store


@pytest.fixture
def generator():
    return np.random.default_rng(7)


# over examples --------------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_scipys_paired_bootstrap(generator):
    a, b = generator.normal(60, 20, 300), generator.normal(57, 20, 300)
    found = paired_bootstrap(a, b)
    other = stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, method="percentile", rng=generator,
        vectorized=True, batch=1000,
    )  # fmt: skip
    assert found.difference == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval), abs=0.1)
    # of hundreds of examples the t-test says the same
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_95_percent_intervals_hold_the_truth_95_percent_of_the_time(generator, truth):
    """Scores of 0 and 100, correlated, right with 60 + truth and 60 %."""
    trials, hits, rejected = 400, 0, 0
    for trial in range(trials):
        ease = generator.uniform(size=200)
        a = 100.0 * ((ease + generator.uniform(-0.2, 0.2, 200)) % 1 < 0.6 + truth / 100)
        b = 100.0 * ((ease + generator.uniform(-0.2, 0.2, 200)) % 1 < 0.6)
        found = paired_bootstrap(a, b, draws=999, seed=trial)
        hits += found.low <= truth <= found.high
        rejected += found.p <= 0.05
    assert 0.92 <= hits / trials <= 0.975
    if not truth:
        assert 0.025 <= rejected / trials <= 0.08


def test_seeds_are_no_further_examples(generator):
    """Ten seeds of the same answers are no more certain than one."""
    a, b = 100.0 * (generator.uniform(size=(2, 150)) < [[0.7], [0.6]])
    one, ten = paired_bootstrap(a, b), paired_bootstrap(np.tile(a, (10, 1)), np.tile(b, (3, 1)))
    assert (ten.low, ten.high, ten.p) == pytest.approx((one.low, one.high, one.p))


def test_the_same_results_give_the_same_p_value_and_equal_methods_none(generator):
    a, b = generator.normal(size=(2, 3, 50))
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)
    assert paired_bootstrap(a, b) != paired_bootstrap(a, b, seed=1)
    same = paired_bootstrap(a, a[::-1])
    assert (same.difference, same.p) == (pytest.approx(0), 1.0)
    assert paired_bootstrap(a + 100, b, draws=999).p == 2 / 1000


# over seeds -----------------------------------------------------------------------------------------------------------


def test_seeds_by_t_tests():
    a, b = {0: 60.0, 1: 62.0, 2: 67.0}, {0: 55.0, 1: 59.0, 2: 58.0}
    found, other = seed_test(a, b), stats.ttest_ind([*a.values()], [*b.values()], equal_var=False)
    assert (found.kind, found.p) == ("Welch", pytest.approx(other.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval()))
    found, other = seed_test(a, b, paired=True), stats.ttest_rel([*a.values()], [*b.values()])
    assert (found.kind, found.p) == ("paired t", pytest.approx(other.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval()))


def test_welch_by_hand():
    """One side without spread leaves one degree of freedom: Student's t is then Cauchy's distribution."""
    found = seed_test({0: 60.0, 1: 62.0}, {0: 59.0, 1: 59.0})  # 2 ± 1
    assert found.p == pytest.approx(1 - 2 / np.pi * np.arctan(2), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((2 - 12.706204736174694, 2 + 12.706204736174694), rel=1e-12)
    same = seed_test({0: 60.0, 1: 62.0}, {0: 60.0, 1: 62.0})
    assert (same.difference, same.p) == (0, 1) and same.low == -same.high < 0


def test_one_seed_is_no_test_and_no_spread_no_certainty():
    one = seed_test({0: 60.0}, {0: 50.0, 1: 51.0})
    assert (one.kind, one.difference) == ("n = 1", 9.5)
    assert np.isnan([one.p, one.low, one.high]).all()
    assert seed_test({0: 60.0, 1: 60.0}, {0: 50.0, 1: 50.0}).p == 1


@pytest.mark.parametrize(
    "examples, seeds, p", [(0.01, 0.2, 0.2), (0.3, 0.2, 0.3), (0.01, np.nan, 0.01), (np.nan, 0.2, 0.2)]
)
def test_together_the_larger_p_counts(examples, seeds, p):
    assert both(examples, seeds) == p
    assert both(np.nan, np.nan) == 1


def test_both_at_once_is_clarks_min_f(generator):
    a, b = {0: 60.0, 1: 62.0, 2: 67.0}, {0: 55.0, 1: 59.0, 2: 58.0}
    seeds, examples = seed_test(a, b), paired_bootstrap(generator.normal(5, 60, 300) + 5.6667, np.zeros(300))
    examples = replace(examples, difference=seeds.difference)
    found = joint_test(seeds, examples)
    f1, f2 = ((one.difference / one.error) ** 2 for one in (seeds, examples))
    smallest, freedom = f1 * f2 / (f1 + f2), (f1 + f2) ** 2 / (f2**2 / seeds.freedom)
    assert (found.kind, found.freedom) == ("joint", pytest.approx(freedom))
    assert found.p == pytest.approx(stats.f.sf(smallest, 1, freedom))
    assert together(seeds, examples) == max(seeds.p, examples.p, found.p)
    assert together(seeds, None) == seeds.p
    assert together(seed_test({0: 1.0}, {0: 0.0}), examples) == examples.p


def test_seeds_without_spread_say_nothing_of_both():
    flat = seed_test({0: 60.0, 1: 60.0}, {0: 50.0, 1: 50.0})
    assert together(flat, paired_bootstrap(np.ones(50), np.zeros(50))) == 1


def test_holm_by_hand():
    # 4 × 0.01, 3 × 0.013, 2 × 0.03, 1 × 0.04, none below the one before
    assert holm([0.04, 0.01, 0.03, 0.013]) == pytest.approx([0.06, 0.04, 0.06, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


# effect sizes ---------------------------------------------------------------------------------------------------------


def test_effect_sizes(generator):
    a, b = generator.normal(60, 10, (3, 400)), generator.normal(58, 10, (3, 400))
    found, x = effect(a, b), a.mean(0) - b.mean(0)
    assert found.d == pytest.approx(x.mean() / x.std(ddof=1))
    other = stats.bootstrap(
        (x,), lambda x, axis: x.mean(axis) / x.std(axis, ddof=1), method="percentile", rng=generator
    )
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval), abs=0.01)
    assert (found.better, found.equal, found.worse) == pytest.approx(((x > 0).mean(), 0, (x < 0).mean()))
    same = effect(a, a)
    assert np.isnan([same.d, same.low]).all()
    assert same.equal == 1


def test_mcnemar_is_the_binomial_of_the_discordant():
    a = np.repeat([100.0, 100.0, 0.0, 0.0], [30, 12, 3, 5])
    b = np.repeat([100.0, 0.0, 100.0, 0.0], [30, 12, 3, 5])
    found = mcnemar(a, b)
    assert [found[key] for key in ("both", "only a", "only b", "neither")] == [30, 12, 3, 5]
    assert found["p"] == pytest.approx(stats.binomtest(3, 15).pvalue)
    assert mcnemar(a, a)["p"] == 1


# ranks ----------------------------------------------------------------------------------------------------------------


def test_ranks_by_friedman_and_nemenyi(generator):
    scores = pd.DataFrame(generator.normal(size=(5, 6)), index=list("abcde"))
    found = ranks(scores)
    other = stats.friedmanchisquare(*scores.to_numpy())
    assert (found.statistic, found.p) == pytest.approx((other.statistic, other.pvalue))
    assert found.mean.mean() == pytest.approx(3)
    assert found.mean["a"] == pytest.approx(np.mean([stats.rankdata(-scores[task])[0] for task in scores]))


@pytest.mark.parametrize("k, q", [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_has_the_published_constants(generator, k, q):
    """Demšar 2006, table 5 (a)."""
    assert ranks(pd.DataFrame(generator.normal(size=(k, 4)))).critical == pytest.approx(
        q * np.sqrt(k * (k + 1) / 24), abs=1e-3
    )


def test_two_methods_are_ranked_but_not_tested():
    found = ranks(pd.DataFrame({"vqa": [1.0, 2.0, None], "gqa": [3.0, 3.0, 9.0]}, index=["a", "b", "c"]))
    assert found.mean.to_dict() == {"b": 1.25, "a": 1.75}
    assert np.isnan([found.p, found.critical]).all()


# results --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(make_result, tmp_path, generator):
    """Results with predictions: `method=[(vqa, gqa) …]` by seed, percentages right on 400 shared examples."""

    def save(**methods):
        results, ease = [], generator.uniform(size=(2, 400))
        for method, seeds in methods.items():
            for seed, rights in enumerate(seeds):
                luck = (ease + generator.uniform(-0.1, 0.1, ease.shape)) % 1
                scores = 100.0 * (luck < np.array(rights)[:, None] / 100)
                vqa, gqa = scores.mean(axis=1)
                result = make_result(method=method, seed=seed, vqa=vqa, gqa=gqa)
                for task, row in zip(("vqa", "gqa"), scores, strict=True):
                    lines = [
                        json.dumps({"id": f"{index}", "prediction": "yes" if score else "no", "score": score})
                        for index, score in enumerate(row)
                    ]
                    write_text(tmp_path / result.id / f"predictions.{task}.jsonl", "\n".join(lines) + "\n")
                results.append(result)
        return results

    return save


def bold(marks, score):
    return {method for *_, method, _, column in marks.best if column == score}


def test_what_is_not_significantly_worse_than_the_best_is_bold(saved, tmp_path):
    results = saved(full=[(70, 50)] * 3, lora=[(69.5, 50)] * 3, bitfit=[(30, 50)] * 3)
    frame = store.to_frame(results)
    marks = significantly_best(frame, tmp_path)
    assert bold(marks, "vqa") == {"full", "lora"}
    assert bold(marks, "gqa") == set()  # nothing can be told apart
    (line,) = marks.caption
    assert line.startswith("bold: not significantly worse than the best of the column (the larger p of a paired boot")
    assert "Welch's t-test over seeds" in line and "5 % after Holm's correction over the 6 comparisons" in line
    assert to_markdown(comparison(frame), [], marks.best).count("**") >= 4
    assert significantly_best(frame, tmp_path) == marks


def test_where_hardly_any_is_worse_nothing_is_bold(saved, tmp_path):
    results = saved(full=[(70, 50)] * 3, lora=[(69.5, 50)] * 3, adapter=[(69, 50)] * 3, bitfit=[(30, 50)] * 3)
    marks = significantly_best(store.to_frame(results), tmp_path)
    assert not marks.best
    assert marks.caption[0].startswith("nothing is bold: fewer than half of a column's methods are significantly worse")


def test_both_tests_have_to_agree(saved, tmp_path):
    """Seeds that scatter are not made up for by many examples."""
    results = saved(full=[(70, 50), (95, 50)], lora=[(40, 50), (65, 50)])
    marks = significantly_best(store.to_frame(results), tmp_path)
    assert not marks.best
    assert marks.caption[0].startswith(
        "nothing is bold: fewer than half of a column's methods are significantly worse (the la"
    )
    table, _ = compare(*(store.to_frame(results[i : i + 2]) for i in (0, 2)), tmp_path)
    row = table.set_index("task").loc["vqa"]
    assert row["p examples"] < 0.001 < 0.05 < row["p seeds"] == row["p"]


def test_with_one_seed_only_examples_speak(saved, tmp_path):
    marks = significantly_best(store.to_frame(saved(full=[(70, 50)], lora=[(40, 50)])), tmp_path)
    assert bold(marks, "vqa") == {"full"}
    assert "(a paired bootstrap over examples, 5 %" in marks.caption[0]
    assert marks.caption[1:] == ["n = 1: only examples are tested; another seed may turn the order"]


@pytest.mark.parametrize(
    "seeds, said",
    [
        ((7, 7), "Welch's t-test over seeds, or that of both at once"),
        ((8, 8), "a paired t-test over seeds, or that of both at once"),
        ((8, 7), "a t-test over seeds (paired where both have the same, else Welch's), or that of both at once"),
    ],
)
def test_the_caption_names_the_test_over_seeds(saved, tmp_path, seeds, said):
    results = saved(full=[(70, 50)] * 8, lora=[(60, 50)] * seeds[0], bitfit=[(30, 50)] * seeds[1])
    results = [one for one in results if one.spec["seed"] < max(seeds)]
    marks = significantly_best(store.to_frame(results), tmp_path)
    assert f"the larger p of a paired bootstrap over examples and {said}, 5 % after Holm's" in marks.caption[0]


def test_without_predictions_only_seeds_speak(make_result, tmp_path):
    results = [
        make_result(method=method, seed=seed, vqa=base + seed / 10, gqa=50 + seed)
        for method, base in {"full": 70.0, "lora": 40.0}.items()
        for seed in range(3)
    ]
    marks = significantly_best(store.to_frame(results), tmp_path)
    assert bold(marks, "vqa") == {"full"}
    assert "(Welch's t-test over seeds, 5 %" in marks.caption[0]
    assert marks.caption[1].startswith("only seeds are tested where examples cannot be: vqa: predictions of trial ")
    nothing = significantly_best(store.to_frame(results[::3]), tmp_path)
    assert not nothing.best
    assert nothing.caption[0] == "nothing is bold: n = 1 and no predictions, so nothing can be tested"


def test_a_corpus_score_is_not_resampled(saved, make_result, tmp_path):
    results = saved(full=[(70, 50)] * 2, lora=[(40, 50)] * 2)
    for result in results:
        result.metrics["gqa"] = {"BLEU-4": result.metrics["gqa"]["accuracy"]}
    _, lines = compare(*(store.to_frame(results[i : i + 2]) for i in (0, 2)), tmp_path)
    assert lines == ["examples cannot be tested: gqa: BLEU-4 is not the mean of its examples' scores"]


@pytest.mark.parametrize("change", ["data", "split"])
def test_what_is_not_comparable_is_refused(saved, tmp_path, change):
    results = saved(full=[(70, 50)] * 2, lora=[(40, 50)] * 2)
    if change == "data":
        results[0].provenance.data = "other"
    else:
        results[0].metrics["vqa"]["accuracy"].split = "dev"
    marks = significantly_best(store.to_frame(results), tmp_path)
    assert not marks.best
    assert marks.caption[0].startswith("nothing is marked: not comparable: ")
    with pytest.raises(UserError, match="not comparable: ") as caught:
        compare(*(store.to_frame(results[i : i + 2]) for i in (0, 2)), tmp_path)
    assert len(caught.value.faults) == 1


def test_other_examples_are_said(saved, tmp_path):
    results = saved(full=[(70, 50)], lora=[(40, 50)])
    file = tmp_path / results[0].id / "predictions.vqa.jsonl"
    file.write_text(file.read_text().replace('"id": "7"', '"id": "x"'))
    _, lines = compare(*(store.to_frame([result]) for result in results), tmp_path)
    assert lines == ["examples cannot be tested: vqa: the trials' predictions are not for the same examples"]
    file.write_text("{")
    with pytest.raises(UserError, match="line 1: not a JSON object"):  # wrong, which seeds do not make up for
        compare(*(store.to_frame([result]) for result in results), tmp_path)


def test_a_comparison_has_the_numbers_of_its_parts(saved, tmp_path):
    results = saved(full=[(70, 55)] * 3, lora=[(60, 50)] * 2)
    one, other = store.to_frame(results[:3]), store.to_frame(results[3:])
    table, lines = compare(one, other, tmp_path)
    assert (list(table.task), lines) == (["vqa", "gqa", "average"], [])
    vqa = table.iloc[0]
    scores = [[r.metrics["vqa"]["accuracy"].value for r in part] for part in (results[:3], results[3:])]
    assert (vqa["a n"], vqa["b n"], vqa.seeds) == (3, 2, "Welch")
    assert vqa.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))
    assert vqa["p seeds"] == pytest.approx(stats.ttest_ind(*scores, equal_var=False).pvalue)
    assert vqa.low < vqa.difference < vqa.high
    assert vqa.better + vqa.equal + vqa.worse == pytest.approx(1)
    assert table["p holm"].tolist() == holm(table.p).tolist()
    average = table.iloc[2]
    assert average.difference == pytest.approx(
        np.mean([r.average for r in results[:3]]) - np.mean([r.average for r in results[3:]])
    )
    assert average.high - average.low < min(row.high - row.low for row in (table.iloc[0], table.iloc[1]))

    counts = right_and_wrong(one, other, tmp_path)
    assert list(counts.seed) == ["0", "1"] * 2
    for row in counts.to_dict("records"):
        value = [results[at].metrics[row["task"]]["accuracy"].value for at in (int(row["seed"]), 3 + int(row["seed"]))]
        assert 4 * value[0] == row["both"] + row["only a"]
        assert 4 * value[1] == row["both"] + row["only b"]


def test_disagreements_are_the_largest_in_both_directions(saved, tmp_path):
    results = saved(full=[(70, 55)] * 2, lora=[(60, 50)] * 2)
    found = disagreements(store.to_frame(results[:2]), store.to_frame(results[2:]), tmp_path, "vqa", 2)
    difference = found["a score"] - found["b score"]
    assert (difference[:2] > 0).all() and (difference[2:] < 0).all() and len(found) == 4
    assert found.a[0] in ("yes ×2", "yes, no", "no, yes")
    with pytest.raises(UserError, match='unknown task "vqaa"'):
        disagreements(store.to_frame(results[:2]), store.to_frame(results[2:]), tmp_path, "vqaa")


def test_rank_notes(make_result):
    results = [make_result(method=method, vqa=value) for method, value in (("lora", 1.0), ("full", 2.0))]
    assert rank_notes(comparison(store.to_frame(results))) == ["rank: mean over 2 tasks among 2 methods, 1 the best"]
    assert rank_notes(comparison(store.to_frame(results[:1]))) == []
