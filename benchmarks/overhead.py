"""What a grid adds to its trials: seconds per trial on Ray, with and without process reuse, over the bare trial.

    python benchmarks/overhead.py --trials 50

The trials are short ones of mini-bart × LoRA on a small mini world, which differ in their seeds only. They run one
after another in this process, imports done, data and backbone read once; then as `pet-bench run` runs them, one at a
time in fresh workers, one at a time in one that is reused, and with `--all-cores` again as many at a time as there are
cores. Every trial has one torch thread. A trial's seconds in a grid are those between two results, so the first one's
are not among them; the start is what comes before it begins. Prints the medians over the trials (where several run at
once, the mean), what is added to the same bare trial, and the ratio. Absolute seconds are noise on a shared machine:
compare within one run, or take the median of several `--rounds`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import yaml

from pet_bench.errors import UserError
from pet_bench.grid.claim import LOCKS
from pet_bench.grid.execute.process import cores
from pet_bench.grid.plan.spec import Grid, parse
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.results import store
from pet_bench.spec import Runtime
from pet_bench.trial.run import run_trial
from pet_bench.trial.shared import Shared

SIZES = Sizes(
    coco_train=60, coco_restval=6, coco_val=6, coco_test=24, vg_train=60, vg_valid=6, gqa_testdev=4, nlvr_train=4,
    nlvr_valid=2, nlvr_test=4,
)  # fmt: skip
ALONE = "--max-concurrent", "1"


@dataclass
class Found:
    """Seconds of each start, and of each trial but the first of a grid, by its seed."""

    starts: list[float] = field(default_factory=list)
    trials: list[tuple[int, float]] = field(default_factory=list)


def grid_of(count: int, steps: int) -> Grid:
    return parse({
        "name": "overhead", "suites": ["mini-image-text/vqa"], "backbones": ["mini-bart"], "methods": ["lora"],
        "seeds": list(range(count)), "recipe": {"lr": 3e-3, "max_steps": steps, "batch_size": 24, "valid_every": 0},
        "resources": {"cpus": 1, "gpus": 0},
    })  # fmt: skip


def bare(grid: Grid, folder: Path, data: Path, found: Found) -> None:
    runtime, shared = Runtime(out=folder, data=data, device="cpu", threads=1), Shared()
    first, *_ = trials = grid.trials()
    run_trial(first, runtime, shared=shared)  # reads, and makes torch ready
    for trial in trials:
        start = time.perf_counter()
        run_trial(trial, runtime, shared=shared)
        found.trials.append((trial.seed, time.perf_counter() - start))


def on_ray(grid: Grid, folder: Path, data: Path, found: Found, *options: str) -> None:
    """Run the command; when a trial began and ended is told by its lock and its result."""
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(grid.to_dict()))
    line = [sys.executable, "-m", "pet_bench.cli", "run", file, "--data", data, "--out", folder, "--device", "cpu"]
    start = time.time()
    done = subprocess.run([*map(str, line), *options], capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr)
    trials = grid.trials()
    begun = {trial.seed: (folder / LOCKS / trial.id).stat().st_ctime for trial in trials}
    ended = sorted(((folder / f"{trial.id}.json").stat().st_mtime, trial.seed) for trial in trials)
    found.starts.append(min(begun.values()) - start)
    gaps = [(seed, end - before) for (before, _), (end, seed) in pairwise(ended)]
    if ALONE[0] not in options:  # several end together
        gaps = [(seed, statistics.mean(gap for _, gap in gaps)) for seed, _ in gaps]
    found.trials += gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--steps", type=int, default=16, help="updates of a trial")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--all-cores", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    grid = grid_of(options.trials, options.steps)
    ways = {"fresh workers": (*ALONE, "--fresh-workers"), "reused worker": (*ALONE, "--reuse-workers")}
    if options.all_cores:
        ways |= {f"fresh, {cores()} at once": ("--fresh-workers",), f"reused, {cores()} at once": ("--reuse-workers",)}
    found = {name: Found() for name in ("bare", *ways)}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        os.environ["PET_BENCH_CACHE"] = str(base / "cache")
        write_image_text(base / "data", seed=3, sizes=SIZES)
        for number in range(options.rounds):
            bare(grid, base / f"{number}-bare", base / "data", found["bare"])
            for name, more in ways.items():
                on_ray(grid, base / f"{number}-{name}", base / "data", found[name], *more)
        for number in range(options.rounds):
            results = [store.load_all(base / f"{number}-{name}") for name in found]
            assert all(
                {id: result.metrics for id, result in those.items()} == {id: r.metrics for id, r in results[0].items()}
                for those in results
            ), "a grid changes its trials"
    report(found)


def report(found: dict[str, Found]) -> None:
    seconds: dict[int, list[float]] = {}
    for seed, took in found["bare"].trials:
        seconds.setdefault(seed, []).append(took)
    alone = {seed: statistics.median(took) for seed, took in seconds.items()}
    print(f"{'':20} {'start':>8} {'a trial':>8} {'added':>8} {'ratio':>6}")
    for name, these in found.items():
        start = f"{statistics.median(these.starts):6.1f} s" if these.starts else ""
        trial = statistics.median(took for _, took in these.trials)
        added = statistics.median(took - alone[seed] for seed, took in these.trials)
        ratio = statistics.median(took / alone[seed] for seed, took in these.trials)
        print(f"{name:20} {start:>8} {trial:6.2f} s {added:6.2f} s {ratio:6.2f}")


if __name__ == "__main__":
    main()
