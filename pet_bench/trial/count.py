"""Exact parameter counts and descriptions of methods, without weights."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import build
from pet_bench.data.suite import suite_by_name
from pet_bench.errors import UserError
from pet_bench.pet import Design, Method, attach_method, build_method, count, default_spec, design_of, equation
from pet_bench.pet.method import why_skipped
from pet_bench.pet.select import beyond
from pet_bench.registry import ask, title
from pet_bench.spec import MethodSpec


@dataclass(frozen=True)
class Description:
    """A method on a backbone: its options, where it attaches, what trains, its counts by group."""

    method: Method
    options: dict[str, Any]
    behaviour: dict[str, str] = field(default_factory=dict)  # of the named differences that matter here
    inserts: list[tuple[tuple[str, ...], str]] = field(default_factory=list)  # sites, formula
    doors: list[str] = field(default_factory=list)
    train: tuple[str, ...] = ()
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def doc(self) -> str:
        """The docstrings of the method's class and of the family it belongs to."""
        family = [cls for cls in type(self.method).__mro__ if issubclass(cls, Method) and cls is not Method]
        return "\n\n".join(inspect.cleandoc(cls.__doc__) for cls in family if cls.__doc__)


class Undrawn(TorchFunctionMode):
    """No random numbers are drawn for tensors without memory, where PyTorch takes longer over it than with it."""

    DRAWS: ClassVar = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.DRAWS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def describe(method: MethodSpec, backbone: str, suite: str) -> Description:
    """Describe a method; raises UserError for unknown names and options and for a design that does not fit."""
    known, chosen = find_backbone(backbone), suite_by_name(suite)
    shape = known.anatomy.scoped(method.scope)
    built = build_method(method, shape, suite)
    if reason := why_skipped(built, shape):
        raise UserError(f"{title(built)} on {backbone}: {reason}")
    design = design_of(built, shape)
    with Undrawn():
        model = build(known, chosen.visual, method.scope, device="meta")
        try:
            attach_method(model, built, design, chosen.tasks)
        except UserError as error:
            raise error.within(f"{title(built)} on {backbone}") from error
    return Description(
        method=built,
        options=default_spec(built).options,
        behaviour=ask(built, "behaviour", shape, returns=dict[str, str]),
        inserts=_by_formula(design),
        doors=[equation(door) for door in design.doors],
        train=tuple(selector for selector in design.train if not beyond(selector, shape)),
        counts=count(model),
    )


def _by_formula(design: Design) -> list[tuple[tuple[str, ...], str]]:
    sites: dict[str, tuple[str, ...]] = {}
    for insert in design.inserts:
        sites[insert.formula] = sites.get(insert.formula, ()) + insert.sites
    return [(places, formula) for formula, places in sites.items()]


def count_parameters(backbone: str, method: MethodSpec, suite: str) -> dict[str, Any]:
    """{suite, backbone, method, trainable, total, percent, groups}: exact integers, on the `meta` device."""
    counts = describe(method, backbone, suite).counts
    return {"suite": suite, "backbone": backbone, "method": str(method), **counts}
