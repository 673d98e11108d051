"""`data check` on damaged folders: it names file, key and task, training refuses with one line, nothing is altered."""

from __future__ import annotations

import json
import os
import shutil
from hashlib import sha256

import h5py
import numpy as np
import pytest

from pet_bench.cli import main
from pet_bench.data.check import SAMPLE, check, suites_in
from pet_bench.data.suite import suite_by_name
from pet_bench.errors import UserError
from pet_bench.registry import TASKS
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.tasks.vqa import VQA
from pet_bench.trial.check import check_data
from pet_bench.trial.resolve import resolve
from tests.data import roots
from tests.data.test_pack import SMALL, write

MAKERS = {"vqa": roots.vqa, "gqa": roots.gqa, "nlvr2": roots.nlvr2, "coco-caption": roots.coco_caption}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A root with all four tasks, none damaged."""
    root = tmp_path_factory.mktemp("sound") / "datasets"
    for make in MAKERS.values():
        make(root)
    return root


@pytest.fixture
def root(sound, tmp_path, monkeypatch):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(sound, tmp_path / "datasets")


def state(root):
    """Everything below a folder: names, kinds, times and contents."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, path.lstat().st_mode, path.is_file() and hashed(path))
        for path in sorted(root.rglob("*"))
    }


def hashed(path):
    return sha256(path.read_bytes()).hexdigest() if os.access(path, os.R_OK) else None


def run_check(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", *map(str, arguments)])
    return stopped.value.code


def edit(path, change):
    content = json.loads(path.read_text())
    content = change(content) or content
    path.write_text(json.dumps(content))


def in_json(name, change):
    return lambda root: edit(root / name, change)


def with_text(name, change):
    return lambda root: (root / name).write_text(change((root / name).read_text()))


def with_bytes(name, change):
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def removed(name):
    return lambda root: (root / name).unlink()


def folder(name):
    def damage(root):
        (root / name).unlink()
        (root / name).mkdir()

    return damage


def unreadable(name):
    def damage(root):
        if os.geteuid() == 0:
            pytest.skip(f"unchecked: {name} without permission is one line (root may read everything)")
        (root / name).chmod(0)

    return damage


def feature(name, content, key=None):
    """Write other content at a feature's place; None as the key: where it belongs."""

    def damage(root):
        with h5py.File(root / name, "w") as file:
            if content is not None:
                file[key or f"{(root / name).stem}/features"] = content

    return damage


def with_value(value):
    content = np.zeros((49, 2048), np.float32)
    content[48, 2047] = value
    return content


def h5(place, image):
    return f"{place}/{roots.FEATURES}/{image}.h5"


QUESTIONS, OFFICIAL, GRID = (
    "vqa/karpathy_test.json",
    "vqa/v2_mscoco_val2014_annotations.json",
    "COCO_val2014_0000000000",
)
VQA_IMAGE, GQA_IMAGE, NLVR_IMAGE = h5("COCO", f"{GRID}31"), h5("VG", "5"), h5("nlvr", "dev-7-1-img1")
TEST_IMAGE, COCO_IMAGE = h5("GQA", "n8"), h5("COCO", f"{GRID}54")
TRAINED, PAIRS, CAPTIONS = "vqa/karpathy_train.json", "nlvr/test.json", "COCO/dataset_coco.json"

# task, damage, parts of the line about it
DAMAGE = {
    # annotation files
    "questions missing": ("vqa", removed(QUESTIONS), [QUESTIONS, "is missing"]),
    "training questions missing": ("gqa", removed("GQA/train.json"), ["GQA/train.json", "is missing"]),
    "pairs missing": ("nlvr2", removed("nlvr/valid.json"), ["nlvr/valid.json", "is missing"]),
    "captions missing": ("coco-caption", removed(CAPTIONS), [CAPTIONS, "is missing"]),
    "questions cut off": ("vqa", with_text(QUESTIONS, lambda t: t[:-9]), [QUESTIONS, "is not valid JSON"]),
    "captions cut off": ("coco-caption", with_text(CAPTIONS, lambda t: t[:99]), [CAPTIONS, "is not valid JSON"]),
    "empty file": ("gqa", with_text("GQA/testdev.json", lambda t: ""), ["GQA/testdev.json", "is not valid JSON"]),
    "no text": ("nlvr2", with_bytes(PAIRS, lambda b: b"\xff\xfe" + b), [PAIRS, "is not valid JSON"]),
    "a folder for a file": ("gqa", folder("GQA/valid.json"), ["GQA/valid.json", "cannot be read", "directory"]),
    "may not be read": ("nlvr2", unreadable(PAIRS), [PAIRS, "cannot be read"]),
    "a list for an object": ("coco-caption", with_text(CAPTIONS, lambda t: "[]"), [CAPTIONS, "content", "found []"]),
    "an object for a list": ("vqa", with_text(QUESTIONS, lambda t: "{}"), [QUESTIONS, "content", "found {}"]),
    "empty split": ("nlvr2", with_text(PAIRS, lambda t: "[]"), [PAIRS, "holds no examples"]),
    "split not in the file": (
        "coco-caption",
        with_text(CAPTIONS, lambda t: t.replace('"restval"', '"other"')),
        [CAPTIONS, 'unknown coco-caption split', '"restval"'],
    ),
    # rows
    "id missing": ("vqa", in_json(QUESTIONS, lambda r: r[1].pop("question_id") and None),
                   [QUESTIONS, "row 1.question_id is missing"]),
    "id twice": ("gqa", in_json("GQA/train.json", lambda r: r[2].update(question_id=r[0]["question_id"])),
                 ["GQA/train.json", "an id occurs more than once", "'00000001'"]),
    "id twice in two files": ("gqa", in_json("GQA/valid.json", lambda r: r[2].update(question_id="00000001")),
                              ["GQA/train.json", "GQA/valid.json", "an id occurs more than once", "'00000001'"]),
    "image twice": ("coco-caption", in_json(CAPTIONS, lambda c: {"images": c["images"] + c["images"][4:5]}),
                    [CAPTIONS, f"{GRID}54.jpg occurs more than once"]),
    "image in two splits": (
        "coco-caption",
        in_json(CAPTIONS, lambda c: {"images": [*c["images"], c["images"][4] | {"split": "train"}]}),
        [CAPTIONS, f"{GRID}54.jpg occurs more than once"],
    ),
    "text missing": ("nlvr2", in_json(PAIRS, lambda r: r[1].pop("sent") and None), [PAIRS, "row 1.sent is missing"]),
    "text is a number": ("gqa", in_json("GQA/train.json", lambda r: r[0].update(sent=3)),
                         ["GQA/train.json", "row 0.sent", "valid string, found 3"]),
    "image is null": ("vqa", in_json(QUESTIONS, lambda r: r[3].update(img_id=None)),
                      [QUESTIONS, "row 3.img_id is null"]),
    "label is a list": ("vqa", in_json(QUESTIONS, lambda r: r[0].update(label=["yes"])),
                        [QUESTIONS, "row 0.label", "found ['yes']"]),
    "label's score is a word": ("gqa", in_json("GQA/train.json", lambda r: r[0].update(label={"yes": "sure"})),
                                ["GQA/train.json", "row 0.label.yes", "valid number"]),
    "label's score is NaN": ("vqa", in_json(QUESTIONS, lambda r: r[0].update(label={"yes": float("nan")})),
                             [QUESTIONS, "row 0.label.yes", "found nan"]),
    "label's score is negative": ("gqa", in_json("GQA/train.json", lambda r: r[0].update(label={"yes": -1.0})),
                                  ["GQA/train.json", "row 0.label.yes", "greater than or equal to 0"]),
    "label outside the choices": ("nlvr2", in_json(PAIRS, lambda r: r[1].update(label=2)),
                                  [PAIRS, "row 1.label", "0 or 1, found 2"]),
    "identifier of another form": ("nlvr2", in_json(PAIRS, lambda r: r[0].update(identifier="7")),
                                   [PAIRS, "row 0", "four fields, found '7'"]),
    "empty caption": ("coco-caption", in_json(CAPTIONS, lambda c: c["images"][4]["sentences"][1].update(raw=" \n")),
                      [CAPTIONS, f"{GRID}54.jpg has an empty caption (sentences.row 1.raw)"]),
    "no captions": ("coco-caption", in_json(CAPTIONS, lambda c: c["images"][0].update(sentences=[])),
                    [CAPTIONS, "has no captions"]),
    "answers missing": ("vqa", in_json(OFFICIAL, lambda c: c["annotations"].pop() and None),
                        [QUESTIONS, "1 questions have no annotators' answers, the first is '33'"]),
    "answer is a number": ("vqa", in_json(OFFICIAL, lambda c: c["annotations"][7]["answers"][4].update(answer=2)),
                           [OFFICIAL, "annotations.row 7.answers.row 4.answer", "found 2"]),
    # splits
    "tested on what is trained on": ("vqa", lambda root: shutil.copy(root / QUESTIONS, root / TRAINED),
                                     [QUESTIONS, TRAINED, "4 examples are in both, the first is '30'"]),
    "a pair in both splits": (
        "nlvr2",
        lambda root: edit(root / "nlvr/train.json", lambda rows: rows + json.loads((root / PAIRS).read_text())[1:]),
        [PAIRS, "nlvr/train.json", "1 examples are in both, the first is 'test1-7-1-0'"],
    ),
    # features
    "feature missing": ("vqa", removed(VQA_IMAGE), [VQA_IMAGE, "is missing"]),
    "image without feature": ("nlvr2", in_json(PAIRS, lambda r: r[0].update(img1="test1-9-9-img1")),
                              [h5("nlvr", "test1-9-9-img1"), "'nlvr/test1-9-9-img1' is missing"]),
    "feature of another folder": ("gqa", lambda root: (root / TEST_IMAGE).rename(root / h5("VG", "n8")),
                                  [TEST_IMAGE, "is missing"]),
    "feature cut off": ("gqa", with_bytes(GQA_IMAGE, lambda b: b[:-5000]), [GQA_IMAGE, "cannot be read"]),
    "empty feature file": ("nlvr2", with_bytes(NLVR_IMAGE, lambda b: b""), [NLVR_IMAGE, "cannot be read"]),
    "no HDF5": ("vqa", with_bytes(VQA_IMAGE, lambda b: b"\x93NUMPY" + b), [VQA_IMAGE, "cannot be read"]),
    "HDF5 without content": ("gqa", feature(TEST_IMAGE, None), [TEST_IMAGE, "has no key for 'GQA/n8'"]),
    "another key": ("gqa", feature(GQA_IMAGE, np.zeros((49, 2048)), "5/fc"), [GQA_IMAGE, "has no key for 'VG/5'"]),
    "another image's key": ("gqa", feature(GQA_IMAGE, np.zeros((49, 2048)), "6/features"), [GQA_IMAGE, "has no key"]),
    "a group for the feature": ("gqa", feature(GQA_IMAGE, np.zeros(3), "5/features/x"), [GQA_IMAGE, "cannot be read"]),
    "a folder for a feature": ("vqa", folder(VQA_IMAGE), [VQA_IMAGE, "cannot be read"]),
    "a feature that may not be read": ("vqa", unreadable(VQA_IMAGE), [VQA_IMAGE, "cannot be read"]),
    "a link to nowhere": ("coco-caption", lambda root: ((root / COCO_IMAGE).unlink(),
                                                        (root / COCO_IMAGE).symlink_to("gone")),
                          [COCO_IMAGE, "is missing"]),
    "width": ("nlvr2", feature(NLVR_IMAGE, np.zeros((49, 1024), np.float16)), [NLVR_IMAGE, "(49, 1024)", "(49, 2048)"]),
    "tokens": ("vqa", feature(VQA_IMAGE, np.zeros((36, 2048), np.float16)), [VQA_IMAGE, "(36, 2048)", "(49, 2048)"]),
    "an unflattened grid": ("vqa", feature(VQA_IMAGE, np.zeros((7, 7, 2048))), [VQA_IMAGE, "has shape (7, 7, 2048)"]),
    "no tokens": ("gqa", feature(TEST_IMAGE, np.zeros((0, 2048))), [TEST_IMAGE, "has shape (0, 2048)"]),
    "integers": ("vqa", feature(VQA_IMAGE, np.zeros((49, 2048), np.uint8)), [VQA_IMAGE, "is of type uint8"]),
    "complex numbers": ("vqa", feature(VQA_IMAGE, np.zeros((49, 2048), complex)), [VQA_IMAGE, "is of type complex128"]),
    "NaN": ("gqa", feature(GQA_IMAGE, with_value(np.nan)), [GQA_IMAGE, "'VG/5'", "holds NaN"]),
    "infinity": ("coco-caption", feature(COCO_IMAGE, with_value(-np.inf)), [COCO_IMAGE, "holds NaN, infinity"]),
    "beyond half precision": ("nlvr2", feature(NLVR_IMAGE, with_value(7e4)), [NLVR_IMAGE, "beyond half precision"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(name, root, tmp_path, capsys):
    task, damage, said = DAMAGE[name]
    damage(root)
    before = state(root)

    assert run_check(root, "--task", task) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    assert line.startswith("✗ ") and all(part in line for part in (task, *said)), line

    with pytest.raises(UserError) as error:
        check_data([resolve("mini-bart", MethodSpec("lora"), task, 0)], Runtime(out=tmp_path / "out", data=root))
    (refused,) = error.value.faults
    assert all(part in refused for part in (task, *said)), refused

    assert state(root) == before
    packed = tmp_path / "cache" / "features"
    assert not packed.exists() or list(packed.iterdir()) == []


def test_at_least_forty_kinds():
    assert len(DAMAGE) >= 40


# a sound folder ------------------------------------------------------------------------------------------------------


def rows(text):
    """Cells of the table, a list a line."""
    return [line.split() for line in text.splitlines() if line.startswith(tuple(MAKERS))]


def test_a_sound_folder(root, capsys, tmp_path):
    before = state(root)
    assert run_check(root, "--suite", "image-text") == 0
    text = capsys.readouterr().out
    assert "image-text: a run would go through" in text and "values of all 40 features read" in text
    assert len(text.splitlines()) < 24
    cells = [[task, split, *rest[-4:]] for task, split, *rest in rows(text)]
    assert cells[:2] == [["vqa", "train", "4", "4", "4", "0"], ["vqa", "valid", "4", "4", "4", "0"]]
    assert ["nlvr2", "test", "2", "4", "4", "0"] in cells and ["coco-caption", "train", "6", "3", "3", "0"] in cells
    assert state(root) == before and not (tmp_path / "cache").exists()
    check_data([resolve("mini-bart", MethodSpec("lora"), "image-text", 0)], Runtime(out=tmp_path, data=root))
    assert state(root) == before


def test_the_suites_that_are_there(root, tmp_path, capsys):
    assert [suite.name for suite in suites_in(root)] == ["image-text"]
    roots.nlvr_v1(root)
    assert [suite.name for suite in suites_in(root)] == ["image-text", "nlvr-v1"]
    assert run_check(root) == 0
    text = capsys.readouterr().out
    assert "image-text: a run would go through" in text and "nlvr-v1: a run would go through" in text


def test_protocol_options_are_heeded(tmp_path, capsys):
    root = roots.nlvr_v1(tmp_path, splits=("dev", "test"))
    assert run_check(root, "--suite", "nlvr-v1") == 1
    assert "--set nlvr-v1.train=dev" in capsys.readouterr().out
    assert run_check(root, "--suite", "nlvr-v1", "--set", "nlvr-v1.train=dev", "--set", "nlvr-v1.valid=none") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "data folder nowhere does not exist"),
        ([__file__], "is no folder"),
        ([".", "--suite", "image-txt"], 'did you mean "image-text"?'),
        ([".", "--suite", "image-text", "--task", "tvqa"], 'unknown task of suite image-text "tvqa"'),
        ([".", "--task", "vqa", "--set", "gqa.train=x"], "--set takes TASK.KEY=VALUE"),
        ([".", "--task", "vqa", "--set", "vqa.trian=x"], 'did you mean "train"?'),
    ],
)
def test_a_wrong_command(arguments, said, capsys):
    assert run_check(*arguments) == 2
    assert said in capsys.readouterr().err


# what is said --------------------------------------------------------------------------------------------------------


def test_all_faults_come_together_with_where_to_get_what_is_missing(root, capsys):
    (root / OFFICIAL).unlink()
    shutil.rmtree(root / "VG")
    (root / NLVR_IMAGE).unlink()
    edit(root / "GQA/testdev.json", lambda rows: rows[0].pop("sent") and None)
    assert run_check(root) == 1
    text = capsys.readouterr().out
    faults = [line for line in text.splitlines() if line.startswith("✗")]
    assert sum("VG/clip_features" in line for line in faults) == 6
    for named in ("v2_mscoco_val2014_annotations.json is missing", "row 0.sent is missing", "dev-7-1-img1"):
        assert sum(named in line for line in faults) == 1
    gqa, testdev = (next(row for row in rows(text) if row[:2] == ["gqa", split]) for split in ("train", "test"))
    assert gqa[-4:] == ["6", "6", "0", "6"] and testdev[3:5] == ["1", "broken"]
    origins = text.split("from where", 1)[1]
    for pattern in ("vqa/v2_mscoco_*.json", "VG/clip_features", "nlvr/clip_features", "GQA/*.json"):
        assert pattern in origins
    assert "COCO/dataset_coco.json" not in origins and "visualqa.org" in origins


def test_every_file_that_a_task_reads_has_an_origin(tmp_path):
    """An empty folder: each task's missing files are in the table of origins."""
    for suite in map(suite_by_name, ("image-text", "video-text", "nlvr-v1")):
        for name in suite.tasks:
            report = check(tmp_path, [TASKS.get(name)()], suite.visual)
            assert report.faults and report.origins, name
            assert all(state == "missing" for part in report.parts for state in part.files.values())


def test_long_lists_are_cut_with_a_count(root, capsys):
    def many(rows):
        return rows + [rows[0] | {"question_id": f"9{i:03d}", "img_id": f"gone{i:03d}"} for i in range(50)]

    edit(root / "GQA/train.json", many)
    assert run_check(root, "--task", "gqa") == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    assert len(faults) == 21 and "gone000.h5" in faults[0]
    assert faults[-1] == "✗ gqa: features: and 30 faults more"


def test_values_of_a_sample_or_of_all(tmp_path):
    count = SAMPLE + 10
    root = tmp_path / "datasets"
    examples = write(root, count)
    with h5py.File(root / "COCO" / roots.FEATURES / "00003.h5", "w") as file:
        file["00003/features"] = np.full((4, 16), np.nan)
    with h5py.File(root / "COCO" / roots.FEATURES / "00005.h5", "w") as file:
        file["00005/features"] = np.zeros((4, 8))

    class Bare(VQA):
        def read_split(self, root, split):
            return examples[:-1] if split == "train" else examples[-1:], []

    said = check(root, [Bare()], SMALL)
    assert [line for line in said.faults if "00005.h5" in line] == said.faults != []
    assert 0 < said.sampled < said.features == count
    calls = []
    said = check(root, [Bare()], SMALL, whole=True, progress=lambda *call: calls.append(call))
    assert ["00003.h5" in line for line in said.faults] == [True, False] and said.sampled == count
    assert calls[-1] == (count, count)
