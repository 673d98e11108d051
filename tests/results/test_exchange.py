"""Exports against peft's key structure and huggingface_hub's own reader."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.registry import TASKS
from pet_bench.results import store
from pet_bench.results.check import check
from pet_bench.results.exchange.model_index import to_model_index
from pet_bench.results.exchange.names import experiment, hub_name
from pet_bench.results.exchange.peft import to_peft
from pet_bench.results.schema import Point, Run, TrialResult

# keys and types of a real file, method_comparison/MetaMathQA/results/ewora--llama-3.2-3B-default.json of 2026-09
THEIRS = json.loads((Path(__file__).parent / "peft_method_comparison.json").read_text())
TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool}
OURS = {"betas", "eps", "pet-bench-version", "pet-bench-commit-hash", "pet-bench", "mem allocated max", "test average"}


@pytest.fixture
def make(make_result):
    """A result; `spec` is merged into its spec, `change` are its own fields."""

    def build(spec=None, **change):
        keys = {key: change.pop(key) for key in ("vqa", "gqa", "control", "label", "method", "seed") if key in change}
        data = make_result(**keys).model_dump() | change
        data["spec"] |= spec or {}
        return TrialResult.model_validate(data)

    return build


def only(task, result):
    """The result with one task only."""
    spec = result.spec | {"tasks": [task]}
    return result.model_copy(update={"spec": spec, "metrics": {task: result.metrics[task]}})


CURVE = [
    Point(step=2, epoch=1.0, split="train", task="vqa", loss=2.0),
    Point(step=2, epoch=1.0, split="train", task="gqa", loss=1.0),
    Point(step=2, epoch=1.0, split="valid", task="vqa", metrics={"accuracy": 50.0}),
    Point(step=2, epoch=1.0, split="valid", task="gqa", metrics={"accuracy": 30.0}),
    Point(step=4, epoch=2.0, split="train", task="vqa", loss=math.inf),
    Point(step=4, epoch=2.0, split="train", task="gqa", loss=0.5),
    Point(step=4, epoch=2.0, split="valid", task="vqa", metrics={"accuracy": 55.0}),
    Point(step=4, epoch=2.0, split="valid", task="gqa", metrics={"accuracy": 35.0}),
]


# peft


def assert_shaped(ours, theirs, place=""):
    """All of their keys first and in their order, values of their types or null, and no others but ours."""
    if isinstance(theirs, str):
        assert ours is None or (isinstance(ours, TYPES[theirs]) and (theirs == "bool") == isinstance(ours, bool)), place
    elif ours is None:
        assert place in (".run_info.peft_config", ".run_info.train_config.generation_kwargs"), place
    else:
        assert list(ours)[: len(theirs)] == list(theirs), place
        extra = [key for key in list(ours)[len(theirs) :] if key not in OURS]
        assert all(key.startswith(("train ", "valid ", "test ")) for key in extra), (place, extra)
        for key, inner in theirs.items():
            assert_shaped(ours[key], inner, f"{place}.{key}")


@pytest.mark.parametrize("curve", [CURVE, []])
def test_it_has_the_keys_of_a_real_file(make, curve):
    found = to_peft(make(curve=[point.model_dump() for point in curve]))
    theirs = json.loads(json.dumps(THEIRS))
    *moments, tested = found["train_info"].pop("metrics")
    moment, last = theirs["train_info"].pop("metrics")
    assert_shaped(tested, last)
    assert len(moments) == len({point.step for point in curve})
    for one in moments:
        assert_shaped(one, moment)
    assert found["meta_info"]["dataset_info"].keys() == {"vqa", "gqa"}
    for about in found["meta_info"]["dataset_info"].values():
        assert_shaped(about, theirs["meta_info"]["dataset_info"]["<data set>"])
    found["meta_info"]["dataset_info"] = theirs["meta_info"]["dataset_info"] = {}
    theirs["run_info"]["peft_config"].pop("r")  # the method's own
    found["run_info"]["peft_config"] = {k: v for k, v in found["run_info"]["peft_config"].items() if k != "rank"}
    assert_shaped(found, theirs)


def test_what_is_measured_stands_there_and_nothing_else(make):
    result = make(vqa=60.0, gqa=40.0, curve=[point.model_dump() for point in CURVE])
    found = to_peft(result)
    run, train, meta = found["run_info"], found["train_info"], found["meta_info"]
    assert run["created_at"] == result.provenance.started
    assert run["train_config"]["model_id"] == "facebook/bart-base"
    assert run["train_config"]["eval_steps"] == 2
    assert run["train_config"]["optimizer_kwargs"] == {
        "lr": 1e-3,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "eps": 1e-6,
    }
    assert run["error_msg"] == ""
    assert (train["train_time"], train["file_size"], train["status"]) == (3.0, 40, "success")
    assert (train["num_trainable_params"], train["num_total_params"]) == (10, 1000)
    assert train["accelerator_memory_max"] is None  # a CPU's; and what we have is not what torch has reserved
    first, second, tested = train["metrics"]
    assert (first["step"], first["train loss"], first["valid accuracy"]) == (2, 1.5, None)
    assert first["valid vqa accuracy"] == 50.0
    assert (second["train vqa loss"], second["train gqa loss"], second["train loss"]) == (None, 0.5, None)
    assert (tested["step"], tested["train samples"], tested["test average"]) == (4, 6, 50.0)
    assert (tested["test accuracy"], tested["test vqa accuracy"], tested["test gqa extra"]) == (None, 60.0, 1.0)
    assert (meta["system_info"]["accelerator"], tested["mem allocated max"]) == (None, None)
    assert meta["pet-bench"]["spec"] == result.spec
    json.dumps(found, allow_nan=False)


def test_accuracy_of_a_lone_task_is_a_fraction_as_theirs(make):
    tested = to_peft(only("vqa", make(vqa=60.0)))["train_info"]["metrics"][-1]
    assert (tested["test accuracy"], tested["test vqa accuracy"]) == (0.6, 60.0)
    captions = only("vqa", make())
    captions.metrics["vqa"] = {"CIDEr": captions.metrics["vqa"]["accuracy"]}
    assert to_peft(captions)["train_info"]["metrics"][-1]["test accuracy"] is None


def test_forgetting_and_what_answers_take(make):
    losses = {"before": 1.0, "after": 1.25, "tokens": 9, "text": "0123456789ab"}
    taken = {"batch_size": 7, "latency_seconds": 0.5, "flops": 9.0}
    found = to_peft(make(forgetting={"vqa": losses, "text": losses | {"after": 3.5}}, inference={"vqa": taken}))
    assert found["train_info"]["metrics"][-1]["forgetting"] == 2.5  # theirs is on text
    ours = found["meta_info"]["pet-bench"]
    assert ours["inference"] == {"vqa": taken}
    assert ours["forgetting"] == {"vqa": losses, "text": losses | {"after": 3.5}}
    lost = to_peft(make(forgetting={"text": losses | {"after": math.inf}}))
    assert lost["train_info"]["metrics"][-1]["forgetting"] is None
    json.dumps(lost, allow_nan=False)
    assert to_peft(make(forgetting={"vqa": losses}))["train_info"]["metrics"][-1]["forgetting"] is None
    assert not {"inference", "forgetting"} & to_peft(make())["meta_info"]["pet-bench"].keys()


def test_memory_of_an_accelerator(make):
    result = make()
    result.cost.p99_memory_bytes = 4
    assert to_peft(result)["train_info"]["accelerator_memory_reserved_99th"] is None  # it is the process's
    result.provenance.device = "NVIDIA Something"
    found = to_peft(result)
    assert found["meta_info"]["system_info"]["accelerator"] == "NVIDIA Something"
    assert found["train_info"]["metrics"][-1]["mem allocated max"] == 5
    assert found["train_info"]["accelerator_memory_reserved_99th"] == 4


@pytest.mark.parametrize(
    "method, theirs", [("full", None), ("peft:lora", "LORA"), ("lora", "lora"), ("vl-pet-large", "vl-pet-large")]
)
def test_only_full_fine_tuning_has_no_peft_config(make, method, theirs):
    config = to_peft(make({"method": {"name": method, "options": {"r": 8}}}))["run_info"]["peft_config"]
    assert (config and config["peft_type"], config and config["r"]) == (theirs, theirs and 8)


@pytest.mark.parametrize(
    "status, theirs",
    [
        ("done", "success"),
        ("suspect", "failed"),
        ("failed", "failed"),
        ("oom", "failed"),
        ("stopped_early", "canceled"),
    ],
)
def test_only_done_is_a_success(make, status, theirs):
    error = None if status == "done" else "no luck"
    found = to_peft(make(status=status, error=error))
    assert (found["train_info"]["status"], found["run_info"]["error_msg"]) == (theirs, error or "")


def test_a_trial_that_died_at_once(make):
    found = to_peft(make(status="failed", error="no luck", metrics={}, cost=None, parameters=None, average=None))
    assert found["train_info"]["metrics"] == []
    assert found["train_info"]["train_time"] is None


def test_the_time_of_an_interrupted_trial_is_not_known(make):
    assert to_peft(make())["run_info"]["total_time"] > 0
    assert to_peft(make(run=Run(resumed=[2]).model_dump()))["run_info"]["total_time"] is None


def test_every_trial_has_a_name_of_its_own(make_result):
    results = [
        make_result(),
        make_result(seed=1),
        make_result(lr=2e-3),
        make_result(control="noise"),
        make_result(method="peft:lora", label='peft:lora(r=8, x="../a|b", π)', backbone="owner/model"),
        make_result(method="design", label=f"design({'encoder.self_attn=sequential, ' * 40})", backbone="/a/b" * 40),
    ]
    names = [experiment(result) for result in results]
    assert len(set(names)) == len(names)
    assert names[0] == f"lora/bart-base-image-text-seed-0-{results[0].id}"
    assert names[4] == f"peft-lora/owner-model-image-text-r-8-x-..-a-b-seed-0-{results[4].id}"
    assert "noise" in names[3]
    assert all(name.count("/") == 1 and name.isascii() and " " not in name and len(name) < 240 for name in names)


def test_hub_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my/model").mkdir(parents=True)
    found = [hub_name(name) for name in ("t5-base", "mini-t5", "google/flan-t5-base", "my/model", "./my/model", "/a/b")]
    assert found == ["google-t5/t5-base", None, "google/flan-t5-base", None, None, None]


# model-index


def assert_read_alike(index):
    """Written again from what huggingface_hub reads, it is the same."""
    for entry in index:
        name, results = model_index_to_eval_results([entry])
        assert results
        assert eval_results_to_model_index(name, results) == [entry]


def test_huggingface_hub_reads_it(make):
    result = make(vqa=60.0, gqa=40.0, spec={"protocol": {"gqa": {"prompt": "gqa: "}}})
    result.metrics["vqa"]["accuracy"].options = {"version": "2016"}
    (entry,) = index = to_model_index([result])
    assert_read_alike(index)
    vqa, gqa = model_index_to_eval_results([entry])[1][::2]
    assert (vqa.task_type, vqa.dataset_type, vqa.dataset_name) == ("visual-question-answering", "vqa-v2", "VQA v2")
    assert (vqa.metric_type, vqa.metric_value, vqa.metric_args) == ("accuracy", 60.0, {"version": "2016"})
    assert (vqa.dataset_split, vqa.dataset_revision) == ("test", "d0")
    assert gqa.dataset_args == {"examples": 7, "prompt": "gqa: "}
    assert yaml.safe_load(yaml.safe_dump(index)) == index


def test_tasks_of_a_suite_are_kept_apart(make):
    """huggingface_hub puts together what has the same task type, data set, split and revision."""
    for suite in ("video-text", "mini-video-text", "mini-image-text"):
        result = make({"suite": suite, "tasks": TASKS.names()})
        result.metrics = dict.fromkeys(TASKS.names(), result.metrics["vqa"])
        assert_read_alike(to_model_index([result]))


def test_every_task_has_its_place_on_the_hub():
    """But for people's own conversations."""
    places = {name: TASKS.get(name).hub for name in TASKS.names()}
    assert places.pop("chat") is None
    assert all(len(place) == 3 for place in places.values())


@pytest.mark.parametrize("suite", ["mini-image-text", "mini-image-text/vqa+gqa", "mini-video-text"])
def test_nobody_takes_a_mini_world_for_the_real_data(make, suite):
    for found in to_model_index([make({"suite": suite})])[0]["results"]:
        assert found["dataset"]["name"].startswith("Stand-in for ")
        assert found["dataset"]["type"].startswith("mini-")


def test_controls_and_suspect_results_say_so(make):
    (entry,) = to_model_index([make(control="text-only", status="suspect", error="all the same")])
    for found in entry["results"]:
        assert "text-only control" in found["dataset"]["name"]
        assert all("suspect" in metric["name"] for metric in found["metrics"])


def test_what_json_has_no_number_for_is_left_out(make):
    result = make()
    result.metrics["vqa"]["extra"].value = math.nan
    metrics = to_model_index([result])[0]["results"][0]["metrics"]
    assert [metric["name"] for metric in metrics] == ["accuracy"]


def test_a_task_and_a_suite_of_somebodys_own(make):
    result = make()
    result.metrics = {"mine": result.metrics["vqa"]}
    assert_read_alike(to_model_index([result]))
    with pytest.raises(UserError, match="nowhere"):
        to_model_index([make({"suite": "nowhere"})])


# the command


@pytest.fixture
def folder(make_result, tmp_path, monkeypatch):
    """results/g with two results of a grid, one of another seed and one that failed."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "results" / "g"
    for result in (make_result(), make_result(seed=1)):
        store.save(result, out)
    failed = make_result(method="full", status="failed", error="no luck")
    store.save(failed.model_copy(update={"metrics": {}, "average": None}), out)
    return out


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


def test_files_for_peft(call, folder):
    faults = check(folder)
    code, said, _ = call("export", "g", "--format", "peft")
    assert (code, said) == (0, "wrote 3 files to results/g/report/peft\n")
    files = sorted((folder / "report/peft").iterdir())
    names = [json.loads(file.read_text())["run_info"]["experiment_name"] for file in files]
    assert [file.name for file in files] == [f"{name.replace('/', '--')}.json" for name in names]
    before = {file: file.read_bytes() for file in files}
    assert call("export", folder, "--format", "peft")[0] == 0
    assert {file: file.read_bytes() for file in (folder / "report/peft").iterdir()} == before
    assert store.load_all(folder).keys() == {
        json.loads(text)["meta_info"]["pet-bench"]["id"] for text in before.values()
    }
    assert check(folder) == faults  # what has been exported is no result
    assert call("export", "g", "--format", "peft", "--out", "elsewhere")[1] == "wrote 3 files to elsewhere\n"


def test_a_model_index(call, folder):
    code, said, left = call("export", "g", "--format", "model-index")
    index = yaml.safe_load(said)["model-index"]
    assert (code, len(index), left) == (0, 2, "1 without scores is left out\n")
    assert_read_alike(index)
    for name in ("a/index.yaml", "a/index.json"):
        assert call("export", "g", "g", "--format", "model-index", "--out", name)[:2] == (0, f"wrote {name}\n")
        text = Path(name).read_text()
        assert (json.loads if name.endswith("json") else yaml.safe_load)(text) == {"model-index": index}


def test_one_trial_by_its_id_and_by_its_path(call, folder, make_result):
    id = make_result(seed=1).id
    for source in (id[:6], f"results/g/{id}.json", f"results/g/{id}"):
        _, said, _ = call("export", source, "--format", "model-index")
        (entry,) = yaml.safe_load(said)["model-index"]
        assert entry["name"].endswith(id)


def test_a_grid_means_its_own_trials(call, make_result, tmp_path, monkeypatch):
    from pet_bench.grid.plan.spec import load

    monkeypatch.chdir(tmp_path)
    grid = {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora"]}
    Path("g.yaml").write_text(yaml.safe_dump(grid))
    (trial,) = load("g.yaml").trials()
    other = make_result()
    metrics = dict.fromkeys(trial.tasks, other.metrics["vqa"])
    own = {"id": trial.id, "spec": trial.to_dict(), "metrics": metrics, "average": 60.0}
    mine = TrialResult.model_validate(other.model_dump() | own)
    for result in (other, mine):
        store.save(result, Path("results/g"))
    _, said, _ = call("export", "g.yaml", "--format", "model-index")
    (entry,) = yaml.safe_load(said)["model-index"]
    assert entry["name"].endswith(trial.id)


def test_faults_of_all_sources_are_told_together(call, folder, make_result):
    (folder.parent / "empty").mkdir()
    code, said, errors = call("export", "nowhere", "empty", "g", "--format", "peft")
    assert (code, said) == (2, "")
    nowhere, empty = errors.splitlines()
    assert '"nowhere" is no grid' in nowhere
    assert '"empty" has no results in "results/empty"' in empty
    failed = make_result(method="full").id
    assert "none of 1 trials has scores" in call("export", failed, "--format", "model-index")[2]
