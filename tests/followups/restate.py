"""What a fixture of `followups/parity` is, and what a restatement of one is asked for.

Each module of this package whose name begins with `of_` restates the fixtures of some methods: its table `FIXTURES` has
a pattern over names → a function of (fixture, weights, inputs) that runs *our* modules on them and gives the outputs by
the fixture's names. Weights and inputs are leaves in the reference's names and layouts: ours are made of them (by
`called`), so that gradients come out under the reference's names too.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

import tests.followups
from tests.reference.discover import fixtures

FOLDER = "followups/parity"
Tensors = dict[str, Tensor]
Restatement = Callable[["Fixture", Tensors, Tensors], Tensors]
MAIN = ("output/y", "output/joint", "output/hs")  # what a probe is multiplied with
# Restated with other tests of the same form, or by none.
ELSEWHERE = {
    r"vlbart_(dora|mtl_lora)\w*": "tests/parity: whole VL-BARTs, as those of the paper's methods",
    r"p_adapter_\w+": "p-Adapter is not hosted: the released code does not run, and its self-attention form, with "
    "p < 2, is a gated plain adapter (docs/methods.md)",
}


@dataclass(frozen=True)
class Fixture:
    """about: its JSON. Tensors by the keys `param/…`, `input/…`, `output/…`, `aux/…`, `grad/…`."""

    name: str
    about: dict[str, Any]
    tensors: Tensors

    @classmethod
    def read(cls, name: str) -> Fixture:
        """Those of a whole model in training and in evaluation, `grad.vqa/…`, `output.eval/…`, as any other's."""
        source = fixtures(FOLDER)[name]
        keys = {key: key.replace(".vqa/", "/").replace("output.eval/", "output/eval/") for key in source.tensors}
        return cls(name, source.about, {ours: source.tensors[key] for key, ours in keys.items()})

    @property
    def flags(self) -> dict[str, Any]:
        """Its sizes and switches."""
        return {**self.about.get("sizes", {}), **self.about["flags"]}

    def section(self, prefix: str) -> Tensors:
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{prefix}/")}

    @property
    def wrong(self) -> bool:
        """Whether it records a reshape where a transpose is meant, and so must not be met."""
        return self.name.endswith("__scrambled_by_reference")

    @property
    def gradients(self) -> Tensors:
        """By the leaf: the name of a weight, or `input.` and that of an input."""
        weights = self.section("grad")
        return weights | {f"input.{name}": value for name, value in self.section("grad.input").items()}

    @property
    def no_gradient(self) -> set[str]:
        """Leaves that have none at all."""
        listed = self.about.get("no_gradient") or self.about.get("trainable_without_gradient") or []
        return {name.replace("grad.input/", "input.").removeprefix("grad/") for name in listed}

    def tolerance(self, gradient: Tensor | None = None) -> float:
        """The largest error that is allowed, of an output relative to its largest entry; of a gradient as it is."""
        stated = self.about["tolerance"]
        if gradient is None:
            return 1e-5
        share, floor = (2e-3, 1e-4) if str(stated["grad"]).startswith(("0.002", "2e-3")) else (1e-4, 1e-2)
        largest = max((float(g.abs().max()) for g in self.gradients.values()), default=0.0)
        return share * max(float(gradient.abs().max()), floor * largest)


@cache
def restatements() -> dict[str, Restatement]:
    """Pattern → function, of all modules of this package."""
    names = [module.name for module in pkgutil.iter_modules(tests.followups.__path__)]
    modules = [importlib.import_module(f"tests.followups.{name}") for name in names if name.startswith("of_")]
    return {pattern: function for module in modules for pattern, function in module.FIXTURES.items()}


def restatement(name: str) -> Restatement:
    """The one that restates a fixture; raises KeyError where none or more than one does."""
    matching = [function for pattern, function in restatements().items() if re.fullmatch(pattern, name)]
    if len(matching) != 1:
        raise KeyError(f"fixture {name}: {len(matching)} restatements know it (possible: {', '.join(restatements())})")
    return matching[0]


def elsewhere(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in ELSEWHERE)


def called(module: nn.Module, weights: Mapping[str, Tensor], *inputs: Any, **named: Any) -> Any:
    """What a module of ours gives with these weights, which must be all that it has.

    weights: by our names; each may be computed from the fixture's leaves, which then get the gradient.
    """
    ours = {name: parameter.shape for name, parameter in module.named_parameters()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    assert ours == given, {name: (ours.get(name), given.get(name)) for name in ours.keys() | given.keys()}
    return functional_call(module, dict(weights), inputs, named)


def below(weights: Mapping[str, Tensor], prefix: str) -> Tensors:
    """Those under a prefix, by the rest of their names."""
    return {name[len(prefix) + 1 :]: value for name, value in weights.items() if name.startswith(f"{prefix}.")}


class Computed:
    """What a restatement makes of its fixture: outputs, the differentiated loss and the gradients of all leaves."""

    def __init__(self, fixture: Fixture):
        weights, inputs = fixture.section("param"), fixture.section("input")
        leaves = {**weights, **{f"input.{name}": value for name, value in inputs.items()}}
        leaves = {
            name: value.clone().requires_grad_(value.is_floating_point() and name != "input.probe")
            for name, value in leaves.items()
        }
        given = {name.removeprefix("input."): leaves[f"input.{name}"] for name in inputs}
        self.outputs = restatement(fixture.name)(fixture, {name: leaves[name] for name in weights}, given)
        if "probe" in inputs:
            main = next(self.outputs[key] for key in MAIN if key in self.outputs)
            loss = (main * inputs["probe"]).sum()
            loss = loss + sum(value.sum() for key, value in self.outputs.items() if key.startswith("aux/"))
            key = "output/scalar" if "output/scalar" in fixture.tensors else "output/loss"
            self.outputs[key] = loss.reshape(fixture.tensors[key].shape)
        else:
            loss = self.outputs["output/loss"]
        wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        gradients = torch.autograd.grad(loss.sum(), list(wanted.values()), allow_unused=True)
        self.gradients = {name: g for name, g in zip(wanted, gradients, strict=True) if g is not None}
