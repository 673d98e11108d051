"""Grids under kills, signals, full disks, want of memory and damaged files: nothing is lost, run twice or half-written.

`benchmarks/faults.py` kills at random; here every moment is chosen. Trials are stand-ins unless they have to be real.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from io import StringIO
from pathlib import Path

import psutil
import pytest
import yaml
from rich.console import Console

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.grid.execute import run as grid_run
from pet_bench.grid.execute.attempt import attempt
from pet_bench.grid.execute.events import Ended, Started
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.plan import remembered
from pet_bench.grid.plan.spec import parse
from pet_bench.grid.plan.status import checkpoint_step, status
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.results import store
from pet_bench.spec import Runtime
from tests.conftest import EVERYTHING, everything
from tests.grid.conftest import PLUGIN, processes_with, until

MARK = "PET_BENCH_TEST"
ray = pytest.mark.xdist_group("ray")
# on Ray too in `make test-all`
executors = pytest.mark.parametrize("executor", ["inline", *[pytest.param("ray", marks=ray)] * EVERYTHING])
real = pytest.mark.xdist_group("real trials")  # they share what is read


@pytest.fixture(autouse=True)
def processes(monkeypatch):
    """All processes of this test; none may outlive it."""
    token = secrets.token_hex(8)
    monkeypatch.setenv(MARK, token)
    yield lambda: processes_with(MARK, token)
    try:
        until(lambda: not processes_with(MARK, token), 30)
    finally:
        for process in processes_with(MARK, token):
            process.kill()


@pytest.fixture
def file_of(tmp_path):
    """A grid as a file."""

    def write(grid):
        path = tmp_path / "g.yaml"
        path.write_text(grid.dump())
        return path

    return write


@pytest.fixture
def pet_bench(capsys):
    """A command in this process: its exit status, and the lines on stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code, said.out.splitlines(), said.err.splitlines()

    return call


def command(*arguments):
    """A command in a process of its own."""
    line = [sys.executable, "-m", "pet_bench.cli", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def grid_of(plain, rates, **more):
    """A grid of some methods, each with the learning rate that tells its stand-in what to do."""
    overrides = [{"when": {"method": name}, "recipe": {"lr": rate}} for name, rate in rates.items() if rate]
    return parse(plain | {"methods": [*rates], "overrides": overrides} | more)


def ids(grid):
    """Trials by method."""
    return {trial.method.name: trial.id for trial in grid.trials()}


def attempts(out):
    """(trial, process) of each attempt."""
    log = out / "attempts.txt"
    return [(line.split()[0], int(line.split()[1])) for line in log.read_text().splitlines()] if log.exists() else []


def whole(out):
    """Every result file is whole and nothing else is there under a trial's name; the results by trial."""
    results = store.load_all(out)
    assert not [path.name for path in out.rglob(".*") if path.name != ".locks"]
    return results


def statuses(grid, out):
    results = whole(out)
    return {name: results[id].status for name, id in ids(grid).items() if id in results}


# out of memory, NaN ---------------------------------------------------------------------------------------------------


def test_out_of_memory_is_tried_once_more_in_smaller_parts(plain, stand_in, quiet, out):
    grid = grid_of(plain, {"lora": stand_in.OOM, "full": None})
    outcome = run_grid(grid, Runtime(out=out), "inline", console=quiet)
    trial = ids(grid)
    assert [id for id, _ in attempts(out)] == [trial["lora"], trial["full"], trial["lora"]]
    assert statuses(grid, out) == {"lora": "done", "full": "done"}
    assert set(outcome.done) == set(trial.values())
    results = store.load_all(out)
    assert (results[trial["lora"]].run.accumulation, results[trial["full"]].run.accumulation) == (2, 1)
    assert quiet.file.getvalue().count("out of memory: batches in 2 parts") == 1


def test_what_is_still_out_of_memory_starts_smaller_the_next_time(plain, stand_in, out, file_of, pet_bench):
    grid = grid_of(plain, {"lora": stand_in.OOM})
    line = "run", file_of(grid), "--out", out, "--executor", "inline"
    (out / "parts").write_text("2")
    code, said, _ = pet_bench(*line)
    assert code == 1
    (result,) = whole(out).values()
    assert (result.status, result.run.accumulation) == ("oom", 2)
    assert result.run.peak_memory_bytes > 2**20
    assert result.error.startswith("out of memory at a peak of ")
    assert sum(result.error in line for line in said) == 2  # of both attempts
    assert "tried to allocate" in (out / result.id / "traceback.txt").read_text()
    code, said, _ = pet_bench(*line)
    assert code == 0
    (result,) = whole(out).values()
    assert (result.status, result.run.accumulation) == ("done", 4)
    assert len(attempts(out)) == 3


def test_no_part_is_smaller_than_an_example(plain, stand_in, quiet, out):
    grid = grid_of(plain, {"lora": stand_in.OOM}, recipe={"batch_size": 3})
    (out / "parts").write_text("100")
    for _ in range(3):
        run_grid(grid, Runtime(out=out), "inline", console=quiet)
    (result,) = whole(out).values()
    assert result.status == "oom"
    assert result.run.accumulation <= 3


def test_a_loss_that_is_not_a_number(plain, stand_in, out, file_of, pet_bench):
    grid = grid_of(plain, {"lora": stand_in.NAN, "full": None})
    file = file_of(grid)
    code, said, _ = pet_bench("run", file, "--out", out, "--executor", "inline")
    assert code == 0
    assert statuses(grid, out) == {"lora": "suspect", "full": "done"}
    assert sum("the loss is nan" in line for line in said) == 1
    assert pet_bench("run", file, "--out", out, "--executor", "inline")[0] == 0
    assert Counter(id for id, _ in attempts(out)) == dict.fromkeys(ids(grid).values(), 1)
    assert pet_bench("rerun", file, "--suspect", "--out", out, "--executor", "inline")[0] == 0
    assert Counter(id for id, _ in attempts(out)) == {ids(grid)["lora"]: 2, ids(grid)["full"]: 1}


# full and read-only disks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("what", ["open", "fsync"])
def test_storage_that_fails_at_any_write(plain, stand_in, out, file_of, pet_bench, monkeypatch, what, number):
    """Each write in turn finds the disk full, read-only, closed to us or broken."""
    grid = grid_of(plain, {"lora": None, "full": stand_in.FAIL, "vl-adapter": None})
    line, failed, before = ("run", file_of(grid), "--out", out, "--executor", "inline"), 0, {}
    module, name = {"open": (Path, "touch"), "fsync": (os, "fsync")}[what]
    healthy = getattr(module, name)
    monkeypatch.setattr(remembered, "keep", lambda *plan: None)  # it writes elsewhere
    for turn in range(1, 20):
        count = 0

        def write(*arguments, **options):
            nonlocal count
            count += 1
            if count == turn:  # noqa: B023
                raise OSError(number, os.strerror(number), str(out / "somewhere"))
            return healthy(*arguments, **options)

        monkeypatch.setattr(module, name, write)
        code, _, said = pet_bench(*line)
        monkeypatch.setattr(module, name, healthy)
        results = whole(out)
        done = {id: (out / f"{id}.json").read_bytes() for id, result in results.items() if result.status == "done"}
        assert before.items() <= done.items()
        before = done
        if count < turn:  # all writes went well
            assert code == 1  # one trial fails of its own
            break
        failed += 1
        assert code == 2
        assert said == [
            f'pet-bench: error: results folder "{out}": {os.strerror(number)}; the {len(results)} results in it are '
            "whole; mend that and run the same command again"
        ]
    assert failed >= 3
    pet_bench(*line)
    assert statuses(grid, out) == {"lora": "done", "full": "failed", "vl-adapter": "done"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, a function that fills it and one that protects it, until `umount`, from writing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("unchecked: a disk that is really full or write-protected (no file system can be mounted here)")

    def fill(pages):
        """Leave room for a few pages of 4 KiB."""
        ballast = folder / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(ballast, ballast.stat().st_size - 4096 * pages)
        return ballast

    def protect():
        for options in ("bind", "remount,bind,ro"):
            subprocess.run(["mount", "-o", options, folder, folder], check=True, capture_output=True)

    yield folder, fill, protect
    while folder.is_mount():
        umount(folder)


def umount(folder):
    subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


@executors
def test_a_disk_that_is_full_in_the_middle(plain, stand_in, quiet, small_disk, executor):
    folder, fill, _ = small_disk
    grid = grid_of(plain, dict.fromkeys(["lora", "full", "vl-adapter", "bitfit"]), resources={"gpus": 0})
    ballast = fill(4)
    with pytest.raises(UserError) as caught:
        run_grid(grid, Runtime(out=folder, plugins=(PLUGIN,)), executor, console=quiet)
    kept = whole(folder)
    assert len(kept) < 4
    assert caught.value.faults == (
        f'results folder "{folder}": No space left on device; the {len(kept)} results in it are whole; '
        "mend that and run the same command again",
    )
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    ballast.unlink()
    run_grid(grid, Runtime(out=folder), "inline", console=quiet)
    assert set(statuses(grid, folder).values()) == {"done"}
    assert {path: path.read_bytes() for path in before} == before


def test_a_disk_that_may_only_be_read(plain, stand_in, small_disk, file_of, pet_bench, monkeypatch):
    folder, _, protect = small_disk
    grid = grid_of(plain, dict.fromkeys(["lora", "full", "vl-adapter"]))
    line = "run", file_of(grid), "--out", folder, "--executor", "inline"
    module = sys.modules["pet_bench.trial.run"]
    run_trial = module.run_trial

    def second(spec, *rest):
        if spec.id == ids(grid)["full"]:
            protect()
        return run_trial(spec, *rest)

    monkeypatch.setattr(module, "run_trial", second)
    code, _, (said,) = pet_bench(*line)
    assert code == 2
    assert said.startswith(f'pet-bench: error: results folder "{folder}": Read-only file system; the 1 results in it ')
    assert statuses(grid, folder) == {"lora": "done"}
    monkeypatch.setattr(module, "run_trial", run_trial)

    code, _, said = pet_bench(*line)  # now from the start
    assert code == 2
    assert said == [f'pet-bench: error: results folder "{folder}" cannot be written to: Read-only file system']
    assert [state.status for state in status(grid.trials(), folder)] == ["done", "missing", "missing"]

    umount(folder)
    assert pet_bench(*line)[0] == 0
    assert Counter(id for id, _ in attempts(folder))[ids(grid)["lora"]] == 1


def test_the_grids_own_write_of_a_lost_worker(plain, stand_in, out, quiet, monkeypatch):
    """Who writes down that a worker is gone may find the disk full as well."""
    grid = grid_of(plain, {"lora": None})

    def gone(grid, jobs, runtime, stop, cluster, emit):
        emit(Started(jobs[0].id))
        monkeypatch.setattr(os, "fsync", full)
        emit(Ended(jobs[0].id, "died", "the worker process died"))

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(grid_run, "run_on_ray", gone)
    with pytest.raises(UserError, match="No space left on device; the 0 results in it are whole"):
        run_grid(grid, Runtime(out=out), "ray", console=quiet)
    assert whole(out) == {}


# damaged files --------------------------------------------------------------------------------------------------------

DAMAGE = {
    "half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "zeros": lambda text: "\0" * len(text),
    "another trial's": lambda text: text.replace('"id": "', '"id": "f', 1),
    "no result": lambda text: "[]",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_refused_before_anything_runs(plain, stand_in, quiet, out, file_of, pet_bench, damage):
    grid = grid_of(plain, dict.fromkeys(["lora", "full"]))
    first, _ = grid.trials()
    store.save(stand_in.finished(first), out)
    path = out / f"{first.id}.json"
    path.write_text(DAMAGE[damage](path.read_text()))
    before = {path: path.read_bytes() for path in out.iterdir()}
    code, _, (said,) = pet_bench("run", file_of(grid), "--out", out, "--executor", "inline")
    assert code == 2
    assert said.startswith(f'pet-bench: error: result "{path}" ')
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_damaged_result_that_appears_meanwhile_is_set_aside(plain, stand_in, quiet, out, monkeypatch):
    grid = grid_of(plain, dict.fromkeys(["lora", "full"]))
    first, second = grid.trials()
    module = sys.modules["pet_bench.trial.run"]
    run_trial = module.run_trial

    def other(spec, *rest):
        if spec == first:
            (out / f"{second.id}.json").write_text('{"schema_version": 2, "id"')
        return run_trial(spec, *rest)

    monkeypatch.setattr(module, "run_trial", other)
    outcome = run_grid(grid, Runtime(out=out), "inline", console=quiet)
    assert outcome.done == (first.id, second.id)
    assert statuses(grid, out) == {"lora": "done", "full": "done"}
    assert (out / f"{second.id}.json.unreadable").read_text() == '{"schema_version": 2, "id"'
    (said,) = [line for line in quiet.file.getvalue().splitlines() if "unreadable" in line]
    assert f'its result was unreadable and is now "{second.id}.json.unreadable": the trial ran again' in said


def test_a_result_that_is_damaged_as_soon_as_it_is_written(plain, stand_in, quiet, out, monkeypatch):
    grid = grid_of(plain, {"lora": None})
    (trial,) = grid.trials()
    path, module = out / f"{trial.id}.json", sys.modules["pet_bench.trial.run"]
    run_trial = module.run_trial

    def damaged(*arguments):
        run_trial(*arguments)
        path.write_text(path.read_text()[:100])

    monkeypatch.setattr(module, "run_trial", damaged)
    assert run_grid(grid, Runtime(out=out), "inline", console=quiet).failed == (trial.id,)
    assert "left no result" in whole(out)[trial.id].error
    assert len((out / f"{trial.id}.json.unreadable").read_text()) == 100
    monkeypatch.setattr(module, "run_trial", run_trial)
    assert run_grid(grid, Runtime(out=out), "inline", console=quiet).done == (trial.id,)


def test_what_a_killed_writer_left_is_swept(plain, stand_in, quiet, out):
    grid = grid_of(plain, {"lora": None})
    (trial,) = grid.trials()
    (out / trial.id).mkdir()
    for torn in (f".{trial.id}.json.x1y2z3", f"{trial.id}/.checkpoint.safetensors.abc", ".grid.yaml.456def"):
        (out / torn).write_text("half")
    run_grid(grid, Runtime(out=out), "inline", console=quiet)
    assert statuses(grid, out) == {"lora": "done"}


# workers, schedulers and heads that are killed ------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["the first", "a replacement"])
@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_a_worker_that_dies_for_good_before_or_after_its_result_is_written(
    plain, stand_in, out, quiet, monkeypatch, again, written
):
    grid = grid_of(plain, {"lora": None})
    (trial,) = grid.trials()
    if again:
        old = stand_in.finished(trial, value=30.0)
        old.provenance.finished = old.provenance.started
        store.save(old, out)

    def gone(grid, jobs, runtime, stop, cluster, emit):
        emit(Started(trial.id))
        if written:
            store.save(stand_in.finished(trial), out)
            assert attempt(jobs[0], runtime, pytest.fail, stop).how == "result"  # a further attempt runs nothing
        emit(Ended(trial.id, "died", "the worker process died"))

    monkeypatch.setattr(grid_run, "run_on_ray", gone)
    outcome = run_grid(grid, Runtime(out=out), "ray", again=again, console=quiet)
    assert attempts(out) == []
    assert outcome.failed == (() if written else (trial.id,))
    assert ("1/1 done" if written else "1/1 failed") in quiet.file.getvalue()
    assert whole(out)[trial.id].average == (50.0 if written else 30.0 if again else None)


@ray
def test_a_worker_the_scheduler_and_the_head_are_killed_one_after_another(plain, stand_in, out, quiet, processes):
    """The trial that is hit each time is told of and goes on, what was finished is left alone; another's worker dies
    with its result written, and one runs out of memory."""
    rates = {"lora": stand_in.HOLD, "full": stand_in.DIE_LAST, "vl-adapter": stand_in.OOM}
    grid = grid_of(plain, rates, resources={"cpus": 0.5, "gpus": 0})
    trial = ids(grid)
    (out / "die").touch()

    def kill(find):
        """Kill when the trial that goes on until it is told to end has begun again, and the others are over."""
        begun = sum(id == trial["lora"] for id, _ in attempts(out))

        def again():
            return [pid for id, pid in attempts(out) if id == trial["lora"]][begun:]

        find().kill()
        return until(again)[-1]

    def named(word):
        return next(process for process in processes() if word in (process.name(), *process.cmdline()))

    def disturb():
        try:
            pid = until(lambda: [pid for id, pid in attempts(out) if id == trial["lora"]])[-1]
            until(lambda: {trial["full"], trial["vl-adapter"]} <= {path.stem for path in out.glob("*.json")})
            before.update({path: path.read_bytes() for path in out.glob("*.json")})
            kill(lambda: psutil.Process(pid))
            kill(lambda: named("pet_bench.grid.execute.driver"))
            kill(lambda: named("gcs_server"))
        except BaseException as error:  # told by the main thread
            wrong.append(error)
        (out / "go").touch()

    before, wrong = {}, []
    thread = threading.Thread(target=disturb)
    thread.start()
    outcome = run_grid(grid, Runtime(out=out, plugins=(PLUGIN,)), "ray", console=quiet)
    thread.join()
    assert not wrong
    assert statuses(grid, out) == dict.fromkeys(rates, "done")
    assert set(outcome.done) == set(trial.values())
    counts = Counter(id for id, _ in attempts(out))
    assert counts == {trial["lora"]: 4, trial["full"]: 1, trial["vl-adapter"]: 2}
    finished = out / f"{trial['full']}.json"
    assert finished.read_bytes() == before[finished]
    said = quiet.file.getvalue().splitlines()
    assert sum("the worker process died" in line and "lora" in line for line in said) == 1
    assert sum(line.startswith("Ray died (killed by signal 9)") for line in said) == 1
    assert sum(line.startswith("Ray died (a process of its head was killed)") for line in said) == 1
    assert not [line for line in said if "failed" in line or "Traceback" in line]
    assert store.load(out / f"{trial['vl-adapter']}.json").run.accumulation == 2


@everything
@ray
def test_an_error_while_ray_runs_is_told_in_its_own_words(plain, stand_in, out, quiet, tmp_path):
    """The head ends with the process that has failed, and is not what was at fault."""
    plugin = tmp_path / "failing.py"
    plugin.write_text("""
from ray import tune
from pet_bench.data.suite import Suite
from pet_bench.spec import Visual

def failing(**options):
    raise AttributeError("this version has no such thing")

tune.RunConfig = failing
SUITE = Suite("odd-suite", ("vqa",), Visual(width=4, tokens=1, pooled=1))
""")
    with pytest.raises(UserError, match=r"^Ray cannot be used \(tried 2 times\).* no such thing$"):
        run_grid(grid_of(plain, {"lora": None}), Runtime(out=out, plugins=(PLUGIN, str(plugin))), "ray", console=quiet)
    assert "killed" not in quiet.file.getvalue()


# two at once ----------------------------------------------------------------------------------------------------------


@executors
def test_two_runs_of_one_grid_at_once(plain, stand_in, out, file_of, executor):
    """Both are in the middle of a trial at one moment, each of its own; then they share the rest."""
    names = ["lora", "full", "vl-adapter", "bitfit"]
    grid = grid_of(plain, dict.fromkeys(names, stand_in.HOLD), resources={"gpus": 0, "max_concurrent": 1})
    line = "run", file_of(grid), "--out", out, "--plugin", PLUGIN, "--executor", executor
    both = [command(*line) for _ in range(2)]
    until(lambda: len(attempts(out)) == 2, of=both[0])
    assert len({pid for _, pid in attempts(out)}) == 2
    (out / "go").touch()
    said = [run.communicate(timeout=300) for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    assert statuses(grid, out) == dict.fromkeys(names, "done")
    assert Counter(id for id, _ in attempts(out)) == dict.fromkeys(ids(grid).values(), 1)
    assert any("elsewhere" in text for text, _ in said)


# signals --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def signalled(stand_in, monkeypatch):
    """The process gets signals as a trial begins."""

    def send(*numbers, trial):
        module = sys.modules["pet_bench.trial.run"]
        run_trial = module.run_trial

        def begin(spec, *rest):
            if spec.id == trial:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return run_trial(spec, *rest)

        monkeypatch.setattr(module, "run_trial", begin)

    return send


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_take_its_leave(plain, stand_in, signalled, out, file_of, pet_bench, number):
    grid = grid_of(plain, {"lora": None, "full": stand_in.HOLD, "vl-adapter": None})
    line = "run", file_of(grid), "--out", out, "--executor", "inline"
    with pytest.MonkeyPatch.context():
        signalled(number, trial=ids(grid)["full"])
        code, said, errors = pet_bench(*line)
    assert code == 130
    assert errors == ["stopped as asked; the same command goes on from the checkpoints"]
    assert "stopping: running trials save a checkpoint (once more: stop at once)" in said
    assert statuses(grid, out) == {"lora": "done"}
    assert not list((out / ".locks").glob("stop-*"))


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(plain, stand_in, signalled, out, file_of, pet_bench, numbers):
    grid = grid_of(plain, {"lora": None, "full": stand_in.HOLD, "vl-adapter": None})
    (out / "deaf").touch()
    signalled(*numbers, trial=ids(grid)["full"])
    code, _, errors = pet_bench("run", file_of(grid), "--out", out, "--executor", "inline")
    assert code == 130
    assert errors == ["interrupted; finished trials are kept, the same command runs what is missing"]
    assert statuses(grid, out) == {"lora": "done"}
    assert not list((out / ".locks").glob("stop-*"))
    assert [state.status for state in status(grid.trials(), out)] == ["done", "missing", "missing"]


@ray
def test_a_second_signal_ends_ray_at_once(plain, stand_in, out, quiet, processes):
    grid = grid_of(plain, {"lora": stand_in.HOLD}, resources={"gpus": 0})
    (out / "deaf").touch()
    sent = []

    def interrupt():
        until(lambda: attempts(out))
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: list((out / ".locks").glob("stop-*")))
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, Runtime(out=out, plugins=(PLUGIN,)), "ray", console=quiet)
    thread.join()
    assert time.monotonic() - sent[0] < 20
    assert not processes()
    assert whole(out) == {}


# real trials ----------------------------------------------------------------------------------------------------------

SIZES = Sizes(
    coco_train=20, coco_restval=2, coco_val=4, coco_test=8, vg_train=10, vg_valid=2, gqa_testdev=4, nlvr_train=4,
    nlvr_valid=2, nlvr_test=4,
)  # fmt: skip
SHORT = {
    "name": "short", "suites": ["mini-image-text/vqa+nlvr2"], "backbones": ["mini-bart"],
    "methods": [{"name": "lora", "dropout": 0.0}], "resources": {"gpus": 0},
    "recipe": {"lr": 3e-3, "max_steps": 12, "batch_size": 24, "valid_every": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("PET_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def world(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("world") / "datasets"
    write_image_text(folder, seed=3, sizes=SIZES)
    return folder


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """The result of a grid's only trial, and its folder, where nothing happened."""
    found = {}

    def run(grid):
        (trial,) = grid.trials()
        if trial.id not in found:
            folder = tmp_path_factory.mktemp("whole")
            run_grid(grid, Runtime(out=folder, data=world, device="cpu"), "inline", console=Console(file=StringIO()))
            found[trial.id] = store.load(folder / f"{trial.id}.json"), folder / trial.id
        return found[trial.id]

    return run


@pytest.fixture
def short(world, out, tmp_path, processes):
    """A grid of one real trial, and the command that runs it."""
    grid = parse(SHORT)
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(SHORT))
    line = "run", tmp_path / "short.yaml", "--data", world, "--device", "cpu", "--out", out, "--executor", "inline"
    return grid, (*line, "--checkpoint-every", "5steps")


def assert_as_undisturbed(out, expected, folder):
    """The result is that of the undisturbed run to the last bit; returns it."""
    result = whole(out)[expected.id]
    for part in ("status", "error", "metrics", "breakdowns", "average", "curve", "parameters"):
        assert getattr(result, part) == getattr(expected, part), part
    files, others = ({path.name: path.read_bytes() for path in of.iterdir()} for of in (out / expected.id, folder))
    if result.run.notes:  # which the model card has too
        del files["README.md"], others["README.md"]
    assert {name: content for name, content in files.items() if not name.endswith(".unreadable")} == others
    return result


@real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_trial_goes_on_where_a_signal_stopped_it(short, undisturbed, out, pet_bench, monkeypatch, number):
    grid, line = short
    expected = undisturbed(grid)
    monkeypatch.setattr("pet_bench.grid.execute.attempt.POLL_SECONDS", 0)
    from pet_bench.trial.train import Training

    report = Training.report

    def signalled(self, *found):
        if self.trial.steps == 7:
            os.kill(os.getpid(), number)
        report(self, *found)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "report", signalled)
        code, _, errors = pet_bench(*line)
    assert code == 130
    assert errors == ["stopped as asked; the same command goes on from the checkpoints"]
    assert [(state.status, state.note) for state in status(grid.trials(), out)] == [
        ("interrupted", "checkpoint at step 7")
    ]
    assert pet_bench(*line)[0] == 0
    assert assert_as_undisturbed(out, *expected).run.resumed == [7]


@real
def test_a_batch_that_does_not_fit_is_split(short, undisturbed, out, pet_bench, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from pet_bench.trial import train

    grid, line = short
    expected, folder = undisturbed(grid)
    loss_of, sizes = train.loss_of, []

    def small_memory(model, batch, *rest):
        sizes.append(len(batch))
        if len(batch) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss_of(model, batch, *rest)

    monkeypatch.setattr(train, "loss_of", small_memory)
    code, said, _ = pet_bench(*line)
    assert code == 0
    whole_batch = sizes.index(24)
    assert max(sizes[whole_batch + 1 :]) == 12
    assert sum("out of memory: batches in 2 parts" in line for line in said) == 1
    result = whole(out)[expected.id]
    assert (result.status, result.run.accumulation) == (expected.status, 2)
    assert result.metrics == expected.metrics
    assert [point.loss for point in result.curve] == pytest.approx([point.loss for point in expected.curve], rel=1e-4)
    tensors, others = (load_file(of / "adapter.safetensors") for of in (out / expected.id, folder))
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], atol=1e-4, rtol=1e-3)


@real
def test_a_checkpoint_that_finds_the_disk_full(short, undisturbed, out, pet_bench, monkeypatch):
    grid, line = short
    expected = undisturbed(grid)
    fsync, count = os.fsync, []

    def full(file):
        count.append(file)
        if len(count) == 3:  # the grid file, the checkpoints of steps 5 and 10
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, _, (said,) = pet_bench(*line)
    assert code == 2
    assert said.startswith(f'pet-bench: error: results folder "{out}": No space left on device; ')
    assert whole(out) == {}
    assert pet_bench(*line)[0] == 0
    assert assert_as_undisturbed(out, *expected).run.resumed == [5]


@real
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_checkpoint_that_cannot_be_used(short, undisturbed, out, pet_bench, damage):
    from pet_bench.trial import checkpoint

    grid, line = short
    expected = undisturbed(grid)
    path = out / expected[0].id / store.CHECKPOINT
    checkpoint.write(path, {"of": {"trial": "another"}, "step": 9, "made with": {}}, {})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    code, said, _ = pet_bench(*line)
    assert code == 0
    (note,) = [line for line in said if line.endswith(": the trial began anew")]
    assert ("unreadable" if damage == "truncated" else "does not fit") in note
    assert assert_as_undisturbed(out, *expected).run.resumed == []


@everything  # each of them alone is above, and in tests/grid/test_run.py
@ray
def test_the_command_is_killed_then_interrupted_then_left_to_end(
    world, undisturbed, out, tmp_path, pet_bench, processes
):
    """SIGKILL takes Ray with it; the next start goes on from the checkpoint, SIGINT makes another."""
    grid = parse(SHORT | {"recipe": SHORT["recipe"] | {"max_steps": 300, "batch_size": 6}})
    (trial,) = grid.trials()
    (tmp_path / "g.yaml").write_text(grid.dump())
    line = "run", tmp_path / "g.yaml", "--data", world, "--device", "cpu", "--out", out, "--checkpoint-every", "10steps"
    driver = command(*line)
    first = until(lambda: checkpoint_step(out, trial.id), of=driver)
    driver.kill()
    driver.communicate()
    until(lambda: not processes(), 30)
    assert whole(out) == {}

    driver = command(*line)
    until(lambda: checkpoint_step(out, trial.id) > first + 10, of=driver)
    driver.send_signal(signal.SIGINT)
    said, errors = driver.communicate(timeout=300)
    assert driver.returncode == 130, errors
    assert errors.splitlines() == ["stopped as asked; the same command goes on from the checkpoints"]
    assert "stopping: running trials save a checkpoint (once more: stop at once)" in said
    second = checkpoint_step(out, trial.id)
    assert not processes()

    assert pet_bench(*line, "--executor", "inline")[0] == 0
    resumed = assert_as_undisturbed(out, *undisturbed(grid)).run.resumed
    assert len(resumed) == 2
    assert first <= resumed[0] < resumed[1] == second
