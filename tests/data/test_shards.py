"""VL-Adapter's shards: from the hub's files to a table, the same as from HDF5; stopped, and damaged in every way."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from hashlib import sha1, sha256
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pet_bench.cli import main
from pet_bench.data import manifest
from pet_bench.data.albums import Albums
from pet_bench.data.convert import convert, read_back
from pet_bench.data.reading import data_root
from pet_bench.data.store import FeatureStore
from pet_bench.data.task import Example, data_fingerprint
from pet_bench.errors import UserError
from pet_bench.results import store
from pet_bench.spec import Runtime, Visual
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.vqa import VQA
from tests.conftest import ROOT
from tests.data import hub, roots

TASKS = (VQA(), GQA(), NLVR2(), CocoCaption())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """All four tasks with HDF5 files, features drawn at random."""
    root, rng = tmp_path_factory.mktemp("workspace") / "datasets", np.random.default_rng(0)
    for make in (roots.vqa, roots.gqa, roots.nlvr2, roots.coco_caption):
        make(root)
    for path in sorted(root.rglob("*.h5")):
        with h5py.File(path, "r+") as file:
            file[f"{path.stem}/features"][:] = rng.standard_normal((49, 2048), np.float32)
    return root


@pytest.fixture(scope="module")
def sound(workspace, tmp_path_factory):
    return hub.hub(workspace, tmp_path_factory.mktemp("hub") / "hub")


@pytest.fixture
def root(sound, tmp_path, monkeypatch):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return shutil.copytree(sound, tmp_path / "hub")


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code or 0, *capsys.readouterr()

    return run


def packed(root, cache, *tasks, **options):
    wanted = [(task, task.examples(root, split)) for task in tasks or TASKS for split in ("train", "valid", "test")]
    return FeatureStore.pack(root, wanted, roots.VISUAL, cache=cache, **options)


def state(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# from the files to a table --------------------------------------------------------------------------------------------

GRID = {
    "name": "short",
    "suites": ["image-text/gqa+nlvr2"],
    "backbones": ["mini-bart"],
    "methods": ["lora"],
    "seeds": [0],
    "recipe": {"max_steps": 2, "batch_size": 4, "valid_every": 0},
}


def test_from_the_hubs_files_to_a_table(root, workspace, call, tmp_path, monkeypatch):
    """Check, pack, train two updates, score, report; each number is that from HDF5 files of the same features."""
    grid = tmp_path / "short.yaml"
    grid.write_text(yaml.safe_dump(GRID))
    before = state(root)
    code, out, _ = call("data", "check", root, "--all")
    assert code == 0 and "a run would go through; values of all 40 features read" in out
    assert "features are in shards: COCO 19 images in 4 shards, GQA 3 images in 1 shard" in out
    code, out, _ = call("data", "pack", root)
    assert code == 0 and "image-text: 40 features" in out
    results = {}
    for name, data in (("shards", root), ("hdf5", workspace)):
        folder = tmp_path / name
        assert call("run", grid, "--data", data, "--out", folder, "--executor", "inline")[0] == 0
        ((id, results[name]),) = store.load_all(folder).items()
        code, out, _ = call("score", folder / f"{id}.json", "--data", data)
        assert code == 0 and "gqa" in out and "nlvr2" in out
        assert call("report", grid, "--out", folder)[0] == 0
        assert (folder / "report" / "table.csv").is_file()
    ours, theirs = results["shards"], results["hdf5"]
    assert ours.metrics == theirs.metrics and ours.curve == theirs.curve
    assert ours.provenance.data == theirs.provenance.data and ours.provenance.data
    assert state(root) == before


def test_what_is_packed_is_what_the_shards_hold(root, tmp_path):
    """To the bit, as Python lists have it."""
    ours = packed(root, tmp_path, GQA())
    count = 0
    for path in (hub.shard(root, "GQA", 0), root / FIRST, root / SHARD):
        content = pq.read_table(path)
        for id, grid in zip(content["id"].to_pylist(), content["features"].to_pylist(), strict=True):
            row = ours.array[ours.index[f"{path.parts[-3]}/{id}"]]
            assert np.array_equal(row.view(np.uint16), np.asarray(grid, np.float16).view(np.uint16))
            count += 1
    assert count == len(ours.index) == 9


@pytest.mark.parametrize("pooled", [False, True], ids=["whole", "pooled"])
def test_shards_and_hdf5_files_are_the_same_data(root, workspace, tmp_path, pooled):
    ours, theirs = (packed(each, tmp_path / each.name, pooled=pooled) for each in (root, workspace))
    assert ours.fingerprint == theirs.fingerprint and ours.folder.name != theirs.folder.name
    assert np.array_equal(ours.array.view(np.uint16), theirs.array.view(np.uint16))
    assert sorted(path.name for path in ours.folder.iterdir()) == ["features.npy", "index.json", "manifest.json"]
    digests = {data_fingerprint(each, TASKS, ours.fingerprint, ["train", "test"]) for each in (root, workspace)}
    assert len(digests) == 1
    for task in TASKS:
        assert task.examples(root, "test") == task.examples(workspace, "test")


def test_one_feature_alone(root, workspace):
    key = "nlvr/dev-7-1-img1"
    assert np.array_equal(NLVR2().feature(root, key), NLVR2().feature(workspace, key))
    with pytest.raises(KeyError):
        NLVR2().feature(root, "nlvr/dev-7-9-img1")


def test_columns_beside_the_two_are_ignored(root, tmp_path):
    before = packed(root, tmp_path / "before", GQA()).fingerprint
    for path in hub.shards(root):
        content = pq.read_table(path)
        hub.write(path, content.add_column(1, "split", pa.array(["train"] * len(content))))
    assert packed(root, tmp_path / "after", GQA()).fingerprint == before


@pytest.mark.parametrize("size", [1, 3], ids="row groups of {}".format)
def test_row_groups_of_any_size(root, tmp_path, size):
    before = packed(root, tmp_path / "before", GQA())
    for path in hub.shards(root):
        hub.write(path, pq.read_table(path), row_group_size=size)
    after = packed(root, tmp_path / "after", GQA())
    assert after.fingerprint == before.fingerprint and np.array_equal(after.array, before.array)


def test_a_new_download_is_packed_anew(root, tmp_path):
    first = packed(root, tmp_path, GQA())
    path = hub.shard(root, "GQA", 0)
    content = pq.read_table(path)
    hub.write(path, hub.table(content["id"].to_pylist(), np.ones((len(content), 49, 2048), np.float16)))
    second = packed(root, tmp_path, GQA())
    assert second.folder != first.folder and second.fingerprint != first.fingerprint
    assert (second.array[second.index["GQA/n7"]] == 1).all()


def test_some_shards_are_enough_where_examples_are_dropped(root, call, tmp_path):
    hub.shard(root, "COCO", 1).unlink()
    code, out, err = call("data", "pack", root, "--task", "coco-caption")
    assert code == 2 and "is in none of the 3 shards in" in err
    code, out, _ = call("data", "check", root, "--task", "coco-caption")
    assert code == 1 and "--missing-features drop would leave out" in out and "ylsung/VL-Adapter-datasets" in out
    code, out, _ = call("data", "pack", root, "--task", "coco-caption", "--missing-features", "drop")
    assert code == 0 and "examples left out, since a feature is missing" in out


def test_a_broken_shard_is_not_dropped(root, call, tmp_path):
    path = hub.shard(root, "COCO", 1)
    path.write_bytes(path.read_bytes()[:-9])
    code, _, err = call("data", "pack", root, "--task", "coco-caption", "--missing-features", "drop")
    assert code == 2 and f"{path} cannot be read" in err and not (tmp_path / "cache").exists()


# the hub's cache, and its notes ---------------------------------------------------------------------------------------


def cached(root: Path, revision: str = "0" * 40) -> Path:
    """The same as huggingface_hub lays it out in its cache: links to blobs, which are called by their checksums."""
    home = root.parent / "datasets--ylsung--VL-Adapter-datasets"
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content, link = path.read_bytes(), home / "snapshots" / revision / path.relative_to(root)
        large = path.suffix in (".parquet", ".gz")
        name = sha256(content).hexdigest() if large else sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = home / "blobs" / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(Path(*[".."] * len(link.relative_to(home).parts[1:]), "blobs", name))
    return home / "snapshots" / revision


def noted(root: Path, revision: str = "0" * 40) -> Path:
    """The same with what `hf download --local-dir` notes of each file."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        note = root / ".cache" / "huggingface" / "download" / f"{path.relative_to(root)}.metadata"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{revision}\n{sha256(path.read_bytes()).hexdigest()}\n1790000000.0\n")
    return root


def test_a_snapshot_of_the_hubs_cache(root, call, tmp_path):
    snapshot = cached(root)
    expected = packed(root, tmp_path / "plain", GQA()).fingerprint
    assert packed(snapshot, tmp_path / "links", GQA()).fingerprint == expected
    code, out, _ = call("data", "check", snapshot, "--task", "gqa", "--all")
    assert code == 0, out
    code, _, err = call("data", "check", snapshot.parents[1])
    assert code == 2 and f"is a folder of the hub's cache: say which revision (there: {snapshot})" in err
    with pytest.raises(UserError, match="say which revision"):
        data_root("gqa", Runtime(tmp_path, snapshot.parents[1]))


@pytest.mark.parametrize("layout", [cached, noted])
@pytest.mark.parametrize("name", ["features/GQA/data_clip_RN101_att/part-00000.parquet", "annotations/GQA/valid.json"])
def test_another_checksum_than_the_hubs_is_seen(root, call, layout, name):
    (root / "manifest.json.gz").unlink()
    root = layout(root)
    assert call("data", "check", root, "--task", "gqa", "--all")[0] == 0
    path = root / name
    content = path.read_bytes()
    if name.endswith("json"):
        content = content.replace(b"is the dog blue", b"is the dog grey")
    else:
        table = pq.read_table(path)
        grids = np.ones((len(table), 49, 2048), np.float16)
        hub.write(path.resolve(), hub.table(table["id"].to_pylist(), grids))
        content = path.read_bytes()
    path.resolve().write_bytes(content)
    assert call("data", "check", root, "--task", "gqa")[0] == 0  # nothing is wrong with it but that it is another
    code, out, _ = call("data", "check", root, "--task", "gqa", "--all")
    assert code == 1 and f"{name} has another SHA-" in out and "download it again" in out


def test_files_of_two_revisions_are_refused(root, call, tmp_path):
    noted(root)
    note = root / ".cache/huggingface/download/features/VG/data_clip_RN101_att/part-00001.parquet.metadata"
    note.write_text(note.read_text().replace("0" * 40, "1" * 40))
    code, _, err = call("data", "pack", root, "--task", "gqa")
    (line,) = err.splitlines()
    assert code == 2 and "holds files of 2 revisions" in line and "part-00001.parquet of 111111111111" in line
    assert not (tmp_path / "cache").exists()


# photographs and downloads beside it ----------------------------------------------------------------------------------


def test_pictures_are_found_where_the_layout_has_them(root, tmp_path):
    images = root / "images" / "nlvr"
    images.mkdir(parents=True)
    picture = pa.StructArray.from_arrays(
        [pa.array([b"x"], pa.binary()), pa.array(["test1-7-0-img0"])], ["bytes", "path"]
    )
    pq.write_table(pa.table({"id": pa.array(["test1-7-0-img0"]), "image": picture}), images / "part-00000.parquet")
    place = Albums().find(*NLVR2().picture(root, "nlvr/test1-7-0-img0"))
    assert place.file == images / "part-00000.parquet"


def test_converted_downloads_go_where_annotations_are(root, tmp_path):
    question = {"7": {"imageId": "n7", "question": "is it", "answer": "yes"}}
    roots.dump(tmp_path / "downloads" / "testdev_balanced_questions.json", question)
    with pytest.raises(UserError, match=r"testdev\.json"):
        convert(tmp_path / "downloads", root, ["gqa"])
    convert(tmp_path / "downloads", root, ["gqa"], force=True)
    assert not (root / "GQA").exists() and len(GQA().examples(root, "test")) == 1
    assert next(part for part in read_back(root, ["gqa"]) if part.split == "test").examples == 1


# stopped --------------------------------------------------------------------------------------------------------------

SMALL = Visual(width=16, tokens=4, pooled=4, images=1)
COUNT = 300
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.test_shards import pack_small

def progress(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

pack_small(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress)
"""


def pack_small(root, cache, **options):
    wanted = [(VQA(), [Example(str(i), "", (f"COCO/{i:03d}",)) for i in range(COUNT)])]
    return FeatureStore.pack(root, wanted, SMALL, cache=cache, **options)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two shards, in an order that is not the alphabet's, with row groups of 40."""
    root, rng = tmp_path_factory.mktemp("small") / "hub", np.random.default_rng(1)
    ids = [f"{i:03d}" for i in rng.permutation(COUNT)]
    for number, part in enumerate((ids[:200], ids[200:])):
        content = hub.table(part, rng.standard_normal((len(part), 4, 16), np.float32).astype(np.float16))
        hub.write(hub.shard(root, "COCO", number), content, row_group_size=40)
    return root


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    return pack_small(small, tmp_path_factory.mktemp("whole")).folder


def goes_on(small, cache, whole, safe):
    """Packing begins behind what was safely on disk, and ends as if nothing had been."""
    assert not [path for path in (cache / "features").iterdir() if not path.name.startswith(".")]
    calls = []
    store = pack_small(small, cache, progress=lambda *call: calls.append(call))
    assert calls == [(done, COUNT) for done in range(safe + 1, COUNT + 1)]
    for name in ("features.npy", "index.json"):
        assert (store.folder / name).read_bytes() == (whole / name).read_bytes()
    assert list(FeatureStore.verify(store.folder)) == []
    assert [path.name for path in (cache / "features").iterdir()] == [store.folder.name]


def test_packing_that_was_killed_goes_on(small, tmp_path, whole):
    killed = subprocess.run([sys.executable, "-c", KILLED, small, tmp_path, "130"], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    goes_on(small, tmp_path, whole, 128)


@pytest.mark.parametrize("at", [1, 64, 255, COUNT])
def test_packing_that_was_stopped_goes_on(small, tmp_path, whole, at):
    def stop(done, total):
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_small(small, tmp_path, progress=stop)
    goes_on(small, tmp_path, whole, at // 64 * 64)


@pytest.mark.parametrize(
    ("size", "lines", "safe"),
    [(None, 30, 1), (None, 27 * 10 + 3, 10), (128 + 128 * 5, None, None), (50, None, 0)],
    ids=["a line", "some lines", "fewer rows", "no header"],
)
def test_wherever_a_draft_was_cut_off(small, tmp_path, whole, size, lines, safe):
    """Rows whose lines are not whole, and those that the file has not, are packed again."""

    def stop(done, total):
        if done == 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_small(small, tmp_path, progress=stop)
    (draft,) = (tmp_path / "features").glob(".packing-*")
    for name, end in (("features.npy", size), ("digests", lines)):
        os.truncate(draft / name, (draft / name).stat().st_size if end is None else end)
    calls = []
    store = pack_small(small, tmp_path, progress=lambda *call: calls.append(call))
    assert calls[-1] == (COUNT, COUNT) and (safe is None or safe - 1 <= calls[0][0] - 1 <= safe + 1)
    assert (store.folder / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()


# damage ---------------------------------------------------------------------------------------------------------------

SHARD = "features/VG/data_clip_RN101_att/part-00001.parquet"
FIRST = "features/VG/data_clip_RN101_att/part-00000.parquet"


def rewritten(change, name=SHARD):
    """The table of a shard, changed."""
    return lambda root: pq.write_table(change(pq.read_table(root / name)), root / name)


def with_id(row, id, name=SHARD):
    def change(content):
        ids = content["id"].to_pylist()
        ids[row] = id
        return content.set_column(0, "id", pa.array(ids, pa.string()))

    return rewritten(change, name)


def renamed(content, *names):
    return content.rename_columns(names)


def cast(kind):
    """Features as another type."""

    def change(content):
        values = content["features"].to_pylist()
        return content.set_column(1, "features", pa.array(values, kind))

    return rewritten(change)


def with_values(change, row=0):
    """The grids of a shard (rows, 49, 2048), changed."""

    def rewrite(content):
        grids = np.asarray(content["features"].to_pylist(), np.float16)
        return hub.table(content["id"].to_pylist(), change(grids))

    return rewritten(rewrite)


def one(value):
    def change(grids):
        grids[0, 48, 2047] = value
        return grids

    return with_values(change)


def null(*place):
    """A row, a vector of row 0, or a number of it, is null."""

    def change(content):
        rows = content["features"].to_pylist()
        if not place:
            rows[0] = None
        elif len(place) == 1:
            rows[0][place[0]] = None
        else:
            rows[0][place[0]][place[1]] = None
        kind = pa.list_(pa.list_(pa.float16(), 2048), 49)
        return content.set_column(1, "features", pa.array(rows, kind))

    return rewritten(change)


def bytes_of(change, name=SHARD):
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def in_manifest(change):
    def damage(root):
        files = hub.listed(root)
        hub.manifest(root, change(files) or files)

    return damage


def entry(**changes):
    """The manifest's entry of an annotation file, changed."""

    def change(files):
        (found,) = (file for file in files if file["path"] == "GQA/valid.json")
        found |= changes

    return in_manifest(change)


def raw_manifest(content):
    return lambda root: (root / "manifest.json.gz").write_bytes(content)


def moved(source, target):
    return lambda root: (root / source).rename(root / target)


def linked_nowhere(root):
    (root / SHARD).unlink()
    (root / SHARD).symlink_to("../../../../blobs/gone")


def beside(root):
    (root / "VG" / "clip_features" / "data_clip_RN101_att").mkdir(parents=True)


LISTS, HALVES = pa.list_(pa.list_(pa.float16())), pa.float16()
WIDE = pa.list_(pa.list_(pa.float32(), 2048), 49)
DAMAGE = {
    "no id column": (rewritten(lambda t: renamed(t, "key", "features")), SHARD, "column id is missing, expected id"),
    "no features": (rewritten(lambda t: renamed(t, "id", "grid")), SHARD, "column features is missing"),
    "no columns": (
        rewritten(lambda t: pa.table({"x": [1]})), SHARD, "column id is missing", "features is missing", "x: int64"
    ),
    "id twice": (rewritten(lambda t: t.append_column("id", t["id"])), SHARD, "column id is there 2 times"),
    "features twice": (rewritten(lambda t: t.append_column("features", t["id"])), SHARD, "features is there 2 times"),
    "ids are numbers": (
        rewritten(lambda t: t.set_column(0, "id", pa.array(range(len(t)), pa.int64()))), SHARD,
        "column id is of type int64, expected string",
    ),
    "ids are bytes": (
        rewritten(lambda t: t.set_column(0, "id", t["id"].cast(pa.binary()))), SHARD, "column id is of type binary",
    ),
    "single precision": (cast(WIDE), SHARD, "column features is of type fixed_size_list<"),
    "lists of any length": (cast(LISTS), SHARD, "column features is of type list<"),
    "flat": (
        rewritten(lambda t: t.set_column(1, "features", pa.array([1.0] * len(t), pa.float32()))), SHARD,
        "column features is of type float, expected fixed_size_list<fixed_size_list<halffloat>>",
    ),
    "36 vectors": (with_values(lambda grids: grids[:, :36]), SHARD, "have shape (36, 2048), expected (49, 2048)"),
    "512 numbers": (with_values(lambda grids: grids[:, :, :512]), SHARD, "features have shape (49, 512), expected"),
    "no rows": (rewritten(lambda t: t.slice(0, 0)), SHARD, "has no rows"),
    "an id is null": (with_id(0, None), SHARD, "row 0.id is null"),
    "an id is empty": (with_id(0, " "), SHARD, "row 0.id is empty"),
    "an id climbs": (with_id(0, "../../x"), SHARD, "row 0.id is '../../x', expected the name of an image, no path"),
    "an id is the folder above": (with_id(0, ".."), SHARD, "row 0.id is '..', expected"),
    "an id is a path": (with_id(0, "/etc/passwd"), SHARD, "row 0.id is '/etc/passwd', expected"),
    "an id with a null byte": (with_id(0, "a\0b"), SHARD, "row 0.id is 'a\\x00b', expected"),
    "an id twice in a shard": (with_id(3, "1", FIRST), FIRST, "row 3.id '1' is there twice, also in row 0"),
    "an id in two shards": (with_id(0, "1"), SHARD, "row 0.id '1' is there twice, also in"),
    "a row is null": (null(), SHARD, "row 0.features holds null"),
    "a vector is null": (null(7), SHARD, "row 0.features holds null"),
    "a number is null": (null(7, 2000), SHARD, "row 0.features holds null"),
    "NaN": (one(np.nan), SHARD, "row 0.features holds NaN or infinity"),
    "infinity": (one(-np.inf), SHARD, "row 0.features holds NaN or infinity"),
    "cut off": (bytes_of(lambda content: content[:-100]), SHARD, "cannot be read"),
    "cut off at the start": (bytes_of(lambda content: content[100:]), SHARD, "cannot be read"),
    "half of it": (bytes_of(lambda content: content[: len(content) // 2]), SHARD, "cannot be read"),
    "empty": (bytes_of(lambda content: b""), SHARD, "cannot be read"),
    "other bytes within": (
        bytes_of(lambda content: content[:9000] + bytes(9000) + content[18000:]), SHARD,
        "row 0.features cannot be read",
    ),
    "a pointer": (
        bytes_of(lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"), SHARD,
        "is a Git LFS pointer",
    ),
    "a web page": (bytes_of(lambda content: b"<!DOCTYPE html><html>Too many requests"), SHARD, "is a web page saved"),
    "a link to nothing": (linked_nowhere, SHARD, "is a link to a file that is missing"),
    "HDF5 files beside it": (beside, "features of VG are there twice", "VG/clip_features/data_clip_RN101_att: keep"),
    "a shard under another number": (moved(SHARD, SHARD.replace("00001", "00007")), "part-00007", "is none of the"),
    "a row too many": (
        rewritten(lambda t: pa.concat_tables([t, t.set_column(0, "id", pa.array(["99"]))])), SHARD, "has 2 rows,",
    ),
    "a shard that the manifest lacks": (
        in_manifest(lambda files: [file for file in files if file["shard"] != SHARD]), SHARD, "is none of the shards",
    ),
    "an image that the shard lacks": (
        in_manifest(lambda files: [*files, files[-1] | {"path": "VG/clip_features/x/77.h5", "shard": SHARD}]), SHARD,
        "lacks 1 images that",
    ),
    "another size": (entry(size=5), "annotations/GQA/valid.json", "expected 5 as manifest.json.gz says"),
    "a size that is text": (entry(size="5"), "manifest.json.gz", ": size: Input should be a valid integer, found '5'"),
    "a negative size": (entry(size=-5), "manifest.json.gz", ": size: Input should be greater than or equal to 0"),
    "a null path": (entry(path=None), "manifest.json.gz", ": path is null"),
    "an absolute path": (entry(path="/etc/passwd"), "manifest.json.gz", ": path leaves its folder, found '/etc/p"),
    "a path that climbs": (
        entry(shard="annotations/../../x"), "manifest.json.gz", ": shard leaves its folder, found 'annotations/..",
    ),
    "a manifest without files": (
        raw_manifest(gzip.compress(b'{"root": "vlt5_dataset/"}')), "manifest.json.gz", 'no list "files" in it',
    ),
    "a manifest that is no JSON": (raw_manifest(gzip.compress(b"{")), "manifest.json.gz", "cannot be read"),
    "a manifest that is no archive": (raw_manifest(b"{}"), "manifest.json.gz", "cannot be read: Not a gzipped file"),
    "a manifest cut off": (
        lambda root: raw_manifest((root / "manifest.json.gz").read_bytes()[:-20])(root), "manifest.json.gz",
        "cannot be read",
    ),
    "a manifest that is a bomb": (
        raw_manifest(gzip.compress(b'{"files": [' + b" " * 2_000_000)), "manifest.json.gz", "more than 1,000,000 bytes",
    ),
}  # fmt: skip


if int(pa.__version__.partition(".")[0]) < 26:  # earlier ones can neither write nor read them
    DAMAGE |= {"a row is null": (null(), SHARD, "row 0.features cannot be read")}
    del DAMAGE["a vector is null"]


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line_and_nothing_is_written(root, call, tmp_path, monkeypatch, name):
    """By `data pack`, with code 2; by `data check --all`, the same, with code 1."""
    monkeypatch.setattr(manifest, "MOST", 1_000_000)
    damage, *said = DAMAGE[name]
    damage(root)
    code, out, err = call("data", "pack", root, "--task", "gqa")
    (line,) = err.splitlines()
    assert code == 2 and not out
    for part in said:
        assert part in line
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and ".locks" not in path.parts]
    code, out, _ = call("data", "check", root, "--task", "gqa", "--all")
    assert code == 1 and any(line.startswith("✗") and all(part in line for part in said) for line in out.splitlines())


def test_a_checksum_of_an_annotation_file_is_compared(root, call):
    entry(crc=5)(root)
    assert call("data", "check", root, "--task", "gqa")[0] == 0
    code, out, _ = call("data", "check", root, "--task", "gqa", "--all")
    assert code == 1 and "annotations/GQA/valid.json has the CRC-32 0x" in out and "expected 0x00000005" in out


def test_shards_in_each_others_place_are_seen(root, call):
    for source, target in ((SHARD, "x"), (FIRST, SHARD), ("x", FIRST)):
        moved(source, target)(root)
    code, _, err = call("data", "pack", root, "--task", "gqa")
    lines = err.splitlines()
    assert code == 2 and len(lines) == 2
    assert f"{FIRST} lacks 5 images that" in lines[0] and f"{SHARD} lacks 1 images that" in lines[1]


def test_faults_are_reported_together(root, call):
    with_id(0, None)(root)
    with_id(0, "../x", FIRST)(root)
    code, _, err = call("data", "pack", root, "--task", "gqa")
    assert code == 2 and len(err.splitlines()) == 2
    assert "part-00000.parquet: row 0.id is '../x'" in err and "part-00001.parquet: row 0.id is null" in err


def test_memory_holds_few_rows_of_a_shard(root, monkeypatch):
    """However many a row group has: they come in batches."""
    sizes = []
    values = partial(pq.ParquetFile.iter_batches)

    def batches(self, batch_size, **options):
        for batch in values(self, batch_size, **options):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr("pet_bench.data.shards.BATCH", 2)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, size=9, **o: batches(self, size, **o))
    assert len(packed(root, root.parent / "cache", NLVR2()).index) == 12
    assert max(size for size in sizes[3:]) <= 5 and 2 in sizes
