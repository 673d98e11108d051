"""What `power` promises, by simulation of the tests that tables use; what it estimates; the command and the line."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from pet_bench.files import write_text
from pet_bench.grid.plan.spec import parse
from pet_bench.report.statistics import (
    Column,
    Design,
    Part,
    Spread,
    columns,
    examples_needed,
    seed_test,
    seeds_needed,
    significantly_best,
    spread,
    together,
)
from pet_bench.report.statistics.spread import between_pairs, seen
from pet_bench.report.statistics.tests import of_draws, resampled_means
from pet_bench.report.summary import primary_scores
from pet_bench.results import store

DRAWN = 2000  # of everything: 80 % is known within 2.7 points by three standard errors, 5 % within 1.5


@dataclass(frozen=True)
class World:
    """score = shared · seed + own · (method, seed) + example · (method, example) + rest · (method, seed, example)."""

    shared: float
    own: float
    example: float
    rest: float
    seeds: int
    examples: int
    comparisons: int = 1

    @property
    def spread(self):
        apart, part = self.own**2 + self.shared**2, Part(self.examples, 2 * self.example**2, 2 * self.rest**2)
        return Spread(2 * self.own**2, 2 * apart, (part,))

    @property
    def design(self):
        return Design(self.spread, self.seeds, 0.05 / self.comparisons)

    def scores(self, generator, times):
        """(times, 2 methods, seeds, examples), the methods truly alike."""
        normal = generator.standard_normal
        k, n = self.seeds, self.examples
        return (
            self.shared * normal((times, 1, k, 1))
            + self.own * normal((times, 2, k, 1))
            + self.example * normal((times, 2, 1, n))
            + self.rest * normal((times, 2, k, n), dtype=np.float32)
        )


WORLDS = {
    "seeds rule": World(3, 4, 10, 10, 3, 100),
    "examples rule": World(0, 0.5, 30, 20, 3, 200),
    "alike, three seeds": World(2, 2, 30, 20, 3, 200),
    "alike, five seeds": World(3, 2, 16, 20, 5, 150),
    "alike, twenty seeds": World(5.6, 5.6, 15, 20, 20, 150),
    "much is shared": World(12, 3, 20, 20, 10, 200),
    "two seeds": World(0, 1, 30, 10, 2, 200),
    "in a table of 20": World(4, 3, 20, 20, 10, 200, 20),
}


@pytest.fixture(scope="module", params=WORLDS.values(), ids=WORLDS)
def simulated(request):
    """A world, and the p-values of `DRAWN` comparisons in it: {difference: [those over seeds, examples, together]}."""
    world, generator = request.param, np.random.default_rng(5)
    parts = [world.scores(generator, 200) for _ in range(DRAWN // 200)]
    by_seed = np.concatenate([part.mean(axis=3) for part in parts])  # (DRAWN, 2, seeds)
    by_example = np.concatenate([(part[:, 0] - part[:, 1]).mean(axis=1) for part in parts])  # (DRAWN, examples)
    drawn = resampled_means(by_example, 2000, 1).T
    found = {}
    for truth in (0.0, world.design.detectable()):
        rows = []
        for (a, b), of in zip(by_seed, drawn, strict=True):
            seeds = seed_test(*(dict(enumerate(scores)) for scores in (a + truth, b)))
            examples = of_draws(seeds.difference, of + truth)
            rows.append((seeds.p, examples.p, together(seeds, examples)))
        found[truth] = np.array(rows)
    return world, found


def test_80_percent_power_is_80_percent_and_false_positives_are_no_more_than_5(simulated):
    world, found = simulated
    level = 0.05 / world.comparisons
    false, power = ((p[:, 2] <= level).mean() for p in found.values())
    assert 0.75 <= power <= 0.85
    assert false <= level + 3 * np.sqrt(level * (1 - level) / DRAWN)


def test_it_takes_the_test_over_both_at_once(simulated):
    """The larger p of the other two lets through what scatters by seeds and by examples alike."""
    world, found = simulated
    if world is WORLDS["alike, twenty seeds"]:
        assert (found[0.0][:, :2].max(axis=1) <= 0.05).mean() > 0.09


# by hand --------------------------------------------------------------------------------------------------------------


def test_without_examples_it_is_the_power_of_a_t_test():
    """scipy's noncentral t: paired with ten seeds; nothing is known of examples."""
    design, error = Design(Spread(10.0, 100.0), 10), np.sqrt(10 / 10)
    critical = stats.t.isf(0.025, 9)
    for difference in (0.0, 1.0, 3.0):
        exact = stats.nct.sf(critical, 9, difference / error) + stats.nct.cdf(-critical, 9, difference / error)
        assert design.power(difference) == pytest.approx(exact, abs=2e-3)
    assert design.power(design.detectable()) == pytest.approx(0.8)


def test_with_endless_seeds_only_examples_are_left():
    """Mean of n examples: (1.96 + 0.84) standard errors, by the book."""
    of = Spread(0.0, 0.0, (Part(400, 900.0, 0.0),))
    assert Design(of, 1000).detectable() == pytest.approx((1.959964 + 0.841621) * 30 / 20, abs=1e-4)
    assert examples_needed(of, 2 * 2.801585 * 1.5) == pytest.approx(0.25, abs=1e-6)
    assert seeds_needed(of, 4.0) is None
    assert seeds_needed(of.enlarged({0: 1600}), 4.0) is not None


def test_an_average_scatters_less_than_its_tasks():
    of = Spread(0.0, 0.0, (Part(100, 400.0, 100.0), Part(50, 100.0, 100.0)))
    assert (of.examples, of.residual) == (pytest.approx((4 + 2) / 4), pytest.approx((1 + 2) / 4))


@pytest.mark.parametrize("seeds, variance", [(7, 8.0), (8, 2.0)])
def test_pairs_are_made_of_eight_seeds(seeds, variance):
    """What the same seeds share is no part of a difference; only a paired test knows that."""
    design = Design(Spread(2.0, 8.0), seeds)
    freedom = seeds - 1 if variance == 2 else 2 * (seeds - 1)
    assert design.error == pytest.approx(np.sqrt(2 / seeds))
    assert np.median(design.thresholds) == pytest.approx(
        stats.t.isf(0.025, freedom) * np.sqrt(variance / seeds), rel=0.1
    )


def test_seeds_needed_is_the_least_number():
    of = Spread(18.0, 40.0, (Part(2000, 900.0, 300.0),))
    found = seeds_needed(of, 5.0)
    assert found and Design(of, found).power(5.0) >= 0.8 > Design(of, found - 1).power(5.0)
    in_table = seeds_needed(of, 5.0, 0.05 / 100)
    assert in_table and in_table > found


# estimated ------------------------------------------------------------------------------------------------------------


def test_the_mean_over_pairs():
    rows = np.random.default_rng(0).normal(size=(5, 7))
    pairs = [(rows[i] - rows[j]).var(ddof=1) for i in range(5) for j in range(i)]
    assert between_pairs(rows) == pytest.approx(np.mean(pairs))


def test_a_spread_is_found_again():
    world, generator = World(6, 3, 30, 20, 12, 500), np.random.default_rng(3)
    shared = 6 * generator.standard_normal((1, 12, 1))
    noise = shared + 3 * generator.standard_normal((30, 12, 1))
    noise = noise + 30 * generator.standard_normal((30, 1, 500)) + 20 * generator.standard_normal((30, 12, 500))
    methods = {(f"m{i}", ""): scores for i, scores in enumerate(noise)}
    seeds = {method: pd.Series(scores.mean(axis=1)) for method, scores in methods.items()}
    found = spread(Column("vqa", seeds, {"vqa": methods}))
    assert found.paired == pytest.approx(world.spread.paired, rel=0.15)
    assert found.apart == pytest.approx(2 * (shared.var(ddof=1) + 3**2), rel=0.15)
    (part,), (truth,) = found.parts, world.spread.parts
    assert (part.examples, part.residual) == (
        pytest.approx(truth.examples, rel=0.05), pytest.approx(truth.residual, rel=0.05),
    )  # fmt: skip
    twice = seeds | {("again", ""): seeds["m0", ""]}
    again = spread(Column("vqa", twice, {"vqa": methods | {("again", ""): methods["m0", ""]}}))
    assert (again.paired, again.apart) == pytest.approx((found.paired, found.apart))


def test_no_spread_of_one_seed_or_one_method():
    scores = pd.Series({0: 1.0, 1: 2.0})
    assert spread(Column("vqa", {("a", ""): scores}, {})) is None
    assert spread(Column("vqa", {("a", ""): scores[:1], ("b", ""): scores[:1]}, {})) is None


@pytest.mark.parametrize("seeds", [2, 8])
@pytest.mark.parametrize("over_seeds", [0.0, 1.0, "shared"])
@pytest.mark.parametrize("over_examples", [None, 0.0, 1.0])
def test_what_does_not_vary_makes_no_number_that_is_none(seeds, over_seeds, over_examples):
    """Methods whose seeds are all alike, shift alike, or answer every example alike."""
    drawn, shared = np.random.default_rng(0), np.random.default_rng(1).normal(size=seeds)
    methods, examples = {}, {}
    for place in range(2):
        seed = shared if over_seeds == "shared" else over_seeds * drawn.normal(size=seeds)
        scores = 50 + 10 * place + seed[:, None] + (over_examples or 0.0) * drawn.normal(size=(seeds, 6))
        methods[f"m{place}", ""] = pd.Series(scores.mean(axis=1), range(seeds))
        examples[f"m{place}", ""] = scores
    found = seen(Column("vqa", methods, {} if over_examples is None else {"vqa": examples}), 5)
    assert found is None or np.isfinite([found.alone, found.in_table]).all()
    alike = over_seeds == 0.0 or (over_seeds == "shared" and seeds == 8)  # eight are paired
    assert (found is None) == (alike and not over_examples)


# the rule -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one, other, kind",
    [
        (range(8), range(8), "paired t"),
        (range(8), range(7, -1, -1), "paired t"),
        (range(7), range(7), "Welch"),
        (range(8), range(1, 9), "Welch"),
        (range(9), range(8), "Welch"),
    ],
)
def test_eight_common_seeds_are_paired(one, other, kind):
    a, b = ({seed: float(seed**2 + place * seed + place) for seed in side} for place, side in enumerate((one, other)))
    found = seed_test(a, b)
    assert found.kind == kind
    if kind == "paired t":
        assert found.p == pytest.approx(stats.ttest_rel([a[i] for i in range(8)], [b[i] for i in range(8)]).pvalue)


# the command, and the line --------------------------------------------------------------------------------------------

GRID = {
    "name": "g", "suites": ["image-text/vqa+gqa"], "backbones": ["bart-base"], "methods": ["lora", "full", "bitfit"],
    "seeds": [0, 1, 2],
}  # fmt: skip


@pytest.fixture
def finished(make_result, tmp_path, monkeypatch):
    """results/g: three methods with three seeds, right on 30 to 80 of 100 questions; gives a function that makes it."""
    monkeypatch.chdir(tmp_path)

    def make(**changes):
        out, generator = tmp_path / "results" / "g", np.random.default_rng(2)
        write_text(out / "grid.yaml", yaml.safe_dump(GRID | changes))
        for trial in parse(GRID | changes, "g").trials():
            rights = {task: generator.uniform(size=100) < generator.uniform(0.3, 0.8) for task in ("vqa", "gqa")}
            values = {task: float(100 * right.mean()) for task, right in rights.items()}
            result = make_result(n=100, **values).model_copy(update={"id": trial.id, "spec": trial.to_dict()})
            for task, right in rights.items():
                lines = [{"id": f"{i}", "prediction": "yes", "score": 100.0 * one} for i, one in enumerate(right)]
                write_text(out / trial.id / f"predictions.{task}.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
            store.save(result, out)
        return out

    return make


def cells(out, name):
    return next(line for line in out.splitlines() if line.strip().startswith(name)).split()


def test_the_command_says_what_the_functions_say(call, finished, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = finished()
    code, text, err = call("power", out)
    assert (code, err) == (0, "")
    assert "image-text/vqa+gqa on bart-base: 3 seeds, 6 comparisons" in text.replace(
        "image-text on", "image-text/vqa+gqa on"
    )
    rows = primary_scores(store.to_frame(store.load_all(out).values()))
    found, lacking = columns(rows, out)
    assert not lacking
    for column in found:
        of = spread(column)
        expected = [column.name, str(200 if column.name == "average" else 100)]
        expected += [f"{np.sqrt(v):.1f}" for v in (of.paired + of.residual, of.apart + of.residual, of.examples)]
        for seeds in (3, 5, 10, 20):
            alone, table = (Design(of, seeds, level).detectable() for level in (0.05, 0.05 / 6))
            expected += [f"{alone:.1f}", "/", f"{table:.1f}"]
        assert cells(text, column.name) == expected


def test_more_seeds_and_more_examples(call, finished, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = finished()
    code, text, _ = call("power", out, "--seeds", 12, "--difference", 40, "--examples", 50, "--examples", "gqa=9000")
    assert code == 0
    assert "12 seeds" in text and "20 seeds" not in text
    (vqa, gqa, average) = (cells(text, name) for name in ("vqa", "gqa", "average"))
    assert (vqa[1], gqa[1], average[1]) == ("50", "9,000", "9,050")
    assert all(number.isdigit() for number in (gqa[-3], gqa[-1]))
    assert float(gqa[5]) < float(vqa[5])
    nothing = call("power", out, "--difference", 0.5)[1]
    assert "× examples" in nothing


@pytest.mark.parametrize(
    "changes, arguments, said",
    [
        (
            {"seeds": [0]},
            (),
            "on bart-base: n = 1: how far seeds lie apart takes two of each method at least",
        ),
        ({"methods": ["lora"]}, (), "on bart-base: one method alone is compared with nothing"),
        ({}, ("--examples", "vqaa=9"), 'unknown task "vqaa": did you mean "vqa"? (possible: gqa, vqa)'),
        ({}, ("--examples", "1"), '--examples takes a number of 2 to 10,000,000, or TASK=NUMBER, found "1"'),
        ({}, ("--examples", "vqa=many"), 'or TASK=NUMBER, found "vqa=many"'),
        ({}, ("--examples", "5", "--examples", "6"), "--examples for every task is given twice"),
        ({}, ("--seeds", "1"), "greater than or equal to 2"),
        ({}, ("--out", "nowhere"), 'no trial of grid "g" is finished in "nowhere"'),
    ],
)
def test_what_cannot_be_said_is_one_line(call, finished, changes, arguments, said):
    code, out, err = call("power", finished(**changes), *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err


def test_without_predictions_only_seeds_are_counted(call, finished, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = finished()
    for file in out.glob("*/predictions.gqa.jsonl"):
        file.unlink()
    text = call("power", out)[1]
    assert cells(text, "gqa")[1] == cells(text, "gqa")[4] == cells(text, "average")[1] == "–"
    assert cells(text, "vqa")[1] == "100"
    assert cells(call("power", out, "--examples", 500)[1], "gqa")[1:] == ["–"] * 8


def test_the_line_beneath_a_table(call, finished):
    out = finished()
    text = " ".join(call("report", out)[1].split())
    frame = store.to_frame(store.load_all(out).values())
    (line,) = significantly_best(frame, out).power
    average = columns(primary_scores(frame), out)[0][-1]
    least = Design(spread(average), 3, 0.05 / 6).detectable()
    assert line.startswith(
        f"differences below {least:.1f} points (average) cannot be seen here (80 % power at 5 % / 6, 3 "
    )
    assert "3 seeds, 200 examples; in a single comparison " in line
    assert line in text and line in (out / "report" / "table.md").read_text()


def test_no_line_where_nothing_is_known(finished):
    out = finished(seeds=[0])
    assert significantly_best(store.to_frame(store.load_all(out).values()), out).power == []
