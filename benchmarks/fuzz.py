"""Every public input, changed in every way that breaks or must not break it, in front of every command that reads it.

    python benchmarks/fuzz.py --seed 0 --n 2000

Grid files, command lines, results, predictions, backbones, adapters, those of peft, checkpoints, plug-ins, data
folders, packed features, official downloads and predictions to score: small sound ones are made once, and each case is
a copy of some of them, with one change, read by one command in a process of its own, with limits of time and memory and
without Ray or a network. The change says what has to happen: a refusal (exit status 2, a line a fault), the same as
without the change (a byte order mark), or either. Whatever happens, there must be no TRACEBACK; a broken input that is
accepted is SILENT, an exit status of another kind is WRONGCODE, what does not end is a HANG, and an input or anything
else that is not the command's output and has changed is ALTERED. Without its change every input must be accepted, which
is tried first.

Prints progress, a table of kinds and verdicts, and one line a failure; with `--out FILE` each is a line of JSON, which
`--replay FILE` tries again, and so does `--only NAME`. The same seed draws the same cases out of all there are
(`--list` counts them). Exit status 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

# kinds of input and their shares of the cases
SHARES = {
    "grid": 18, "option": 14, "results": 18, "predictions": 8, "plug-in": 14, "data": 12, "packed": 2, "downloads": 6,
    "scored": 6, "backbone": 8, "adapter": 2, "imported": 3, "checkpoint": 2,
}  # fmt: skip
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "300", "MPLBACKEND": "agg", "NO_COLOR": "1",
}  # fmt: skip


def load(scratch: Path) -> None:
    """Import all there is, once, before anything is forked."""
    import importlib
    import pkgutil

    os.environ.update(ENVIRONMENT | {"HOME": str(scratch), "MPLCONFIGDIR": str(scratch / "mpl")})
    os.environ.pop("RAY_ADDRESS", None)
    import matplotlib.pyplot
    import torch
    import transformers

    import pet_bench
    from pet_bench.registry import REGISTRIES

    for module in pkgutil.walk_packages(pet_bench.__path__, "pet_bench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for registry in REGISTRIES.values():
        registry.load()
    for name in ("BartForConditionalGeneration", "T5ForConditionalGeneration", "PreTrainedTokenizerFast"):
        getattr(transformers, name)
    torch.set_num_threads(1)
    assert matplotlib.pyplot


def command(arguments: list[str]) -> None:
    """The command line; or one of the functions that give results as tables, called as a script would."""
    import pet_bench
    from pet_bench.cli import main
    from pet_bench.errors import UserError

    if not arguments or arguments[0] not in pet_bench.__all__:
        return main(arguments)
    try:
        print(getattr(pet_bench, arguments[0])(*arguments[1:]).to_csv())
    except UserError as error:
        sys.exit("\n".join(f"pet-bench: error: {fault}" for fault in error.faults))


def catalogue(base: Path) -> dict[str, list]:
    """Every case there is, by kind; the cases without a change come first."""
    from fuzzing import data, grids, models, options, plugins, results, scores

    found: dict[str, list] = {kind: [] for kind in SHARES}
    for module in (grids, options, results, plugins, data, scores, models):
        for case in module.cases(base):
            found[case.kind].append(case)
    for cases in found.values():
        cases.sort(key=lambda case: case.name != case.sound)
    return found


def chosen(found: dict[str, list], n: int, seed: int) -> list:
    """n changed cases of all kinds by their shares, and before them the unchanged ones that they need."""
    from fuzzing.case import sample

    shares = {kind: share for kind, share in SHARES.items() if found[kind]}
    draw, cases, total = random.Random(seed), [], sum(shares.values())
    for kind, share in shares.items():
        changed = [case for case in found[kind] if case.name != case.sound]
        cases += sample(changed, max(1, round(n * share / total)), draw)
    draw.shuffle(cases)
    return with_sound(found, cases)


def with_sound(found: dict[str, list], cases: list) -> list:
    names = {case.sound for case in cases}
    sound = [case for kind in found.values() for case in kind if case.name == case.sound and case.name in names]
    return [*sound, *(case for case in cases if case.name != case.sound)]


def tried(sandbox, cases: Iterable, jobs: int) -> Iterator[tuple]:
    """(case, failure or None) as they end, several at a time."""
    from fuzzing.sandbox import judge

    waiting, sound, held = list(cases)[::-1], {}, []
    unchanged = {case.name for case in waiting if case.name == case.sound}
    while waiting or sandbox.boxes or held:
        while waiting and len(sandbox.boxes) < jobs:
            sandbox.start(waiting.pop())
        for case, outcome in sandbox.finished():
            if case.name == case.sound:
                sound[case.name] = outcome
            held.append((case, outcome))
        ready = [one for one in held if one[0].sound in sound or one[0].sound not in unchanged]
        held = [one for one in held if one not in ready]
        for case, outcome in ready:
            yield case, judge(case, outcome, sound.get(case.sound) if case.name != case.sound else None)
        time.sleep(0.01)


def replayed(file: Path, found: dict[str, list]) -> list:
    """The cases of an earlier run's failures: by name, or where that is unknown from the files they brought."""
    from fuzzing.case import WORK, Case, Reader

    names, cases, left = {case.name: case for kind in found.values() for case in kind}, [], 0
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["name"] in names:
            cases.append(names[row["name"]])
            continue
        args = tuple(one.replace("<10000 characters>", "x" * 10_000) for one in row["args"])
        outputs = {args[i + 1] for i, one in enumerate(args[:-1]) if one == "--out"}
        needed = {one.removeprefix(f"{WORK}/") for one in args if one.startswith(f"{WORK}/")} - row["files"].keys()
        if needed - {one.removeprefix(f"{WORK}/") for one in outputs}:
            left += 1
            continue

        def change(folder: Path, files: dict[str, str] = row["files"]) -> None:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")

        reader = Reader(args[0], args, frozenset({1, 2}) if row["group"] == "plugins" else frozenset({2}))
        cases.append(Case("replayed", f"replayed/{row['group']}/{row['name']}", reader, (), ".", change, "refuse"))
    if left:
        print(f"{left} cases brought not all of their files and are left out")
    return cases


def report(counts: Counter, kinds: Iterable[str]) -> None:
    """A table of kinds and verdicts."""
    verdicts = ("fine", "TRACEBACK", "SILENT", "WRONGCODE", "HANG", "ALTERED")
    print(f"{'':14}" + "".join(f"{verdict:>11}" for verdict in verdicts))
    for kind in kinds:
        if any(counts[kind, verdict] for verdict in verdicts):
            print(f"{kind:14}" + "".join(f"{counts[kind, verdict] or '–':>11}" for verdict in verdicts))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=2000, help="changed cases; the unchanged ones come on top")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--kind", action="append", choices=SHARES, help="only this kind of input; repeatable")
    parser.add_argument("--only", action="append", metavar="NAME", help="only the case of this name; repeatable")
    parser.add_argument("--quick", action="store_true", help="only with commands that take a moment: no figures")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="the failures of an earlier run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="failures, a line of JSON each")
    parser.add_argument("--seconds", type=float, default=40.0, help="of processor time for a case")
    parser.add_argument(
        "--list", action="store_true", help="count all cases there are, and name them if one kind is chosen"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return run(options, Path(folder))


def run(options: argparse.Namespace, scratch: Path) -> int:
    from fuzzing import base
    from fuzzing.sandbox import Sandbox

    load(scratch)
    base.apart(lambda: base.make(scratch / "base"))
    found = catalogue(scratch / "base")
    if options.kind:
        found = {kind: cases if kind in options.kind else [] for kind, cases in found.items()}
    if options.quick:
        found = {kind: [case for case in cases if case.reader.cost <= 5] for kind, cases in found.items()}
    if options.list:
        for kind, cases in found.items():
            print(f"{kind:14}{len(cases):8,}")
            print("".join(f"  {case.name}\n" for case in cases) if options.kind else "", end="")
        return 0
    cases = replayed(options.replay, found) if options.replay else chosen(found, options.n, options.seed)
    if options.only:
        cases = [case for kind in found.values() for case in kind if case.name in options.only]
    cases = with_sound(found, cases)

    sandbox = Sandbox(scratch / "base", scratch / "boxes", command, options.seconds)
    counts, began, failures = Counter(), time.monotonic(), []
    for done, (case, failure) in enumerate(tried(sandbox, cases, options.jobs), start=1):
        counts[case.kind, failure.got if failure else "fine"] += 1
        if failure:
            failures.append(failure)
            print(f"{failure.got:10} {case.name}: {failure.why[:200]!r}", flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(failure.to_dict()) + "\n")
        if done % 100 == 0 and done < len(cases):
            left = (time.monotonic() - began) / done * (len(cases) - done)
            print(f"{done} of {len(cases)}, {len(failures)} failures, about {left / 60:.0f} min left", flush=True)
    report(counts, [*SHARES, "replayed"])
    print(f"{len(cases)} cases, {len(failures)} failures, {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
