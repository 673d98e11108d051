"""Searches: what is tried, what is stopped early, what is best."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.files import write_text
from pet_bench.grid.execute.asha import asha
from pet_bench.grid.execute.early import check_executor, stopped
from pet_bench.grid.plan.search import best_grid, ranking, validation, validations
from pet_bench.grid.plan.spec import load, parse
from pet_bench.registry import TASKS
from pet_bench.results import store
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Cost, Parameters, Point, Run, Score, Selected, TrialResult
from tests.grid.conftest import plain  # noqa: F401

LR = {"recipe.lr": [1e-3, 1e-2]}
RANGES = {"recipe.lr": {"log_uniform": [1e-5, 1e-2]}, "lora.rank": {"log_int": [1, 64]}}
HELD_OUT = {"gqa": {"train": "train", "valid": "valid"}}


@pytest.fixture
def searching(plain):  # noqa: F811
    """A grid of lora and full that searches `space`; other keys are the search's, or the grid's with `grid`."""

    def make(space=LR, grid=None, **search):
        return parse(plain | {"protocol": HELD_OUT, "search": {"space": space, **search}} | (grid or {}))

    return make


def point(epoch, task, metrics, split="valid"):
    return Point(step=int(epoch * 10), epoch=epoch, split=split, task=task, metrics=metrics)


def curve(spec, scores):
    """A validation per epoch, at which every task has the same score."""
    return [point(epoch, task, {"accuracy": s}) for epoch, s in enumerate(scores, 1) for task in spec.tasks]


def result_of(spec, *scores, status="done", test=50.0, **change):
    """A result with these validations, and test scores where it finished."""
    scored = {task: {"accuracy": Score(value=test, split="test", n=4)} for task in spec.tasks}
    finished = status in ("done", "suspect")
    return TrialResult(
        id=spec.id, status=status, spec=spec.to_dict(), provenance=provenance("2026-01-01T00:00:00+00:00"), run=Run(),
        curve=curve(spec, scores), metrics=scored if finished else {}, average=test if finished else None,
        parameters=Parameters(trainable=1, total=2, percent=50.0, groups={"visual": 1}),
        cost=Cost(
            train_seconds=1.0, eval_seconds=1.0, peak_memory_bytes=1, examples_per_second=1.0, steps=10 * len(scores),
            adapter_bytes=1,
        ),
        **change,
    )  # fmt: skip


def by_id(results):
    return {result.id: result for result in results}


# what is tried --------------------------------------------------------------------------------------------------------


def test_every_combination_of_what_fits_a_method(searching):
    trials = searching({"recipe.lr": [1e-3, 1e-2], "lora.rank": [4, 8], "lora.dropout": [0.0]}).trials()
    assert [(t.method.name, t.recipe.lr, t.method.options.get("rank")) for t in trials] == [
        ("lora", 1e-3, 4), ("lora", 1e-3, 8), ("lora", 1e-2, 4), ("lora", 1e-2, 8), ("full", 1e-3, None),
        ("full", 1e-2, None),
    ]  # fmt: skip
    assert len({trial.id for trial in trials}) == 6


def test_a_methods_own_range_comes_before_that_of_all(searching):
    trials = searching({"recipe.lr": [1e-3], "full.recipe.lr": [1e-5, 1e-4]}).trials()
    assert [(t.method.name, t.recipe.lr) for t in trials] == [("lora", 1e-3), ("full", 1e-5), ("full", 1e-4)]


def test_labels_tell_what_is_searched_and_do_not_change_the_trial(searching, plain):  # noqa: F811
    trials = searching({"recipe.lr": [1e-3], "recipe.warmup": [0.2], "lora.rank": [8]}).trials()
    assert [trial.label for trial in trials] == ["lora(rank=8, lr=0.001, warmup=0.2)", "full(lr=0.001, warmup=0.2)"]
    same = plain | {
        "methods": [{"name": "lora", "rank": 8}], "recipe": {"lr": 1e-3, "warmup": 0.2}, "protocol": HELD_OUT
    }  # fmt: skip
    assert parse(same).trials()[0].id == trials[0].id


def test_the_searchs_seeds_stand_for_the_grids_under_every_control(searching):
    grid = {"seeds": [0, 1, 2], "controls": {"none": {}, "text-only": {"seeds": [5]}}}
    trials = searching(grid=grid, seeds=[7, 8]).trials()
    assert {(trial.control, trial.seed) for trial in trials} == {
        ("none", 7), ("none", 8), ("text-only", 7), ("text-only", 8)
    }  # fmt: skip


def test_draws_keep_to_their_ranges_and_to_four_digits(searching):
    space = {
        "recipe.lr": {"log_uniform": [1e-5, 1e-2]}, "recipe.warmup": {"uniform": [0.1, 0.3]},
        "lora.rank": {"int": [3, 6]}, "lora.alpha": [1.0, 2.0], "recipe.epochs": {"log_int": [1, 50]},
    }  # fmt: skip
    trials = searching(space, grid={"methods": ["lora"]}, samples=300).trials()
    assert len({trial.id for trial in trials}) == 300
    recipes, options = [trial.recipe for trial in trials], [trial.method.options for trial in trials]
    assert {o["rank"] for o in options} == {3, 4, 5, 6}
    assert {o["alpha"] for o in options} == {1.0, 2.0}
    assert all(0.1 <= r.warmup <= 0.3 and 1e-5 <= r.lr <= 1e-2 and 1 <= r.epochs <= 50 for r in recipes)
    assert all(float(f"{r.lr:.4g}") == r.lr and float(f"{r.warmup:.4g}") == r.warmup for r in recipes)
    # each third of a logarithmic range gets a third of the draws: 100 ± 8 at one standard deviation
    assert all(abs(count - 100) < 33 for count in np.histogram([np.log10(r.lr) for r in recipes], 3, (-5, -2))[0])
    assert 100 < sum(r.epochs <= 7 for r in recipes) < 210  # log 8 / log 51 = 0.53 of them


def test_draws_depend_on_nothing_but_their_own_names(searching):
    def rates(**change):
        trials = searching(**({"space": RANGES, "samples": 4} | change)).trials()
        return [(t.recipe.lr, t.method.options["rank"]) for t in trials if t.method.name == "lora"]

    first = rates()
    assert len(set(first)) == 4
    assert rates() == first
    assert rates(grid={"methods": ["vl-adapter", "lora"]}) == first
    assert rates(samples=6)[:4] == first
    more = rates(space={"recipe.warmup": {"uniform": [0, 1]}, **RANGES})
    assert more == first
    assert not set(rates(sample_seed=1)) & set(first)
    both = searching(RANGES, samples=4, grid={"backbones": ["bart-base", "t5-base"], "controls": ["none", "noise"]})
    assert len({t.recipe.lr for t in both.trials()}) == 2 * 2 * 2 * 4


def test_draws_are_the_same_on_every_machine(searching):
    trials = searching(RANGES, samples=2, grid={"methods": ["lora"]}).trials()
    assert [trial.label for trial in trials] == ["lora(rank=29, lr=1.67e-05)", "lora(rank=7, lr=6.598e-05)"]


def test_a_space_with_fewer_values_than_samples_is_taken_whole(searching):
    trials = searching({"lora.rank": [2, 4, 8]}, samples=10).trials()
    assert sorted(trial.method.options.get("rank", 0) for trial in trials) == [0, 2, 4, 8]


FAULTS = [
    ({"space": {}}, ["search.space"]),
    ({"space": {"lr": [1e-3]}}, ['"lr"', "recipe.KEY"]),
    ({"space": {"recipe.lr": 1e-3}}, ["recipe.lr", "a list of values or a range", "0.001"]),
    ({"space": {"recipe.lr": []}}, ["recipe.lr", "a list of values or a range"]),
    ({"space": {"recipe.lr": {"loguniform": [1, 2]}}}, ['unknown range "loguniform": did you mean "log_uniform"?']),
    ({"space": {"recipe.lr": {"uniform": [2, 1]}}}, ["uniform takes two numbers", "[2, 1]"]),
    ({"space": {"recipe.lr": {"uniform": [1, "x"]}}}, ["uniform takes two numbers", "'x'"]),
    ({"space": {"recipe.lr": {"log_uniform": [0, 1]}}}, ["two numbers above 0", "[0, 1]"]),
    ({"space": {"lora.rank": {"int": [1, 2.5]}}}, ["two whole numbers", "2.5"]),
    ({"space": {"recipe.lr": {"uniform": [1, 2]}}}, ["recipe.lr is a range", "samples"]),
    ({"space": LR, "sampels": 3}, ['unknown key "search.sampels"']),
    ({"space": LR, "samples": 0}, ["search.samples", "0"]),
    ({"space": LR, "early_stopping": {"grace_epochs": 0}}, ["grace_epochs", "0"]),
    ({"space": LR, "early_stopping": {}, "seeds": [0, 1]}, ["early_stopping compares trials of one seed", "[0, 1]"]),
    ({"space": {"recipe.epohcs": [1], **LR}}, ['unknown recipe key "epohcs": did you mean "epochs"?']),
    ({"space": {"recipe.lr": [1e-3, -1.0]}}, ["lr", "greater than 0", "-1.0"]),
    ({"space": {"recipe.lr": {"uniform": [-1, 1]}}, "samples": 3}, ["lr", "greater than 0", "-1"]),
    ({"space": {"recipe.lr": [1e-3, 0.001]}}, ["listed twice"]),
    ({"space": {"lroa.rank": [1]}}, ["not in this grid", 'unknown method "lroa": did you mean "lora"?']),
    ({"space": {"lora.rnak": [1]}}, ['"rnak"', 'did you mean "rank"?']),
    ({"space": {"lora.rank": [4, "many"]}}, ["rank", "'many'"]),
    ({"space": LR, "early_stopping": {"grace_epochs": 20}}, ["could stop nothing", "epoch 20"]),
]


@pytest.mark.parametrize("search, parts", FAULTS)
def test_a_fault_is_one_line_that_says_what_was_found(plain, search, parts):  # noqa: F811
    with pytest.raises(UserError) as caught:
        parse(plain | {"methods": ["lora"], "protocol": HELD_OUT, "search": search}).trials()
    assert len(caught.value.faults) == 1, caught.value.faults
    assert all(part in caught.value.faults[0] for part in parts), caught.value.faults


GRID_FAULTS = [
    ({"recipe": {"valid_every": 0}}, "valid_every is 0"),
    ({"recipe": {"max_steps": 5}}, "max_steps is 5"),
    ({"recipe": {"valid_every": 30}}, "could stop nothing"),
    ({"recipe": {"lr": 0.1}}, "recipe.lr is both set and searched"),
    ({"methods": [{"name": "lora", "rank": 4}]}, "rank is both set and searched for method lora(rank=4)"),
    ({"overrides": [{"when": {}, "options": {"rank": 4}}]}, "rank is both set and searched"),
    ({"protocol": {}}, 'gqa has "testdev" in its valid and in its test split: hold something out'),
    ({"suites": ["image-text/gqa"], "protocol": {"gqa": {"valid": None}}}, "no task has a validation split"),
]


@pytest.mark.parametrize("change, part", GRID_FAULTS)
def test_a_grid_whose_search_could_not_choose_is_refused(searching, change, part):
    space = {**LR, "lora.rank": [4, 8]}
    with pytest.raises(UserError) as caught:
        searching(space, grid={"methods": ["lora"], **change}, early_stopping={}).trials()
    assert len(caught.value.faults) == 1, caught.value.faults
    assert part in caught.value.faults[0]


def test_all_faults_are_reported_together(searching):
    space = {"recipe.rl": [1], "lora.rnak": [1], "lroa.rank": [1]}
    with pytest.raises(UserError) as caught:
        searching(space, grid={"recipe": {"valid_every": 0}, "suites": ["image-txt", "image-text"]}).trials()
    for word in ("rl", "rnak", "lroa", "image-txt"):
        assert sum(f'"{word}"' in fault for fault in caught.value.faults) == 1, caught.value.faults


def test_dump_reads_back_to_the_same_trials(searching, tmp_path):
    grid = searching(RANGES, samples=3, early_stopping={"grace_epochs": 1, "reduction": 2})
    (tmp_path / "grid.yaml").write_text(grid.dump())
    assert [trial.id for trial in load(tmp_path).trials()] == [trial.id for trial in grid.trials()]


# what is best ---------------------------------------------------------------------------------------------------------


def test_a_validation_is_the_mean_over_tasks_of_the_first_metric(monkeypatch):
    points = [
        point(1.0, "vqa", {"accuracy": 10.0, "other": 99.0}), point(1.0, "gqa", {"accuracy": 30.0}),
        point(2.0, "vqa", {}, split="train"),
        point(2.0, "vqa", {"accuracy": 50.0}), point(2.0, "gqa", {"accuracy": 20.0}),
    ]  # fmt: skip
    assert [(one.epoch, one.score) for one in validations(points)] == [(1.0, 20.0), (2.0, 35.0)]
    monkeypatch.setattr(TASKS.get("gqa"), "higher_is_better", False)
    assert [one.score for one in validations(points)] == [-10.0, 15.0]


def test_the_validation_of_a_result_is_that_of_what_was_tested(searching):
    spec = searching().trials()[0]
    assert validation(result_of(spec, 10.0, 30.0, 20.0)).score == 20.0
    best = result_of(spec, 10.0, 30.0, 20.0, selected=Selected(step=20, epoch=2.0, score=30.0))
    assert (validation(best).epoch, validation(best).score) == (2.0, 30.0)
    assert validation(result_of(spec)) is None


def test_each_method_has_its_own_best(searching):
    grid = searching({"recipe.lr": [1e-4, 1e-3, 1e-2]})
    scores = {("lora", 1e-4): 1.0, ("lora", 1e-3): 3.0, ("lora", 1e-2): 2.0}
    scores |= {("full", 1e-4): 9.0, ("full", 1e-3): 7.0, ("full", 1e-2): 8.0}
    found = ranking(grid, by_id(result_of(t, scores[t.method.name, t.recipe.lr]) for t in grid.trials()))
    assert {group.method: [one.values["recipe.lr"] for one in tried] for group, tried in found.items()} == {
        "lora": [1e-3, 1e-2, 1e-4],
        "full": [1e-4, 1e-2, 1e-3],
    }


def test_test_scores_change_nothing(searching, tmp_path):
    grid = searching({"recipe.lr": [1e-4, 1e-3, 1e-2]})
    values, tests = random.Random(0), random.Random(1)
    results = [result_of(t, values.random(), status=values.choice(["done", "suspect"])) for t in grid.trials()]

    def choice(results):
        found = ranking(grid, by_id(results))
        return [(one.label, one.validation) for tried in found.values() for one in tried], best_grid(
            grid, tmp_path, found
        )

    before = choice(results)
    for result in results:
        result.average = tests.uniform(-100, 100)
        result.metrics = {
            task: {name: Score(value=tests.uniform(-100, 100), split="test", n=4) for name in scores}
            for task, scores in result.metrics.items()
        }
    assert choice(results) == before


def test_a_tie_goes_to_the_first_of_the_space(searching):
    grid = searching({"recipe.lr": [1e-2, 1e-4, 1e-3], "lora.rank": [8, 4]}, grid={"methods": ["lora"]})
    (tried,) = ranking(grid, by_id(result_of(trial, 5.0) for trial in reversed(grid.trials()))).values()
    assert tried[0].values == {"recipe.lr": 1e-2, "rank": 8}


def test_several_seeds_are_averaged_and_all_must_have_finished(searching):
    grid = searching({"recipe.lr": [1e-4, 1e-3, 1e-2]}, grid={"methods": ["lora"]}, seeds=[0, 1])
    trials = {(trial.recipe.lr, trial.seed): trial for trial in grid.trials()}
    results = [
        result_of(trials[1e-4, 0], 10.0), result_of(trials[1e-4, 1], 20.0),
        result_of(trials[1e-3, 0], 14.0), result_of(trials[1e-3, 1], 18.0),
        result_of(trials[1e-2, 0], 99.0),
    ]  # fmt: skip
    (tried,) = ranking(grid, by_id(results)).values()
    assert [(one.values["recipe.lr"], one.validation.score, one.n, one.status) for one in tried] == [
        (1e-3, 16.0, 2, "2 done"),
        (1e-4, 15.0, 2, "2 done"),
        (1e-2, 99.0, 1, "1 done, 1 missing"),
    ]
    assert [one.finished for one in tried] == [True, True, False]


def test_what_did_not_finish_cannot_win(searching):
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    grid = searching({"recipe.lr": rates}, grid={"methods": ["lora"]})
    done, early, diverged, failed, _ = grid.trials()
    lost = {"metrics": {}, "average": None}
    results = [
        result_of(done, 1.0),
        stopped(early, curve(early, [80.0, 90.0]), "2026-01-01T00:00:00+00:00"),
        result_of(diverged, 99.0, status="suspect", error="the loss is nan").model_copy(update=lost),
        result_of(failed, status="failed", error="no"),
    ]
    (tried,) = ranking(grid, by_id(results)).values()
    assert [(one.values["recipe.lr"], one.status, one.finished) for one in tried] == [
        (1e-5, "done", True),
        (1e-4, "stopped_early", False),
        (1e-3, "suspect", False),
        (1e-2, "failed", False),
        (1e-1, "missing", False),
    ]


def test_the_best_grid_is_the_winners_with_the_grids_seeds(searching, tmp_path):
    grid = searching(
        {"recipe.lr": {"log_uniform": [1e-5, 1e-2]}, "lora.rank": [2, 4, 8]}, samples=3, seeds=[3],
        grid={
            "methods": ["lora", {"name": "lora", "alpha": 2.0}, "full"], "seeds": [4, 5], "recipe": {"epochs": 3},
            "backbones": ["bart-base", "t5-base"], "controls": {"none": {}, "text-only": {"seeds": [4]}},
            "overrides": [{"when": {"method": "lora"}, "recipe": {"epochs": 4}}],
        },
    )  # fmt: skip
    scores = random.Random(0)
    ranked = ranking(grid, by_id(result_of(trial, scores.random()) for trial in grid.trials()))
    assert len(ranked) == 3 * 2 * 2
    winners = {candidates[0].trials[0].id for candidates in ranked.values()}
    best = best_grid(grid, tmp_path / "g", ranked)
    (tmp_path / "best.yaml").write_text(best.dump())
    best = load(tmp_path / "best.yaml")
    assert (best.search, best.seeds, best.name) == (None, [4, 5], "g-best")
    assert best.folder == tmp_path / "g-best"
    assert len(best.trials()) == 3 * 2 * (2 + 1)
    at_search_seed = best.to_dict() | {"seeds": [3], "controls": ["none", "text-only"]}
    assert {trial.id for trial in parse(at_search_seed).trials()} == winners


def test_no_best_grid_while_a_method_has_no_winner(searching, tmp_path):
    grid = searching()
    results = by_id(result_of(trial, 1.0) for trial in grid.trials() if trial.method.name == "lora")
    with pytest.raises(UserError, match="no trial of bart-base × full × image-text is finished") as caught:
        best_grid(grid, tmp_path, ranking(grid, results))
    assert len(caught.value.faults) == 1


def test_a_grid_without_a_search_has_nothing_to_choose_from(plain):  # noqa: F811
    with pytest.raises(UserError, match='grid "g" has no search'):
        ranking(parse(plain), {})


@pytest.fixture
def best(capsys, searching, tmp_path):
    """`pet-bench best` on a grid and results; gives exit code, stdout, stderr."""

    def call(grid, results):
        out = tmp_path / "out"
        write_text(out / "grid.yaml", grid.dump())
        for result in results:
            store.save(result, out)
        code = 0
        try:
            main(["best", str(out)])
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr(), out

    return call


def test_the_command_ranks_and_writes(best, searching):
    grid = searching({"recipe.lr": [1e-4, 1e-3, 1e-2], "lora.rank": [4]}, grid={"methods": ["lora"]})
    first, second, third = grid.trials()
    results = [
        result_of(first, 10.0, 41.25), result_of(second, 10.0, 43.5),
        stopped(third, curve(third, [70.125]), "2026-01-01T00:00:00+00:00"),
    ]  # fmt: skip
    code, out, err, folder = best(grid, results)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if "lora" in line]
    assert rows[0] == ["best", "lora", "0.001", "4", "43.50", "2", "1", "done"]
    assert rows[1] == ["lora", "0.0001", "4", "41.25", "2", "1", "done"]
    assert rows[2][:7] == ["lora", "0.01", "4", "70.12", "1", "1", "stopped_early"]
    assert "what is best may change" not in out
    assert [(t.recipe.lr, t.method.options["rank"]) for t in load(folder / "best.yaml").trials()] == [(1e-3, 4)]
    assert store.load_all(folder).keys() == {trial.id for trial in grid.trials()}  # best.yaml is no result


def test_the_command_names_what_is_missing(best, searching):
    grid = searching(grid={"methods": ["lora"]})
    first, second = grid.trials()
    code, out, _, _ = best(grid, [result_of(first, 10.0), result_of(second, status="failed", error="out of luck")])
    assert code == 0
    assert "not every trial is finished (1 × failed): what is best may change" in out
    assert "out of luck" in out


def test_the_command_shows_the_ranking_even_where_nothing_won(best, searching):
    grid = searching(grid={"methods": ["lora"]})
    code, out, err, folder = best(grid, [])
    assert code == 2
    assert out.count("missing") == 3
    assert "no trial of bart-base × lora × image-text is finished" in err
    assert not (folder / "best.yaml").exists()


# what is stopped early ------------------------------------------------------------------------------------------------


def as_tune(spec):
    """A trial as Ray Tune hands it to a scheduler."""
    return SimpleNamespace(trial_id=f"tune_{random.random()}", config={"job": {"spec": spec.to_dict()}})


def report(scheduler, spec, epoch, score):
    """Whether the trial is stopped."""
    extra = {"progress/step": 3, "training_iteration": 7}
    decision = scheduler.on_trial_result(None, as_tune(spec), {"epoch": float(epoch), "score": score, **extra})
    assert decision in ("STOP", "CONTINUE")
    return decision == "STOP"


def halving(scores, epochs, grace, reduction):
    """What asynchronous successive halving (Li et al., MLSys 2020) ends, of reports (trial, epoch, score).

    At its first validation in [g·η^k, g·η^(k+1)) a trial ends if its score is below the best 1/η of those seen there.
    """
    rungs = [grace * reduction**k for k in range(10) if grace * reduction**k <= epochs]
    recorded, seen, ended = {rung: [] for rung in rungs}, set(), []
    for trial, epoch, score in scores:
        rung = max((rung for rung in rungs if rung <= epoch), default=None)
        if trial in ended or rung is None or (trial, rung) in seen:
            continue
        seen.add((trial, rung))
        if recorded[rung] and score < np.percentile(recorded[rung], 100 * (1 - 1 / reduction)) and epoch < epochs:
            ended.append(trial)
        recorded[rung].append(score)
    return ended


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("grace, reduction", [(1, 2), (2, 3), (3, 2)])
def test_stops_what_successive_halving_stops(searching, seed, grace, reduction):
    draw, epochs = random.Random(seed), 12
    grid = searching(
        {"recipe.lr": {"log_uniform": [1e-5, 1e-2]}}, samples=8,
        grid={"methods": ["lora"], "recipe": {"epochs": epochs}},
        early_stopping={"grace_epochs": grace, "reduction": reduction},
    )  # fmt: skip
    trials = {trial.id: trial for trial in grid.trials()}
    at, reports = dict.fromkeys(trials, 0), []
    while any(epoch < epochs for epoch in at.values()):  # side by side, some faster than others
        id = draw.choice([id for id, epoch in at.items() if epoch < epochs])
        at[id] += 1
        reports.append((id, at[id], draw.uniform(0, 50)))
    scheduler, ended = asha(grid), []
    for id, epoch, score in reports:
        if id not in ended and report(scheduler, trials[id], epoch, score):
            ended.append(id)
    assert ended == halving(reports, epochs, grace, reduction)
    assert 0 < len(ended) < len(trials)
    assert {id for id in trials if scheduler.stopped(id)} == set(ended)


def test_groups_are_never_compared_with_each_other(searching):
    grid = searching(
        grid={"controls": ["none", "text-only"], "backbones": ["bart-base", "t5-base"]},
        early_stopping={"grace_epochs": 1},
    )
    scheduler = asha(grid)
    groups = {}
    for planned in grid.plan().planned:
        groups.setdefault(planned.group, []).append(planned.trial)
    assert len(groups) == 8
    for level, trials in enumerate(groups.values()):
        assert not report(scheduler, trials[0], 1, 90.0 - 10 * level)
    for level, trials in enumerate(groups.values()):
        assert report(scheduler, trials[1], 1, 90.0 - 10 * level - 1)


def test_reports_without_a_validation_and_last_ones_stop_nothing(searching):
    grid = searching(grid={"methods": ["lora"], "recipe": {"epochs": 3}}, early_stopping={"grace_epochs": 1})
    first, second = grid.trials()
    scheduler = asha(grid)
    assert not report(scheduler, first, 1, 90.0)
    assert scheduler.on_trial_result(None, as_tune(second), {"progress/step": 1}) == "CONTINUE"
    assert scheduler.on_trial_result(None, as_tune(second), {"score": None, "epoch": None}) == "CONTINUE"
    assert not report(scheduler, second, 3, 1.0)  # trained to its end: to be tested like the others
    assert scheduler.metric is None or scheduler.metric == "_metric"  # Tune demands no metric of every report


def test_a_decision_stands_when_a_trial_is_taken_up_again(searching):
    grid = searching({"recipe.lr": [1e-4, 1e-3, 1e-2]}, grid={"methods": ["lora"]}, early_stopping={"grace_epochs": 1})
    first, second, third = grid.trials()
    scheduler = asha(grid)
    assert not report(scheduler, first, 1, 10.0)
    assert not report(scheduler, second, 1, 90.0)
    assert not report(scheduler, first, 1, 10.0)  # a second attempt, as another trial of Tune's
    assert report(scheduler, third, 1, 20.0)


def test_results_of_earlier_runs_count(searching):
    grid = searching({"recipe.lr": [1e-4, 1e-3, 1e-2]}, grid={"methods": ["lora"]}, early_stopping={"grace_epochs": 1})
    first, second, third = grid.trials()
    earlier = [result_of(first, 50.0, 60.0), stopped(second, curve(second, [40.0]), "2026-01-01T00:00:00+00:00")]
    assert report(asha(grid, earlier), third, 1, 45.0)
    assert not report(asha(grid), third, 1, 45.0)
    assert not any(asha(grid, earlier).stopped(trial.id) for trial in grid.trials())


def test_early_stopping_is_off_by_default_and_not_for_one_trial_after_the_other(searching, plain):  # noqa: F811
    for grid in (parse(plain), searching()):
        assert asha(grid) is None
        check_executor(grid, "inline")
    early = searching(early_stopping={})
    check_executor(early, "ray")
    with pytest.raises(UserError, match="--executor inline"):
        check_executor(early, "inline")


def test_a_stopped_trial_is_recorded_with_its_curve_and_no_scores(searching, tmp_path):
    spec = searching().trials()[0]
    result = stopped(spec, curve(spec, [40.0, 41.2]), "2026-01-01T00:00:00+00:00")
    assert store.load(store.save(result, tmp_path)) == result
    assert (result.status, result.error) == ("stopped_early", "stopped by ASHA after epoch 2 (validation 41.20)")
    assert result.metrics == {}
    assert result.average is None
    assert stopped(spec, [], "2026-01-01T00:00:00+00:00").error == "stopped by ASHA"
