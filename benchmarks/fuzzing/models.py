"""Backbones, adapters and checkpoints: their configuration, their tokenizer, and their tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fuzzing import mutations
from fuzzing.case import Case, Expect, Mutation, Reader, product, sound
from fuzzing.mutations import Rule

KIND, ADAPTER, IMPORTED, CHECKPOINT = "backbone", "adapter", "imported", "checkpoint"


def metrics(work: Path, out: str) -> str:
    """What a run found out: its trials, their scores and how much they train."""
    found = {}
    for path in sorted((work / "out").glob("*.json")) or sorted((work / "cut").glob("*.json")):
        try:
            result = json.loads(path.read_text())
            found[path.stem] = [result[key] for key in ("status", "metrics", "average", "parameters")]
        except (ValueError, KeyError):
            found[path.stem] = []
    return json.dumps(found, indent=1)


CONFIG = {  # what the model's sizes hang on; of the rest of a configuration no change is known to matter
    "mini-bart": (
        "model_type",
        "vocab_size",
        "d_model",
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
    ),
    "mini-t5": ("model_type", "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"),
}
SIZES = {"zero": 0, "huge": 10**12, "fraction": 1.5, "one more": 65, "negative": -1}


def _config(base: Path, name: str) -> Iterator[Mutation]:
    config = json.loads((base / name / "config.json").read_text())
    rules = [
        *(Rule(key, "dropped", "either") for key in CONFIG[name] if key != "model_type"),
        *(Rule(key, "renamed", "either") for key in CONFIG[name] if key != "model_type"),
        *(Rule(key, "*", "refuse") for key in CONFIG[name]),
        Rule("*", "surrogate", "refuse"),
        Rule("*", "digits", "either"),
        Rule("*", "doubled", "refuse"),
        Rule("*", "deep", "refuse"),
        Rule("*", "*", "either"),
    ]
    values = {key: SIZES for key in CONFIG[name] if key != "model_type"}
    values |= {"model_type": {"another": "gpt2", "the other": "t5" if "bart" in name else "bart"}}
    yield from mutations.tree(config, rules, values)


def _tensors(change: Callable[[dict], Any], metadata: Callable[[dict], dict] = dict) -> Callable[[Path], None]:
    """A change of the tensors in a file, by name."""

    def made(path: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
        changed = change(tensors)
        save_file(tensors if changed is None else changed, path, metadata(about))

    return made


def _largest(tensors: dict) -> str:
    return max(tensors, key=lambda name: (tensors[name].numel(), name))


def _spoil(value: float) -> Callable[[dict], None]:
    def change(tensors: dict) -> None:
        tensors[_largest(tensors)].view(-1)[5] = value

    return change


def _each(change: Callable[[Any], Any]) -> Callable[[dict], dict]:
    return lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}


def _one(change: Callable[[Any], Any]) -> Callable[[dict], None]:
    return lambda tensors: tensors.update({(name := _largest(tensors)): change(tensors[name]).contiguous()})


def _safetensors(number: str = "refuse") -> list[Mutation]:
    """number: what to expect of values that are no numbers."""
    import torch

    def first(tensors: dict) -> None:
        tensors.pop(min(tensors))

    return [
        *mutations.whole(),
        mutations.missing(),
        *mutations.flipped("either"),
        Mutation("a huge header", mutations.on_bytes(lambda content: (10**15).to_bytes(8, "little") + content[8:])),
        Mutation("one missing", _tensors(first)),
        Mutation(
            "the largest missing",
            _tensors(lambda tensors: {name: tensors[name] for name in tensors if name != _largest(tensors)}),
        ),
        Mutation("half missing", _tensors(lambda tensors: {name: tensors[name] for name in sorted(tensors)[::2]})),
        Mutation("none there", _tensors(lambda tensors: {"x": torch.zeros(2)})),
        Mutation(
            "with a prefix", _tensors(lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()})
        ),
        Mutation("one renamed", _tensors(lambda tensors: tensors.update(nose=tensors.pop(_largest(tensors))))),
        Mutation("one more", _tensors(lambda tensors: tensors.update(nose=torch.zeros(3)))),
        Mutation(
            "one transposed",
            _tensors(_one(lambda tensor: tensor.reshape(-1, tensor.shape[0]) if tensor.ndim > 1 else tensor[:-1])),
        ),
        Mutation("one shorter", _tensors(_one(lambda tensor: tensor[:-1]))),
        Mutation("one flat", _tensors(_one(lambda tensor: tensor.reshape(-1)[:-1]))),
        Mutation("one empty", _tensors(_one(lambda tensor: tensor[:0]))),
        Mutation("not a number", _tensors(_spoil(float("nan"))), number),
        Mutation("infinite", _tensors(_spoil(float("inf"))), number),
        Mutation("whole numbers", _tensors(_each(lambda tensor: tensor.to(torch.int32)))),
        Mutation("truths", _tensors(_each(lambda tensor: tensor > 0))),
    ]


def _text(expect: Expect = "refuse") -> list[Mutation]:
    """Of files that transformers reads, which knows no byte order marks."""
    return [replace(one, expect="either") if one.name == "mark" else one for one in mutations.text(expect)]


def cases(base: Path) -> Iterator[Case]:
    for name in CONFIG:
        yield from _backbone(base, name)
    yield from _adapter(base)
    yield from _imported(base)
    yield from _checkpoint(base)


def _backbone(base: Path, name: str) -> Iterator[Case]:
    backbone, suite = ("--backbone", f"WORK/{name}"), ("--suite", "mini-image-text/nlvr2")
    trial = (
        "run",
        "--method",
        "lora",
        *backbone,
        *suite,
        "--data",
        "WORK/data",
        "--set",
        "recipe.lr=1e-3",
        "--out",
        "WORK/out",
    )
    steps = ("--set", "recipe.max_steps=2", "--set", "recipe.batch_size=8", "--executor", "inline", "--device", "cpu")
    show = Reader(f"show-{name}", ("show", "lora", *backbone, *suite))
    params = Reader(f"params-{name}", ("params", "--method", "lora", *backbone, *suite))
    dry = Reader(f"dry-run-{name}", (*trial, "--dry-run", "--estimate", "earlier"))
    run = Reader(f"run-{name}", (*trial, *steps), writes=("out",), cost=4, understood=metrics)
    bases = (name, "data")
    yield from sound(KIND, bases, [show, params, dry, run])
    config = [*_text(), mutations.missing(), *_config(base, name)]
    idle = [Reader(**vars(reader) | {"lenient": True}) for reader in (show, params, dry)]  # which need no tensors
    sizes = [change for change in config if change.name.endswith("one more")]  # seen in the weights alone
    rest = [change for change in config if change not in sizes]
    yield from product(KIND, bases, f"{name}/config.json", sizes, [*idle, run])
    yield from product(KIND, bases, f"{name}/config.json", rest, [show, params, dry, run])
    yield from product(KIND, bases, f"{name}/model.safetensors", _safetensors("either"), [*idle, run])
    vocabulary = json.loads((base / name / "tokenizer.json").read_text())
    words = vocabulary["model"]["vocab"]
    ids = words if isinstance(words, dict) else None
    tokens = [*_text(), mutations.missing()]
    if ids:
        beyond = {word: id + 10**6 for word, id in ids.items()}
        shifted = vocabulary | {"model": vocabulary["model"] | {"vocab": beyond}}
        tokens.append(Mutation("ids beyond the model", mutations.written(partial(json.dumps, shifted))))
        none = vocabulary | {"model": vocabulary["model"] | {"vocab": {}}}
        tokens.append(Mutation("no words", mutations.written(json.dumps(none))))
    yield from product(KIND, bases, f"{name}/tokenizer.json", tokens, [*idle, run])
    for file in ("tokenizer_config.json", "generation_config.json"):
        content = json.loads((base / name / file).read_text())
        rules = [Rule("*", "doubled", "either"), Rule("*", "*", "either")]
        changes = [*_text("either"), mutations.missing("either"), *mutations.tree(content, rules)]
        yield from product(KIND, bases, f"{name}/{file}", changes, [*idle, run])


def _adapter(base: Path) -> Iterator[Case]:
    found = {path.stem: json.loads(path.read_text()) for path in sorted((base / "results").glob("*.json"))}
    id = next(
        key for key, one in found.items() if one["spec"]["method"]["name"] == "vl-pet-large" and not one["spec"]["seed"]
    )
    gates = Reader(
        "gates",
        ("gates", f"WORK/results/{id}.json", "--task", "vqa", "--data", "WORK/data"),
        writes=("results/report",),
        cost=5,
    )
    bases = ("results", "data")
    yield from sound(ADAPTER, bases, [gates])
    other = next(key for key, one in found.items() if one["spec"]["method"]["name"] == "lora")

    def swapped(path: Path) -> None:
        path.write_bytes((path.parents[1] / other / path.name).read_bytes())

    import torch

    more = [
        Mutation("of another trial", swapped),
        Mutation("doubles", _tensors(_each(lambda tensor: tensor.to(torch.float64)))),
        Mutation("halves", _tensors(_each(lambda tensor: tensor.to(torch.float16)))),
        Mutation("no metadata", _tensors(lambda tensors: None, lambda about: {}), "either"),
        Mutation(
            "metadata of another",
            _tensors(lambda tensors: None, lambda about: {"pet-bench": '{"trial": "0123456789ab"}'}),
        ),
        Mutation("metadata no JSON", _tensors(lambda tensors: None, lambda about: {"pet-bench": "{"})),
    ]
    yield from product(
        ADAPTER, bases, f"results/{id}/adapter.safetensors", [*_safetensors(), *more], [gates], place="adapter"
    )


def _imported(base: Path) -> Iterator[Case]:
    """An adapter in peft's format. What its configuration may say beyond type and rank is peft's to know."""
    suite, where = ("--suite", "mini-image-text/nlvr2"), ("--data", "WORK/data", "--device", "cpu", "--out", "WORK/out")
    read = Reader("import", ("import", "WORK/adapter", *suite, *where), writes=("out",), cost=2, understood=metrics)
    bases = ("adapter", "data")
    yield from sound(IMPORTED, bases, [read])
    config = json.loads((base / "adapter" / "adapter_config.json").read_text())
    rules = [
        *(Rule(key, "*", "refuse") for key in ("peft_type", "r")),
        Rule("*", "surrogate", "refuse"),
        Rule("*", "doubled", "refuse"),
        Rule("*", "*", "either"),
    ]
    values = {"peft_type": {"another": "IA3", "no type": "NOPE", "a path": "../../x"}}
    changes = [*mutations.text(), mutations.missing(), *mutations.tree(config, rules, values)]
    yield from product(IMPORTED, bases, "adapter/adapter_config.json", changes, [read])
    for file in ("adapter_model", "visual"):
        yield from product(IMPORTED, bases, f"adapter/{file}.safetensors", _safetensors(), [read])


def _checkpoint(base: Path) -> Iterator[Case]:
    """A damaged one is set aside: the trial begins anew and ends with the numbers of one that was never cut off."""
    (folder,) = (path for path in (base / "cut").iterdir() if path.is_dir() and not path.name.startswith("."))
    run = Reader(
        "run",
        ("run", "WORK/cut", "--data", "WORK/data", "--executor", "inline", "--device", "cpu"),
        writes=("cut",),
        cost=3,
        understood=metrics,
    )
    bases = ("cut", "data")
    yield from sound(CHECKPOINT, bases, [run])
    again = [
        Mutation(one.name, one.change, "accept")
        for one in [*_safetensors(), *mutations.flipped()]
        if one.name != "folder"
    ]
    again.append(Mutation("no metadata", _tensors(lambda tensors: None, lambda about: {}), "accept"))
    again.append(
        Mutation(
            "nonsense", _tensors(lambda tensors: None, lambda about: about | {"pet-bench": '{"about": 1}'}), "accept"
        )
    )
    again.append(Mutation("folder", next(one.change for one in mutations.whole() if one.name == "folder"), "either"))
    yield from product(CHECKPOINT, bases, f"cut/{folder.name}/checkpoint.safetensors", again, [run], place="checkpoint")
