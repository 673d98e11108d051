# ruff: noqa: F811  fixtures of another folder are arguments here
from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.grid.execute import loggers
from pet_bench.grid.execute.loggers import callbacks, check_trackers
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.execute.supervise import Cluster
from pet_bench.grid.execute.trackers import MAKERS, SPARSE, Events, flat, scalars
from pet_bench.grid.plan.spec import parse
from pet_bench.results import store
from pet_bench.results.schema import Point, Progress
from pet_bench.spec import Runtime, TrialSpec
from tests.results.conftest import make_result, make_spec  # noqa: F401


@pytest.fixture
def spec(plain):
    return parse(plain).trials()[0]


def tune_trial(spec, name="t0"):
    return SimpleNamespace(trial_id=name, config={"job": {"spec": spec.to_dict(), "accumulation": 1}})


def report(spec, step, phase="train", **found):
    return {"progress": vars(Progress(spec.id, phase, step, 100, **found)), "training_iteration": 7}


def validated(spec, step):
    points = (
        Point(step=step, epoch=1.0, split="train", task="vqa", loss=1.5),
        Point(step=step, epoch=1.0, split="valid", task="vqa", metrics={"accuracy": 40.0, "bleu@4": 3.0}),
    )
    return report(spec, step, epoch=1.0, score=40.0, points=tuple(point.model_dump() for point in points))


class Recorder:
    """In place of one of Ray's callbacks."""

    def __init__(self, fails: str = ""):
        self.fails, self.calls = fails, []

    def setup(self):
        self._note("setup")

    def log_trial_start(self, trial):
        self._note("start", str(trial), trial.trial_id, trial.config, trial.experiment_dir_name)

    def log_trial_result(self, iteration, trial, result):
        self._note("result", str(trial), result)

    def log_trial_end(self, trial, failed):
        self._note("end", str(trial), failed)

    def on_experiment_end(self, trials):
        self._note("over")

    def _note(self, *call):
        if call[0] == self.fails:
            raise ConnectionError("no network\nat all")
        self.calls.append(call)


@pytest.fixture
def tracked(monkeypatch, tmp_path):
    """A tracker over a recorder, and what was said."""

    def make(name="wandb", **options):
        recorder, said = Recorder(**options), []
        monkeypatch.setitem(MAKERS, name, lambda grid_name: recorder)
        monkeypatch.setattr(loggers, "find_spec", lambda package: True)
        (tracker,) = callbacks([name, name], tmp_path, "my-grid", said.append)
        return tracker, recorder.calls, said

    return make


def run(tracker, spec, *reports, died=False):
    trial = tune_trial(spec)
    tracker.on_trial_start(0, [], trial)
    for one in reports:
        tracker.on_trial_result(0, [], trial, one)
    (tracker.on_trial_error if died else tracker.on_trial_complete)(0, [], trial)


def events(folder):
    """(step, tag, value) of an event file, whose records are length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.*")
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    return found


# names ---------------------------------------------------------------------------------------------------------------


def test_faults_are_told_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(UserError) as caught:
        check_trackers(["wandb", "tensorbord", "mlflow"])
    assert caught.value.faults[0] == "--log wandb needs the package wandb: pip install 'pet-bench[wandb]'"
    assert 'unknown tracker "tensorbord": did you mean "tensorboard"?' in caught.value.faults[1]
    assert caught.value.faults[2] == "--log mlflow needs the package mlflow: pip install 'pet-bench[mlflow]'"
    with pytest.raises(UserError, match="needs the package wandb"):
        callbacks(["wandb"], tmp_path, "g")
    assert callbacks([], tmp_path, "g") == []


def test_a_tracker_that_cannot_be_used_is_a_fault(tracked):
    with pytest.raises(UserError) as caught:
        tracked("mlflow", fails="setup")
    assert caught.value.faults == ("--log mlflow cannot be used: no network",)


def test_extras_are_those_that_are_named():
    import tomllib

    from tests.conftest import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("wandb", "mlflow", "trackio"):
        assert any(need.startswith(loggers.PACKAGES[name]) for need in project["optional-dependencies"][name])


# what trackers get ---------------------------------------------------------------------------------------------------


def test_tags(spec):
    assert scalars(report(spec, 5, loss=2.0, examples_per_second=9.0)["progress"]) == {
        5: {"train/loss": 2.0, "train/examples_per_second": 9.0}
    }
    assert scalars(validated(spec, 10)["progress"]) == {
        10: {"train/vqa/loss": 1.5, "valid/vqa/accuracy": 40.0, "valid/vqa/bleu@4": 3.0, "valid/score": 40.0}
    }
    assert scalars(report(spec, 3, "evaluate")["progress"]) == {}
    assert scalars(report(spec, 0, "prepare")["progress"]) == {}


def test_a_trial_as_configuration(make_spec):
    found = flat(make_spec(control="noise").to_dict())
    assert (found["method.name"], found["recipe.lr"], found["tasks"]) == ("lora", 1e-3, "[vqa, gqa]")
    assert (found["control"], found["visual.width"], found["protocol"]) == ("noise", 8, "{}")
    assert all(isinstance(value, str | int | float | None) for value in found.values())


def test_a_trial_goes_by_its_own_name(tracked, spec):
    tracker, calls, said = tracked()
    run(tracker, spec, report(spec, 3, loss=2.0), validated(spec, 10), report(spec, 1, "evaluate"), {"ended": {}})
    tracker.on_experiment_end([])
    setup, start, first, second, end, over = calls
    assert start[1:3] == (str(spec), spec.id)
    assert (start[3]["id"], start[3]["backbone"], start[4]) == (spec.id, spec.backbone, "my-grid")
    assert first == ("result", str(spec), {"train/loss": 2.0, "training_iteration": 3})
    assert (second[2]["valid/score"], second[2]["training_iteration"]) == (40.0, 10)
    assert end == ("end", str(spec), True)  # no result was written
    assert (setup, over) == (("setup",), ("over",))
    assert said == []


def test_the_test_scores_come_last(tracked, make_result, tmp_path):
    tracker, calls, _ = tracked()
    result = make_result(vqa=60.0, gqa=40.0)
    store.save(result, tmp_path)
    run(tracker, TrialSpec.from_dict(result.spec))
    *_, scores, end = calls
    assert scores[2]["test/vqa/accuracy"] == 60.0
    assert (scores[2]["test/average"], scores[2]["training_iteration"]) == (50.0, result.cost.steps)
    assert end[2] is False


@pytest.mark.parametrize(
    "status, died, failed", [("failed", False, True), ("done", True, True), ("suspect", False, False)]
)
def test_the_result_says_how_a_trial_ended(status, died, failed, tracked, make_result, tmp_path):
    tracker, calls, _ = tracked()
    result = make_result(status=status, error=None if status == "done" else "why")
    store.save(result, tmp_path)
    run(tracker, TrialSpec.from_dict(result.spec), died=died)
    assert calls[-1][2] is failed


def test_a_second_attempt_goes_on_in_the_same_run(tracked, spec):
    tracker, calls, _ = tracked()
    for name in ("t0", "t1"):
        tracker.on_trial_start(0, [], tune_trial(spec, name))
    first, second = (call for call in calls if call[0] == "start")
    assert first == second
    assert len(tracker.shown) == 1


def test_a_server_gets_fewer_training_reports_but_all_validations(tracked, spec, monkeypatch):
    monkeypatch.setitem(SPARSE, "mlflow", 1e9)
    tracker, calls, _ = tracked("mlflow")
    run(tracker, spec, *(report(spec, step, loss=2.0) for step in range(5)), validated(spec, 5), validated(spec, 6))
    assert [call[2]["training_iteration"] for call in calls if call[0] == "result"] == [0, 5, 6]


@pytest.mark.parametrize("fails", ["start", "result", "end", "over"])
def test_a_tracker_that_fails_says_so_once_and_is_left_alone(fails, tracked, spec):
    tracker, _, said = tracked(fails=fails)
    for _ in range(3):
        run(tracker, spec, report(spec, 3, loss=2.0))
    tracker.on_experiment_end([])
    tracker.on_experiment_end([])
    assert said == ["--log wandb has stopped, the trials go on: no network"]


def test_a_tracker_can_be_saved_by_tune(tracked):
    import pickle

    from ray.tune import Callback

    tracker, *_ = tracked()
    assert type(pickle.loads(pickle.dumps(tracker))) is Callback


# TensorBoard ---------------------------------------------------------------------------------------------------------


def test_tensorboard_files_lie_in_the_trials_folder(tmp_path, make_result):
    result = make_result(vqa=60.0)
    store.save(result, tmp_path)
    spec = TrialSpec.from_dict(result.spec)
    (tracker,) = callbacks(["tensorboard"], tmp_path, "g")
    run(tracker, spec, report(spec, 3, loss=2.0, examples_per_second=8.0), validated(spec, 10))
    found = events(tmp_path / spec.id / "tensorboard")
    assert (3, "train/loss", 2.0) in found and (3, "train/examples_per_second", 8.0) in found
    assert (10, "valid/vqa/accuracy", 40.0) in found and (10, "valid/score", 40.0) in found
    assert (result.cost.steps, "test/vqa/accuracy", 60.0) in found
    assert all(tag.split("/")[0] in ("train", "valid", "test") for _, tag, _ in found)


def test_tensorboard_of_two_attempts_within_a_second(tmp_path, spec):
    (tracker,) = callbacks(["tensorboard"], tmp_path, "g")
    run(tracker, spec, report(spec, 3, loss=2.0), died=True)
    run(tracker, spec, report(spec, 4, loss=1.0), died=True)
    assert len(list((tmp_path / spec.id / "tensorboard").iterdir())) == 2


def test_a_full_disk_stops_tensorboard_and_not_the_grid(tmp_path, spec, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    said = []
    (tracker,) = callbacks(["tensorboard"], tmp_path, "g", said.append)
    monkeypatch.setattr(Events, "add_scalar", full)
    run(tracker, spec, *(report(spec, step, loss=2.0) for step in range(100)))
    assert said == ["--log tensorboard has stopped, the trials go on: [Errno 28] No space left on device"]


# Trackio -------------------------------------------------------------------------------------------------------------


def test_trackio_has_a_run_for_each_trial_and_goes_on_in_it(plain, tmp_path, make_result, monkeypatch, capfd):
    """Of two trials side by side, one of which has a second attempt; nothing is printed."""
    reason = "trackio is not installed (pip install 'pet-bench[trackio]')"
    pytest.importorskip("trackio", reason=reason)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "store", raising=False)
    (tracker,) = callbacks(["trackio"], tmp_path, "my-grid", print)
    one, other = parse(plain).trials()
    for spec in (one, other):
        tracker.start(spec)
    tracker.report(one, report(one, 1, loss=2.0)["progress"])
    tracker.report(other, report(other, 1, loss=3.0)["progress"])
    tracker.report(one, report(one, 2, loss=1.0)["progress"])
    tracker.end(one, died=True)
    tracker.start(one)
    tracker.report(one, validated(one, 3)["progress"])
    for spec in (one, other):
        tracker.end(spec)
    assert capfd.readouterr().out == ""
    from trackio.sqlite_storage import SQLiteStorage

    runs = SQLiteStorage.get_runs("my-grid")
    assert sorted(runs) == sorted(f"{spec} {spec.id}" for spec in (one, other))
    logs = SQLiteStorage.get_logs("my-grid", f"{one} {one.id}")
    assert [(log["step"], log.get("train/loss")) for log in logs[:2]] == [(1, 2.0), (2, 1.0)]
    assert logs[2]["step"] == 3 and logs[2]["valid/vqa/accuracy"] == 40.0


# in one process ------------------------------------------------------------------------------------------------------


def test_trackers_follow_trials_in_this_process_too(plain, stand_in, quiet, tmp_path, monkeypatch):
    recorder, grid = Recorder(), parse(plain)
    monkeypatch.setitem(MAKERS, "tensorboard", lambda grid_name: recorder)
    outcome = run_grid(grid, Runtime(out=tmp_path), "inline", cluster=Cluster(log=("tensorboard",)), console=quiet)
    assert len(outcome.done) == 2
    kinds = [call[0] for call in recorder.calls]
    assert kinds[0] == "setup" and kinds[-1] == "over"
    assert kinds.count("start") == kinds.count("end") == 2
    for spec in grid.trials():
        own = [call for call in recorder.calls if call[1:2] == (str(spec),)]
        assert own[0][0] == "start" and own[-1] == ("end", str(spec), False)
        assert any("test/average" in call[2] for call in own if call[0] == "result")


def test_what_needs_rays_actors_is_refused_without_ray(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda package: True)
    check_trackers(["wandb", "trackio"])
    with pytest.raises(UserError) as caught:
        check_trackers(["wandb", "tensorboard", "trackio"], "inline")
    assert caught.value.faults == ("--log wandb is for --executor ray: its callback is an actor of Ray's",)
