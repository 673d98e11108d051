from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from pet_bench.errors import UserError
from pet_bench.grid.claim import claim
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.plan.spec import ADHOC, load, parse
from pet_bench.grid.plan.status import status
from pet_bench.results import store
from pet_bench.spec import Runtime
from tests.grid.conftest import PLUGIN


def attempts(out):
    path = out / "attempts.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def failing(plain, rate, method="full", **more):
    return parse(plain | {"overrides": [{"when": {"method": method}, "recipe": {"lr": rate}}], **more})


def test_runs_what_is_missing_and_only_that(plain, stand_in, quiet, tmp_path):
    grid, runtime = parse(plain), Runtime(out=tmp_path)
    first, second = grid.trials()
    store.save(stand_in.finished(first), tmp_path)
    outcome = run_grid(grid, runtime, "inline", console=quiet)
    assert (outcome.done, outcome.failed, outcome.skipped) == ((second.id,), (), (first.id,))
    assert run_grid(grid, runtime, "inline", console=quiet).skipped == (first.id, second.id)
    assert attempts(tmp_path) == [second.id]
    assert (tmp_path / "grid.yaml").is_file()
    assert str(tmp_path) in quiet.file.getvalue()


def test_runs_into_one_folder_add_up_in_its_grid(plain, stand_in, quiet, tmp_path):
    for method in ("lora", "full", "lora"):
        run_grid(parse(plain | {"name": ADHOC, "methods": [method]}), Runtime(out=tmp_path), "inline", console=quiet)
    assert [trial.id for trial in load(tmp_path).trials()] == [trial.id for trial in parse(plain).trials()]
    assert len(attempts(tmp_path)) == 2


def test_a_grid_file_beside_results_that_cannot_be_read_is_not_written_over(plain, stand_in, quiet, tmp_path):
    (tmp_path / "grid.yaml").write_text("methods: [")
    with pytest.raises(UserError, match=r"grid\.yaml"):
        run_grid(parse(plain), Runtime(out=tmp_path), "inline", console=quiet)
    assert (tmp_path / "grid.yaml").read_text() == "methods: ["
    assert attempts(tmp_path) == []


def test_a_trial_that_raises_leaves_a_failed_result_and_the_grid_goes_on(plain, stand_in, quiet, tmp_path):
    grid = failing(plain, stand_in.FAIL, "lora")
    bad, good = grid.trials()
    outcome = run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    assert (outcome.failed, outcome.done) == ((bad.id,), (good.id,))
    result = store.load(tmp_path / f"{bad.id}.json")
    assert (result.status, result.error) == ("failed", "RuntimeError: the loss is not a number")
    assert "second line" in (tmp_path / bad.id / "traceback.txt").read_text()
    assert [(state.trial.id, state.status) for state in status(grid.trials(), tmp_path)] == [
        (bad.id, "failed"),
        (good.id, "done"),
    ]
    assert run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet).failed == (bad.id,)
    assert attempts(tmp_path) == [bad.id, good.id, bad.id]


def test_nothing_is_trained_when_the_data_are_wrong(plain, stand_in, quiet, tmp_path, monkeypatch):
    def wrong(specs, runtime, progress=None, shared=None):
        raise UserError("no such file: vqa/karpathy_train.json")

    monkeypatch.setattr(sys.modules["pet_bench.trial.check"], "check_data", wrong)
    with pytest.raises(UserError, match="karpathy"):
        run_grid(parse(plain), Runtime(out=tmp_path), "inline", console=quiet)
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_result_stops_the_run_and_stays(plain, stand_in, quiet, tmp_path):
    grid = parse(plain)
    path = tmp_path / f"{grid.trials()[0].id}.json"
    path.write_text('{"schema_version": 1, "id"')
    with pytest.raises(UserError, match=path.name):
        run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    assert path.read_text() == '{"schema_version": 1, "id"'
    assert attempts(tmp_path) == []
    assert status(grid.trials(), tmp_path)[0].status == "unreadable"


def test_a_results_folder_that_cannot_be_written_to(plain, stand_in, quiet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run_grid(parse(plain), Runtime(out=tmp_path / "file" / "out"), "inline", console=quiet)


def test_an_interrupt_passes_through_and_keeps_what_is_finished(plain, stand_in, quiet, tmp_path):
    grid = failing(plain, stand_in.INTERRUPT)
    good, interrupted = grid.trials()
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    assert store.finished(tmp_path) == {good.id}
    assert not (tmp_path / f"{interrupted.id}.json").exists()


def test_after_a_kill_only_the_missing_trials_run(plain, stand_in, tmp_path):
    grid = failing(plain, stand_in.DIE, methods=["lora", "full", "vl-adapter"])
    (tmp_path / "g.yaml").write_text(grid.dump())
    out = tmp_path / "out"
    out.mkdir()
    (out / "die").touch()
    command = [sys.executable, "-m", "pet_bench.cli", "run", str(tmp_path / "g.yaml"), "--out", str(out)]
    command += ["--plugin", PLUGIN, "--executor", "inline"]
    lora, full, adapter = (trial.id for trial in grid.trials())
    assert subprocess.run(command, capture_output=True).returncode == -9
    assert store.finished(out) == {lora}
    (out / "die").unlink()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert attempts(out) == [lora, full, full, adapter]
    assert store.finished(out) == {lora, full, adapter}


@pytest.mark.xdist_group("ray")
def test_ray_workers_load_plugins_share_the_cores_and_may_die(plain, stand_in, quiet, tmp_path):
    rates = {"full": stand_in.FAIL, "vl-adapter": stand_in.DIE, "projector-only": stand_in.SILENT}
    grid = parse(
        plain
        | {
            "methods": ["lora", *rates],
            "overrides": [{"when": {"method": name}, "recipe": {"lr": rate}} for name, rate in rates.items()],
            "resources": {"cpus": 1, "gpus": 0},
        }
    )
    (tmp_path / "die").touch()
    outcome = run_grid(grid, Runtime(out=tmp_path, plugins=(PLUGIN,)), "ray", console=quiet)
    results = {trial.method.name: store.load(tmp_path / f"{trial.id}.json") for trial in grid.trials()}
    assert {name: result.status for name, result in results.items()} == {
        "lora": "done",
        "full": "failed",
        "vl-adapter": "failed",
        "projector-only": "failed",
    }
    assert results["full"].error == "RuntimeError: the loss is not a number"
    assert "died" in results["vl-adapter"].error
    assert "left no result" in results["projector-only"].error
    assert sorted(outcome.failed) == sorted(result.id for result in results.values() if result.status == "failed")
    lines = (tmp_path / "attempts.txt").read_text().splitlines()
    assert all(line.endswith("threads=1 OMP=1") for line in lines)
    died = next(trial.id for trial in grid.trials() if trial.method.name == "vl-adapter")
    assert sorted(Counter(attempts(tmp_path)).values()) == [1, 1, 1, 1 + grid.resources.retries]
    assert Counter(attempts(tmp_path))[died] == 1 + grid.resources.retries


def test_a_trial_larger_than_the_machine_is_refused(plain, stand_in, quiet, tmp_path):
    with pytest.raises(UserError, match="9999 cpus"):
        run_grid(parse(plain | {"resources": {"cpus": 9999}}), Runtime(out=tmp_path), "ray", console=quiet)


ORDERS = {
    "seed": [("lora", 0), ("full", 0), ("lora", 1), ("full", 1)],
    "listed": [("lora", 0), ("full", 0), ("lora", 1), ("full", 1)],
    "cheapest": [("full", 0), ("full", 1), ("lora", 0), ("lora", 1)],
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_in_which_trials_start(plain, stand_in, quiet, tmp_path, order):
    """Cheapest: what an earlier result tells; a result of another seed is as good."""
    shorter = {"when": {"method": "full"}, "recipe": {"epochs": 1}}
    grid = parse(plain | {"seeds": [0, 1], "overrides": [shorter], "resources": {"order": order}})
    run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    names = {trial.id: (trial.method.name, trial.seed) for trial in grid.trials()}
    assert [names[id] for id in attempts(tmp_path)] == ORDERS[order]


def test_a_seed_at_a_time_across_controls(plain, stand_in, quiet, tmp_path):
    grid = parse(plain | {"methods": ["lora"], "seeds": [0, 1], "controls": ["none", "text-only"]})
    run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    seeds = {trial.id: trial.seed for trial in grid.trials()}
    assert [seeds[id] for id in attempts(tmp_path)] == [0, 0, 1, 1]


def test_running_again_what_is_finished_keeps_it_where_that_fails(plain, stand_in, quiet, tmp_path, monkeypatch):
    grid = parse(plain | {"methods": ["lora"]})
    (trial,) = grid.trials()
    run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    before = (tmp_path / f"{trial.id}.json").read_bytes()

    def fail(*arguments):
        raise RuntimeError("worse luck")

    monkeypatch.setattr(sys.modules["pet_bench.trial.run"], "run_trial", fail)
    run_grid(grid, Runtime(out=tmp_path), "inline", again=True, console=quiet)
    assert (tmp_path / f"{trial.id}.json").read_bytes() == before
    assert "worse luck" in (tmp_path / trial.id / "traceback.txt").read_text()
    assert "worse luck" in quiet.file.getvalue()


def test_a_trial_that_another_process_runs_is_left_to_it(plain, stand_in, quiet, tmp_path):
    grid = parse(plain)
    first, second = grid.trials()
    with claim(tmp_path, first.id):
        assert [state.status for state in status(grid.trials(), tmp_path)] == ["running", "missing"]
        outcome = run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    assert (outcome.elsewhere, outcome.done) == ((first.id,), (second.id,))
    assert attempts(tmp_path) == [second.id]


def test_what_another_process_finished_meanwhile_is_not_run_again(plain, stand_in, quiet, tmp_path, monkeypatch):
    grid = parse(plain)
    first, second = grid.trials()
    run_trial = sys.modules["pet_bench.trial.run"].run_trial

    def other(spec, runtime, *rest):
        store.save(stand_in.finished(second, value=70.0), tmp_path)
        return run_trial(spec, runtime, *rest)

    monkeypatch.setattr(sys.modules["pet_bench.trial.run"], "run_trial", other)
    outcome = run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet)
    assert outcome.done == (first.id, second.id)
    assert attempts(tmp_path) == [first.id]
    assert store.load(tmp_path / f"{second.id}.json").average == 70.0


def test_a_sick_result_is_not_a_missing_one(plain, stand_in, quiet, tmp_path):
    grid = parse(plain | {"methods": ["lora"]})
    (trial,) = grid.trials()
    sick = stand_in.finished(trial).model_copy(update={"status": "suspect", "error": "vqa is at chance"})
    store.save(sick, tmp_path)
    assert run_grid(grid, Runtime(out=tmp_path), "inline", console=quiet).skipped == (trial.id,)
    assert run_grid(grid, Runtime(out=tmp_path), "inline", again=True, console=quiet).done == (trial.id,)
