"""Errors a user can cause: said in one line each, before any expensive work, with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault in what the user gave: what was wrong, what was found, what is possible.

    `faults` holds one line per fault, so that everything wrong with a file is reported together.
    """

    def __init__(self, *faults: str):
        self.faults = tuple(" ".join(fault.split()) for fault in faults)
        super().__init__("\n".join(self.faults))

    @classmethod
    def many(cls, faults: Iterable[str | UserError]) -> UserError:
        """One error of several faults; errors among them are flattened and repeats dropped."""
        lines = [line for fault in faults for line in (fault.faults if isinstance(fault, UserError) else [fault])]
        return cls(*dict.fromkeys(lines))


def shortened(text: str, most: int = 100) -> str:
    """A text that somebody gave, for a message: `xxxxxxxx… (10,000 characters)` where it is long."""
    return text if len(text) <= most else f"{text[: most // 2]}… ({len(text):,} characters)"


class Stop(BaseException):
    """Raised by a trial's progress callback: save a checkpoint and leave. No fault, hence no Exception."""


def unknown(kind: str, name: str, possible: Iterable[str]) -> UserError:
    """`unknown method "lroa": did you mean "lora"? (possible: …)`"""
    possible = sorted(possible)
    close = difflib.get_close_matches(str(name)[:100], possible, n=1)
    hint = f' did you mean "{close[0]}"?' if close else ""
    return UserError(f'unknown {kind} "{shortened(str(name))}":{hint} (possible: {", ".join(possible) or "none"})')


class Faults:
    """Collects faults so that all of them are raised at once.

    >>> faults = Faults()
    >>> with faults: raise UserError("seed must be an integer, found 'x'")
    >>> faults.check()          # raises one UserError with every fault collected
    """

    def __init__(self) -> None:
        self.found: list[UserError | str] = []

    def add(self, fault: str | UserError) -> None:
        self.found.append(fault)

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if isinstance(error, UserError):
            self.found.append(error)
            return True
        return False

    def check(self) -> None:
        if self.found:
            raise UserError.many(self.found)
