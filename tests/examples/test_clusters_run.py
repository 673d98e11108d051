"""The files for clusters, run as they are on simulated hosts, where `srun` and `ssh` lead. By `make test-all`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pet_bench.grid.plan.spec import parse
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.results import store
from tests.conftest import ROOT, everything
from tests.grid.hosts import Hosts, why_no_namespaces

pytestmark = [
    pytest.mark.xdist_group("ray"),
    everything,
]
FOLDER = ROOT / "examples" / "clusters"
SIZES = Sizes(
    coco_train=20, coco_restval=2, coco_val=4, coco_test=8, vg_train=10, vg_valid=2, gqa_testdev=4, nlvr_train=4,
    nlvr_valid=2, nlvr_test=4,
)  # fmt: skip
GRID = {
    "name": "short", "suites": ["mini-image-text/vqa"], "backbones": ["mini-bart"], "methods": ["lora", "vl-adapter"],
    "seeds": [0], "recipe": {"lr": 3e-3, "epochs": 1, "batch_size": 6},
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """Two hosts without Ray; gives them, and the variables with which a file is run."""
    if refused := why_no_namespaces():
        pytest.skip(f"unchecked: the files for clusters on hosts: namespaces are refused ({refused})")
    with Hosts(2, ray=False) as hosts:
        shared = hosts.head.path("shared")
        write_image_text(shared / "data", seed=3, sizes=SIZES)
        (shared / "g.yaml").write_text(parse(GRID).dump())
        binaries = tmp_path / "env" / "bin"
        binaries.mkdir(parents=True)
        for name, module in (("ray", "ray.scripts.scripts"), ("pet-bench", "pet_bench.cli")):
            script(binaries / name, f'exec {sys.executable} -m {module} "$@"')
        what = {"GRID": "g.yaml", "DATA": "data", "OUT": "out"}
        told = {name: hosts.head.at(f"shared/{there}") for name, there in what.items()}
        path = f"{binaries}:{os.environ['PATH']}"
        told |= {"PATH": path, "ENVIRONMENT": str(binaries.parent), "EXAMPLES": str(FOLDER)}
        yield hosts, hosts.head.environment | told


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def on(host) -> str:
    return f"nsenter -t {host.pid} -n -m -u -p --"


def finished(hosts: Hosts) -> set[str]:
    assert store.finished(hosts.head.path("shared") / "out") == {trial.id for trial in parse(GRID).trials()}
    return store.finished(hosts.head.path("shared") / "out")


def test_slurm(place, tmp_path):
    """`srun` starts what it is told on every host, and ends when all of them have."""
    hosts, variables = place
    commands = tmp_path / "env" / "bin"
    addresses = "\\n".join(host.address for host in hosts.hosts)
    script(commands / "scontrol", f'printf "{addresses}\\n"')
    lines = "\n".join(f'{on(host)} "$@" &' for host in hosts.hosts)
    script(commands / "srun", f'while [ "$1" != ray ]; do shift; done\n{lines}\nwait')
    told = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "1"}
    done = subprocess.run(
        ["bash", FOLDER / "slurm" / "grid.sbatch"], env=variables | told, capture_output=True, text=True
    )
    assert "0 faults, " in done.stdout, done.stdout + done.stderr
    assert "2 answer: 10.77.0.1, 10.77.0.2" in done.stdout
    assert finished(hosts), done.stdout


def test_plain_machines(place, tmp_path):
    """`ssh` starts what it is told on the host of that address."""
    hosts, variables = place
    told = {"HEAD": hosts.head.address, "OTHERS": hosts.hosts[1].address}

    def on_head(*line):
        return subprocess.run(
            [*on(hosts.head).split(), *map(str, line)], env=variables | told, capture_output=True, text=True
        )

    # the head cannot look into the other's namespaces: what it calls by ssh is called from outside of both
    start = FOLDER / "machines" / "cluster.sh"
    pid = "${HOST_PID:-" + str(hosts.head.pid) + "}"
    script(
        tmp_path / "env" / "bin" / "ray",
        f'exec nsenter -t "{pid}" -n -m -u -p -- {sys.executable} -m ray.scripts.scripts "$@"',
    )
    cases = "\n".join(f"{host.address}) export HOST_PID={host.pid} ;;" for host in hosts.hosts)
    script(tmp_path / "env" / "bin" / "ssh", f'case "$1" in\n{cases}\nesac\nshift\nexec "$@"')
    begun = subprocess.run(["bash", start, "start"], env=variables | told, capture_output=True, text=True)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    done = on_head("bash", FOLDER / "grid.sh", f"{hosts.head.address}:6379", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults, " in done.stdout and finished(hosts)
    ended = subprocess.run(["bash", start, "stop"], env=variables | told, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
