"""A frozen vision tower: it sees one picture at a time, and what it gives of one may be kept and replayed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pet_bench.backbone.pixels import SeesPixels

Call = tuple[tuple[Any, ...], dict[str, Any]]
Kept = list[Tensor]  # of some pictures, one behind the other: what each layer that is read has written


class Tower:
    """The vision tower of a model, which it takes the place of.

    While nothing in it trains, it sees one picture, or tile of one, after the other, in evaluation mode and in the
    precision of its weights: what it gives of one depends on nothing else in a batch. Only what the layers in `read`
    write is taken of these passes, or of an earlier one that was kept; the stock tower then runs on all pictures, each
    of these layers giving what was taken and every other one passing on what it reads. So whatever lies behind them, a
    projector inside of the tower as well, is the stock model's and can train. A tower that a method may touch is left
    as it is.

    pictures: the rows (B, I) of what the model sees next, where it is told. kept: gives what was kept of these rows.
    """

    def __init__(self, model: SeesPixels):
        self.model, stack = model, model.anatomy.stacks["vision"]
        self.module: Any = model.at(model.family.tower)
        self.layers = [model.at(stack.blocks, stack.name_of(i)) for i in range(stack.layers)]
        self.read = model.family.read_layers(model.lm.config, stack.layers)
        self.stock: Callable[..., Any] = self.module.forward
        self.module.forward = self.forward
        self.pictures: Tensor | None = None
        self.kept: Callable[[Tensor], Kept] | None = None
        self.made: Kept | None = None  # of the last pass

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Its own by name, without those of a projector inside of it."""
        named = self.module.named_parameters(prefix=self.model.family.tower)
        return {name: one for name, one in named if self.model.anatomy.part_of(name) == "vision"}

    @property
    def frozen(self) -> bool:
        """Whether no method can have changed anything of it."""
        touched = "vision" in self.model.anatomy.scope
        return not touched and not any(parameter.requires_grad for parameter in self.parameters.values())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        pictures, self.pictures = self.pictures, None
        if not self.frozen:
            return self.stock(*args, **kwargs)
        kept = self.kept(pictures) if self.kept is not None and pictures is not None else self._run(args, kwargs)
        with self._replaying(kept):
            return self.stock(*args, **kwargs)

    @torch.no_grad()
    def see(self, given: dict[str, Tensor]) -> Kept:
        """What is kept of the pictures that the stock model would be given."""
        owner = next(one for one in (self.model.lm.base_model, self.model.lm) if hasattr(one, "get_image_features"))
        names = inspect.signature(owner.get_image_features).parameters
        self.made = None
        with self._own_precision():
            owner.get_image_features(**{name: given[name] for name in names if name in given})
        assert self.made is not None  # the tower has run
        return self.made

    @torch.no_grad()
    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kept:
        written: dict[int, list[Tensor]] = {i: [] for i in self.read}
        training = self.module.training
        self.module.eval()
        try:
            with ExitStack() as hooks, self._own_precision():
                for i, states in written.items():
                    handle = self.layers[i].register_forward_hook(lambda *call, states=states: states.append(call[-1]))
                    hooks.callback(handle.remove)
                for one, named in self.model.family.apart(args, kwargs):
                    self.stock(*one, **named)
        finally:
            self.module.train(training)
        self.made = [torch.cat(states) for states in written.values()]
        return self.made

    def _own_precision(self) -> torch.autocast:
        """Half precision where weights are kept so, which do not mix with float32 by themselves; else float32."""
        halves = any(parameter.dtype != torch.float32 for parameter in self.parameters.values())
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=halves)

    @contextmanager
    def _replaying(self, kept: Kept) -> Iterator[None]:
        values = dict(zip(self.read, kept, strict=True))
        own = [vars(layer).get("forward") for layer in self.layers]
        try:
            for i, layer in enumerate(self.layers):
                layer.forward = _passing(values.get(i))
            yield
        finally:
            for layer, forward in zip(self.layers, own, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward


def _passing(value: Tensor | None) -> Callable[..., Tensor]:
    """A layer's forward that gives this value, or what it reads."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        if value is None:
            return states
        if value.shape != states.shape:
            raise RuntimeError(f"kept of the tower is {tuple(value.shape)}, and it is asked for {tuple(states.shape)}")
        return value

    return forward


def read_layers(config: Any, layers: int) -> tuple[int, ...]:
    """The layers of a tower whose output is read behind it, as configurations of `transformers` say; else the last."""
    places, vision = getattr(config, "vision_feature_layer", None), getattr(config, "vision_config", None)
    read = layers_of(places if places or places == 0 else layers, getattr(vision, "num_hidden_layers", layers))
    return tuple(sorted(read | set(getattr(vision, "deepstack_visual_indexes", ()))))


def layers_of(places: int | Sequence[int], total: int) -> set[int]:
    """The layers that write these hidden states of a tower of so many; the first states are those before any layer."""
    return {at % (total + 1) - 1 for at in ((places,) if isinstance(places, int) else places)}


def apart(args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Call]:
    """A tower's call for several pictures, or tiles, as one for each.

    Every tensor has a row for each; where there is `grid_thw` (N, 3), the first one has as many as that multiplies to.
    """
    grid = kwargs.get("grid_thw")
    first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    counts = [1] * len(first) if grid is None else grid.prod(-1).tolist()
    start = 0
    for i, count in enumerate(counts):

        def part(value: Any, i: int = i, rows: slice = slice(start, start + count)) -> Any:
            if value is first:
                return value[rows]
            return value[i : i + 1] if isinstance(value, Tensor) and len(value) == len(counts) else value

        yield tuple(map(part, args)), {name: part(value) for name, value in kwargs.items()}
        start += count
