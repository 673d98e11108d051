"""A result that is damaged, or that contradicts itself, is refused by whatever reads it: one line, exit code 2."""

from __future__ import annotations

import copy
import gzip
import json
import re
from pathlib import Path

import pytest
import yaml

import pet_bench
from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.metrics.scores import bounds, possible
from pet_bench.results import predictions as saved
from pet_bench.results import store


@pytest.fixture
def folder(results_of_a_grid, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return results_of_a_grid


@pytest.fixture
def lora(folder):
    """The path of the result that is damaged."""
    return next(folder / f"{id}.json" for id, one in store.load_all(folder).items() if one.spec["label"] == "lora")


def changed(path, where, value):
    """The result as plain data with the key at `where` set, or taken away where `value` is ...; a list's may be -1."""
    data = target = json.loads(path.read_text())
    *parents, last = [int(key) if re.fullmatch(r"-?\d", key) else key for key in where.split("/")]
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = copy.deepcopy(value)
    return data


CHANGES = [
    # scores that are missing, are no numbers or cannot be
    ("metrics", {}, "it is done, but has no metrics"),
    ("metrics/vqa", ..., "tasks with scores differ in vqa"),
    ("metrics/vqa", {}, "metrics.vqa has no scores"),
    ("metrics/vqa/accuracy", None, "metrics.vqa.accuracy"),
    ("metrics/vqa/accuracy/value", None, "metrics.vqa.accuracy.value"),
    ("metrics/vqa/accuracy/value", ..., "metrics.vqa.accuracy.value"),
    ("metrics/vqa/accuracy/value", "NaN", "metrics.vqa.accuracy.value: Input should be a valid number, found 'NaN'"),
    ("metrics/vqa/accuracy/value", "Infinity", "metrics.vqa.accuracy.value"),
    ("metrics/vqa/accuracy/value", True, "metrics.vqa.accuracy.value"),
    ("metrics/vqa/accuracy/value", "50.0", "metrics.vqa.accuracy.value"),
    ("metrics/vqa/accuracy/value", 50.1, "its average is 37.5, the mean of the tasks' primary metrics 37.55"),
    ("metrics/vqa/accuracy/value", 101.0, "metrics.vqa.accuracy.value is 101.0, which accuracy cannot be"),
    ("metrics/vqa/accuracy/value", -1.0, "metrics.vqa.accuracy.value is -1.0, which accuracy cannot be"),
    ("metrics/vqa/accuracy/majority", -0.5, "metrics.vqa.accuracy.majority is -0.5"),
    ("metrics/vqa/accuracy/n", 0, "metrics.vqa.accuracy.n"),
    ("metrics/vqa/accuracy/n", 8.5, "metrics.vqa.accuracy.n"),
    ("metrics/vqa/accuracy/n", 9, "metrics.vqa: its metrics are over 8 and 9 examples"),
    ("metrics/x", {"accuracy": {"value": 37.5, "split": "test", "n": 8}}, "differ in x"),
    ("average", 38.0, "its average is 38.0, the mean of the tasks' primary metrics 37.5"),
    ("average", "NaN", "average"),
    ("average", None, "it is done, but has no average"),
    # breakdowns that do not fit
    ("breakdowns", None, "breakdowns"),
    ("breakdowns/vqa/answer/yes/value", 99.0, "vqa: accuracy is 50.0, but its mean over the parts by \"answer\" is"),
    ("breakdowns/vqa/answer/yes/value", 100.1, "breakdowns.vqa.answer.yes.value is 100.1"),
    ("breakdowns/vqa/some/red/value", -3.0, "breakdowns.vqa.some.red.value is -3.0"),
    ("breakdowns/vqa/answer/yes/n", 5, 'vqa: 9 examples by "answer", but 8 were scored'),
    ("breakdowns/vqa/some/red/n", 0, "breakdowns.vqa.some.red.n"),
    ("breakdowns/okvqa", {"length": {"1-5": {"value": 1.0, "n": 1}}}, "breakdowns.okvqa is of a task without scores"),
    # costs and counts
    ("cost", None, "it is done, but has no cost"),
    ("cost", ..., "cost is missing"),
    ("cost/train_seconds", -1.0, "cost.train_seconds"),
    ("cost/train_seconds", "NaN", "cost.train_seconds"),
    ("cost/eval_seconds", "Infinity", "cost.eval_seconds"),
    ("cost/examples_per_second", -0.1, "cost.examples_per_second"),
    ("cost/peak_memory_bytes", -1, "cost.peak_memory_bytes"),
    ("cost/peak_memory_bytes", 2**63, "cost.peak_memory_bytes"),
    ("cost/steps", -1, "cost.steps"),
    ("cost/steps", 5, "curve.2.step is 6, but 5 updates were made"),
    ("cost/steps", 7, "its curve ends at step 6, but 7 updates were made"),
    ("cost/adapter_bytes", True, "cost.adapter_bytes"),
    ("parameters/trainable", -10, "parameters.trainable"),
    ("parameters/trainable", 20, "percent is 1.0, but 20 of 1000"),
    ("parameters/percent", "NaN", "parameters.percent"),
    ("parameters/groups", {"x": 9}, "its groups have 9 parameters together, but 10"),
    ("run/accumulation", 0, "run.accumulation"),
    ("run/resumed", [-3], "run.resumed.0"),
    ("run", 3, "run"),
    # the learning curve
    ("curve", ..., "curve is missing"),
    ("curve/0/step", -1, "curve.0.step"),
    ("curve/0/step", 4, "curve.1 is out of order: step 3, epoch 1 after step 4, epoch 1"),
    ("curve/0/epoch", 1.5, "curve.1 is out of order"),
    ("curve/0/epoch", "NaN", "curve.0.epoch"),
    ("curve/0/loss", -2.0, "curve.0.loss is -2.0"),
    ("curve/0/loss", "NaN", "curve.0.loss is nan"),
    ("curve/0/loss", "Infinity", "curve.0.loss is inf"),
    ("curve/0/loss", None, "curve.0 has neither a loss nor metrics"),
    ("curve/0/split", "test", "curve.0.split"),
    ("curve/0/task", "okvqa", 'curve.0.task is "okvqa", which is not among its tasks'),
    ("curve/1/metrics/accuracy", 100.5, "curve.1.metrics.accuracy is 100.5"),
    ("curve/3/task", "gqa", "curve.3 is there for the second time: train, gqa, step 6"),
    ("selected/step", 7, "selected is step 7 with score 50.0, but 6 updates were made"),
    ("selected/score", "NaN", "selected.score"),
    ("selected", 3, "selected"),
    # what the trial is
    ("id", None, "id"),
    ("id", "0123456789ab", "its spec is that of trial"),
    ("spec/seed", 5, "its spec is that of trial"),
    ("spec/method/name", "ia3", "its spec is that of trial"),
    ("spec/method/options", {"rank": 5}, "its spec is that of trial"),
    ("spec/recipe/lr", 0.002, "its spec is that of trial"),
    ("spec/recipe/epochs", 0, "recipe.epochs"),
    ("spec/recipe/epochs", True, "recipe.epochs"),
    ("spec/seed", False, "seed"),
    ("spec/seed", 0.0, "seed"),
    ("spec/recipe/lr", "0.001", "recipe.lr"),
    ("spec/recipe/junk", 1, "junk"),
    ("spec/tasks", ["vqa", 3], "tasks"),
    ("spec/tasks", 3, "tasks"),
    ("spec/backbone", 7, "backbone"),
    # how it ended
    ("status", "finished", "status"),
    ("status", "suspect", "it is suspect, but does not say why"),
    ("error", "no luck", "it is done, but has an error: no luck"),
    ("error", "NaN", "it is done, but has an error: NaN"),
    ("provenance/finished", "2025-01-01T00:00:00+00:00", "before it started"),
    ("provenance/started", "yesterday", "is not a time with its zone"),
    ("predictions", None, "predictions"),
    ("predictions", ..., "predictions is missing"),
    ("schema_version", 99, "schema version 99"),
    ("schema_version", "2", "its schema_version is '2'"),
]  # fmt: skip


@pytest.mark.parametrize("where, value, said", CHANGES)
def test_what_cannot_be_true_is_named(lora, where, value, said):
    content = json.dumps(changed(lora, where, value))
    lora.write_text(content)
    with pytest.raises(UserError) as error:
        store.load(lora)
    assert all(line.startswith(f'result "{lora}"') for line in error.value.faults)
    assert any(said in line for line in error.value.faults), error.value.faults
    assert lora.read_text() == content


@pytest.mark.parametrize("where, value, said", CHANGES)
def test_nothing_of_the_kind_is_written(folder, lora, where, value, said):
    """What can be built is not saved; over what is there no more than over nothing."""
    before = lora.read_bytes()
    try:
        result = type(store.load(lora)).model_validate(changed(lora, where, value))
    except ValueError:
        return  # it cannot even be built
    if store.contradictions(result):
        for out in (folder, folder.parent / "new"):
            with pytest.raises(UserError, match=f"trial {result.id}: "):
                store.save(result, out)
    else:  # a key that may be left away by who builds it
        assert value is ...
    assert lora.read_bytes() == before


FILES = {
    "nothing": b"",
    "blank": b" \n",
    "half": lambda whole: whole[: len(whole) // 2],
    "twice": lambda whole: whole * 2,
    "a list": b"[]",
    "a number": b"7",
    "bytes": bytes(range(128, 256)),
    "utf-16": lambda whole: whole.decode().encode("utf-16"),
    "deep lists": b"[" * 5000,
    "deep mappings": b'{"a":' * 5000,
    "deep inside": lambda whole: whole.replace(b'"groups": {', b'"groups": {"x": ' + b"[" * 200 + b"]" * 200 + b","),
    "a key twice": lambda whole: whole.replace(b'"status"', b'"average": 1.0, "status"'),
    "NaN": lambda whole: whole.replace(b'"loss": 2.0', b'"loss": NaN'),
    "overflow": lambda whole: whole.replace(b'"loss": 2.0', b'"loss": 1e999'),
    "digits": lambda whole: whole.replace(b'"steps": 6', b'"steps": ' + b"6" * 400),
    "half a surrogate pair": lambda whole: whole.replace(b'"device": "cpu"', b'"device": "\\ud83d"'),
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a page": b"<!DOCTYPE html><html></html>",
}  # fmt: skip
PLACES = {
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nothing.json"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder": lambda path: path.symlink_to("."),
}


def put(path, kind):
    """Damage a file, or put something else in its place."""
    if kind in PLACES:
        path.unlink()
        PLACES[kind](path)
    else:
        whole = path.read_bytes()
        content = FILES[kind](whole) if callable(FILES[kind]) else FILES[kind]
        assert content != whole
        path.write_bytes(content)


@pytest.mark.parametrize("kind", [*FILES, *PLACES])
def test_what_is_no_result_is_one_line(folder, lora, kind):
    put(lora, kind)
    for read, what in ((store.load, lora), (store.load_all, folder), (pet_bench.load_results, folder)):
        with pytest.raises(UserError) as error:
            read(what)
        (line,) = error.value.faults
        assert line.startswith(f'result "{lora}"')
    results, faults = store.scan(folder)
    assert (len(results), len(faults)) == (1, 1)


def test_a_byte_order_mark_is_no_fault(lora):
    whole = store.load(lora)
    lora.write_bytes(b"\xef\xbb\xbf" + lora.read_bytes())
    assert store.load(lora) == whole


READERS = {
    "report": ["report", "results/g"],
    "style": ["report", "results/g", "--style", "vlpet-table2"],
    "page": ["report", "results/g", "--html"],
    "compare": ["compare", "lora", "full"],
    "show": ["show", "LORA"],
    "score": ["score", "LORA"],
    "gates": ["gates", "LORA"],
    "peft": ["export", "results/g", "--format", "peft"],
    "model-index": ["export", "LORA", "--format", "model-index"],
    "merge": ["merge", "results/g", "--out", "results/all"],
    "merge into": ["merge", "results/other", "--out", "results/g"],
    "check": ["results", "check", "results/g"],
    "status": ["status", "results/g"],
    "rerun": ["rerun", "results/g", "--failed"],
    "best": ["best", "results/g"],
    "load_results": pet_bench.load_results,
    "load_curves": pet_bench.load_curves,
    "load_predictions": pet_bench.load_predictions,
}


def read_by(reader, lora, capsys):
    """(exit code, stderr) of a reader."""
    if callable(reader):
        with pytest.raises(UserError) as error:
            reader("g")
        return 2, "\n".join(error.value.faults)
    with pytest.raises(SystemExit) as end:
        main([str(lora) if argument == "LORA" else argument for argument in reader])
    return end.value.code or 0, capsys.readouterr().err


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_it(folder, lora, make_result, capsys, name):
    store.save(make_result(method="ia3"), Path("results/other"))
    grid = yaml.safe_load((folder / "grid.yaml").read_text())
    if name == "best":
        grid["search"] = {"space": {"recipe.lr": [0.1, 0.2]}}
        (folder / "grid.yaml").write_text(yaml.safe_dump(grid))
    whole = lora.read_bytes()
    for where, value, said in (
        ("average", 99.0, "its average is 99.0"), ("cost/train_seconds", "NaN", "cost.train_seconds"),
        ("spec/seed", 3, "its spec is that of trial"), ("curve", ..., "curve is missing"),
    ):  # fmt: skip
        lora.write_text(json.dumps(changed(lora, where, value)))
        before = contents(Path())
        code, err = read_by(READERS[name], lora, capsys)
        assert code == 2
        assert str(lora) in err and said in err
        assert "Traceback" not in err
        assert contents(Path()) == before
        lora.write_bytes(whole)
    lora.write_bytes(b'{"a":' * 5000)
    code, err = read_by(READERS[name], lora, capsys)
    assert (code, len(err.splitlines())) == (2, 1)
    assert str(lora) in err


def test_status_shows_its_table_and_then_what_is_damaged(folder, lora, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (folder / lora.name).write_text("half")
    (folder / "0123456789ab.json").symlink_to("nothing.json")
    with pytest.raises(SystemExit) as end:
        main(["status", "results/g"])
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert re.search(rf"unreadable +{lora.stem} ", out)
    assert "1 unreadable" in out
    assert [line.partition(" cannot")[0].partition(" is ")[0] for line in err.splitlines()] == [
        f'pet-bench: error: result "results/g/{name}.json"' for name in sorted(["0123456789ab", lora.stem])
    ]


# predictions ----------------------------------------------------------------------------------------------------------


def row(id="0", prediction='"yes"', score="100.0"):
    return f'{{"id": "{id}", "prediction": {prediction}, "score": {score}}}\n'.encode()


ROWS = {
    "half a surrogate pair": (row(prediction='"\\ud83d"'), "half of a surrogate pair"),
    "no score": (row(score="null"), "has predictions without a score, the first in line 8"),
    "NaN": (row(score="NaN"), "score: no number, found nan"),
    "too large for a float": (row(score="1e999"), "score: no number, found inf"),
    "a boolean": (row(score="true"), "not a JSON object with id, prediction and score"),
    "a text": (row(score='"100"'), "not a JSON object with id, prediction and score"),
    "above": (row(score="100.5"), "score 100.5, which accuracy cannot be (possible: 0 to 100)"),
    "below": (row(score="-1"), "score -1, which accuracy cannot be"),
    "an id again": (row(id="1"), "id '1' for the second time"),
    "a key twice": (b'{"id": "0", "id": "9", "prediction": "", "score": 0}\n', "key 'id' is given twice"),
    "no UTF-8": (row().replace(b"yes", b"\xff"), "is not UTF-8"),
    "half": (b'{"id": "0",', "not a JSON object with id, prediction and score"),
}
PREDICTIONS = ("compare", "page", "report", "load_predictions", "score")


@pytest.mark.parametrize("kind", ROWS)
def test_a_damaged_prediction_is_named_with_its_line(folder, lora, capsys, kind):
    line, said = ROWS[kind]
    file = folder / saved.name(lora.stem, "vqa")
    rows = [*gzip.decompress(file.read_bytes()).splitlines(keepends=True)[1:], line]
    file.write_bytes(gzip.compress(b"".join(rows)))
    with pytest.raises(UserError) as error:
        saved.read(file, "accuracy")
    (fault,) = error.value.faults
    assert str(file) in fault and "line 8" in fault and said in fault
    if kind in ("half a surrogate pair", "no score"):
        for name in PREDICTIONS[:4]:
            code, err = read_by(READERS[name], lora, capsys)
            assert (code, len(err.splitlines())) == (2, 1), name
            assert str(file) in err and said in err


@pytest.mark.parametrize("score, metric", [("1000.0000000000002", "CIDEr"), ("1e300", "a plug-in's"), ("-5", "loss")])
def test_scores_that_a_metric_can_have(tmp_path, score, metric):
    file = tmp_path / "predictions.vqa.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + row(score=score))
    assert saved.read(file, metric) == {"0": ("yes", float(score))}


@pytest.mark.parametrize(
    "line",
    [
        row(id="1", prediction='"a \\"b\\" \\u00e9\\n"'),
        row(id="1", prediction='"\u00e9 \u2028 ×"'),
        row(id="1", score="1e-05"),
        row(id="1", score="7"),
        row(id="1", score="-0.0000001"),
        row(id="1", score="0.1234567890123456789012345678901234567890"),
        row(id="1")[:-1],
        row(id="1")[:-1] + b"\r\n",
        b'{"score": 1.5, "id": "1", "prediction": "", "more": 0}\n',
    ],
)
def test_lines_of_any_make_are_read_as_json_is(tmp_path, line):
    file = tmp_path / "predictions.vqa.jsonl"
    file.write_bytes(row() + line)
    expected = json.loads(line)
    assert saved.read(file, "accuracy") == {
        "0": ("yes", 100.0),
        "1": (expected["prediction"], expected["score"]),
    }


def test_zipped_predictions_of_several_members_are_read(tmp_path):
    file = tmp_path / "predictions.vqa.jsonl.gz"
    file.write_bytes(gzip.compress(row()) + gzip.compress(row(id="1")))
    assert [*saved.read(file)] == ["0", "1"]


def test_a_report_reads_each_result_once(folder, monkeypatch):
    read = []
    monkeypatch.setattr(store, "examine", lambda path, examine=store.examine: read.append(path) or examine(path))
    with pytest.raises(SystemExit) as end:
        main(["report", "results/g"])
    assert not end.value.code and sorted(read) == store.files(folder)


def test_unzipped_predictions_are_bounded(tmp_path, monkeypatch):
    file = tmp_path / "predictions.vqa.jsonl.gz"
    file.write_bytes(gzip.compress(b" " * (3 << 20)))
    monkeypatch.setattr(saved, "MOST", 2 << 20)
    with pytest.raises(UserError, match="unzips to more than 2 MiB"):
        saved.read(file)


def test_what_scores_can_be():
    assert bounds("accuracy-2016") == bounds("BLEU-4") == (0, 100)
    assert possible("CIDEr", 250.0) and not possible("BLEU-1", 250.0) and not possible("ROUGE-L", -1.0)
    assert not possible("anything", float("nan")) and not possible("anything", float("inf"))
