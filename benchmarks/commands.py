"""What the commands take that only look: seconds of each here and in another checkout, and the ratio.

    python benchmarks/commands.py --before ../start --rounds 5
    python benchmarks/commands.py --before ../start --only report --results 63 630 --cpu

`--before` is the folder of another checkout with an environment of its own in `.venv`, of the commit to compare with;
without it, only this one is timed. Each command is run once to fill the cache, then in `--rounds` rounds, in each by
both checkouts by turns. Prints the medians over rounds of the seconds, and of the ratios within a round. What the two
write, and print but for commits and lists, must be equal.

Results are copies of those in `results/mini-image-text-bart` under other seeds; plans of grids are in the cache, as
`pet-bench run` leaves them, but for --dry-run, which makes them anew, and the mini world is drawn anew each time.
`--cpu` times a process's own seconds, where other programs keep the cores busy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from pet_bench.errors import UserError
from pet_bench.grid.plan.spec import load

HERE = Path(__file__).parents[1]
SOURCE = HERE / "results" / "mini-image-text-bart"
DRAW = "import sys, pathlib; from pet_bench.mini.write import write_image_text as w; w(pathlib.Path(sys.argv[1]))"
METHODS = ["lora", "vl-adapter", "bitfit", "full"]


@dataclass(frozen=True)
class Case:
    """arguments: of `pet-bench`, with OUT for a folder to write to. compared: files there that must be equal; prints:
    whether what is printed must be, which names no commit. draws: it is the mini world that is drawn. most: seconds
    that it may take on two quiet cores.
    """

    name: str
    most: float
    arguments: tuple[str, ...]
    compared: tuple[str, ...] = ()
    prints: bool = True
    draws: bool = False


@dataclass
class Checkout:
    root: Path
    python: Path
    cache: Path

    def run(self, case: Case, clock: Callable[[], float]) -> tuple[float, list[bytes]]:
        """Seconds, and what was printed and written."""
        program = [str(self.python), *(("-c", DRAW) if case.draws else ("-m", "pet_bench.cli"))]
        with tempfile.TemporaryDirectory() as folder:
            arguments = [folder if one == "OUT" else one for one in case.arguments]
            start = clock()
            done = subprocess.run(
                [*program, *arguments], capture_output=True, cwd=self.root,
                env=os.environ | {"PET_BENCH_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            took = clock() - start
            if done.returncode:
                raise UserError(f"{self.root}: pet-bench {' '.join(arguments)}: {done.stderr.decode()}")
            return took, [done.stdout * case.prints, *((Path(folder) / name).read_bytes() for name in case.compared)]


def copies(folder: Path, count: int) -> Path:
    """A folder of so many results: those of `SOURCE`, under other seeds and ids."""
    grid = load(SOURCE)
    own = {(trial.but_seed, trial.seed): trial.id for trial in grid.trials()}
    many = replace(grid, name=folder.name, seeds=list(range(count * len(grid.seeds) // len(own))))
    folder.mkdir()
    (folder / "grid.yaml").write_text(many.dump())
    for trial in many.trials():
        old = own[trial.but_seed, grid.seeds[trial.seed % len(grid.seeds)]]
        result = json.loads((SOURCE / f"{old}.json").read_text().replace(old, trial.id))
        result["spec"]["seed"] = trial.seed
        (folder / f"{trial.id}.json").write_text(json.dumps(result, indent=1))
        shutil.copytree(SOURCE / old, folder / trial.id)
    return folder


def planned(folder: Path, count: int) -> Path:
    """A grid file of so many trials."""
    grid = {
        "name": "planned", "suites": ["mini-image-text"], "backbones": ["mini-bart"], "methods": METHODS,
        "seeds": list(range(count // len(METHODS))), "resources": {"cpus": 1, "gpus": 0},
    }  # fmt: skip
    file = folder / f"planned-{count}.yaml"
    file.write_text(yaml.safe_dump(grid))
    return file


def cases(folder: Path, results: list[int], trials: list[int]) -> list[Case]:
    trial = next(SOURCE.glob("*.json")).stem
    made = [
        Case("list", 0.7, ("list",), prints=False),
        Case("status", 0.7, ("status", str(SOURCE))),
        Case("show", 0.7, ("show", trial, "--out", str(SOURCE)), prints=False),
        Case("params", 3, ("params", "--backbone", "bart-base", "--format", "csv")),
        Case("mini data", 2, ("OUT",), ("scenes.json", "GQA/train.json"), draws=True),
    ]
    for count in trials:
        file = planned(folder, count)
        more = "--executor", "inline", "--estimate", "earlier", "--device", "cpu", "--out", str(folder / "none")
        made.append(Case(f"dry-run {count:,}", 8, ("run", str(file), "--dry-run", *more)))
    for count in results:
        copied = copies(folder / f"results-{count}", count)
        files = "table.csv", "pareto.svg", "learning_curves.svg", "question_types.svg"
        made.append(Case(f"report {count:,}", 15, ("report", str(copied), "--to", "OUT"), files, prints=False))
    return made


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=int, nargs="*", default=[63, 630, 3150], help="multiples of 21")
    parser.add_argument("--trials", type=int, nargs="*", default=[1000, 10_000], help="multiples of 4")
    parser.add_argument("--only", help="the commands whose names begin so")
    parser.add_argument("--cpu", action="store_true", help="a process's own seconds instead of those on the wall")
    options = parser.parse_args()
    clock = children if options.cpu else time.perf_counter
    only = options.only or ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkouts = [Checkout(HERE, Path(sys.executable), folder / "here")]
        if options.before:
            there = options.before.absolute()
            checkouts.insert(0, Checkout(there, there / ".venv" / "bin" / "python", folder / "before"))
        results = options.results if "report".startswith(only) or only.startswith("report") else []
        trials = options.trials if "dry-run".startswith(only) or only.startswith("dry-run") else []
        print(f"{'':16} {'before':>9} {'here':>9} {'ratio':>6} {'at most':>9}")
        for case in cases(folder, results, trials):
            if case.name.startswith(only):
                timed(case, checkouts, options.rounds, clock)


def timed(case: Case, checkouts: list[Checkout], rounds: int, clock: Callable[[], float]) -> None:
    seconds: list[list[float]] = []
    for number in range(rounds + 1):  # the first fills the cache
        took, said = zip(*(checkout.run(case, clock) for checkout in checkouts), strict=True)
        assert all(one == said[0] for one in said), f"{case.name}: the two do not print and write the same"
        seconds += [list(took)] * bool(number)
    *before, here = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(row[-1] / row[0] for row in seconds)
    shown = f"{before[0]:7.2f} s" if before else ""
    print(
        f"{case.name:16} {shown:>9} {here:7.2f} s {f'{ratio:.2f}' if before else '':>6} {case.most:7.1f} s", flush=True
    )


if __name__ == "__main__":
    main()
