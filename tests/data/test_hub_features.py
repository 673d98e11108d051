"""Features of pictures that are in tables: those of the hub, and those that `data convert` names."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pet_bench.data.features import Encoder, extract, find
from pet_bench.data.task import FEATURES
from pet_bench.errors import UserError
from pet_bench.tasks.gqa import GQA
from tests.data import hub_layouts as hub
from tests.data.hub_layouts import edited, picture
from tests.data.test_features import ORIGIN, cells, images
from tests.data.test_hub_convert import convert


@pytest.fixture
def encoder():
    return Encoder(cells, ORIGIN)


def test_of_the_hubs_own_files(tmp_path, encoder):
    """As of the same pictures in files."""
    hub.gqa(tmp_path / "copy")
    report = extract(
        find(tmp_path / "copy" / "testdev_balanced_images", "images"), tmp_path / "GQA" / FEATURES, encoder, batch=2
    )
    assert (report.written, report.faults) == (3, [])
    (tmp_path / "files").mkdir()
    for i in range(3):
        Image.open(io.BytesIO(picture(30 + i)["bytes"])).save(tmp_path / "files" / f"n{7 + i}.png")
    extract(find(tmp_path / "files", "images"), tmp_path / "other" / "GQA" / FEATURES, encoder)
    for i in range(7, 10):
        one, other = (GQA().feature(root, f"GQA/n{i}") for root in (tmp_path, tmp_path / "other"))
        np.testing.assert_array_equal(one, other)


def test_of_what_convert_names(tmp_path, encoder):
    """Each picture once, though two tables have it and a row each for every question."""
    hub.vqa(tmp_path / "copy" / "VQAv2")
    hub.vqa_cauldron(tmp_path / "copy" / "the_cauldron")
    hub.coco_caption(tmp_path / "copy" / "COCO-Caption")
    root = tmp_path / "data"
    convert(tmp_path / "copy", root)
    listing = find(root / "COCO", "images")
    assert sorted(listing.items) == [
        *(f"COCO_val2014_{i:012d}" for i in (3, 4, 5)), *(f"vqav2-train-{i // 2:05d}-{i % 2}" for i in range(4))
    ]  # fmt: skip
    report = extract(listing, root / "COCO" / FEATURES, encoder, batch=2)
    assert (report.written, report.faults) == (7, [])


def test_pictures_that_cannot_be_read_are_named(tmp_path, encoder):
    hub.gqa(tmp_path / "copy")
    path = tmp_path / "copy" / "testdev_balanced_images" / "testdev-00000-of-00001.parquet"
    edited(path, lambda rows: (rows[0]["image"].update(bytes=b"none"), rows[2]["image"].update(bytes=None)))
    report = extract(find(path.parent, "images"), tmp_path / "out", encoder)
    assert report.written == 1
    assert [fault.replace(str(path), "FILE") for fault in report.faults] == [
        "FILE, row 0 of row group 0 has no features: it is no image",
        "FILE, row 0 of row group 1 has no features: picture FILE, row 0 of row group 1 has no bytes",
    ]


@pytest.mark.parametrize("kind", ["cut", "twice", "gone", "columns"])
def test_damaged_tables(kind, tmp_path):
    hub.gqa(tmp_path / "copy")
    folder = tmp_path / "copy" / "testdev_balanced_images"
    path = folder / "testdev-00000-of-00001.parquet"
    said = str(path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "twice":
        images(folder, 1)
        (folder / "00.png").rename(folder / "n8.png")
        said = "have one name"
    elif kind == "gone":
        convert(tmp_path / "copy", tmp_path / "data")
        path.unlink()
        folder, said = tmp_path / "data" / "GQA", f"(a link to {path})"
    else:
        pq.write_table(pq.read_table(path).rename_columns(["imageId", "image"]), path)
        said = "holds no images, but 1 other files"
    with pytest.raises(UserError) as error:
        find(folder, "images")
    assert said in error.value.faults[0] and len(error.value.faults) == 1
