"""One case in a process of its own: limits around it, all it says caught, its files looked at before and after."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.case import WORK, Case

Command = Callable[[list[str]], None]
MEMORY = 6 << 30  # bytes that a case may add to what the imports have taken
PREFIX = "pet-bench: error: "
USAGE = ("Usage: ", "Try ", "╭", "│", "╰", "Error: ")  # how options of a wrong type are refused


@dataclass(frozen=True)
class Outcome:
    """exit: negative where a signal ended it. changed, new: files of its folder."""

    exit: int
    hung: bool
    out: str
    err: str
    changed: tuple[str, ...]
    new: tuple[str, ...]
    files: dict[str, str]
    understood: str = ""

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Failure:
    """got: TRACEBACK, SILENT, WRONGCODE, HANG or ALTERED."""

    case: Case
    got: str
    why: str
    outcome: Outcome

    def to_dict(self) -> dict:
        said = self.outcome.said
        return {
            "group": self.case.kind, "name": self.case.name, "args": list(self.case.reader.args), "got": self.got,
            "exit": self.outcome.exit, "why": self.why, "said": said if len(said) < 3000 else f"…{said[-3000:]}",
            "files": self.outcome.files,
        }  # fmt: skip


def judge(case: Case, outcome: Outcome, sound: Outcome | None = None) -> Failure | None:
    """What is wrong with how a case went, None where nothing is. sound: how its reader's case without a change went."""

    def failed(got: str, why: str) -> Failure:
        return Failure(case, got, why, outcome)

    reader, faults = case.reader, [line for line in outcome.err.splitlines() if line.startswith(PREFIX)]
    if outcome.hung:
        return failed("HANG", "it had to be stopped")
    if outcome.exit == UNMADE:
        return failed("WRONGCODE", f"the case itself cannot be made: {(outcome.err.splitlines() or [''])[-1]}")
    if outcome.exit < 0:
        return failed("TRACEBACK", f"ended by {signal.Signals(-outcome.exit).name}")
    if "Traceback (most recent call last)" in outcome.said or outcome.exit == CRASHED:
        return failed("TRACEBACK", (outcome.err.strip().splitlines() or [""])[-1])
    if outcome.changed:
        return failed("ALTERED", f"changed or removed: {', '.join(outcome.changed[:5])}")
    if odd := [name for name in outcome.new if not name.startswith(reader.writes or "\0")]:
        return failed("ALTERED", f"new: {', '.join(odd[:5])}")
    told = any(words in outcome.out for words in reader.said)
    usage = outcome.exit == 2 and outcome.err.startswith("Usage: ")
    if outcome.exit in reader.codes and not (faults or usage or told):
        return failed("WRONGCODE", f"exit status {outcome.exit}, and no line says why")
    if outcome.exit not in reader.codes | {0}:
        return failed("WRONGCODE", f"exit status {outcome.exit}")
    if case.expect == "refuse" and outcome.exit == 0 and not told:
        return failed("SILENT", "accepted")
    if case.expect == "accept" and outcome.exit != 0:
        return failed("WRONGCODE", f"refused: {(faults or [outcome.err.strip() or outcome.out.strip()])[0][:300]}")
    if case.expect == "accept" and sound and sound.exit == 0 and outcome.understood != sound.understood:
        return failed("SILENT", "accepted, and understood as something else")
    wrong = case.check(outcome.said, outcome.exit)
    return failed("SILENT", wrong) if wrong else None


CRASHED = 70  # an exception that nothing caught
UNMADE = 71  # the fuzzer itself could not make the case


@dataclass
class Sandbox:
    """base: the sound inputs. command: what runs, `pet_bench.cli.main` but in tests. seconds: of processor time."""

    base: Path
    scratch: Path
    command: Command
    seconds: float = 60.0
    boxes: dict[int, tuple[Case, Path, float]] = field(default_factory=dict)
    count: int = 0

    def start(self, case: Case) -> None:
        """Begin a case in a forked process."""
        self.count += 1
        box = self.scratch / f"{self.count:08}"
        for name in ("work", "home", "tmp", "cache"):
            (box / name).mkdir(parents=True)
        sys.stdout.flush()
        sys.stderr.flush()
        if (pid := os.fork()) == 0:
            self._child(case, box)
        self.boxes[pid] = case, box, time.monotonic()

    def finished(self) -> Iterator[tuple[Case, Outcome]]:
        """The cases that have ended by now; those that have waited for too long are ended."""
        for pid, (case, box, started) in list(self.boxes.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            late = time.monotonic() - started > 5 * self.seconds  # waits for something, or the machine is very busy
            if not found and late:
                os.killpg(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
            if found or late:
                del self.boxes[pid]
                yield case, self._outcome(case, box, os.waitstatus_to_exitcode(status), late)
                shutil.rmtree(box, ignore_errors=True)

    def run(self, case: Case) -> Outcome:
        """One case from beginning to end."""
        self.start(case)
        while not (ended := list(self.finished())):
            time.sleep(0.01)
        return ended[0][1]

    def _child(self, case: Case, box: Path) -> None:
        status = CRASHED
        try:
            os.setsid()
            work = box / "work"
            try:
                self._prepare(case, work)
            except Exception:
                (box / "unmade").write_text(traceback.format_exc())
                raise
            (box / "before.json").write_text(json.dumps(digests(work)))
            for descriptor, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(box / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")  # as the interpreter has them
            self._confine(box, case)
            status = called(self.command, [argument.replace(WORK, str(work)) for argument in case.reader.args])
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _prepare(self, case: Case, work: Path) -> None:
        for name in case.base:
            source = self.base / name
            if source.is_dir():
                shutil.copytree(source, work / name, symlinks=True)
            else:
                shutil.copyfile(source, work / name)
        case.change(work / case.target)

    def _confine(self, box: Path, case: Case) -> None:
        os.chdir(box / "work")
        here = {"HOME": box / "home", "TMPDIR": box / "tmp", "PET_BENCH_CACHE": box / "cache"}
        os.environ.update({name: str(path) for name, path in here.items()})
        os.environ.update({key: value.replace(WORK, str(box / "work")) for key, value in case.reader.env.items()})
        import tempfile

        tempfile.tempdir = None
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(self.seconds), int(self.seconds) + 1))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)

    def _outcome(self, case: Case, box: Path, exit: int, late: bool) -> Outcome:
        work = box / "work"
        made = (box / "before.json").exists()
        before = json.loads((box / "before.json").read_text()) if made else {}
        if not made:
            (box / "out").write_text("")
            (box / "err").write_text((box / "unmade").read_text() if (box / "unmade").exists() else "")
            exit = UNMADE
        out, err = ((box / name).read_bytes().decode("utf-8", "replace") for name in ("out", "err"))
        out, err = (re.sub(rf"(?:/private)?{re.escape(str(work))}", WORK, part) for part in (out, err))
        after = digests(work)
        changed = tuple(sorted(name for name in before if after.get(name) != before[name]))
        hung = late or exit in (-signal.SIGXCPU, -signal.SIGKILL)
        return Outcome(
            exit, hung, out, err, tuple(name for name in changed if not allowed(name, case)),
            tuple(sorted(after.keys() - before.keys())), dict(shown(case, work)),
            case.reader.understood(work, out),
        )  # fmt: skip


def allowed(name: str, case: Case) -> bool:
    """Whether a command may change this file, which lies in its output."""
    return bool(case.reader.writes) and name.startswith(case.reader.writes)


def called(command: Command, arguments: list[str]) -> int:
    """The exit status with which the interpreter would end."""
    try:
        command(arguments)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return CRASHED
    return 0


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder: its content's digest, or where it leads; folders themselves are none."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"→ {os.readlink(path)}"  # noqa: PTH115
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def shown(case: Case, work: Path) -> Iterable[tuple[str, str]]:
    """The changed file, where it is text that is short enough to be kept."""
    path = work / case.target
    if path.is_file() and path.stat().st_size < 20_000:
        try:
            yield case.target, path.read_text(encoding="utf-8")
        except ValueError:
            return
