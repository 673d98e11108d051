"""An insert at work: the module that turns H into H', and the hooks that run it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from pet_bench.backbone.anatomy import Site
from pet_bench.errors import PluginError, UserError
from pet_bench.pet.build import Place
from pet_bench.pet.design import Insert
from pet_bench.pet.parts import Part, ask_part, titled


class Inserted(nn.Module):
    """An insert at one site of one layer."""

    def __init__(self, insert: Insert, place: Place):
        super().__init__()
        self.insert, self.place = insert, place
        self.is_merged, self.merged_for = False, ""  # the task that it is merged for, where tasks differ
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
            if self.merged_for and self.place.context.task != self.merged_for:
                raise UserError(f'task "{self.place.context.task}": the method is merged for {self.merged_for}')
            return h
        insert = self.insert
        base = y = _scaled(x if insert.adds_to == "input" else h, insert.base_scale)
        delta = added = None
        if insert.delta and self.delta is not None:
            delta = _run(insert.delta, self.delta, x if insert.reads == "input" else h)
            _same_shape(insert.delta, delta, h)
            added = _scaled(delta, insert.delta_scale)
            y = base + added
        if insert.gate and self.gate is not None:
            gate = _run(insert.gate, self.gate, x, y, delta)
            if insert.gating == "add":
                y = y + gate
            elif insert.gating == "multiply" or added is None:
                y = gate * y
            else:
                y = gate * base + added
            _same_shape(insert.gate, y, h)
        if self.norm is not None:
            y = self.norm(y)
        elif insert.norm == "l2":
            y = F.normalize(y, dim=-1)
        return _scaled(y, insert.scale)

    @property
    def mergeable(self) -> bool:
        """Whether H' is an affine map of X, at a projection, or scales the hidden units that one reads.

        What ΔH adds to every position alike needs a bias to be folded into.
        """
        insert, delta, place = self.insert, self.delta, self.place
        linear = place.feeds or place.writer
        same_x = place.reader is place.writer and insert.reads == "input"
        offset = hasattr(delta, "bias") and not place.feeds and getattr(linear, "bias", None) is not None
        gated = insert.gating == "multiply" or (insert.gating == "base" and offset)
        return (
            isinstance(linear, nn.Linear)
            and insert.adds_to == "output"
            and insert.norm is None
            and (delta is None or offset or (same_x and hasattr(delta, "weight")))
            and (self.gate is None or (gated and hasattr(self.gate, "vector")))
        )

    @torch.no_grad()
    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight (d_h, d_x) and bias (d_h,) of the one linear layer that equals this one with the insert.

        Of a fused layer, whose H is a part of what it gives, the rows of that part change.
        """
        if self.place.part is None:
            return self._folded(weight, bias)
        k, n = self.place.part
        weights, biases = list(weight.chunk(n)), list([None] * n if bias is None else bias.chunk(n))
        weights[k], biases[k] = self._folded(weights[k], biases[k])
        return torch.cat(weights), None if bias is None else torch.cat([one for one in biases if one is not None])

    def _folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        insert, delta = self.insert, cast(Any, self.delta)
        gate = 1 if self.gate is None else self.gate.vector()
        if self.place.feeds:
            return insert.scale * insert.base_scale * gate * weight, bias
        inner, outer = (gate, 1) if insert.gating == "base" else (1, gate)  # what multiplies H alone, and the sum
        weight = _rows(inner) * insert.base_scale * weight
        bias = None if bias is None else inner * insert.base_scale * bias
        if hasattr(delta, "weight"):
            weight = weight + insert.delta_scale * delta.weight()
        if hasattr(delta, "bias") and bias is not None:
            bias = bias + insert.delta_scale * delta.bias()
        return _rows(outer) * insert.scale * weight, None if bias is None else outer * insert.scale * bias


def _rows(factor: Tensor | float) -> Tensor | float:
    """A factor of each row of a matrix."""
    return factor[:, None] if isinstance(factor, Tensor) else factor


def _run(part: Part, module: nn.Module, *inputs: Tensor | None) -> Tensor:
    """As `foreign`, in no time: what is raised names the part."""
    try:
        return module(*inputs)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError.of(f"{titled(part)}: forward raised", error) from error


def _same_shape(part: Part, made: Tensor, h: Tensor) -> None:
    """Raises UserError where what a part makes of H is of another shape: torch would stretch it without a word."""
    if not isinstance(made, Tensor) or made.shape != h.shape:
        shape = f"{tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise PluginError(f"{titled(part)}: forward gave {shape}, where H is {tuple(h.shape)}")


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else factor * x


def hook(place: Place, site: Site, inserted: Inserted) -> None:
    """H ← inserted(X, H) whenever the stock model runs the pair: X is kept from reader to writer."""
    reader, writer, argument = place.reader, place.writer, site.argument
    kept: list[Tensor] = []

    def read(module, args, kwargs):
        kept[:] = [args[0] if args else kwargs["hidden_states"]]

    def written(h):
        return inserted(h if reader is None else kept.pop(), h)

    def write(module, args, output):
        h = states_of(output)
        if site.part is None:
            return with_states(output, written(h))
        parts = list(h.chunk(site.part[1], dim=-1))
        parts[site.part[0]] = written(parts[site.part[0]])
        return with_states(output, torch.cat(parts, dim=-1))

    def write_before(module, args):
        return written(args[0]), *args[1:]

    def edit(module, args, kwargs):
        value = kwargs[argument]
        return args, kwargs | {argument: inserted(value, value)}

    if argument:
        writer.register_forward_pre_hook(edit, with_kwargs=True)
        return
    if reader is not None:
        reader.register_forward_pre_hook(read, with_kwargs=True)
    if site.before:
        writer.register_forward_pre_hook(write_before)
    else:
        writer.register_forward_hook(write)


def states_of(output: Any) -> Tensor:
    """The states among what a stock module gives."""
    if isinstance(output, ModelOutput):
        return output["last_hidden_state"]
    return output[0] if isinstance(output, tuple) else output


def with_states(output: Any, states: Tensor) -> Any:
    """The same with other states."""
    if isinstance(output, ModelOutput):
        output["last_hidden_state"] = states
        return output
    return (states, *output[1:]) if isinstance(output, tuple) else states
