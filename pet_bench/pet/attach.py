"""Attach a design to a backbone, choose what trains, count it, save it, load it."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_bench.backbone.families import Site
from pet_bench.backbone.model import VisionLanguageModel
from pet_bench.backbone.ties import tied_modules
from pet_bench.errors import Faults, PluginError, UserError, foreign, unknown
from pet_bench.files import impostor
from pet_bench.pet.design import Builder, Design, Door, Insert, Inserted, Place, ask_part, titled

STACKED = tuple(f"{stack}{kind}" for kind in ("norms", "biases") for stack in ("", "encoder.", "decoder."))
SELECTORS = ("all", "visual", *STACKED)


def attach(model: VisionLanguageModel, design: Design, tasks: Iterable[str] = ()) -> VisionLanguageModel:
    """Open every door of the design, build every insert on its sites and make exactly what it declares trainable.

    The inserts live in `model.pet` as `pet.<stack>.<layer>.<site>.<k>`, k counting the inserts of one site, applied
    in the design's order; a door's module is `pet.<kind>`. tasks: those that a part of their own may be built for.
    Raises UserError, with all faults together, for a site the backbone does not have and for a selector that matches
    nothing, and PluginError where a part fails or builds no module.
    """
    build = Builder(model, tuple(tasks))
    trained = set()
    with torch.device(next(model.parameters()).device):
        for door in design.doors:
            if door.kind in model.pet:
                raise UserError(f'door "{door.kind}" is opened twice')
            module = ask_part(door, "open", build, returns=nn.Module | None)
            if module is not None:
                with foreign(f"{titled(door)}: its module cannot be pet.{door.kind}:"):
                    model.pet[door.kind] = module
            trained |= ask_part(door, "trained", model, returns=set[str])

    table = model.family.sites()
    faults = Faults()
    for site in {site: None for insert in design.inserts for site in insert.sites}:
        if site not in table:
            faults.add(unknown("site", site, table))
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
    return model


def _insert(build: Builder, insert: Insert, site: str) -> None:
    model, paths = build.model, build.model.family.sites()[site]
    stack, name = site.split(".", 1)
    layers = model.shape.encoder_layers if stack == "encoder" else model.shape.decoder_layers
    for i in range(layers if "{i}" in paths.writer else 1):
        try:
            reader, writer = (model.lm.get_submodule(path.format(i=i)) for path in paths[:2])
        except AttributeError as error:
            raise UserError(f'site "{site}" is not in {model.shape.backbone}: {error}') from None
        feeds = model.lm.get_submodule(paths.feeds.format(i=i)) if paths.feeds else None
        d_x = getattr(reader, "in_features", model.shape.d)
        d_h = feeds.in_features if feeds else getattr(writer, "out_features", model.shape.d)
        place = Place(
            model,
            build.tasks,
            stack=stack,
            layer=i,
            site=site,
            reader=reader,
            writer=writer,
            feeds=feeds,
            d_x=d_x,
            d_h=d_h,
        )
        with torch.device(next(model.parameters()).device):
            inserted = Inserted(insert, place)
        node = model.pet
        for key in (stack, *([str(i)] if "{i}" in paths.writer else []), *name.split(".")):
            if key not in node:
                node[key] = nn.ModuleDict()
            node = node[key]
        node[str(sum(key.isdigit() for key in node))] = inserted  # a site may hold its own projections' nodes too
        _hook(reader, writer, paths, inserted)


def _hook(reader: nn.Module, writer: nn.Module, site: Site, inserted: Inserted) -> None:
    """H ← inserted(X, H) whenever the stock model runs the pair: X is kept from reader to writer."""
    kept: list[Tensor] = []

    def read(module, args, kwargs):
        kept[:] = [args[0] if args else kwargs["hidden_states"]]

    def write(module, args, output):
        h = output[0] if isinstance(output, tuple) else output
        h = inserted(kept.pop(), h)
        return (h, *output[1:]) if isinstance(output, tuple) else h

    def write_before(module, args):
        return inserted(kept.pop(), args[0]), *args[1:]

    def edit(module, args, kwargs):
        value = kwargs[site.argument]
        return args, kwargs | {site.argument: inserted(value, value)}

    if site.argument:
        writer.register_forward_pre_hook(edit, with_kwargs=True)
        return
    reader.register_forward_pre_hook(read, with_kwargs=True)
    if site.before:
        writer.register_forward_pre_hook(write_before)
    else:
        writer.register_forward_hook(write)


def merge(model: VisionLanguageModel) -> Callable[[], None]:
    """Fold every insert into the linear layer it stands at, and return what undoes that, to the last bit.

    W ← s G ⊙ (b W + a ΔW) and bias ← s b G ⊙ bias, for inserts on projections whose ΔH = ΔW X and whose gate, if any,
    is a vector; such a gate on hidden units scales the columns of the projection that reads them, W ← W diag(s b G).
    Raises UserError, changing nothing, where the design holds anything else.
    """
    folded, faults, tied = {}, Faults(), tied_modules(model.lm)
    inserts = [(path, module) for path, module in model.pet.named_modules() if isinstance(module, Inserted)]
    for path, inserted in sorted(inserts, key=lambda found: found[1].place.feeds is not None):  # columns: ΔW's as well
        linear = inserted.place.feeds or inserted.place.writer
        if not inserted.mergeable:
            faults.add(f"{path}: {inserted.insert.formula} is no linear map at a projection: it cannot be merged")
        elif linear in tied:
            faults.add(f"{path}: the projection is the word table too: it cannot be merged")
        elif inserted.is_merged:
            faults.add(f"{path} is merged already")
        else:
            folded[linear] = inserted.merged(*folded.get(linear, (linear.weight, linear.bias)))
    for key in model.pet.keys() - {"encoder", "decoder", "shared"}:
        faults.add(f'"{key}" is no insert: it cannot be merged')
    faults.check()
    stock = {linear: (linear.weight.data, None if linear.bias is None else linear.bias.data) for linear in folded}

    def put(values: dict, merged: bool) -> None:
        for linear, (weight, bias) in values.items():
            linear.weight.data = weight
            if bias is not None:
                linear.bias.data = bias
        for _, inserted in inserts:
            inserted.is_merged = merged

    put(folded, True)
    return lambda: put(stock, False)


def select(model: VisionLanguageModel, selector: str) -> set[str]:
    """Names of the backbone's and the visual embedding's parameters that a selector means (see `Design`).

    Raises UserError where it matches none.
    """
    names = {name for name, _ in model.named_parameters() if not name.startswith("pet.")}
    stack, _, kind = selector.rpartition(".")
    inside = f"lm.{model.family.stacks[stack].rsplit('.', 1)[0]}." if stack in model.family.stacks else "lm."
    if selector == "all":
        found = names
    elif selector == "visual":
        found = {name for name in names if name.startswith("visual.")}
    elif selector in STACKED and kind == "norms":
        norms = {path for path, module in model.named_modules() if type(module).__name__.endswith("Norm")}
        found = {name for name in names if name.startswith(inside) and name.rpartition(".")[0] in norms}
    elif selector in STACKED and kind == "biases":
        found = {name for name in names if name.startswith(inside) and name.endswith(".bias")}
    else:
        found = set(fnmatch.filter(names, selector))
    if not found:
        raise UserError(
            f'selector "{selector}" matches no parameter of {model.shape.backbone} '
            f"(possible: {', '.join(SELECTORS)}, or a pattern over parameter names)"
        )
    return found


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name; a tied tensor appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _group(name: str) -> str:
    """The part of a method that a parameter belongs to: `visual`, `encoder.delta`, `decoder.norms`, `prompt`, …

    What a door adds inside of the backbone has the door's kind in its name: `lm.….q_proj.lora_A.peft.weight`.
    """
    if name.startswith("visual."):
        return "visual"
    if name.startswith("pet."):
        root, first = name.split(".")[1:3]
        if root == "shared":
            return first
        if root not in ("encoder", "decoder"):
            return root
        return f"{root}.{'gate' if '.gate.' in name else 'delta'}"
    stack = next((stack for stack in ("encoder", "decoder") if f".{stack}." in name), None)
    kind = "norms" if "norm" in name else "biases" if name.endswith(".bias") else "weights"
    kind = next((door for door in Door.kinds if door in name.split(".")), kind)
    return f"{stack}.{kind}" if stack else "head" if "lm_head" in name else "embeddings"


def count(model: VisionLanguageModel) -> dict:
    """{trainable, total, percent, groups}: exact integers; a tied tensor counts once.

    percent = 100 · trainable / total, total being the grown backbone, the visual embedding and every added module:
    the convention of the published tables.
    """
    trained = trained_parameters(model)
    groups = Counter()
    for name, parameter in trained.items():
        groups[_group(name)] += parameter.numel()
    trainable = sum(groups.values())
    total = sum(parameter.numel() for parameter in model.parameters())
    return {
        "trainable": trainable,
        "total": total,
        "percent": 100 * trainable / total,
        "groups": dict(sorted(groups.items())),
    }


def save_trained(model: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> int:
    """Write exactly the trained tensors (safetensors); returns the file's size in bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_parameters(model).items()}
    save_file(tensors, path, metadata=metadata)
    return Path(path).stat().st_size


def load_trained(model: nn.Module, path: Path) -> None:
    """Load what `save_trained` wrote into a model with the same design attached.

    What is random and does not train, as the words that a backbone lacked, is in another file (`pet.frozen`).

    Raises UserError where the file is unreadable, its names, shapes or types are not exactly those that the model
    trains, or a value is not finite.
    """
    tensors = read_tensors(path)
    trained = trained_parameters(model)
    faults = [f"{path}: {name} is missing" for name in trained.keys() - tensors.keys()]
    faults += [f"{path}: {name} is not trained by this method" for name in tensors.keys() - trained.keys()]
    faults += [
        f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(trained[name].shape)}"
        for name in trained.keys() & tensors.keys()
        if tensors[name].shape != trained[name].shape
    ]
    for name in trained.keys() & tensors.keys():
        if (kind := tensors[name].dtype) != trained[name].dtype:
            faults.append(f"{path}: {name} is of type {kind}, expected {trained[name].dtype}")
        elif not tensors[name].isfinite().all():
            faults.append(f"{path}: {name} has values that are not finite")
    if faults:
        raise UserError.many(sorted(faults)[:20])
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file's tensors by name; raises UserError where it is unreadable."""
    try:
        with Path(path).open("rb") as file:
            if found := impostor(file.read(1024)):
                raise UserError(f"{path} {found}")
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error
