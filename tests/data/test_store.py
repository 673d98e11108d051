"""Packing: what comes back is what was written, once, and every damaged file is named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from pet_bench.backbone.visual import pool_grid
from pet_bench.data.store import FeatureStore
from pet_bench.data.task import Example, data_fingerprint
from pet_bench.errors import UserError
from pet_bench.spec import Visual
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.nlvr_v1 import NLVRv1
from pet_bench.tasks.vqa import VQA
from tests.data import roots


@pytest.fixture
def root(tmp_path):
    return roots.vqa(tmp_path / "datasets")


@pytest.fixture
def pack(root, tmp_path):
    def pack(*tasks, split="test", visual=roots.VISUAL, **options):
        wanted = [(task, task.examples(root, split)) for task in tasks or (VQA(),)]
        return FeatureStore.pack(root, wanted, visual, **{"cache": tmp_path / "cache"} | options)

    return pack


def folders(tmp_path):
    return sorted((tmp_path / "cache" / "features").iterdir())


def test_features_come_back_in_the_order_asked_for(root, pack):
    examples = VQA().examples(root, "test")
    store = pack()
    rows = store.rows(examples[::-1])
    visual = store.gather(rows)
    assert visual.shape == (4, 1, 49, 2048) and visual.dtype == torch.float32
    assert visual[:, 0, 0, 0].tolist() == [33.0, 32.0, 31.0, 30.0]


def test_two_images_an_example(root, pack):
    roots.nlvr2(root)
    task = NLVR2()
    examples = task.examples(root, "test")
    store = pack(task)
    assert store.gather(store.rows(examples))[:, :, 0, 0].tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_three_boxes_an_example(tmp_path):
    root, task = roots.nlvr_v1(tmp_path / "datasets"), NLVRv1()
    examples = task.examples(root, "test")
    visual = Visual(width=192, tokens=36, pooled=36, images=3)
    store = FeatureStore.pack(root, [(task, examples)], visual, cache=tmp_path)
    features = store.gather(store.rows(examples))
    assert features.shape == (3, 3, 36, 192)
    assert ((features.mean((2, 3)) + 1) * 127.5).tolist() == [pytest.approx([0, 100, 200], abs=0.2)] * 3


def test_text_only_is_zeros(root, pack):
    store = pack()
    rows = store.rows(VQA().examples(root, "test"))
    visual = store.gather(rows, control="text-only")
    assert visual.shape == (4, 1, 49, 2048) and not visual.any()


def test_noise_is_normal_and_each_images_own(root, pack):
    store = pack()
    rows = store.rows(VQA().examples(root, "test"))
    noise = store.gather(rows, control="noise")
    assert noise.shape == (4, 1, 49, 2048)
    assert noise.mean().abs() < 0.01 and (noise.std() - 1).abs() < 0.01
    assert torch.equal(store.gather(rows[::-1].copy(), control="noise"), noise.flip(0))
    assert len({float(image.sum()) for image in noise}) == len({int(row) for row in rows.flat})


def test_tasks_share_the_images_they_have_in_common(root, pack):
    roots.coco_caption(root)
    images = json.loads((root / "COCO" / "dataset_coco.json").read_text())
    images["images"][4]["filename"] = "COCO_val2014_000000000030.jpg"
    roots.dump(root / "COCO" / "dataset_coco.json", images)
    assert len(pack(VQA(), CocoCaption()).index) == 5


def test_a_second_call_reads_nothing(root, pack, tmp_path, monkeypatch):
    first = pack()
    monkeypatch.setattr(VQA, "feature", lambda *_: pytest.fail("a source file was opened"))
    assert pack().fingerprint == first.fingerprint
    assert len(folders(tmp_path)) == 1
    assert isinstance(first.array, np.memmap) and first.array.dtype == np.float16


def test_the_fingerprint_is_that_of_the_contents(root, pack, tmp_path):
    first = pack().fingerprint
    path = roots.grid(root, "COCO", "COCO_val2014_000000000030", 5.0)
    changed = pack().fingerprint
    assert changed != first and len(folders(tmp_path)) == 2
    roots.grid(root, "COCO", "COCO_val2014_000000000030", 30.0)
    path.touch()
    assert pack().fingerprint == first


def pack_both(root, tmp_path):
    wanted = [(VQA(), VQA().examples(root, split)) for split in ("train", "test")]
    return FeatureStore.pack(root, wanted, roots.VISUAL, cache=tmp_path / "cache")


def test_a_store_that_holds_more_serves_too(root, pack, tmp_path, monkeypatch):
    """As where a suite was packed ahead, and a run reads one task, or no validation split."""
    alone = {split: pack(split=split) for split in ("train", "test")}
    noise = {
        split: store.gather(store.rows(VQA().examples(root, split)), control="noise") for split, store in alone.items()
    }
    for folder in folders(tmp_path):
        shutil.rmtree(folder)
    whole = pack_both(root, tmp_path)
    monkeypatch.setattr(VQA, "feature", lambda *_: pytest.fail("a source file was opened"))
    for split, own in alone.items():
        store = pack(split=split)
        assert store.folder == whole.folder and store.index.keys() == own.index.keys() < whole.index.keys()
        assert store.fingerprint == own.fingerprint != whole.fingerprint
        examples = VQA().examples(root, split)
        read = store.gather(store.rows(examples))
        assert torch.equal(read, whole.gather(whole.rows(examples))) and read.any()
        assert torch.equal(store.gather(store.rows(examples), control="noise"), noise[split])
        store.to("meta", free=lambda device: whole.array.nbytes * 2)
        assert store.bytes_on_device == len(own.index) * 49 * 2048 * 2
    assert folders(tmp_path) == [whole.folder]


def test_a_device_gets_the_rows_that_are_used(root, pack, tmp_path):
    pack_both(root, tmp_path)
    store, examples = pack(), VQA().examples(root, "test")
    assert len(store.index) < len(store.array)
    before = store.gather(store.rows(examples))
    store.resident = torch.from_numpy(store.array[store.used])  # as on a device
    assert torch.equal(store.gather(store.rows(examples)), before)


@pytest.mark.parametrize("harm", ["changed", "damaged"])
def test_a_larger_store_that_is_old_or_damaged_does_not_serve(root, pack, tmp_path, harm):
    whole = pack_both(root, tmp_path)
    if harm == "changed":
        roots.grid(root, "COCO", "COCO_val2014_000000000030", 5.0)
    else:
        (whole.folder / "features.npy").write_bytes(b"")
    store = pack()
    assert store.folder != whole.folder and len(folders(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["truncate", "manifest"])
def test_a_damaged_pack_is_made_again(root, pack, tmp_path, damage):
    pack()
    (folder,) = folders(tmp_path)
    path = folder / {"truncate": "features.npy", "manifest": "manifest.json"}[damage]
    path.write_bytes(path.read_bytes()[:1000] if damage == "truncate" else b"{}")
    store = pack()
    assert folders(tmp_path) == [folder]
    assert store.gather(store.rows(VQA().examples(root, "test")))[0, 0, 0, 0] == 30.0


def test_two_that_pack_at_once_end_with_one_pack(pack, tmp_path):
    inner = []

    def overtaken(done, total):
        if done == total and not inner:
            inner.append(pack())

    outer = pack(progress=overtaken)
    assert outer.fingerprint == inner[0].fingerprint
    assert folders(tmp_path) == [outer.folder]


def test_progress_counts_up_to_all(pack):
    calls = []
    pack(progress=lambda *call: calls.append(call))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


# damaged features ----------------------------------------------------------------------------------------------------

FIRST = "COCO_val2014_000000000030"
NAN = np.full((49, 2048), 1.0, np.float32)
NAN[3, 7] = np.nan


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: roots.grid(root, "COCO", FIRST).unlink(), "is missing"),
        (lambda root: roots.grid(root, "COCO", FIRST).write_bytes(b"\x89HDF\r\n\x1a\n cut"), "cannot be read"),
        (lambda root: roots.grid(root, "COCO", FIRST, key="other"), "has no key for"),
        (
            lambda root: roots.grid(root, "COCO", FIRST, np.ones((36, 2048))),
            "has shape (36, 2048), expected (49, 2048)",
        ),
        (lambda root: roots.grid(root, "COCO", FIRST, np.ones((49, 512))), "has shape (49, 512), expected (49, 2048)"),
        (
            lambda root: roots.grid(root, "COCO", FIRST, np.ones((49, 2048), np.int32)),
            "is of type int32, expected floating",
        ),
        (lambda root: roots.grid(root, "COCO", FIRST, np.full((49, 2048), b"x")), "is of type |S1, expected floating"),
        (lambda root: roots.grid(root, "COCO", FIRST, NAN), "holds NaN, infinity or a value beyond half precision"),
        (lambda root: roots.grid(root, "COCO", FIRST, np.full((49, 2048), 1e6)), "beyond half precision"),
    ],
    ids=["missing", "unreadable", "no key", "tokens", "width", "integers", "strings", "nan", "too large"],
)
def test_a_damaged_feature_is_named(root, pack, tmp_path, damage, said):
    damage(root)
    with pytest.raises(UserError) as error:
        pack()
    (line,) = error.value.faults
    assert line.startswith("vqa: ") and f"{FIRST}.h5" in line and f"COCO/{FIRST}" in line and said in line
    cache = tmp_path / "cache" / "features"
    assert not cache.exists() or folders(tmp_path) == []


def test_a_truncated_file(root, pack):
    path = roots.grid(root, "COCO", FIRST, 1.0)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="cannot be read"):
        pack()


@pytest.mark.parametrize("missing", [False, True])
def test_all_damaged_features_come_together(root, pack, missing):
    for i in (30, 31):
        roots.grid(root, "COCO", f"COCO_val2014_{i:012d}", np.ones((2, 2)))
    if missing:
        roots.grid(root, "COCO", "COCO_val2014_000000000032").unlink()
    with pytest.raises(UserError) as error:
        pack()
    assert [line.rsplit(" ", 2)[-1] for line in error.value.faults] == ["2048)", "2048)", "missing"][: 2 + missing]


def test_many_missing_features_are_cut_at_twenty_with_a_count(root, tmp_path):
    examples = [Example(str(i), "", (f"COCO/{i:03d}",)) for i in range(25)]
    with pytest.raises(UserError) as error:
        FeatureStore.pack(root, [(VQA(), examples)], roots.VISUAL, cache=tmp_path)
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "features: and 5 faults more"


def test_more_images_than_the_suite_has_room_for(root, pack):
    roots.nlvr2(root)
    with pytest.raises(UserError, match="'test1-7-0-0' has 2 images, at most 1 fit"):
        pack(NLVR2(), visual=Visual(width=2048, tokens=49, pooled=36, images=1))


def test_a_cache_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the cache"):
        FeatureStore.pack(root, [(VQA(), VQA().examples(root, "test"))], roots.VISUAL, cache=tmp_path / "file")


def test_a_full_disk_is_said_before_packing(pack, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"packing needs .* GB are free"):
        pack()


# on an accelerator ---------------------------------------------------------------------------------------------------


def test_a_cpu_changes_nothing(root, pack):
    store = pack()
    rows = store.rows(VQA().examples(root, "test"))
    before = store.gather(rows)
    assert store.to("cpu", free=lambda _: pytest.fail("asked a CPU")) is store and store.resident is None
    assert torch.equal(store.gather(rows), before)


@pytest.mark.parametrize(("spare", "kept"), [(0, True), (-1, False)])
def test_features_are_kept_on_a_device_if_they_take_at_most_half_of_what_is_free(root, pack, spare, kept):
    store = pack()
    store.to("meta", free=lambda device: 2 * store.array.nbytes + spare)
    assert (store.resident is not None) == kept
    assert store.resident is store.to("meta").resident  # of an earlier trial: not twice
    assert store.bytes_on_device == kept * 4 * 49 * 2048 * 2
    visual = store.gather(store.rows(VQA().examples(root, "test")))
    assert visual.device.type == ("meta" if kept else "cpu")
    assert visual.shape == (4, 1, 49, 2048) and visual.dtype == torch.float32


def test_a_device_that_does_not_say_what_is_free_keeps_nothing(pack):
    assert pack().to("meta").resident is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="unchecked: a GPU gives the same features (no CUDA device)")
@pytest.mark.parametrize("control", ["none", "text-only", "noise"])
def test_a_gpu_gives_the_same_values(root, pack, control):
    store = pack()
    rows = store.rows(VQA().examples(root, "test"))[::-1]
    before = store.gather(rows, control=control)
    after = store.to("cuda").gather(rows, control=control)
    assert after.device.type == "cuda" and torch.equal(after.cpu(), before)


# provenance ----------------------------------------------------------------------------------------------------------


def test_the_data_fingerprint_follows_annotations_and_features(root):
    def fingerprint(store="s", splits=("train", "test")):
        return data_fingerprint(root, [VQA()], store, splits)

    first = fingerprint()
    assert first == fingerprint() and len(first) == 12
    assert len({first, fingerprint("t"), fingerprint(splits=("train",))}) == 3
    path = root / "vqa" / "karpathy_val.json"
    path.write_text(path.read_text() + " ")
    assert fingerprint() == first  # not read for these splits
    path = root / "vqa" / "karpathy_train.json"
    path.write_text(path.read_text() + " ")
    assert fingerprint() != first


# pooled ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def grids(root):
    """Features whose vectors all differ, some of them zeros of either sign."""
    rng = np.random.default_rng(0)
    for number in range(30, 34):
        roots.grid(root, "COCO", f"COCO_val2014_{number:012d}", rng.standard_normal((49, 2048)).round(1))
    return root


def test_pooled_features_enter_a_model_to_the_bit(grids, pack, tmp_path):
    whole = pack(pooled=False)
    store = pack(pooled=True)
    rows = store.rows(VQA().examples(grids, "test"))
    assert len(folders(tmp_path)) == 2 and store.array.shape[1:] == (36, 2048) and store.array.dtype == np.float16
    assert store.fingerprint == whole.fingerprint
    for control in ("none", "text-only", "noise"):
        ours, theirs = (pool_grid(each.gather(rows, control=control), 36) for each in (store, whole))
        assert torch.equal(ours, theirs) and torch.equal(ours.signbit(), theirs.signbit())


def test_a_run_takes_what_is_there_and_what_is_whole_first(grids, pack, tmp_path, monkeypatch):
    store = pack(pooled=True)
    with monkeypatch.context() as patch:
        patch.setattr(VQA, "feature", lambda *_: pytest.fail("a source file was opened"))
        assert pack().folder == store.folder
        assert pack(split="test").tokens == 49
    assert pack(pooled=False).folder != store.folder
    assert pack().array.shape[1] == 49 and pack(pooled=True).folder == store.folder
    assert list(FeatureStore.verify(store.folder)) == []


def test_another_size_is_no_store_of_these(grids, pack):
    store = pack(pooled=True)
    other = Visual(width=2048, tokens=49, pooled=25, images=2)
    assert pack(visual=other, pooled=True).folder != store.folder
    assert pack(visual=other).array.shape[1] == 25
    with pytest.raises(UserError, match="nothing to pool: all 49 vectors of an image enter the model"):
        pack(visual=Visual(width=2048, tokens=49, pooled=49), pooled=True)


@pytest.mark.parametrize("damage", ["nothing", "digests", "array"])
def test_pooling_that_was_stopped_goes_on(grids, pack, tmp_path, monkeypatch, damage):
    whole = pack(pooled=True, cache=tmp_path / "whole")
    monkeypatch.setattr("pet_bench.data.journal.BLOCK", 1)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(pooled=True, progress=stop)
    (draft,) = (tmp_path / "cache" / "features").glob(".packing-*")
    if damage == "digests":
        (draft / "digests").write_bytes((draft / "digests").read_bytes()[:30])
    elif damage == "array":
        (draft / "features.npy").write_bytes((draft / "features.npy").read_bytes()[:-1000])
    first = []
    store = pack(pooled=True, progress=lambda done, total: first.append(done))
    assert first[0] == {"nothing": 4, "digests": 2, "array": 3}[damage]
    for name in ("features.npy", "index.json"):
        assert (store.folder / name).read_bytes() == (whole.folder / name).read_bytes()
