"""`pet-bench doctor`, and a grid that loses a node, on three simulated hosts (`hosts`), where faults are planted.

Each fault is planted as it befalls people: a mount, a route, a package, a process; where a host's Python is changed for
it, its clock, its locks or its renames, `plant` says so. Those of one round are there at the same time, which doctor
looks at once. Faults of GPUs and of memory cannot be planted here: `test_doctor` has them as facts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pet_bench.grid.plan.spec import parse
from pet_bench.results import store
from tests.conftest import ROOT, everything
from tests.grid.conftest import PLUGIN, until
from tests.grid.hosts import Host, Hosts, Processes, why_no_namespaces

pytestmark = pytest.mark.xdist_group("ray")
METRIC = "class Tally:\n    plugin_kind = 'metric'\n    name = '{}'\n"
LINE = re.compile(r"(ok|caution|fault) +([\w-]+) +(.*)")


@pytest.fixture(scope="module")
def hosts():
    refused = why_no_namespaces() or os.environ.get("PET_BENCH_TEST_PROCESSES", "")
    with (Processes if refused else Hosts)(3) as hosts:
        hosts.refused = refused
        (hosts.head.path("shared") / "out").mkdir()
        for name in ("data", "other"):
            (hosts.head.path("shared") / name).mkdir()
            (hosts.head.path("shared") / name / "annotations.json").write_text(f'"{name}"')
        for host in hosts.hosts:
            (host.path("home") / "data").symlink_to(host.at("shared/data"))
            (host.path("home") / "loose.py").write_text(METRIC.format("loose"))
            installed(host)
        yield hosts


def installed(host: Host) -> None:
    """A package with a plug-in."""
    (host.path("site") / "tally.py").write_text(METRIC.format("tally"))
    about = host.path("site") / "tally-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tally\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[pet_bench.metrics]\ntally = tally:Tally\n")


# the faults -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """number: of the host that is named (0: none). said: a pattern of the line. apart: whether hosts must be apart."""

    round: str
    number: int
    check: str
    said: str
    plant: Callable[[Host], object]
    mend: Callable[[Host], object] = Host.clear
    apart: bool = False
    level: str = "fault"


def python(code: str) -> Callable[[Host], object]:
    """What every Python on the host runs when it starts."""
    return lambda host: host.plant(re.sub(r"\W+", "_", code)[:40], code)


def shell(line: str) -> Callable[[Host], object]:
    """BASE stands for the folder of all hosts."""
    return lambda host: host.shell(line.replace("BASE", host.hosts.base))


def of_site(name: str) -> Callable[[Host], object]:
    return lambda host: shutil.rmtree(host.path("site") / name)


def other_torch(host: Host) -> None:
    about = host.path("site") / "torch-2.0.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n")


def other_pet_bench(host: Host) -> None:
    package = host.path("site") / "pet_bench"
    shutil.copytree(ROOT / "pet_bench", package, ignore=shutil.ignore_patterns("__pycache__", "mini"))
    door = package / "__init__.py"
    door.write_text(re.sub(r'__version__ = "[^"]+"', '__version__ = "0.0.9"', door.read_text()))


def other_data(host: Host) -> None:
    (host.path("home") / "data").unlink()
    (host.path("home") / "data").symlink_to(host.at("shared/other"))


def same_data(host: Host) -> None:
    (host.path("home") / "data").unlink(missing_ok=True)
    (host.path("home") / "data").symlink_to(host.at("shared/data"))


def nothing(host: Host) -> None:
    """It is an argument of the command."""


AHEAD = "import time\nread = time.time\ntime.time = lambda: read() + 300\n"
NO_LOCKS = """
import errno, fcntl, os

def flock(file, kind, real=fcntl.flock):
    where = os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")
    if "/shared/" in where:  # Ray's own lie elsewhere
        raise OSError(errno.ENOLCK, "No locks available")
    return real(file, kind)

fcntl.flock = flock
"""
EMPTY_LOCKS = "import fcntl\nfcntl.flock = lambda file, kind: None\n"
COPIED = """
import os, shutil

def replace(source, target, **more):
    if os.path.exists(target):
        os.unlink(target)
    shutil.copyfile(source, target)
    os.unlink(source)

os.replace = replace
"""
ONLINE = "import os\nos.environ['HF_HUB_OFFLINE'] = '0'\n"
FAULTS = [
    Fault("a", 2, "clock", r"its clock is 300\.\d s ahead of this one's", python(AHEAD)),
    Fault("a", 2, "versions", r"torch is 2\.0\.0, here .+: install the same", other_torch,
          of_site("torch-2.0.0.dist-info")),
    Fault("a", 2, "disk", r'0\.\d GiB are free for temporary files in ".+" \(of 0\.1 GiB\)',
          shell("mount -o remount,size=128m BASE/t"), shell("mount -o remount,size=16g BASE/t"), apart=True),
    Fault("a", 2, "caches", r"~/\.cache/pet-bench: Read-only file system; .+ PET_BENCH_CACHE=FOLDER",
          shell("mount -o remount,ro BASE/home"), shell("mount -o remount,rw BASE/home"), apart=True),
    Fault("a", 3, "plug-ins", "does not have metrics tally of tally: install it there", of_site("tally-1.0.dist-info"),
          lambda host: installed(host)),
    Fault("a", 3, "data", "has other files in the data folder than this machine: annotations.json", other_data,
          same_data, apart=True),
    Fault("a", 3, "shm", r"/dev/shm has 0\.1 GiB: give the container more",
          shell("mount -t tmpfs -o size=64m none /dev/shm"), shell("umount /dev/shm"), apart=True),
    Fault("a", 3, "variables", "HF_HUB_OFFLINE is 0, here 1", python(ONLINE), level="caution"),
    Fault("b", 2, "results", 'has another folder as ".+/shared/out": it must be shared',
          shell("mount -t tmpfs none BASE/shared/out"), shell("umount BASE/shared/out"), apart=True),
    Fault("b", 2, "ports", r"does not reach 10\.77\.0\.3: No route to host",
          shell("ip route add unreachable 10.77.0.3"), shell("ip route del unreachable 10.77.0.3"), apart=True),
    Fault("b", 3, "ports", r"does not reach 10\.77\.0\.2: timed out", nothing, nothing, apart=True),  # no answer back
    Fault("b", 3, "locks", "no locks: No locks available; mount it with flock", python(NO_LOCKS)),
    Fault("b", 3, "versions", r"pet-bench is 0\.0\.9, here .+: install the same", other_pet_bench,
          of_site("pet_bench")),
    Fault("b", 3, "plug-ins", r'.+/loose\.py cannot be loaded: plug-in ".+/loose\.py": no such file',
          lambda host: (host.path("home") / "loose.py").unlink(),
          lambda host: (host.path("home") / "loose.py").write_text(METRIC.format("loose")), apart=True),
    Fault("c", 2, "rename", r"a file that it renames over another is at times missing.* to .+: results would be lost",
          python(COPIED)),
    Fault("c", 2, "locks", "locks do not exclude with .+: two would run one trial", python(EMPTY_LOCKS)),
    Fault("c", 2, "data", 'does not see the data folder ".+/data"', lambda host: (host.path("home") / "data").unlink(),
          same_data, apart=True),
    Fault("c", 3, "results", 'cannot write to ".+/shared/out": Read-only file system',
          shell("mount --bind BASE/shared/out BASE/shared/out && mount -o remount,bind,ro BASE/shared/out"),
          shell("umount BASE/shared/out"), apart=True),
    Fault("c", 0, "nodes", r"3 nodes are there, 4 are to be \(--nodes\)", nothing, nothing),
    Fault("d", 3, "results", 'does not see ".+/small/out": it must be shared', shell("umount BASE/small"), nothing,
          apart=True),
    Fault("d", 0, "disk", r'0\.1 GiB are free for results in ".+/small/out" \(of 0\.1 GiB\)', nothing, nothing,
          apart=True),
    Fault("d", 0, "disk", r'\d+ more files can be made for results in ".+/small/out" \(inodes\)', nothing, nothing,
          apart=True),
]  # fmt: skip


def said_by_doctor(hosts: Hosts, out: str = "shared/out", nodes: int = 3, code: int = 2) -> list[tuple[str, ...]]:
    """Its lines: level, check, text."""
    head = hosts.head
    done = head.pet_bench(
        "doctor", "--ray-address", hosts.ray_address, "--out", head.at(out), "--data", head.at("home/data"),
        "--plugin", head.at("home/loose.py"), "--nodes", nodes,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    found = [LINE.fullmatch(line).groups() for line in lines]
    count = Counter(level for level, *_ in found)
    assert last.startswith(f"{count['fault']} fault{'s' * (count['fault'] != 1)}, ")
    return found


@pytest.fixture(scope="module")
def told(hosts):
    """What doctor says of a round: it is asked once."""
    kept: dict[str, list[tuple[str, ...]]] = {}

    def of(name):
        if name not in kept:
            planted = [one for one in FAULTS if one.round == name and not (one.apart and hosts.refused)]
            on = {one: hosts.hosts[max(one.number, 1) - 1] for one in planted}
            for one, host in on.items():
                one.plant(host)
            kept[name] = said_by_doctor(hosts, "small/out" if name == "d" else "shared/out", 4 if name == "c" else 3)
            for one, host in on.items():
                one.mend(host)
        return kept[name]

    return of


def is_of(fault: Fault, hosts: Hosts, line: tuple[str, ...]) -> bool:
    level, check, text = line
    named = f"{re.escape(hosts.hosts[fault.number - 1].address)}: " if fault.number else r"(this machine: )?"
    return (level, check) == (fault.level, fault.check) and re.match(named + fault.said, text) is not None


# what it finds --------------------------------------------------------------------------------------------------------


def test_a_sound_cluster_has_no_fault(hosts):
    found = said_by_doctor(hosts, "shared/new/out", code=0)
    assert "fault" not in {level for level, *_ in found}
    sound = Counter(check for level, check, _ in found if level == "ok")
    assert sound.keys() >= {"nodes", "results", "rename", "locks", "ports", "clock"} and max(sound.values()) == 1
    assert not (hosts.head.path("shared") / "new").exists()
    assert all(host.address in next(text for _, check, text in found if check == "nodes") for host in hosts.hosts)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: f"{one.round}-{one.check}-{one.number}")
def test_it_is_found(hosts, told, fault):
    if fault.apart and hosts.refused:
        pytest.skip(f"unchecked: {fault.said}: it takes namespaces, which are refused ({hosts.refused})")
    lines = told(fault.round)
    assert sum(is_of(fault, hosts, line) for line in lines) == 1, lines


@pytest.mark.parametrize("name", sorted({fault.round for fault in FAULTS if fault.round != "d"}))
def test_nothing_else_is_found(hosts, told, name):
    """But for what is so of this machine, which all hosts are."""
    planted = [one for one in FAULTS if one.round == name]
    lines = [line for line in told(name) if line[0] == "fault"]
    assert [line for line in lines if not any(is_of(one, hosts, line) for one in planted)] == []
    assert not [path.name for path in (hosts.head.path("shared") / "out").iterdir()]


# a node that is lost --------------------------------------------------------------------------------------------------


@everything
def test_a_grid_ends_on_the_others_where_a_host_is_lost_in_the_middle(hosts, plain, stand_in):
    """And doctor then says which is gone."""
    head, _, lost = hosts.hosts
    grid = parse(plain | {
        "methods": ["lora"], "seeds": [*range(4)], "recipe": {"lr": stand_in.HOLD}, "resources": {"cpus": 1, "gpus": 0}
    })  # fmt: skip
    there, out = head.path("shared"), head.path("shared") / "lost"
    (there / "g.yaml").write_text(grid.dump())
    out.mkdir()

    def attempts():
        log = out / "attempts.txt"
        return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()

    with (there / "said.txt").open("w+") as said:
        run = head.start(
            sys.executable, "-m", "pet_bench.cli", "run", head.at("shared/g.yaml"), "--plugin", PLUGIN, "--out",
            head.at("shared/lost"), "--ray-address", hosts.ray_address, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip

        def words():
            return (there / "said.txt").read_text()

        try:
            until(lambda: run.poll() is not None or attempts().total() == 3)
            assert run.poll() is None, words()
            lost.lose()
            until(lambda: run.poll() is not None or "again later" in words())
        finally:
            (out / "go").touch()
            code = run.wait()
    assert code == 0, words()
    again = [line for line in words().splitlines() if line.startswith("again later")]
    assert len(again) == 1 and again[0].endswith("its node is gone")
    ids = {trial.id for trial in grid.trials()}
    assert store.finished(out) == ids == {*attempts()}
    assert sorted(attempts().values()) == [1, 1, 1, 2]

    lines = said_by_doctor(hosts)
    faults = [text for level, check, text in lines if (level, check) == ("fault", "nodes")]
    assert any("2 nodes are there, 3 are to be" in text for text in faults)
    if not hosts.refused:  # else the others have the same address
        (gone,) = (text for text in faults if "is gone" in text)
        assert gone.startswith(f"{lost.address}: ")
