"""Pieces of any size, one behind the other in one file, and a line about each in another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pet_bench.data.packing import BLOCK

BYTES = 1 << 24  # that may be written before they are made safe


class Piece(NamedTuple):
    """start, size: its bytes. about: plain data that its writer has added."""

    name: str
    start: int
    size: int
    about: list[Any]

    @classmethod
    def of(cls, line: bytes) -> Piece:
        """Raises ValueError or TypeError for what no `Pieces` has written."""
        name, start, size, *about = json.loads(line)
        return cls(name, int(start), int(size), about)


def read_pieces(lines: Path, size: int) -> list[Piece]:
    """The pieces that there are whole in a file of `size` bytes. Raises OSError where there is none."""
    pieces, end = [], 0
    for line in lines.read_bytes().splitlines(keepends=True):
        try:
            piece = Piece.of(line)
        except (ValueError, TypeError):
            break
        if not line.endswith(b"\n") or piece.start != end or (end := end + piece.size) > size:
            break
        pieces.append(piece)
    return pieces


class Pieces:
    """Writes pieces behind those that an earlier call wrote, see `growing`.

    A line is written when its piece is safely on disk, even after a power cut: what a line tells of is there.
    """

    def __init__(self, data: BinaryIO, lines: BinaryIO, there: list[Piece]):
        self.data, self.lines, self.there = data, lines, there
        self.waiting: list[bytes] = []
        self.safe = self.end = there[-1].start + there[-1].size if there else 0
        data.truncate(self.end)

    def add(self, name: str, content: bytes, *about: Any) -> None:
        self.data.write(content)
        self.waiting.append(json.dumps([name, self.end, len(content), *about]).encode() + b"\n")
        self.end += len(content)
        if len(self.waiting) == BLOCK or self.end - self.safe > BYTES:
            self.flush()

    def flush(self) -> None:
        for file, content in ((self.data, b""), (self.lines, b"".join(self.waiting))):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.waiting, self.safe = [], self.end


@contextmanager
def growing(data: Path, lines: Path) -> Iterator[Pieces]:
    """Both files, with what is whole of them; what has been added is safe when the block ends, however it does."""
    data.touch()
    lines.touch()
    there = read_pieces(lines, data.stat().st_size)
    whole = sum(map(len, lines.read_bytes().splitlines(keepends=True)[: len(there)]))
    os.truncate(lines, whole)
    with ExitStack() as files:
        pieces = Pieces(files.enter_context(data.open("ab")), files.enter_context(lines.open("ab")), there)
        try:
            yield pieces
        except OSError:
            raise  # what has been written is not known
        except BaseException:
            pieces.flush()
            raise
        pieces.flush()
