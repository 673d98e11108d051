from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from PIL import Image

from pet_bench.data.suite import suite_by_name
from pet_bench.errors import UserError
from pet_bench.mini import write_clips
from pet_bench.mini.clip_language import description
from pet_bench.mini.clips import Clip
from pet_bench.mini.language import NAMED, captions
from pet_bench.mini.world import BACKGROUND, Scene
from pet_bench.mini.write import SECOND, write_image_text
from pet_bench.registry import SUITES, TASKS
from pet_bench.tasks import suites
from tests.mini.conftest import SMALL


def shape(suite):
    visual = suite.visual
    return visual.width, visual.tokens, visual.pooled, visual.images


@pytest.mark.parametrize(
    ("name", "tasks", "visual"),
    [
        ("image-text", ("vqa", "gqa", "nlvr2", "coco-caption"), (2048, 49, 36, 2)),
        ("mini-image-text", ("vqa", "gqa", "nlvr2", "coco-caption"), (192, 36, 36, 2)),
        ("mini-image-text/vqa+gqa", ("vqa", "gqa"), (192, 36, 36, 2)),
        ("mini-video-text-v2", ("tvqa", "how2qa", "tvc", "yc2c"), (432, 64, 64, 2)),
        ("video-text", ("tvqa", "how2qa", "tvc", "yc2c"), (512, 64, 64, 2)),
        ("nlvr-v1", ("nlvr-v1",), (192, 36, 36, 3)),
        ("vqa", ("vqa",), (2048, 49, 36, 2)),
        ("vqa-zoo", ("okvqa", "textvqa", "vizwiz"), (2048, 49, 36, 2)),
        ("science", ("scienceqa",), (2048, 49, 36, 2)),
        ("flickr30k-caption", ("flickr30k-caption",), (2048, 49, 36, 2)),
    ],
)
def test_by_name(name, tasks, visual):
    suite = suite_by_name(name)
    assert (suite.name, suite.tasks, shape(suite)) == (name, tasks, visual)


def test_one_choice_of_tasks_has_one_name():
    assert suite_by_name("image-text/gqa+vqa").name == "image-text/vqa+gqa"
    assert suite_by_name("image-text/nlvr2+gqa+coco-caption+vqa") is suites.IMAGE_TEXT


def test_registered():
    assert {suite.name for suite in SUITES} >= {"image-text", "mini-image-text", "nlvr-v1", "video-text"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("image-txt", 'unknown suite or task "image-txt": did you mean "image-text"'),
        ("image-text/vqaa+gqa+x", 'unknown task of suite image-text "vqaa": did you mean "vqa"'),
        ("vqa/gqa", 'unknown suite or task "vqa"'),
    ],
)
def test_unknown_names(name, said):
    with pytest.raises(UserError, match=said):
        suite_by_name(name)


@pytest.mark.parametrize("suite", SUITES.names())
def test_every_task_of_a_suite_has_a_reader(suite):
    assert all(TASKS.get(task).name == task for task in suite_by_name(suite).tasks)


@pytest.mark.parametrize("suite", [suites.MINI_IMAGE_TEXT, suites.MINI_IMAGE_TEXT_V2], ids=lambda suite: suite.name)
def test_the_mini_world_is_drawn_once_into_the_cache(suite, tmp_path, monkeypatch):
    """Its features are those that people's own pictures get."""
    from pet_bench.mini import write

    drawn = []
    original = write.write_image_text

    def small(root, sizes=None, **how):
        drawn.append(root)
        original(root, sizes=SMALL, **how)

    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(write, "write_image_text", small)
    root = suite.embedded()
    assert root == suite.embedded() and drawn == [root] and tmp_path in root.parents
    for name in suite.tasks:
        task = TASKS.get(name)()
        for split in ("train", "valid", "test"):
            image = task.examples(root, split)[0].images[0]
            folder, _, key = image.partition("/")
            picture = root / folder / "images" / f"{key}.png"
            np.testing.assert_array_equal(task.feature(root, image), suite.extractor(picture))


def test_what_is_empty_is_nought_in_the_second_mini_world_and_a_large_number_in_the_first(tmp_path):
    picture = tmp_path / "empty.png"
    Image.new("RGB", (48, 48), (BACKGROUND,) * 3).save(picture)
    assert (suites.MINI_IMAGE_TEXT_V2.extractor(picture) == 0).all()
    assert (suites.MINI_IMAGE_TEXT.extractor(picture) < -0.37).all()


def test_the_second_mini_world_has_two_thousand_questions_of_a_task_and_five_hundred_captions():
    sizes = SECOND
    assert (sizes.coco_test, sizes.gqa_testdev * sizes.per_image, 8 * sizes.nlvr_test) == (500, 2000, 2000)
    assert sizes.coco_test * sizes.per_image >= 2000


def test_descriptions_of_the_second_world_in_motion_say_what_is_there_only():
    clip = Clip.sample(Random(1))
    assert all(" goes " not in description(clip, Random(seed), moving=0) for seed in range(9))
    assert any(" goes " in description(clip, Random(seed)) for seed in range(9))
    sizes = write_clips.SECOND
    assert min(sizes.tv_val * sizes.per_clip, sizes.how2_val * sizes.per_clip) >= 2000 and sizes.yc2_val >= 500


def test_captions_of_the_second_mini_world_name_colours_and_shapes(tmp_path):
    scene = Scene.sample(Random(3))
    named = [f"{thing.color} {thing.shape}" for thing in scene.things]
    told = captions(scene, Random(0), 99, NAMED)
    assert len(set(told)) == 2 and all(words in caption for caption in told for words in named)
    assert any("objects:" in caption for caption in captions(scene, Random(0), 99))  # in the first also numbers
    write_image_text(tmp_path / "world", sizes=SMALL, wordings=NAMED)
    told = json.loads((tmp_path / "world/COCO/dataset_coco.json").read_text())
    raws = [sentence["raw"] for image in told["images"] for sentence in image["sentences"]]
    assert raws and all(raw.startswith(("there is a ", "a picture of a ")) for raw in raws)
