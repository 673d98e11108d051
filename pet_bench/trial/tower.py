"""What a trial's frozen vision tower gives of each picture, kept from trial to trial."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor

from pet_bench.backbone.pixels import PixelReader, SeesPixels
from pet_bench.backbone.tower import Tower
from pet_bench.data.images import ImageStore
from pet_bench.data.outputs import Full, Outputs
from pet_bench.packed import Packed
from pet_bench.results.schema import Progress
from pet_bench.spec import Runtime

if TYPE_CHECKING:
    from pet_bench.trial.build import Trial

FORMAT = 1


def keep_tower(trial: Trial, runtime: Runtime, rows: Iterable[int] | None = None) -> tuple[int, int]:
    """Have what a frozen tower gives of every picture of the trial, so that it need not run in training; rows: only
    what it gives of these. Returns how many pictures it has looked at for that, and how many more there are.

    A tower that a method may touch is left alone, and so is that of a control, which sees no picture. Where the cache
    has no room the tower runs each time, to the same bits, and a note says so.
    """
    model, store, reader = trial.model, trial.data.store, trial.reader
    if not (isinstance(model, SeesPixels) and isinstance(store, ImageStore) and isinstance(reader, PixelReader)):
        return 0, 0
    tower = model.tower
    if not tower.frozen:
        return 0, 0
    trial.run.tower = "run"
    if trial.spec.control != "none" or not runtime.keep_tower:
        return 0, 0
    chosen = range(len(store.digests)) if rows is None else sorted({*rows})
    outputs = Outputs(key_of(tower, reader, trial.device))

    def make(i: int) -> list[Tensor]:
        return outputs_of(model, reader, store.picture(chosen[i]), trial.device)

    def report(done: int, total: int) -> None:
        trial.on_progress(Progress(trial.spec.id, "prepare", done, total))

    training = model.training
    try:
        model.eval()
        lacking = len(outputs.lacking(store.digests))
        outputs.fill([store.digests[row] for row in chosen], make, report)
        left = len(outputs.lacking(store.digests))
    except (Full, OSError) as error:
        trial.run.notes.append(f"what the vision tower gives of a picture was not kept: {error}")
        return 0, 0
    finally:
        model.train(training)
    trial.run.tower = "kept"

    def kept(rows: Tensor) -> list[Tensor]:
        pictures = [outputs[store.digests[row]] for row in rows.flatten().tolist()]
        return [torch.cat(parts).to(trial.device) for parts in zip(*pictures, strict=True)]

    tower.kept = kept
    return lacking - left, left


def outputs_of(model: SeesPixels, reader: PixelReader, picture: Any, device: torch.device) -> list[Tensor]:
    """What the tower gives of one picture, read as a model is given it."""
    inputs = reader.inputs(torch.empty(1, 0), [[picture]], ["a"])
    moved = {name: rows.each(lambda one: one.to(device)) if isinstance(rows, Packed) else rows.to(device)
             for name, rows in inputs.items()}  # fmt: skip
    return model.tower.see(model.taken(moved))


def key_of(tower: Tower, reader: PixelReader, device: torch.device) -> str:
    """24 hex digits that change with all that what a tower gives depends on, to the last bit, but for the picture."""
    weights, processor = sha256(), reader.processor.image_processor
    for name, tensor in sorted(tower.module.state_dict(prefix=f"{tower.model.family.tower}.").items()):
        if tower.model.anatomy.part_of(name) == "vision":
            weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    config = tower.module.config
    cuda = device.type == "cuda"
    about = {
        "format": FORMAT,
        "family": tower.model.family.name,
        "read": tower.read,
        "weights": weights.hexdigest(),
        "config": config.to_dict(),
        "attention": config._attn_implementation,
        "processor": [type(processor).__name__, processor.to_dict()],
        "software": [torch.__version__, transformers.__version__],
        "device": torch.cuda.get_device_name(device) if cuda else [platform.machine(), torch.get_num_threads()],
        "precision": torch.get_float32_matmul_precision(),
    }
    return sha256(json.dumps(about, default=str, sort_keys=True).encode()).hexdigest()[:24]
