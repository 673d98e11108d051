"""Exports that lmms-eval's own loader reads, and the hub's evaluation results by huggingface_hub's own classes."""

from __future__ import annotations

import json
from statistics import mean, stdev

import pytest
from huggingface_hub import parse_eval_result_entries
from scipy.stats import ttest_rel

from pet_bench.data.task import Example
from pet_bench.errors import UserError
from pet_bench.files import parse_yaml
from pet_bench.results import predictions, store
from pet_bench.results.exchange import lmms_eval
from pet_bench.results.exchange.eval_results import to_eval_results
from tests.conftest import ROOT

MINI = ROOT / "results" / "mini-image-text-bart"
TASKS = {"vqa": ("accuracy", 500), "gqa": ("accuracy", 500), "nlvr2": ("accuracy", 504), "coco-caption": ("CIDEr", 100)}


def trial(method, seed=0):
    found = store.load_all(MINI).values()
    return next(one for one in found if (one.spec["method"]["name"], one.spec["seed"]) == (method, seed))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By method: its folder, as the command writes it."""
    from pet_bench.cli import main

    out, ids = tmp_path_factory.mktemp("lmms"), {name: trial(name).id for name in ("lora", "vl-adapter")}
    with pytest.raises(SystemExit) as stopped:
        main(["export", *(str(MINI / f"{id}.json") for id in ids.values()), "--format", "lmms-eval", "--out", str(out)])
    assert not stopped.value.code
    return {name: next(out.glob(f"*{id}")) for name, id in ids.items()}


def lines(folder, task):
    (file,) = folder.glob(f"*_samples_{task}.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_what_was_said_and_scored_is_all_there_in_the_order_of_the_split(exported, task):
    result, (metric, count) = trial("lora"), TASKS[task]
    rows = lines(exported["lora"], task)
    said = predictions.read(MINI / predictions.name(result.id, task), metric)
    assert [row["doc_id"] for row in rows] == [*range(count)]
    assert {row["id"]: (row["filtered_resps"], 100 * row["score"]) for row in rows} == {
        id: (text, pytest.approx(score)) for id, (text, score) in said.items()
    }
    assert all(row["input"] and row["target"] for row in rows)
    about = json.loads(next(exported["lora"].glob("*_results.json")).read_text())
    shown, scores = about["results"][task], [row["score"] for row in rows]
    assert shown[f"{metric},none"] == pytest.approx(result.metrics[task][metric].value / 100)
    assert shown[f"{metric}_stderr,none"] == pytest.approx(stdev(scores) / count**0.5)
    assert about["n-samples"][task] == {"original": count, "effective": count}
    assert about["higher_is_better"][task][metric] is True


@pytest.mark.parametrize("task", TASKS)
def test_its_own_loader_pairs_two_trials_as_we_do(exported, task):
    reason = "lmms-eval is not installed (`pip install --no-deps lmms-eval`: its loader needs nothing else)"
    loader = pytest.importorskip("lmms_eval.baselines.loader", reason=reason)
    scores = {}
    for name, folder in exported.items():
        (file,) = folder.glob(f"*_samples_{task}.jsonl")
        scores[name], together = loader.load_baseline(str(file), task)
        metric = TASKS[task][0]
        assert together["results"][task][f"{metric},none"] == pytest.approx(mean(scores[name].values()))
    assert scores["lora"].keys() == scores["vl-adapter"].keys()
    theirs = ttest_rel(*([one[doc] for doc in sorted(one)] for one in scores.values()))
    both = [predictions.read(MINI / predictions.name(trial(name).id, task), TASKS[task][0]) for name in scores]
    ours = ttest_rel(*([one[id][1] for id in sorted(both[0])] for one in both))
    assert (theirs.statistic, theirs.pvalue) == pytest.approx((ours.statistic, ours.pvalue))


def test_examples_of_other_data_and_lost_predictions_are_refused(tmp_path):
    result = trial("lora")
    with pytest.raises(UserError, match="500 of 500 examples are not in the data"):
        lmms_eval.samples(result, "vqa", [Example("x", "vqa: what?", ())], MINI)
    with pytest.raises(UserError, match="its predictions for vqa are not in"):
        lmms_eval.samples(result, "vqa", [], tmp_path)


def test_a_score_that_is_no_mean_of_examples_has_no_error(make_result):
    """BLEU is one of all together."""
    result = make_result(vqa=60.0)
    said = [{"score": 0.5, "doc_hash": "a"}, {"score": 0.9, "doc_hash": "b"}]
    other = lmms_eval.results(result, dict.fromkeys(result.metrics, said))
    assert other["results"]["vqa"]["accuracy_stderr,none"] == "N/A"


# the hub's .eval_results/


def test_the_hubs_classes_read_what_they_wrote(make_result, tmp_path):
    from pet_bench.cli import main

    result = make_result(vqa=61.5, gqa=40.25)
    store.save(result, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("export", str(tmp_path / f"{result.id}.json"), "--format", "eval-results"),
                *("--benchmark", "vqa=somebody/VQAv2:vqa_v2", "--benchmark", "gqa=somebody/GQA"),
                *("--source-url", "https://example.org/table", "--out", str(tmp_path / "out")),
            ]
        )
    assert not stopped.value.code
    (file,) = (tmp_path / "out").iterdir()
    first, second = parse_eval_result_entries(parse_yaml(file.read_text("utf-8"), "it"))
    assert (first.dataset_id, first.task_id, first.value) == ("somebody/VQAv2", "vqa_v2", 61.5)
    assert (second.dataset_id, second.task_id, second.value) == ("somebody/GQA", "gqa", 40.25)
    assert (first.source_url, first.source_name) == ("https://example.org/table", "pet-bench")
    assert result.id in first.notes and result.provenance.data in first.notes
    assert result.provenance.finished.startswith(first.date) and first.dataset_revision is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suite": "mini-image-text"}, "mini-image-text is drawn by pet-bench"),
        ({"control": "text-only"}, "is a text-only control"),
        ({}, "which benchmark of the hub is gqa"),
    ],
    ids=str,
)
def test_what_would_be_a_false_claim_is_refused(make_result, change, said):
    result = make_result()
    result = result.model_copy(update={"spec": result.spec | change})
    with pytest.raises(UserError, match=said):
        to_eval_results(result, {"vqa": "a/b"})


@pytest.mark.parametrize("text", ["vqa", "vqa=", "=a/b", "vqa=a", "vqa=a/b/c", "vqa=../b:x y"])
def test_a_benchmark_is_an_owner_and_a_data_set(text, capsys):
    from pet_bench.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["export", str(MINI), "--format", "eval-results", "--benchmark", text])
    assert stopped.value.code == 2
    assert f'--benchmark takes TASK=OWNER/DATASET[:TASK_ID], found "{text}"' in capsys.readouterr().err
