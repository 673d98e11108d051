from __future__ import annotations

import csv
import re
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

from pet_bench.backbone.known import family_of, find_backbone
from pet_bench.errors import UserError
from pet_bench.mini.language import PROMPTS, Exercise
from pet_bench.mini.pretrain_llava import ASKED, COURSES, SEEN, accuracy, glimpse, glimpses, pretrain, told
from pet_bench.mini.readers import Reader
from pet_bench.mini.seer import CELLS, Seer
from pet_bench.mini.world import COLORS, SHAPES, Scene, draw
from tests.mini.test_pretrain import SHIPPED

FOLDER = SHIPPED / "mini-llava"


@pytest.fixture(scope="module")
def shipped():
    torch.set_num_threads(1)
    return Seer.load(FOLDER)


@pytest.fixture(scope="module")
def courses(tmp_path_factory):
    """Folders of a few steps of both courses, twice, and of the language model between."""
    root = tmp_path_factory.mktemp("courses")
    torch.manual_seed(3)
    Reader.new("mini-llama", 0).save(root / "language")
    for run in ("a", "b"):
        pretrain(root / f"sight-{run}", seed=5, steps=3)
        pretrain(
            root / f"whole-{run}",
            course="language",
            seed=6,
            steps=4,
            start=root / "sight-a",
            language=root / "language",
        )
    return root


# -- a run of a few steps ------------------------------------------------------------------------------------


def test_a_few_steps_write_a_loadable_folder_deterministically(courses):
    for course in ("sight", "whole"):
        a, b = (LlavaForConditionalGeneration.from_pretrained(courses / f"{course}-{run}") for run in "ab")
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
    assert not [path for path in courses.iterdir() if path.name.startswith(".")]
    assert str(courses) not in (courses / "whole-a" / "config.json").read_text(encoding="utf-8")
    with (courses / "whole-a" / "loss_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["step"] == "3"] and rows[-1]["step"] == "7"
    assert all(float(row["loss"]) > 0 for row in rows)
    assert (courses / "whole-a" / "COMMAND").read_text().splitlines() == [
        "python -m pet_bench.mini.pretrain_llava OUT --course sight --seed 5 --steps 3",
        "python -m pet_bench.mini.pretrain_llava OUT --course language --seed 6 --steps 4 --language MINI_LLAMA"
        " --start EARLIER_OUT",
    ]


def test_the_second_course_takes_the_tower_and_another_language_model(courses):
    """With a rate that rises from zero, so few steps leave everything near where it began."""
    before, after = (Seer.load(courses / name).lm.model for name in ("sight-a", "whole-a"))
    read = Reader.new("mini-llama", 0)
    torch.manual_seed(3)
    for ours, theirs, alike in (
        (after.vision_tower, before.vision_tower, True),
        (after.multi_modal_projector, before.multi_modal_projector, False),
        (after.language_model.layers, before.language_model.layers, False),
    ):
        apart = max((a - b).abs().max() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
        assert (apart < 0.02) == alike
    assert after.get_input_embeddings().weight.shape[0] == len(read.tokenizer) + 3


def test_refuses_what_cannot_be(tmp_path, courses):
    with pytest.raises(FileExistsError):
        pretrain(courses, steps=1)
    with pytest.raises(ValueError, match="no course 'films'; possible: sight, language"):
        pretrain(tmp_path / "x", course="films")
    with pytest.raises(UserError, match="a bart is no decoder-only language model"):
        pretrain(tmp_path / "x", steps=1, start=courses / "sight-a", language=SHIPPED / "mini-bart")
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_captioned_and_never_asked_about():
    for course, shares in COURSES.items():
        assert {task for form, task in shares if form == "picture"} == set(ASKED), course
        assert not {form for form, _ in shares} - {"picture", "condensed", "written"}
    assert {form for form, _ in COURSES["sight"]} == {"picture"}


def test_glimpses_are_of_fewer_kinds_than_the_tasks_and_captions_tell_them():
    rng = Random(0)
    scenes = [glimpse(rng) for _ in range(500)]
    for attribute, every in (("shape", SHAPES), ("color", COLORS)):
        drawn = {getattr(thing, attribute) for scene in scenes for thing in scene.things}
        assert drawn == set(SEEN[attribute]) < set(every)
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    for scene in scenes[:20]:
        text = told("places", [scene], rng)
        assert all(f"{t.size} {t.color} {t.shape} in row" in text for t in scene.things)
        assert text.count(" in row ") == len(scene.things)
    left, right = glimpses("pair", rng)
    first, second = re.fullmatch("left image: (.*) right image: (.*)", told("pair", [left, right], rng)).groups()
    assert [first, second] == [told("places", [scene], rng) for scene in (left, right)]


# -- the shipped folder --------------------------------------------------------------------------------------


def test_shipped_folder_is_small_and_what_its_command_says():
    files = list(FOLDER.iterdir())
    assert max(file.stat().st_size for file in files) < 2_000_000
    assert sum(file.stat().st_size for file in files) < 4_000_000
    commands = (FOLDER / "COMMAND").read_text().splitlines()
    assert all(line.startswith("python -m pet_bench.mini.pretrain_llava OUT --course ") for line in commands)
    steps = sum(int(re.search(r"--steps (\d+)", line)[1]) for line in commands)
    with (FOLDER / "loss_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == steps
    courses = [re.search(r"--course (\w+)", line)[1] for line in commands]
    possible = {key for course in courses for key in COURSES[course]}
    assert {(row["form"], row["task"]) for row in rows} == possible


def test_it_is_a_stock_model_with_a_token_a_cell():
    config = AutoConfig.from_pretrained(FOLDER)
    assert config.model_type == "llava"
    assert (config.vision_config.image_size // config.vision_config.patch_size) ** 2 == CELLS == 36
    backbone = find_backbone("mini-llava")
    assert family_of(backbone).name == "llava"
    assert {"vision", "projector", "decoder"} == backbone.anatomy.stacks.keys()


def test_prompts_are_as_its_chat_template_writes_them(shipped):
    scene = glimpse(Random(0))
    picture = draw(scene, np.random.default_rng(0))
    turn = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "vqa: what?"}]}
    given = AutoProcessor.from_pretrained(FOLDER).apply_chat_template(
        [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ours = shipped.tokenizer(shipped.prompt("vqa: what?", CELLS), add_special_tokens=False).input_ids
    assert given["input_ids"][0].tolist() == ours
    states = shipped.lm.model.get_image_features(given["pixel_values"]).pooler_output[0]
    torch.testing.assert_close(states, shipped.seen([picture])[0])


def test_every_word_of_the_world_is_one_token(shipped):
    rng, known = Random(7), shipped.tokenizer.get_vocab()
    for task in PROMPTS:
        for _ in range(50):
            exercise = Exercise.sample(task, rng)
            words = re.findall(r"\w+", f"{exercise.text.split(': ')[1]} {exercise.target} {ASKED['places']}")
            assert {f"▁{word}" for word in words} <= known.keys()


def test_padding_does_not_change_what_it_says(shipped):
    rng, pixels = Random(1), np.random.default_rng(1)
    pictures = [[draw(glimpse(rng), pixels)] for _ in range(4)]
    asked = ["caption: ", "what is there?", "vqa: what color is the circle?", "caption: "]
    alone = [shipped.says([row], [text])[0] for row, text in zip(pictures, asked, strict=True)]
    assert shipped.says(pictures, asked) == alone


def test_it_captions_fresh_pictures_of_its_own_distribution(shipped):
    assert accuracy(shipped, "caption", count=60, seed=11) >= 0.9


def test_it_lists_the_objects_of_fresh_pictures_though_seldom_where_they_are(shipped):
    rng, pixels = Random(3), np.random.default_rng(11)
    scenes = [glimpse(rng) for _ in range(60)]
    said = shipped.says([[draw(scene, pixels)] for scene in scenes], [ASKED["places"]] * 60)

    def common(listed: str) -> int:
        """What is said and is there, of all pictures."""
        answers = (Counter(re.findall(listed, text)) for text in said)
        truths = (Counter(re.findall(listed, told("places", [scene], rng))) for scene in scenes)
        return sum((answer & truth).total() for answer, truth in zip(answers, truths, strict=True))

    objects = sum(len(scene.things) for scene in scenes)
    assert common(r"\w+ \w+ \w+(?= in row)") / objects >= 0.9
    assert 0.1 < common(r"\w+ \w+ \w+ in row \w+ column \w+") / objects < 0.6


def test_it_does_not_know_what_it_has_not_seen(shipped):
    """Of the tasks' own pictures, most of which have a shape or a colour that is new to it, it tells few."""
    rng, pixels = Random(2), np.random.default_rng(2)
    scenes = [Scene.sample(rng) for _ in range(60)]
    said = shipped.says([[draw(scene, pixels)] for scene in scenes], ["caption: "] * 60)
    right = sum(s in {told("caption", [scene], rng) for _ in range(50)} for s, scene in zip(said, scenes, strict=True))
    assert right / 60 < 0.2
