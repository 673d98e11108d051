"""Reading annotation files: every fault of a file in one error, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from pet_bench.errors import UserError

SHOWN = 20
SoftLabel = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]  # answer → score


def shown(faults: Iterable[str], what: str) -> UserError:
    """One error of many faults of one kind: the first twenty, and the number of the rest."""
    faults = list(dict.fromkeys(faults))
    rest = [f"{what}: and {len(faults) - SHOWN} faults more"] if len(faults) > SHOWN else []
    return UserError.many([*faults[:SHOWN], *rest])


def read_json(task: str, path: Path, schema: Any) -> Any:
    """The file's content, validated against `schema` (a type pydantic knows).

    Raises UserError naming task, file and key: a missing or unreadable file, broken JSON, a missing key, a wrong type.
    """
    return _validated(task, path, lambda text: TypeAdapter(schema).validate_json(text))


def read_json_lines(task: str, path: Path, schema: Any) -> list[Any]:
    """As `read_json`, of a file with one object a line; faults name the line, counted from 1."""
    adapter = TypeAdapter(schema)
    rows, faults = [], []
    for number, line in enumerate(_bytes(task, path).splitlines(), start=1):
        if line.strip():
            try:
                rows.append(adapter.validate_json(line))
            except ValidationError as error:
                faults += [fault_line(f"{task}: {path}: line {number}", fault) for fault in error.errors()]
    if faults:
        raise shown(faults, f"{task}: {path}")
    return rows


def starts_with(path: Path, mark: bytes) -> bool:
    """Whether the first character that is no white space is `mark`; how a list and an object are told apart."""
    try:
        with path.open("rb") as file:
            return file.read(1024).lstrip().startswith(mark)
    except OSError:
        return False  # said better by the reader


def _bytes(task: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{task}: annotation file {path} is missing") from None
    except OSError as error:
        raise UserError(f"{task}: annotation file {path} cannot be read: {error.strerror}") from None


def _validated(task: str, path: Path, parse):
    text = _bytes(task, path)
    try:
        return parse(text)
    except ValidationError as error:
        raise shown((fault_line(f"{task}: {path}", fault) for fault in error.errors()), f"{task}: {path}") from None


def fault_line(where: str, fault: Mapping[str, Any]) -> str:
    """One of the errors that pydantic reports, with its place in the file."""
    if fault["type"] == "json_invalid":
        return f"{where} is not valid JSON: {fault['ctx']['error']}"
    place = ".".join(f"row {part}" if isinstance(part, int) else part for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{where}: {place} is missing"
    found = repr(fault["input"])
    return f"{where}: {place or 'content'}: {fault['msg']}, found {found if len(found) < 60 else found[:57] + '…'}"
