"""An adapter of HF peft's as a trial's weights: it is tested as any trial is, and was trained elsewhere."""

from __future__ import annotations

from dataclasses import replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from torch import nn

from pet_bench.backbone.interface import Model
from pet_bench.errors import UserError, shortened
from pet_bench.files import is_file, read_json
from pet_bench.pet import FROZEN, Door, ask_part, build_method, design_of, load_frozen, trained_parameters
from pet_bench.pet.method import restored
from pet_bench.pet.trained import load_tensors
from pet_bench.registry import BACKBONES, METHODS
from pet_bench.results.exchange.names import hub_name
from pet_bench.spec import MethodSpec, Scope, TrialSpec
from pet_bench.trial.resolve import labelled, resolve

CONFIG, WEIGHTS, VISUAL = "adapter_config.json", "adapter_model.safetensors", "visual.safetensors"
READ = ("batch_size", "evaluation", "generation", "precision", "frozen")  # of a recipe, by a test
UNUSED = {"lr": 1.0, "max_steps": 1, "valid_every": 0}  # what a recipe has, and no update reads


def imported_spec(
    folder: Path,
    suite: str,
    *,
    backbone: str | None = None,
    seed: int = 0,
    scope: Scope | None = None,
    recipe: dict[str, Any] | None = None,
    protocol: dict[str, dict[str, Any]] | None = None,
) -> TrialSpec:
    """The trial `peft:<type>` that has the weights of the adapter in `folder`, as peft's `save_pretrained` wrote it.

    recipe: of what a test reads (`READ`). seed: what is drawn where the adapter says nothing. backbone: by default the
    one that the adapter was saved with. Raises UserError, before any weights are read, for a folder that is no such
    adapter, tensors as a pickle, options that no method has, and keys of a recipe that no test reads.
    """
    config = read_json(folder / CONFIG, f"{folder / CONFIG}")
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise UserError(f"{folder / CONFIG} is no configuration of peft's: it has no peft_type")
    if not is_file(folder / WEIGHTS):
        raise UserError(f"{folder / WEIGHTS} is missing: adapters are read from safetensors alone")
    if backbone is None:
        backbone = config.get("base_model_name_or_path")
        if not isinstance(backbone, str) or not backbone:
            raise UserError(f"{folder / CONFIG} does not say its backbone: give one with --backbone")
    backbone = next((name for name in BACKBONES.names() if hub_name(name) == backbone), backbone)
    if odd := sorted((recipe or {}).keys() - {*READ}):
        raise UserError.many(
            f"recipe.{key} is nothing that a test reads, and this is not trained (possible: {', '.join(READ)})"
            for key in odd
        )
    cls: Any = METHODS.get(f"peft:{config['peft_type'].lower()}")
    method = MethodSpec(cls.name, cls.options_of(config), scope)
    spec = resolve(backbone, method, suite, seed, recipe={**(recipe or {}), **UNUSED}, protocol=protocol)
    return replace(spec, imported=digest(folder), label=f"{labelled(cls.name, method)} ({shortened(folder.name, 40)})")


def digest(folder: Path) -> str:
    """SHA-256 of an adapter's files, one after the other."""
    hashes = []
    for name in (CONFIG, WEIGHTS, VISUAL, FROZEN):
        if is_file(folder / name):
            with (folder / name).open("rb") as file:
                hashes.append(file_digest(file, "sha256").hexdigest())
    return sha256("".join(hashes).encode()).hexdigest()


def take(model: Model, spec: TrialSpec, folder: Path) -> None:
    """Load the adapter of an imported trial, and what lies beside it: a visual embedding, words of the model's own.

    Raises UserError where the folder is not what the trial was made from, its tensors do not fit, or the model sees
    through a visual embedding that is not there: it would be a random one.
    """
    if digest(folder) != spec.imported:
        raise UserError(f"{folder} has changed since trial {spec.id} was made from it")
    if isinstance(visual := getattr(model, "visual", None), nn.Module):
        if not is_file(folder / VISUAL):
            raise UserError(
                f"{folder / VISUAL} is missing: {spec.backbone} sees through a visual embedding, which trains with "
                "every adapter"
            )
        load_tensors({f"visual.{name}": one for name, one in visual.named_parameters()}, folder / VISUAL)
    if is_file(folder / FROZEN):
        load_frozen(model, folder / FROZEN)
    door = door_of(spec, model)
    assert door  # the method is one of peft's
    ask_part(door, "take", model, folder)
    if lost := unheld(model):
        raise UserError(f"{folder} does not hold {lost[0]}, which trains: give a --scope without the projector")


def unheld(model: Model) -> list[str]:
    """What trains of a backbone's own projector and is not in peft's layers."""
    of = model.anatomy.part_of
    trained = [name for name in trained_parameters(model) if name.startswith("lm.") and of(name) == "projector"]
    return sorted(name for name in trained if ".modules_to_save." not in name)


def door_of(spec: TrialSpec, model: Model) -> Door | None:
    """The door of a trial whose method is one of peft's types; None of all others."""
    doors = design_of(build_method(restored(spec.method), model.anatomy), model.anatomy).doors
    return next((door for door in doors if type(door).take is not Door.take), None)
