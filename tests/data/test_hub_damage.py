"""Damaged tables of the hub: one line that names file, row and column, and nothing is written."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import hub_layouts as hub
from tests.data.hub_layouts import edited
from tests.data.test_check import state
from tests.data.test_hub_convert import convert

VAL = "vqa/data/validation-00001-of-00002.parquet"
COOK = "youcook2/data/val-00000-of-00001.parquet"
CAULDRON = "cauldron/vqav2/train-00000-of-00002-0123456789abcdef.parquet"
PAIRS = "nlvr2/nlvr2/train-00001-of-00002-0123456789abcdef.parquet"
ASKED = "gqa/train_balanced_instructions/train-00001-of-00002.parquet"
SHOWN = "gqa/train_balanced_images/train-00000-of-00001.parquet"
SPLIT = "karpathy/data/restval-00000-of-00001.parquet"
CAPTIONS = "caption/data/val-00000-of-00001.parquet"


def rows(path, change):
    """Changes rows; None is a null."""
    return lambda folder: edited(folder / path, change)


def row(path, number, **values):
    return rows(path, lambda found: found[number].update(values))


def columns(path, change):
    """Changes the table as a whole."""

    def damage(folder):
        pq.write_table(change(pq.read_table(folder / path)), folder / path)

    return damage


def without(path, *names):
    return columns(path, lambda table: table.drop_columns(list(names)))


def cast(path, name, kind):
    def change(table):
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.nulls(len(table), kind))

    return columns(path, change)


def content(path, what):
    return lambda folder: (folder / path).write_bytes(what)


def cut(path, share=0.6):
    def damage(folder):
        whole = (folder / path).read_bytes()
        (folder / path).write_bytes(whole[: int(len(whole) * share)])

    return damage


def garbled(path):
    """Damaged in the middle, so that the footer is whole; of a copy that is not a link."""

    def damage(folder):
        table = pq.read_table(folder / path)
        pq.write_table(table, folder / path, compression="gzip", use_dictionary=False)
        whole = bytearray((folder / path).read_bytes())
        column = table.schema.names.index("question")
        start = pq.ParquetFile(folder / path).metadata.row_group(0).column(column).data_page_offset
        whole[start : start + 60] = b"\xff" * 60
        (folder / path).write_bytes(bytes(whole))

    return damage


def renamed(path, name):
    return lambda folder: (folder / path).rename((folder / path).with_name(name))


def copied(path, to):
    def damage(folder):
        (folder / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / path, folder / to)

    return damage


def removed(path):
    return lambda folder: (folder / path).unlink()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 480\n"

DAMAGE = {
    "column missing": (without(VAL, "image_id"), ["files of different copies", "image_id", VAL]),
    "column missing everywhere": (without(COOK, "sentence"),
                                  [COOK, "like yc2c-val", "column sentence (string) is missing"]),
    "column of another type": (cast(COOK, "id", pa.int64()), [COOK, "column id is int, expected string"]),
    "list of another type": (cast(CAPTIONS, "answer", pa.string()), ["column answer is string, expected list<string>"]),
    "image is bytes": (cast(CAPTIONS, "image", pa.binary()), [CAPTIONS, "column image is binary, expected image"]),
    "column too many": (columns(COOK, lambda t: t.append_column("more", pa.nulls(len(t), pa.string()))),
                        [COOK, "column more is none of this table"]),
    "types of shards differ": (cast(VAL, "question_id", pa.string()), [VAL, "column question_id", "different copies"]),
    "id is null": (row(VAL, 1, question_id=None), [VAL, "row 1: question_id is null"]),
    "image_id is null": (row(VAL, 0, image_id=None), [VAL, "row 0: image_id is null"]),
    "question is null": (row(VAL, 0, question=None), [VAL, "row 0: question is null"]),
    "question is empty": (row(VAL, 0, question=" "), [VAL, "row 0: question", "found ' '"]),
    "answers are null": (row(VAL, 1, answers=None), [VAL, "row 1: answers is null"]),
    "no answers": (row(VAL, 1, answers=[]), [VAL, "row 1: answers", "at least 1 item", "found []"]),
    "an answer is null": (row(VAL, 0, answers=[{"answer": None, "answer_confidence": "yes", "answer_id": 1}]),
                          [VAL, "row 0: answers.row 0.answer is null"]),
    "image is null": (row(VAL, 1, image=None), [VAL, "row 1: image is null"]),
    "id occurs twice": (row(VAL, 1, question_id=30), [VAL, "row 1: question_id 30 occurs twice"]),
    "shard missing": (removed("vqa/data/validation-00000-of-00002.parquet"),
                      ["split validation lacks 1 of 2 files, the first is 00000"]),
    "shards of two totals": (renamed(VAL, "validation-00001-of-00003.parquet"),
                             ["files of different copies", "validation-00001-of-00003.parquet"]),
    "shard there twice": (copied(CAULDRON, CAULDRON.replace("0123", "f123")), ["files of different copies", "f123"]),
    "shard beyond the last": (copied(VAL, "vqa/data/validation-00002-of-00002.parquet"),
                              ["numbered beyond the 2 files"]),
    "two copies of a split": (copied(COOK, "again/data/val-00000-of-00001.parquet"), ["yc2c-val", "leave one of them"]),
    "cut off": (cut(VAL), [VAL, "cannot be read (cut off?)"]),
    "empty file": (content(VAL, b""), [VAL, "cannot be read (cut off?)"]),
    "Git LFS pointer": (content(VAL, POINTER), [VAL, "is a Git LFS pointer"]),
    "web page": (content(ASKED, b"<!DOCTYPE html><html>"), [ASKED, "is a web page"]),
    "no parquet": (content(ASKED, b"PAR0" * 100), [ASKED, "cannot be read (cut off?)"]),
    "pages are garbled": (garbled(ASKED), [ASKED, "cannot be read"]),
    "no rows": (columns(COOK, lambda table: table.slice(0, 0)), [COOK, "holds nothing"]),
    "segment of three": (row(COOK, 2, segment=[1.0, 2.0, 3.0]), [COOK, "row 2: segment", "at most 2"]),
    "segment is one": (row(COOK, 2, segment=[1.0]), [COOK, "row 2: segment", "at least 2"]),
    "segment ends before it starts": (row(COOK, 2, segment=[9.0, 2.0]), [COOK, "row 2: segment: it starts at 9.0"]),
    "segment is not a number": (row(COOK, 2, segment=[float("nan"), 2.0]), [COOK, "row 2: segment"]),
    "sentence is null": (row(COOK, 4, sentence=None), [COOK, "row 4: sentence is null"]),
    "question without image": (row(ASKED, 2, imageId="99"), [ASKED, "row 2: imageId '99' is not in"]),
    "image without question": (rows(SHOWN, lambda found: found.append({"id": "98", "image": found[0]["image"]})),
                               [SHOWN, "row 3: id '98': no question of"]),
    "image twice": (row(SHOWN, 1, id="1"), [SHOWN, "row 1: id '1' occurs twice"]),
    "types are null": (row(ASKED, 0, types=None), [ASKED, "row 0: types is null"]),
    "a row has no image": (row(CAULDRON, 1, images=[]), [CAULDRON, "row 1: images are 0, expected 1"]),
    "a pair has one image": (rows(PAIRS, lambda found: found[0].update(images=found[0]["images"][:1])),
                             [PAIRS, "row 0: images are 1, expected 2"]),
    "a row says nothing": (row(CAULDRON, 1, texts=[]), [CAULDRON, "row 1: texts", "at least 1 item"]),
    "an answer says nothing": (row(CAULDRON, 1, texts=[{"user": "who?", "assistant": "", "source": "x"}]),
                               [CAULDRON, "row 1: texts.row 0.assistant"]),
    "no statement": (row(PAIRS, 1, texts=[{"user": "is it so?", "assistant": "Yes.", "source": "x"}]),
                     [PAIRS, "row 1: texts: no statement in quotation marks, found 'is it so?'"]),
    "neither yes nor no": (row(PAIRS, 1, texts=[{"user": 'is "a" so?', "assistant": "Maybe.", "source": "x"}]),
                           [PAIRS, "row 1: texts: assistant is 'Maybe.'"]),
    "column of a split missing": (without(SPLIT, "cocoid"), [SPLIT, "like coco-", "column cocoid (int) is missing"]),
    "image in two splits": (row(SPLIT, 0, cocoid=1), [SPLIT, "row 0: cocoid 1 occurs twice"]),
    "split that is none": (row(SPLIT, 0, split="dev"), [SPLIT, "row 0: split", "found 'dev'"]),
    "no captions": (row(SPLIT, 0, sentences=[]), [SPLIT, "row 0: sentences", "at least 1 item"]),
    "a split is missing": (removed(SPLIT), ["the table of split restval is not beside it"]),
    "file name without a number": (row(CAPTIONS, 1, file_name="cat.jpg"), [CAPTIONS, "row 1: file_name 'cat.jpg'"]),
}  # fmt: skip

WDS = "wds/train/00000.tar"
PICTURE, TEXT = ("000000001.jpg", hub.picture(1)["bytes"]), ("000000001.json", b'{"captions": ["a cat"], "cocoid": 1}')


def archive(*files):
    return lambda folder: hub.tarred(folder / WDS, [*files])


ARCHIVES = {
    "archive cut off": (cut(WDS, 0.3), [WDS, "cannot be read (cut off?)"]),
    "archive missing": (removed(WDS), ["split train lacks 1 of 2 files, the first is 00000"]),
    "sample without text": (archive(PICTURE, TEXT, ("000000002.jpg", PICTURE[1])),
                            [WDS, "row 1: sample 000000002 has ['jpg'], expected ['jpg', 'json']"]),
    "text is no JSON": (archive(PICTURE, (TEXT[0], b"{")), [WDS, "row 0: 000000001.json is not valid JSON"]),
    "no cocoid": (archive(PICTURE, (TEXT[0], b'{"captions": ["a"]}')), [WDS, "row 0: json.cocoid is missing"]),
    "captions are a text": (archive(PICTURE, (TEXT[0], b'{"captions": "a", "cocoid": 1}')),
                            [WDS, "row 0: json.captions", "found 'a'"]),
    "cocoid twice": (archive(PICTURE, (TEXT[0], TEXT[1].replace(b"1}", b"3}"))), ["json.cocoid 3 occurs twice"]),
    "a split of archives is missing": (removed("wds/val/00000.tar"), ["the archives of val are not beside it"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives") / "copy"
    hub.webdataset(folder / "wds")
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "copy"
    hub.vqa(folder / "vqa")
    hub.vqa_cauldron(folder / "cauldron")
    hub.gqa(folder / "gqa")
    hub.nlvr2_cauldron(folder / "nlvr2")
    hub.karpathy(folder / "karpathy")
    hub.coco_caption(folder / "caption")
    hub.youcook2(folder / "youcook2")
    return folder


@pytest.mark.parametrize("kind", [*DAMAGE, *ARCHIVES])
def test_damage(kind, sound, archives, tmp_path, capsys):
    damage, parts = (DAMAGE | ARCHIVES)[kind]
    folder = shutil.copytree(sound if kind in DAMAGE else archives, tmp_path / "copy")
    damage(folder)
    before = state(folder)
    assert convert(folder, tmp_path / "data") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("! ")]
    assert any(all(part in line for part in parts) for line in said), said
    assert said[0].startswith("pet-bench: error: ")
    assert not (tmp_path / "data").exists()
    assert state(folder) == before
