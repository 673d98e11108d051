"""Corruptions: the same again, growing with their strength, and of nothing but what they say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pet_bench.data.corrupt import SEEN, TEXT
from pet_bench.data.corrupted import STRENGTHS, Corruption, parse
from pet_bench.data.task import Example
from pet_bench.errors import UserError
from pet_bench.registry import TASKS

VQA = TASKS.get("vqa")()
QUESTION = "what color is the large square that lies to the left of the red circle?"
EXAMPLES = [
    Example(str(i), f"{VQA.prompt}{QUESTION} {i}{'x' * i}", (f"coco/{i}",), (("red", 1.0),), {"answer": "red"})
    for i in range(12)
]
IMAGES = [(fed, name) for fed, names in SEEN.items() for name in names]


class Stored:
    """Features (36, 8) or pictures (40, 56, 3), waves with some grain."""

    def __init__(self, fed):
        self.fed, rng = fed, np.random.default_rng(0)
        self.features = rng.normal(size=(len(EXAMPLES), 36, 8)).astype(np.float32)
        waves = np.sin(np.arange(40)[:, None, None] / 5 + np.arange(56)[None, :, None] / 7 + np.arange(3))
        self.pictures = [
            (127 + 90 * waves * (i + 1) / len(EXAMPLES) + rng.uniform(-30, 30, waves.shape)).astype(np.uint8)
            for i in range(len(EXAMPLES))
        ]

    def rows(self, examples):
        return np.array([[int(example.id)] for example in examples])

    def gather(self, rows, *, control="none"):
        if self.fed == "pixels":
            return [[self.pictures[row] for row in example] for example in rows]
        features = torch.from_numpy(self.features[rows])
        return torch.zeros_like(features) if control == "text-only" else features

    def named(self, rows, *, control="none"):
        return {"pictures": torch.from_numpy(rows)}


def seen(fed, corruption, examples=EXAMPLES, task=VQA, control="none", stored=None):
    """(examples, …) float of what a model would see."""
    store = corruption.store(stored or Stored(fed), task, fed)
    gathered = store.gather(store.rows(examples), control=control)
    return np.stack([np.asarray(images[0], np.float32) for images in gathered])


def texts(corruption, examples=EXAMPLES, task=VQA):
    return [example.text for example in corruption.examples(task, examples)]


def distance(one, other):
    """Words and letters that stand in another place, or are not there."""
    length = abs(len(one) - len(other))
    return length + sum(a != b for a, b in zip(one, other, strict=False))


@pytest.mark.parametrize("name", TEXT)
def test_text_is_corrupted_again_to_the_letter_and_more_with_strength(name):
    clean, amounts = texts(Corruption(name, 0)), [0.0]
    assert clean == [example.text for example in EXAMPLES]
    for strength in STRENGTHS:
        changed = texts(Corruption(name, strength))
        assert changed == texts(Corruption(name, strength))
        assert changed[5:6] == texts(Corruption(name, strength), EXAMPLES[5:6]), "whatever stands beside it"
        assert all(a != b for a, b in zip(changed, clean, strict=True)), strength
        assert all(text.startswith(VQA.prompt) for text in changed)
        amounts.append(np.mean([distance(a, b) for a, b in zip(changed, clean, strict=True)]))
    assert all(b >= a for a, b in pairwise(amounts)) and amounts[5] > amounts[1]
    assert texts(Corruption(name, 3, seed=1)) != texts(Corruption(name, 3))
    assert len({text[:40] for text in texts(Corruption(name, 3))}) > 1, "each example has draws of its own"


@pytest.mark.parametrize(("fed", "name"), IMAGES)
def test_images_are_corrupted_again_to_the_bit_and_more_with_strength(fed, name):
    clean, amounts = seen(fed, Corruption(name, 0)), [0.0]
    assert np.array_equal(clean, seen(fed, Corruption("word-drop", 5)))
    for strength in STRENGTHS:
        changed = seen(fed, Corruption(name, strength))
        assert changed.shape == clean.shape
        assert np.array_equal(changed, seen(fed, Corruption(name, strength)))
        assert np.array_equal(changed[5:6], seen(fed, Corruption(name, strength), EXAMPLES[5:6]))
        assert all(not np.array_equal(a, b) for a, b in zip(changed, clean, strict=True)), strength
        amounts.append(float(np.abs(changed - clean).mean()))
    assert all(b >= a for a, b in pairwise(amounts)) and amounts[5] > amounts[1]
    if name not in ("contrast", "blur", "jpeg"):
        assert not np.array_equal(seen(fed, Corruption(name, 3, seed=1)), seen(fed, Corruption(name, 3)))


def test_nothing_but_the_text_changes():
    for name in TEXT:
        for one, other in zip(EXAMPLES, Corruption(name, 5).examples(VQA, EXAMPLES), strict=True):
            assert replace(other, text=one.text) == one


@pytest.mark.parametrize(
    ("name", "share"), [("keyboard", "letters"), ("word-mask", "words"), ("word-drop", "words"), ("word-swap", "words")]
)
def test_the_stated_share_changes(name, share):
    body = QUESTION.removesuffix("?")
    example = [Example("q", VQA.prompt + body, ())]
    words, letters = body.split(), [c for c in body if c.isalpha()]
    for strength, percent in zip(STRENGTHS, (10, 20, 30, 40, 50), strict=True):
        (text,) = texts(Corruption(name, strength), example)
        found = text.removeprefix(VQA.prompt)
        count = -(-percent * len(words if share == "words" else letters) // 100)
        if name == "keyboard":
            changed = sum(a != b for a, b in zip(found, body, strict=True))
        elif name == "word-mask":
            changed = found.split().count("[UNK]")
        elif name == "word-drop":
            changed = len(words) - len(found.split())
        else:
            assert sorted(found.split()) == sorted(words)
            changed, count = 0, 0  # two equal words may trade places
        assert changed == count, strength


def test_tokens_that_are_dropped_occluded_and_shuffled():
    clean = Stored("features").features
    for strength, percent in zip(STRENGTHS, (10, 20, 30, 40, 50), strict=True):
        dropped = seen("features", Corruption("token-drop", strength))
        gone = ~dropped.any(axis=2)
        assert (gone.sum(axis=1) == -(-percent * 36 // 100)).all()
        assert np.array_equal(dropped[~gone], clean[~gone])
        hidden = ~seen("features", Corruption("occlusion", strength)).any(axis=2).reshape(-1, 6, 6)
        for grid in hidden:
            rows, columns = np.flatnonzero(grid.any(1)), np.flatnonzero(grid.any(0))
            assert grid[np.ix_(rows, columns)].all() and len(rows) == len(columns)
            assert len(rows) * len(columns) >= percent * 36 / 100
        shuffled = seen("features", Corruption("token-shuffle", strength))
        moved = (shuffled != clean).any(axis=2)
        assert (moved.sum(axis=1) == -(-2 * percent * 36 // 100)).all()
        assert np.array_equal(np.sort(shuffled, axis=1), np.sort(clean, axis=1))


def test_noise_has_the_stated_deviation():
    clean = Stored("features").features
    for strength, c in zip(STRENGTHS, (0.25, 0.5, 0.75, 1.0, 1.5), strict=True):
        added = seen("features", Corruption("noise", strength)) - clean
        assert added.std() == pytest.approx(c * clean.std(), rel=0.1)


def test_contrast_keeps_the_mean():
    clean = Stored("features").features
    changed = seen("features", Corruption("contrast", 4))
    np.testing.assert_allclose(changed.mean(axis=1), clean.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(changed.std(axis=1), 0.1 * clean.std(axis=1), atol=1e-6)


def test_prompts_behind_the_text_and_spare_parts_stay_where_they_are():
    tvqa = TASKS.get("tvqa")()
    words = "one two three four five six seven eight nine ten"
    example = Example("e", f"{words} {words.upper()} {tvqa.prompt}", (), spare=(len(words) + 1, 2 * len(words) + 1))
    for name in TEXT:
        (changed,) = Corruption(name, 5).examples(tvqa, [example])
        assert changed.text.endswith(tvqa.prompt) and changed.text != example.text
        first, last = changed.spare
        assert changed.text[first:last].isupper() and not changed.text[:first].isupper(), name
        if name in ("char-swap", "word-swap", "word-mask"):
            assert len(changed.text[first:last].split()) == 10


def test_captions_have_no_text_to_corrupt():
    caption = TASKS.get("coco-caption")()
    examples = [Example("c", caption.prompt, ("coco/0",))]
    assert not any(Corruption(name, 3).changes(caption, examples) for name in TEXT)
    assert Corruption("noise", 3).changes(caption, examples)
    assert not Corruption("noise", 3).changes(caption, examples, "text-only")
    assert all(Corruption(name, 3).changes(VQA, EXAMPLES) for name in TEXT)
    assert [texts(Corruption(name, 5), examples, caption) for name in TEXT] == [[caption.prompt]] * len(TEXT)


@pytest.mark.parametrize("name", SEEN["features"])
def test_what_is_hidden_since_it_is_not_there_stays_so(name):
    stored = Stored("features")
    stored.features[:, 20:] = 0
    changed = seen("features", Corruption(name, 5), task=TASKS.get("chat")(), stored=stored)
    assert not changed[:, 20:].any()
    assert (changed[:, :20] != stored.features[:, :20]).any()


@pytest.mark.parametrize("name", SEEN["features"])
def test_who_sees_no_images_sees_none_corrupted(name):
    assert not seen("features", Corruption(name, 5), control="text-only").any()


def test_each_image_of_an_example_has_draws_of_its_own():
    stored = Stored("features")
    stored.features[:] = stored.features[0]
    stored.rows = lambda examples: np.array([[0, 1]] * len(examples))
    store = Corruption("noise", 1).store(stored, VQA, "features")
    first, second = store.gather(store.rows(EXAMPLES[:1]))[0]
    assert not torch.equal(first, second)


def test_names_and_groups():
    assert parse(["noise:3"], "features") == [Corruption("noise", 3)]
    assert parse(["blur"], "pixels", seed=7) == [Corruption("blur", strength, 7) for strength in STRENGTHS]
    assert [one.name for one in parse(["text:2"], "pixels")] == list(TEXT)
    assert {one.name for one in parse(["images"], "features")} == set(SEEN["features"])
    assert len(parse(["all", "noise:3"], "pixels")) == 5 * (len(TEXT) + len(SEEN["pixels"]))
    with pytest.raises(UserError) as error:
        parse(["nois:3", "noise:6", "noise:", "jpeg"], "features")
    assert [fault.partition(":")[0] for fault in error.value.faults] == [
        'unknown corruption of text and features "nois"', 'corruption "noise', 'corruption "noise',
        'unknown corruption of text and features "jpeg"',
    ]  # fmt: skip
    assert "(possible: 1 to 5, or 0 for none)" in error.value.faults[1]
