"""Rows of one size at their places in a file, written in any order, and a line about each in another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pet_bench.data.packing import BLOCK

LINE = re.compile(rb"(\d+) ([^\s]+)\n")


class Journal:
    """Writes rows, see `journalled`. about: of each row that is safe or was written, a word.

    A line is written when its row is safely on disk, even after a power cut: what a line tells of is there.
    """

    def __init__(self, rows: BinaryIO, lines: BinaryIO, start: int, size: int, about: dict[int, str]):
        self.rows, self.lines, self.start, self.size, self.about = rows, lines, start, size, about
        self.waiting: list[bytes] = []

    def put(self, row: int, content: bytes | memoryview, about: str) -> None:
        self.rows.seek(self.start + row * self.size)
        self.rows.write(content)
        self.about[row] = about
        self.waiting.append(f"{row} {about}\n".encode())
        if len(self.waiting) == BLOCK:
            self.flush()

    def flush(self) -> None:
        for file, content in ((self.rows, b""), (self.lines, b"".join(self.waiting))):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.waiting = []


@contextmanager
def journalled(rows: Path, lines: Path, header: bytes, size: int) -> Iterator[Journal]:
    """Both files with the rows that an earlier call made safe, or none where the first does not begin with `header`.

    What was put is safe when the block ends well; of what an interrupted one put, the last rows may be lost.
    """
    rows.touch()
    lines.touch()
    with rows.open("r+b") as array, lines.open("r+b") as about:
        there: dict[int, str] = {}
        kept, end = 0, rows.stat().st_size
        if array.read(len(header)) == header:
            for line in about:
                if (match := LINE.fullmatch(line)) is None or len(header) + (int(match[1]) + 1) * size > end:
                    break
                there[int(match[1])] = match[2].decode()
                kept += len(line)
        else:
            array.truncate(0)
            array.seek(0)
            array.write(header)
        about.truncate(kept)
        about.seek(kept)
        journal = Journal(array, about, len(header), size, there)
        yield journal
        journal.flush()
