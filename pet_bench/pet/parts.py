"""The parts of a design: what may be added (Delta), what may gate it (Gate), and what is no insert (Door)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import PlainSerializer, PlainValidator
from torch import nn

from pet_bench.backbone.interface import Model
from pet_bench.errors import PluginError, UserError, foreign, text_of, unknown
from pet_bench.pet.hooks import TrainingHooks
from pet_bench.registry import METHODS, ask, place_of
from pet_bench.spec import validate

if TYPE_CHECKING:
    from pet_bench.pet.build import Builder, Place

KIND = re.compile(r"[^\W_][\w-]*")  # it names a module too


class Part:
    """A piece of a design: a frozen dataclass, or, in a grid file, a mapping of its `kind` and its fields.

    formula: as `show` writes it, a property or a class's constant; that of a delta calls what it reads `{x}`.
    reads_weights: whether it reads frozen weights themselves, which must then be numbers, and not four bits of them.
    divides: whether what it makes of a batch in training, its penalty too, is the mean of what it makes of the rows, so
    that processes may divide them.
    """

    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type[Part]]]

    @property
    def formula(self) -> str:
        return ""

    @property
    def reads_weights(self) -> bool:
        return False

    @property
    def divides(self) -> bool:
        return True

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if Part in cls.__bases__:
            cls.kinds = {}
        elif "kind" in vars(cls):
            taken = cls.kinds.get(cls.kind)
            if taken is not None and place_of(taken) != place_of(cls):
                raise PluginError(f'{_word(cls)} "{cls.kind}" is there twice: {place_of(taken)} and {place_of(cls)}')
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


class Delta(Part, ABC):
    """ΔH: a frozen dataclass of sizes that builds a module f with f(x) (…, d_in) → (…, d_h).

    f may offer `weight()`, the (d_h, d_in) matrix that equals it in evaluation, or `bias()`, (d_h,), what it adds
    whatever it reads: it can then be merged.
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


class Door(Part, TrainingHooks, ABC):
    """A modification that is no insert: an edit of the input, of attentions, a side network, new biases."""

    @abstractmethod
    def open(self, build: Builder) -> nn.Module | None:
        """Change `build.model`; what is returned becomes `pet.<kind>`, whose parameters all train."""

    def trained(self, model: Model) -> set[str]:
        """Names of the parameters outside of `pet` that the opened door trains."""
        return set()

    def export(self, model: Model, folder: Path) -> None:
        """Write what the door trained in another library's format too, beside the trained tensors."""

    def take(self, model: Model, folder: Path) -> None:
        """Take what another library trained, in that format; raises UserError where it does not fit."""
        raise UserError(f"{self.kind} is of no other library's format")


def _plain(part: Any) -> dict[str, Any]:
    return {"kind": part.kind, **asdict(part)}


# the types of fields that hold a part
ADelta = Annotated[Delta, PlainValidator(Delta.parse), PlainSerializer(_plain)]
AGate = Annotated[Gate, PlainValidator(Gate.parse), PlainSerializer(_plain)]
ADoor = Annotated[Door, PlainValidator(Door.parse), PlainSerializer(_plain)]
