"""A whole trial of the demonstration, against another checkout of pet-bench.

    git worktree add ../start COMMIT && python benchmarks/trial.py --before ../start --rounds 5

`--what warm` is a trial in a process that has run one before, as a worker of a grid does, and has read its data;
`cold` is one in a new process that makes the mini data first, as the first trial on a machine does. The scores of warm
ones are the same, or the benchmark fails. `--overhead` tells instead what share of a warm trial here is not spent in
the model's forward and backward passes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import Way, answer, by_turns


def trial(options: argparse.Namespace, folder: Path, shared: Any = None) -> dict[str, float]:
    """The scores of the grid's trial of the method with the first seed, on one thread. shared: what a worker keeps."""
    from pet_bench.grid.plan.spec import load
    from pet_bench.spec import Runtime
    from pet_bench.trial.run import run_trial

    spec = next(each for each in load(options.grid).trials() if each.method.name == options.method)
    result = run_trial(spec, Runtime(Path(tempfile.mkdtemp(dir=folder)), threads=1), shared=shared)
    return {f"{task} {name}": score.value for task, scores in result.metrics.items() for name, score in scores.items()}


def doing(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    if options.what == "warm":
        from pet_bench.trial.shared import Shared

        first = trial(options, folder, shared := Shared())

        def again() -> None:
            if trial(options, folder, shared) != first:
                sys.exit("the scores of one trial differ")

        return again
    return lambda: subprocess.run(
        [sys.executable, __file__, *sys.argv[3:], "--once"],
        check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"PET_BENCH_CACHE": tempfile.mkdtemp(dir=folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def overhead(options: argparse.Namespace, folder: Path) -> None:
    """Print the share of a trial that passes outside of the model."""
    import torch

    from pet_bench.backbone.interface import Model
    from pet_bench.trial.shared import Shared

    trial(options, folder, shared := Shared())
    inside, depth = 0.0, 0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside, depth
            start, depth = time.perf_counter(), depth + 1
            try:
                return call(*args, **kwargs)
            finally:
                depth -= 1
                inside += (time.perf_counter() - start) * (not depth)

        return wrapped

    for kind in [Model, *Model.__subclasses__()]:
        for name in {"logits", "generate", "choose"} & vars(kind).keys():
            setattr(kind, name, timed(getattr(kind, name)))
    torch.Tensor.backward = timed(torch.Tensor.backward)  # type: ignore[method-assign]
    start = time.perf_counter()
    trial(options, folder, shared)
    whole = time.perf_counter() - start
    print(
        f"{whole:.1f} s, of which {1 - inside / whole:.1%} outside of the model ({whole / inside - 1:.1%} of its time)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--what", choices=["warm", "cold"], default="warm")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--grid", default="demo")
    parser.add_argument("--method", default="vl-pet-large")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the process's own (warm)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.once:
            trial(options, folder)
        elif options.serve:
            answer(doing(options, folder), options.clock)
        elif options.overhead:
            overhead(options, folder)
        else:
            ways = {"here": Way(__file__, "here", Path(__file__).parent.parent)}
            if options.before:
                ways["before"] = Way(__file__, "before", options.before)
            by_turns(ways, options.rounds, warm=1)


if __name__ == "__main__":
    main()
