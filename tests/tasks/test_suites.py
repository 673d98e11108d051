from __future__ import annotations

import pytest

from pet_bench.data.suite import suite_by_name
from pet_bench.errors import UserError
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


def test_the_mini_world_is_drawn_once_into_the_cache(tmp_path, monkeypatch):
    from pet_bench.mini import write

    drawn = []
    original = write.write_image_text

    def small(root):
        drawn.append(root)
        original(root, sizes=SMALL)

    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(write, "write_image_text", small)
    root = suites.MINI_IMAGE_TEXT.embedded()
    assert root == suites.MINI_IMAGE_TEXT.embedded() and drawn == [root] and tmp_path in root.parents
    for name in suites.MINI_IMAGE_TEXT.tasks:
        task = TASKS.get(name)()
        for split in ("train", "valid", "test"):
            example = task.examples(root, split)[0]
            assert task.feature(root, example.images[0]).shape == (36, 192)
