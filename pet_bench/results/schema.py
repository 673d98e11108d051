"""What a trial leaves behind: one JSON file, each key described here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA_VERSION: Literal[2] = 2
# keys that this version has not had from its start: without them their default is meant
LATER = {"dropped", "inference", "forgetting"}

OTHER_SOFTWARE = "with other software than before"  # in a note of a trial that was resumed so

Status = Literal["done", "failed", "oom", "suspect", "stopped_early"]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}  # JSON has no numbers for them
Loss = Annotated[float, BeforeValidator(lambda value: WORDS.get(value, value) if isinstance(value, str) else value)]


@dataclass(frozen=True)
class Progress:
    """Where a running trial stands; steps are updates in "train" and batches in the other phases.

    score, points: where the validation splits have just been measured, the mean over tasks of the primary metric
    (larger is better) and what was added to the learning curve.
    """

    id: str
    phase: Literal["prepare", "train", "evaluate"]
    step: int = 0
    total_steps: Count = 0
    loss: float | None = None
    examples_per_second: Quantity | None = None
    epoch: float | None = None
    score: float | None = None
    points: tuple[dict[str, Any], ...] = ()


class Record(BaseModel):
    """A part of the result; a key that is not described is refused, and so is a value of another type: true is no 1.

    What is not said by a type, as that an average is its tasks', is in `results.consistency`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="strings")


class Plugin(Record):
    """A module of others that a trial used."""

    module: str = Field(description="the module; of a loose file the file's name")
    distribution: str | None = Field(default=None, description="what the module was installed with, if known")
    version: str | None = Field(default=None, description="version of that distribution")
    digest: str | None = Field(default=None, description="SHA-256 of the module's source; null where it has none")
    provides: list[str] = Field(description='what of the trial is defined there: method "mine", delta "gated", …')

    def __str__(self) -> str:
        release = f"{self.distribution} {self.version}, " if self.distribution else ""
        return f"{release}{self.module} {self.digest[:7] if self.digest else 'without source'}"


class Provenance(Record):
    """What the trial was made with."""

    commit: str | None = Field(default=None, description="git commit of pet-bench; null outside a checkout")
    dirty: bool | None = Field(default=None, description="whether code differed from that commit")
    version: str = Field(description="version of pet-bench")
    packages: dict[str, str] = Field(description="versions of python, torch, transformers, peft, ray and numpy")
    device: str = Field(default="", description="name of the processor that trained")
    threads: Count | None = Field(default=None, description="torch threads")
    data: str | None = Field(default=None, description="fingerprint of the annotations and features read")
    plugins: list[Plugin] = Field(default=[], description="code of others that the trial used; pet-bench's own: commit")
    started: str = Field(description="UTC, ISO 8601")
    finished: str = Field(description="UTC, ISO 8601")


class Share(Record):
    """What became of a part of the model, or of one of its stacks."""

    state: Literal["frozen", "trained", "adapted"] = Field(
        description="adapted: something was added there; trained: its own parameters received updates; frozen: neither"
    )
    trainable: Count = Field(description="parameters there that receive updates, added ones included")
    total: Count = Field(description="all parameters there, added ones included")


def shares(shares: dict[str, dict[str, Any]]) -> list[str]:
    """`vision    frozen           0 of 303,507,456`: a line for each share, as plain data, of parts or of stacks."""
    width = max(map(len, shares), default=0)
    return [
        f"{name:{width}} {share['state']:7} {share['trainable']:>11,} of {share['total']:,}"
        for name, share in shares.items()
    ]


def _later(description: str) -> Any:
    """A mapping that results of before do not have, and that is not written where it is empty."""
    return Field(default={}, description=description, exclude_if=lambda value: not value)


def _absent(description: str) -> Any:
    """Likewise a value that they do not have, and that is not written where there is none."""
    return Field(default=None, description=description, exclude_if=lambda value: value is None)


class Parameters(Record):
    """Parameter counts of the model as trained."""

    trainable: Count = Field(description="parameters that receive updates")
    total: Count = Field(description="all parameters, those of the method included")
    percent: Quantity = Field(description="100 · trainable / total")
    groups: dict[str, Count] = Field(default={}, description="trainable parameters by group")
    parts: dict[str, Share] = _later("language, and projector and vision where the model has them → its share")
    stacks: dict[str, Share] = _later("stack → its share; words: word tables and output layer; others: added modules")


class Score(Record):
    """One metric of one task."""

    value: float = Field(description="the score, on the metric's own scale")
    split: str = Field(description="name of the split that was scored")
    n: int = Field(ge=1, lt=2**63, description="examples scored")
    majority: float | None = Field(default=None, description="score of always giving the commonest training answer")
    options: dict[str, str] = Field(
        default={}, description="which of several official ways: the scorer's version, tokeniser"
    )


class Part(Record):
    """The primary metric over some of a task's examples."""

    value: float = Field(description="mean score of these examples")
    n: int = Field(ge=1, lt=2**63, description="their number")


class Cost(Record):
    """What the trial cost."""

    train_seconds: Quantity = Field(description="wall time of training, evaluation excluded")
    eval_seconds: Quantity = Field(description="wall time of all evaluations")
    peak_memory_bytes: Count = Field(description="peak of device memory; on a CPU, of the process")
    examples_per_second: Quantity = Field(description="training examples per second of train_seconds")
    steps: Count = Field(description="updates made")
    adapter_bytes: Count = Field(description="size of the saved trained tensors")
    p99_memory_bytes: Count | None = _absent(
        "99th percentile of the memory after each update and each batch of evaluation, of the last attempt: what is "
        "reserved on a device; on a CPU, resident of the process"
    )


class Inference(Record):
    """What an example of a task takes to be answered by the trained model."""

    batch_size: int = Field(ge=1, lt=2**63, description="examples of a batch of the test")
    latency_seconds: Quantity = Field(
        description="seconds an example, median over the batches of the test: from inputs on the device to text; "
        "without the vision tower where what it gives was kept (run.tower)"
    )
    flops: Quantity = Field(
        description="floating-point operations an example, of one teacher-forced pass over a batch of the test of "
        "middling length (32 examples at most), padding and the vision tower included: 2·m·n·k of each product of "
        "matrices, convolutions and attention, as torch.utils.flop_counter counts; nothing of the rest"
    )
    merged_latency_seconds: Quantity | None = _absent(
        "likewise, over a few batches of middling length, with what the method adds merged into the backbone; null "
        "where that cannot be or nothing was added"
    )
    merged_flops: Quantity | None = _absent("likewise")


class Forgetting(Record):
    """The loss on exercises from before tuning, of one kind; what was forgotten is after − before."""

    before: Loss = Field(description="mean loss a token of the stock backbone")
    after: Loss = Field(description="mean loss a token of the model as tested")
    tokens: int = Field(ge=1, lt=2**63, description="tokens of the answers")
    text: str = Field(
        description="twelve hex digits of what was asked: only equal ones compare", pattern="^[0-9a-f]{12}$"
    )


class Point(Record):
    """One point of the learning curve."""

    step: Count = Field(description="updates made so far")
    epoch: Quantity = Field(description="epochs made so far")
    split: Literal["train", "valid"] = Field(description="what was measured on")
    task: str | None = Field(default=None, description="null: over all tasks of the suite")
    loss: Loss | None = Field(default=None, description="mean training loss since the last point")
    metrics: dict[str, float] = Field(default={}, description="scores by metric")


class Selected(Record):
    """The moment of training that was tested, where it was chosen by validation."""

    step: Count = Field(description="updates made by then")
    epoch: Quantity = Field(description="epochs made by then")
    score: float = Field(description="mean over tasks of the primary metric on their validation splits")


class Run(Record):
    """How the trial came about; without effect on its numbers but for rounding and the draws of dropout."""

    accumulation: int = Field(
        default=1, ge=1, description="parts that each batch was split into, their gradients added up"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="whether activations were computed again in the backward pass"
    )
    compile: bool = Field(
        default=False, description="whether updates were compiled", exclude_if=lambda value: not value
    )
    resumed: list[Count] = Field(
        default=[], description="updates made when the trial was taken up again from a checkpoint"
    )
    peak_memory_bytes: Count | None = Field(
        default=None, description="peak of the last attempt, also where it did not finish"
    )
    tower: Literal["kept", "run"] | None = Field(
        default=None, description="a frozen vision tower: what it gave of each picture was kept, or it ran each time"
    )
    notes: list[str] = Field(
        default=[], description="what befell it, a line each: a checkpoint that could not be used, say"
    )


class TrialResult(Record):
    """One trial, finished or failed. In `metrics` the first metric of each task is its primary one."""

    schema_version: Annotated[Literal[2], Field(description="version of this schema")] = SCHEMA_VERSION
    id: str = Field(description="hash of the resolved spec; the file's name", pattern="^[0-9a-f]{12}$")
    status: Status = Field(
        description="done; failed; oom, out of memory; suspect, finished with a loss that is not finite or predictions "
        "that have collapsed; stopped_early, by a search"
    )
    error: str | None = Field(default=None, description="one line, where the status is not done")
    spec: dict[str, Any] = Field(description="the resolved TrialSpec")
    provenance: Provenance = Field(description="what the trial was made with")
    run: Run = Field(description="how it came about")
    parameters: Parameters | None = Field(default=None, description="counts of the model as trained")
    metrics: dict[str, dict[str, Score]] = Field(default={}, description="task → metric → score")
    breakdowns: dict[str, dict[str, dict[str, Part]]] = Field(
        default={},
        description="task → group (question type, answer type, show, length, …) → value → primary metric there",
    )
    average: float | None = Field(default=None, description="mean over tasks of the primary metric")
    behaviour: dict[str, str] = Field(
        default={}, description='named difference that matters here → "published", "intended" or the option\'s value'
    )
    cost: Cost | None = Field(default=None, description="time, memory and size")
    curve: list[Point] = Field(default=[], description="the learning curve")
    selected: Selected | None = Field(
        default=None, description="what was tested; null: the model after the last update"
    )
    predictions: dict[str, str] = Field(
        default={}, description="task → per-example predictions, path relative to this file"
    )
    dropped: dict[str, dict[str, Annotated[int, Field(gt=0, strict=True)]]] = Field(
        default={},
        description="task → split → examples left out of it because a feature was missing (--missing-features drop); "
        "which, is in <id>/dropped.json",
    )
    inference: dict[str, Inference] = _later("task → what an example of it takes to be answered")
    forgetting: dict[str, Forgetting] = _later(
        "text, the backbone's own; and tasks that it knew from text → loss before and after"
    )
