"""A grid of quick trials: the trial floor's check and run are replaced by `stand_in`."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

PLUGIN = str(Path(__file__).with_name("stand_in.py"))


@pytest.fixture
def stand_in(monkeypatch):
    for name in ("check", "run"):
        monkeypatch.setitem(sys.modules, f"pet_bench.trial.{name}", None)  # put back afterwards
    spec = spec_from_file_location("stand_in", PLUGIN)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plain():
    """The smallest grid file, as data."""
    return {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora", "full"]}
