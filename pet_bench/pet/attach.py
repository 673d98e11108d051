"""Attach a design to a model, and choose what trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from pet_bench.backbone.anatomy import Site
from pet_bench.backbone.interface import Model
from pet_bench.errors import Faults, PluginError, UserError, foreign, unknown
from pet_bench.pet.build import Builder, Place, below
from pet_bench.pet.design import Design, Insert
from pet_bench.pet.inserted import Inserted, hook
from pet_bench.pet.parts import ask_part, titled
from pet_bench.pet.select import select


def attach(model: Model, design: Design, tasks: Iterable[str] = ()) -> Model:
    """Open every door of the design, build every insert on its sites and make exactly what it declares trainable.

    The inserts live in `model.pet` as `pet.<stack>.<layer>.<site>.<k>`, k counting the inserts of one site, applied
    in the design's order; a door's module is `pet.<kind>`. tasks: those that a part of their own may be built for.
    Raises UserError, with all faults together, for a site the backbone does not have, for a selector that matches
    nothing and where nothing of what is to train is in the scope, PluginError where a part fails or builds no module.
    """
    build = Builder(model, tuple(tasks))
    trained = _open_doors(build, design)
    faults = Faults()
    for site in {site: None for insert in design.inserts for site in insert.sites}:
        if site not in model.anatomy.sites:
            faults.add(unknown("site", site, model.anatomy.sites))
        elif not model.anatomy.in_scope(site):
            faults.add(f'site "{site}" is not in the scope, {", ".join(model.anatomy.scope)}')
    for selector in design.train:
        with faults:
            trained |= select(model, selector)
    faults.check()

    for insert in design.inserts:
        for site in insert.sites:
            _insert(build, insert, site)
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained or name.startswith("pet."))
    if absent := sorted(trained - parameters.keys()):
        raise PluginError(f"there is no parameter {absent[0]}, which is to train ({len(absent)} in all)")
    wanted = design.train or design.inserts
    if wanted and not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"nothing would train in the scope {', '.join(model.anatomy.scope)}")
    return model


def _open_doors(build: Builder, design: Design) -> set[str]:
    """Open them in order; names of the parameters outside of `pet` that they train."""
    model, trained = build.model, set()
    with torch.device(model.device):
        for door in design.doors:
            if door.kind in model.pet:
                raise UserError(f'door "{door.kind}" is opened twice')
            module = ask_part(door, "open", build, returns=nn.Module | None)
            if module is not None:
                with foreign(f"{titled(door)}: its module cannot be pet.{door.kind}:"):
                    model.pet[door.kind] = module
            trained |= ask_part(door, "trained", model, returns=set[str])
    return trained


def _insert(build: Builder, insert: Insert, site: str) -> None:
    model, paths = build.model, build.model.anatomy.sites[site]
    stack, name = site.split(".", 1)
    layered = "{i" in paths.writer
    if insert.layers is not None and not layered:
        raise UserError(f'layers: site "{site}" is in none')
    for i in insert.layers_of(stack, model.anatomy.stacks[stack].layers) if layered else [0]:
        place = _place(build, stack, site, paths, i)
        with torch.device(model.device):
            inserted = Inserted(insert, place)
        node = model.pet
        for key in (stack, *([str(i)] if layered else []), *name.split(".")):
            node = below(node, key)
        node[str(sum(key.isdigit() for key in node))] = inserted  # a site may hold its own projections' nodes too
        hook(place, paths, inserted)


def _place(build: Builder, stack: str, site: str, paths: Site, layer: int) -> Place:
    model, of = build.model, build.model.anatomy.stacks[stack]
    width, name = of.width_of(layer), of.name_of(layer)
    try:
        writer = model.at(paths.writer, name)
        reader = model.at(paths.reader, name) if paths.reader else None
        feeds = model.at(paths.feeds, name) if paths.feeds else None
    except AttributeError as error:
        raise UserError(f'site "{site}" is not in {model.anatomy.backbone}: {error}') from None
    d_h: int = getattr(writer, "out_features", width) if feeds is None else cast(nn.Linear, feeds).in_features
    d_h //= paths.part[1] if paths.part else 1
    d_x: int = d_h if reader is None else getattr(reader, "in_features", width)
    return Place(
        model=model, tasks=build.tasks, stack=stack, layer=layer, site=site, reader=reader, writer=writer, feeds=feeds,
        d_x=d_x, d_h=d_h, part=paths.part,
    )  # fmt: skip
