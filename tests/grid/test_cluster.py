"""Grids on a Ray cluster that is there already: three nodes, simulated on this machine, which lose one and their head.

The cluster is started once. Tests that take something from it stand at the end, in the order of what they leave.
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.grid.claim import taken
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.execute.supervise import Cluster
from pet_bench.grid.plan.spec import parse
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.results import store
from pet_bench.spec import Runtime
from tests.conftest import EVERYTHING, everything
from tests.grid.conftest import PLUGIN, processes_with, until

pytestmark = pytest.mark.xdist_group("ray")
MARK = "PET_BENCH_TEST_CLUSTER"
ENVIRONMENT = {
    MARK: secrets.token_hex(8),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "1000",  # a node counts as dead after five of these
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",  # and a head after this; by default it is a minute
}
ONE = {"cpus": 1, "gpus": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The working folder of the cluster's processes."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, home):
    """A head and two nodes, with a core each; no process of theirs is left in the end."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    before = Path.cwd()
    patch.chdir(home)
    for name, value in (ENVIRONMENT | {"PET_BENCH_CACHE": str(tmp_path_factory.mktemp("cache"))}).items():
        patch.setenv(name, value)
    few = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **few})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    patch.chdir(before)
    yield cluster
    cluster.shutdown()
    patch.undo()
    try:
        until(lambda: not processes_with(MARK, ENVIRONMENT[MARK]))
    finally:
        left = processes_with(MARK, ENVIRONMENT[MARK])
        for process in left:
            process.kill()
        assert not left


def attempts(out):
    """(trial, process) of each attempt."""
    log = out / "attempts.txt"
    return [(line.split()[0], int(line.split()[1])) for line in log.read_text().splitlines()] if log.exists() else []


def raylet(node):
    """The process of a node that starts its workers."""
    return node.all_processes["raylet"][0].process.pid


# joining --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://somewhere:10001", "--ray-address takes HOST:PORT .*, or auto .*, found"),
        ("somewhere", "--ray-address takes HOST:PORT"),
        ("localhost:http", "--ray-address takes HOST:PORT"),
        ("127.0.0.1:{free}", r"no Ray cluster answers at 127.0.0.1:\d+: Connection refused"),
    ],
)
def test_an_address_where_no_cluster_is(plain, out, tmp_path, capsys, address, said):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    (tmp_path / "g.yaml").write_text(parse(plain).dump())
    with pytest.raises(SystemExit) as end:
        main(["run", str(tmp_path / "g.yaml"), "--out", str(out), "--ray-address", address.format(free=free)])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"pet-bench: error: {said}.*", line)
    assert list(out.iterdir()) == []


def test_a_trial_that_fits_no_node(plain, stand_in, cluster, out, tmp_path, capsys):
    (tmp_path / "g.yaml").write_text(parse(plain).dump())
    line = "run", tmp_path / "g.yaml", "--out", out, "--plugin", PLUGIN, "--ray-address", "auto", "--cpus", 2
    with pytest.raises(SystemExit) as end:
        main([*map(str, line)])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "pet-bench: error: resources: a trial asks for 2 cpus and 0 gpus, no node has that (most: 1 cpus, 0 gpus)"
    ]
    assert attempts(out) == []


@everything
@pytest.mark.skipif(
    not Path("/proc/self/cwd").exists(), reason="unchecked: a node that does not see the results (no /proc/self/cwd)"
)
def test_a_node_that_does_not_see_the_results(plain, stand_in, cluster, home, tmp_path, monkeypatch, capsys):
    """It comes in the middle, then it is there from the start. The results are in a folder below the working one."""
    held = parse(plain | {"methods": ["lora"], "seeds": [*range(4)], "recipe": {"lr": stand_in.HOLD}, "resources": ONE})
    (home / "g.yaml").write_text(held.dump())
    out = "/proc/self/cwd/out"
    line = "run", "g.yaml", "--out", out, "--plugin", PLUGIN, "--ray-address", cluster.address
    command = subprocess.Popen(
        [sys.executable, "-m", "pet_bench.cli", *line],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: command.poll() is not None or len(attempts(home / "out")) == 3)
    monkeypatch.chdir(tmp_path)
    node = cluster.add_node(num_cpus=1)
    monkeypatch.chdir(home)
    try:
        _, (said,) = (text.splitlines() for text in command.communicate(timeout=240))
        assert command.returncode == 2
        assert re.fullmatch(f'pet-bench: error: results folder "{out}": node .+ does not see it: it must be .+', said)
        assert len(attempts(home / "out")) == 3
        with pytest.raises(SystemExit) as end:
            main([*line])
        assert end.value.code == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(f'pet-bench: error: node .+ does not see the results folder "{out}": it must be .+', said)
        assert len(attempts(home / "out")) == 3
    finally:
        command.kill()
        cluster.remove_node(node)


# real trials ----------------------------------------------------------------------------------------------------------

SIZES = Sizes(
    coco_train=20, coco_restval=2, coco_val=4, coco_test=8, vg_train=10, vg_valid=2, gqa_testdev=4, nlvr_train=4,
    nlvr_valid=2, nlvr_test=4,
)  # fmt: skip
SHORT = {
    "name": "short", "suites": ["mini-image-text/vqa"], "backbones": ["mini-bart"], "methods": ["lora", "vl-adapter"],
    "seeds": [0, 1] if EVERYTHING else [0], "resources": ONE,
    "recipe": {"lr": 3e-3, "epochs": 2, "batch_size": 6, "valid_every": 1},
}  # fmt: skip
COUNTING = """
import os
from pathlib import Path
from pet_bench.trial import run, shared

class Nothing:
    plugin_kind = "metric"
    name = "counting"

def counted(function):
    def call(*arguments, **options):
        with Path(__file__).with_name("calls.txt").open("a") as file:
            file.write(f"{function.__name__} {os.getpid()}\\n")
        return function(*arguments, **options)
    return call

shared.read_data, shared.read_stock = counted(shared.read_data), counted(shared.read_stock)
run.run_trial = counted(run.run_trial)
"""


def test_data_and_backbone_are_read_once_and_the_numbers_stay_the_same(cluster, quiet, out, tmp_path):
    """Trials, each in a process of its own, against the same ones in this process."""
    write_image_text(tmp_path / "data", seed=3, sizes=SIZES)
    (tmp_path / "counting.py").write_text(COUNTING)
    grid = parse(SHORT)
    count = len(grid.trials())
    runtime = Runtime(out=out, data=tmp_path / "data", device="cpu", plugins=(str(tmp_path / "counting.py"),))
    outcome = run_grid(grid, runtime, cluster=Cluster(cluster.address), console=quiet)
    assert len(outcome.done + outcome.suspect) == count, quiet.file.getvalue()
    calls = [line.split() for line in (tmp_path / "calls.txt").read_text().splitlines()]
    assert Counter(name for name, _ in calls) == {"read_data": 1, "read_stock": 1, "run_trial": count}
    assert len({pid for name, pid in calls if name == "run_trial"}) == count
    assert len({pid for name, pid in calls if name != "run_trial"}) == 1

    inline = tmp_path / "inline"
    run_grid(grid, Runtime(out=inline, data=tmp_path / "data", device="cpu"), "inline", console=quiet)
    for trial in grid.trials():
        there, here = (store.load(folder / f"{trial.id}.json") for folder in (out, inline))
        for part in ("status", "metrics", "breakdowns", "average", "curve", "parameters", "selected"):
            assert getattr(there, part) == getattr(here, part), part
        files = [{path.name: path.read_bytes() for path in (folder / trial.id).iterdir()} for folder in (out, inline)]
        assert files[0] == files[1]
        assert {"adapter.safetensors", "predictions.vqa.jsonl.gz"} <= files[0].keys()


# losing nodes ---------------------------------------------------------------------------------------------------------


def test_a_node_is_lost_in_the_middle(plain, stand_in, cluster, quiet, out):
    grid = parse(plain | {"methods": ["lora"], "seeds": [*range(5)], "recipe": {"lr": stand_in.HOLD}, "resources": ONE})
    all_of_it = {trial.id for trial in grid.trials()}

    def started_by():
        """The trial that a node runs."""
        found = {}
        for id, pid in attempts(out):
            found[psutil.Process(pid).ppid()] = id
        return {node.node_id: found[raylet(node)] for node in cluster.list_all_nodes() if raylet(node) in found}

    with ThreadPoolExecutor(1) as pool:
        runtime = Runtime(out=out, plugins=(PLUGIN,))
        run = pool.submit(run_grid, grid, runtime, cluster=Cluster(cluster.address), console=quiet)
        try:
            on = until(lambda: run.done() or (len(found := started_by()) == 3 and found))
            assert not run.done(), run.result()
            lost = next(iter(cluster.worker_nodes))
            cluster.remove_node(lost, allow_graceful=False)
            until(lambda: run.done() or "again later" in quiet.file.getvalue())
        finally:
            (out / "go").touch()
        outcome = run.result()
    lines = quiet.file.getvalue().splitlines()
    assert [line.split("  ")[-1] for line in lines if line.startswith("again later")] == ["its node is gone"]
    assert set(outcome.done) == all_of_it
    assert len(outcome.done) == 5
    assert not outcome.failed + outcome.suspect + outcome.elsewhere + outcome.stopped
    assert Counter(id for id, _ in attempts(out)) == {id: 1 + (id == on[lost.node_id]) for id in all_of_it}
    assert sum(bool(re.match("[1-5]/5 done", line)) for line in lines) == 5  # each ended once
    results = store.load_all(out)
    assert {id: result.status for id, result in results.items()} == dict.fromkeys(all_of_it, "done")


@everything
def test_what_schedules_is_lost_and_then_the_head(plain, stand_in, cluster, quiet, out):
    held = {"when": {"method": "full"}, "recipe": {"lr": stand_in.HOLD}}
    grid = parse(plain | {"overrides": [held], "resources": ONE})
    quick, slow = (trial.id for trial in grid.trials())
    runtime = Runtime(out=out, plugins=(PLUGIN,))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_grid, grid, runtime, cluster=Cluster(cluster.address), console=quiet)
        address = cluster.address
        try:
            until(lambda: run.done() or (store.finished(out) and len(attempts(out)) == 2))
            (scheduling,) = (p for p in psutil.Process().children() if "pet_bench.grid.execute.driver" in p.cmdline())
            scheduling.kill()
            until(lambda: run.done() or len(attempts(out)) == 3)
        finally:
            cluster.remove_node(cluster.head_node, allow_graceful=False)
        error = run.exception()
    assert isinstance(error, UserError)
    assert list(error.faults) == [
        f"the Ray cluster at {address} is gone: its head does not answer; start it and run the same command again"
    ]
    assert "\nRay died (killed by signal 9): it is joined again, trials left: " in quiet.file.getvalue()
    assert store.finished(out) == {quick}
    until(lambda: not taken(out, slow))
    (out / "go").touch()
    outcome = run_grid(grid, runtime, "inline", console=quiet)
    assert (outcome.done, outcome.skipped) == ((slow,), (quick,))
    assert [id for id, _ in sorted(attempts(out))] == sorted([quick, slow, slow, slow])
    assert not list((out / ".locks").glob("stop-*"))
