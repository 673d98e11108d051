"""Batches: content, order, sampling, restart."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch

from pet_bench.backbone import Reader
from pet_bench.data.batches import MultiTask, Shuffle, TaskBatches, joint_schedule
from pet_bench.data.store import FeatureStore
from pet_bench.data.task import Example
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.vqa import VQA
from tests.data import roots

TOKENIZER = roots.tokenizer()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    roots.vqa(root)
    roots.gqa(root)
    return roots.nlvr2(root)


@pytest.fixture(scope="module")
def store(root, tmp_path_factory):
    wanted = [(task, task.examples(root, "train")) for task in (VQA(), GQA(), NLVR2())]
    return FeatureStore.pack(root, wanted, roots.VISUAL, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def batches(root, store):
    def batches(task, examples=None, **options):
        return TaskBatches(task, examples or task.examples(root, "train"), Reader(TOKENIZER), store, **options)

    return batches


def questions(number, **fields):
    image = ("COCO/COCO_train2014_000000000010",)
    return [Example(**{"id": str(i), "text": "vqa: is the cat red", "images": image, **fields}) for i in range(number)]


def same(left, right):
    tensors = ("targets", "scores", "indices")
    read = all(torch.equal(left.tensors[name], right.tensors[name]) for name in ("text", "features"))
    return left.ids == right.ids and read and all(torch.equal(getattr(left, t), getattr(right, t)) for t in tensors)


def words(ids):
    return [TOKENIZER.decode([i for i in row if i not in (-100, TOKENIZER.pad_token_id)]) for row in ids.tolist()]


def test_a_batch_holds_what_its_examples_say(batches):
    gqa = batches(GQA())
    (batch,) = gqa.train_batches(0, 100, seed=0)
    assert len(batch) == 6 and batch.task == "gqa"
    assert batch.tensors["text"].tolist()[0] == TOKENIZER("gpa: is the dog blue")["input_ids"]
    for row, index in enumerate(batch.indices.tolist()):
        example = gqa.examples[index]
        assert batch.ids[row] == example.id
        assert batch.tensors["features"][row, 0, 0, 0] == float(example.images[0].split("/")[1])
        assert words(batch.targets)[row] == f"<s> {example.targets[0][0]} </s>"
    assert batch.scores.tolist() == [1.0] * 6


def test_padding(batches):
    examples = [*questions(1, text="vqa: a", targets=(("red cat", 1.0),)), *questions(1, id="b", targets=(("a", 1.0),))]
    batch = batches(VQA(), examples).batch(np.array([0, 1]), np.array([0, 1]))
    assert batch.tensors["text"][0, 5:].eq(TOKENIZER.pad_token_id).all() and batch.tensors["text"].shape == (2, 8)
    assert batch.targets[1].tolist()[-1] == -100 and batch.targets.shape == (2, 4)


@pytest.mark.parametrize(
    ("kind", "text", "target"), [(VQA, 20, 10), (GQA, 20, 43), (NLVR2, 43, 43)], ids=["vqa", "gqa", "nlvr2"]
)
def test_truncation_on_the_right_counts_special_tokens(batches, kind, text, target):
    long = "is " + "the cat " * 20
    image = ("nlvr/train-7-0-img0", "nlvr/train-7-0-img1") if kind is NLVR2 else ("VG/1",)
    batch = next(batches(kind(), [Example("1", long, image, ((long, 1.0),))]).eval_batches(1))
    assert batch.tensors["text"].shape == (1, text)
    assert batch.targets.shape == (1, target)
    assert (
        words(batch.tensors["text"])[0].startswith("<s> is the cat")
        and batch.tensors["text"][0, -1] == TOKENIZER.eos_token_id
    )


def test_letter_case_is_kept(batches):
    batch = next(batches(GQA(), [Example("1", "Red red", ("VG/1",))]).eval_batches(1))
    assert batch.tensors["text"][0].tolist() == [0, TOKENIZER.unk_token_id, TOKENIZER.convert_tokens_to_ids("red"), 2]


def test_an_example_without_answer_has_the_empty_target_and_score_0(batches):
    batch = next(batches(VQA(), questions(1)).train_batches(0, 1, seed=0))
    assert batch.targets.tolist() == [[0, 2]] and batch.scores.tolist() == [0.0]


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_has_every_example_once_in_the_published_order(batches, epoch):
    found = [i for b in batches(VQA(), questions(50)).train_batches(epoch, 8, seed=1) for i in b.indices.tolist()]
    assert found == torch.randperm(50, generator=torch.Generator().manual_seed(epoch)).tolist()


def ragged(number):
    image = ("COCO/COCO_train2014_000000000010",)
    return [Example(str(i), "a " * (1 + i * 7 % 16), image) for i in range(number)]


def test_a_seeded_order_is_another_one_for_every_seed_and_epoch(batches):
    vqa = batches(VQA(), questions(50))
    orders = [vqa.order(epoch, 8, Shuffle(seed)).tolist() for epoch in (0, 1) for seed in (0, 1, 2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    counts = {"vqa": 9, "gqa": 9}
    assert len({tuple(joint_schedule(counts, Shuffle(seed).of(epoch))) for epoch in (0, 1) for seed in (0, 1, 2)}) == 6


def test_buckets_save_padding_and_change_nothing_else(batches):
    vqa = batches(VQA(), ragged(203))

    def epoch(**shuffle):
        return list(vqa.train_batches(1, 8, seed=0, shuffle=Shuffle(**shuffle)))

    drawn, bucketed, again = epoch(), epoch(bucket=10), epoch(bucket=10)
    assert [len(b) for b in bucketed] == [len(b) for b in drawn] == [8] * 25 + [3]
    assert sorted(i for b in bucketed for i in b.indices.tolist()) == list(range(203))
    assert all(same(*pair) for pair in zip(bucketed, again, strict=True))
    # within a bucket of ten batches the examples are those that were drawn
    tenth = {frozenset(i for b in drawn[at : at + 10] for i in b.indices.tolist()) for at in (0, 10)}
    for batch in bucketed[:-1]:
        found = set(batch.indices.tolist())
        assert sum(found <= bucket for bucket in tenth) + (found.isdisjoint(frozenset().union(*tenth))) == 1
    padded = [
        sum(b.tensors["text"].eq(TOKENIZER.pad_token_id).sum().item() for b in course) for course in (drawn, bucketed)
    ]
    assert padded[1] < 0.3 * padded[0]
    lengths = [b.tensors["text"].shape[1] for b in bucketed]
    assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True)


@pytest.mark.parametrize("shuffle", [Shuffle(), Shuffle(3), Shuffle(bucket=4), Shuffle(3, 4)], ids=str)
def test_a_shuffled_epoch_can_be_taken_up_anywhere(batches, shuffle):
    def joined():
        tasks = [batches(VQA(), ragged(40)), batches(GQA()), batches(NLVR2())]
        return MultiTask(tasks, batch_size=2, seed=3, shuffle=shuffle)

    whole = list(joined().epoch(1))
    for start in (0, 1, 7, len(whole) - 1):
        assert all(same(*pair) for pair in zip(joined().epoch(1, start), whole[start:], strict=True))


def test_the_seed_changes_the_answers_but_not_the_order(batches):
    vqa = batches(VQA(), questions(300, targets=(("red", 1.0), ("blue", 1.0))))
    (first,), (second,), (again,) = (list(vqa.train_batches(2, 300, seed=seed)) for seed in (1, 2, 1))
    assert torch.equal(first.indices, second.indices) and same(first, again)
    assert not torch.equal(first.targets, second.targets)


def test_answers_are_drawn_in_proportion_to_their_scores(batches):
    targets = (("red", 0.3), ("blue", 0.0), ("green", 0.9))
    vqa = batches(VQA(), questions(4000, targets=targets))
    drawn = Counter()
    for epoch in range(3):
        drawn.update(vqa.sampled(epoch, seed=0) - vqa.starts)
    assert drawn[1] == 0 and drawn[0] / 12000 == pytest.approx(0.25, abs=0.02)


def test_an_answer_depends_on_seed_epoch_and_index_only(batches):
    targets = (("red", 0.6), ("blue", 0.3), ("green", 0.9))
    some, more = batches(VQA(), questions(20, targets=targets)), batches(VQA(), questions(30, targets=targets))
    assert np.array_equal(some.sampled(4, 7) - some.starts, (more.sampled(4, 7) - more.starts)[:20])
    assert not np.array_equal(some.sampled(4, 7), some.sampled(5, 7))


def test_batches_are_sized_by_the_task_and_the_last_one_is_kept(batches):
    gqa = batches(GQA(), [Example(str(i), "a", ("VG/1",)) for i in range(12)])
    assert [len(b) for b in gqa.train_batches(0, 3, seed=0)] == [5, 5, 2]
    assert gqa.count(3) == 3


def test_evaluation_sees_every_example_once_longest_first_with_its_best_target(batches):
    examples = [
        Example(str(i), "a " * (1 + i % 5), ("COCO/COCO_train2014_000000000010",), (("red", 0.3), ("blue", 0.9)))
        for i in range(11)
    ]
    found = list(batches(VQA(), examples).eval_batches(4))
    assert [len(b) for b in found] == [4, 4, 3]
    assert sorted(i for b in found for i in b.ids) == sorted(e.id for e in examples)
    lengths = [n for b in found for n in b.tensors["text"].ne(TOKENIZER.pad_token_id).sum(1).tolist()]
    assert lengths == sorted(lengths, reverse=True)
    assert set(words(torch.cat([b.targets for b in found]))) == {"<s> blue </s>"}


def test_text_only_zeroes_the_images_and_nothing_else(batches):
    blind, seeing = (next(batches(GQA(), control=c).train_batches(0, 9, seed=0)) for c in ("text-only", "none"))
    dark, light = (batch.tensors["features"] for batch in (blind, seeing))
    assert not dark.any() and light.any() and dark.shape == light.shape
    assert torch.equal(blind.tensors["text"], seeing.tensors["text"])


# joint training ------------------------------------------------------------------------------------------------------


def test_the_schedule_is_the_published_one():
    listed = ["vqa"] * 3 + ["gqa"] * 2 + ["nlvr2"]
    random.Random(5).shuffle(listed)
    published = [listed.pop() for _ in range(6)]
    assert joint_schedule({"vqa": 3, "gqa": 2, "nlvr2": 1}, 5) == published


def joint(batches):
    return MultiTask([batches(VQA()), batches(GQA()), batches(NLVR2())], batch_size=2, seed=3)


def test_a_joint_epoch_goes_once_through_every_task(batches):
    multi = joint(batches)
    steps = list(multi.epoch(1))
    assert len(steps) == len(multi) == 2 + 2 + 2
    assert [b.task for b in steps] == joint_schedule(multi.counts, 1)
    assert Counter(b.task for b in steps for _ in b.ids) == {"vqa": 4, "gqa": 6, "nlvr2": 2}
    assert len({(b.task, i) for b in steps for i in b.ids}) == 12


def test_tasks_one_after_the_other(batches):
    """Each with the batches of its own epochs, wherever an epoch of all of them is taken up."""
    each = [batches(VQA()), batches(GQA()), batches(NLVR2())]
    multi = MultiTask(each, batch_size=2, seed=3, in_turn=3)
    steps = [batch for epoch in range(3) for batch in multi.epoch(epoch)]
    alone = [batch for one in each for epoch in range(3) for batch in one.train_batches(epoch, 2, 3)]
    assert [b.task for b in steps] == ["vqa"] * 6 + ["gqa"] * 6 + ["nlvr2"] * 6
    assert [b.ids for b in steps] == [b.ids for b in alone]
    rest = [batch for start in range(6) for batch in multi.epoch(1, start)]
    assert [b.ids for b in rest] == [b.ids for start in range(6) for b in steps[6 + start : 12]]


@pytest.mark.parametrize("start", range(7))
def test_an_epoch_can_be_taken_up_at_any_step(batches, start):
    whole, rest = list(joint(batches).epoch(2)), list(joint(batches).epoch(2, start))
    assert len(rest) == 6 - start
    assert all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))
