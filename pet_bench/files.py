"""Files: read strictly, one way for each kind, and written whole or not at all.

Readers raise `UserError` in one line that begins with `what`, the words by which a message calls the file. UTF-8 may
begin with a byte order mark. What a download left in a file's place, a Git LFS pointer or a web page, is called that.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from typing import Any

from pet_bench.errors import UserError
from pet_bench.strict_json import DEPTH, decode_json, json_value
from pet_bench.strict_yaml import dump_yaml, parse_yaml

__all__ = [
    "BOM", "DEPTH", "HEAD", "decode_json", "dump_yaml", "filling", "impostor", "impostor_at", "is_file", "is_folder",
    "json_value", "nameable", "parse_json", "parse_yaml", "read_bytes", "read_json", "read_text", "read_yaml",
    "replacing", "write_text",
]  # fmt: skip

BOM = b"\xef\xbb\xbf"
HEAD = 1024  # bytes that tell what a file is
NAME_BYTES, PATH_BYTES = 255, 4096  # of a file or folder and of a path, in any file system


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a whole file or nothing: what goes to the temporary file given, beside it, is flushed to disk and renamed.

    A process that is killed may leave `.<name>.<letters>` behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_letters()}")
    try:  # named before it is made: an interruption at any point finds it
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(S_IMODE(mode))  # a writer may have put a file of its own there, private to its user
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def filling(root: Path) -> Iterator[Path]:
    """Fill a new folder whole or not at all: the one given becomes `root` at the end, or vanishes.

    Raises `FileExistsError` if `root` holds anything.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty")
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f".{root.name}-{_letters()}")
    try:
        draft.mkdir()
        yield draft
        if root.exists():
            root.rmdir()
        draft.rename(root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _letters() -> str:
    """Eight that no other writer has."""
    return secrets.token_urlsafe(6)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_file(path: Path | str) -> bool:
    """Whether there is such a file; of a name that no file can have, no."""
    return nameable(path) and Path(path).is_file()


def is_folder(path: Path | str) -> bool:
    """As `is_file`, of a folder."""
    return nameable(path) and Path(path).is_dir()


def nameable(path: Path | str) -> bool:
    """Whether a file can be called that: no part is too long for a file system, and none has a null byte."""
    text = os.fsencode(path)
    return b"\0" not in text and len(text) < PATH_BYTES and all(len(part) <= NAME_BYTES for part in text.split(b"/"))


def impostor(head: bytes) -> str | None:
    """What a file is that begins so, where it is none of what its name says: a pointer or a page in its place."""
    start = head.removeprefix(BOM).lstrip()[:256].lower()
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")):
        return "is a web page saved under that name, not the file itself: download it again"
    return None


def impostor_at(path: Path) -> str | None:
    """As `impostor`, of the file that is there; None where it cannot be read, which its reader says."""
    try:
        with path.open("rb") as file:
            return impostor(file.read(HEAD))
    except (OSError, ValueError):
        return None


def read_bytes(path: Path, what: str) -> bytes:
    """The content without its byte order mark; raises UserError where it cannot be read or is an `impostor`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{what} is missing") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if instead := impostor(content[:HEAD]):
        raise UserError(f"{what} {instead}")
    return content.removeprefix(BOM)


def read_text(path: Path, what: str) -> str:
    """As `read_bytes`, of text in UTF-8."""
    return _decoded(read_bytes(path, what), what)


def read_json(path: Path, what: str) -> Any:
    """As `parse_json`, of a file."""
    return parse_json(read_bytes(path, what), what)


def read_yaml(path: Path, what: str) -> Any:
    """As `parse_yaml`, of a file."""
    return parse_yaml(read_text(path, what), what)


def parse_json(content: str | bytes, what: str) -> Any:
    """As `decode_json`; raises UserError."""
    text = _decoded(content.removeprefix(BOM), what) if isinstance(content, bytes) else content
    try:
        return decode_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{what} cannot be read (half-written?): {error}") from None
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {error}") from None


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text: byte {error.start} is {content[error.start]:#04x}") from None
