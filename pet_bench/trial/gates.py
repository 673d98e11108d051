"""What the gates of a finished trial do with one example: G at every site and layer, token by token."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pet_bench.backbone.interface import Model
from pet_bench.backbone.known import family_of, find_backbone
from pet_bench.data.batches import Batch, TaskBatches
from pet_bench.data.clips import ClipTask
from pet_bench.data.reading import Store, build_tasks, data_root, packed_for, read_data
from pet_bench.data.task import Example, Generate, Task
from pet_bench.errors import UserError, unknown
from pet_bench.pet import build_method, design_of
from pet_bench.pet.inserted import Inserted
from pet_bench.pet.method import restored
from pet_bench.results import store
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.evaluate import evaluating, predict
from pet_bench.trial.loaded import adapter_of, rebuild

MEMORY = tuple(f"decoder.cross_attn.{name}" for name in ("key", "value", "memory"))  # the decoder's, of encoder states


@dataclass(frozen=True)
class Token:
    """One position that a gate sees.

    part: "prompt" (learned, before the text), "text", "image" or "answer" (what the decoder reads, its start first).
    image: which of the example's images, from 0; row, column: its place on the grid there, from the upper left, or in
    time (row 0, column the frame).
    """

    text: str
    part: str
    image: int | None = None
    row: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class GateValues:
    """G of one insert in one layer, both counted from 0 as in the names of the trained tensors.

    site: in full, "encoder.self_attn"; kind, formula: of its gate and of the whole insert. mean, std (tokens,): over
    the d dimensions, of the population. vector (d,): G itself where it is the same for every token by its kind.
    """

    site: str
    insert: int
    layer: int
    kind: str
    formula: str
    tokens: tuple[Token, ...]
    mean: np.ndarray
    std: np.ndarray
    vector: np.ndarray | None = None

    @property
    def stack(self) -> str:
        return self.site.split(".")[0]


@dataclass(frozen=True)
class Gates:
    """The gates of one trial on one test example. prediction: made here, of the example alone, without padding."""

    spec: TrialSpec
    task: str
    example: Example
    prediction: str
    values: tuple[GateValues, ...]

    def to_frame(self) -> pd.DataFrame:
        """A row per site × layer × token.

        id, backbone, method, task, example; stack, site, insert, layer, kind; position (from 0), token, part, image,
        row, column (see `Token`); mean and std of G over the dimensions.
        """
        rows = [
            about
            | {"position": position, "token": token.text, **{key: getattr(token, key) for key in PLACE}}
            | {"mean": mean, "std": std}
            for gate, about in self._abouts()
            for position, (token, mean, std) in enumerate(zip(gate.tokens, gate.mean, gate.std, strict=True))
        ]
        columns = [*ABOUT, "position", "token", *PLACE, "mean", "std"]
        return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(PLACE[1:], "Int64"))

    def dimensions(self) -> pd.DataFrame:
        """A row per site × layer × dimension, with the column gate, of the gates that are vectors; else no rows."""
        rows = [
            about | {"dimension": dimension, "gate": value}
            for gate, about in self._abouts()
            if gate.vector is not None
            for dimension, value in enumerate(gate.vector)
        ]
        return pd.DataFrame(rows, columns=[*ABOUT, "dimension", "gate"])

    def _abouts(self) -> Iterator[tuple[GateValues, dict[str, Any]]]:
        spec = self.spec
        trial = {"id": spec.id, "backbone": spec.backbone, "method": spec.label or str(spec.method)}
        trial |= {"task": self.task, "example": self.example.id}
        for gate in self.values:
            yield gate, trial | {key: getattr(gate, key) for key in ABOUT[len(trial) :]}


ABOUT = ("id", "backbone", "method", "task", "example", "stack", "site", "insert", "layer", "kind")
PLACE = ("part", "image", "row", "column")


def gate_values(
    path: Path,
    task: str | None = None,
    example: str | int = 0,
    data: Path | None = None,
    sites: Collection[str] | None = None,
) -> Gates:
    """Run one test example, alone and unpadded, through a finished trial's model and record every gate.

    path: the trial's `<id>.json`, with `<id>/adapter.safetensors` beside it. task: by default the trial's first.
    example: its id, or its number in the test split, from 0. data: root folder of the datasets, as for a trial. sites:
    only these, by their full names. Gates that read what the decoder reads see the model's own prediction. Runs on the
    CPU in float32; the generators of this process are as before.

    Raises UserError for a trial without gates or adapter, or of a backbone that is fed with pixels, and for an unknown
    task, example or site.
    """
    spec = TrialSpec.from_dict(store.load(path).spec)
    backbone = find_backbone(spec.backbone)
    if family_of(backbone).fed == "pixels":
        raise UserError(
            f"trial {spec.id} is of {spec.backbone}, which is fed with pixels: what its gates see is laid out by its "
            "processor, and is not shown (possible: trials of backbones that are fed with stored features)"
        )
    anatomy = backbone.anatomy.scoped(spec.method.scope)
    inserts = design_of(build_method(restored(spec.method), anatomy), anatomy).inserts
    if not (gated := {site for insert in inserts if insert.gate for site in insert.sites}):
        raise UserError(f"trial {spec.id} is of {spec.label or spec.method}, which has no gate")
    adapter = adapter_of(path)
    if task is not None and task not in spec.tasks:
        raise unknown(f"task of trial {spec.id}", task, spec.tasks)
    if strange := [site for site in sites or () if site not in gated]:
        raise UserError.many(unknown("site with a gate", site, gated) for site in strange)
    runtime = Runtime(path.parent, data)
    root = data_root(spec.suite, runtime)
    built = {task.name: task for task in build_tasks(spec.tasks, spec.protocol)}
    chosen = built[task or spec.tasks[0]]
    one = find_example(chosen, root, example)
    model, tokenizer = rebuild(spec, adapter)
    with _features(spec, runtime, root, chosen, one) as features:
        reader = model.family.reader(tokenizer)
        batches = TaskBatches(chosen, [one], reader, features, control=spec.control)
        batch, plain = next(batches.eval_batches(1)), spec.recipe.generation == "plain"
        prediction = predict(model, reader, batches, 1, spec.recipe)[one.id]
        with evaluating(model, spec.recipe.evaluation):
            values = _record(model, tokenizer, chosen, batch, gated if sites is None else sites, plain=plain)
    return Gates(spec, chosen.name, one, prediction, values)


def find_example(task: Task, root: Path, example: str | int) -> Example:
    """A test example by id, or by its number from 0; raises UserError, with the nearest id, where there is none."""
    examples = task.examples(root, "test")
    if isinstance(example, int):
        if not 0 <= example < len(examples):
            raise UserError(f"{task.name} has the test examples 0 to {len(examples) - 1}, found number {example}")
        return examples[example]
    ids = {one.id: one for one in examples}
    if example not in ids:
        close = get_close_matches(example, ids, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f'the first is "{examples[0].id}"'
        raise UserError(f'unknown test example "{example}" of {task.name}, which has {len(ids)}: {hint}')
    return ids[example]


@contextmanager
def _features(spec: TrialSpec, runtime: Runtime, root: Path, task: Task, example: Example) -> Iterator[Store]:
    """The features, or the pixels, of one example, packed for the moment.

    The "noise" control's depend on a feature's place among all of the trial's, so that all are read.
    """
    fed = family_of(find_backbone(spec.backbone)).fed
    if spec.control == "noise":
        data = read_data(spec, runtime, fed=fed)
        assert data is not None  # it was packed
        yield data.store
        return
    with TemporaryDirectory() as cache:
        yield packed_for(fed, root, [(task, [example])], spec.visual, Path(cache))


def _record(
    model: Model, tokenizer, task: Task, batch: Batch, sites: Collection[str], *, plain: bool
) -> tuple[GateValues, ...]:
    """G of every gate at these sites in a batch of one example, site by site."""
    inserts = ((path, module) for path, module in model.pet.named_modules() if isinstance(module, Inserted))
    gates = {path: one for path, one in inserts if one.gate is not None and one.place.site in sites}
    answer = _continuation(model, task, batch, plain=plain)
    recorded: dict[str, tuple[Tensor, torch.Size]] = {}
    hooks = [
        one.gate.register_forward_hook(_keep(recorded, path)) for path, one in gates.items() if one.gate is not None
    ]
    try:
        if answer is None:
            model.choose(batch.inputs, [0])
        else:
            model.logits(batch.inputs, answer)
    finally:
        for hook in hooks:
            hook.remove()

    read, said = _positions(model, tokenizer, task, batch, answer)
    values = []
    for path, inserted in gates.items():
        place, (gate, shape) = inserted.place, recorded[path]
        whole = gate.expand(shape)[0].double()  # (T, d)
        reads = place.stack == model.anatomy.reading or place.site in MEMORY
        tokens, kept = read if reads else (said, torch.ones(len(said), dtype=torch.bool))
        values.append(
            GateValues(
                site=place.site,
                insert=int(path.rsplit(".", 1)[-1]),
                layer=place.layer,
                kind=inserted.insert.gate.kind if inserted.insert.gate else "",
                formula=inserted.insert.formula,
                tokens=tuple(tokens),
                mean=whole.mean(dim=1)[kept].numpy(),
                std=whole.std(dim=1, correction=0)[kept].numpy(),
                vector=gate.double().numpy() if gate.dim() == 1 else None,
            )
        )
    order = list(dict.fromkeys((gate.site, gate.insert) for gate in values))
    return tuple(sorted(values, key=lambda gate: (order.index((gate.site, gate.insert)), gate.layer)))


def _positions(
    model: Model, tokenizer, task: Task, batch: Batch, answer: Tensor | None
) -> tuple[tuple[list[Token], Tensor], list[Token]]:
    """What the stack that reads has read, with the mask (N,) of its positions, and what the one that writes has.

    An encoder has read [prompt; text; images]. A stack that does both has read [begin; images; prompt; text; answer];
    its padding comes first.
    """
    context, inputs = model.context, batch.inputs
    assert context.mask is not None and context.visual is not None and context.seen is not None  # the model has read
    mask = context.mask[0].bool()
    words = [Token(text, "text") for text in _texts(tokenizer, inputs["text"][0])]
    said = [Token(text, "answer") for text in _texts(tokenizer, model.read_before(answer)[0])]
    seen = zip(_image_tokens(task, inputs["features"].shape[1], context.visual.shape[1]), context.seen[0], strict=True)
    # a side network reads the images in the place of the encoder
    images = [] if "side" in model.pet else [token for token, there in seen if there]
    if one := model.anatomy.reading == model.anatomy.writing:
        words = [*words, *said]
    begin = [Token(text, "text") for text in _texts(tokenizer, torch.tensor([tokenizer.bos_token_id]))] if one else []
    prompts = range(int(mask.sum()) - len(begin) - len(words) - len(images))
    prompt = [Token(str(i), "prompt") for i in prompts]
    return ([*begin, *images, *prompt, *words] if one else [*prompt, *words, *images], mask), said


def _keep(recorded: dict[str, tuple[Tensor, torch.Size]], path: str):
    def hook(gate, args, output) -> None:
        recorded[path] = output, args[1].shape  # args: X, Y, ΔH

    return hook


def _continuation(model: Model, task: Task, batch: Batch, *, plain: bool) -> Tensor | None:
    """What the model says, (1, T); None where it chooses."""
    decoding = task.decoding
    if not isinstance(decoding, Generate):
        return None
    beams, length = decoding.num_beams, decoding.max_length
    return model.generate(batch.inputs, num_beams=beams, max_length=length, plain=plain)


def _texts(tokenizer, ids: Tensor) -> list[str]:
    """Each token as a person reads it, a blank as "␣", or as the tokenizer calls it where it is part of a character."""
    names = tokenizer.convert_ids_to_tokens(ids.tolist())
    texts = (tokenizer.decode([id]).strip() or "␣" for id in ids.tolist())
    return [name if "\ufffd" in text else text for text, name in zip(texts, names, strict=True)]


def _image_tokens(task: Task, images: int, positions: int) -> list[Token]:
    """The visual positions of an example: frames in time, or squares of a grid in rows, as pooling has them."""
    each = positions // images
    side = math.isqrt(each)
    width = each if isinstance(task, ClipTask) or side * side != each else side
    return [Token("", "image", image, *divmod(i, width)) for image in range(images) for i in range(each)]
