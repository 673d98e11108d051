"""The written world in motion: VALUE's formats, and answers that follow from what was drawn.

Answers are recomputed here from `clips.json` by parsing the questions, without the code that asked.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pet_bench.data.check import check
from pet_bench.data.suite import suite_by_name
from pet_bench.mini.clips import WIDTH
from pet_bench.mini.write_clips import ClipSizes, write_all, write_video_text
from pet_bench.registry import TASKS

SMALL = ClipSizes(120, 30, 120, 30, 60, 20)
TINY = ClipSizes(2, 1, 2, 1, 2, 1, per_clip=2)
FOLDERS = {"tvqa": "tv", "how2qa": "how2", "tvc": "tv", "yc2c": "yc2"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "datasets"
    write_video_text(folder, seed=3, sizes=SMALL)
    return folder


def lines(root: Path, path: str):
    return [json.loads(line) for line in (root / "video" / "ann" / path).read_text().splitlines()]


def rows(root: Path, task: str, split: str):
    return lines(root, f"{task}/{task}_{split}{'' if task == 'tvqa' else '_release'}.jsonl")


@pytest.fixture(scope="module")
def clips(root):
    """Clip → its shots, each (color, shape, direction)."""
    found = json.loads((root / "video" / "clips.json").read_text())
    return {name: [tuple(shot) for shot in shots] for name, shots in found.items()}


@pytest.fixture(scope="module")
def likes(root):
    """Clip → person → shape, from the subtitles as written."""
    return {
        f"{folder}/{row['vid_name']}": dict(
            re.fullmatch(r" (\w+) : I like the (\w+)\.", line["text"]).groups() for line in row["sub"]
        )
        for folder in ("tv", "how2", "yc2")
        for row in lines(root, f"{folder}_subtitles.jsonl")
    }


# files ---------------------------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.*"))}


def test_same_seed_and_sizes_give_the_same_world_another_seed_another(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_video_text(tmp_path / name, seed=seed, sizes=TINY)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a != c


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video_text(tmp_path / "world", sizes=TINY, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path / "world", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_clip(tmp_path):
    seen = []
    write_video_text(tmp_path / "world", sizes=TINY, progress=lambda *now: seen.append(now))
    assert seen == [(i + 1, 9) for i in range(9)] and TINY.clips == 9


@pytest.mark.parametrize("task", FOLDERS)
def test_the_readers_find_nothing_wrong(root, task):
    suite = suite_by_name("mini-video-text")
    report = check(root, [TASKS.get(task)()], suite.visual)
    assert report.faults == []
    for split in ("train", "valid"):
        examples = TASKS.get(task)().examples(root, split)
        assert len(examples) == sum(len(row.get("descs", "q")) for row in rows(root, task, split.removesuffix("id")))


def test_features_are_half_of_the_stored_pictures_and_one_frame_every_second_and_a_half(root, clips):
    files = {f"{f.parts[-3]}/{f.stem}": f for f in root.rglob("*.npz")}
    assert files.keys() == clips.keys() and len(files) == SMALL.clips == 380
    for name, file in list(files.items())[::20]:
        with np.load(file, allow_pickle=False) as archive:
            features = archive["features"]
        assert features.shape == (3 * len(clips[name]), WIDTH) and features.dtype == np.float16
        strip = np.asarray(Image.open(root / "video" / "frames" / f"{name}.png"), np.float32)
        frames = strip.reshape(24, -1, 24, 3).swapaxes(0, 1)
        small = frames.reshape(-1, 12, 2, 12, 2, 3).mean((2, 4)).reshape(len(features), WIDTH)
        np.testing.assert_allclose(features, (small - 80) / 40, atol=5e-3)
        assert np.median(np.abs(features)) < 0.1  # most of it is background
    durations = {row["vid_name"]: row["duration"] for row in rows(root, "yc2c", "train")}
    assert all(seconds == 4.5 * len(clips[f"yc2/{name}"]) for name, seconds in durations.items())


def test_objects_move_as_told(root, clips):
    """The brightest spot of a shot's three frames, found in the pixels, goes the way that `clips.json` says."""
    for name, shots in list(clips.items())[::20]:
        strip = np.asarray(Image.open(root / "video" / "frames" / f"{name}.png"), np.float32)
        frames = np.abs(strip - 80).sum(-1).reshape(24, -1, 24).swapaxes(0, 1)
        grid = np.indices((24, 24))
        ys, xs = ((frames * (frames > 90) * axis).sum((1, 2)) / (frames * (frames > 90)).sum((1, 2)) for axis in grid)
        for i, (_, _, direction) in enumerate(shots):
            dx, dy = xs[3 * i + 2] - xs[3 * i], ys[3 * i + 2] - ys[3 * i]
            expected = {"left": (-8, 0), "right": (8, 0), "up": (0, -8), "down": (0, 8), "nowhere": (0, 0)}
            assert (dx, dy) == pytest.approx(expected[direction], abs=2)


def test_clip_names_and_splits(root):
    for task, folder in FOLDERS.items():
        train, val = ({row["vid_name"] for row in rows(root, task, split)} for split in ("train", "val"))
        assert train and val and not train & val
        assert train | val == {row["vid_name"] for row in lines(root, f"{folder}_subtitles.jsonl")}
    assert all(row["vid_name"].isdigit() for row in rows(root, "how2qa", "val"))


# answers need the frames, and follow from them -----------------------------------------------------------------------


def answer(question: str, shots, likes) -> str:
    colors, shapes, directions = zip(*shots, strict=True)
    parts = {"color": colors, "shape": shapes}

    def where(found, values):
        assert values.count(found) == 1, f"{found!r} is not unique"
        return values.index(found)

    if found := re.fullmatch(r"what color is the (\w+)\?", question):
        return colors[where(found[1], shapes)]
    if found := re.fullmatch(r"what shape is the (\w+) object\?", question):
        return {"first": shapes[0], "last": shapes[-1]}.get(found[1]) or shapes[where(found[1], colors)]
    if found := re.fullmatch(r"where does the (\w+) object go\?", question):
        return directions[where(found[1], colors)]
    if found := re.fullmatch(r"what (color|shape) is the object that goes (\w+)\?", question):
        return parts[found[1]][where(found[2], directions)]
    if found := re.fullmatch(r"what color is the (first|last) object\?", question):
        return colors[0 if found[1] == "first" else -1]
    if found := re.fullmatch(r"what color is the object that (\w+) likes\?", question):
        return colors[where(likes[found[1]], shapes)]
    raise AssertionError(f"no reading of {question!r}")


@pytest.mark.parametrize(("task", "count"), [("tvqa", 5), ("how2qa", 4)])
def test_every_answer_follows_from_the_clip(root, clips, likes, task, count):
    forms = Counter()
    for split in ("train", "val"):
        for row in rows(root, task, split):
            name = f"{FOLDERS[task]}/{row['vid_name']}"
            offered = [row[f"a{i}"] for i in range(count)]
            assert f"a{count}" not in row and len(set(offered)) == count
            assert offered[row["answer_idx"]] == answer(row["q"], clips[name], likes[name])
            forms[re.sub(r"(red|green|blue|yellow|cyan|purple|square|circle|triangle|cross)", "_", row["q"])] += 1
    assert sum(n for form, n in forms.items() if "likes" in form) > 0.1 * forms.total()


@pytest.mark.parametrize(("task", "chance"), [("tvqa", 1 / 5), ("how2qa", 1 / 4)])
def test_the_text_alone_does_not_tell(root, task, chance):
    """No name, no value and no pair of question and value is right much more often than by chance."""
    found = [row for split in ("train", "val") for row in rows(root, task, split)]
    assert max(Counter(row["answer_idx"] for row in found).values()) < (chance + 0.08) * len(found)
    offered, right = Counter(), Counter()
    for row in found:
        kind = re.sub(r"\b(red|green|blue|yellow|cyan|purple|square|circle|triangle|cross)\b", "_", row["q"])
        values = [row[f"a{i}"] for i in range(round(1 / chance))]
        for key in [(kind,), ()]:
            offered.update((*key, value) for value in values)
            right[*key, values[row["answer_idx"]]] += 1
    for key, n in offered.items():
        if n * chance >= 8:
            assert right[key] / n == pytest.approx(chance, abs=4.5 * np.sqrt(chance * (1 - chance) / n)), key


def test_descriptions_tell_the_shots_in_order(root, clips):
    told = Counter()
    for task in ("tvc", "yc2c"):
        for split in ("train", "val"):
            for row in rows(root, task, split):
                assert len(row["descs"]) == (2 if task == "tvc" else 1)
                for description in row["descs"]:
                    shots = clips[f"{FOLDERS[task]}/{row['vid_name']}"]
                    named = re.findall(r"an? (\w+) (\w+)(?: goes (\w+))?", description["desc"])
                    full = bool(named[0][2])
                    told[full] += 1
                    assert named == [(c, s, d if full else "") for c, s, d in shots]
    assert 0.35 < told[True] / told.total() < 0.65


def test_default_sizes_are_what_the_suite_is_planned_for():
    assert 1200 <= ClipSizes().clips <= 2400
    assert replace(ClipSizes(), per_clip=1).clips == ClipSizes().clips
