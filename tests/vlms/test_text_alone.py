"""Models fed with pixels, asked about text without a picture: what they forget is measured so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pet_bench.backbone.knowledge import Knowledge
from pet_bench.errors import UserError
from pet_bench.mini.knowledge import knowledge
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial.forgetting import losses, stock_losses
from pet_bench.trial.resolve import resolve
from pet_bench.trial.shared import Shared
from tests.vlms.attached import ANSWERS, TASKS, TEXTS, TINY, VISUAL, attached, reader_of

SPEC: Any = SimpleNamespace(backbone="tiny", tasks=TASKS, visual=VISUAL, recipe=SimpleNamespace(evaluation="float32"))
KNOWN = Knowledge(TEXTS, {"vqa": tuple(zip(TEXTS, ANSWERS, strict=True)), "other": ((TEXTS[0], "red"),)})


PICTURES = {"florence2", "internvl", "paligemma2"}  # whose processors, or models, take no text alone


@pytest.mark.parametrize("family", sorted(PICTURES))
def test_what_reads_no_text_alone_says_so(family):
    with pytest.raises(UserError, match='backbone "tiny" reads no text without a picture: '):
        losses(attached(family, "lora"), reader_of(family), SPEC, KNOWN)


@pytest.mark.parametrize("family", sorted({*TINY} - PICTURES))
def test_every_family_can_be_asked(family):
    reader = reader_of(family)
    found = losses(attached(family, "lora"), reader, SPEC, KNOWN)
    assert list(found) == ["text", "vqa", "other"]
    assert all(0 < loss < 100 for loss, _ in found.values())
    assert found["vqa"][1] == sum(len(ids) for ids in reader.targets(ANSWERS, 256))
    (alone,) = {losses(attached(family, "lora"), reader, SPEC, Knowledge((line,)))["text"] for line in TEXTS[:1]}
    whole = losses(attached(family, "lora"), reader, SPEC, Knowledge(TEXTS[:1] * 3))["text"]
    assert whole[0] == pytest.approx(alone[0], rel=1e-4) and whole[1] == 3 * alone[1]


def test_the_mini_backbone_knows_what_it_has_read(tmp_path: Path):
    recipe = {"max_steps": 1, "valid_every": 0, "lr": 1e-3}
    spec = resolve("mini-llava", MethodSpec("lora"), "mini-image-text", 0, recipe=recipe)
    found = stock_losses(spec, Runtime(tmp_path, device="cpu", threads=1), Shared())
    assert list(found) == ["text", *knowledge().tasks]
    assert all(loss < 1 for kind, (loss, _) in found.items() if kind != "text"), found
