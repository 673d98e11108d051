"""METEOR and the Java tokeniser by a stand-in of their package, and refused in one line where it is missing."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics import java
from pet_bench.metrics.cider import CIDEr
from pet_bench.metrics.meteor import METEOR
from pet_bench.metrics.ptb import tokenize
from pet_bench.metrics.scores import Item

PACKAGE = "pycocoevalcap"


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the package whose tokeniser is ours and whose METEOR is the share of words in a reference."""

    class PTBTokenizer:
        def tokenize(self, captions):
            assert all("\n" not in row["caption"] for rows in captions.values() for row in rows)
            return {key: [tokenize(row["caption"]) for row in rows] for key, rows in captions.items()}

    class Meteor:
        def compute_score(self, references, predictions):
            assert references.keys() == predictions.keys()
            scores = []
            for key, (prediction,) in predictions.items():
                known = {word for reference in references[key] for word in reference.split()}
                scores.append(len(known & {*prediction.split()}) / max(1, len(prediction.split())))
            return 0.25, scores

    for name, content in (
        (PACKAGE, {"__path__": []}),
        (f"{PACKAGE}.tokenizer", {"__path__": []}),
        (f"{PACKAGE}.tokenizer.ptbtokenizer", {"PTBTokenizer": PTBTokenizer}),
        (f"{PACKAGE}.meteor", {"__path__": []}),
        (f"{PACKAGE}.meteor.meteor", {"Meteor": Meteor}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(java, "find_spec", lambda name: name == PACKAGE)
    monkeypatch.setattr(java.subprocess, "run", lambda *a, **k: None)


ITEMS = [Item("7", {"captions": ["A dog runs.", "The dog\nis fast."]}), Item("8", {"captions": ["Two cats"]})]


def test_what_the_package_is_given_and_gives(package):
    scores = METEOR()({"7": "a fast bird", "8": ""}, ITEMS)
    assert scores.values == {"METEOR": 25.0}
    assert scores.per_example == {"7": pytest.approx(200 / 3), "8": 0.0}


@pytest.mark.parametrize("metric", [METEOR, CIDEr])
def test_the_java_tokeniser_is_an_option(package, metric):
    predictions = {"7": "a fast,\r\nbird.", "8": "two cats"}
    assert metric("java").tokenised(predictions, ITEMS) == metric("ptb").tokenised(predictions, ITEMS)


def test_the_java_tokeniser_reads_predictions_and_references_apart(monkeypatch):
    """As the official scorer has it: the program looks at the line that follows."""
    read = []
    monkeypatch.setattr(java, "tokenize", lambda texts: read.append(texts) or [text.lower() for text in texts])
    found = CIDEr("java").tokenised({"7": "A bird", "8": "Cats"}, ITEMS)
    assert read == [["A bird", "Cats"], ["A dog runs.", "The dog\nis fast.", "Two cats"]]
    assert found == [("7", "a bird", ["a dog runs.", "the dog\nis fast."]), ("8", "cats", ["two cats"])]


def test_what_is_missing_is_named(monkeypatch):
    def gone(*arguments, **options):
        raise FileNotFoundError("java")

    monkeypatch.setattr(java, "find_spec", lambda name: None)
    monkeypatch.setattr(java, "subprocess", SimpleNamespace(run=gone, SubprocessError=subprocess.SubprocessError))
    both = r"needs the package pycocoevalcap \(pip install 'pet-bench\[captions\]'\) and a Java that starts"
    for use in (METEOR().check, CIDEr("java").check, lambda: METEOR()({"7": "", "8": ""}, ITEMS)):
        with pytest.raises(UserError, match=both) as error:
            use()
        assert len(error.value.faults) == 1
    CIDEr().check()


def test_an_unknown_tokeniser():
    with pytest.raises(UserError, match='unknown tokeniser of captions "jav": did you mean "java"'):
        CIDEr("jav")
