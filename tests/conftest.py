"""Shared by all tests: where the reference material lies, and offline safety."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar
from zlib import crc32

import pytest

from pet_bench.registry import REGISTRIES

T = TypeVar("T")
# Before any import of a hub client: nothing may be fetched at test time.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("COLUMNS", None)  # of the terminal that xdist imagines
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

EVERYTHING = bool(os.environ.get("PET_BENCH_ALL"))  # `make test-all`: what `make test` has a part of
everything = pytest.mark.skipif(not EVERYTHING, reason="`make test-all` runs it")
ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PET_BENCH_SHARED", ROOT.parent / "shared"))
REFERENCE = ROOT / "tests" / "reference"
# Of logits of tiny stock models that should be the same: equal to the bit on some processors, apart by 3e-7 on others.
ROUNDED = {"atol": 2e-6, "rtol": 1e-5}


def given(folder: str, claim: str) -> Path:
    """A folder of the shared one alone; without it the test or the module is skipped, and its claim named."""
    path = SHARED / folder
    if not path.is_dir():
        why = f"no {folder}/: set PET_BENCH_SHARED to the folder that holds it"
        pytest.skip(f"unchecked: {claim} ({why})", allow_module_level=True)
    return path


def part(cases: Sequence[T], count: int) -> list[T]:
    """So many of the cases, drawn by a seed that is what they are called, in their order; all where all are wanted."""
    if EVERYTHING:
        return [*cases]
    chosen = Random(" ".join(str(getattr(case, "__name__", case)) for case in cases)).sample(range(len(cases)), count)
    return [cases[i] for i in sorted(chosen)]


def one_each(cases: Sequence[T], of: Callable[[T], Hashable], seed: str) -> list[T]:
    """Of the cases that have `of` in common one, drawn by the seed, in their order; all where all are wanted."""
    if EVERYTHING:
        return [*cases]
    kinds: dict[Hashable, list[T]] = {}
    for case in cases:
        kinds.setdefault(of(case), []).append(case)
    chosen = [Random(f"{seed} {kind}").choice(some) for kind, some in kinds.items()]
    return [case for case in cases if case in chosen]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one `xdist_group` run in one process. pytest-xdist 3.8 writes the group where pytest before 9.2 had the
    id of a test (`_nodeid`): since then it counts for nothing."""
    for item in items if hasattr(config, "workerinput") else ():
        group = "_".join(sorted({mark.args[0] for mark in item.iter_markers("xdist_group")}))
        if group and item.parent and not item.nodeid.endswith(f"@{group}"):
            object.__setattr__(item, "_id", item.parent.id.child(f"{item.name}@{group}"))


@pytest.fixture(autouse=True)
def plugins_of_one_test():
    """What a test has registered is gone after it: which tests share a process is chance."""
    before = {registry: {*registry.entries} for registry in REGISTRIES.values()}
    yield
    for registry, names in before.items():
        for name in registry.entries.keys() - names:
            del registry.entries[name]


@pytest.fixture(autouse=True)
def drawn_alike(request):
    """What a test draws is drawn by what it is called: the same alone, beside others and again."""
    if torch := sys.modules.get("torch"):
        name, _, _ = request.node.nodeid.partition("@")  # xdist adds the group
        torch.manual_seed(crc32(name.encode()))


@pytest.fixture
def expectations() -> Path:
    """Outputs of the official scorers."""
    return REFERENCE / "expectations"
