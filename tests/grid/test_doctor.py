"""`pet-bench doctor`: what facts mean, what is asked of nodes that hang, and this machine. Clusters: on hosts."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pet_bench.cli import main
from pet_bench.grid.doctor.agent import Agent
from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.facts import Clock, Facts, Gpu, Machine, Node, Packages, Room, Seen, Watched
from pet_bench.grid.doctor.judge import CHECKS, findings
from pet_bench.grid.doctor.nodes import Nodes, locally
from pet_bench.grid.doctor.shared import HERE, share

GIB = 2**30
A, B = "10.0.0.1", "10.0.0.2"
ASKED = Asked("/shared/out", data=None)
GPU = Gpu("H100", 79 * GIB, 80 * GIB)
MACHINE = Machine(
    "node", cores=8, processor="EPYC", memory=64 * GIB, available=60 * GIB, gpus=[GPU],
    shared=Room("/dev/shm", 30 * GIB, 32 * GIB), temporary=[Room("/tmp", 90 * GIB, 99 * GIB, 10**6)],
)  # fmt: skip
PACKAGES = Packages({"python": "3.11.7", "torch": "2.13.0", "pet-bench": "0.1.0"}, "0123456789abcdef")
SEEN = Seen(True, "token", room=Room("/shared/out", 90 * GIB, 99 * GIB, 10**6))


def node(name, **change):
    told = {
        "cpus": 8, "gpus": 1, "machine": MACHINE, "packages": PACKAGES, "seen": SEEN, "read": {A: A, B: B, "c": "c"},
        "clock": Clock(0.001, 0.002), "reached": {A: "", B: ""}, "locks": {A: "taken", B: "taken"}, "replaced": "",
    }  # fmt: skip
    return Node(name, **told | change)


def facts(**change):
    here = Node(HERE, machine=MACHINE, packages=PACKAGES, seen=SEEN)
    return Facts(here, [node(A), node(B, **change)], cluster=True)


def wrong(facts, asked=ASKED):
    return [(one.level, one.check, one.text) for one in findings(facts, asked) if one.level != "ok"]


def of(**change):
    return {"machine": replace(MACHINE, **change)}


# what facts mean ------------------------------------------------------------------------------------------------------


def test_every_check_has_a_line_and_in_their_order():
    found = findings(facts(), replace(ASKED, data="/shared/data"))
    assert [one.check for one in found] == [check.name for check in CHECKS if check.name != "ray"]
    assert {one.level for one in found if one.check != "data"} == {"ok"}
    assert all(one.text for one in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # these cannot be planted on simulated hosts
        (of(gpus=[], gpu_fault="RuntimeError: driver too old"),
         ("fault", "gpus", f"{B}: torch computes on none of its GPUs: RuntimeError: driver too old")),
        (of(gpus=[]), ("fault", "gpus", f"{B}: Ray hands out 1 GPUs, torch sees 0")),
        (of(gpus=[GPU, GPU]),
         ("caution", "gpus", f"{B}: torch sees 2 GPUs, Ray hands out 1: start Ray with --num-gpus=2")),
        (of(gpus=[replace(GPU, name="A100")]),
         ("caution", "gpus", "different GPUs: H100, A100; trials of one table round differently on them")),
        (of(gpus=[replace(GPU, free=40 * GIB)]),
         ("caution", "gpus", f"{B}: GPU 0 (H100): 40.0 GiB of 80.0 GiB are in use, by a process of somebody's")),
        (of(available=GIB // 2), ("fault", "memory", f"{B}: 0.5 GiB of memory are available (of 64.0 GiB)")),
        (of(cores=4), ("caution", "cores", f"{B}: Ray hands out 8 cpus of 4: --num-cpus=4")),
        (of(processor="Xeon"),
         ("caution", "cores", "different processors: EPYC, Xeon; trials round differently on them")),
        ({"cpus": 0}, ("caution", "room", f"{B}: gets no trial: one takes 1 cpus and 1 gpus")),
        ({"packages": replace(PACKAGES, commit="fedcba9876543210")},
         ("fault", "versions", f"{B}: pet-bench is of commit fedcba987654, here 0123456789ab: check out the same")),
        ({"packages": replace(PACKAGES, versions=PACKAGES.versions | {"torch": None})},
         ("fault", "versions", f"{B}: torch is not installed (here 2.13.0)")),
        ({"clock": Clock(-12.0, 0.5)}, ("fault", "clock", f"{B}: its clock is 11.5 s behind this one's; results say "
          "when they were made: set it (NTP)")),
        ({"clock": Clock(3.0, 2.5)}, ("caution", "clock", f"{B}: its clock can only be read within 2.5 s")),
        ({"read": {B: B, "c": "c"}}, ("fault", "results", f"{B}: does not see at once what {A} wrote: "
          "mount it without a cache of names")),
        ({"watched": {A: Watched(torn=3)}}, ("fault", "rename", f"{A}: a file that it renames over another is at times "
          f"half-written to {B}: results would be lost there")),
        ({"watched": {A: Watched(last=False)}},
         ("fault", "rename", f"{A}: what it renames over another is not seen by {B}")),
        ({"silent": {"start": "no answer within 120 s"}},
         ("fault", "nodes", f"{B}: starts no process: no answer within 120 s; see Ray's logs there")),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_node(change, expected):
    assert wrong(facts(**change)) == [expected]


def test_what_several_nodes_have_is_one_line():
    told = facts()
    old = replace(PACKAGES, versions=PACKAGES.versions | {"torch": "2.9.0"})
    told = replace(told, nodes=[replace(one, packages=old) for one in told.nodes])
    assert wrong(told) == [("fault", "versions", f"{A}, {B}: torch is 2.9.0, here 2.13.0: install the same")]


def test_whose_locks_they_are_that_hold_nobody_back():
    """Of three nodes, one's locks are its own."""
    told = facts(locks={A: "held", B: "taken", "c": "held"})
    third = node("c", locks={A: "taken", B: "held", "c": "taken"})
    told = replace(
        told, nodes=[replace(told.nodes[0], locks={A: "taken", B: "held", "c": "taken"}), told.nodes[1], third]
    )
    (line,) = wrong(told)
    assert line[:2] == ("fault", "locks") and line[2].startswith(f"{B}: locks do not exclude with {A}, c: ")


def test_a_grid_that_fits_no_node():
    (line,) = wrong(facts(), replace(ASKED, gpus=2))
    assert line == (
        "fault",
        "room",
        "no node has room for a trial: it takes 1 cpus and 2 gpus, there are 8 and 1 at most",
    )


# nodes that hang ------------------------------------------------------------------------------------------------------


class Hung(Agent):
    """Its storage never answers."""

    def see(self, *arguments):
        threading.Event().wait()
        return super().see(*arguments)


class Broken(Agent):
    def see(self, *arguments):
        raise RuntimeError("the worker died\nof something")


def test_a_node_that_hangs_holds_nobody_up(tmp_path):
    agents = {A: Agent(), B: Hung(), "c": Agent(), "d": Broken()}
    nodes = Nodes({name: locally(agent) for name, agent in agents.items()}, seconds=10)
    found = {name: {} for name in agents}
    seen, silence = share(nodes, Asked(str(tmp_path / "new" / "out")), found)
    assert seen and not seen.fault and not silence
    assert nodes.silent[B] == {"results": "no answer within 10 s"}
    assert nodes.silent["d"] == {"results": "of something"}
    for name, other in ((A, "c"), ("c", A)):
        assert found[name]["read"][other] == other
        assert found[name]["locks"] == {A: "taken", "c": "taken"}
        assert found[name]["watched"] == {other: Watched()}
    assert list(tmp_path.iterdir()) == []
    told = facts(silent=nodes.silent[B], seen=None)
    assert ("fault", "results", f"{B}: says nothing of its results: no answer within 10 s") in wrong(told)


# this machine ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def doctor(capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["doctor", *map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code or 0, said.out.splitlines(), said.err.splitlines()

    return call


def test_this_machine(doctor, tmp_path, monkeypatch):
    """Which can run a grid, or this would not run: no fault, and nothing is left."""
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.json").write_text(json.dumps([1]))
    code, lines, err = doctor("--out", tmp_path / "a" / "b", "--data", data)
    assert err == [] and not [line for line in lines if line.startswith("fault ")]
    assert code == 0 and lines[-1].startswith("0 faults, ")
    checks = {line.split()[1] for line in lines[:-1]}
    assert checks >= {"versions", "results", "rename", "locks", "data", "ray", "room"}
    assert not checks & {"nodes", "ports", "clock"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_is_wrong_with_this_machine(doctor, tmp_path, monkeypatch):
    """Three things at once, each a line; a grid that needs more than there is."""
    monkeypatch.setenv("PET_BENCH_CACHE", "/dev/null/cache")
    (tmp_path / "bad.py").write_text("import nowhere_to_be_found\n")
    grid = tmp_path / "g.yaml"
    grid.write_text("name: g\nsuites: [image-text]\nbackbones: [bart-base]\nmethods: [lora]\nresources: {cpus: 5000}\n")
    code, lines, err = doctor(
        grid, "--out", tmp_path / "out", "--data", tmp_path / "none", "--plugin", tmp_path / "bad.py"
    )
    assert (code, err) == (2, [])
    faults = {line.split()[1]: line for line in lines if line.startswith("fault ")}
    assert faults.keys() == {"plug-ins", "data", "caches", "room"}
    assert "No module named 'nowhere_to_be_found'" in faults["plug-ins"]
    assert f'does not see the data folder "{tmp_path / "none"}"' in faults["data"]
    assert "5000 cpus" in faults["room"]
    assert lines[-1].startswith("4 faults, ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--nodes", 3], "--nodes is for --ray-address"),
        (["--ray-address", "somewhere"], "--ray-address takes HOST:PORT of a cluster's head"),
        (["--ray-address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
        (["nothing"], 'unknown grid "nothing"'),
    ],
)
def test_what_cannot_be_asked(doctor, tmp_path, line, said):
    code, lines, err = doctor(*line, "--out", tmp_path / "out")
    assert (code, lines, len(err)) == (2, [], 1)
    assert err[0].startswith(f"pet-bench: error: {said}")
    assert not Path(tmp_path / "out").exists()
