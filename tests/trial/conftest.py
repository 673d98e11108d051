"""A small mini world on disk, and where its trials leave results."""

from __future__ import annotations

import pytest

from pet_bench.mini.write import write_image_text
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial.resolve import resolve
from tests.mini.conftest import SMALL


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "datasets"
    write_image_text(folder, seed=3, sizes=SMALL)
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("PET_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def runtime(world, tmp_path):
    return Runtime(out=tmp_path / "results", data=world, device="cpu", threads=1)


@pytest.fixture
def mini_trial():
    """A short trial on the mini world; keyword arguments as `resolve` takes them."""

    def make(method="vl-pet-large", backbone="mini-bart", suite="mini-image-text", seed=0, **changes):
        recipe = {"batch_size": 24, "max_steps": 8, "valid_every": 0, "lr": 3e-3} | changes.pop("recipe", {})
        return resolve(backbone, MethodSpec.parse(method), suite, seed, recipe=recipe, **changes)

    return make
