"""What examples count towards in breakdowns."""

from __future__ import annotations

from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.how2qa import How2QA
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.nlvr_v1 import NLVRv1
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.vqa import VQA
from tests.data import roots
from tests.tasks.test_clips import QUESTION, write


def groups(task, root, split="test"):
    return [example.groups for example in task.examples(root, split)]


def test_vqa(tmp_path):
    found = groups(VQA(), roots.vqa(tmp_path))
    assert found[0] == {"question type": "is the", "answer type": "yes/no", "length": "1-5"}
    assert found[1] == {"question type": "what colour", "answer type": "other", "length": "1-5"}
    assert groups(VQA(), tmp_path, "train")[0] == {}


def test_gqa_has_types_in_the_official_files_only(tmp_path):
    assert groups(GQA(), roots.gqa(tmp_path))[0] == {"length": "1-5"}
    types = {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"}
    question = {"imageId": "n1", "question": "is the dog blue", "answer": "yes", "types": types}
    roots.dump(tmp_path / "GQA" / "official.json", {"1": question})
    assert groups(GQA(test="official"), tmp_path) == [
        {"structural type": "verify", "semantic type": "attr", "length": "1-5"}
    ]


def test_statements_and_captions_have_their_length(tmp_path):
    assert groups(NLVR2(), roots.nlvr2(tmp_path))[0] == {"length": "21+"}
    assert groups(NLVRv1(), roots.nlvr_v1(tmp_path))[0].keys() == {"length"}
    assert groups(CocoCaption(), roots.coco_caption(tmp_path))[0].keys() == {"length"}


def test_clips(tmp_path):
    assert groups(TVQA(), write(tmp_path, TVQA)) == [{"show": "Castle", "length": "1-5"}]
    assert groups(TVC(unit="clip"), write(tmp_path, TVC)) == [{"length": "1-5"}]
    assert groups(TVC(), tmp_path) == [{"length": "1-5"}] * 2


def test_how2qa_whose_rows_have_no_show(tmp_path):
    row = {key: value for key, value in QUESTION.items() if key not in ("a4", "show_name")}
    assert groups(How2QA(), write(tmp_path, How2QA, row)) == [{"length": "1-5"}]
