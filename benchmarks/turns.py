"""Ways of doing one thing, each in a process of its own, that take turns: medians of the ratios within a round.

A process waits for a line, does the thing once and writes how long it took and the peak of its resident memory; while
one works the others wait. Ratios say more than seconds, which are this machine's.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Way:
    """A script, on this or another checkout's code, that is told `--serve NAME` and all that this one was told."""

    def __init__(self, script: str, name: str, checkout: Path, python: str = sys.executable):
        paths = [str(checkout.resolve()), str(Path(__file__).parent)]
        self.process = subprocess.Popen(
            [python, script, "--serve", name, *sys.argv[1:]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip

    def once(self) -> tuple[float, float]:
        """Seconds and MiB."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            sys.exit("a way has failed")
        seconds, memory = json.loads(line)
        return seconds, memory


def answer(do: Callable[[], Any], clock: str = "wall") -> None:
    """What a script does when it is told to serve. clock: "wall", or "cpu" for the process's own seconds, which with
    one thread count where other programs keep the cores busy."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    for _ in sys.stdin:
        start = now()
        do()
        seconds = now() - start
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


def by_turns(ways: Mapping[str, Way], rounds: int, warm: int) -> None:
    """Print each way's median seconds, the median of the ratios of `here` to it in each round, and its peak."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(warm + rounds):
        for name in list(ways) if number % 2 else reversed(ways):
            taken[name].append(ways[name].once())
    print(f"{'':8} {'seconds':>8} {'here / it':>10} {'memory MiB':>11}")
    for name, each in taken.items():
        ratios = [a / b for (a, _), (b, _) in list(zip(taken["here"], each, strict=True))[warm:]]
        seconds = statistics.median(second for second, _ in each[warm:])
        print(f"{name:8} {seconds:8.3f} {statistics.median(ratios):10.3f} {each[-1][1]:11,.0f}")
