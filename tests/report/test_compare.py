from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pet_bench.files import write_text
from pet_bench.results import store


@pytest.fixture
def folder(make_result, tmp_path, monkeypatch):
    """results/demo: full right on all 40 questions but one, lora on 20, its text-only control on 10; two seeds each."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "results" / "demo"
    rights = {("full", "none"): 39, ("lora", "none"): 20, ("lora", "text-only"): 10}
    for (method, control), right in rights.items():
        for seed in (0, 1):
            write(make_result(method=method, control=control, seed=seed, vqa=2.5 * right, gqa=2.5 * right), out, right)
    return out


def write(result, out, right):
    for task in result.metrics:
        rows = [{"id": f"q{i}", "prediction": f"[{i}]", "score": 100.0 * (i < right)} for i in range(40)]
        write_text(out / result.id / f"predictions.{task}.jsonl", "\n".join(map(json.dumps, rows)))
    return store.save(result, out)


def words(text):
    return " ".join(text.split())


def test_two_methods(call, folder):
    code, out, err = call("compare", "full", "lora", "--examples", "1")
    assert (code, err) == (0, "")
    for part in (
        "A full, B lora: image-text on bart-base", "97.50 ± 0.00 50.00 ± 0.00 2 +47.50", "<0.001 1.000",
        "47.5 % 52.5 % 0.0 %", "vqa 0 20 19 0 1 <0.001", "gqa 1 20 19 0 1 <0.001", "q38 [38] ×2 100.0 [38] ×2 0.0",
        "paired bootstrap", "Welch's t-test", "after Holm's correction for the 3 rows",
    ):  # fmt: skip
        assert part in words(out)


def test_eight_common_seeds_are_paired(call, folder, make_result):
    for method, right in (("full", 30), ("lora", 20)):
        for seed in range(2, 8):
            more = right + seed % 3
            write(make_result(method=method, seed=seed, vqa=2.5 * more, gqa=2.5 * more), folder, more)
    out = words(call("compare", "full", "lora")[1])
    assert "over seeds: paired t-test, both have the same seeds; mean ±" in out
    assert "larger p: of these two, or of a t-test over both at once" in out and "Welch" not in out


def test_a_method_with_its_control_and_one_task(call, folder):
    code, out, _ = call("compare", "lora", "lora, text-only", "--out", folder, "--task", "gqa")
    assert code == 0
    assert "gqa 50.00 ± 0.00 25.00 ± 0.00" in words(out)
    assert "vqa" not in out and "average" not in out


def test_two_trials_by_path_and_by_id(call, folder, make_result, tmp_path):
    path = write(make_result(method="bitfit", seed=7, vqa=75.0, gqa=75.0), tmp_path / "elsewhere", 30)
    id = next(id for id, result in store.load_all(folder).items() if result.spec["label"] == "full")
    code, out, _ = call("compare", id[:6], path)
    assert code == 0
    assert "97.50 75.00 1 +22.50" in words(out)
    assert "vqa 0 and 7 30 9 0 1 0.004" in words(out) or "vqa 1 and 7 30 9 0 1 0.004" in words(out)
    assert "n = 1: nothing is tested over seeds" in out
    assert " A" in out


def test_a_label_may_be_asked_for_by_its_methods_name(call, folder, make_result):
    write(make_result(method="bitfit", label="bitfit(x=1)", vqa=75.0, gqa=75.0), folder, 30)
    assert "A bitfit, B full" in call("compare", "bitfit", "full")[1]
    assert "A bitfit(x=1), B full" in call("compare", "bitfit(x=1)", "full")[1]
    write(make_result(method="bitfit", label="bitfit(x=2)", seed=1, vqa=75.0, gqa=75.0), folder, 30)
    code, _, err = call("compare", "bitfit", "full")
    assert code == 2
    assert '"bitfit" may be ' in err and "bitfit(x=1)" in err and "bitfit(x=2)" in err


def test_errors_are_one_line(call, folder, make_result, tmp_path):
    lost = {"metrics": {}, "average": None}
    store.save(make_result(method="ia3", status="failed", error="no").model_copy(update=lost), folder)
    write(make_result(method="dora", backbone="t5-base", vqa=75.0, gqa=75.0), folder, 30)
    write(make_result(method="adapter", data="d1", vqa=75.0, gqa=75.0), folder, 30)
    for seed, epochs in enumerate((2, 3)):
        write(make_result(method="bitfit", seed=seed, epochs=epochs, vqa=75.0, gqa=75.0), folder, 30)
    for arguments, said in (
        (("lroa", "full"), 'unknown method or trial "lroa": did you mean "lora"?'),
        (("full", "results/none.json"), 'unknown method or trial "results/none.json"'),
        (("full", "ia3"), '"ia3" has no scores: failed'),
        (("full", "dora"), 'nothing in common: "full" is of image-text on bart-base, "dora" of image-text on t5-base'),
        (("full", "adapter"), "not comparable: made with different versions of the data (d0, d1)"),
        (("full", "bitfit"), '"bitfit" on bart-base is 2 different recipes or protocols (in results/demo)'),
        (("full", "lora", "--task", "vqaa"), 'unknown task "vqaa": did you mean "vqa"?'),
        (("full", "lora", "--out", tmp_path / "elsewhere"), "elsewhere"),
        (("full", "lora", "--out", tmp_path), "no results in"),
    ):
        code, out, err = call("compare", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), arguments
        assert said in err


def test_comparing_loads_no_network_library(folder):
    code = (
        "import sys\nfrom pet_bench.cli import main\n"
        "try: main(['compare', 'full', 'lora'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
