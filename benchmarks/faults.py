"""Kill a grid of real trials at random moments and see that nothing is lost, run twice or left half-written.

    python benchmarks/faults.py --kills 30 --seed 0

A grid of short trials on the mini world runs once undisturbed. Then it runs again in other folders, where a seeded
generator draws who is killed (SIGKILL) and when: the command itself, its scheduling process, a worker in the middle of
a trial, Ray's raylet or gcs_server, or all at once as in a power cut. A command that died is started again, at once or
when its processes are gone. Checked all the time: every result file is whole and those of finished trials never
change. Checked after each grid: results, curves, trained tensors and predictions are those of the undisturbed run to
the last bit; no trial was started after it had finished or while another process ran it; no temporary file and no
process is left; each fault was told in one line. Exit status 1 where anything of this does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from attempts import unended

from pet_bench.errors import UserError
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.results import store

SIZES = Sizes(
    coco_train=120, coco_restval=15, coco_val=15, coco_test=40, vg_train=120, vg_valid=15, gqa_testdev=40,
    nlvr_train=25, nlvr_valid=5, nlvr_test=10,
)  # fmt: skip
GRID = {
    "name": "faults",
    "suites": ["mini-image-text/vqa+nlvr2"],
    "backbones": ["mini-bart"],
    "methods": ["projector-only", {"name": "lora", "dropout": 0.1}, "vl-adapter"],
    "seeds": [0, 1],
    "recipe": {"lr": 3e-3, "epochs": 3, "batch_size": 24, "valid_every": 1, "selection": "best"},
}
VICTIMS = {"command": 3, "scheduler": 3, "worker": 4, "raylet": 3, "gcs_server": 3, "everything": 2}
MOMENTS = {"seconds": 3, "start": 2, "checkpoint": 4, "result": 2}
PATIENCE = 240.0  # seconds without anything new after which a grid counts as stuck
MARK = "PET_BENCH_FAULTS"  # in the environment of all processes of a round


class Stuck(Exception):
    """Nothing happens any more."""


@dataclass
class Kill:
    """told: the line that the user read about it."""

    victim: str
    moment: str
    told: str = ""

    @property
    def of_command(self) -> bool:
        return self.victim in ("command", "everything")


@dataclass
class Round:
    """One grid in one folder, its command started again until it has nothing left to do."""

    base: Path
    name: str
    draw: random.Random
    kills: list[Kill] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    finished: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    read: dict[str, tuple[int, int]] = field(default_factory=dict)
    starts: int = 0

    @property
    def out(self) -> Path:
        return self.base / self.name

    def run(self, most: int) -> None:
        """Until every trial is finished; at most so many kills."""
        try:
            while (status := self.command(most)) != 0:
                if status != -signal.SIGKILL:
                    print(f"    exit status {status}: {self.lines()[-1]}", flush=True)
                    if status not in (1, 2) or self.starts > 30:
                        raise Stuck
            if not self.until(lambda: not self.processes(), 30, alive=False):
                raise Stuck
        except Stuck:
            left = [" ".join(process.cmdline())[:60] for process in self.processes()]
            self.violations.append(f"stuck: {self.lines()[-3:]}, processes: {left}")
        kill(self.processes())

    def command(self, most: int) -> int:
        """One start of the command, to its end; its exit status."""
        self.starts += 1
        untold = [fate for fate in self.kills if not fate.told]
        self.log = self.base / f"{self.name}.{self.starts}.txt"
        line = [sys.executable, "-m", "pet_bench.cli", "run", self.base / "faults.yaml", "--data", self.base / "data"]
        line += ["--out", self.out, "--plugin", Path(__file__).with_name("attempts.py"), "--checkpoint-every", "5steps"]
        environment = os.environ | {
            "PET_BENCH_CACHE": str(self.base / "cache"), "COLUMNS": "200", "HF_HUB_OFFLINE": "1", MARK: self.name,
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        with self.log.open("w") as log:
            self.driver = psutil.Popen([*map(str, line)], stdout=log, stderr=log, env=environment, cwd=self.base)
        while self.driver.poll() is None:
            if len(self.kills) < most:
                self.kill()
            else:
                before = self.signs()
                self.wait(lambda before=before: self.signs() != before)
        self.check()
        text = self.lines()
        for fate in untold:
            fate.told = next((line for line in text if "trials" in line), "")
        if any("Traceback" in line for line in text):
            self.violations.append(f"a traceback in {self.log.name}")
        return self.driver.returncode

    def kill(self) -> None:
        """Draw a victim and a moment, wait for both, kill, and wait until the user is told."""
        (victim,), moment = self.draw.choices([*VICTIMS], VICTIMS.values()), self.moment()
        found: list[psutil.Process] = []
        self.wait(lambda: self.victims(victim, found))
        if self.driver.poll() is not None or not found:
            return
        said, fate = len(self.lines()), Kill(victim, moment)
        kill(found)
        self.kills.append(fate)
        if fate.of_command:
            self.driver.wait()
            if self.draw.random() < 0.5:
                fate.moment += ", then all gone"
                if not self.until(lambda: not self.processes(), 30, alive=False):
                    raise Stuck
            return
        self.wait(lambda: self.told(fate, said))
        if not fate.told:
            fate.told = f"(exit status {self.driver.wait()}) {self.lines()[-1]}"

    def told(self, fate: Kill, said: int) -> bool:
        word = "worker process died" if fate.victim == "worker" else "Ray died ("
        lines = [line for line in self.lines()[said:] if word in line]
        fate.told = lines[0].strip() if lines else ""
        return bool(lines)

    def moment(self) -> str:
        """Wait for a drawn moment, which has a name."""
        (kind,) = self.draw.choices([*MOMENTS], MOMENTS.values())
        delay = self.draw.uniform(0, 15 if kind == "seconds" else 0.5)
        if kind != "seconds":
            before = self.signs()[kind]
            self.wait(lambda: self.signs()[kind] != before)
        self.until(lambda: False, delay)
        return f"{delay:.2f} s" if kind == "seconds" else f"{delay:.2f} s after a {kind}"

    def signs(self) -> dict[str, int]:
        """What changes when a trial starts, writes a checkpoint or ends."""
        log, times = self.out / "attempts.txt", [0]
        for path in self.out.glob(f"*/{store.CHECKPOINT}"):
            with suppress(OSError):
                times.append(path.stat().st_mtime_ns)
        return {
            "start": log.read_text().count("start") if log.exists() else 0,
            "checkpoint": max(times),
            "result": len(list(self.out.glob("*.json"))),
        }

    def victims(self, victim: str, found: list[psutil.Process]) -> bool:
        """Put the processes to kill into `found`; whether there are any."""
        processes = self.processes()
        if victim == "command":
            found[:] = [self.driver]
        elif victim == "everything":
            found[:] = processes
        elif victim == "worker":
            running = sorted(unended(self.out / "attempts.txt").values())
            those = [p for p in processes if p.pid in running]
            found[:] = [self.draw.choice(those)] if those else []
        else:
            found[:] = [p for p in processes if is_a(p, victim)]
        return bool(found)

    def processes(self) -> list[psutil.Process]:
        """All that this round's commands started, and they themselves."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.name:
                    found.append(process)
        return found

    def until(self, holds: Callable[[], bool], seconds: float, alive: bool = True) -> bool:
        """Wait until something holds, checking results all the time; whether it does. alive: or the command ends."""
        end = time.monotonic() + seconds
        while True:
            over = time.monotonic() > end or (alive and self.driver.poll() is not None)
            self.check()
            if holds():
                return True
            if over:
                return False
            time.sleep(0.1)

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until something holds or the command ends."""
        if not self.until(holds, PATIENCE) and self.driver.poll() is None:
            raise Stuck

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def check(self) -> None:
        """Every result is whole; those of finished trials are the very files that they were."""
        present = {}
        for path in self.out.glob("*.json"):
            with path.open("rb") as file:
                stat, content = os.fstat(file.fileno()), file.read()
            present[path.name] = stat.st_mtime_ns, stat.st_ino
            if self.read.get(path.name) == present[path.name]:
                continue
            self.read[path.name] = present[path.name]
            try:
                result = store.load(path)
            except UserError as error:
                self.violations.append(str(error))
                continue
            before, now = self.finished.get(path.name), (*present[path.name], hashlib.sha256(content).hexdigest())
            if before and before != now:
                self.violations.append(f"{path.name} was finished and was written again")
            if result.status in store.FINISHED:
                self.finished[path.name] = now
        self.violations += [f"{name} was finished and is gone" for name in self.finished.keys() - present.keys()]

    def compare(self, whole: Path) -> None:
        """What must hold in the end."""
        results, expected = store.load_all(self.out), store.load_all(whole)
        if results.keys() != expected.keys():
            self.violations.append(f"results of {len(results)} trials, there are {len(expected)}")
        for id, result in results.items():
            for part in ("status", "error", "metrics", "breakdowns", "average", "curve", "selected", "parameters"):
                if getattr(result, part) != getattr(expected[id], part):
                    self.violations.append(f"{id}: {part} is not that of the undisturbed run")
            if (files := contents(self.out / id)) != (others := contents(whole / id)):
                names = sorted(name for name in {*files, *others} if files.get(name) != others.get(name))
                self.violations.append(f"{id}: {', '.join(names)}: not as of the undisturbed run")
        attempts = [line.split() for line in (self.out / "attempts.txt").read_text().splitlines()]
        self.violations += [" ".join(words) for words in attempts if words[0] in ("again", "twice")]
        ends = Counter(words[1] for words in attempts if words[0] == "end" and words[3] == "result")
        self.violations += [f"{id} ended {count} times" for id, count in ends.items() if count > 1]
        self.violations += [f"left behind: {path.name}" for path in self.out.glob(".*") if path.name != ".locks"]

    def table(self) -> None:
        for number, fate in enumerate(self.kills, 1):
            print(f"{self.name} {number:3}  {fate.victim:10}  {fate.moment:38}  {fate.told}")

    def resumed(self) -> int:
        return sum(len(result.run.resumed) for result in store.load_all(self.out).values())


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def is_a(process: psutil.Process, kind: str) -> bool:
    with suppress(psutil.Error):
        if kind == "scheduler":
            return "pet_bench.grid.execute.driver" in process.cmdline()
        return process.name() == kind
    return False


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder to work in and leave; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = (options.keep or Path(temporary)).absolute()
        base.mkdir(parents=True, exist_ok=True)
        sys.exit(suite(base, options.kills, options.seed))


def suite(base: Path, most: int, seed: int) -> int:
    started, draw = time.monotonic(), random.Random(seed)
    write_image_text(base / "data", seed=3, sizes=SIZES)
    (base / "faults.yaml").write_text(yaml.safe_dump(GRID))
    whole = Round(base, "undisturbed", draw)
    whole.run(0)
    print(f"undisturbed: {time.monotonic() - started:.0f} s", flush=True)
    rounds, violations = [], list(whole.violations)
    while sum(len(one.kills) for one in rounds) < most:
        rounds.append(one := Round(base, f"grid-{len(rounds) + 1}", draw))
        one.run(most - sum(len(other.kills) for other in rounds))
        one.compare(whole.out)
        one.table()
        print(
            f"    {one.name}: {len(one.finished)} trials, command started {one.starts} times, "
            f"{one.resumed()} times taken up from a checkpoint, {len(one.violations)} violations",
            flush=True,
        )
        for violation in one.violations:
            print(f"    VIOLATION {violation}", flush=True)
        violations += one.violations
    kills = Counter(kill.victim for one in rounds for kill in one.kills)
    print(
        f"{sum(kills.values())} kills ({', '.join(f'{n} {victim}' for victim, n in kills.most_common())}), "
        f"{len(rounds)} grids of {len(whole.finished)} trials, "
        f"{sum(one.resumed() for one in rounds)} times taken up from a checkpoint, "
        f"{len(violations)} violations, {time.monotonic() - started:.0f} s"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    main()
