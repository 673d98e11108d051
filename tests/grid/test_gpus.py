"""Which GPUs trials get of a Ray cluster. There are none: Ray counts what it is told that a node has.

The cluster is started once: a node with one GPU and a node with two.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pet_bench.cli import main
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.execute.supervise import Cluster
from pet_bench.grid.plan.spec import parse
from pet_bench.spec import Runtime
from tests.conftest import everything
from tests.grid.conftest import PLUGIN, until

pytestmark = pytest.mark.xdist_group("ray")
SEES = """

def seeing(spec, runtime, *arguments):
    import ray

    node, visible = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")
    with (runtime.out / "seen.txt").open("a") as file:
        file.write(f"{node} {visible} {runtime.ranks}\\n")
    return run_trial(spec, runtime, *arguments)


sys.modules["pet_bench.trial.run"].run_trial = seeing
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """The cluster's address, and its nodes by how many GPUs they have."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("home"))
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    patch.setenv("PET_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    few = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, **few})
    cluster.add_node(num_cpus=2, num_gpus=2)
    yield cluster.address, {1: cluster.head_node.node_id, 2: next(iter(cluster.worker_nodes)).node_id}
    cluster.shutdown()
    patch.undo()


@pytest.fixture
def seen(plain, stand_in, nodes, quiet, out, tmp_path):
    """Run so many trials with so many GPUs each until this many run side by side; gives what each has seen: its node,
    its GPUs and how many processes it may have."""
    plugin = tmp_path / "seeing.py"
    plugin.write_text(Path(PLUGIN).read_text() + SEES)

    def run(trials, gpus, together):
        held = {"methods": ["lora"], "seeds": [*range(trials)], "recipe": {"lr": stand_in.HOLD}}
        grid = parse(plain | held | {"resources": {"cpus": 0.1, "gpus": gpus}})
        file = out / "seen.txt"

        def lines():
            return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

        with ThreadPoolExecutor(1) as pool:
            runtime = Runtime(out=out, plugins=(str(plugin),))
            running = pool.submit(run_grid, grid, runtime, cluster=Cluster(nodes[0]), console=quiet)
            try:
                until(lambda: running.done() or len(lines()) == together)
            finally:
                (out / "go").touch()
            outcome = running.result()
        assert len(outcome.done) == trials, quiet.file.getvalue()
        return [(node, tuple(sorted(visible.split(","))), int(ranks)) for node, visible, ranks in lines()]

    return run


def test_fractions_pack(seen, nodes):
    """Six halves fill three GPUs, of which each trial sees its own."""
    one, two = nodes[1][1], nodes[1][2]
    assert Counter(seen(6, 0.5, together=6)) == {(one, ("0",), 1): 2, (two, ("0",), 1): 2, (two, ("1",), 1): 2}


@everything
def test_two_of_a_trial_lie_together(seen, nodes):
    """There is only one node with two, where one trial follows another with a process for each."""
    assert seen(2, 2, together=1) == [(nodes[1][2], ("0", "1"), 2)] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", 3], "resources: a trial asks for 0.1 cpus and 3 gpus, no node has that (most: 2 cpus, 2 gpus)"),
        (["--shard"], "--shard divides frozen weights among a trial's GPUs, and it has one: give it more (--gpus 2)"),
    ],
)
def test_more_than_a_node_has_is_one_line(plain, stand_in, nodes, out, tmp_path, capsys, words, said):
    (tmp_path / "g.yaml").write_text(parse(plain).dump())
    line = "run", tmp_path / "g.yaml", "--out", out, "--plugin", PLUGIN, "--ray-address", nodes[0], "--cpus", 0.1
    with pytest.raises(SystemExit) as end:
        main([*map(str, [*line, *words])])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"pet-bench: error: {said}"]
    assert not (out / "attempts.txt").exists()


def test_more_than_this_machine_has_is_one_line_without_ray_too(plain, stand_in, out, tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    (tmp_path / "g.yaml").write_text(parse(plain | {"resources": {"gpus": 3}}).dump())
    with pytest.raises(SystemExit) as end:
        main(["run", str(tmp_path / "g.yaml"), "--out", str(out), "--plugin", PLUGIN, "--executor", "inline"])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "pet-bench: error: resources: a trial asks for 3 gpus, this machine has 2"
    ]
    assert list(out.iterdir()) == []
