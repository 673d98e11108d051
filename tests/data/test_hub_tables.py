"""Tables of the hub: shards put together, known by their columns, read row by row, and every fault in a line."""

from __future__ import annotations

import pyarrow as pa
import pytest
from typing_extensions import TypedDict

from pet_bench.data.albums import Album
from pet_bench.data.convert.downloads import Converter, Source
from pet_bench.data.convert.hub import Hub
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.work import Job, Work
from pet_bench.data.pictures import Contents
from pet_bench.errors import UserError
from tests.data.hub_layouts import IMAGE, S, in_cache, picture, shards

SCHEMA = pa.schema([("question_id", S), ("question", S), ("answers", pa.list_(S)), ("image", IMAGE)])
KINDS = {"question_id": "string", "question": "string", "answers": "list<string>", "image": "image"}
LAYOUT = Layout("some-val", KINDS, split="val*")


class Row(TypedDict):
    question_id: str
    question: str
    answers: list[str]


def rows(count=7):
    return [
        {"question_id": f"q{i}", "question": "what is it?", "answers": ["a cat"] * 2, "image": picture(i)}
        for i in range(count)
    ]


@pytest.fixture
def source(tmp_path):
    shards(tmp_path / "copy" / "data", "val2014", SCHEMA, rows(), 3)
    return tmp_path / "copy"


def found(folder, layouts=(LAYOUT,)):
    hub = Hub(Source(folder).tables, folder)
    hub.faults.check()
    return hub.find(layouts, layouts)


def job(folder, root=None):
    layouts = (LAYOUT,)
    return Job(Work(root or folder), Converter("some", (), lambda job: None, tables=layouts), {}, found(folder).tables)


def read(folder, key="question_id"):
    """What is read, and the lines of what is wrong."""
    one = job(folder)
    seen = list(one.table("some-val", Row, key=key))
    return seen, [line for lines in one.work.faults.values() for line in lines]


def test_rows_come_with_their_places(source):
    seen, faults = read(source)
    assert not faults
    assert [row["question_id"] for _, row in seen] == [f"q{i}" for i in range(7)]
    assert "image" not in seen[0][1]
    spot = seen[5][0]
    assert (spot.path.name, spot.number, spot.group, spot.within) == ("val2014-00001-of-00003.parquet", 2, 1, 0)
    assert str(spot).endswith("val2014-00001-of-00003.parquet: row 2")


def test_pictures_stream(source):
    table = found(source).tables["some-val"]
    assert [content for _, (content,) in table.pictures("image")] == [row["image"]["bytes"] for row in rows()]


def test_the_librarys_cache(source, tmp_path):
    home = in_cache(tmp_path / "hub", "somebody/Some", source)
    seen, faults = read(home)
    assert (len(seen), faults) == (7, [])


@pytest.mark.parametrize(
    ("path", "split", "config"),
    [
        ("data/validation-00000-of-00001.parquet", "validation", "data"),
        ("data/train-00000-of-00001-0123456789abcdef.parquet", "train", "data"),
        ("testdev_balanced_instructions/testdev-00000-of-00001.parquet", "testdev", "testdev_balanced_instructions"),
        ("vqav2/train/0000.parquet", "train", "vqav2"),
        ("data/train.parquet", "train", "data"),
    ],
)
def test_splits_and_configurations_are_in_the_files_names(path, split, config, tmp_path):
    shards(tmp_path / "made", "x", SCHEMA, rows(2))
    (tmp_path / "copy" / path).parent.mkdir(parents=True)
    (tmp_path / "made" / "x-00000-of-00001.parquet").rename(tmp_path / "copy" / path)
    table = found(tmp_path / "copy", [Layout("any", KINDS)]).tables["any"]
    assert (table.split, table.config) == (split, config)


def test_pictures_are_named_and_left_where_they_are(source, tmp_path):
    root = tmp_path / "root"
    one = job(source, root)
    with one.album("Some", "some-val") as add:
        for spot, row in one.table("some-val", Row):
            add(row["question_id"], spot)
    assert not (root / "Some" / "images-some-val").exists()
    one.work.check(force=False)
    one.work.publish()
    assert (root / "Some" / "images-some-val" / "val2014-00000-of-00003.parquet").is_symlink()
    album = Album(root / "Some")
    with Contents() as contents:
        for i in (4, 0, 6, 3):
            place = album.find(f"q{i}")
            assert contents._content(place) == rows()[i]["image"]["bytes"]
    assert not album.faults
    (source / "data" / "val2014-00002-of-00003.parquet").unlink()
    album = Album(root / "Some")
    with pytest.raises(UserError):
        album.find("q0")
    (fault,) = album.faults
    assert "(a link to " in fault and "val2014-00002-of-00003.parquet" in fault
