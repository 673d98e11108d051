"""Equal tuning: what is tried of each method, by what one is chosen, and what the table's trials are then."""

from __future__ import annotations

import math
import sys

import pandas as pd
import pytest
import yaml

import pet_bench
from pet_bench.cli import main
from pet_bench.data.reading import build_tasks
from pet_bench.errors import UserError
from pet_bench.grid.execute.course import Outcome
from pet_bench.grid.execute.tune import tune
from pet_bench.grid.plan.spec import load, parse
from pet_bench.grid.plan.tuning import PROTOCOLS, choose, protocol, searching, stages
from pet_bench.pet.method import build_method, default_spec, why_skipped
from pet_bench.registry import METHODS
from pet_bench.report.tables.tuned import tuned, tuning_notes
from pet_bench.results import store
from pet_bench.results.schema import Score
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial.resolve import known
from tests.conftest import part
from tests.grid.conftest import stand_in  # noqa: F401

HELD_OUT = {"gqa": {"train": "train", "valid": "valid"}}
GRID = {
    "name": "g", "suites": ["mini-image-text"], "backbones": ["mini-bart", "mini-t5"], "methods": ["lora", "full"],
    "seeds": [0, 1], "controls": {"none": None, "text-only": {"seeds": [0]}}, "protocol": HELD_OUT, "tuning": "tuned",
}  # fmt: skip


def tries(grid):
    """The stages' trials, each stage after a choice of the first."""
    for search in stages(grid):
        yield (here := searching(grid, search)), here.plan(anew=True).planned


def scored(stand_in, best):  # noqa: F811
    """A runner whose trials are the better the nearer their rate is to `best`, and the larger their rank."""
    ran = []

    def run(grid, runtime, trials):
        for spec in trials:
            if not (runtime.out / f"{spec.id}.json").exists():
                ran.append(spec)
                value = 50 - 10 * abs(math.log10(spec.recipe.lr / best)) + spec.method.options.get("rank", 0) / 100
                result = stand_in.finished(spec, value)
                split = {task.name: task.test for task in build_tasks(spec.tasks, spec.protocol)}
                for task, scores in result.metrics.items():
                    scores["accuracy"] = Score(value=value, split=split[task], n=4)
                store.save(result, runtime.out)
        return Outcome(done=tuple(spec.id for spec in trials))

    run.ran = ran
    return run


@pytest.fixture
def place(tmp_path):
    return Runtime(out=tmp_path / "out", device="cpu")


# what is tried --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["mini-bart", "mini-t5", "mini-llama"])
@pytest.mark.parametrize("name", part(sorted(METHODS.names()), 12))
def test_every_method_has_the_shipped_protocols_tries_wherever_it_can_be_had(name, backbone):
    anatomy = known(backbone)[1]
    method = build_method(MethodSpec(name), anatomy)
    if why_skipped(method, anatomy):
        pytest.skip("it cannot be had there")
    grid = parse(GRID | {"backbones": [backbone], "methods": [name], "recipe": {"lr": 1e-3}})
    ids = {one.trial.id for _, planned in tries(grid) for one in planned}
    whole = {type(value) for value in (default_spec(method).options.get(METHODS.get(name).size),)} == {int}
    least = grid.tuning.tries - 1 if whole else grid.tuning.tries  # a rank of 1 has no half
    assert least <= len(ids) <= grid.tuning.tries


@pytest.mark.parametrize("name", METHODS.names())
def test_a_size_is_an_option_that_changes_the_number_of_parameters(name):
    size = METHODS.get(name).size
    if not size:
        pytest.skip("it has none")
    anatomy = known("mini-bart")[1]
    assert isinstance(default_spec(build_method(MethodSpec(name), anatomy)).options[size], int | float)


def test_no_try_reads_a_test_split_nor_has_a_seed_of_the_table():
    grid = parse(GRID)
    for _, planned in tries(grid):
        for one in planned:
            assert one.trial.seed == 1000
            assert one.trial.control == "none"
            for task, published in zip(
                build_tasks(one.trial.tasks, one.trial.protocol), build_tasks(one.trial.tasks, HELD_OUT), strict=True
            ):
                assert (task.test, task.train) == (published.valid, published.train)


def test_seeds_of_the_table_are_refused_for_tries():
    with pytest.raises(UserError, match="seed 1 is one of the table's"):
        [*tries(parse(GRID | {"tuning": {"rates": [1, 2], "seeds": [1]}}))]


def test_where_validation_is_the_test_nothing_is_tried():
    with pytest.raises(UserError, match="gqa"):
        [*tries(parse(GRID | {"protocol": {}}))]


# what is chosen -------------------------------------------------------------------------------------------------------


def test_the_best_by_validation_becomes_the_tables_trials(stand_in, place):  # noqa: F811
    run = scored(stand_in, best=4e-3)
    grid, stopped = tune(parse(GRID), place, run, parse(GRID).trials())
    assert stopped is None
    assert len(run.ran) == 2 * 2 * 7
    trials = grid.trials()
    assert len(trials) == 2 * 2 * (2 + 1)
    rates = {(t.backbone, t.label): t.recipe.lr for t in trials}
    # lora: 2e-3 and 3e-3 of its own, times 2 and 1; full: 2e-3 times 2, and nothing nearer is better
    assert rates == {("mini-bart", "lora"): 4e-3, ("mini-bart", "full"): 4e-3,
                     ("mini-t5", "lora"): 3e-3, ("mini-t5", "full"): 4e-3}  # fmt: skip
    assert {t.method.options["rank"] for t in trials if t.label == "lora"} == {22, 24}  # the larger one of its own
    assert {t.control for t in trials} == {"none", "text-only"}
    assert {t.seed for t in trials} == {0, 1}
    assert all("test" not in t.protocol.get("vqa", {}) for t in trials)


def test_going_on_tries_nothing_twice_and_chooses_the_same(stand_in, place):  # noqa: F811
    run, grid = scored(stand_in, best=4e-3), parse(GRID)
    lora = [trial for trial in grid.trials() if trial.method.name == "lora"]
    first, _ = tune(grid, place, run, lora)
    assert {spec.method.name for spec in run.ran} == {"lora"}
    whole, _ = tune(first, place, run, grid.trials())
    ids = [spec.id for spec in run.ran]
    assert len(ids) == len(set(ids)) == 28
    again, _ = tune(grid, place, run, grid.trials())
    assert len(run.ran) == 28
    assert {trial.id for trial in again.trials()} == {trial.id for trial in whole.trials()}


def test_an_interrupted_stage_chooses_nothing(place):
    grid = parse(GRID)
    same, outcome = tune(grid, place, lambda *_: Outcome(interrupted=True), grid.trials())
    assert outcome.interrupted
    assert same == grid


def test_a_method_of_which_no_try_finished_is_an_error(place):
    grid = parse(GRID)
    with pytest.raises(UserError, match="no try of mini-bart × lora × mini-image-text finished"):
        tune(grid, place, lambda *_: Outcome(), grid.trials())


def test_what_was_chosen_is_read_back_from_the_folder(stand_in, place, tmp_path):  # noqa: F811
    (tmp_path / "g.yaml").write_text(yaml.dump(GRID | {"out": str(place.out)}))
    assert not load(tmp_path / "g.yaml").tuning.chosen
    grid, _ = tune(load(tmp_path / "g.yaml"), place, scored(stand_in, best=4e-3), parse(GRID).trials())
    (place.out / "grid.yaml").write_text(grid.dump())
    ids = {trial.id for trial in grid.trials()}
    assert {trial.id for trial in load(tmp_path / "g.yaml").trials()} == ids
    assert {trial.id for trial in load(place.out).trials()} == ids
    other = GRID | {"out": str(place.out), "tuning": {"rates": [1, 2]}}
    (tmp_path / "g.yaml").write_text(yaml.dump(other))
    assert not load(tmp_path / "g.yaml").tuning.chosen  # by another protocol


def test_two_processes_keep_what_each_has_chosen(stand_in, place):  # noqa: F811
    grid = parse(GRID)
    parts = []
    for name in ("lora", "full"):
        own = [trial for trial in grid.trials() if trial.method.name == name]
        parts.append(tune(grid, place, scored(stand_in, best=4e-3), own)[0])
    one, other = parts
    whole = one.joined(other)
    assert {chosen.method for chosen in whole.tuning.chosen} == {"lora", "full"}
    assert {t.id for t in one.trials() if t.label == "lora"} <= {t.id for t in whole.trials()}
    for tuning, said in (({"rates": [1, 2]}, "another protocol"), (None, "untuned")):
        with pytest.raises(UserError, match=f"is tuned, and this run is .*{said}: choose another --out"):
            whole.joined(parse(GRID | {"tuning": tuning}))


# what is said of it ---------------------------------------------------------------------------------------------------


def test_the_appendix_has_what_was_tried_and_the_caption_what_lies_at_an_edge(stand_in, place):  # noqa: F811
    grid, _ = tune(parse(GRID), place, scored(stand_in, best=4e-3), parse(GRID).trials())
    table = tuned(grid.tuning).set_index(["backbone", "method"])
    row = table.loc["mini-bart", "lora"]
    assert row[["tries", "lr", "lr from", "lr to", "size", "sizes"]].tolist() == [
        7, 4e-3, 5e-4, 8e-3, "rank=22", "6, 11, 22"
    ]  # fmt: skip
    assert row.edge == "rank"
    assert table.loc["mini-bart", "full"].edge == ""
    notes = [*tuning_notes(grid.tuning, 2)]
    assert "tuned: 7 tries" in notes[0] and "×0.25 to ×4" in notes[0] and "seed 1000" in notes[0]
    assert notes[1] == (
        "caution: chosen at the edge of what was tried: lora on mini-bart (rank), lora on mini-t5 (rank)"
    )


def test_a_choice_at_either_end_is_an_edge_and_one_between_is_none():
    grid = parse(GRID | {"backbones": ["mini-bart"], "methods": ["full"], "tuning": {"rates": [0.5, 1, 2]}})
    (search,) = stages(grid)
    (group,) = {one.group for one in searching(grid, search).plan(anew=True).planned}
    for rate, edges in ((1e-3, ["recipe.lr"]), (2e-3, []), (4e-3, ["recipe.lr"])):
        tried = [{"recipe.lr": one, "validation": 1.0} for one in (1e-3, 2e-3, 4e-3)]
        chosen = {"backbone": "mini-bart", "method": "full", "suite": "mini-image-text", "tried": tried}
        one = parse(GRID | {"tuning": {"rates": [1], "chosen": [chosen | {"values": {"recipe.lr": rate}}]}})
        assert [*one.tuning.chosen[0].edges] == edges
    assert choose(grid, {}).tuning == grid.tuning
    assert group.method == "full"


@pytest.mark.parametrize(
    ("tuning", "parts"),
    [
        ("tuned-well", ["protocol", "tuned-well", "tuned"]),
        ({"rates": []}, ["tuning.rates"]),
        ({"rates": [0]}, ["tuning.rates.0", "greater than 0"]),
        ({"rates": [1], "tries": 3}, ["tries"]),
        ({"sizes": [1]}, ["rates", "missing"]),
    ],
)
def test_a_fault_of_a_protocol_is_one_line(tuning, parts):
    with pytest.raises(UserError) as caught:
        parse(GRID | {"tuning": tuning})
    assert len(caught.value.faults) == 1
    assert all(one in caught.value.faults[0] for one in parts)


@pytest.mark.parametrize("path", sorted(PROTOCOLS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_protocols_are_protocols(path):
    assert parse(GRID | {"tuning": protocol(path.stem)}).tuning.tries >= 3


def test_from_python_the_tries_come_first(stand_in, tmp_path, monkeypatch):  # noqa: F811
    def run_trial(spec, runtime, on_progress=lambda progress: None, shared=None):
        scored(stand_in, best=4e-3)(None, runtime, [spec])
        return store.load(runtime.out / f"{spec.id}.json")

    monkeypatch.setattr(sys.modules["pet_bench.trial.run"], "run_trial", run_trial)
    (tmp_path / "g.yaml").write_text(yaml.dump(GRID | {"backbones": ["mini-bart"], "out": str(tmp_path / "out")}))
    grid = pet_bench.Grid.from_yaml(tmp_path / "g.yaml")
    assert len(grid.run(executor="inline").done) == 2 * 3
    assert {t.recipe.lr for t in pet_bench.Grid.from_yaml(tmp_path / "g.yaml").trials} == {4e-3}
    assert len(store.load_all(tmp_path / "out" / "tuning")) == 2 * 7


def test_through_the_command_line(stand_in, tmp_path, capsys, monkeypatch):  # noqa: F811
    """Both stages and the table's trials; a second call runs nothing; the report names the protocol."""

    def run_trial(spec, runtime, on_progress=lambda progress: None, shared=None):
        scored(stand_in, best=2e-3)(None, runtime, [spec])
        return store.load(runtime.out / f"{spec.id}.json")

    monkeypatch.setattr(sys.modules["pet_bench.trial.run"], "run_trial", run_trial)
    monkeypatch.setattr("pet_bench.cli.grid._dry_run", lambda *_: None)
    file, out = tmp_path / "g.yaml", tmp_path / "out"
    file.write_text(yaml.dump(GRID | {"backbones": ["mini-bart"]} | {"tuning": None}))
    command = ["run", str(file), "--protocol", "tuned", "--executor", "inline", "--out", str(out)]

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments])
        assert stopped.value.code == 0
        return capsys.readouterr().out

    assert "tuned: up to 14 tries come first, 7 each, and are not counted here" in call(*command, "--dry-run")
    for ran in (True, False):
        assert ("tries, each tested on its validation splits" in call(*command)) is ran
    assert "come first" not in call(*command, "--dry-run")
    assert len(store.load_all(out)) == 2 * 3
    assert len(store.load_all(out / "tuning")) == 2 * 7
    assert "tuned: 7 tries a method" in call("report", str(out))
    assert {*pd.read_csv(out / "report" / "tuning.csv").method} == {"lora", "full"}
