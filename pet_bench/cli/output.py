"""What the commands write to standard output: whatever its encoding, and however it ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import TextIOWrapper
from typing import Any, TextIO


@contextmanager
def guarded() -> Iterator[None]:
    """Replace what cannot be encoded. Where nothing more can be written, exit: as quietly as other programs where the
    reader has gone (1), with one line where the disk is full (2)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if sys.stdout is None:  # closed by who started us: Python writes to nothing then
        yield
        return
    with redirect_stdout(_Guarded(sys.stdout)) as output:
        try:
            yield
        finally:
            output.flush()


class _Guarded:
    """A stream whose failure ends the program: an OSError would be taken for one of the trial's, or of its folder's."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._failing():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._failing():
            self._stream.flush()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with suppress(OSError, ValueError):  # what is still held back goes nowhere, without a word at the very end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if error.errno == errno.EPIPE:
                raise SystemExit(1) from None
            say(f"standard output cannot be written to: {error.strerror or error}")
            raise SystemExit(2) from None


def say(fault: str) -> None:
    with suppress(OSError):
        print(f"pet-bench: error: {fault}", file=sys.stderr)
