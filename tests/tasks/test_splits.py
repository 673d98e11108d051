"""Parts of splits: what `name[95%:]` means, and what is refused."""

from __future__ import annotations

import pytest

from pet_bench.data.task import Example, SplitPart, overlap
from pet_bench.errors import UserError
from pet_bench.spec import validate
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.vqa import VQA
from pet_bench.trial.resolve import check_selection
from tests.data import roots

# Ten images, asked about in turn, so that no cut by examples would keep an image's two questions together.
EXAMPLES = [Example(str(i), "q", (f"VG/{i % 10}",)) for i in range(20)]


def ids(text):
    (part,) = SplitPart.parse(text)
    return [int(example.id) for example in part.of(iter(EXAMPLES))]


def test_a_part_counts_images_in_the_order_of_their_first_use():
    assert ids("train") == list(range(20))
    assert ids("train[:30%]") == [0, 1, 2, 10, 11, 12]
    assert ids("train[90%:]") == [9, 19]
    assert ids("train[20%:40%]") == ids("train[20:40]") == [2, 3, 12, 13]


@pytest.mark.parametrize("cut", [1, 5, 33, 50, 99])
def test_two_parts_are_the_whole_and_share_no_image(cut):
    low, high = ids(f"train[:{cut}%]"), ids(f"train[{cut}%:]")
    assert sorted(low + high) == list(range(20))
    assert not {i % 10 for i in low} & {i % 10 for i in high}


@pytest.mark.parametrize(
    "text", ["train[", "train[5]", "train[:0%]", "train[60%:40%]", "train[:101%]", "[:5%]", "a++b"]
)
def test_a_malformed_part_is_refused(text):
    with pytest.raises(UserError, match=r'split ".*": expected NAME or NAME\[FROM%:TO%\]'):
        validate(GQA, {"train": text}, "gqa")


def test_overlaps():
    assert overlap("train+valid[:50%]", "valid[50%:]") is None
    assert overlap("train+valid[:51%]", "valid[50%:]") == "valid"
    assert overlap("a", "b") is overlap(None, "a") is None
    with pytest.raises(UserError, match='"testdev" is both trained on and tested on'):
        validate(GQA, {"train": "testdev[:50%]"}, "gqa")


def test_a_held_out_part_is_read_from_disk(tmp_path):
    root = roots.gqa(tmp_path)
    whole = GQA().examples(root, "train")
    task = GQA(train="train+valid[:50%]", valid="valid[50%:]")
    train, valid = task.examples(root, "train"), task.examples(root, "valid")
    assert valid and [e.id for e in train + valid] == [e.id for e in whole]
    assert not {e.images for e in train} & {e.images for e in valid}
    assert task.sources(root, "valid") == [root / "GQA" / "valid.json"]


def test_selection_is_never_by_what_is_tested_or_trained_on():
    check_selection([VQA()])
    check_selection([VQA(), GQA(train="train+valid[:95%]", valid="valid[95%:]")])
    check_selection([VQA(), GQA(valid=None)])
    with pytest.raises(UserError) as caught:
        check_selection([VQA(), GQA(), TVC(), VQA(valid="karpathy_train")])
    gqa, tvc, vqa = caught.value.faults
    assert 'gqa has "testdev" in its valid and in its test split' in gqa
    assert 'gqa.train="valid[:95%]" and gqa.valid="valid[95%:]"' in gqa
    assert 'tvc has "val" in its valid and in its test split' in tvc
    assert 'vqa has "karpathy_train" in its valid and in its train split' in vqa
    with pytest.raises(UserError, match="no task has a validation split"):
        check_selection([VQA(valid=None)])
