"""What a method plug-in is: a frozen dataclass of options that expands to a `Design`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import TypeAdapter

from pet_bench.backbone.known import Shape
from pet_bench.pet.design import Design
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec, validate


class Method(ABC):
    """A PET method. Subclasses are pydantic dataclasses (frozen, no unknown options).

    name: the registry's and the command line's. source, year: where it was published. learning_rates: peak learning
    rate by backbone name or, failing that, by family; where neither is there, the recipe must give one.
    identity_at_start: before training, the model's output is that of the untouched backbone. batch_invariant: an
    example's output does not depend on what it is batched with.
    """

    plugin_kind: ClassVar[str] = "method"
    name: ClassVar[str]
    source: ClassVar[str]
    year: ClassVar[int]
    learning_rates: ClassVar[dict[str, float]]
    identity_at_start: ClassVar[bool] = False
    batch_invariant: ClassVar[bool] = True

    @classmethod
    def defaults(cls, shape: Shape) -> dict[str, Any]:
        """The published options on a backbone of that shape."""
        return {}

    @classmethod
    def learning_rate(cls, shape: Shape) -> float | None:
        """The published peak learning rate, or None where the source has none."""
        return cls.learning_rates.get(shape.backbone, cls.learning_rates.get(shape.family))

    @abstractmethod
    def design(self, shape: Shape) -> Design:
        """The design on a backbone of that shape."""


def build_method(spec: MethodSpec, shape: Shape) -> Method:
    """The method of that name with its defaults on `shape` overridden by the spec's options.

    Raises UserError for an unknown name (with the nearest) and, together, for every unknown option or bad value.
    """
    cls = METHODS.get(spec.name)
    return validate(cls, {**cls.defaults(shape), **spec.options}, f'method "{spec.name}"')


def default_spec(method: Method) -> MethodSpec:
    """The spec of a built method with every option filled in, as plain data."""
    return MethodSpec(method.name, TypeAdapter(type(method)).dump_python(method, mode="json"))
