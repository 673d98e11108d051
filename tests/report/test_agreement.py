"""Rank correlations with a published table: against scipy, by hand, their intervals, the command."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pet_bench.report.statistics.agreement import agreement, extremes, kendall_spearman
from tests.conftest import ROOT

MINI = ROOT / "results" / "mini-image-text-t5"
METHODS = list("abcdefgh")


@pytest.fixture
def generator():
    return np.random.default_rng(11)


def table(scores, methods=METHODS):
    """Rows of seeds by method."""
    return pd.DataFrame(np.atleast_2d(scores).T if np.ndim(scores) == 1 else scores, index=methods[: len(scores)])


@pytest.mark.parametrize("values", [100, 4], ids=["few ties", "many ties"])
def test_they_are_scipys(generator, values):
    a, b = generator.integers(values, size=(2, 50, 9)).astype(float)
    kendall, spearman = kendall_spearman(a, b)
    for x, y, tau, rho in zip(a, b, kendall, spearman, strict=True):
        assert tau == pytest.approx(stats.kendalltau(x, y).statistic)
        assert rho == pytest.approx(stats.spearmanr(x, y).statistic)


def test_by_hand():
    """Of the six pairs of four one is turned round: τ = (5 − 1) / 6, ρ = 1 − 6 (1 + 1) / (4 · 15)."""
    found = agreement(table([10.0, 30.0, 20.0, 40.0]), pd.Series([1.0, 2.0, 3.0, 4.0], METHODS[:4]))
    assert (found.n, found.kendall.value, found.spearman.value) == (4, pytest.approx(4 / 6), pytest.approx(0.8))
    tied = agreement(table([10.0, 10.0, 20.0]), pd.Series([1.0, 2.0, 3.0], METHODS[:3]))
    assert tied.kendall.value == pytest.approx(2 / np.sqrt(2 * 3))  # one of the three pairs is tied on one side


def test_the_same_order_whatever_is_drawn_is_certain():
    ours, published = table(np.add.outer(10.0 * np.arange(8), [0, 1, 2])), pd.Series(np.arange(8.0), METHODS)
    found = agreement(ours, published)
    for of in (found.kendall, found.spearman):
        assert (of.value, of.low, of.high) == pytest.approx((1, 1, 1))


def test_seeds_and_methods_both_widen_the_interval(generator):
    published = pd.Series(np.arange(8.0), METHODS)
    steady = np.arange(8.0)[:, None] + np.where(np.arange(8) % 2, 3.0, 0.0)[:, None] + np.zeros((8, 4))
    luck = generator.normal(0, 3, (8, 4))
    calm, wild = (
        agreement(table(scores), published) for scores in (steady, steady + luck - luck.mean(1, keepdims=True))
    )
    assert calm.spearman.value == pytest.approx(wild.spearman.value)  # the means are the same
    assert calm.spearman.low < calm.spearman.value < calm.spearman.high  # other methods
    assert wild.spearman.low < calm.spearman.low - 0.05  # and other seeds
    assert agreement(table(steady), published) == calm


def test_what_seeds_share_turns_no_order(generator):
    """All methods have the luck of a seed in common, and are drawn with it."""
    published = pd.Series(np.arange(8.0), METHODS)
    found = agreement(table(np.arange(8.0)[:, None] + 50 * generator.normal(size=4)), published)
    assert (found.kendall.low, found.kendall.high) == pytest.approx((1, 1))


def test_what_one_side_lacks_is_left_out():
    ours = table([[1.0, np.nan], [2.0, 2.5], [np.nan, np.nan], [4.0, 3.0], [0.0, 0.0]])
    published = pd.Series([1.0, 2.0, 3.0, 4.0, np.nan, 9.0], [*METHODS[:5], "z"])
    found = agreement(ours, published)
    assert (found.n, found.kendall.value) == (3, 1)
    few = agreement(ours, published, without=["a", "z"])
    assert (few.n, few.without) == (2, ("a",))
    assert np.isnan([few.kendall.value, few.spearman.low]).all()


def test_the_extremes_are_the_best_and_the_worst_published():
    assert extremes(pd.Series([3.0, 9.0, np.nan, 1.0], list("abcd"))) == ("b", "d")
    assert extremes(pd.Series(dtype=float)) == ()


def test_the_report_says_how_far_orders_agree(call, tmp_path):
    code, out, err = call("report", MINI, "--style", "vlpet-table2", "--agreement", "--to", tmp_path)
    assert (code, err) == (0, "")
    assert "do our results order methods alike?" in out and "a bootstrap over methods and" in " ".join(out.split())
    made = pd.read_csv(tmp_path / "vlpet-table2-agreement.csv")
    rows = pd.read_csv(tmp_path / "vlpet-table2.csv")
    rows = rows[rows.backbone == "t5-base"]
    for (backbone, column), (whole, *inner) in made.groupby(["backbone", "column"], sort=False).apply(by_kind).items():
        if backbone != "t5-base":
            assert whole.n == 0 and np.isnan(whole.kendall) and not inner
            continue
        (inner,) = inner
        numbers = rows[[column, f"{column} published"]].dropna().to_numpy().T
        assert (whole.n, inner.n) == (10, 8)
        assert whole.kendall == pytest.approx(stats.kendalltau(*numbers).statistic)
        assert whole.spearman == pytest.approx(stats.spearmanr(*numbers).statistic)
        assert -1 <= whole["kendall low"] <= whole.kendall <= whole["kendall high"] <= 1
        assert inner.without == "prompt-tuning, vl-pet-large" or inner.without == "vl-pet-large, prompt-tuning"
    text = (tmp_path / "vlpet-table2-agreement.md").read_text()
    assert "| t5-base (ours: mini-t5) | Avg. | without " in text


def by_kind(rows):
    return tuple(row for _, row in rows.iterrows())


def test_agreement_is_with_a_paper(call):
    code, _, err = call("report", MINI, "--agreement")
    assert (code, err) == (2, "pet-bench: error: --agreement is for --style NAME: with which paper's table?\n")
