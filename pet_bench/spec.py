"""The dataclasses that say what a trial is.

A **trial** is one (backbone, method, suite of tasks, seed, recipe). A `TrialSpec` is *resolved*: every option and
every recipe value is filled in, so that its hash, the trial's id, changes exactly when the trial does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from pet_bench import identity
from pet_bench.errors import UserError, shortened, unknown
from pet_bench.files import DEPTH
from pet_bench.registry import hook_faults


def distinct(values: Any) -> Any:
    """A list in which nothing stands twice; raises ValueError otherwise."""
    seen = set()
    for value in values:
        key = value if isinstance(value, str | int | float) else repr(value)
        if key in seen:
            raise ValueError(f'"{value}" is listed twice')
        seen.add(key)
    return values


T = TypeVar("T")
# true is no number, "3" is none either; what a plug-in has for a default is looked at too
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
LARGEST = 2**32 - 1  # of any number of a spec
Control = Literal["none", "text-only", "noise"]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]  # torch's generator keeps 32 bits: beyond, two seeds were one trial
Size = Annotated[int, Field(gt=0, le=1_000_000)]  # a width, rank or length; the product of two has 64 bits
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]  # of epochs, updates or examples
Distinct = AfterValidator(distinct)
Names = Annotated[tuple[str, ...], Distinct]
Fed = Literal["features", "pixels"]  # what a backbone sees of an image
MissingFeatures = Literal["refuse", "drop"]
Factor = Annotated[float, Field(ge=0)]  # of a learning rate
Precision = Literal["float32", "bfloat16"]
Frozen = Literal["float32", "bfloat16", "4bit"]  # how what does not train is kept
ScopePart = Literal["language", "projector", "vision"]
SCOPE: tuple[ScopePart, ...] = ("language", "projector", "vision")
InOrder = AfterValidator(lambda scope: tuple(part for part in SCOPE if part in scope))
Scope = Annotated[tuple[ScopePart, ...], Distinct, InOrder, Field(min_length=1)]
Text = Annotated[str, StringConstraints(pattern=r"\S")]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")]


@dataclass(frozen=True, config=STRICT)
class Visual:
    """What the encoder sees of an image or a clip.

    width: feature width f. tokens: stored vectors N per image. pooled: vectors that enter the encoder per image
    (a square grid is max-pooled to it). images: rows of the image-order embedding, the most images an example has.
    """

    width: Size
    tokens: Size
    pooled: Size
    images: Size = 2


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How a trial is optimised; the defaults are those of the published runs (VL-PET repository scripts).

    batch_size: nominal; a task's own ratio scales it (gqa 100/60, nlvr2 20/60, coco-caption 50/60). lr: peak
    learning rate of a linear warm-up over the first `warmup` of all updates, then linear decay to 0. clip: global
    gradient norm. max_steps: stop after that many updates (None: all epochs); the schedule spans what is run.
    valid_every: epochs between evaluations on the validation split (0: never).

    selection: what is tested, the model after the last update, as published, or the one with the best average over the
    tasks' validation splits. generation: whether a checkpoint's own settings for generation hold (in BART's
    `no_repeat_ngram_size` and `early_stopping`), as published, or are off. decay_norms: whether layer norms' weights
    get weight decay, as in the published runs, whose exception named none of them. data_order: the same for every seed,
    as published, or drawn from the seed. bucket: so many batches at a time are made of examples sorted by length of
    text, which saves padding (1: as drawn, as published). task_order: tasks take turns, an update each, as published,
    or follow one another, each trained for all of its epochs.

    rates: factors of `lr` by patterns over names of trained parameters; what has 0 stays as it starts and counts as
    frozen. LoRA+ (Hayou et al., ICML 2024) is {"pet.*.B": 16}, LoRA-FA (Zhang et al., 2023) {"pet.*.A": 0}.

    precision: of the forward pass in training, tf32 being float32 whose matrices are multiplied so, on GPUs that can;
    evaluation: that of validation and test, float32 as published. frozen: how what does not train is kept
    (`pet_bench.pet.large`); where that is not float32, both compute in half precision.

    init_seed: what all that is new in the model is drawn from, its visual embedding and the method's modules (None: the
    trial's seed). With one for all seeds, trials start at the same values and differ in what follows: answers drawn,
    dropout, with `data_order: seeded` the order of the data. What is averaged over such trials is a soup
    (`pet_bench.trial.soup`).
    """

    lr: float = Field(gt=0)
    epochs: Count = 20
    batch_size: Count = 500
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    clip: float = Field(default=5.0, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    eps: float = Field(default=1e-6, gt=0)
    max_steps: Count | None = None
    valid_every: int = Field(default=1, ge=0, le=1_000_000_000)
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    selection: Literal["last", "best"] = "last"
    generation: Literal["checkpoint", "plain"] = "checkpoint"
    decay_norms: bool = True
    data_order: Literal["fixed", "seeded"] = "fixed"
    bucket: Count = 1
    frozen: Annotated[Frozen, identity.Since(2, neutral="float32")] = "float32"
    rates: Annotated[dict[str, Factor], identity.Since(2, neutral={})] = Field(default_factory=dict)
    task_order: Annotated[Literal["joint", "sequence"], identity.Since(2, neutral="joint")] = "joint"
    evaluation: Annotated[Precision, identity.Since(2, neutral="float32")] = "float32"
    init_seed: Annotated[Seed | None, identity.Since(2, neutral=None)] = None

    @model_validator(mode="after")
    def _frozen_halves_need_half_precision(self):
        if self.frozen != "float32" and self.precision != "bfloat16":
            raise ValueError(f"frozen is {self.frozen}, so precision must be bfloat16, not {self.precision}")
        return self

    @model_validator(mode="after")
    def _selection_needs_validation(self):
        if self.selection == "best" and not self.valid_every:
            raise ValueError("selection is best, but valid_every is 0: nothing would be validated")
        return self


@dataclass(frozen=True, config=STRICT)
class MethodSpec:
    """A method by name and its options; in a resolved trial every option is given.

    scope: the parts of the model that it touches (None: as the backbone's family has it).
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    scope: Annotated[Scope | None, identity.Since(2, neutral=None)] = None

    @classmethod
    def parse(cls, value: Any) -> MethodSpec:
        """`lora`, or a mapping `{name: lora, rank: 8}` as a grid file writes it."""
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            options = {key: option for key, option in value.items() if key not in ("name", "scope")}
            return validate(cls, {"name": value["name"], "options": options, "scope": value.get("scope")}, "method")
        raise UserError(f"a method is a name or a mapping with a name, found {shortened(repr(value))}")

    def changed(self, options: dict[str, Any]) -> MethodSpec:
        """With other options beside its own; a `scope` among them is no option, but its scope."""
        own = self.options | {key: value for key, value in options.items() if key != "scope"}
        scope = self.parse({"name": self.name, "scope": options["scope"]}).scope if "scope" in options else self.scope
        return replace(self, options=own, scope=scope)

    def __str__(self) -> str:
        options = ", ".join(f"{key}={plain(value)}" for key, value in sorted(self.options.items()))
        named = f"{self.name}({options})" if options else self.name
        return f"{named} [{', '.join(self.scope)}]" if self.scope else named


def plain(value: Any) -> str:
    """A value as a grid file's author would write it: `{cross_attn.value: replace}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return str(value)


@dataclass(frozen=True, config=STRICT)
class TrialSpec:
    """One trial, resolved; its options and its protocol hold nothing at a neutral value (`pet_bench.identity`).

    label: how tables call the method (options that differ from its defaults shown). control: "text-only" zeroes all
    visual features, in training and in testing; "noise" replaces each by standard normal noise that is always the same.
    protocol: per task, the options that were changed from the published set-up (a split's name, say), or by a method
    that has no task prompts. imported: SHA-256 of the adapter that it has instead of training (`trial.imported`).
    """

    backbone: str
    method: MethodSpec
    suite: str
    tasks: tuple[str, ...]
    visual: Visual
    seed: Seed
    recipe: Recipe
    control: Control = "none"
    protocol: dict[str, dict[str, Any]] = Field(default_factory=dict)
    imported: Annotated[Digest | None, identity.Since(2, neutral=None)] = None
    label: str = ""

    @cached_property
    def id(self) -> str:
        """Twelve hex digits, the hash of everything but `label` (`pet_bench.identity`).

        Raises UserError where something in it is no plain data.
        """
        return identity.identity(self.but_seed, self.seed)

    @cached_property
    def but_seed(self) -> tuple[str, str]:
        """The same for trials that differ in nothing but seed and label; raises as `id`."""
        return identity.but_seed(self)

    @property
    def initial(self) -> int:
        """The seed that what is new in its model is drawn from."""
        return self.seed if self.recipe.init_seed is None else self.recipe.init_seed

    def seeded(self, seed: int) -> Self:
        """This trial with another seed; what its id is made of is not written out again."""
        other = replace(self, seed=seed)
        other.__dict__["but_seed"] = self.but_seed
        return other

    def __str__(self) -> str:
        control = "" if self.control == "none" else f" [{self.control}]"
        return f"{self.backbone} × {self.label or self.method} × {self.suite} × seed {self.seed}{control}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what stands at its neutral value."""
        return identity.normal(self, TypeAdapter(type(self)).dump_python(self, mode="json"))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The trial of a result file, of any age: what came later stands at its neutral value."""
        return validate(cls, identity.filled(cls, data), "trial")


@dataclass(frozen=True, config=STRICT)
class Runtime:
    """Where and with what a trial runs: none of it changes what the trial is.

    data: root folder of the datasets (None: the suite's embedded data). out: the folder of the grid's results.
    device: "cpu", "cuda", … or "auto". threads: torch threads (None: all cores). plugins: loose plug-ins to load.
    accumulation: parts that each batch is split into, their gradients added up. checkpoint_seconds, checkpoint_steps:
    a checkpoint is written when so much time has passed or so many updates have been made since the last (None: never
    for this reason). missing_features: "drop" leaves out the examples, in every split, of which a feature is not there.
    What is left are other data, and a result says so: in its fingerprint of them, and under `dropped`. keep_tower:
    whether what a frozen vision tower gives is kept in the cache; without, it runs each time, to the same bits.
    gradient_checkpointing: activations inside of layers are not kept for the backward pass but computed once more.
    ranks: processes that divide each batch among them, each on a GPU of its own, or on the CPU (`trial.ranks`). shard:
    they divide the frozen weights of layers as well (`pet.sharded`).
    compile: updates are compiled, which changes rounding and the draws of dropout (`trial.compiled`).
    forgetting: a text file, what is forgotten of which is measured (None: of what the backbone says that it knew).
    resident: features are kept on an accelerator where they take at most half of what is free there; without, and where
    they take more, batches are made ahead and copied.
    """

    out: Path
    data: Path | None = None
    device: str = "auto"
    threads: Count | None = None
    plugins: tuple[str, ...] = ()
    accumulation: Count = 1
    checkpoint_seconds: float | None = Field(default=600.0, gt=0)
    checkpoint_steps: Count | None = None
    missing_features: MissingFeatures = "refuse"
    keep_tower: bool = True
    gradient_checkpointing: bool = False
    ranks: Count = 1
    shard: bool = False
    compile: bool = False
    resident: bool = True
    forgetting: Path | None = None

    def check_shard(self, gpus: float) -> None:
        """Raises UserError where one GPU has nobody to divide weights with."""
        if self.shard and gpus < 2:
            raise UserError(
                "--shard divides frozen weights among a trial's GPUs, and it has one: give it more (--gpus 2)"
            )


def option_faults(cls: type) -> Iterator[str]:
    """What keeps a plug-in's class from being built of options that are checked."""
    yield from hook_faults(cls)
    strict = getattr(cls, "__pydantic_config__", {}).get("extra") == "forbid"
    frozen = getattr(getattr(cls, "__dataclass_params__", None), "frozen", False)
    own = {name for name, kind in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(kind)}
    if not (strict and frozen) or own - getattr(cls, "__pydantic_fields__", {}).keys():
        yield "it is no @pydantic.dataclasses.dataclass(frozen=True, config=pet_bench.spec.STRICT)"
    else:
        yield from identity.faults(cls)


def plain_runtime(runtime: Runtime) -> dict[str, Any]:
    """The runtime as plain data, for another process."""
    return TypeAdapter(Runtime).dump_python(runtime, mode="json")


def validate(cls: type[T], data: Any, what: str) -> T:
    """Build a pydantic dataclass from plain data, to the letter; every fault in one UserError line each.

    Lists are tuples where those are asked for, and texts paths, but nothing else is made into something else. No number
    is NaN, infinite or beyond 32 bits, whatever the type of its field. `what` names the thing in messages:
    `grid.yaml: recipe.lr: Input should be greater than 0, found -1`.
    """
    if odd := [": ".join(filter(None, (what, ".".join(place), fault))) for place, fault in _odd(data)]:
        raise UserError.many(odd)
    try:
        return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        names = [*getattr(cls, "__dataclass_fields__", ())]
        raise UserError.many(_line(what, fault, names) for fault in error.errors()) from None


_UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # by a file system, by UTF-8


def _odd(data: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """What no specification holds, wherever it stands in plain data."""
    if len(place) > DEPTH:
        yield place[:3], f"nested too deeply (possible: {DEPTH} levels)"
    elif isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                yield place, f"a key is text, found {shortened(repr(key))}"
                continue
            yield from _odd(key, place)
            yield from _odd(value, (*place, shortened(key)))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from _odd(value, (*place, str(index)))
    elif isinstance(data, float) and not math.isfinite(data):
        yield place, f"a number is finite, found {data}"
    elif isinstance(data, int | float) and abs(data) > LARGEST:
        yield place, f"a number is at most {LARGEST:,}, found {shortened(str(data))}"
    elif isinstance(data, str) and _UNWRITABLE.search(data):
        yield place, f"text without null bytes and halves of surrogate pairs, found {shortened(ascii(data))}"


def _line(what: str, fault: ErrorDetails, names: list[str]) -> str | UserError:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        if len(fault["loc"]) == 1:
            return unknown(f"{what} key", place, names)
        return f'{what}: unknown key "{shortened(place)}"'
    if fault["type"] in ("missing", "missing_argument"):
        return f"{what}: {place} is missing"
    if fault["type"] == "value_error":  # raised by a part of a design, which says what was found
        return UserError(*(f"{what}: {place}: {line}" for line in str(fault.get("ctx", {})["error"]).splitlines()))
    message = fault["msg"].replace("valid array", "list").replace("an object", "a mapping")
    message = message.replace("Tuple should", "List should").replace(" after validation", "")
    return f"{what}: {place}: {message}, found {shortened(repr(fault['input']))}"
