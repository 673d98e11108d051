from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pet_bench.grid.execute.progress import HEARTBEAT, ROWS, SETTLING, Display, names
from pet_bench.grid.shown import duration
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Progress, Run, TrialResult
from pet_bench.spec import MethodSpec, Recipe, TrialSpec, Visual


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def trial(seed=0, method="lora", **changes):
    spec = TrialSpec(
        "mini-bart", MethodSpec(method), "mini-image-text", ("vqa",), Visual(8, 9, 9), seed, Recipe(lr=1e-3),
        label=method,
    )  # fmt: skip
    return replace(spec, **changes)


def ended(spec, status="done", error=None, average=50.0, notes=()):
    return TrialResult(
        id=spec.id, status=status, error=error, spec=spec.to_dict(), provenance=provenance("x"),
        run=Run(notes=list(notes)), average=average,
    )  # fmt: skip


def display(clock, total=4, finished=0, *, width=140, height=50, terminal=False, weights=None, out="results"):
    console = Console(file=StringIO(), width=width, height=height, force_terminal=terminal, color_system=None)
    return Display(console, Path(out), total=total, finished=finished, weights=weights, clock=clock)


def said(shown):
    return shown.console.file.getvalue()


def drawn(shown):
    console = Console(file=StringIO(), width=shown.console.width)
    console.print(shown.render())
    return console.file.getvalue().splitlines()


def train(spec, step, total=100, **found):
    return Progress(spec.id, "train", step, total, **found)


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "1 h 30 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


# without a terminal --------------------------------------------------------------------------------------------------


def test_without_a_terminal_there_is_a_line_for_each_end_and_nothing_else(clock):
    with display(clock, total=3, finished=1) as shown:
        specs = [trial(seed) for seed in range(2)]
        for spec in specs:
            shown.start(spec)
            shown.update(train(spec, 1, loss=2.0))
        before = said(shown)
        clock.now += 60
        shown.finish(specs[0], ended(specs[0]))
        shown.finish(specs[1], ended(specs[1], "oom", "no [more] memory", None))
    assert before == "3 trials, 1 finished before; results in results\n"
    lines = said(shown).splitlines()
    assert "\x1b" not in said(shown) and "\r" not in said(shown)
    assert lines[1].startswith("2/3 done  mini-bart × lora × mini-image-text × seed 0  average 50.00  60 s")
    assert lines[2] == "3/3 oom  mini-bart × lora × mini-image-text × seed 1  60 s  no [more] memory"
    assert lines[3] == "2 of 3 trials done, 1 oom; results in results"
    assert len(lines) == 4


def test_long_trials_leave_a_line_every_ten_minutes_at_most(clock):
    shown, spec = display(clock, total=4), trial()
    with shown:
        shown.start(spec)
        shown.update(train(spec, 1, 1000))
        for _ in range(int(HEARTBEAT / 60) * 2 + 5):  # minutes
            clock.now += 60
            shown.update(train(spec, round((clock.now - 1000) / 60) + 1, 1000))
    beats = [line for line in said(shown).splitlines() if "running" in line]
    assert len(beats) == 2
    assert re.fullmatch(r"1 running, 0 of 4 done, about \d+ h \d\d min left", beats[0])


def test_notes_retries_and_what_another_process_runs(clock):
    with display(clock) as shown:
        specs = [trial(seed) for seed in range(3)]
        for spec in specs:
            shown.start(spec)
        shown.note("a [note]")
        shown.retry(specs[0], "its node [n1] is gone")
        shown.leave(specs[1], "elsewhere")
        shown.finish(specs[2], ended(specs[2], "suspect", "all predictions are equal", notes=["began anew"]))
        assert not shown.running
    lines = said(shown).splitlines()
    assert lines[1] == "a [note]"
    assert lines[2] == f"again later  {specs[0]}  its node [n1] is gone"
    assert lines[3] == f"elsewhere  {specs[1]}"
    assert lines[4].startswith("1/4 suspect") and "all predictions are equal" in lines[4]
    assert lines[5] == "    began anew"
    assert lines[6] == "0 of 4 trials done, 1 suspect, 1 elsewhere; results in results"


def test_a_trial_that_ended_and_goes_back_to_the_queue_ends_once(clock):
    with display(clock, total=1) as shown:
        spec = trial()
        shown.start(spec)
        shown.finish(spec, ended(spec, "oom", "out of memory", None))
        shown.retry(spec, "batches in 2 parts")
        shown.start(spec)
        shown.finish(spec, ended(spec))
    assert said(shown).splitlines()[-1] == "1 of 1 trials done; results in results"
    assert said(shown).splitlines()[-2].startswith("1/1 done")


def test_the_folder_is_shown_as_seen_from_here(clock, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for out, text in (
        (tmp_path / "results" / "demo", "in results/demo\n"),
        ("/elsewhere/demo", "in /elsewhere/demo\n"),
    ):
        shown = display(clock, out=out)
        shown.close()
        assert said(shown).endswith(text)


@pytest.mark.parametrize(
    "status, code", [("done", 32), ("suspect", 33), ("stopped_early", 36), ("failed", 31), ("oom", 31)]
)
def test_colours(status, code, clock):
    console = Console(file=StringIO(), width=140, force_terminal=True, color_system="standard", _environ={})
    shown, spec = Display(console, Path("results"), total=1, finished=0, clock=clock), trial()
    shown.finish(spec, ended(spec, status, None if status == "done" else "why"))
    assert f"\x1b[{code}m{status}\x1b[0m" in said(shown)
    assert status == "done" or f"\x1b[{code}mwhy\x1b[0m" in said(shown)


# time left -----------------------------------------------------------------------------------------------------------


def test_time_left_follows_the_share_of_the_work(clock):
    shown = display(clock, total=4)
    specs = [trial(seed) for seed in range(4)]
    shown.start(specs[0])
    assert shown.eta() == ""
    clock.now += 60
    shown.finish(specs[0], ended(specs[0]))
    assert shown.eta() == "about 3 min left"


def test_time_left_while_nothing_has_finished(clock):
    shown, spec = display(clock, total=2), trial()
    shown.start(spec)
    shown.update(train(spec, 1, 1000))
    assert shown.eta() == ""
    clock.now += SETTLING / 2
    shown.update(train(spec, 20, 1000))
    assert shown.eta() == ""  # too early to tell
    clock.now = 1000 + 600
    shown.update(train(spec, 500, 1000))
    minutes = int(re.fullmatch(r"about (\d+) min left", shown.eta())[1])
    assert 28 <= minutes <= 34  # a quarter of the work took ten


def test_time_left_weighs_trials_by_what_they_are_expected_to_cost(clock):
    cheap, dear = trial(0), trial(1)
    shown = display(clock, total=2, weights={cheap.id: 1.0, dear.id: 9.0})
    shown.start(cheap)
    clock.now += 10
    shown.finish(cheap, ended(cheap))
    assert shown.eta() == "about 2 min left"  # nine times ten seconds


def test_what_a_checkpoint_brought_is_no_work_done_here(clock):
    shown, spec = display(clock, total=1), trial()
    shown.start(spec)
    for step in range(800, 820):
        clock.now += 10
        shown.update(train(spec, step, 1000))
    minutes = int(re.fullmatch(r"about (\d+) min left", shown.eta())[1])
    assert 30 <= minutes <= 45  # 180 updates at ten seconds each, and the test
    assert shown.running[spec.id].left(clock.now) == "30 min"


def test_a_trial_that_failed_at_once_says_nothing_about_the_pace(clock):
    shown = display(clock, total=3)
    one, other = trial(0), trial(1)
    shown.start(one)
    clock.now += 1
    shown.finish(one, ended(one, "failed", "why", None))
    assert shown.eta() == ""
    shown.start(other)
    clock.now += 99
    shown.finish(other, ended(other))
    assert shown.eta() == "about 2 min left"  # one trial of a hundred seconds


# the table -----------------------------------------------------------------------------------------------------------


def test_a_row_shows_where_its_trial_stands(clock):
    shown = display(clock, total=40, finished=11, width=160)
    spec = trial(method="vl-pet-large", control="text-only")
    shown.start(spec)
    shown.update(Progress(spec.id, "prepare", 5, 10))
    assert re.search(r"seed 0 \[text-only\] +prepare +\S+ +50% +5/10$", drawn(shown)[1].rstrip())
    shown.update(train(spec, 1, 2000, loss=2.0, examples_per_second=1234.5, epoch=0.01))
    clock.now += 10
    shown.update(train(spec, 201, 2000, loss=1.0, examples_per_second=1500.4, epoch=1.25))
    head, row, last = drawn(shown)
    assert head.split() == ["running", "phase", "updates", "epoch", "loss", "examples/s", "left"]
    assert row.startswith("mini-bart × vl-pet-large × mini-image-text × seed 0 [text-only]")
    assert re.search(r" train +\S+ +10% +201/2,000 +1.2 +1.900 +1,500 +90 s$", row.rstrip())
    assert "1 running · 11 of 40 done · 10 s so far" in last
    shown.update(Progress(spec.id, "evaluate", 1, 8))
    assert re.search(r"evaluate .* 12% +1/8 +1.900 +1,500", drawn(shown)[1])


def test_many_trials_leave_room_for_the_last_line(clock):
    shown = display(clock, total=64)
    for seed in range(64):
        shown.start(trial(seed))
    lines = drawn(shown)
    assert len(lines) == 1 + ROWS + 2
    assert lines[-2].strip() == f"… and {64 - ROWS} more"
    assert "64 running · 0 of 64 done" in lines[-1]
    shown.console.height = 12
    assert len(drawn(shown)) <= 12


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_row_fits_its_line_and_keeps_the_seed(width, clock):
    shown = display(clock, width=width)
    specs = [trial(3, "a-method-with-a-long-name(rank=8, bias=true)"), trial(4, "lora")]
    for spec in specs:
        shown.start(spec)
        shown.update(train(spec, 123, 4567, loss=2.0, examples_per_second=10.0))
    lines = drawn(shown)
    assert all(len(line) <= width for line in lines)
    assert "seed 3" in lines[1] and "lora × " in lines[2] and "seed 4" in lines[2]


def test_names_lose_first_what_all_have_in_common():
    specs = [trial(0), trial(0, backbone="mini-t5")]
    assert names(specs, 99) == [str(spec) for spec in specs]
    assert names(specs, 30) == ["mini-bart × lora × seed 0", "mini-t5 × lora × seed 0"]
    assert names(specs, 14) == ["lora × seed 0"] * 2
    assert names([trial(7, "vl-pet-large")], 15) == ["vl-pe… × seed 7"]


def test_on_a_terminal_the_table_is_drawn_and_goes_in_the_end(clock):
    spec = trial()
    with display(clock, terminal=True) as shown:
        shown.start(spec)
        shown.update(train(spec, 5, 10, loss=1.5))
        shown.live.refresh()
        assert "1.500" in said(shown)
        shown.finish(spec, ended(spec))
    assert said(shown).rstrip().splitlines()[-1].endswith("1 of 4 trials done; results in results")
