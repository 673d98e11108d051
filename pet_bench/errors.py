"""Errors a user can cause: said in one line each, before any expensive work, with exit code 2."""

from __future__ import annotations

import difflib
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SHOWN = 300  # characters of what a plug-in raised or gave


class UserError(Exception):
    """A fault in what the user gave: what was wrong, what was found, what is possible.

    `faults` holds one line per fault, so that everything wrong with a file is reported together; `parts` the errors
    that it was made of. exit_code: of a command that ends with it.
    """

    exit_code = 2
    parts: tuple[UserError, ...] = ()

    def __init__(self, *faults: str):
        self.faults = tuple(" ".join(fault.split()) for fault in faults)
        super().__init__("\n".join(self.faults))

    @classmethod
    def many(cls, faults: Iterable[str | UserError]) -> UserError:
        """One error of several faults; errors among them are flattened and repeats dropped.

        It is a PluginError where all of them are.
        """
        faults = list(faults)
        parts = tuple(fault for fault in faults if isinstance(fault, UserError))
        lines = [line for fault in faults for line in (fault.faults if isinstance(fault, UserError) else [fault])]
        foreign = parts and len(parts) == len(faults) and all(isinstance(part, PluginError) for part in parts)
        error = (PluginError if foreign else cls)(*dict.fromkeys(lines))
        error.parts = parts
        return error

    def within(self, where: str) -> UserError:
        """The same error, each line of which begins with `where`."""
        error = type(self)(*(f"{where}: {fault}" for fault in self.faults))
        error.parts = (self,)
        return error

    def causes(self) -> Iterator[BaseException]:
        """What plug-ins raised, for their authors."""
        if not self.parts and self.__cause__ is not None:
            yield self.__cause__
        for part in self.parts:
            yield from part.causes()


class PluginError(UserError):
    """A plug-in raised, or gave what it may not: that costs what was asked of it, and nothing else."""

    @classmethod
    def of(cls, what: str, error: BaseException) -> PluginError:
        """`<what> ValueError: boom`"""
        return cls(f"{what} {type(error).__name__}{_message(error)}")


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Where a plug-in's code is called: whatever it raises becomes a PluginError, `<what> ValueError: boom`.

    So does an attempt to end the process. UserErrors, `Stop` and what a signal raises, Ctrl-C say, pass.
    """
    with _signals() as received:
        try:
            yield
        except (UserError, Stop, GeneratorExit):
            raise
        except BaseException as error:
            if received and not isinstance(error, Exception):
                raise
            raise PluginError.of(what, error) from error


def _message(error: BaseException) -> str:
    """`: boom`, on one line, without the pointers to a web page that pydantic ends with."""
    lines = [line for line in text_of(error, str).splitlines() if "For further information" not in line]
    text = " ".join(" ".join(lines).split())
    return f": {text}" if text else ""


def text_of(value: object, form=repr) -> str:
    """A plug-in's value as text, cut where it is long; its own `__str__` may be broken too."""
    try:
        text = form(value)
    except Exception as error:
        text = f"a {type(value).__name__} whose {form.__name__} raised {type(error).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that come meanwhile; their handlers, if Python's, run as ever. Only the main thread gets any."""
    received: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        handlers = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None))}
        before = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number, frame):
        received.append(number)
        before[number](number, frame)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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

    def check(self, lost: Faults | None = None) -> None:
        """Raise what was collected; where that is plug-ins' own failures alone and `lost` is given, it takes them."""
        if lost is not None and all(isinstance(fault, PluginError) for fault in self.found):
            lost.found += self.found
        elif self.found:
            raise UserError.many(self.found)
