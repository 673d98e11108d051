"""The fuzzer of `benchmarks/fuzz.py`: what it calls a failure, and a few of its cases of every kind.

Cases run in forks of a process that has imported everything, so that one process does both the forking and the waiting:
`benchmarks/fuzz.py` itself for the sample, this one for commands that are stand-ins.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import EVERYTHING, ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from fuzzing import mutations
from fuzzing.case import Case, Mutation, Reader, nothing, product, sample, sound
from fuzzing.mutations import Raw, Rule, emit
from fuzzing.sandbox import Sandbox, judge

SAMPLE = "50" if EVERYTHING else "12"


def refuses(arguments: list[str]) -> None:
    print("pet-bench: error: no", file=sys.stderr)
    sys.exit(2)


def refuses_and_writes(arguments: list[str]) -> None:
    Path("left.txt").write_text("x")
    refuses(arguments)


def refuses_without_a_word(arguments: list[str]) -> None:
    sys.exit(2)


def ends_oddly(arguments: list[str]) -> None:
    print("pet-bench: error: no", file=sys.stderr)
    sys.exit(3)


def ends_with_text(arguments: list[str]) -> None:
    sys.exit("bye")


def prints_usage(arguments: list[str]) -> None:
    print("Usage: pet-bench\nError: no", file=sys.stderr)
    sys.exit(2)


def accepts(arguments: list[str]) -> None:
    print("fine")


def says_so(arguments: list[str]) -> None:
    print("1 unreadable")


def crashes(arguments: list[str]) -> None:
    raise KeyError("x")


def prints_a_traceback(arguments: list[str]) -> None:
    print("Traceback (most recent call last):\n  …")


def dies(arguments: list[str]) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def waits(arguments: list[str]) -> None:
    time.sleep(3600)


def spins(arguments: list[str]) -> None:
    while True:
        pass


def swallows(arguments: list[str]) -> None:
    bytearray(1 << 40)


def alters(arguments: list[str]) -> None:
    Path("input.txt").write_text("other")


def removes(arguments: list[str]) -> None:
    Path("input.txt").unlink()


def writes(arguments: list[str]) -> None:
    Path("out").mkdir()
    Path("out/x").write_text("x")


def went(tmp_path: Path, command, expect: str, *, seconds: float = 30.0, **options):
    """The verdict on a command that a case of one file is tried on, and what came out."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/input.txt").write_text("sound")
    reader = Reader("reader", ("read", "WORK/input.txt"), **options)
    case = Case("kind", "kind/input/changed/reader", reader, ("input.txt",), "input.txt", expect=expect)
    outcome = Sandbox(tmp_path / "base", tmp_path / "boxes", command, seconds).run(case)
    failure = judge(case, outcome)
    return (failure.got if failure else None), outcome


@pytest.mark.parametrize(
    "command, expect, options, got",
    [
        (refuses, "refuse", {}, None),
        (prints_usage, "refuse", {}, None),
        (refuses, "either", {}, None),
        (refuses, "accept", {}, "WRONGCODE"),
        (refuses_without_a_word, "refuse", {}, "WRONGCODE"),
        (ends_oddly, "refuse", {}, "WRONGCODE"),
        (ends_oddly, "refuse", {"codes": frozenset({3})}, None),
        (ends_with_text, "either", {}, "WRONGCODE"),
        (accepts, "accept", {}, None),
        (accepts, "either", {}, None),
        (accepts, "refuse", {}, "SILENT"),
        (says_so, "refuse", {}, "SILENT"),
        (says_so, "refuse", {"said": ("unreadable",)}, None),
        (crashes, "refuse", {}, "TRACEBACK"),
        (crashes, "either", {}, "TRACEBACK"),
        (prints_a_traceback, "either", {}, "TRACEBACK"),
        (swallows, "either", {}, "TRACEBACK"),
        (dies, "either", {}, "TRACEBACK"),
        (waits, "either", {"seconds": 0.2}, "HANG"),
        (spins, "either", {"seconds": 1}, "HANG"),
        (alters, "either", {}, "ALTERED"),
        (removes, "accept", {}, "ALTERED"),
        (writes, "accept", {}, "ALTERED"),
        (writes, "accept", {"writes": ("out",)}, None),
        (refuses_and_writes, "refuse", {}, "ALTERED"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_planted_is_found(tmp_path, command, expect, options, got):
    assert went(tmp_path, command, expect, **options)[0] == got


def test_an_input_that_is_taken_for_another_is_found(tmp_path):
    """A byte order mark must not change what is read."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/input.txt").write_text('{"x": 1}')

    def measures(arguments: list[str]) -> None:
        print(len(Path(arguments[0]).read_bytes()))

    sandbox = Sandbox(tmp_path / "base", tmp_path / "boxes", measures)
    reader = Reader("reader", ("WORK/input.txt",))
    (unchanged,) = sound("kind", ["input.txt"], [reader])
    marks = [one for one in mutations.text() if one.name == "mark"]
    (marked,) = product("kind", ["input.txt"], "input.txt", marks, [reader])
    failure = judge(marked, sandbox.run(marked), sandbox.run(unchanged))
    assert (failure.got, failure.to_dict()["files"]) == ("SILENT", {"input.txt": '\ufeff{"x": 1}'})
    assert marked.name == "kind/input.txt/mark/reader" and marked.sound == unchanged.name == "kind/sound/reader"


def test_a_case_that_cannot_be_made_is_no_success(tmp_path):
    sandbox = Sandbox(tmp_path, tmp_path / "boxes", accepts)
    case = Case("kind", "kind/x", Reader("reader", ()), target="nowhere", change=lambda path: path.unlink())
    failure = judge(case, sandbox.run(case))
    assert failure.got == "WRONGCODE" and "the case itself cannot be made: FileNotFoundError" in failure.why


def test_a_case_has_places_of_its_own(tmp_path):
    def tells(arguments: list[str]) -> None:
        print(*(os.environ[name] for name in ("HOME", "TMPDIR", "PET_BENCH_CACHE")), Path.cwd(), sep="\n")

    _, outcome = went(tmp_path, tells, "accept")
    home, temporary, cache, here = outcome.out.split()
    assert not list((tmp_path / "boxes").iterdir())  # cleared up
    assert here == "WORK" and len({home, temporary, cache}) == 3
    assert all(str(tmp_path) in place for place in (home, temporary, cache))


def test_changes_of_a_tree():
    tree = {"n": 1, "flag": True, "names": ["a", "b"], "inner": {"text": "x"}}
    rules = [Rule("inner.text", "dropped", "either"), Rule("names", "empty", "accept")]
    found = {name: (emit(make()), expect) for name, make, expect in mutations.tree_changes(tree, rules)}
    rest = '"flag": true, "names": ["a", "b"], "inner": {"text": "x"}}'
    assert found["n=nan"] == ('{"n": NaN, ' + rest, "refuse")
    assert found["n=bool"] == ('{"n": true, ' + rest, "refuse")
    assert found["n=doubled"] == ('{"n": 1, "n": 1, ' + rest, "refuse")
    assert found["n=dropped"] == ("{" + rest, "refuse")
    assert found["n=renamed"] == ('{"ns": 1, ' + rest, "refuse")
    assert found["names=empty"][1] == "accept" and found["inner.text=dropped"][1] == "either"
    assert '"\\ud83d"' in found["inner.text=surrogate"][0]
    assert '"junk": 1' in found["inner=junk"][0]
    assert found["flag=number"][0].startswith('{"n": 1, "flag": 1,')
    assert tree == {"n": 1, "flag": True, "names": ["a", "b"], "inner": {"text": "x"}}
    assert emit([Raw("0x10"), "é"]) == '[0x10, "é"]'


def test_every_change_of_a_file_changes_it(tmp_path):
    for mutation in [*mutations.text(), *mutations.flipped(), mutations.missing()]:
        file = tmp_path / f"{mutation.name}.json"
        file.write_text(content := json.dumps({"x": list(range(50))}))
        mutation.change(file)
        assert not file.is_file() or file.read_bytes() != content.encode(), mutation.name


def test_the_same_seed_draws_the_same_cases_and_the_costly_more_seldom():
    import random

    readers = [Reader("cheap", ()), Reader("dear", (), cost=10)]
    changes = [Mutation(str(number), nothing) for number in range(100)]
    cases = list(product("kind", [], "x", changes, readers))
    one, same, other = (sample(cases, 60, random.Random(seed)) for seed in (1, 1, 2))
    assert [case.name for case in one] == [case.name for case in same] != [case.name for case in other]
    assert sum(case.reader.name == "dear" for case in one) < 20


def test_some_cases_of_every_kind(tmp_path):
    """The sample that CI tries; `python benchmarks/fuzz.py` tries two thousand."""
    out = tmp_path / "failures.jsonl"
    line = [sys.executable, "benchmarks/fuzz.py", "--seed", "0", "--n", SAMPLE, "--jobs", "1", "--quick", "--out", out]
    done = subprocess.run([*map(str, line)], cwd=ROOT, capture_output=True, text=True)
    failures = [json.loads(row) for row in out.read_text().splitlines()] if out.exists() else []
    assert not [f"{row['got']} {row['name']}: {row['why']}" for row in failures], done.stdout
    assert done.returncode == 0, done.stderr
