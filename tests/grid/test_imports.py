"""What the grid's modules import: rooms one below the other, and nothing that only Unix has."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pet_bench.grid

ROOT = Path(pet_bench.grid.__file__).parent
MODULES = {
    f"pet_bench.grid.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}": path
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py"
}
HEAVY = ("asha", "nodes", "trackers", "watch", "worker", "expand")  # import Ray, or methods and with them torch
UNIX = """
import os, signal, sys
import filelock, psutil  # have a Windows of their own
sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))
for module, names in (os, ("killpg", "getsid", "getpgid", "sched_getaffinity")), (signal, ("SIGKILL", "SIGHUP")):
    for name in names:
        delattr(module, name)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "torch" not in sys.modules
"""


ROOMS = ("plan", "execute", "doctor")  # what is planned, how it is run, what is asked of where it would run


def room(module):
    """How far up a module of the grid is; what lies in no room is below all."""
    return max((at for at, name in enumerate(ROOMS, 1) if module.startswith(f"pet_bench.grid.{name}")), default=0)


def imported(path):
    """Modules of the grid that a module imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pet_bench.grid"):
            yield node.module


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_room_knows_nothing_of_those_above_it(name):
    assert not [module for module in imported(MODULES[name]) if room(module) > room(name)]


def test_nothing_needs_unix_to_be_imported():
    """Ray's and torch's own are theirs to answer for."""
    light = sorted(name for name in MODULES if name.rpartition(".")[2] not in HEAVY)
    done = subprocess.run([sys.executable, "-c", UNIX, *light], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
