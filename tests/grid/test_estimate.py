# ruff: noqa: F811  fixtures of another folder are arguments here
from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pet_bench.errors import UserError
from pet_bench.grid.claim import claim
from pet_bench.grid.plan.costs import costs
from pet_bench.grid.plan.dry_run import Existing, dry_run, existing, plan_table, print_plan
from pet_bench.grid.plan.estimate import Estimate, estimate
from pet_bench.grid.plan.spec import parse
from pet_bench.results import store
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Cost, Parameters, Run, Score, TrialResult
from pet_bench.spec import Runtime
from pet_bench.trial import checkpoint, shared
from pet_bench.trial import measure as measuring
from pet_bench.trial.check import check_data
from tests.trial.conftest import cache, mini_trial, runtime, world  # noqa: F401

MEASURED = 0.5, 2.0, 7_000_000_000  # seconds of an update and of an evaluation batch, bytes


@pytest.fixture
def measured(monkeypatch):
    """Measurements cost nothing; the trials that were measured."""
    seen = []

    def measure(spec, runtime, steps=3, shared=None):
        seen.append(spec)
        update, batch, peak = MEASURED
        return measuring.Measured(dict.fromkeys(spec.tasks, update), dict.fromkeys(spec.tasks, batch), 1.0, peak)

    monkeypatch.setattr(measuring, "measure", measure)
    return seen


def result(spec, seconds=10.0, status="done", peak=5, steps=8, scores=True, **changes):
    return TrialResult(
        id=spec.id, status=status, spec=spec.to_dict(), provenance=provenance("2026-01-01T00:00:00+00:00"),
        run=Run(peak_memory_bytes=peak), parameters=Parameters(trainable=1, total=2, percent=50.0, groups={"new": 1}),
        metrics={task: {"accuracy": Score(value=50.0, split="test", n=4)} for task in spec.tasks} if scores else {},
        average=50.0 if scores else None,
        cost=Cost(
            train_seconds=seconds - 1, eval_seconds=1, peak_memory_bytes=1, examples_per_second=1, steps=steps,
            adapter_bytes=1,
        ),
        **changes,
    )  # fmt: skip


# estimates -----------------------------------------------------------------------------------------------------------


def test_earlier_results_of_any_seed_win_over_measuring(mini_trial, runtime, measured):
    spec = mini_trial("lora", seed=2)
    others = [mini_trial("lora", seed=0), replace(mini_trial("lora", seed=1), label="another name")]
    results = [
        result(others[0], 10.0, peak=5),
        result(others[1], 30.0, "suspect", peak=9),
        result(mini_trial("lora", seed=3), 99.0, "suspect", scores=False),  # diverged: it did not go to the end
        result(mini_trial("lora", seed=4), 99.0, "failed"),
        result(mini_trial("lora", recipe={"lr": 1.0}), 99.0),
        result(mini_trial("full"), 99.0),
    ]
    found = estimate([spec], results, runtime)[spec.id]
    assert found == Estimate(8, 20.0, 9, "from the data", "from 2 earlier results")
    assert measured == []


def test_one_measurement_serves_all_that_do_the_same_at_each_update(mini_trial, runtime, measured):
    specs = [
        mini_trial("lora", seed=seed, recipe={"lr": rate, "max_steps": steps})
        for seed, rate, steps in ((0, 1e-3, 8), (1, 1e-3, 8), (0, 1e-2, 4))
    ] + [mini_trial("full"), mini_trial("lora", recipe={"batch_size": 12})]
    found = estimate(specs, [], runtime)
    assert [spec.id for spec in measured] == [specs[i].id for i in (0, 3, 4)]
    update, batch, peak = MEASURED
    for spec in specs[:3]:
        one = found[spec.id]
        assert (one.steps, one.peak_bytes) == (spec.recipe.max_steps, peak)
        assert (one.steps_from, one.cost_from) == ("from the data", "measured here")
    assert found[specs[0].id].seconds - found[specs[2].id].seconds == pytest.approx(4 * update)
    batches = (found[specs[0].id].seconds - 1.0 - 8 * update) / batch
    assert batches == round(batches) > 0


def test_nothing_is_measured_for_what_is_finished_or_where_it_is_not_asked_for(mini_trial, runtime, measured):
    spec = mini_trial("lora")
    for options in ({"measure": False}, {"finished": {spec.id}}):
        found = estimate([spec], [], runtime, **options)[spec.id]
        assert found == Estimate(8, None, None, "from the data", found.cost_from)
        assert found.cost_from.startswith("not known: no earlier results")
    assert measured == []


def test_without_weights_updates_are_still_counted(mini_trial, runtime, measured, monkeypatch):
    asked = []

    def missing(backbone):
        asked.append(backbone.name)
        raise UserError("cannot be loaded")

    monkeypatch.setattr(shared, "read_stock", missing)
    specs = [mini_trial(method, "bart-base") for method in ("lora", "full")]
    found = estimate(specs, [], runtime)
    assert {one.cost_from for one in found.values()} == {"not known: no weights here"}
    assert {one.steps for one in found.values()} == {8}
    assert asked == ["bart-base"]
    assert measured == []


def test_without_data_it_is_said_why(mini_trial, runtime, measured):
    spec = mini_trial(suite="image-text")
    found = estimate([spec], [], replace(runtime, data=None))[spec.id]
    assert (found.steps, found.seconds) == (None, None)
    assert found.steps_from == 'not known: suite "image-text" has no embedded data: say with --data where its folder is'
    assert found.cost_from == "not known: no data"
    known = estimate([spec], [result(spec, steps=77)], replace(runtime, data=None))[spec.id]
    assert (known.steps, known.steps_from) == (77, "from 1 earlier result")


def test_running_out_of_memory_is_an_answer_too(mini_trial, runtime, monkeypatch):
    def measure(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(measuring, "measure", measure)
    spec = mini_trial()
    assert estimate([spec], [], runtime)[spec.id].cost_from == "not known: out of memory"


# costs ---------------------------------------------------------------------------------------------------------------


def test_costs_order_trials_without_any_results(mini_trial):
    mini, long, large = (
        mini_trial("lora", recipe={"max_steps": None, "epochs": 2}),
        mini_trial("lora", recipe={"max_steps": None, "epochs": 5}),
        mini_trial("lora", "bart-base", recipe={"max_steps": None, "epochs": 2}),
    )
    short = mini_trial("lora", recipe={"max_steps": 10, "epochs": 2})
    found = costs([large, long, mini, short], [])
    assert sorted(found, key=found.get) == [short.id, mini.id, long.id, large.id]


def test_costs_are_seconds_where_there_are_results(mini_trial):
    once, twice = (mini_trial("lora", recipe={"max_steps": None, "epochs": n}) for n in (2, 4))
    results = [result(once, 10.0), result(replace(once, seed=1), 20.0)]
    assert costs([once], results)[once.id] == 15.0
    assert costs([replace(once, seed=7)], results)[replace(once, seed=7).id] == 15.0
    assert costs([twice], results)[twice.id] == pytest.approx(30.0)


# what there is -------------------------------------------------------------------------------------------------------


def test_what_exists_of_a_trial(mini_trial, tmp_path):
    specs = [mini_trial(seed=seed) for seed in range(4)]
    results = {
        spec.id: result(spec, status=status)
        for spec, status in zip(specs, ("done", "failed", "stopped_early"), strict=False)
    }
    for spec in specs:
        path = tmp_path / spec.id / store.CHECKPOINT
        path.parent.mkdir()
        checkpoint.write(path, {"step": 3}, {"weights": torch.zeros(1)})
    found = existing(specs, results, tmp_path, also=("stopped_early",))
    assert list(found.values()) == [
        Existing("done", None, True), Existing("failed", 3, False), Existing("stopped_early", None, True),
        Existing("missing", 3, False),
    ]  # fmt: skip
    assert not existing(specs, results, tmp_path)[specs[2].id].finished
    with claim(tmp_path, specs[3].id):
        assert existing(specs, results, tmp_path)[specs[3].id] == Existing("running", 3, False)


# the table -----------------------------------------------------------------------------------------------------------


def shown(view, width=200):
    console = Console(file=StringIO(), width=width)
    console.print(view)
    return console.file.getvalue()


def test_the_plan(mini_trial):
    specs = [mini_trial(seed=seed) for seed in range(5)]
    there = dict(
        zip(
            (spec.id for spec in specs),
            [
                Existing("done", None, True), Existing("missing", None, False), Existing("missing", 250, False),
                Existing("failed", 500, False), Existing("oom", None, False),
            ],
            strict=True,
        )
    )  # fmt: skip
    hour = Estimate(1000, 3600.0, 2_500_000_000, "from the data", "measured here")
    unknown = Estimate(None, None, None, "not known: no such folder", "not known: no data")
    estimates = {spec.id: hour for spec in specs} | {specs[4].id: unknown}
    counts = {spec.id: {"trainable": 1234567, "percent": 4.321} for spec in specs}
    lines = shown(plan_table(specs, there, counts, estimates, at_a_time=2)).splitlines()
    texts = [" ".join(line.split()) for line in lines]
    assert texts[0] == "id trial trainable % so far updates time memory"
    assert texts[1] == f"{specs[0].id} {specs[0]} 1,234,567 4.32 done 1,000 60 min 2.5 GB"
    assert "missing 1,000" in texts[2]
    assert "checkpoint at 250 1,000" in texts[3]
    assert "failed, checkpoint at 500 1,000" in texts[4]
    assert texts[5].endswith("oom – – –")
    assert texts[7:] == [
        # an hour, three quarters and a half of one, by two
        "4 trials to run, about 68 min with 2 at a time (without 1 whose time is not known); 1 is finished",
        "time and memory of 3 trials: measured here",
        "time and memory of 1 trial: not known: no data",
        "updates of 1 trial: not known: no such folder",
    ]
    view = plan_table(specs, there, counts, estimates, at_a_time=2)
    wide, file = (Console(file=StringIO(), width=width) for width in (400, 60))
    wide.print(view)
    print_plan(view, file)  # a file is as wide as it needs to be
    assert file.file.getvalue() == wide.file.getvalue()
    alone = shown(plan_table(specs[1:2], there, counts, estimates, at_a_time=8))
    assert "1 trial to run, about 60 min with 1 at a time\n" in alone
    assert "0 trials to run; 1 is finished" in shown(plan_table(specs[:1], there, counts, estimates, 2))


GRID = {
    "name": "g", "suites": ["mini-image-text"], "backbones": ["mini-bart"], "methods": ["lora", "full"],
    "seeds": [0, 1], "recipe": {"max_steps": 4, "batch_size": 24},
}  # fmt: skip


def test_a_dry_run_prints_all_and_writes_nothing(runtime, measured, tmp_path):
    grid, console = parse(GRID), Console(file=StringIO(), width=40)
    trials = grid.trials()
    dry_run(grid, trials, runtime, console, measure=True, at_a_time=2)
    text = console.file.getvalue()
    assert all(trial.id in text and str(trial) in text for trial in trials)
    assert "4 trials to run, about " in text and "time and memory of 4 trials: measured here" in text
    assert "\x1b" not in text and console.width == 40
    assert len(measured) == 2
    assert not runtime.out.exists()

    store.save(result(trials[0]), runtime.out)
    before = sorted(runtime.out.rglob("*"))
    console.file = StringIO()
    dry_run(grid, trials, runtime, console, measure=False, at_a_time=2)
    text = console.file.getvalue()
    assert "3 trials to run, about 10 s" in text and "1 is finished" in text
    assert "from 1 earlier result" in text
    console.file = StringIO()
    dry_run(grid, trials, runtime, console, measure=False, at_a_time=2, earlier=False)
    assert "3 trials to run, time not known; 1 is finished" in console.file.getvalue()
    console.file = StringIO()
    dry_run(grid, trials, runtime, console, measure=False, at_a_time=2, again=True)
    assert "4 trials to run, about 10 s with 2 at a time (without 2" in console.file.getvalue()
    assert sorted(runtime.out.rglob("*")) == before


def test_a_dry_run_refuses_what_a_run_refuses(runtime, measured):
    grid = parse(GRID)
    trials = grid.trials()
    runtime.out.mkdir()
    (runtime.out / f"{trials[0].id}.json").write_text("{")
    with pytest.raises(UserError, match=trials[0].id):
        dry_run(grid, trials, runtime, Console(file=StringIO()), measure=True, at_a_time=1)


def test_a_dry_run_checks_the_data_as_a_run_does(runtime, measured, tmp_path):
    grid, console = parse(GRID), Console(file=StringIO(), width=200)
    trials, root = grid.trials(), tmp_path / "holes"
    shutil.copytree(runtime.data, root)
    min((root / "COCO").rglob("*.h5")).unlink()
    (root / "nlvr" / "train.json").write_text("{")
    broken = replace(runtime, data=root)
    said = []
    for check in (
        lambda: check_data(trials, broken),
        lambda: dry_run(grid, trials, broken, console, measure=False, at_a_time=1),
    ):
        with pytest.raises(UserError) as caught:
            check()
        said.append(caught.value.faults)
    assert said[0] == said[1]
    assert len(said[0]) > 1
    assert "4 trials to run" in console.file.getvalue()


def test_a_real_measurement_of_a_mini_trial(mini_trial, runtime):
    spec = mini_trial("lora", suite="mini-image-text/nlvr2")
    found = estimate([spec], [], Runtime(**vars(runtime)))[spec.id]
    assert found.cost_from == "measured here"
    assert found.seconds > 0 and found.peak_bytes > 0
    assert not Path(runtime.out).exists()
