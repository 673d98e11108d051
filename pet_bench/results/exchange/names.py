"""What a trial, its backbone and its data are called elsewhere."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pet_bench.data.suite import suite_by_name
from pet_bench.registry import BACKBONES
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec


def experiment(result: TrialResult) -> str:
    """`lora/mini-bart-mini-image-text-rank-8-seed-0-0123456789ab`: method, what else tells, the trial's id.

    The form of peft's experiments; no two trials have the same. The file there is called so with "--" for "/".
    """
    spec = TrialSpec.from_dict(result.spec)
    options = spec.label.removeprefix(spec.method.name)
    control = "" if spec.control == "none" else spec.control
    parts = map(slug, (spec.backbone, spec.suite, options, control, f"seed-{spec.seed}", result.id))
    return f"{slug(spec.method.name)}/{'-'.join(filter(None, parts))}"


def slug(text: str) -> str:
    """What any file system and the hub take in a name; not long, for several make one."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:48].strip("-.")


def hub_name(backbone: str) -> str | None:
    """What a backbone is called on the hub (`owner/model`); None for a folder and for those that come with us."""
    source = BACKBONES.get(backbone).source if backbone in BACKBONES else backbone
    return source if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) and not Path(source).exists() else None


def is_drawn(suite: str) -> bool:
    """Whether the data of a suite come with the package: a mini world, not the data sets its tasks are named after.

    Raises UserError for a suite that is not known.
    """
    return suite_by_name(suite).embedded is not None


def finite(value: float | None) -> float | None:
    """JSON has no other numbers."""
    return value if value is not None and math.isfinite(value) else None
