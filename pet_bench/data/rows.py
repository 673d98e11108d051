"""Reading annotation files: every fault of a file in one error, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from pet_bench.errors import UserError
from pet_bench.files import BOM, HEAD, decode_json, read_bytes

SHOWN = 20
LINE = 1 << 20  # bytes of a line at most
KEYS = {"clip_id", "qid", "vid_name", "video_id", "videoID", "identifier"}  # of rows, where a file has only one


def _said(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "String should have at least 1 character that is no white space")
    return text


def _no_truth(number: Any) -> Any:
    if isinstance(number, bool):
        raise PydanticCustomError("literal_error", "Input should be 0 or 1")
    return number


Text = Annotated[str, AfterValidator(_said)]
Id = Annotated[int, Field(ge=0)] | Text
Flag = Annotated[Literal[0, 1], BeforeValidator(_no_truth)]  # which by itself takes True for 1
SoftLabel = dict[str, Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]]  # answer → score


def named(image: Mapping[str, Any]) -> dict[str, Any] | None:
    """A COCO image with both its id and its file's name, of which each tells the other; None where neither does."""
    name, number, folder = image.get("filename"), image.get("cocoid"), image.get("filepath")
    if name is None and number is not None and folder:
        name = f"COCO_{folder}_{number:012d}.jpg"
    if number is None and (digits := re.search(r"(\d+)\.\w+$", name or "")):
        number = int(digits[1])
    return None if name is None or number is None else {**image, "filename": name, "cocoid": number}


def shown(faults: Iterable[str], what: str) -> UserError:
    """One error of many faults of one kind: the first twenty, and the number of the rest."""
    faults = list(dict.fromkeys(faults))
    rest = [f"{what}: and {len(faults) - SHOWN} faults more"] if len(faults) > SHOWN else []
    return UserError.many([*faults[:SHOWN], *rest])


def read_json(task: str, path: Path, schema: Any) -> Any:
    """The file's content, validated against `schema` (a type pydantic knows) without conversions.

    Raises UserError naming task, file and key: a missing or unreadable file, broken JSON, a missing key, a wrong type.
    """
    faults, value = validated(f"{task}: {path}", read_bytes(path, f"{task}: annotation file {path}"), schema)
    if faults:
        raise shown(faults, f"{task}: {path}")
    return value


def read_json_lines(task: str, path: Path, schema: Any) -> list[Any]:
    """As `read_json`, of a file with one object a line; faults name the line, counted from 1."""
    adapter, rows, faults = TypeAdapter(schema), [], []
    for number, line in enumerate(read_bytes(path, f"{task}: annotation file {path}").splitlines(), start=1):
        if line.strip():
            said, row = validated(f"{task}: {path}: line {number}", line, adapter)
            faults += said
            rows.append(row)
    if faults:
        raise shown(faults, f"{task}: {path}")
    return rows


def validated(where: str, content: bytes, schema: Any) -> tuple[list[str], Any]:
    """What is wrong with a JSON text, a line each, and if nothing is, its value. schema: a type, or its adapter."""
    adapter = schema if isinstance(schema, TypeAdapter) else TypeAdapter(schema)
    try:
        value = decode_json(content.decode("utf-8"))
    except ValueError as error:
        return [f"{where} is not valid JSON: {error}"], None
    return conforming(where, value, adapter)


def conforming(where: str, value: Any, adapter: TypeAdapter) -> tuple[list[str], Any]:
    """As `validated`, of a value that has been read."""
    try:
        return [], adapter.validate_python(value, strict=True)
    except ValidationError as error:
        return [fault_line(where, fault) for fault in error.errors()], None


def starts_with(path: Path, mark: bytes) -> bool:
    """Whether the first character that is no white space is `mark`; how a list and an object are told apart."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD).removeprefix(BOM).lstrip().startswith(mark)
    except OSError:
        return False  # said better by the reader


def has_lines(path: Path) -> bool:
    """Whether a file has an object a line: it is called so, or its first line is a whole one, and not all of it."""
    if path.suffix == ".jsonl":
        return True
    try:
        with path.open("rb") as file:
            first, more = file.readline(LINE).removeprefix(BOM), file.read(HEAD)
        row = decode_json(first.decode("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and (bool(more.strip()) or not row.keys().isdisjoint(KEYS))


def fault_line(where: str, fault: Mapping[str, Any]) -> str:
    """One of the errors that pydantic reports, with its place in the file."""
    place = ".".join(f"row {part}" if isinstance(part, int) else part for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{where}: {place} is missing"
    if fault["input"] is None:
        return f"{where}: {place or 'content'} is null"
    value = repr(fault["input"])
    return f"{where}: {place or 'content'}: {fault['msg']}, found {value if len(value) < 60 else value[:57] + '…'}"
