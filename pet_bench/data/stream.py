"""Rows of JSON files of any size: one row in memory at a time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from pet_bench.files import json_value

CHUNK = 1 << 20
MARGIN = 1 << 16  # a fault further than this from the end of what was read is none of a text that goes on
CUT = "the text ends too early"
SPACE = re.compile(r"[ \t\n\r]*")


def elements(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """(place, value) of every element of a list; raises ValueError as `members` does."""
    text = _Text(stream)
    for number in text.each("["):
        yield f"row {number}", text.value()
    text.end()


def members(stream: IO[bytes], within: str | None = None) -> Iterator[tuple[str, Any]]:
    """(place, value) of every member of an object; or, within a key of it, of every element of the list there.

    At the top it yields a repeated key as often as it stands. Raises ValueError where the text is no JSON (to the
    letter, as `files.decode_json` has it) or of another form, at the place reached.
    """
    text = _Text(stream)
    if within is None:
        for key in text.each("{"):
            yield key, text.value()
    else:
        found = False
        for key in text.each("{"):
            if key == within and text.peek() == "[":
                found = True
                for number in text.each("["):
                    yield f"{key}.row {number}", text.value()
            else:
                text.value()
        if not found:
            raise ValueError(f'no list "{within}" in it')
    text.end()


class _Text:
    """A JSON text that is read on as it is taken apart."""

    def __init__(self, stream: IO[bytes]):
        self.stream = io.TextIOWrapper(stream, encoding="utf-8-sig")
        self.text, self.at = "", 0

    def more(self) -> bool:
        read = self.stream.read(max(CHUNK, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + read, 0
        return bool(read)

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            assert space is not None  # it may be empty
            self.at = space.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def end(self) -> None:
        if rest := self.peek():
            raise ValueError(f"expected nothing more, found {rest!r}")

    def take(self, mark: str) -> None:
        if (there := self.peek()) != mark:
            raise ValueError(f"expected {mark!r}, found {there!r}" if there else CUT)
        self.at += 1

    def value(self) -> Any:
        """The whole next value."""
        self.peek()
        while True:
            try:
                value, end = json_value(self.text, self.at)
            except json.JSONDecodeError as error:
                behind = self.text[error.pos :]
                if len(behind) > MARGIN or not self.more():
                    cut = not behind.strip() or error.msg.startswith("Unterminated string")
                    raise ValueError(CUT if cut else f"not valid JSON: {error.msg}") from None
            else:
                if end < len(self.text) or not self.more():  # a number may go on
                    self.at = end
                    return value

    def each(self, mark: str) -> Iterator[str]:
        """The keys of the object, or numbers in the list, that is next; who iterates takes the values."""
        self.take(mark)
        number, close = 0, {"{": "}", "[": "]"}[mark]
        if self.peek() == close:
            self.take(close)
            return
        while True:
            yield self.key() if mark == "{" else str(number)
            number += 1
            if self.peek() == close:
                self.take(close)
                return
            self.take(",")

    def key(self) -> str:
        if (there := self.peek()) != '"':
            raise ValueError(f"expected a key, found {there!r}" if there else CUT)
        key = self.value()
        self.take(":")
        return key
