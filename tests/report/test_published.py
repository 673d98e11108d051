"""From the published files alone: every average and every percentage recomputes."""

from __future__ import annotations

import csv
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from pet_bench.errors import UserError
from pet_bench.report import published
from pet_bench.report.published import average, relative_gain
from tests.conftest import ROOT

SCORES = ("vqa", "gqa", "nlvr2", "coco_cider")
VIDEO = ("tvqa", "how2qa", "tvc_cider", "yc2c_cider")
# printed averages that their printed scores, rounded, do not give to the last digit
UNROUNDED = {
    ("bart-base", "vl-pet-middle-x"): Decimal("78.3625"),
    ("bart-base", "vl-adapter+large"): Decimal("78.4775"),
}
TENTH, CENT = Decimal("0.1"), Decimal("0.01")


def rows(name):
    """The table with its numbers as printed."""
    with (ROOT / "results/published" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def last_digit(row, columns):
    """What a row is printed to: quoted rows have one decimal, and a 0."""
    printed = [Decimal(row[column]) for column in columns]
    return TENTH if all(number % TENTH == 0 for number in printed) else CENT


def roundings(value, step):
    return {value.quantize(step, how) for how in (ROUND_HALF_UP, ROUND_HALF_DOWN)}


TABLES = ["vlpet_table2_image_text", "vlpet_table9_transfer", "vlpet_readme_checkpoints", "dora_readme"]


@pytest.mark.parametrize("name", TABLES)
def test_every_average_is_that_of_its_row(name):
    for row in rows(name):
        columns = VIDEO if row.get("suite") == "video-text" else SCORES
        mean = average(Decimal(row[column]) for column in columns)
        step = last_digit(row, (*columns, "avg"))
        printed = Decimal(row["avg"])
        # the mean of the scores that are rounded to these, rounded: at most one step away
        assert abs(mean - printed) <= step
        if (key := (row["backbone"], row["method"])) in UNROUNDED and name != "vlpet_readme_checkpoints":
            assert mean == UNROUNDED[key]
            assert printed not in roundings(mean, CENT)
        else:
            assert printed in roundings(mean, step)


def test_figure_1_is_table_2_exactly():
    averages = {row["method"]: Decimal(row["avg"]) for row in rows(TABLES[0]) if row["backbone"] == "bart-base"}
    figure = rows("vlpet_figure1_relative")
    assert {row["method"] for row in figure} == averages.keys()
    for row in figure:
        gain = relative_gain(averages[row["method"]], averages["full"])
        assert gain.quantize(CENT) == Decimal(row["relative_gain_percent"])


def test_the_rows_that_two_tables_share_agree():
    both = [published.load(name).set_index(["backbone", "method"]) for name in TABLES[:2]]
    shared = both[0].index.intersection(both[1].index)
    assert len(shared) == 2
    columns = both[1].columns
    pd.testing.assert_frame_equal(both[0].loc[shared, columns], both[1].loc[shared, columns])
    figure = published.load("vlpet_figure1_relative").set_index(["backbone", "method"])
    assert figure.trainable_percent.equals(both[0].loc[figure.index].trainable_percent)


def test_counted_percentages_are_the_published_ones():
    tables = [published.load(name).set_index(["backbone", "method"]).trainable_percent for name in TABLES[:2]]
    printed = pd.concat(tables)[lambda found: ~found.index.duplicated()]
    counts = published.load("parameter_counts")
    assert (100 * counts.trainable / counts.total).round(4).tolist() == pytest.approx(counts.percent.tolist())
    for row in counts[counts.suite == "image-text"].itertuples():
        assert row.published_percent == printed[row.backbone, row.method]
        assert abs(row.percent - row.published_percent) <= 0.0051


def test_every_table_names_its_methods_and_loads():
    assert set(TABLES) < set(published.tables())
    for name in published.tables():
        table = published.load(name)
        assert not table.duplicated([key for key in ("suite", "backbone", "method") if key in table]).any()
        assert all(published.name_of(method) != method for method in table.method)
    assert published.name_of("compacter+middle-x") == "Compacter + middleX"
    assert published.name_of("my-own+thing") == "my-own+thing"


def test_an_unknown_table_is_a_users_fault():
    with pytest.raises(UserError, match='unknown published table "vlpet_table9": did you mean "vlpet_table9_transfer"'):
        published.load("vlpet_table9")
