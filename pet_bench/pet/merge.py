"""Inserts folded into the layers where they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from pet_bench.backbone.interface import Model
from pet_bench.backbone.ties import tied_modules
from pet_bench.errors import Faults
from pet_bench.pet.inserted import Inserted
from pet_bench.pet.trained import is_quantised


def merge(model: Model, task: str | None = None) -> Callable[[], None]:
    """Fold every insert into the linear layer it stands at, and return what undoes that, to the last bit.

    task: where tasks have weights of their own, the one that the merged model is for; of any other it then refuses
    to make anything.

    W ← s G ⊙ (b W + a ΔW) and bias ← s b G ⊙ bias, for inserts on projections whose ΔH = ΔW X and whose gate, if any,
    is a vector; such a gate on hidden units scales the columns of the projection that reads them, W ← W diag(s b G). A
    door's module that offers `merged()`, ΔW by linear layer, is folded too, and told by its `is_merged`.
    Raises UserError, changing nothing, where the design holds anything else.
    """
    model.context.task = task
    folded: dict[nn.Linear, tuple[Tensor, Tensor | None]] = {}
    faults, tied = Faults(), tied_modules(model.lm)
    inserts = [(path, module) for path, module in model.pet.named_modules() if isinstance(module, Inserted)]
    for path, inserted in sorted(inserts, key=lambda one: one[1].place.feeds is not None):  # columns: ΔW's as well
        linear = cast(nn.Linear, inserted.place.feeds or inserted.place.writer)  # where it is mergeable
        if not inserted.mergeable:
            faults.add(f"{path}: {inserted.insert.formula} is no linear map at a projection: it cannot be merged")
        elif is_quantised(linear.weight):
            faults.add(f"{path}: the projection is quantised: it cannot be merged")
        elif linear in tied:
            faults.add(f"{path}: the projection is the word table too: it cannot be merged")
        elif inserted.is_merged:
            faults.add(f"{path} is merged already")
        else:
            folded[linear] = inserted.merged(*folded.get(linear, (linear.weight, linear.bias)))
    doors: dict[str, Any] = {k: m for k, m in model.pet.items() if k not in {*model.anatomy.stacks, "shared"}}
    for key, door in doors.items():
        if not hasattr(door, "merged"):
            faults.add(f'"{key}" is no insert: it cannot be merged')
        elif door.is_merged:
            faults.add(f'"{key}" is merged already')
    faults.check()
    for door in doors.values():
        for linear, update in door.merged().items():
            weight, bias = folded.get(linear, (linear.weight, linear.bias))
            folded[linear] = weight + update, bias
    for _, inserted in inserts:
        inserted.merged_for = task or "" if getattr(inserted.delta, "by_task", False) else ""
    stock = {linear: (linear.weight.data, None if linear.bias is None else linear.bias.data) for linear in folded}

    def put(values: dict, merged: bool) -> None:
        for linear, (weight, bias) in values.items():
            linear.weight.data = weight
            if bias is not None:
                linear.bias.data = bias
        for module in (*(inserted for _, inserted in inserts), *doors.values()):
            module.is_merged = merged

    put(folded, True)
    return lambda: put(stock, False)
