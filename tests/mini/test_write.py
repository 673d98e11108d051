"""The written world: the real data sets' formats, and answers that follow from what was drawn.

Answers are recomputed here from `scenes.json` by parsing the sentences, on tables, without the code that
asked.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pet_bench.data.patches import patches
from pet_bench.mini import write
from pet_bench.mini.write import Sizes, write_image_text
from tests.mini.conftest import SMALL

FEATURES = "clip_features/data_clip_RN101_att"
COLORS = "red|green|blue|yellow|cyan|purple"
SHAPES = "square|circle|triangle|cross"
TINY = Sizes(2, 1, 1, 1, 2, 1, 1, 1, 1, 1, per_image=2)


def read(root: Path, path: str):
    return json.loads((root / path).read_text())


@pytest.fixture(scope="module")
def scenes(root):
    """Image → table of its objects."""
    return {
        image: pd.DataFrame(rows, columns=["cell", "size", "color", "shape"]).assign(
            row=lambda t: t.cell // 6, column=lambda t: t.cell % 6
        )
        for image, rows in read(root, "scenes.json").items()
    }


def vqa_items(root):
    return {s: read(root, f"vqa/karpathy_{s}.json") for s in ("train", "val", "test")}


def gqa_items(root):
    return {s: read(root, f"GQA/{s}.json") for s in ("train", "valid", "testdev")}


def nlvr_items(root):
    return {s: read(root, f"nlvr/{s}.json") for s in ("train", "valid", "test")}


# -- files ---------------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, object]:
    found = {}
    for file in sorted(root.rglob("*.*")):
        if file.suffix == ".h5":
            with h5py.File(file) as h5:
                found[str(file.relative_to(root))] = h5[f"{file.stem}/features"][()].tobytes()
        else:
            found[str(file.relative_to(root))] = file.read_bytes()
    return found


def test_same_seed_and_sizes_give_the_same_world_another_seed_another(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_image_text(tmp_path / name, seed=seed, sizes=TINY)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a != c


def test_feature_files_are_to_the_byte_as_h5py_writes_them(tmp_path):
    write_image_text(tmp_path / "world", sizes=TINY)
    files = [*(tmp_path / "world").rglob("*.h5")]
    assert len(files) == TINY.images
    for file in files:
        name = f"{file.stem}/features"
        with h5py.File(file) as h5, h5py.File(tmp_path / "again.h5", "w") as again:
            again.create_dataset(name, data=h5[name][()])
        assert file.read_bytes() == (tmp_path / "again.h5").read_bytes()


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_image_text(tmp_path / "world", sizes=TINY, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        write_image_text(tmp_path, sizes=TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_progress_counts_every_image(tmp_path):
    seen = []
    write_image_text(tmp_path / "world", sizes=TINY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, TINY.images) for i in range(TINY.images)]


def test_features_are_the_patches_of_the_stored_picture(root, scenes):
    files = {f.stem: f for f in root.rglob("*.h5")}
    assert files.keys() == scenes.keys()
    assert len(files) == SMALL.images
    for image, file in list(files.items())[::40]:
        assert file.parent.parts[-2:] == tuple(FEATURES.split("/"))
        with h5py.File(file) as h5:
            features = h5[f"{image}/features"]
            assert features.shape == (36, 192)
            assert features.dtype == np.float16
            picture = Image.open(file.parents[2] / "images" / f"{image}.png")
            np.testing.assert_array_equal(features[()], patches(picture))


def test_only_filled_cells_differ_from_the_background(root, scenes):
    for file in sorted(root.rglob("*.h5"))[::40]:
        with h5py.File(file) as h5:
            spread = h5[f"{file.stem}/features"][()].astype(np.float32).std(axis=1)
        assert set(np.flatnonzero(spread > 0.1)) == set(scenes[file.stem].cell)


# -- formats -------------------------------------------------------------------------------------------------


def test_vqa_items_match_the_official_annotations(root):
    annotations = {}
    for part in ("train2014", "val2014"):
        file = read(root, f"vqa/v2_mscoco_{part}_annotations.json")
        assert file["data_subtype"] == part
        annotations |= {a["question_id"]: (part, a) for a in file["annotations"]}
    items = [item for split in vqa_items(root).values() for item in split]
    assert {i["question_id"] for i in items} == annotations.keys()
    points = {1: 0.3, 2: 0.6, 3: 0.9}
    for item in items:
        part, annotation = annotations[item["question_id"]]
        assert item["img_id"] == f"COCO_{part}_{annotation['image_id']:012d}"
        assert [a["answer_id"] for a in annotation["answers"]] == list(range(1, 11))
        given = Counter(a["answer"] for a in annotation["answers"])
        assert item["label"] == {answer: points.get(n, 1.0) for answer, n in given.items()}
        assert annotation["multiple_choice_answer"] == given.most_common(1)[0][0]
        assert item["sent"].startswith(item["question_type"])
        assert (item["answer_type"], item["question_type"]) == (
            annotation["answer_type"],
            annotation["question_type"],
        )


def test_annotators_disagree_at_times(root):
    labels = [i["label"] for i in vqa_items(root)["train"]]
    assert 0.3 < np.mean([len(label) > 1 for label in labels]) < 0.8


@pytest.mark.parametrize("folder", ["vqa", "GQA"])
def test_answer_vocabularies_cover_all_answers(root, folder):
    to_label = read(root, f"{folder}/trainval_ans2label.json")
    to_answer = read(root, f"{folder}/trainval_label2ans.json")
    assert to_answer[0] == ""
    assert to_label == {answer: i for i, answer in enumerate(to_answer)}
    splits = vqa_items(root) if folder == "vqa" else gqa_items(root)
    assert {a for items in splits.values() for i in items for a in i["label"]} <= to_label.keys()


def test_gqa_items(root):
    for split, items in gqa_items(root).items():
        folder = "GQA" if split == "testdev" else "VG"
        for item in items:
            assert item.keys() == {"question_id", "img_id", "sent", "label"}
            assert isinstance(item["question_id"], str)
            assert list(item["label"].values()) == [1.0]
            assert (root / folder / FEATURES / f"{item['img_id']}.h5").is_file()


def test_nlvr_identifiers_and_balance(root):
    names = {"train": "train", "valid": "dev", "test": "test1"}
    for split, items in nlvr_items(root).items():
        groups = defaultdict(list)
        for index, item in enumerate(items):
            prefix, number, pair, sentence = item["identifier"].split("-")
            assert prefix == names[split]
            assert item["img0"] == f"{prefix}-{number}-{pair}-img0"
            assert item["img1"] == f"{prefix}-{number}-{pair}-img1"
            assert item["uid"] == f"nlvr2_{split}_{index}"
            groups[number, sentence].append(item)
        for group in groups.values():
            assert len({i["sent"] for i in group}) == 1
            assert [i["label"] for i in group].count(1) == [i["label"] for i in group].count(0) == 2


def test_captions(root):
    file = read(root, "COCO/dataset_coco.json")
    counts = Counter(image["split"] for image in file["images"])
    assert counts == {
        "train": SMALL.coco_train,
        "restval": SMALL.coco_restval,
        "val": SMALL.coco_val,
        "test": SMALL.coco_test,
    }
    sentence_ids = []
    for image in file["images"]:
        stem = Path(image["filename"]).stem
        assert stem == f"COCO_{image['filepath']}_{image['cocoid']:012d}"
        assert (root / "COCO" / FEATURES / f"{stem}.h5").is_file()
        assert len(image["sentences"]) == 5
        assert image["sentids"] == [s["sentid"] for s in image["sentences"]]
        sentence_ids += image["sentids"]
    assert sentence_ids == list(range(len(sentence_ids)))


@pytest.mark.parametrize("items", [vqa_items, gqa_items, nlvr_items])
def test_splits_share_no_image(root, items):
    images = [
        {item[key] for item in split for key in ("img_id", "img0", "img1") if key in item}
        for split in items(root).values()
    ]
    assert all(images)
    assert len(set.union(*images)) == sum(map(len, images))


def test_vqa_splits_are_karpathys(root):
    by_image = {
        Path(i["filename"]).stem: i["split"].replace("restval", "train")
        for i in read(root, "COCO/dataset_coco.json")["images"]
    }
    for split, items in vqa_items(root).items():
        assert {by_image[item["img_id"]] for item in items} == {split}


# -- answers need the image, and follow from it --------------------------------------------------------------


def majority_rate(pairs) -> float:
    """Accuracy of always giving the most frequent answer of a question's kind."""
    kinds = defaultdict(Counter)
    for kind, answer in pairs:
        kinds[kind][answer] += 1
    return sum(max(c.values()) for c in kinds.values()) / sum(sum(c.values()) for c in kinds.values())


def test_majority_answers_are_poor(root):
    vqa = [
        (i["question_type"], max(i["label"], key=i["label"].get)) for items in vqa_items(root).values() for i in items
    ]
    gqa = [
        (re.sub(rf"{COLORS}|{SHAPES}|small |large ", "_", i["sent"]), next(iter(i["label"])))
        for items in gqa_items(root).values()
        for i in items
    ]
    assert majority_rate(vqa) < 0.46
    assert majority_rate(gqa) < 0.52


@pytest.mark.parametrize("items", [vqa_items, gqa_items])
def test_yes_and_no_are_balanced_within_each_kind_of_question(root, items):
    kinds = defaultdict(list)
    for split in items(root).values():
        for item in split:
            answer = max(item["label"], key=item["label"].get)
            if answer in ("yes", "no"):
                kinds[re.sub(rf"{COLORS}|{SHAPES}|small |large ", "_", item["sent"])].append(answer == "yes")
    for yes in kinds.values():
        if len(yes) >= 30:
            assert abs(np.mean(yes) - 0.5) < 4 * 0.5 / np.sqrt(len(yes))


def select(table: pd.DataFrame, phrase: str) -> pd.DataFrame:
    """The objects that a phrase such as 'small red crosses' is true of."""
    for column, words in (("size", "small|large"), ("color", COLORS), ("shape", SHAPES)):
        if found := re.search(rf"\b({words})", phrase):
            table = table[table[column] == found[1]]
    return table


def only(table: pd.DataFrame, phrase: str) -> pd.Series:
    chosen = select(table, phrase)
    assert len(chosen) == 1, f"'{phrase}' is not unique"
    return chosen.iloc[0]


def compare(a: pd.Series, relation: str, b: pd.Series) -> bool:
    axis, sign = {"left": ("column", -1), "right": ("column", 1), "above": ("row", -1), "below": ("row", 1)}[
        relation.split()[0]
    ]
    return bool(sign * (a[axis] - b[axis]) > 0)


RELATION = "(left of|right of|above|below)"


def answer(question: str, table: pd.DataFrame) -> str:
    q = question.rstrip("?")
    if found := re.fullmatch(rf"what (color|shape) is the object {RELATION} the (.+)", q):
        b = only(table, found[3])
        (a,) = [t for _, t in table.iterrows() if compare(t, found[2], b)]
        return a[found[1]]
    if found := re.fullmatch(r"what (color|shape) is the (.+)", q):
        return only(table, found[2])[found[1]]
    if found := re.fullmatch(r"how many (.+) are there", q):
        return str(len(select(table, found[1])))
    if found := re.fullmatch(r"is there a (.+)", q):
        return "yes" if len(select(table, found[1])) else "no"
    if found := re.fullmatch(r"is the (.+) (left or right of|above or below) the (.+)", q):
        a, b = only(table, found[1]), only(table, found[3])
        options = found[2].removesuffix(" of").split(" or ")
        (true,) = [option for option in options if compare(a, option, b)]
        return true
    if found := re.fullmatch(rf"is the (.+) {RELATION} the (.+)", q):
        return "yes" if compare(only(table, found[1]), found[2], only(table, found[3])) else "no"
    if found := re.fullmatch(r"is the (.+) small or large", q):
        return only(table, found[1])["size"]
    if found := re.fullmatch(rf"is the (.+) object a ({SHAPES})", q):
        return "yes" if only(table, found[1])["shape"] == found[2] else "no"
    if found := re.fullmatch(rf"is the ({SHAPES}) ({COLORS})", q):
        return "yes" if only(table, found[1])["color"] == found[2] else "no"
    raise AssertionError(f"no reading of {question!r}")


@pytest.mark.parametrize("items", [vqa_items, gqa_items])
def test_every_answer_follows_from_the_scene(root, scenes, items):
    for split in items(root).values():
        for item in split:
            assert max(item["label"], key=item["label"].get) == answer(item["sent"], scenes[item["img_id"]])


NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}


def true(sentence: str, left: pd.DataFrame, right: pd.DataFrame) -> bool:
    number = r"exactly (two|three|four|five) objects"
    if found := re.fullmatch(rf"the (left|right) image contains {number}\.", sentence):
        return len({"left": left, "right": right}[found[1]]) == NUMBERS[found[2]]
    who, what = re.fullmatch(r"(.+) contains? a (.+)\.", sentence).groups()
    in_left, in_right = len(select(left, what)) > 0, len(select(right, what)) > 0
    return {
        "the left image": in_left,
        "the right image": in_right,
        "both images": in_left and in_right,
        "at least one image": in_left or in_right,
        "exactly one image": in_left != in_right,
    }[who]


def test_every_statement_is_as_true_as_labelled(root, scenes):
    for split in nlvr_items(root).values():
        for item in split:
            assert item["label"] == int(true(item["sent"], scenes[item["img0"]], scenes[item["img1"]]))


def test_captions_name_what_is_there(root, scenes):
    for image in read(root, "COCO/dataset_coco.json")["images"]:
        table = scenes[Path(image["filename"]).stem]
        for sentence in image["sentences"]:
            raw = sentence["raw"]
            named = re.findall(rf"\b({COLORS}) ({SHAPES})\b", raw)
            if named:
                assert named == list(zip(table.color, table["shape"], strict=True))
            else:
                listed = Counter(re.findall(rf"({SHAPES})", raw))
                assert listed.keys() == set(table["shape"])


def test_default_sizes_are_what_the_suite_is_planned_for():
    assert 1500 <= write.Sizes().images <= 3200
