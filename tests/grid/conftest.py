"""A grid of quick trials: the trial floor's check, run and shared are replaced by `stand_in`."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

PLUGIN = str(Path(__file__).with_name("stand_in.py"))


def until(holds, seconds=300, of=None):
    """Wait for a condition and return what it gives; fails where it does not come about, or the process `of` ends."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert of is None or of.poll() is None, of.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def processes_with(name, value):
    """The processes that have this in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value:
                found.append(process)
    return found


@pytest.fixture
def stand_in(monkeypatch):
    for name in ("check", "run", "shared"):
        monkeypatch.setitem(sys.modules, f"pet_bench.trial.{name}", None)  # put back afterwards
    spec = spec_from_file_location("stand_in", PLUGIN)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quiet():
    return Console(file=StringIO(), width=200)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def plain():
    """The smallest grid file, as data."""
    return {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora", "full"]}
