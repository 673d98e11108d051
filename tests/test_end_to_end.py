"""The whole house through its front door: short real trials, damaged data, and a grid that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import yaml

from pet_bench.mini.write import write_image_text
from pet_bench.results import store
from tests.conftest import EVERYTHING, part
from tests.mini.conftest import SMALL

GRID = {
    "name": "short",
    "suites": ["mini-image-text/vqa+nlvr2"],
    "backbones": ["mini-bart"],
    "methods": ["projector-only", "lora"],
    "seeds": [0, 1],
    "recipe": {"lr": 3e-3, "max_steps": 4, "batch_size": 24, "valid_every": 0},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "datasets"
    write_image_text(folder, seed=3, sizes=SMALL)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    return os.environ | {"PET_BENCH_CACHE": cache, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def grid_file(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(GRID))
    return path


def command(*arguments):
    return [sys.executable, "-m", "pet_bench.cli", *map(str, arguments)]


def call(environment, *arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment)


def scores(folder):
    """All that two runs of a grid must have in common."""
    results = store.load_all(folder).values()
    return {result.id: (result.status, result.metrics, result.parameters, result.curve) for result in results}


def test_a_grid_killed_and_started_again_gives_the_undisturbed_table(world, environment, grid_file, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    executor = "ray" if EVERYTHING else "inline"  # that it makes no difference, `tests.grid.test_cluster` shows too
    run = call(environment, "run", grid_file, "--data", world, "--out", whole, "--executor", executor)
    assert run.returncode == 0, run.stderr

    victim = subprocess.Popen(
        command("run", grid_file, "--data", world, "--out", broken, "--executor", "inline"), env=environment
    )
    while not list(broken.glob("*.json")):
        assert victim.poll() is None, "the grid ended before it could be killed"
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    before = {path: path.read_bytes() for path in broken.glob("*.json")}
    assert 0 < len(before) < 4
    assert f"{4 - len(before)} missing" in call(environment, "status", grid_file, "--out", broken).stdout

    again = call(environment, "run", grid_file, "--data", world, "--out", broken, "--executor", "inline")
    assert again.returncode == 0, again.stderr
    assert f"{len(before)} finished before" in again.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert scores(broken) == scores(whole)

    tables = []
    for folder in (whole, broken):
        report = call(environment, "report", grid_file, "--out", folder)
        assert report.returncode == 0, report.stderr
        tables.append((folder / "report" / "table.csv").read_bytes())
        assert (folder / "report" / "pareto.png").stat().st_size > 10_000
    assert tables[0] == tables[1]
    assert "projector-only" in report.stdout
    assert "majority answer" in report.stdout


def truncate(root):
    path = next((root / "COCO").rglob("*.h5"))
    path.write_bytes(path.read_bytes()[:300])
    return f"vqa: feature file {path}", "cannot be read"


def lose(root):
    path = next((root / "nlvr").rglob("*.h5"))
    path.unlink()
    return f"nlvr2: feature file {path}", "is missing"


def narrow(root):
    path = next((root / "nlvr").rglob("*.h5"))
    with h5py.File(path, "w") as file:
        file[f"{path.stem}/features"] = np.zeros((36, 100), np.float16)
    return f"in {path}", "has shape (36, 100), expected (36, 192)"


def poison(root):
    path = next((root / "nlvr").rglob("*.h5"))
    with h5py.File(path, "r+") as file:
        file[f"{path.stem}/features"][3, 5] = np.nan
    return f"in {path}", "NaN"


def empty(root):
    path = root / "nlvr" / "test.json"
    path.write_text("[]")
    return f"nlvr2: {path}", "holds no examples"


def unlabelled(root):
    path = root / "vqa" / "karpathy_train.json"
    rows = json.loads(path.read_text())
    del rows[2]["label"]
    path.write_text(json.dumps(rows))
    return f"vqa: {path}", "row 2.label is missing"


@pytest.mark.parametrize("damage", part([truncate, lose, narrow, poison, empty, unlabelled], 2))
def test_damaged_data_is_one_line_before_training(world, environment, grid_file, tmp_path, damage):
    root, out = tmp_path / "damaged", tmp_path / "out"
    shutil.copytree(world, root)
    said = damage(root)
    out.mkdir()
    (out / "000000000000.txt").write_text("what the user had")
    run = call(environment, "run", grid_file, "--data", root, "--out", out, "--executor", "inline")
    assert run.returncode == 2
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("pet-bench: error: ")
    assert all(part in line for part in said), line
    assert [path.name for path in out.iterdir()] == ["000000000000.txt"]


def test_two_kinds_of_damage_are_reported_together(world, environment, grid_file, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(world, root)
    said = [empty(root), unlabelled(root)]
    run = call(environment, "run", grid_file, "--data", root, "--out", tmp_path / "out", "--executor", "inline")
    assert run.returncode == 2
    for parts in said:
        assert any(all(part in line for part in parts) for line in run.stderr.splitlines()), run.stderr
