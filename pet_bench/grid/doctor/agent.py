"""Who answers on a machine, one question after another or several at once. As `machine`, it goes as code to nodes."""

from __future__ import annotations

import time
from typing import Any

from pet_bench.grid.doctor.folders import Lock, content, read, replace_often, see, watch
from pet_bench.grid.doctor.machine import machine
from pet_bench.grid.doctor.packages import packages
from pet_bench.grid.doctor.wire import Listening, reach


class Agent:
    """What it gives is plain data. held: the lock that it has. listening: its port."""

    def __init__(self) -> None:
        self.held: Any = None
        self.listening: Any = None

    def ready(self) -> bool:
        return True

    def now(self) -> float:
        return time.time()

    def machine(self, *arguments: Any) -> dict[str, Any]:
        return machine(*arguments)

    def packages(self, plugins: tuple[str, ...]) -> dict[str, Any]:
        return packages(plugins)

    def content(self, root: str) -> dict[str, Any] | None:
        return content(root)

    def see(self, out: str, probe: str, name: str) -> dict[str, Any]:
        return see(out, probe, name)

    def read(self, probe: str) -> dict[str, str]:
        return read(probe)

    def replace_often(self, probe: str, name: str, seconds: float) -> str:
        return replace_often(probe, name, seconds)

    def watch(self, probe: str, name: str, seconds: float) -> dict[str, Any]:
        return watch(probe, name, seconds)

    def hold(self, probe: str) -> str:
        """Take the lock and keep it."""
        self.held = Lock(probe)
        return self.held.take()

    def give_back(self) -> None:
        self.held.give_back()

    def try_lock(self, probe: str) -> str:
        """Whether the lock can be had, beside what this agent holds itself."""
        lock = Lock(probe)
        try:
            return lock.take()
        finally:
            lock.give_back()

    def listen(self, word: str) -> int:
        self.listening = Listening(word)
        return self.listening.port

    def reach(self, places: dict[str, tuple[str, int]]) -> dict[str, str]:
        return reach(places)

    def close(self) -> None:
        if self.listening:
            self.listening.close()
