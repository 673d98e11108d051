"""Which examples a trial left out for want of a feature, `<id>/dropped.json`: ids by task and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pet_bench.errors import UserError
from pet_bench.files import read_json, write_text

Dropped = dict[str, dict[str, list[str]]]  # task → split → ids
ADAPTER = TypeAdapter(Dropped)
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


def place(out: Path, id: str) -> Path:
    return out / id / "dropped.json"


def write(path: Path, dropped: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Nothing was dropped: no file."""
    plain = {task: {split: list(ids) for split, ids in splits.items()} for task, splits in dropped.items()}
    if plain:
        write_text(path, ADAPTER.dump_json(plain, indent=1).decode())
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> Dropped:
    """Raises UserError where there is no such file, or something else in it."""
    what = f'list of dropped examples "{path}"'
    try:
        return ADAPTER.validate_python(read_json(path, what), strict=True)
    except ValidationError:
        raise UserError(f"{what} does not hold ids by task and split") from None


def counts(dropped: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, dict[str, int]]:
    return {task: {split: len(ids) for split, ids in splits.items()} for task, splits in dropped.items()}


def summary(numbers: Mapping[str, Mapping[str, int]]) -> str:
    """`vqa 12 training, 3 test; gqa 1 training`"""
    return "; ".join(
        f"{task} {', '.join(f'{n:,} {SPLITS.get(split, split)}' for split, n in splits.items())}"
        for task, splits in numbers.items()
    )
