"""`pet-bench score --metric`: anybody's predictions, in the official file formats."""

from __future__ import annotations

import json

import pytest

from tests.data.roots import lines
from tests.metrics.test_cider import SETS
from tests.metrics.test_nlvr_accuracy import as_published
from tests.test_cli import call  # noqa: F401


@pytest.fixture
def write(tmp_path):
    def file(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return file


@pytest.fixture
def scored(call):  # noqa: F811
    def run(*arguments):
        code, out, err = call("score", *arguments, "--format", "json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


@pytest.fixture
def refused(call):  # noqa: F811
    """The lines said, without their beginning."""

    def run(*arguments):
        code, out, err = call("score", *arguments)
        assert (code, out) == (2, "")
        start = "pet-bench: error: "
        assert all(line.startswith(start) for line in err.splitlines())
        return [line.removeprefix(start) for line in err.splitlines()]

    return run


@pytest.mark.parametrize("name", SETS)
def test_captions(scored, expectations, name):
    official = json.loads((expectations / "captions" / f"{name}.expected.json").read_text())["corpus"]
    file = expectations / "captions" / f"{name}.inputs.json"
    for metric, keys in {"cider": ["CIDEr"], "rouge-l": ["ROUGE_L"], "bleu": ["Bleu_4", "Bleu_1"]}.items():
        found = scored("--metric", metric, file)
        assert list(found["values"].values())[: len(keys)] == pytest.approx([100 * official[k] for k in keys], abs=0.05)
    assert found["n"] == len(found["per_example"]) == sum(part["n"] for part in found["breakdowns"]["length"].values())


def test_vqa(scored, expectations):
    folder = expectations / "vqa"
    files = [folder / "synthetic_results.json", "--annotations", folder / "synthetic_annotations.json"]
    for version, name in (("2016", "458a8b2"), ("2021", "a013f00")):
        official = json.loads((folder / f"accuracy_official_{version}_{name}.json").read_text())
        found = scored("--metric", "vqa-accuracy", *files, "--set", f"version={version}")
        assert round(found["values"]["accuracy"], 2) == official["overall"]
        assert {key: round(value, 2) for key, value in found["per_example"].items()} == official["evalQA"]
        parts = found["breakdowns"]["question type"]
        assert {key: round(part["value"], 2) for key, part in parts.items()} == official["perQuestionType"]


def test_nlvr2(scored, expectations, tmp_path):
    perfect = expectations / "nlvr2" / "predictions_subset_perfect.csv"
    annotations = lines(tmp_path / "dev.json", as_published(perfect))
    for name, official in json.loads((expectations / "nlvr2" / "expected.json").read_text()).items():
        file = expectations / "nlvr2" / name
        if file.is_file():
            found = scored("--metric", "nlvr-accuracy", file, "--annotations", annotations)
            assert found["values"] == pytest.approx({key: 100 * value for key, value in official.items()})


def test_small_files_of_every_format(scored, write):
    """Without the reference material."""
    captions = [{"id": i, "prediction": "a dog runs", "references": [f"a dog runs {w}"]} for i, w in enumerate("xy")]
    assert scored("--metric", "rouge-l", write("c.json", captions))["n"] == 2
    results = [{"question_id": 1, "answer": "Yes."}, {"question_id": 2, "answer": "no"}]
    truth = [
        {"question_id": i, "question_type": "is", "answer_type": "yes/no", "answers": [{"answer": "yes"}] * 10}
        for i in (1, 2)
    ]
    found = scored(
        "--metric", "vqa-accuracy", write("r.json", results), "--annotations", write("a.json", {"annotations": truth})
    )
    assert found["per_example"] == {"1": 100.0, "2": 0.0}
    assert found["breakdowns"]["question type"] == {"is": {"value": 50.0, "n": 2}}

    pairs = [{"identifier": f"dev-1-{i}-0", "label": "True", "sentence": "it is"} for i in (0, 1)]
    lines = write("dev.json", "".join(json.dumps(pair) + "\n" for pair in pairs))
    csv = write("p.csv", "identifier,prediction\ndev-1-0-0,True\ndev-1-1-0,false\n")
    found = scored("--metric", "nlvr-accuracy", csv, "--annotations", lines)
    assert found["values"] == {"accuracy": 50.0, "consistency": 0.0}

    shows = [{"qid": i, "answer_idx": i, "q": "who", "show_name": name} for i, name in enumerate(("A", "A", "B"))]
    lines = write("q.jsonl", "".join(json.dumps(show) + "\n" for show in shows))
    answers = write("m.json", {"0": 0, "1": "a1", "2": "1"})
    found = scored("--metric", "multiple-choice-accuracy", answers, "--annotations", lines)
    assert found["breakdowns"]["show"] == {"A": {"value": 100.0, "n": 2}, "B": {"value": 0.0, "n": 1}}
    plain = write("t.json", {"0": 0, "1": 1, "2": 2})
    again = scored("--metric", "multiple-choice-accuracy", answers, "--annotations", plain)
    assert again["values"] == found["values"] == {"accuracy": pytest.approx(200 / 3)}

    question = {"question": "is it", "answer": "yes", "types": {"structural": "verify", "semantic": "obj"}}
    truth = write("g.json", {"7": question})
    for content in ([{"questionId": "7", "prediction": "yes"}], {"7": "yes"}):
        found = scored("--metric", "exact-match", write("gp.json", content), "--annotations", truth)
        assert found["breakdowns"]["structural type"] == {"verify": {"value": 100.0, "n": 1}}


REFERENCES = {
    "11": ["a red ball rolls", "the ball is red"],
    "12": ["two dogs play", "dogs play in snow"],
    "5": ["it rains"],
}
CAPTIONS = {"11": "a ball rolls", "12": "dogs in caf\u00e9", "5": "it rains"}


def layouts():
    """(predictions, annotations) of the same captions as COCO's, VALUE's and VATEX's files have them."""
    annotations = [
        {"id": i, "image_id": int(k), "caption": t} for k, ts in REFERENCES.items() for i, t in enumerate(ts)
    ]
    images = [{"id": int(key), "file_name": f"{key}.jpg"} for key in REFERENCES]
    coco = {"info": {}, "images": images, "annotations": annotations}
    plain = {key: text.replace("\u00e9", " ") for key, text in CAPTIONS.items()}
    yield [{"image_id": int(key), "caption": text} for key, text in plain.items()], coco
    yield plain, {"annotations": annotations}

    def lines(rows):
        return "".join(json.dumps(row) + "\n" for row in rows)

    def descs(texts):
        return [{"desc": text, "desc_id": i} for i, text in enumerate(texts)]

    for name, number in (("vid_name", True), ("video_id", True), ("video_id", False)):
        clip = {key: {name: f"v{key}"} | ({"clip_id": int(key)} if number else {}) for key in REFERENCES}
        released = [{"vid_name": f"v{k}", "clip_id": int(k), "descs": descs(ts)} for k, ts in REFERENCES.items()]
        yield lines(clip[k] | {"descs": [{"desc": text}]} for k, text in CAPTIONS.items()), lines(released)
    vatex = [{"videoID": f"v{key}", "enCap": texts, "chCap": []} for key, texts in REFERENCES.items()]
    yield {f"v{key}": text for key, text in CAPTIONS.items()}, vatex
    yield {f"v{key}": text for key, text in CAPTIONS.items()}, lines(vatex)
    yield lines({"video_id": f"v{k}", "descs": [{"desc": text}]} for k, text in CAPTIONS.items()), vatex


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("number", range(8))
def test_official_captions_score_as_plain_ones(scored, write, number, mark):
    predictions, annotations = (
        mark + (found if isinstance(found, str) else json.dumps(found)) for found in list(layouts())[number]
    )
    rows = [
        {"id": k, "prediction": text.replace("\u00e9", " "), "references": REFERENCES[k]}
        for k, text in CAPTIONS.items()
    ]
    files = write("predictions", predictions), "--annotations", write("annotations", annotations)
    for metric in ("cider", "rouge-l", "bleu"):
        plain, found = scored("--metric", metric, write("rows.json", rows)), scored("--metric", metric, *files)
        assert found["values"] == plain["values"] and found["n"] == 3
        assert list(found["per_example"].values()) == list(plain["per_example"].values())


def test_tvqa_answers_by_show(scored, write):
    shows = {"Castle": {"3": 0, "4": 2}, "Friends": {"9": 1}}
    answers = write("answers.json", {"3": 0, "4": "a1", "9": 1})
    for truth in (shows, {"split": "test-public", "solution": shows}):
        found = scored("--metric", "multiple-choice-accuracy", answers, "--annotations", write("t.json", truth))
        assert found["values"]["accuracy"] == pytest.approx(200 / 3)
        assert found["breakdowns"]["show"] == {"Castle": {"value": 50.0, "n": 2}, "Friends": {"value": 100.0, "n": 1}}


@pytest.mark.parametrize("extra", [{}, {"3": "dog"}], ids=["not predicted", "predicted"])
def test_gqa_counts_balanced_questions_and_says_what_it_leaves_out(scored, call, write, extra):  # noqa: F811
    truth = {str(i): {"answer": answer, "isBalanced": i < 3} for i, answer in enumerate(("yes", "no", "red", "dog"))}
    del truth["2"]["isBalanced"]  # a release without the key holds balanced questions alone
    arguments = write("p.json", {"0": "yes", "1": "no", "2": "blue"} | extra), "--annotations", write("q.json", truth)
    found = scored("--metric", "exact-match", *arguments)
    assert (found["values"]["accuracy"], found["n"]) == (pytest.approx(200 / 3), 3)
    assert found["notes"] == ["1 of 4 questions are not balanced and left out, as officially"]
    assert found["notes"][0] in call("score", "--metric", "exact-match", *arguments)[1]


OWN = """
from pet_bench.data.submissions import Submission, unique
from pet_bench.metrics.exact_match import ExactMatch
from pet_bench.metrics.scores import Item
from pet_bench.tasks.gqa import GQA

class Own(ExactMatch):
    name = "own-accuracy"

class Mine(GQA):
    name = "mine"
    metric = "own-accuracy"

    @staticmethod
    def submission(metric, file, annotations):
        said, true = (unique(metric, path, (line.split(",") for line in path.read_text().split()))
                      for path in (file, annotations))
        return Submission(said, [Item(key, {"label": {answer: 1.0}}) for key, answer in true.items()], ("all read",))
"""


def test_a_task_of_ones_own_reads_what_its_metric_scores(scored, refused, write):
    files = write("mine.csv", "1,red\n2,blue\n"), "--annotations", write("true.csv", "1,red\n2,red\n")
    found = scored("--metric", "own-accuracy", *files, "--plugin", write("own.py", OWN))
    assert (found["values"], found["n"], found["notes"]) == ({"accuracy": 50.0}, 2, ["all read"])
    (said,) = refused("--metric", "own-accurac", *files)
    assert "own-accuracy" in said and "textvqa-accuracy" in said


def test_the_table(call, write):  # noqa: F811
    captions = [{"id": i, "prediction": "a dog runs", "references": ["a dog runs"]} for i in (1, 2)]
    code, out, _ = call("score", "--metric", "rouge-l", write("c.json", captions))
    assert code == 0
    assert ["rouge-l", "ROUGE-L", "100.0000", "2"] in [line.split() for line in out.splitlines()]
    assert ["rouge-l", "length", "1-5", "100.00", "2"] in [line.split() for line in out.splitlines()]


COCO = {
    "images": [{"id": 7}, {"id": 8}],
    "annotations": [{"id": i, "image_id": 7 + i % 2, "caption": f"a {word} cat"} for i, word in enumerate("rgbw")],
}
CLIP = json.dumps({"clip_id": 3, "vid_name": "a_1", "descs": [{"desc": "She runs."}]})
ROW = {"id": 1, "prediction": "a", "references": ["a"]}
PAIR = json.dumps({"identifier": "dev-1-0-0", "label": "True"})
ANSWERS = {"question_id": 1, "question_type": "is", "answer_type": "yes/no", "answers": [{"answer": "yes"}]}


@pytest.mark.parametrize(
    ("metric", "predictions", "annotations", "said"),
    [
        ("cidre", [ROW], None, ['unknown metric "cidre": did you mean "cider"']),
        ("cider", None, None, ["does not exist"]),
        ("cider", "[{", None, ["is not valid JSON"]),
        ("cider", {"id": 1}, None, ["content: Input should be a valid"]),
        ("cider", [], None, ["cider: no examples to score"]),
        ("cider", [{"id": 1, "prediction": "a"}], None, ["row 0.references is missing"]),
        ("cider", [ROW | {"prediction": 3}, ROW | {"id": 1.5}], None, ["row 0.prediction: ", "row 1.id: "]),
        ("cider", [ROW | {"references": []}], None, ["1 examples have no reference caption, the first is '1'"]),
        ("cider", [ROW, ROW], None, ["id '1' occurs more than once"]),
        ("cider", [ROW], {}, ["annotations is missing"]),
        ("cider", [ROW], None, ["cider: one item has no CIDEr"]),
        ("cider", [ROW, ROW | {"id": 2}], None, ["the references of all 2 items have the same words"]),
        ("cider", [], COCO, ["2 examples have no prediction, the first is '7'"]),
        (
            "cider",
            [{"image_id": 7, "caption": "a"}, {"image_id": 9, "caption": "a"}],
            COCO,
            ["1 examples have no prediction, the first is '8'", "1 predictions belong to no example, the first is '9'"],
        ),
        ("cider", [{"image_id": 7, "caption": "a"}] * 2, COCO, ["id '7' occurs more than once"]),
        (
            "bleu",
            {"7": "a", "8": "b"},
            COCO | {"images": [{"id": 9}]},
            ["examples have no prediction, the first is '9'"],
        ),
        ("bleu", CLIP, json.dumps({"clip_id": 3, "vid_name": "a"}), ["3 has no descs"]),
        (
            "bleu",
            '{"descs": [{"desc": "a"}]}\n' * 2,
            CLIP,
            ["row 0: clip_id, vid_name or video_id is missing", "row 1: "],
        ),
        ("bleu", '{"clip_id": 3, "descs": []}', CLIP, ["line 1: descs: List should have at least 1 item"]),
        ("exact-match", {"1": "a"}, {"1": {"answer": "a", "isBalanced": False}}, ["none of 1 questions is balanced"]),
        ("multiple-choice-accuracy", {"1": 2}, {"A": {"1": 2}, "B": {"1": 3}}, ["id '1' occurs more than once"]),
        ("multiple-choice-accuracy", {"1": True}, {"1": 1}, ["1: Input should be a valid string, found True"]),
        ("exact-match", '{"1": "a", "1": "b"}', {"1": {"answer": "a"}}, ["key '1' is given twice"]),
        ("vqa-accuracy", [], None, ["needs the annotations beside the predictions: say with --annotations"]),
        ("vqa-accuracy", [{"question_id": 1}], {"annotations": []}, ["row 0.answer is missing"]),
        ("vqa-accuracy", [], {"annotation": []}, ["annotations is missing"]),
        ("vqa-accuracy", [], {"annotations": [ANSWERS | {"answers": []}]}, ["question 1 has no answers"]),
        (
            "vqa-accuracy",
            [{"question_id": 2, "answer": "yes"}],
            {"annotations": [ANSWERS]},
            ["1 examples have no prediction, the first is '1'", "1 predictions belong to no example, the first is '2'"],
        ),
        (
            "nlvr-accuracy",
            "dev-1-0-0;True\n",
            PAIR,
            ["line 1: expected identifier,True or False, found 'dev-1-0-0;True'"],
        ),
        ("nlvr-accuracy", "dev-1-0-0,1\n\nx,True,1", PAIR, ["line 1: expected", "line 3: expected"]),
        ("nlvr-accuracy", "dev-1-0-0,True\ndev-1-0-0,True", PAIR, ["id 'dev-1-0-0' occurs more than once"]),
        ("nlvr-accuracy", "dev-1-0-0,True", PAIR.replace("1-0-0", "1"), ["'dev-1' does not have four fields"]),
        ("nlvr-accuracy", "dev-1-0-0,True", PAIR.replace("True", "maybe"), ["line 1: label: Input should be"]),
        ("multiple-choice-accuracy", {"1": 2.5}, {"1": 1}, ["1: Input should be a valid string, found 2.5"]),
        ("multiple-choice-accuracy", {"1": 2}, {"2": 1}, ["have no prediction", "belong to no example"]),
        ("exact-match", [{"questionId": 1}], {"1": {"answer": "a"}}, ["row 0.prediction is missing"]),
        ("bleu --set tokenizer=jva", [ROW], None, ['unknown tokeniser of captions "jva": did you mean "java"']),
        ("vqa-accuracy --set verson=2021", [], {}, ['unknown option of vqa-accuracy "verson": did you mean "version"']),
        ("bleu --set tokenizer", [ROW], None, ["--set takes OPTION=VALUE"]),
        ("bleu --data .", [ROW], None, ["--data is for scoring a trial's result"]),
    ],
)
def test_bad_files_are_a_line_a_fault(refused, write, tmp_path, metric, predictions, annotations, said):
    file = tmp_path / "absent.json" if predictions is None else write("predictions", predictions)
    beside = [] if annotations is None else ["--annotations", write("annotations.json", annotations)]
    lines = refused("--metric", *metric.split(), file, *beside)
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


def test_text_that_is_not_utf8(refused, write, tmp_path):
    (tmp_path / "p.csv").write_bytes(b"dev-1-0-0,\xff")
    (line,) = refused("--metric", "nlvr-accuracy", tmp_path / "p.csv", "--annotations", write("a.json", PAIR))
    assert "is not UTF-8 text" in line


def test_a_result_takes_no_annotations_and_has_to_be_one(refused, write):
    assert "are for scoring with --metric" in refused(write("x.json", {}), "--set", "version=2021")[0]
    assert "is not a trial's" in refused(write("0123456789ab.json", {}))[0]
    assert "cannot be read" in refused(write("y.json", "{"))[0]
    assert "is missing" in refused(write("y.json", "{").with_name("absent.json"))[0]


def test_a_metric_that_is_not_installed_is_refused_before_anything_is_read(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("pet_bench.metrics.java.find_spec", lambda name: None)
    (line,) = refused("--metric", "meteor", tmp_path / "absent.json")
    assert line.startswith("meteor needs the package pycocoevalcap")
