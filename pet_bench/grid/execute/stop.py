"""Being asked to stop: a file says so to every process of a run, and signals put it up."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from pet_bench.grid.claim import LOCKS


class StopFlag:
    """A file whose presence tells all workers of one grid run, on every node, to save a checkpoint and leave."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def of(cls, out: Path) -> StopFlag:
        return cls(out / LOCKS / f"stop-{os.getpid()}-{secrets.token_hex(4)}")

    @property
    def is_up(self) -> bool:
        return self.path.exists()

    def put_up(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def take_down(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


@contextmanager
def stopping(stop: StopFlag, say: Callable[[str], None]) -> Iterator[None]:
    """Signals put the flag up; where it is up, or cannot be, they raise KeyboardInterrupt."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_up:
            raise KeyboardInterrupt
        try:
            stop.put_up()
        except OSError:
            raise KeyboardInterrupt from None
        say("stopping: running trials save a checkpoint (once more: stop at once)")

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # the terminal is gone
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
