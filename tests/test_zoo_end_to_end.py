"""OK-VQA, TextVQA, VizWiz, ScienceQA and Flickr30k in their official layouts, from files to the table through the
command line, of features and of pictures."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from pet_bench.cli import main
from pet_bench.results import store
from tests.data import hub_zoo, zoo_roots
from tests.vlms.tiny import folder

SUITES = ("vqa-zoo", "science", "flickr30k")
TASKS = ("okvqa", "textvqa", "vizwiz", "scienceqa", "flickr30k-caption")
RECIPE = {"lr": 1e-3, "max_steps": 2, "batch_size": 4, "valid_every": 0}
GRID = {"name": "mine", "suites": [*SUITES], "backbones": ["mini-bart"], "methods": ["lora"], "recipe": RECIPE}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return zoo_roots.everything(tmp_path_factory.mktemp("zoo") / "datasets")


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return (caught.value.code or 0), *capsys.readouterr()

    return run


def test_from_features_to_the_table(call, data, tmp_path):
    code, text, _ = call("data", "check", data)
    assert code == 0 and all(f"{suite}: a run would go through" in text for suite in SUITES), text
    for suite in SUITES:
        assert call("data", "pack", data, "--suite", suite)[0] == 0
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GRID))
    code, text, err = call("run", "mine.yaml", "--data", data, "--out", "out", "--executor", "inline")
    assert (tmp_path / "out").is_dir(), text + err
    results = store.load_all(tmp_path / "out").values()
    assert {task for result in results for task in result.metrics} == {*TASKS}
    (science,) = [result for result in results if result.spec["suite"] == "science"]
    assert {"accuracy", "accuracy-NAT", "accuracy-IMG", "accuracy-G1-6"} <= science.metrics["scienceqa"].keys()
    (zoo,) = [result for result in results if result.spec["suite"] == "vqa-zoo"]
    assert {"accuracy-other", "accuracy-unanswerable"} <= zoo.metrics["vizwiz"].keys()
    for result in results:
        code, text, err = call("score", tmp_path / "out" / f"{result.id}.json", "--data", data)
        assert code == 0 and all(task in text for task in result.metrics), text + err
    code, text, err = call("report", "mine.yaml", "--out", "out")
    assert code == 0 and all(task in text for task in TASKS), text + err


@pytest.fixture
def mixed(call, tmp_path):
    """The hub's copies, converted, and of what they lack the official files."""
    root = tmp_path / "datasets"
    zoo_roots.okvqa(root)
    zoo_roots.vizwiz(root)
    for path in (*root.glob("okvqa/*val2014*"), root / "vizwiz/val.json", root / "vizwiz/test.json"):
        path.unlink()
    shutil.rmtree(root / "vizwiz/images/val")
    for write in (hub_zoo.okvqa, hub_zoo.textvqa, hub_zoo.vizwiz, hub_zoo.scienceqa):
        write(tmp_path / "hub")
    code, text, err = call("data", "convert", tmp_path / "hub", root)
    assert code == 0, text + err
    return root


def test_from_pictures_to_the_table(call, mixed, tmp_path):
    """All of ScienceQA's questions, also those without an image, and the words in TextVQA's."""
    data = mixed
    backbone = folder("llava", tmp_path / "checkpoint")
    protocol = {
        "scienceqa": {"questions": "all", "style": "llava-1.5", "answered": "chosen"},
        "textvqa": {"ocr": True},
        "vizwiz": {"style": "llava-1.5"},
    }
    for suite, tasks in (("science", ("scienceqa",)), ("vqa-zoo", ("textvqa", "vizwiz"))):
        settings = [f"{task}.{key}={value}" for task in tasks for key, value in protocol[task].items()]
        options = [part for setting in settings for part in ("--set", setting)]
        assert call("data", "check", data, "--suite", suite, "--fed", "pixels", *options)[0] == 0
        assert call("data", "pack", data, "--suite", suite, "--fed", "pixels", *options)[0] == 0
    grid = GRID | {"suites": ["science", "vqa-zoo"], "backbones": [str(backbone)], "protocol": protocol}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(grid))
    _, text, err = call("run", "mine.yaml", "--data", data, "--out", "out", "--executor", "inline")
    results = [*store.load_all(tmp_path / "out").values()]
    assert len(results) == 2 and all(result.status in ("done", "suspect") for result in results), text + err
    (science,) = [result for result in results if result.spec["suite"] == "science"]
    assert {"accuracy-NO", "accuracy-TXT"} <= science.metrics["scienceqa"].keys()
    assert call("report", "mine.yaml", "--out", "out")[0] == 0


@pytest.mark.parametrize(
    ("harm", "options", "said"),
    [
        (
            lambda root: (root / "vizwiz/images/val/VizWiz_val_00000002.jpg").unlink(),
            ("vqa-zoo",),
            "VizWiz_val_00000002 is missing",
        ),
        (
            lambda root: shutil.rmtree(root / "textvqa/images"),
            ("vqa-zoo",),
            "textvqa/images/000000000000000a is missing",
        ),
        (
            lambda root: (root / "scienceqa/images/test/12/image.png").write_bytes(b"GIF89a"),
            ("science",),
            "12/image.png",
        ),
        (
            lambda root: (root / "okvqa/mscoco_val2014_annotations.json").write_text("{"),
            ("vqa-zoo",),
            "is not valid JSON",
        ),
        (
            lambda root: (root / "flickr30k/dataset_flickr30k.json").unlink(),
            ("flickr30k",),
            "dataset_flickr30k.json is missing",
        ),
    ],
    ids=["picture", "folder", "no picture", "json", "file"],
)
def test_what_is_missing_stops_a_run_before_anything_is_written(harm, options, said, call, tmp_path):
    root = zoo_roots.everything(tmp_path / "datasets")
    harm(root)
    code, text, _ = call("data", "check", root, "--suite", *options, "--fed", "pixels")
    assert code == 1 and said in text.replace("\n", ""), text
    backbone = folder("llava", tmp_path / "checkpoint")
    code, _, err = call(
        "run", "--suite", *options, "--data", root, "--backbone", backbone, "--method", "lora", "--out", "out",
        "--set", "recipe.lr=1e-3", "--executor", "inline",
    )  # fmt: skip
    assert code == 2 and said in err, err
    assert not store.load_all(tmp_path / "out")


OFFICIAL = {
    "textvqa-accuracy": (
        "textvqa/TextVQA_0.5.1_val.json",
        [{"question_id": 34612 + i, "answer": said} for i, said in enumerate(("Ale.", "stella's", "no"))],
        {"accuracy": (100 + 60 + 0) / 3},
    ),
    "vizwiz-accuracy": (
        "vizwiz/val.json",
        [
            {"image": f"VizWiz_val_{i:08d}.jpg", "answer": said}
            for i, said in enumerate(("soup", "unanswerable", "tomato soup", "cat"))
        ],
        {"accuracy": (100 + 100 + 30 + 60) / 4, "accuracy-other": 65.0, "accuracy-unanswerable": 80.0},
    ),
    "vqa-accuracy": (
        "okvqa/mscoco_val2014_annotations.json",
        [{"question_id": 205 + 10 * i, "answer": said} for i, said in enumerate(("racing", "ride", "no"))],
        {"accuracy": (100 + 60 + 0) / 3},
    ),
    "scienceqa-accuracy": (
        "scienceqa/problems.json",
        {"results": {"11": 1, "12": 1, "13": -1, "14": 0, "15": 1}},  # right: 1, 0, 1, 0, 1
        {"accuracy": 60.0, "accuracy-NO": 100.0, "accuracy-IMG": 100 / 3, "accuracy-TXT": 50.0},
    ),
}


@pytest.mark.parametrize("metric", OFFICIAL)
def test_submissions_in_the_official_form(metric, call, data, tmp_path):
    annotations, submission, expected = OFFICIAL[metric]
    (tmp_path / "mine.json").write_text(json.dumps(submission))
    options = ("--metric", metric, "--annotations", data / annotations, "--format", "json")
    code, text, err = call("score", "mine.json", *options)
    assert code == 0, err
    scores = json.loads(text)["values"]
    assert {key: scores[key] for key in expected} == pytest.approx(expected)


def test_a_submission_of_scienceqas_image_subset(call, data, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"results": {"11": 1, "12": 0, "13": 0}}))
    code, text, err = call(
        "score", "mine.json", "--metric", "scienceqa-accuracy", "--annotations", data / "scienceqa/problems.json"
    )
    assert code == 0 and "2 of 5 questions of the test split have no image" in text + err
