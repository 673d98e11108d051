"""A design: a PET method spelled out as data."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field, PlainSerializer, PlainValidator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.families import Family
from pet_bench.backbone.model import Context, VisionLanguageModel
from pet_bench.errors import PluginError, UserError, foreign, text_of, unknown
from pet_bench.registry import METHODS, ask, is_loose
from pet_bench.spec import STRICT, Names, validate

M = TypeVar("M", bound=nn.Module)
KIND = re.compile(r"[^\W_][\w-]*")  # it names a module too


def _place(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


class Part:
    """A piece of a design: a frozen dataclass, or, in a grid file, a mapping of its `kind` and its fields.

    formula: as `show` writes it; that of a delta calls what it reads `{x}`.
    """

    kind: ClassVar[str] = ""
    formula: str
    kinds: ClassVar[dict[str, type[Part]]]

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if Part in cls.__bases__:
            cls.kinds = {}
        elif "kind" in vars(cls):
            taken = cls.kinds.get(cls.kind)
            if taken is not None and _place(taken) != _place(cls) and not is_loose(taken.__module__):
                raise PluginError(f'{_word(cls)} "{cls.kind}" is there twice: {_place(taken)} and {_place(cls)}')
            cls.kinds[cls.kind] = cls

    @classmethod
    def parse(cls, value: Any) -> Part:
        """A part of this base from `{kind: bottleneck, width: 96}`, or from the kind alone."""
        if isinstance(value, cls):
            return value
        value = {"kind": value} if isinstance(value, str) else value
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise ValueError(f"a {_word(cls)} is a kind or a mapping with a kind, found {value!r}")
        kind, rest = value["kind"], {key: v for key, v in value.items() if key != "kind"}
        try:
            failed = [] if kind in cls.kinds else METHODS.load()  # a method's parts are known once it is imported
            if kind not in cls.kinds:
                raise UserError.many([unknown(_word(cls), kind, cls.kinds), *failed])
            with foreign(f'{_word(cls)} "{kind}": its fields raised'):
                return validate(cls.kinds[kind], rest, f'{_word(cls)} "{kind}"')
        except UserError as error:
            raise ValueError("\n".join(error.faults)) from None


def titled(part: Part) -> str:
    """`delta "bottleneck"`, as messages call a part."""
    return f'{_word(type(part))} "{part.kind}"'


def _word(cls: type[Part]) -> str:
    """`delta`, `gate` or `door`."""
    return next(base.__name__.lower() for base in cls.__mro__ if Part in base.__bases__)


def ask_part(part: Part, hook: str, *arguments: Any, returns: Any = object) -> Any:
    """What a part's method gives, see `registry.ask`."""
    return ask(part, hook, *arguments, returns=returns, of=titled(part))


def check_part(part: Part) -> None:
    """Raises PluginError where a part has no kind or no formula."""
    if not (isinstance(part.kind, str) and KIND.fullmatch(part.kind)):
        what, kind = f"{_word(type(part))} {type(part).__name__}", text_of(part.kind)
        raise PluginError(f"{what}: its kind is {kind}, expected a word like low-rank")
    equation(part)


def equation(part: Part, x: str = "x") -> str:
    """The formula of a part, in that of a delta `x` for what it reads; raises PluginError where there is none."""
    with foreign(f"{titled(part)}: formula raised"):
        formula = getattr(part, "formula", None)
        if not isinstance(formula, str) or not formula.strip():
            raise PluginError(f"{titled(part)}: formula is {text_of(formula)}, expected text")
    try:
        return formula.format(x=x) if isinstance(part, Delta) else formula
    except (LookupError, ValueError, AttributeError) as error:
        reason = f"only {{x}} can be filled in ({type(error).__name__}: {error})"
        raise PluginError(f'{titled(part)}: formula is "{formula}": {reason}') from None


def part(base: type[Part]) -> Any:
    """The type of a field that holds a part of that base."""
    return Annotated[
        base, PlainValidator(base.parse), PlainSerializer(lambda value: {"kind": value.kind, **asdict(value)})
    ]


@dataclass(frozen=True)
class Builder:
    """Makes new modules for a model as its family's published runs initialise them (METHODS.md section 7)."""

    model: VisionLanguageModel
    tasks: tuple[str, ...] = ()

    @property
    def family(self) -> type[Family]:
        return self.model.family

    @property
    def context(self) -> Context:
        """What the model is running on: the batch's task and the encoder's mask."""
        return self.model.context

    def linear(self, d_in: int, d_out: int, *, zero: bool = False) -> nn.Linear:
        """A new linear layer, or one whose weight and bias are 0."""
        linear = nn.Linear(d_in, d_out)
        if zero:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        else:
            self.family.init_linear(linear)
        return linear

    def table(self, rows: int, width: int) -> nn.Parameter:
        """A new table of embeddings (rows, width)."""
        weight = nn.Parameter(torch.empty(rows, width))
        self.family.init_embedding(weight)
        return weight

    def by_task(self, make: Callable[[], nn.Module]) -> ByTask:
        """One copy of a module for each task."""
        if not self.tasks:
            raise UserError("this method has a part for each task, but no tasks were named")
        return ByTask({task: make() for task in self.tasks}, self.context)

    def shared(self, key: str, make: Callable[[], M]) -> M:
        """The module `pet.shared.<key>`, made when it is first asked for: what several places have in common."""
        if "shared" not in self.model.pet:
            self.model.pet["shared"] = nn.ModuleDict()
        modules = self.model.pet["shared"]
        if key not in modules:
            modules[key] = make()
        return modules[key]


class ByTask(nn.Module):
    """One module a task; the batch's task says which one runs."""

    def __init__(self, modules: dict[str, nn.Module], context: Context):
        super().__init__()
        self.of, self.context = nn.ModuleDict(modules), context

    def forward(self, *args):
        return self.of[self.context.task_among(self.of)](*args)


@dataclass(frozen=True)
class Place(Builder):
    """Where an insert is built: a site of one layer, the stock modules that X goes into and H comes from, their widths.

    feeds: the projection that reads H, at hidden units.
    """

    stack: str = ""
    layer: int = 0
    site: str = ""
    reader: nn.Module | None = None
    writer: nn.Module | None = None
    feeds: nn.Module | None = None
    d_x: int = 0
    d_h: int = 0


class Delta(Part, ABC):
    """ΔH: a frozen dataclass of sizes that builds a module f with f(x) (…, d_in) → (…, d_h).

    f may offer `weight()`, the (d_h, d_in) matrix that equals it in evaluation: it can then be merged.
    """

    @abstractmethod
    def build(self, place: Place, d_in: int) -> nn.Module: ...


class Gate(Part, ABC):
    """G: a frozen dataclass that builds a module g with g(X, Y, ΔH) → what broadcasts over Y (B, T, d_h).

    Y is what the gate acts on, b · H + a · ΔH. reads_delta: a gate that makes no sense without ΔH.
    """

    reads_delta: ClassVar[bool] = False

    @abstractmethod
    def build(self, place: Place) -> nn.Module: ...


class Door(Part, ABC):
    """A modification that is no insert: an edit of the input, a side network, new biases."""

    @abstractmethod
    def open(self, build: Builder) -> nn.Module | None:
        """Change `build.model`; what is returned becomes `pet.<kind>`, whose parameters all train."""

    def trained(self, model: VisionLanguageModel) -> set[str]:
        """Names of the parameters outside of `pet` that the opened door trains."""
        return set()

    def before_training(self, model: VisionLanguageModel, batches: Iterable[Any]) -> None:
        """Called once before the first update, with the training batches of an epoch to read as many of as need be."""

    def penalty(self, model: VisionLanguageModel) -> Tensor | float:
        """What the opened door adds to the loss of every training batch."""
        return 0.0

    def after_step(self, model: VisionLanguageModel, step: int, total: int) -> None:
        """Called after the optimiser's update number `step`, from 1, of `total`, while the gradients are there."""

    def state(self, model: VisionLanguageModel) -> dict[str, Any]:
        """What the opened door has gathered since training began, its trained tensors aside, for a checkpoint.

        Plain data and tensors, in lists and in dicts with string keys.
        """
        return {}

    def restore(self, model: VisionLanguageModel, state: dict[str, Any]) -> None:
        """Take up what `state` gave, in the place of `before_training`, on a model that was built anew."""

    def export(self, model: VisionLanguageModel, folder: Path) -> None:
        """Write what the door trained in another library's format too, beside the trained tensors."""


@checked(frozen=True, config=STRICT)
class Insert:
    """One modification at each of the named sites, in every layer:

        H' = s · G ⊙ (b · H + a · ΔH),    ΔH = f(H) or f(X)

    reads: "output" makes ΔH = f(H) (sequential), "input" ΔH = f(X) (parallel). adds_to: "input" puts X in the place
    of H, so that the stock module's own output is dropped. delta_scale, base_scale, scale: a, b and s. gating: what G
    does, "multiply" the sum, "add" to it, or multiply the "base" H alone. norm: a layer norm, or x / max(‖x‖, 1e-12)
    ("l2"), over d, after the gate.
    """

    sites: Names = Field(min_length=1)
    delta: part(Delta) | None = None
    reads: Literal["output", "input"] = "output"
    gate: part(Gate) | None = None
    scale: float = 1.0
    gating: Literal["multiply", "add", "base"] = "multiply"
    delta_scale: float = 1.0
    base_scale: float = 1.0
    adds_to: Literal["output", "input"] = "output"
    norm: Literal["layer", "l2"] | None = None

    @property
    def formula(self) -> str:
        """The equation of this insert, ΔH and G filled in."""
        base = _times(self.base_scale, "X" if self.adds_to == "input" else "H")
        delta = _times(self.delta_scale, "ΔH")
        if self.gate and self.gating == "base":
            base = f"G ⊙ {base}"
        total = f"{base} + {delta}" if self.delta else base
        if self.gate and self.gating == "add":
            total += " + G"
        many = " + " in total
        if self.gate and self.gating == "multiply":
            total = f"G ⊙ ({total})" if many else f"G ⊙ {total}"
        if self.norm:
            total = f"{'LayerNorm' if self.norm == 'layer' else 'L2'}({total})"
        elif self.scale != 1 and many and not total.startswith("G ⊙ ("):
            total = f"({total})"
        terms = [f"H' = {_times(self.scale, total)}"]
        if self.delta:
            terms.append(f"ΔH = {equation(self.delta, x='X' if self.reads == 'input' else 'H')}")
        if self.gate:
            terms.append(f"G = {equation(self.gate)}")
        return ",  ".join(terms)


def _times(factor: float, term: str) -> str:
    return term if factor == 1 else f"{factor:g} · {term}"


@checked(frozen=True, config=STRICT)
class Design:
    """What a method adds (`inserts` and `doors`, always trained) and what else trains (`train`).

    A selector in `train` is one of `all`, `visual` (the visual embedding), `norms`, `biases`, the last two also as
    `encoder.norms`, `decoder.biases` …, or a pattern over parameter names (`lm.*.fc1.weight`). A site or a selector
    that matches nothing is an error.
    """

    inserts: tuple[Insert, ...] = ()
    train: Names = ("visual",)
    doors: tuple[part(Door), ...] = field(default=())

    def parts(self) -> Iterator[Part]:
        """Every delta, gate and door."""
        yield from (part for insert in self.inserts for part in (insert.delta, insert.gate) if part)
        yield from self.doors


class Inserted(nn.Module):
    """An insert at one site of one layer."""

    def __init__(self, insert: Insert, place: Place):
        super().__init__()
        self.insert, self.place = insert, place
        self.is_merged = False
        if insert.adds_to == "input" and place.d_x != place.d_h:
            raise UserError(f"{place.site}: X of width {place.d_x} cannot take the place of H of width {place.d_h}")
        if insert.gate and insert.gate.reads_delta and not insert.delta:
            raise UserError(f'{place.site}: the gate "{insert.gate.kind}" reads ΔH, but there is no delta')
        d_in = place.d_x if insert.reads == "input" else place.d_h
        delta, gate = insert.delta, insert.gate
        self.delta = ask_part(delta, "build", place, d_in, returns=nn.Module) if delta else None
        self.gate = ask_part(gate, "build", place, returns=nn.Module) if gate else None
        self.norm = nn.LayerNorm(place.d_h) if insert.norm == "layer" else None

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """X (B, T, d_x), H (B, T, d_h) → H' (B, T, d_h)."""
        if self.is_merged:
            return h
        insert = self.insert
        base = _scaled(x if insert.adds_to == "input" else h, insert.base_scale)
        delta = added = None
        if self.delta is not None:
            delta = _run(insert.delta, self.delta, x if insert.reads == "input" else h)
            _same_shape(insert.delta, delta, h)
            added = _scaled(delta, insert.delta_scale)
        y = base if delta is None else base + added
        if self.gate is not None:
            gate = _run(insert.gate, self.gate, x, y, delta)
            if insert.gating == "add":
                y = y + gate
            elif insert.gating == "multiply" or delta is None:
                y = gate * y
            else:
                y = gate * base + added
            _same_shape(insert.gate, y, h)
        if insert.norm == "layer":
            y = self.norm(y)
        elif insert.norm == "l2":
            y = F.normalize(y, dim=-1)
        return _scaled(y, insert.scale)

    @property
    def mergeable(self) -> bool:
        """Whether H' is a linear map of X, at a projection, or scales the hidden units that one reads."""
        insert, place = self.insert, self.place
        same_x = place.reader is place.writer and insert.reads == "input"
        return (
            isinstance(place.feeds or place.writer, nn.Linear)
            and insert.adds_to == "output"
            and insert.norm is None
            and (self.delta is None or (same_x and hasattr(self.delta, "weight")))
            and (self.gate is None or (insert.gating == "multiply" and hasattr(self.gate, "vector")))
        )

    @torch.no_grad()
    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight (d_h, d_x) and bias (d_h,) of the one linear layer that equals this one with the insert."""
        insert = self.insert
        factor = insert.scale * (1 if self.gate is None else self.gate.vector())
        if self.place.feeds:
            return insert.base_scale * factor * weight, bias
        weight = insert.base_scale * weight
        if self.delta is not None:
            weight = weight + insert.delta_scale * self.delta.weight()
        rows = factor[:, None] if isinstance(factor, Tensor) else factor
        return rows * weight, None if bias is None else factor * insert.base_scale * bias


def _run(part: Part, module: nn.Module, *inputs: Tensor | None) -> Tensor:
    """As `foreign`, in no time: what is raised names the part."""
    try:
        return module(*inputs)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError.of(f"{titled(part)}: forward raised", error) from error


def _same_shape(part: Part, found: Tensor, h: Tensor) -> None:
    """Raises UserError where what a part makes of H is of another shape: torch would stretch it without a word."""
    if not isinstance(found, Tensor) or found.shape != h.shape:
        shape = f"{tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise PluginError(f"{titled(part)}: forward gave {shape}, where H is {tuple(h.shape)}")


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else factor * x
