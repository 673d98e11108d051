"""What makes large models fit: frozen weights in half precision or in four bits, and activations computed twice.

What trains is in float32 whatever becomes of the rest, and so is its optimiser. "bfloat16" casts every frozen parameter
once, when the method is attached: the norms' stay in float32, as do all buffers (rotary frequencies), and what was tied
stays tied. "4bit" besides keeps the frozen linear layers of the language model as bitsandbytes' NF4 (Dettmers et al.,
NeurIPS 2023), double quantisation included; the output layer, the vision tower and all else are as in "bfloat16". All
of it happens on the CPU, before a model goes to its device: while it does, the checkpoint in float32 and one copy of it
are there, as without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from pet_bench.backbone.interface import Model
from pet_bench.errors import Faults, UserError
from pet_bench.pet.attach import attach
from pet_bench.pet.design import Design
from pet_bench.pet.parts import titled
from pet_bench.pet.rates import hold
from pet_bench.pet.select import select
from pet_bench.spec import Frozen

PACKAGE = "bitsandbytes"


def attach_frozen(
    model: Model, design: Design, tasks: Iterable[str], frozen: Frozen, rates: Mapping[str, float] | None = None
) -> Model:
    """`attach`, with what does not train kept so; rates: see `pet.rates.hold`. Raises UserError as these and
    `check_frozen` do."""
    check_frozen(model, design, frozen)
    if frozen == "4bit":
        _quantise(model, design)
    attach(model, design, tasks)
    hold(model, rates or {})
    if frozen != "float32":
        _halve(model)
    model.frozen = frozen
    return model


def check_package(frozen: Frozen) -> None:
    """Raises UserError where the package that quantises is not installed."""
    if frozen == "4bit" and find_spec(PACKAGE) is None:
        raise UserError(f"recipe: frozen is 4bit, which needs the package {PACKAGE}: pip install 'pet-bench[quant]'")


def check_frozen(model: Model, design: Design, frozen: Frozen) -> None:
    """Raises UserError, with all faults together, where a design does not go together with it."""
    if frozen != "4bit":
        return
    faults = Faults()
    with faults:
        check_package(frozen)
    for part in dict.fromkeys(titled(part) for part in design.parts() if part.reads_weights):
        faults.add(f"recipe: frozen is 4bit, but the {part} reads the weights themselves")
    with faults:
        if not any(_replaceable(model, design)):
            raise UserError("recipe: frozen is 4bit, but every layer that could be kept so trains")
    faults.check()


def autocast(model: Model, precision: str = "float32") -> torch.autocast:
    """Computes in half precision where that is wanted, or needed: halves do not mix with float32 by themselves."""
    half = precision == "bfloat16" or model.frozen != "float32"
    return torch.autocast(model.device.type, torch.bfloat16, enabled=half)


def recompute_activations(model: Model) -> None:
    """Keep of each layer its input alone, and compute the rest once more when gradients pass: the same numbers, the
    same draws of dropout. Raises UserError where the stock model cannot.

    `transformers`' own switch would also let gradients into words and relative positions, for which torch attends by
    another kernel: the last bits would change.
    """
    layers: list[Any] = [layer for layer in model.lm.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"gradient checkpointing: {type(model.lm).__name__} has no layers for it")
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _twice


def _twice(function: Callable[..., Any], *arguments: Any) -> Any:
    """The second time to the end too, so that what torch would end it by does not pass through hooks."""
    with set_checkpoint_early_stop(False):
        return checkpoint(function, *arguments, use_reentrant=False)


def _halve(model: Model) -> None:
    full = {id(p) for m in model.modules() if type(m).__name__.endswith("Norm") for p in m.parameters(recurse=False)}
    kept = _kept(model, "_keep_in_fp32_modules_strict")
    for name, parameter in model.named_parameters():
        numbers = parameter.is_floating_point() and not parameter.requires_grad
        if numbers and id(parameter) not in full and kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(torch.bfloat16)


def _quantise(model: Model, design: Design) -> None:
    from bitsandbytes import matmul_4bit  # pyright: ignore[reportMissingImports]  an extra
    from bitsandbytes.nn import Linear4bit, Params4bit  # pyright: ignore[reportMissingImports]

    class Quantised(Linear4bit):
        """W x + b, W in four bits; b may train, hence stays as it is, and W what it is for training when evaluated."""

        def __init__(self, linear: nn.Linear):
            super().__init__(linear.in_features, linear.out_features, bias=False, quant_type="nf4", device="meta")
            self.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=self)
            self.bias = linear.bias

        def forward(self, x: Tensor) -> Tensor:
            y = matmul_4bit(x.to(torch.bfloat16), self.weight.t(), quant_state=self.weight.quant_state).to(x.dtype)
            return y if self.bias is None else y + self.bias.to(y.dtype)

    for path, linear in [*_replaceable(model, design)]:
        model.set_submodule(path, Quantised(linear).to(linear.weight.device).train(linear.training))
    model.lm.is_loaded_in_4bit = True  # peft asks


def _replaceable(model: Model, design: Design) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the language model's stacks whose weights do not train and need not stay as they are."""
    anatomy = model.anatomy
    trained: set[str] = set()
    for selector in design.train:
        with suppress(UserError):  # of what a door has yet to add; `attach` says what is never there
            trained |= select(model, selector)
    kept = _kept(model, "_keep_in_fp32_modules") | _kept(model, "_keep_in_fp32_modules_strict")
    for path, module in model.named_modules():
        inside = any(anatomy.stacks[stack].holds(path) for stack in anatomy.words)
        free = kept.isdisjoint(path.split(".")) and f"{path}.weight" not in trained
        if inside and free and type(module) is nn.Linear:
            yield path, module


def _kept(model: Model, table: str) -> set[str]:
    """The names of modules that the stock classes keep as they are: T5's `wo`, whose caller asks for its type."""
    return {
        name
        for module in model.lm.modules()
        if isinstance(module, PreTrainedModel)
        for name in getattr(module, table, None) or ()
    }
