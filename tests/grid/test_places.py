"""Places that people run in: paths, homes, variables, output and devices of every kind. Ray is started once."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pet_bench.cli import main
from pet_bench.data.cache import cache_dir
from pet_bench.errors import UserError
from pet_bench.grid.execute import process, supervise
from pet_bench.grid.execute import watch as watching_tune
from pet_bench.grid.execute.events import Ended, Job
from pet_bench.grid.execute.place import check_place
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.grid.execute.supervise import Cluster, run_on_ray
from pet_bench.grid.execute.watch import Halt, Watch
from pet_bench.grid.plan.spec import Resources, parse
from pet_bench.results import store
from pet_bench.spec import Runtime
from tests.grid.conftest import PLUGIN

UNPLAIN = ["a b", "q'uote", 'double"', "Jürgen", "$HOME", "x;y"]


@pytest.fixture
def pet_bench(capsys):
    """A command in this process: its exit status, and the lines on stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code, said.out.splitlines(), said.err.splitlines()

    return call


def command(*arguments, **options):
    line = [options.pop("python", sys.executable), "-m", "pet_bench.cli", *map(str, arguments)]
    return subprocess.run(line, stderr=subprocess.PIPE, text=True, encoding="utf-8", **options)


def environment_at(folder):
    """The test's own Python environment by another path."""
    folder.mkdir(parents=True)
    (folder / "venv").symlink_to(sys.prefix, target_is_directory=True)
    return folder / "venv" / Path(sys.executable).relative_to(sys.prefix)


# folders --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(monkeypatch):
    """TMPDIR as a process finds it that starts with it."""

    def at(folder):
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr(process.tempfile, "tempdir", None)

    return at


@pytest.mark.parametrize("name", [*UNPLAIN, "x" * 90])
def test_ray_lives_where_its_sockets_have_room(temporary, tmp_path, name):
    temporary(tmp_path / name)
    with process.lodging() as folder:
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        assert Path(folder).parent != tmp_path / name
        assert process.PLAIN.fullmatch(folder)
        assert len(folder) + len(process.LONGEST) - len("/pet-bench-12345678") <= process.SOCKET
    assert not Path(folder).exists()


def test_a_folder_that_will_do_is_taken(temporary):
    with process.tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as own:
        temporary(Path(own))
        with process.lodging() as folder:
            assert str(Path(folder).parent) == own


def test_no_folder_will_do(temporary, tmp_path, monkeypatch):
    temporary(tmp_path / ("x" * 90))
    monkeypatch.setattr(process, "SHORT", ("/dev/null",))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(UserError, match=r"at most \d\d plain .*x, /dev/null\): set TMPDIR .*--executor inline"):
        process.lodging()


@pytest.mark.parametrize("name", UNPLAIN)
def test_a_shell_finds_the_environment_by_any_path(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys, "executable", str(environment_at(tmp_path / name)))
    with process.lodging() as folder:
        python = process.interpreter(Path(folder))
        said = subprocess.run(
            ["sh", "-c", f"exec {python} -c 'import sys; print(sys.prefix)'"], capture_output=True, text=True
        )
        assert said.stdout.strip() == f"{folder}/env", said.stderr


def test_a_plain_path_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/env-3.11/bin/python3")
    assert process.interpreter(tmp_path) == "/opt/env-3.11/bin/python3"
    assert list(tmp_path.iterdir()) == []


def test_the_command_imports_nothing_from_the_working_folder(tmp_path):
    for name in ("random", "typer", "yaml", "rich"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('shadowed {name}')")
    run = command("list", "metrics", cwd=tmp_path, stdout=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, "")
    assert "cider" in run.stdout


@pytest.mark.xdist_group("ray")
def test_all_of_it_at_once(plain, stand_in, tmp_path):
    """A real Ray; its worker reads a relative path of the command's working folder."""
    there = tmp_path / "wörk ing"
    there.mkdir()
    for name in ("random", "ray", "torch", "psutil", "json"):
        (there / f"{name}.py").write_text(f"raise SystemExit('shadowed {name}')")
    (there / "g.yaml").write_text(parse(plain | {"resources": {"gpus": 0}}).dump())
    (there / "where.py").write_text(
        "import pathlib\nclass Nothing:\n    plugin_kind = 'metric'\n    name = 'where'\n"
        "pathlib.Path('g.yaml').read_text()\n"
    )
    long = tmp_path / ("x" * 90)
    long.mkdir()
    variables = os.environ | {
        "TMPDIR": str(long), "HOME": "/dev/null", "PYTHONIOENCODING": "ascii", "PET_BENCH_CACHE": str(tmp_path)
    }  # fmt: skip
    run = command(
        "run", "g.yaml", "--out", "out", "--plugin", PLUGIN, "--plugin", "where.py",
        cwd=there, env=variables, python=environment_at(tmp_path / "a b"), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr + run.stdout
    assert run.stderr == ""
    assert "? lora ?" in run.stdout
    assert len(store.finished(there / "out")) == 2
    assert list(long.iterdir()) == []


def test_a_home_that_cannot_be_written_to(pet_bench, tmp_path, monkeypatch):
    monkeypatch.delenv("PET_BENCH_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    line = "run", "--method", "lora", "--out", tmp_path, "--executor", "inline"
    assert pet_bench(*line)[::2] == (2, [
        "pet-bench: error: the mini world: cannot write to the cache /dev/null/.cache/pet-bench/mini-image-text: "
        "Not a directory; PET_BENCH_CACHE=FOLDER names another place"
    ])  # fmt: skip


def test_nobody_has_a_home(monkeypatch):
    monkeypatch.delenv("PET_BENCH_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match=r"HOME is not set .*; PET_BENCH_CACHE=FOLDER names another place"):
        cache_dir()


# output ---------------------------------------------------------------------------------------------------------------

NARROW = [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}]


@pytest.fixture
def line_of(plain, tmp_path):
    """The command that runs a grid of two stand-ins, and its results folder."""
    (tmp_path / "g.yaml").write_text(parse(plain).dump())
    out = tmp_path / "out"
    return ("run", tmp_path / "g.yaml", "--out", out, "--plugin", PLUGIN, "--executor", "inline"), out


@pytest.mark.parametrize("variables", NARROW)
def test_what_cannot_be_encoded_is_replaced(line_of, variables):
    line, out = line_of
    run = command(*line, env=os.environ | variables, stdout=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, "")
    assert "bart-base ? lora ?" in run.stdout
    assert len(store.finished(out)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="unchecked: output that is full (no /dev/full)")
def test_output_that_is_full_is_one_line_and_no_trials_fault(line_of):
    line, out = line_of
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = command(*line, stdout=full)
    assert run.returncode == 2
    assert run.stderr == "pet-bench: error: standard output cannot be written to: No space left on device\n"
    assert not [result for result in store.load_all(out).values() if result.status == "failed"]


@pytest.mark.parametrize("words", [["list"], ["--help"], "run"])
def test_a_reader_that_has_gone(line_of, words):
    line, out = line_of
    read, write = os.pipe()
    os.close(read)
    run = command(*(line if words == "run" else words), stdout=write)
    os.close(write)
    assert (run.returncode, run.stderr) == (1, "")
    assert not out.exists() or not [one for one in store.load_all(out).values() if one.status == "failed"]


# why Ray does not run -------------------------------------------------------------------------------------------------


@pytest.fixture
def ray_that(plain, monkeypatch, tmp_path):
    """Starts of Ray that end one after another as told: (reason, of its own error?, ready?). Gives how many there were,
    and what the user is told."""

    def ends(*ways):
        starts, notes = [], []

        class Scheduler:
            over = False

            def events(self):
                return iter(())

            def end(self):
                return ways[len(starts) - 1][:2]

        @contextmanager
        def scheduler(*order):
            starts.append(order)
            started = Scheduler()
            started.ready = ways[len(starts) - 1][2]
            yield started

        monkeypatch.setattr(supervise, "_scheduler", scheduler)
        job = Job(
            parse({"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora"]}).trials()[0]
        )
        with pytest.raises(UserError) as caught:
            run_on_ray(None, [job], None, StopFlag(tmp_path / "stop"), Cluster(), notes.append)
        assert len(notes) == len(starts) - 1
        return len(starts), str(caught.value)

    return ends


OWN, OTHER, KILLED = ("port 6123 is taken", True, True), ("no room", True, True), ("killed by signal 9", False, True)


@pytest.mark.parametrize(
    ("ways", "starts"),
    [
        ([("ImportError: no ray", True, False)], 1),
        ([OWN, ("port 77 is taken", True, True)], 2),
        ([OWN, OTHER, OWN], 3),
        ([KILLED, KILLED, KILLED], 3),
        ([("killed by signal 9", False, False), ("ImportError: no ray", True, False)], 2),
    ],
)
def test_what_cannot_change_is_not_tried_again_and_the_reason_is_the_last_word(ray_that, ways, starts):
    count, said = ray_that(*ways)
    assert count == starts
    assert said.endswith(f": {ways[starts - 1][0]}")


def test_an_error_before_ray_is_said_once(plain, stand_in, quiet, out, tmp_path):
    (tmp_path / "broken.py").write_text(
        Path(PLUGIN).read_text() + "\ndef raising(specs):\n    raise ZeroDivisionError('of width 0')\n"
        "sys.modules['pet_bench.trial.check'].check_designs = raising\n"
    )
    runtime = Runtime(out=out, plugins=(str(tmp_path / "broken.py"),))
    with pytest.raises(UserError) as caught:
        run_grid(parse(plain | {"resources": {"gpus": 0}}), runtime, "ray", console=quiet)
    assert caught.value.faults == ("what runs the trials cannot be started: ZeroDivisionError: of width 0",)
    assert "again" not in quiet.file.getvalue()


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "ray" / "session_latest" / "logs"
    folder.mkdir(parents=True)

    def write(**files):
        for name, text in files.items():
            (folder / f"{name.replace('_', '-')}.err").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, ""),
        ({"raylet": "bash: line 1: /a: No such file\n"}, "bash: line 1: /a: No such file"),
        ({"raylet": "many words", "worker_1": ":job_id:1\nTraceback\nImportError: x\n\n"}, "ImportError: x"),
        ({"raylet": "words", "worker_1": ":job_id:1\n:actor_name:trial\n"}, "words"),
    ],
)
def test_last_words(logs, files, said):
    assert process.last_words(logs(**files)) == said


def watching(monkeypatch, folder, seconds, own):
    monkeypatch.setenv("PET_BENCH_START_SECONDS", "90")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watching_tune.time, "monotonic", lambda: clock.now)
    halt = Halt(Watch(None, lambda event: None), StopFlag(folder / "stop"), folder if own else None)
    clock.now = seconds
    return halt, clock


def test_a_worker_that_does_not_start_is_said_with_its_last_line(monkeypatch, logs):
    folder = logs(raylet="no such file")
    halt, clock = watching(monkeypatch, folder, 90.0, own=True)
    assert not halt.stop_all()
    clock.now = 90.5
    assert halt.stop_all()
    assert halt.fault == (
        "no worker has started within 90 s (PET_BENCH_START_SECONDS), --executor inline needs none: no such file"
    )


def test_workers_that_run_and_clusters_that_are_full_are_waited_for(monkeypatch, logs):
    halt, clock = watching(monkeypatch, logs(), 1e6, own=False)
    assert not halt.stop_all()
    halt, clock = watching(monkeypatch, logs(), 0.0, own=True)
    halt.watch.running.add("a")
    clock.now = 1e6
    assert not halt.stop_all()
    halt.watch._end(Ended("a", "result"))
    assert not halt.stop_all()
    clock.now += 91
    assert halt.stop_all()


# devices --------------------------------------------------------------------------------------------------------------

COMMANDS = {
    "run": ["run"], "dry run": ["run", "--dry-run", "--estimate", "earlier"],
    "inline": ["run", "--executor", "inline"], "rerun": ["rerun", "--trial", "{id}"],
}  # fmt: skip


@pytest.fixture
def gpus(monkeypatch):
    def there(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return there


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("device", ["", "meta", "cuda", "cuda:1", "cpu:7", "CPU", "gpu", "nonsense", "xla"])
def test_a_device_that_is_not_there_is_one_line(pet_bench, plain, stand_in, gpus, tmp_path, kind, device):
    gpus(0)
    grid = parse(plain)
    (tmp_path / "g.yaml").write_text(grid.dump())
    first, *rest = [word.format(id=grid.trials()[0].id) for word in COMMANDS[kind]]
    code, said, errors = pet_bench(first, tmp_path / "g.yaml", *rest, "--out", tmp_path / "out", "--device", device)
    assert (code, said) == (2, [])
    (line,) = errors
    assert line.startswith(f'pet-bench: error: device "{device}" cannot be used')
    assert "(possible: auto, cpu" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("device", "resources", "said"),
    [
        ("cuda:2", {}, 'device "cuda:2" cannot be used.*possible: auto, cpu, cuda, cuda:0, cuda:1'),
        ("auto", {"gpus": 3.0}, "a trial asks for 3 gpus, this machine has 2"),
        ("cuda:1", {"gpus": 2.0}, "a trial asks for 2 gpus, this machine has 1"),
        ("cuda", {"gpus": 0.0}, 'device "cuda" needs a GPU, a trial asks for 0 gpus'),
    ],
)
def test_two_gpus_are_not_enough(gpus, out, device, resources, said):
    gpus(2)
    with pytest.raises(UserError, match=said):
        check_place(Resources(**resources), Runtime(out=out, device=device))


@pytest.mark.parametrize(
    ("device", "gpus_of_a_trial"), [("auto", 1.0), ("cpu", 0.0), ("cuda", 1.0), ("cuda:0", 1.0), ("cuda:1", 1.0)]
)
def test_two_gpus_are_enough(gpus, out, device, gpus_of_a_trial):
    gpus(2)
    assert check_place(Resources(), Runtime(out=out, device=device)).gpus == gpus_of_a_trial
    assert check_place(Resources(gpus=0.25), Runtime(out=out, device="auto")).gpus == 0.25


def test_no_gpu_is_too_few_for_a_part_of_one(gpus, out):
    gpus(0)
    with pytest.raises(UserError, match=r"a trial asks for 0.5 gpus, this machine has 0"):
        check_place(Resources(gpus=0.5), Runtime(out=out))


def test_one_gpu_of_several_is_all_that_ray_sees(monkeypatch, out):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runtime, variables = supervise._on_one_gpu(Runtime(out=out, device="cuda:1"))
    assert (runtime.device, variables) == ("cuda", {"CUDA_VISIBLE_DEVICES": "1"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert supervise._on_one_gpu(Runtime(out=out, device="cuda:1"))[1] == {"CUDA_VISIBLE_DEVICES": "6"}
    assert supervise._on_one_gpu(Runtime(out=out, device="cuda"))[1] == {}


def test_a_time_that_is_none(pet_bench, plain, stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("PET_BENCH_START_SECONDS", "soon")
    (tmp_path / "g.yaml").write_text(parse(plain).dump())
    code, _, errors = pet_bench("run", tmp_path / "g.yaml", "--out", tmp_path / "out")
    assert code == 2
    assert errors == ['pet-bench: error: PET_BENCH_START_SECONDS is a whole number of seconds, found "soon"']
