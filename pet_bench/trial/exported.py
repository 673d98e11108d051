"""A finished trial's model as others load it: a merged checkpoint, and an adapter of HF peft's.

`transformers`' `from_pretrained` reads the first, `peft.PeftModel.from_pretrained` the second on the stock backbone;
both then compute what the trial's language model does. A backbone that is fed with features has a visual embedding that
is no part of the stock model: it lies beside, `visual.safetensors`, under the names that it has here, and beside an
adapter `frozen.safetensors` with the words that the stock model lacks. `pet-bench import` reads both again.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_bench.backbone.interface import Model
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import read_stock
from pet_bench.errors import Faults, UserError
from pet_bench.files import filling
from pet_bench.pet import FROZEN, ask_part, save_frozen, trained_parameters
from pet_bench.pet.deltas import LowRankModule, WeightDecomposedModule
from pet_bench.pet.inserted import Inserted
from pet_bench.pet.merge import merge
from pet_bench.results.exchange.names import hub_name
from pet_bench.trial.imported import VISUAL, door_of, unheld
from pet_bench.trial.loaded import Loaded


def write_merged(trial: Loaded, folder: Path, task: str | None = None) -> None:
    """The trial's model as a stock checkpoint with its tokenizer or processor; what was folded in is taken out again.

    task: of methods with weights of their own for each task, which one. Raises UserError where the method does not
    merge, and FileExistsError where the folder holds anything.
    """
    undo = merge(trial.model, task)
    try:
        with filling(folder) as draft:
            trial.model.lm.save_pretrained(draft)
            trial.tokenizer.save_pretrained(str(draft))
            _write_visual(trial.model, draft)
    finally:
        undo()


def write_adapter(trial: Loaded, folder: Path) -> None:
    """The trial's adapter as peft keeps it: what peft:… trained, or low-rank updates of our own (LoRA, DoRA).

    Of ours, all biases become `bias: all`, and any other module of the backbone that trains, a projector say,
    `modules_to_save`. Raises UserError, with all faults together, where the method holds anything else, and
    FileExistsError where the folder holds anything.
    """
    if door := door_of(trial.spec, trial.model):
        if lost := unheld(trial.model):
            raise UserError(
                f"{trial.spec.label}: {lost[0]} trains too, and the adapter does not hold it (it would with "
                "modules_to_save, or with a scope without the projector)"
            )
        with filling(folder) as draft:
            ask_part(door, "export", trial.model, draft)
            for file in (draft / door.kind).iterdir():
                file.rename(draft / file.name)
            (draft / door.kind).rmdir()
            _write_beside(trial, draft)
    else:
        _write_low_rank(trial, folder)


def _write_low_rank(trial: Loaded, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model, faults = trial.model, Faults()
    paths = {module: path for path, module in model.lm.named_modules()}
    found = {path: one for path, one in model.pet.named_modules() if isinstance(one, Inserted)}
    for key in {*model.pet} - {*model.anatomy.stacks, "shared"}:
        faults.add(f'"{key}" is no low-rank update: peft\'s LoRA cannot hold it')
    for path, one in found.items():
        if not _is_low_rank(one) or one.place.writer not in paths:
            faults.add(f"{path}: {one.insert.formula} is no low-rank update of a layer: peft's LoRA cannot hold it")
    kinds = {_kind(one) for one in found.values() if _is_low_rank(one)}
    if len(kinds) != 1:
        faults.add(f"{trial.spec.label}: its updates are of {len(kinds) or 'no'} ranks, and an adapter has one")
    faults.check()
    ((rank, alpha, dropout, decomposed),) = kinds
    updates: dict[str, Any] = {paths[cast(nn.Module, one.place.writer)]: one.delta for one in found.values()}
    biases, whole = _also_trained(model)
    config = LoraConfig(
        task_type="CAUSAL_LM" if model.anatomy.reading == model.anatomy.writing else "SEQ_2_SEQ_LM",
        r=rank,
        lora_alpha=cast(int, int(alpha) if alpha == int(alpha) else alpha),  # it takes any number
        lora_dropout=dropout,
        use_dora=decomposed,
        target_modules=sorted(updates),
        bias="all" if biases else "none",
        modules_to_save=whole or None,
    )
    stock: Any = read_stock(find_backbone(trial.spec.backbone)).lm
    with warnings.catch_warnings(action="ignore"):  # peft's advice, as where it is attached
        wrapper: Any = get_peft_model(stock, config)
    config.base_model_name_or_path = hub_name(trial.spec.backbone) or trial.spec.backbone  # not a folder here
    with torch.no_grad():
        for path, delta in updates.items():
            layer = stock.get_submodule(path)
            layer.lora_A["default"].weight.copy_(delta.A)
            layer.lora_B["default"].weight.copy_(delta.B)
            if decomposed:
                layer.lora_magnitude_vector["default"].weight.copy_(delta.m)
        for path in whole:
            saved = stock.get_submodule(path).modules_to_save["default"]
            saved.load_state_dict(model.lm.get_submodule(path).state_dict())
        for name, value in biases.items():
            _bias(stock, name).copy_(value)
    with filling(folder) as draft:
        wrapper.save_pretrained(str(draft), save_embedding_layers=False)
        (draft / "README.md").unlink(missing_ok=True)  # peft's empty model card
        _write_beside(trial, draft)


def _is_low_rank(one: Inserted) -> bool:
    """One matrix pair on what a whole linear layer reads, and nothing that scales or gates it."""
    insert, kind = one.insert, type(one.delta)
    plain = insert.gate is None and insert.norm is None and insert.base_scale == insert.delta_scale == 1
    return kind in (LowRankModule, WeightDecomposedModule) and plain and insert.reads == "input" and not one.place.part


def _kind(one: Inserted) -> tuple[int, float, float, bool]:
    """rank, alpha, dropout, and whether the weight is decomposed."""
    spec: Any = cast(LowRankModule, one.delta).spec
    return spec.rank, spec.alpha, spec.dropout, isinstance(one.delta, WeightDecomposedModule)


def _also_trained(model: Model) -> tuple[dict[str, Tensor], list[str]]:
    """Of what trains of the backbone: biases, if all do, by name; and the paths of the modules that the rest is in."""
    names = trained_parameters(model).items()
    trained: dict[str, Tensor] = {name.removeprefix("lm."): one for name, one in names if name.startswith("lm.")}
    biases = {name: one for name, one in trained.items() if name.endswith("bias")}
    if biases.keys() != {name for name, _ in model.lm.named_parameters() if name.endswith("bias")}:
        biases = {}
    return biases, sorted({name.rpartition(".")[0] for name in trained.keys() - biases.keys()})


def _bias(stock: nn.Module, name: str) -> Tensor:
    """A bias by its stock name: of a layer that peft has wrapped it is the wrapped one's."""
    module: Any = stock.get_submodule(name.rpartition(".")[0])
    return getattr(module, "base_layer", module).bias


def _write_beside(trial: Loaded, folder: Path) -> None:
    _write_visual(trial.model, folder)
    save_frozen(trial.model, read_stock(find_backbone(trial.spec.backbone)).lm, folder / FROZEN)


def _write_visual(model: Model, folder: Path) -> None:
    if isinstance(visual := getattr(model, "visual", None), nn.Module):
        tensors = {f"visual.{name}": one.detach().contiguous() for name, one in visual.state_dict().items()}
        save_file(tensors, folder / VISUAL, metadata={"format": "pt"})
