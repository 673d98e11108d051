"""Questions to several machines at once, none of which may keep the others waiting for long."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any

Call = Callable[..., "Future[Any]"]  # of an agent's method, by name, with its arguments
Each = Mapping[str, tuple[Any, ...]]  # arguments by node


def locally(agent: Any) -> Call:
    """Questions to an agent of this process: a thread each, which does not keep the process from ending."""

    def call(method: str, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def answer() -> None:
            try:
                future.set_result(getattr(agent, method)(*arguments))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=answer, daemon=True).start()
        return future

    return call


class Nodes:
    """Agents by name. silent: of those that gave no answer, to what and why; they are asked that kind no more."""

    def __init__(self, calls: Mapping[str, Call], seconds: float):
        self.calls, self.seconds = calls, seconds
        self.silent: dict[str, dict[str, str]] = defaultdict(dict)

    def able(self, what: str) -> list[str]:
        """Those that may be asked that: they have started, and answered what was asked of that kind before."""
        return [name for name in self.calls if not {STARTED, what} & self.silent[name].keys()]

    def begin(self, what: str, method: str, *arguments: Any, of: Each | None = None) -> dict[str, Future]:
        """Ask all, or each of `of` with its own arguments."""
        each = dict.fromkeys(self.calls, arguments) if of is None else of
        return {name: self.calls[name](method, *each[name]) for name in self.able(what) if name in each}

    def end(self, what: str, asked: Mapping[str, Future]) -> dict[str, Any]:
        """The answers of those that gave one in time."""
        wait(asked.values(), timeout=self.seconds)
        answers = {}
        for name, future in asked.items():
            if not future.done():
                self.silent[name][what] = f"no answer within {self.seconds:g} s"
            elif error := future.exception():
                lines = [line for line in str(error).splitlines() if line.strip()]
                self.silent[name][what] = lines[-1].strip()[:300] if lines else type(error).__name__
            else:
                answers[name] = future.result()
        return answers

    def ask(self, what: str, method: str, *arguments: Any, of: Each | None = None) -> dict[str, Any]:
        return self.end(what, self.begin(what, method, *arguments, of=of))


STARTED = "start"
