"""What commands print on narrow terminals, and what they do where they may not write."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from rich.table import Table

from pet_bench.cli.tables import fitted, print_tables
from pet_bench.report import figures
from pet_bench.results import store
from tests.conftest import EVERYTHING, ROOT

MINI = str(ROOT / "results" / "mini-image-text-bart")
LABELS = {"lora": "vl-pet-large(bottleneck=96)", "full": "compacter+middle-x"}


@pytest.fixture
def named(results_of_a_grid):
    """The results, with labels of methods that are long."""
    for result in store.load_all(results_of_a_grid).values():
        result.spec["label"] = LABELS[result.spec["label"]]
        store.save(result, results_of_a_grid)
    return results_of_a_grid


@pytest.mark.parametrize("width", [60, 80, 200] if EVERYTHING else [60])
@pytest.mark.parametrize(
    "arguments, whole, left",
    [
        (["report", "results/g"], list(LABELS.values()), "parameters"),
        (["report", MINI, "--style", "vlpet-table2", "--to", "made"], ["published"], "GQA"),
        (["status", "results/g"], ["ID", "image-text/vqa+gqa"], None),
        (["compare", *LABELS.values(), "--examples", "1"], ["vqa", "gqa", "average"], "95 % over seeds"),
        (["show", "ID"], ["ID", "vqa", "accuracy"], None),
        (["list", "methods"], ["compacter+middle-x", "vl-pet-middle-x"], "year"),
        (["list"], ["compacter+middle-x", "multiple-choice-accuracy"], "from"),
        (["results", "check", "results/g"], ["2 results in 1 folder: all valid"], None),
    ],
    ids=["report", "style", "status", "compare", "show", "list methods", "list", "check"],
)
def test_no_name_is_broken_and_what_does_not_fit_is_said(call, named, monkeypatch, width, arguments, whole, left):
    monkeypatch.setenv("COLUMNS", str(width))
    id = store.files(named)[0].stem
    code, out, err = call(*(id if argument == "ID" else argument for argument in arguments))
    assert (code, err) == (0, "")
    for name in whole:
        assert re.search(rf"(^|[\s│]){re.escape(id if name == 'ID' else name)}([\s│(,:]|$)", out, re.M), name
    hint = re.search(r"^columns left out at this width: (.*); COLUMNS=(\d+) shows them$", out, re.M)
    if width == 200:
        assert hint is None
    elif width == 60 and left:
        assert left in hint[1].split(", ")
        monkeypatch.setenv("COLUMNS", hint[2])
        assert f"left out at this width: {left}" not in call(*arguments)[1]


def table():
    view = Table("name", "what", "score", "rest")
    view.columns[0].no_wrap = True
    view.columns[2].justify = "right"
    view.add_row("an-identifier-of-some-length", "a few words of text", "12.34 ± 0.56", "1,234,567", style="dim")
    view.add_section()
    view.add_row("b", "text", "1.00", "2")
    return view


def test_columns_go_in_order_until_the_rest_fits():
    whole, left, _ = fitted(table(), None, 1, None)
    assert left == []
    for width, expected in ((whole, []), (whole - 1, ["rest"])):
        assert fitted(table(), None, 1, width)[1] == expected
    assert fitted(table(), None, 1, 10)[1] == ["rest", "score", "what"]
    assert fitted(table(), None, 2, 10)[1] == ["rest", "score"]
    _, left, narrow = fitted(table(), ["what", "score", "nothing"], 1, 10)
    assert left == ["what", "score"]
    assert [list(column.cells) for column in narrow.columns] == [
        ["an-identifier-of-some-length", "b"], ["1,234,567", "2"],
    ]  # fmt: skip
    assert [(row.style, row.end_section) for row in narrow.rows] == [("dim", True), (None, False)]


def test_nothing_is_left_out_of_a_file(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = Table(*(f"column {i}" for i in range(40)))
    wide.add_row(*("0123456789" for _ in range(40)))
    print_tables([wide])
    out = capsys.readouterr().out
    assert "column 39" in out and "left out" not in out


# where nothing can be written -----------------------------------------------------------------------------------------


def unwritable(folder, name):
    """What is in a folder's place so that nothing can be made in it, whoever tries."""
    (folder / name).write_text("a file")


@pytest.mark.parametrize("options", [(), ("--style", "vlpet-table2")], ids=["comparison", "style"])
def test_a_report_is_printed_where_it_cannot_be_written(call, results_of_a_grid, options):
    if options:  # a paper's table is of a whole suite
        shutil.rmtree(results_of_a_grid)
        shutil.copytree(MINI, results_of_a_grid, ignore=shutil.ignore_patterns("report"))
    unwritable(results_of_a_grid, "report")
    code, out, err = call("report", "results/g", *options)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot be written" in err and "--to FOLDER" in err
    assert "LoRA" in out or "lora" in out
    code, again, err = call("report", "results/g", *options, "--to", "elsewhere")
    assert (code, err) == (0, "")
    assert again.startswith(out)
    assert "wrote elsewhere/" in again
    assert any(Path("elsewhere").iterdir())
    assert (results_of_a_grid / "report").read_text() == "a file"


def test_what_fails_while_it_is_written_is_one_line_too(call, results_of_a_grid, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "write", full)
    code, out, err = call("report", "results/g")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "No space left on device" in err and "lora" in out


@pytest.mark.parametrize("form", ["peft", "model-index"])
def test_an_export_that_cannot_be_written(call, results_of_a_grid, form):
    unwritable(Path(), "taken")
    for out in ("/dev/null/x.yaml", "taken/x.yaml"):
        code, _, err = call("export", "results/g", "--format", form, "--out", out)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "cannot be written" in err and "Traceback" not in err


@pytest.mark.parametrize("form", ["peft", "model-index"])
def test_an_id_is_exported_from_the_folder_that_is_named(call, results_of_a_grid, form):
    results_of_a_grid.rename("mine")
    id = store.files(Path("mine"))[0].stem
    assert call("export", id, "--format", form)[0] == 2
    code, out, err = call("export", id[:5], "--format", form, "--out", "mine")
    assert (code, err) == (0, "")
    assert id in (out if form == "model-index" else "".join(map(str, Path("mine/report/peft").iterdir())))


def test_gates_says_where_an_id_was_looked_for(call, results_of_a_grid):
    results_of_a_grid.rename("mine")
    id = store.files(Path("mine"))[0].stem
    assert "in results/*/)" in call("gates", id)[2]
    assert "in mine/)" in call("gates", "0000", "--out", "mine")[2]
    assert "which has no gate" in call("gates", id, "--out", "mine")[2]
    assert "ends in .png or a folder of results" in call("gates", id, "--out", "nowhere")[2]
    assert "give one" in call("gates", id, "--out", "a.png", "--to", "there")[2]
