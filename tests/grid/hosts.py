"""Hosts of a cluster, simulated on one machine, each with a Ray node.

`Namespaces`: each host has a network, mounts, processes and a name of its own, as a container has; a switch connects
them, and everything is gone with its first process. It takes root, or whoever may make namespaces. `Processes`: where
that is not allowed, each host is a set of processes with a home and a folder for temporary files of its own.

On every host BASE/shared is shared, and so is BASE/small, which has little space; BASE/home, BASE/t (temporary files)
and BASE/site are its own. What is put on a host by `plant` runs in each Python that starts there afterwards, until it
is taken away.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from pet_bench.grid.execute.process import kill_session
from tests.grid.conftest import processes_with, until

TOOLS = ("setpriv", "unshare", "nsenter", "ip", "mount", "hostname")
MARK = "PET_BENCH_TEST_HOST"
OWN = ("home", "t", "site")
NET = "10.77.0"
PLANTED = """
import runpy
from pathlib import Path

for path in sorted(Path(__file__).with_name("planted").glob("*.py")):
    runpy.run_path(str(path))
"""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "400",
    # a node counts as dead after five of these, each of which waits so long: nothing answers for one without power
    "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000",
}  # fmt: skip
FEW = ("--disable-usage-stats", "--include-log-monitor=false")
STORE = "--object-store-memory=100000000"


def why_no_namespaces() -> str:
    """Why there can be no `Namespaces` here, or nothing."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"no {', '.join(missing)}"
    room = "ip link add name switch type bridge && mount -t tmpfs none /mnt"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "sh", "-c", room],
        capture_output=True, text=True,
    )  # fmt: skip
    return (tried.stderr.strip() or f"exit status {tried.returncode}") if tried.returncode else ""


class Host:
    """A host by its address. pid: of its first process."""

    def __init__(self, hosts: Hosts, number: int):
        self.hosts, self.number = hosts, number
        self.pid = 0
        self.log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  open as long as the host is
        self.ray: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """By which doctor names it."""
        return f"{NET}.{self.number}"

    def path(self, place: str) -> Path:
        """What it has as BASE/place, for the test."""
        return Path(f"/proc/{self.pid}/root{self.hosts.base}/{place}")

    def at(self, place: str) -> str:
        """How it calls that itself."""
        return f"{self.hosts.base}/{place}"

    @property
    def environment(self) -> dict[str, str]:
        own = {"HOME": "home", "TMPDIR": "t", "RAY_TMPDIR": "t", "PYTHONPATH": "site"}
        there = {name: self.at(place) for name, place in own.items()}
        return {"PATH": os.environ["PATH"], **ENVIRONMENT, **there}

    def line(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p", "--", *command]

    def start(self, *command: str, **options) -> subprocess.Popen:
        return subprocess.Popen(self.line(*command), env=self.environment, start_new_session=True, **options)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess:
        """A command to its end."""
        env = self.environment | variables
        return subprocess.run(self.line(*command), env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def shell(self, line: str) -> None:
        done = self.run("sh", "-c", line)
        assert done.returncode == 0, done.stderr

    def pet_bench(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "pet_bench.cli", *map(str, arguments), **variables)

    def plant(self, name: str, code: str) -> None:
        (self.path("site") / "planted" / f"{name}.py").write_text(code)

    def clear(self) -> None:
        for path in (self.path("site") / "planted").iterdir():
            path.unlink()

    def start_ray(self, *options: str) -> None:
        self.ray = self.start(
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", STORE, *FEW, *options,
            stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def started(self) -> bool:
        self.log.seek(0)
        said = self.log.read().decode()
        assert self.ray is None or self.ray.poll() is None, said
        return "Ray runtime started" in said

    def lose(self) -> None:
        """As if its power were cut."""
        psutil.Process(self.pid).kill()


class Hosts:
    """A head and others, with an object store and a core each; `with` ends all of it. ray: whether Ray is started."""

    host: type[Host] = Host

    def __init__(self, count: int, *, ray: bool = True):
        self.with_ray = ray
        self.refused, self.ray_address = "", "auto"
        self.base = tempfile.mkdtemp(prefix="pb", dir="/tmp")  # sockets have short names
        self.hosts = [self.host(self, number) for number in range(1, count + 1)]
        self.begun: list[subprocess.Popen] = []

    @property
    def head(self) -> Host:
        return self.hosts[0]

    def __enter__(self) -> Hosts:
        try:
            self.build()
            for host in self.hosts:
                (host.path("site") / "planted").mkdir()
                (host.path("site") / "sitecustomize.py").write_text(PLANTED)
            if self.with_ray:
                self.start_ray()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self) -> None:
        room = self._begin(["setpriv", "--pdeathsig", "KILL"], "--net", "--mount", "--pid")
        enter = ["nsenter", "-t", str(room), "-n", "-m", "-p", "--"]
        folders = " ".join(f"{self.base}/{name}" for name in (*OWN, "shared", "small"))
        self._shell(enter, f"mount -t tmpfs -o size=16g none {self.base} && mkdir {folders}")
        self._shell(enter, f"mount -t tmpfs -o size=64m,nr_inodes=500 none {self.base}/small")
        self._shell(enter, "ip link set lo up && ip link add name switch type bridge && ip link set switch up")
        for host in self.hosts:
            host.pid = self._begin(enter, "--net", "--mount", "--pid", "--uts")
            n = host.number
            wire = (
                f"ip link add name v{n} type veth peer name eth0 netns {host.pid} && ip link set v{n} master switch up"
            )
            self._shell(["nsenter", "-t", str(room), "-n", "--"], wire)
            places = ("/dev/shm", *map(host.at, OWN))
            own = " && ".join(f"mount -t tmpfs -o size=16g none {place}" for place in places)
            host.shell(f"hostname node{n} && {own}")
            host.shell(f"ip link set lo up && ip addr add {host.address}/24 dev eth0 && ip link set eth0 up")

    def _begin(self, within: list[str], *kinds: str) -> int:
        """A process that holds new namespaces, and dies with the one that starts it; its number here."""
        line = [*within, "unshare", *kinds, "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"]
        process = subprocess.Popen(line, start_new_session=True)
        self.begun.append(process)

        def sleeping():
            below = psutil.Process(process.pid).children(recursive=True)
            return next((one.pid for one in below if one.name() == "sleep"), None)

        return until(sleeping)

    @staticmethod
    def _shell(within: list[str], line: str) -> None:
        subprocess.run([*within, "sh", "-c", line], check=True)

    def start_ray(self) -> None:
        self.join()

    def join(self, at: str = "", port: int = 6379) -> None:
        """Start Ray on the head and then on the others; at: an address that all of them have."""
        head, *others = self.hosts
        head.start_ray(
            "--head", "--include-dashboard=false", f"--port={port}", f"--node-ip-address={at or head.address}"
        )
        until(head.started)
        for host in others:
            host.start_ray(f"--address={at or head.address}:{port}", f"--node-ip-address={at or host.address}")
        until(lambda: all(host.started() for host in others))

    def __exit__(self, *ignored: object) -> None:
        for process in reversed(self.begun):
            with suppress(psutil.Error):
                for below in psutil.Process(process.pid).children(recursive=True):
                    below.kill()
            process.kill()
            process.wait()
        for host in self.hosts:
            if host.ray:
                kill_session(host.ray.pid)
                host.ray.wait()
        shutil.rmtree(self.base, ignore_errors=True)


@cache
def own_address() -> str:
    """Of this machine, as Ray has it."""
    from ray.util import get_node_ip_address

    return get_node_ip_address()


class Process(Host):
    """A host that shares all but its folders with the others. port: of its node manager, by which doctor tells it."""

    def __init__(self, hosts: Hosts, number: int):
        super().__init__(hosts, number)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.mark = secrets.token_hex(8)

    @property
    def address(self) -> str:
        return f"{own_address()}:{self.port}"

    def at(self, place: str) -> str:
        own = place.split("/")[0] in OWN
        return f"{self.hosts.base}/{self.number}/{place}" if own else f"{self.hosts.base}/{place}"

    def path(self, place: str) -> Path:
        return Path(self.at(place))

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {MARK: self.mark}

    def line(self, *command: str) -> list[str]:
        return [*command]

    def start_ray(self, *options: str) -> None:
        ports = ("--min-worker-port=0", "--max-worker-port=0", f"--node-manager-port={self.port}")
        super().start_ray(*ports, *options)

    def lose(self) -> None:
        while left := processes_with(MARK, self.mark):
            for process in left:
                with suppress(psutil.Error):
                    process.kill()


class Processes(Hosts):
    host = Process

    def build(self) -> None:
        for name in ("shared", *(f"{host.number}/{own}" for host in self.hosts for own in OWN)):
            Path(self.base, name).mkdir(parents=True)

    def start_ray(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.ray_address = f"{own_address()}:{port}"
        self.join(own_address(), port)

    def __exit__(self, *ignored: object) -> None:
        for host in self.hosts:
            host.lose()
        super().__exit__()
