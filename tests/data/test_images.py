"""Pictures become pixels, once: from files, zip archives and parquet tables, with every fault in a line."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import partial
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pet_bench.cli import main
from pet_bench.data import images, pictures
from pet_bench.data.albums import Album, Albums
from pet_bench.data.images import ImageStore
from pet_bench.data.reading import read_and_pack
from pet_bench.data.task import Example
from pet_bench.errors import UserError
from pet_bench.spec import Visual
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.nlvr_v1 import BOXES, NLVRv1
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.vqa import VQA
from tests.conftest import ROOT
from tests.data import roots

COUNT = 7
VISUAL = Visual(width=16, tokens=4, pooled=4, images=2)


def pixels(i):
    """A picture of a size of its own."""
    return np.random.default_rng(i).integers(0, 256, (5 + i, 9 - i, 3), np.uint8)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def name(i):
    return f"COCO_val2014_{i:012d}"


def examples(count=COUNT):
    return [Example(str(i), "", (f"COCO/{name(i)}",)) for i in range(count)]


def as_files(root):
    (root / "COCO" / "images").mkdir(parents=True)
    for i in range(COUNT):
        (root / "COCO" / "images" / f"{name(i)}.png").write_bytes(encoded(pixels(i)))


def as_folders(root):
    """As COCO is unpacked, some of it behind a link."""
    elsewhere = root / "elsewhere"
    for i in range(COUNT):
        folder = elsewhere if i % 2 else root / "COCO" / "images" / "val2014"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name(i)}.PNG").write_bytes(encoded(pixels(i)))
    (root / "COCO" / "images" / "more").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(root / "COCO" / "images")


def as_zip(root):
    (root / "COCO").mkdir(parents=True)
    with zipfile.ZipFile(root / "COCO" / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/val2014/._" + name(0) + ".png", b"no picture")
        archive.writestr("val2014/notes.txt", b"")
        for i in range(COUNT):
            archive.writestr(f"val2014/{name(i)}.png", encoded(pixels(i)))


def as_zips(root):
    (root / "COCO" / "images").mkdir(parents=True)
    for part in range(2):
        with zipfile.ZipFile(root / "COCO" / "images" / f"part{part}.zip", "w") as archive:
            for i in range(part, COUNT, 2):
                archive.writestr(f"../../{name(i)}.png", encoded(pixels(i)))


def table(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "id": pa.array([id for id, _ in rows], pa.string()),
        "image": pa.array([{"bytes": content, "path": None} for _, content in rows], kind),
        "caption": pa.array(["" for _ in rows]),
    }
    pq.write_table(pa.table(columns), path, **options)


def as_parquet(root):
    """Rows in no order, in row groups of two."""
    rows = [(name(i), encoded(pixels(i))) for i in reversed(range(COUNT))]
    table(root / "COCO" / "images-00000-of-00002.parquet", rows[:4], row_group_size=2)
    table(root / "COCO" / "images" / "part-00001.parquet", rows[4:], row_group_size=2)


SOURCES = [as_files, as_folders, as_zip, as_zips, as_parquet]


@pytest.fixture(params=SOURCES, ids=lambda make: make.__name__)
def root(request, tmp_path):
    root = tmp_path / "datasets"
    request.param(root)
    return root


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "datasets"
    as_files(root)
    return root


def packed(root, tmp_path, count=COUNT, task=None, **options):
    return ImageStore.pack(root, [(task or VQA(), examples(count))], cache=tmp_path / "cache", **options)


def folders(tmp_path):
    return sorted((tmp_path / "cache" / "images").iterdir())


def faults_of(root, tmp_path, count=COUNT):
    with pytest.raises(UserError) as error:
        packed(root, tmp_path, count)
    assert not (tmp_path / "cache" / "images").exists() or folders(tmp_path) == []
    return error.value.faults


# what comes back ------------------------------------------------------------------------------------------------------


def test_pixels_come_back_in_the_order_asked_for(root, tmp_path):
    store = packed(root, tmp_path)
    rows = store.rows(examples()[::-1])
    assert [np.array_equal(picture, pixels(6 - i)) for i, (picture,) in enumerate(store.gather(rows))] == [True] * COUNT
    assert isinstance(store.flat, np.memmap) and store.flat.dtype == np.uint8
    assert not (tmp_path / f"{name(0)}.png").exists() and not (tmp_path.parent / f"{name(0)}.png").exists()


def test_the_fingerprint_is_that_of_the_contents(tmp_path):
    fingerprints = set()
    for make in SOURCES:
        make(tmp_path / make.__name__)
        fingerprints.add(packed(tmp_path / make.__name__, tmp_path / make.__name__).fingerprint)
    assert len(fingerprints) == 1
    (tmp_path / "as_files" / "COCO" / "images" / f"{name(0)}.png").write_bytes(encoded(pixels(0) ^ 1))
    assert packed(tmp_path / "as_files", tmp_path / "as_files").fingerprint not in fingerprints


def test_a_shape_is_part_of_the_contents(files, tmp_path):
    flat = np.zeros((2, 3, 3), np.uint8)
    seen = set()
    for picture in (flat, flat.reshape(3, 2, 3)):
        (files / "COCO" / "images" / f"{name(0)}.png").write_bytes(encoded(picture))
        seen.add(packed(files, tmp_path, 1).fingerprint)
    assert len(seen) == 2


def test_controls_keep_the_sizes(files, tmp_path):
    store = packed(files, tmp_path)
    rows = store.rows(examples())
    blank, noise = (store.gather(rows, control=control) for control in ("text-only", "noise"))
    assert [p.shape for (p,) in blank] == [p.shape for (p,) in noise] == [pixels(i).shape for i in range(COUNT)]
    assert not any(p.any() for (p,) in blank) and all(p.any() for (p,) in noise)
    again = store.gather(rows[::-1], control="noise")
    assert all(np.array_equal(a, b) for (a,), (b,) in zip(noise, again[::-1], strict=True))
    assert store.named(rows)["pictures"].tolist() == rows.tolist()
    assert store.named(rows, control="noise") == store.named(rows, control="text-only") == {}


def test_a_store_that_holds_more_serves_too(root, tmp_path, monkeypatch):
    alone = packed(root, tmp_path / "alone", 3)
    noise = alone.gather(alone.rows(examples(3)), control="noise")
    whole = packed(root, tmp_path)
    monkeypatch.setattr(images, "read_picture", lambda *_: pytest.fail("a picture was opened"))
    part = packed(root, tmp_path, 3)
    assert part.folder == whole.folder and part.fingerprint == alone.fingerprint != whole.fingerprint
    again = part.gather(part.rows(examples(3)), control="noise")
    assert all(np.array_equal(a, b) for (a,), (b,) in zip(noise, again, strict=True))
    assert len(folders(tmp_path)) == 1
    assert part.bytes_wanted == sum(pixels(i).nbytes for i in range(3))


def test_another_process_opens_the_same_folder(files, tmp_path):
    store = packed(files, tmp_path, 3)
    again = pickle.loads(pickle.dumps(store))
    assert again.index == store.index and again.fingerprint == store.fingerprint
    shutil.rmtree(store.folder)
    assert pickle.loads(pickle.dumps(store)) is None


def test_boxes_of_nlvr_are_pictures_of_their_own(tmp_path):
    root, task = roots.nlvr_v1(tmp_path / "datasets"), NLVRv1()
    some = task.examples(root, "test")
    store = ImageStore.pack(root, [(task, some)], cache=tmp_path)
    with Image.open(task.feature_path(root, some[0].images[0])) as whole:
        boxes = [np.asarray(whole.convert("RGB").crop(box)) for box in BOXES]
    assert all(np.array_equal(a, b) for a, b in zip(store.gather(store.rows(some))[0], boxes, strict=True))


def test_a_picture_is_seen_as_people_see_it(tmp_path):
    folder = tmp_path / "COCO" / "images"
    folder.mkdir(parents=True)
    base = Image.fromarray(np.full((4, 8, 3), 200, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    grey16 = Image.fromarray(np.full((4, 8), 200 << 8, np.uint16))
    kinds = [
        encoded(base, "JPEG", exif=exif),
        encoded(base.convert("L")),
        encoded(base.convert("CMYK"), "JPEG"),
        encoded(base.convert("RGBA")),
        encoded(base.convert("P"), transparency=0),
        encoded(grey16),
        encoded(base.convert("1"), "PNG"),
    ]
    for i, content in enumerate(kinds):
        (folder / f"{name(i)}.png").write_bytes(content)
    store = packed(tmp_path, tmp_path, len(kinds))
    seen = [picture for (picture,) in store.gather(store.rows(examples(len(kinds))))]
    assert [picture.shape for picture in seen] == [(8, 4, 3)] + [(4, 8, 3)] * 6
    assert all(abs(int(picture.mean()) - 200) < 8 for picture in seen[:6])


# packing as a long job ------------------------------------------------------------------------------------------------


def stop_after(count):
    def progress(done, total):
        if done == count:
            raise KeyboardInterrupt

    return progress


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("count", [1, 4, COUNT])
def test_an_interrupted_packing_goes_on(root, tmp_path, count):
    whole = contents(packed(root, tmp_path / "whole").folder)
    with pytest.raises(KeyboardInterrupt):
        packed(root, tmp_path, progress=stop_after(count))
    calls = []
    store = packed(root, tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(i, COUNT) for i in range(count + 1, COUNT + 1)]
    assert contents(store.folder) == whole and folders(tmp_path) == [store.folder]


KILLED = """
import os, signal, sys
from pathlib import Path
from pet_bench.data import pieces
pieces.BLOCK = 2
from tests.data.test_images import ImageStore, VQA, examples

def progress(done, total):
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)

ImageStore.pack(Path(sys.argv[1]), [(VQA(), examples())], cache=Path(sys.argv[2]), progress=progress)
"""


def test_a_killed_packing_goes_on(files, tmp_path):
    whole = contents(packed(files, tmp_path / "whole").folder)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, files, tmp_path / "cache"], cwd=ROOT, env=os.environ, check=False
    )
    assert killed.returncode == -9
    calls = []
    store = packed(files, tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(COUNT, COUNT)]
    assert contents(store.folder) == whole


@pytest.mark.parametrize("pixels_kept", [0, 100, 400])
@pytest.mark.parametrize("lines_kept", [0, 60, 250])
def test_wherever_it_was_cut_off(files, tmp_path, pixels_kept, lines_kept):
    whole = packed(files, tmp_path / "whole").folder
    draft = tmp_path / "cache" / "images" / f".packing-{whole.name}"
    draft.mkdir(parents=True)
    (draft / "pixels.bin").write_bytes((whole / "pixels.bin").read_bytes()[:pixels_kept])
    (draft / "index.jsonl").write_bytes((whole / "index.jsonl").read_bytes()[:lines_kept])
    assert contents(packed(files, tmp_path).folder) == contents(whole)


def test_two_that_pack_at_once_end_with_one_pack(files, tmp_path):
    inner = []

    def overtaken(done, total):
        if done == total and not inner:
            inner.append(packed(files, tmp_path))

    outer = packed(files, tmp_path, progress=overtaken)
    assert outer.fingerprint == inner[0].fingerprint and folders(tmp_path) == [outer.folder]


def test_a_full_disk_is_said(files, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"images: packing needs .* GB are free"):
        packed(files, tmp_path)


def test_a_cache_that_cannot_be_written(files, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="images: cannot write to the cache"):
        packed(files, tmp_path)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("pixels.bin", flip, "has another SHA-256"),
        ("pixels.bin", lambda path: path.unlink(), "cannot be read"),
        ("index.jsonl", lambda path: path.write_text(""), "has another SHA-256"),
        ("manifest.json", lambda path: path.write_text("{"), "cannot be read"),
        (
            "manifest.json",
            lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"images": 1})),
            "disagree",
        ),
    ],
)
def test_damage_to_a_store_is_seen(files, tmp_path, file, damage, said):
    folder = packed(files, tmp_path).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {name: sha256((folder / name).read_bytes()).hexdigest() for name in manifest["sha256"]} == manifest["sha256"]
    assert list(ImageStore.verify(folder)) == []
    damage(folder / file)
    (line,) = ImageStore.verify(folder)
    assert said in line and str(folder) in line


@pytest.mark.parametrize("file", ["pixels.bin", "index.jsonl", "manifest.json"])
def test_a_damaged_store_is_packed_again(files, tmp_path, file):
    folder = packed(files, tmp_path).folder
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    store = packed(files, tmp_path)
    assert folders(tmp_path) == [folder] and list(ImageStore.verify(folder)) == []
    assert np.array_equal(store.picture(3), pixels(3))


# faults ---------------------------------------------------------------------------------------------------------------


def bomb(side):
    """A PNG whose header says that it is a square of that side."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(1000))}
    parts = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


DAMAGE = {
    "missing": (None, "is missing (possible: .jpg, .jpeg, "),
    "empty": (b"", "is no picture (possible: JPEG, PNG"),
    "text": (b"no picture", "is no picture (possible: JPEG, PNG"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
    "page": (b"<!DOCTYPE html><html>", "is a web page saved under that name"),
    "truncated": (encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))[:2000], "cannot be read: "),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),
    "bomb": (bomb(9000), "has 9000 × 9000 pixels, at most 67,108,864 are read"),
    "great bomb": (bomb(100_000), "has more than 67,108,864 pixels"),
}


@pytest.mark.parametrize(("content", "said"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_what_is_no_picture_is_named(tmp_path, monkeypatch, make, content, said):
    root, whole = tmp_path / "datasets", encoded
    broken = {pixels(i).tobytes() for i in (2, 5)}
    with monkeypatch.context() as patch:
        patch.setattr(
            sys.modules[__name__],
            "encoded",
            lambda p, *a, **o: content or b"" if p.tobytes() in broken else whole(p, *a, **o),
        )
        make(root)
    if content is None:
        remove(root, {name(2), name(5)})
    lines = faults_of(root, tmp_path)
    assert len(lines) == 2 and all(line.startswith("vqa: picture ") and said in line for line in lines), lines
    if content is None or make in (as_files, as_folders, as_zip, as_zips):
        assert sorted(part for line in lines for part in (name(2), name(5)) if part in line) == [name(2), name(5)]
    else:
        assert all(", row " in line and " of row group " in line for line in lines)


def remove(root, names):
    """Rewrite a source without these pictures."""
    for path in [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]:
        if path.stem in names:
            path.unlink()
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                kept = {one: archive.read(one) for one in archive.namelist() if not any(n in one for n in names)}
            with zipfile.ZipFile(path, "w") as archive:
                for one, content in kept.items():
                    archive.writestr(one, content)
        elif path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
            table(path, [(row["id"], row["image"]["bytes"]) for row in rows if row["id"] not in names])


def test_all_kinds_of_faults_come_together_before_anything_is_packed(files, tmp_path, monkeypatch):
    (files / "COCO" / "images" / f"{name(1)}.png").unlink()
    (files / "COCO" / "images" / f"{name(4)}.png").write_bytes(b"no picture")
    monkeypatch.setattr(images, "read_picture", lambda *_: pytest.fail("a picture was decoded"))
    lines = faults_of(files, tmp_path)
    assert len(lines) == 2 and "is missing" in lines[0] and "is no picture" in lines[1]


def test_many_faults_are_cut_at_twenty_with_a_count(files, tmp_path):
    lines = faults_of(files, tmp_path, 30)
    assert len(lines) == 21 and lines[-1] == "images: and 3 faults more"


def test_a_picture_that_is_there_twice(files, tmp_path):
    home = files / "COCO" / "images"
    for folder in ("a", "b"):
        (home / folder).mkdir()
        shutil.copy(home / f"{name(0)}.png", home / folder)
    (home / f"{name(0)}.png").unlink()
    (line,) = faults_of(files, tmp_path)
    assert f"images/{name(0)} is there twice: " in line and "/a/" in line and "/b/" in line
    album = Album(files / "COCO")
    assert album.find(f"b/{name(0)}").file.parent.name == "b"


def test_an_unpacked_archive_may_stay_beside_its_pictures(files, tmp_path):
    with zipfile.ZipFile(files / "COCO" / "images.zip", "w") as archive:
        archive.writestr(f"images/val2014/{name(0)}.png", b"another")
    assert np.array_equal(packed(files, tmp_path).picture(0), pixels(0))
    assert Albums().find(files / "COCO", f"val2014/{name(0)}").file.suffix == ".zip"


ARCHIVES = {
    "no archive": ("images.zip", b"PK no", "cannot be read"),
    "pointer": ("images.zip", b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
    "page": ("images.parquet", b"<!DOCTYPE html><html>", "is a web page"),
    "no table": ("images.parquet", b"PAR1 no", "cannot be read"),
}


@pytest.mark.parametrize(("file", "content", "said"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_damaged_archive_is_one_line(tmp_path, file, content, said):
    (tmp_path / "COCO").mkdir()
    (tmp_path / "COCO" / file).write_bytes(content)
    lines = faults_of(tmp_path, tmp_path, 1)
    assert len(lines) == 2 and lines[0].startswith(f"pictures {tmp_path / 'COCO' / file} ") and said in lines[0]


def test_a_table_with_other_columns_says_which(tmp_path):
    (tmp_path / "COCO").mkdir()
    pq.write_table(pa.table({"image_id": [1], "image": [b"x"]}), tmp_path / "COCO" / "images.parquet")
    line, _ = faults_of(tmp_path, tmp_path, 1)
    assert "has the columns image_id: int64, image: binary, expected id: string and image: struct<bytes: binary" in line


def test_what_an_archive_unpacks_to_is_bounded(tmp_path, monkeypatch):
    as_zip(tmp_path / "zip")
    as_parquet(tmp_path / "parquet")
    monkeypatch.setattr(pictures, "BYTES", 100)
    (first, *_) = faults_of(tmp_path / "zip", tmp_path / "zip")
    assert "bytes unpacked, at most 100 are read" in first
    (first, *_) = faults_of(tmp_path / "parquet", tmp_path / "parquet")
    assert "has more than 100 bytes" in first


def test_uneven_examples_are_refused(files, tmp_path):
    wanted = [(NLVR2(), [examples()[0], Example("2", "", tuple(e.images[0] for e in examples()[:2]))])]
    with pytest.raises(UserError, match=r"nlvr2: examples have \[1, 2\] images"):
        ImageStore.pack(files, wanted, cache=tmp_path)


# reading --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def annotated(tmp_path):
    """Annotations of VQA with pictures for all of them."""
    root = roots.vqa(tmp_path / "datasets")
    (root / "COCO" / "images").mkdir()
    for split in ("train", "valid", "test"):
        for key in {key for example in VQA().examples(root, split) for key in example.images}:
            (root / "COCO" / "images" / f"{key.split('/')[1]}.jpg").write_bytes(encoded(pixels(1), "JPEG"))
    return root


read = partial(read_and_pack, tasks=[VQA()], visual=VISUAL, fed="pixels")


def test_looking_only_packs_nothing(annotated, tmp_path):
    assert read(annotated, pack=False, cache=tmp_path / "cache").store is None
    assert not (tmp_path / "cache").exists()
    (first, *_) = (annotated / "COCO" / "images").iterdir()
    first.write_bytes(b"no picture")
    with pytest.raises(UserError, match="is no picture"):
        read(annotated, pack=False, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_examples_without_a_picture_can_be_left_out(annotated, tmp_path):
    whole = read(annotated, cache=tmp_path)
    first = whole.examples["vqa"]["test"][0]
    (annotated / "COCO" / "images" / f"{first.images[0].split('/')[1]}.jpg").unlink()
    with pytest.raises(UserError, match="is missing"):
        read(annotated, cache=tmp_path)
    part = read(annotated, cache=tmp_path, missing="drop")
    gone = [example.id for example in whole.examples["vqa"]["test"] if example.images == first.images]
    assert part.left_out.dropped == {"vqa": {"test": gone}}
    assert first.images[0] not in part.store.index
    shutil.rmtree(annotated / "COCO" / "images")
    with pytest.raises(UserError, match="each of its examples lacks a picture"):
        read(annotated, cache=tmp_path, missing="drop")


def test_clips_have_no_pictures(tmp_path):
    root = roots.video(tmp_path / "datasets")
    with pytest.raises(UserError) as error:
        read_and_pack(root, [TVQA(), VQA()], VISUAL, fed="pixels", cache=tmp_path)
    (line,) = error.value.faults
    assert line.startswith("tvqa: there are features of clips and no pictures, and the backbone is fed with pixels")


def code(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_the_commands_know_pictures(annotated, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    about = [annotated, "--task", "vqa", "--fed", "pixels"]
    assert code("data", "check", *about, "--packed") == 0
    out = capsys.readouterr().out
    assert "pixels of all 12 pictures read; not packed yet" in " ".join(out.split())
    assert code("data", "pack", *about) == 0
    (folder,) = folders(tmp_path)
    assert f"12 images, 0.00 GB in {folder}" in capsys.readouterr().out
    assert code("data", "check", *about, "--packed") == 0
    assert f"packed in {folder}" in " ".join(capsys.readouterr().out.split())
    flip(folder / "pixels.bin")
    assert code("data", "check", *about, "--packed") == 1
    assert "pixels.bin has another SHA-256" in capsys.readouterr().out
    (first, *_) = sorted((annotated / "COCO" / "images").iterdir())
    first.unlink()
    assert code("data", "check", *about) == 1
    assert "is missing" in " ".join(capsys.readouterr().out.split())
