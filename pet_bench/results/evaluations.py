"""What a finished trial is tested on later: another task, its own tasks corrupted. A JSON file each, in its folder."""

from __future__ import annotations

import json
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from pet_bench.errors import UserError, shortened
from pet_bench.files import read_json, write_text
from pet_bench.results.schema import Count, Part, Provenance, Record, Score

Id = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]


class Transfer(Record):
    """A trial on a task that it was not trained on, or on one of its own by another protocol."""

    schema_version: Annotated[Literal[1], Field(description="version of this schema")] = 1
    trial: Id = Field(description="id of the trial")
    task: str = Field(description="what it was tested on")
    trained: bool = Field(description="whether the trial was trained on a task of that name")
    options: dict[str, Any] = Field(description="the task's options that are not as published")
    parts_of: str | None = Field(
        description="task of the trial whose own parts of the method read it; null where the method has none"
    )
    split: Literal["valid", "test"] = Field(description="the split, whose name is in the scores")
    metrics: dict[str, Score] = Field(min_length=1, description="metric → score, the primary one first")
    breakdowns: dict[str, dict[str, Part]] = Field(default={}, description="group → value → primary metric there")
    predictions: str = Field(description="per-example predictions, path relative to this file")
    notes: list[str] = Field(default=[], description="what is to be known, a line each")
    provenance: Provenance = Field(description="what it was tested with")


class Corrupted(Record):
    """A task of the trial under one corruption."""

    task: str = Field(description="its name")
    corruption: str = Field(description="name, see pet_bench.data.corrupt")
    strength: int = Field(ge=1, le=5, description="5 corrupts most")
    value: float = Field(description="the primary metric")
    relative: float | None = Field(description="relative robustness 1 - (clean - value) / clean; null where clean is 0")


class Clean(Record):
    """A task of the trial as it is, measured together with its corruptions."""

    metric: str = Field(description="the primary metric")
    value: float = Field(description="its score")
    n: Count = Field(description="examples")


class Robustness(Record):
    """A trial's own tasks, corrupted: Chen et al. (NeurIPS 2023, arXiv:2306.02080), relative robustness."""

    schema_version: Annotated[Literal[1], Field(description="version of this schema")] = 1
    trial: Id = Field(description="id of the trial")
    seed: Count = Field(description="what is drawn is drawn from this, the example and the corruption's name")
    clean: dict[str, Clean] = Field(min_length=1, description="task → score without corruption, strength 0")
    scores: list[Corrupted] = Field(description="a row for each task, corruption and strength")
    relative: float | None = Field(description="mean relative robustness of the rows; null where there is none")
    notes: list[str] = Field(default=[], description="what is to be known, a line each")
    provenance: Provenance = Field(description="what it was tested with, the last time that rows were added")

    def means(self, *by: str) -> dict[tuple[Any, ...], float]:
        """Mean relative robustness by some of task, corruption and strength; without, of all rows, under ()."""
        groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for row in self.scores:
            if row.relative is not None:
                groups[tuple(getattr(row, key) for key in by)].append(row.relative)
        return {key: sum(values) / len(values) for key, values in groups.items()}


R = TypeVar("R", bound=Record)


def transfer_name(task: str, split: str, options: dict[str, Any], parts_of: str | None) -> str:
    """`transfer.okvqa`, or with a few digits where it is not the test as published."""
    if split == "test" and not options and not parts_of:
        return f"transfer.{task}"
    text = json.dumps([split, options, parts_of], sort_keys=True)
    return f"transfer.{task}-{sha256(text.encode()).hexdigest()[:6]}"


def robustness_name(seed: int) -> str:
    return f"robustness.{seed}"


def write(record: Record, file: Path) -> None:
    """Atomically, as all results."""
    write_text(file, record.model_dump_json(indent=1) + "\n")


def read(kind: type[R], file: Path) -> R:
    """Raises UserError, naming the file, for what is no such record."""
    what = f'{kind.__name__.lower()} "{file}"'
    try:
        return kind.model_validate(read_json(file, what))
    except ValidationError as error:
        lines = (
            f"{what}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}, found {shortened(repr(fault['input']))}"
            for fault in error.errors()
        )
        raise UserError.many(lines) from None


def transfers(folder: Path) -> list[Transfer]:
    """All that is in a trial's folder."""
    return [read(Transfer, file) for file in sorted(folder.glob("transfer.*.json"))]


def robustnesses(folder: Path) -> list[Robustness]:
    return [read(Robustness, file) for file in sorted(folder.glob("robustness.*.json"))]


def lines(folder: Path) -> list[str]:
    """What a trial has been tested on beside its own tasks, a line each."""
    said = []
    for one in transfers(folder):
        (metric, score), *_ = one.metrics.items()
        options = "".join(f", {key} = {value}" for key, value in one.options.items())
        parts = f", by the parts of {one.parts_of}" if one.parts_of else ""
        majority = "" if score.majority is None else f" (majority answer {score.majority:.2f})"
        said.append(f"{one.task} ({score.split}{options}{parts}): {metric} {score.value:.2f}{majority}, n = {score.n}")
    for corrupted in robustnesses(folder):
        names = {row.corruption for row in corrupted.scores}
        mean = "–" if corrupted.relative is None else f"{corrupted.relative:.3f}"
        of = f"{len(names)} corruption{'s' * (len(names) != 1)}"
        said.append(f"relative robustness {mean} over {of}, seed {corrupted.seed}")
    return said
