"""Packing as a long job: killed at any moment it goes on, memory does not grow, and damage to what it made is seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from functools import partial
from hashlib import sha256

import h5py
import numpy as np
import pytest

from pet_bench.cli import main
from pet_bench.data import store as stores
from pet_bench.data.store import BLOCK, FeatureStore
from pet_bench.data.task import FEATURES, Example
from pet_bench.errors import UserError
from pet_bench.spec import MethodSpec, Runtime, Visual
from pet_bench.tasks.vqa import VQA
from pet_bench.trial.check import check_data
from pet_bench.trial.resolve import resolve
from tests.conftest import ROOT
from tests.data import roots

SMALL = Visual(width=16, tokens=4, pooled=4, images=1)
COUNT = 3 * BLOCK + 10


def write(root, count=COUNT, visual=SMALL):
    """Random features of as many images, and an example for each."""
    folder = root / "COCO" / FEATURES
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        with h5py.File(folder / f"{i:05d}.h5", "w") as file:
            file[f"{i:05d}/features"] = rng.random((visual.tokens, visual.width), np.float32)
    return examples(count)


def examples(count=COUNT):
    return [Example(str(i), "", (f"COCO/{i:05d}",)) for i in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("many") / "datasets"
    write(root)
    return root


@pytest.fixture
def pack(root, tmp_path):
    return partial(FeatureStore.pack, root, [(VQA(), examples())], SMALL, cache=tmp_path)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stop_after(count):
    def progress(done, total):
        if done == count:
            raise KeyboardInterrupt

    return progress


def test_what_a_store_says_of_itself(root, pack, tmp_path):
    folder = pack().folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(contents(folder)) == ["features.npy", "index.json", "manifest.json"]
    assert (manifest["features"], manifest["shape"], manifest["dtype"]) == (COUNT, [COUNT, 4, 16], "float16")
    assert manifest["listing"].startswith(folder.name) and len(manifest["listing"]) == 64
    for name, digest in manifest["sha256"].items():
        assert sha256((folder / name).read_bytes()).hexdigest() == digest
    assert manifest["bytes"] == (folder / "features.npy").stat().st_size
    array, index = np.load(folder / "features.npy"), json.loads((folder / "index.json").read_text())
    assert array.dtype == np.float16 and array.flags.c_contiguous
    with h5py.File(root / "COCO" / FEATURES / "00123.h5") as file:
        assert np.array_equal(array[list(index).index("COCO/00123")], file["00123/features"][:].astype(np.float16))


# stopped --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 5, COUNT])
def test_an_interrupted_packing_goes_on(pack, tmp_path, monkeypatch, count):
    whole = contents(pack(cache=tmp_path / "whole").folder)
    with pytest.raises(KeyboardInterrupt):
        pack(progress=stop_after(count))
    first = []
    store = pack(progress=lambda done, total: first.append(done))
    expected = count // BLOCK * BLOCK if count < COUNT else 3 * BLOCK
    assert first == list(range(expected + 1, COUNT + 1))
    assert contents(store.folder) == whole
    assert [path.name for path in (tmp_path / "features").iterdir()] == [store.folder.name]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.test_pack import SMALL, VQA, FeatureStore, examples

def progress(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

FeatureStore.pack(Path(sys.argv[1]), [(VQA(), examples())], SMALL, cache=Path(sys.argv[2]), progress=progress)
"""


def test_a_killed_packing_goes_on(root, pack, tmp_path):
    whole = contents(pack(cache=tmp_path / "whole").folder)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, root, tmp_path, str(2 * BLOCK + 1)], cwd=ROOT, env=os.environ, check=False
    )
    assert killed.returncode == -9
    calls = []
    store = pack(progress=lambda *call: calls.append(call))
    assert calls[0] == (2 * BLOCK + 1, COUNT)
    assert contents(store.folder) == whole


@pytest.mark.parametrize("size", [0, 50, 128, 128 + 100, 128 + 128 * BLOCK + 3], ids="cut at {}".format)
def test_wherever_it_was_cut_off(pack, tmp_path, size):
    whole = pack(cache=tmp_path / "whole").folder
    draft = tmp_path / "features" / f".packing-{whole.name}"
    draft.mkdir(parents=True)
    (draft / "features.npy").write_bytes((whole / "features.npy").read_bytes()[:size])
    assert contents(pack().folder) == contents(whole)


def test_killed_after_the_last_feature(pack, tmp_path):
    whole = pack(cache=tmp_path / "whole").folder
    draft = tmp_path / "features" / f".packing-{whole.name}"
    shutil.copytree(whole, draft)
    (draft / "manifest.json").write_text("{")
    assert contents(pack().folder) == contents(whole)


def test_a_fault_leaves_nothing_behind(tmp_path):
    root = tmp_path / "datasets"
    wanted = [(VQA(), write(root, 5))]
    with h5py.File(root / "COCO" / FEATURES / "00003.h5", "w") as file:
        file["00003/features"] = np.full((4, 16), np.nan)
    with pytest.raises(UserError, match=r"'COCO/00003' in .*00003\.h5 holds NaN"):
        FeatureStore.pack(root, wanted, SMALL, cache=tmp_path)
    assert list((tmp_path / "features").iterdir()) == []


def test_a_full_disk_keeps_what_is_packed(pack, tmp_path, monkeypatch):
    def full(done, total):
        if done == BLOCK + 1:
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write to the cache .*: No space left on device"):
        pack(progress=full)
    calls = []
    pack(progress=lambda *call: calls.append(call))
    assert calls[0] == (BLOCK + 1, COUNT)


# memory ---------------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Allocations of Python and NumPy at their peak; a few features of 0.2 MB, however many there are."""
    visual, peaks = Visual(width=2048, tokens=49, pooled=36, images=1), []
    for count in (20, 200):
        wanted = [(VQA(), write(tmp_path / str(count), count, visual))]
        tracemalloc.start()
        FeatureStore.pack(tmp_path / str(count), wanted, visual, cache=tmp_path / "cache")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000
    assert peaks[1] < 20 * 49 * 2048 * 2  # a tenth of what is packed


# damage to what is packed ---------------------------------------------------------------------------------------------


def flip(path):
    """Another value in the middle; size and times as before."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("features.npy", flip, "has another SHA-256"),
        ("features.npy", lambda path: path.write_bytes(path.read_bytes()[:-1]), "has another SHA-256"),
        ("features.npy", lambda path: path.unlink(), "cannot be read"),
        ("index.json", lambda path: path.write_text("[]"), "has another SHA-256"),
        ("manifest.json", lambda path: path.write_text("{"), "cannot be read"),
        (
            "manifest.json",
            lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": [1]})),
            "disagree",
        ),
    ],
    ids=["a value", "truncated", "missing", "index", "manifest", "shape"],
)
def test_damage_to_a_store_is_seen(pack, name, damage, said):
    folder = pack().folder
    assert list(FeatureStore.verify(folder)) == []
    damage(folder / name)
    (line,) = FeatureStore.verify(folder)
    assert said in line and str(folder) in line


def test_damage_to_a_store_is_seen_by_data_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    root = roots.nlvr2(tmp_path / "datasets")
    options = ["data", "check", str(root), "--task", "nlvr2", "--packed"]
    assert code(*options) == 0 and "not packed yet" in capsys.readouterr().out
    assert code("data", "pack", str(root), "--task", "nlvr2") == 0
    (folder,) = (tmp_path / "cache" / "features").iterdir()
    assert f"12 features, 0.00 GB in {folder}" in capsys.readouterr().out
    assert code(*options) == 0 and f"packed in {folder}" in capsys.readouterr().out
    flip(folder / "features.npy")
    assert code(*options[:-1]) == 0 and "damaged" not in capsys.readouterr().out
    capsys.readouterr()
    assert code(*options) == 1 and "features.npy has another SHA-256" in capsys.readouterr().out
    (folder / "features.npy").write_bytes((folder / "features.npy").read_bytes()[:999])
    assert code(*options[:-1]) == 0 and "but damaged: a run packs anew" in capsys.readouterr().out


# the command ----------------------------------------------------------------------------------------------------------


def code(*arguments):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.mark.parametrize("suite", ["image-text", "image-text/vqa+gqa", "vqa"])
def test_a_run_uses_what_was_packed(tmp_path, monkeypatch, capsys, suite):
    root, out = tmp_path / "datasets", tmp_path / "scratch"
    for make in (roots.vqa, roots.gqa, roots.nlvr2, roots.coco_caption):
        make(root)
    assert code("data", "pack", root, "--suite", suite, "--out", out) == 0
    assert f"runs find it with PET_BENCH_CACHE={out}" in capsys.readouterr().out
    monkeypatch.setenv("PET_BENCH_CACHE", str(out))
    monkeypatch.setattr(stores, "read_feature", lambda *_: pytest.fail("a source file was opened"))
    check_data([resolve("mini-bart", MethodSpec("lora"), suite, 0)], Runtime(out=tmp_path, data=root))
    assert len(list((out / "features").iterdir())) == 1


def test_a_run_uses_what_was_packed_pooled(tmp_path, monkeypatch, capsys):
    root, out = roots.vqa(tmp_path / "datasets"), tmp_path / "scratch"
    assert code("data", "pack", root, "--task", "vqa", "--out", out, "--pooled") == 0
    monkeypatch.setenv("PET_BENCH_CACHE", str(out))
    with monkeypatch.context() as patch:
        patch.setattr(stores, "read_feature", lambda *_: pytest.fail("a source file was opened"))
        check_data([resolve("mini-bart", MethodSpec("lora"), "vqa", 0)], Runtime(out=tmp_path, data=root))
    assert code("data", "pack", root, "--task", "vqa", "--out", out) == 0
    shapes = [json.loads(path.read_text())["shape"] for path in (out / "features").glob("*/manifest.json")]
    assert sorted(shapes) == [[12, 36, 2048], [12, 49, 2048]]
    capsys.readouterr()
    assert code("data", "pack", root, "--task", "vqa", "--fed", "pixels", "--pooled") == 2
    assert "--pooled is for features, not for pixels" in capsys.readouterr().err


def test_pack_refuses_damage_and_packs_nothing(tmp_path, monkeypatch, capsys):
    root = roots.gqa(tmp_path / "datasets")
    (root / "GQA" / "valid.json").write_text("[")
    assert code("data", "pack", root, "--task", "gqa", "--out", tmp_path / "cache") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pet-bench: error: gqa: ") and "valid.json is not valid JSON" in line
    assert not (tmp_path / "cache").exists()


def test_pack_says_where_there_is_nothing(tmp_path, capsys):
    assert code("data", "pack", tmp_path / "nowhere") == 2
    assert code("data", "pack", tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "does not exist" in lines[0] and "holds annotations of no suite" in lines[1]
