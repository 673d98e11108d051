"""Every fenced block of the pages is executed, those of commands and of Python as the pages have them, or as
`tests.docs.rehearsal` says; what a page says that a command prints, it prints."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import threading
import warnings
from contextlib import redirect_stderr, redirect_stdout
from http.server import ThreadingHTTPServer

import matplotlib.pyplot as plt
import pytest
from huggingface_hub import constants

from pet_bench.cli import main
from pet_bench.data import features
from pet_bench.data.known import KNOWN
from tests.conftest import ROOT
from tests.data import test_hub_fetch
from tests.data.test_features import ORIGIN, cells
from tests.docs.pages import PAGES, TYPED, steps, typed
from tests.docs.reader import settle
from tests.docs.rehearsal import REFUSED, UNTRIED, found, rehearsed, rehearsed_python

SHELLS = ("sh", "console")
TRIED = (*SHELLS, "python", "yaml", "mermaid", "text")  # yaml: test_pages; mermaid: drawn by `make docs`
EXECUTED = [
    page for page in PAGES if page != TYPED and any(language in (*SHELLS, "python") for language, _ in steps(page))
]
pytestmark = pytest.mark.xdist_group("executed")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Of all pages the same one: what one command writes, another may read."""
    base = tmp_path_factory.mktemp("reader")
    (home := base / "home").mkdir()
    (work := base / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"HOME": home, "PET_BENCH_CACHE": base / "cache"}.items():
            patch.setenv(name, str(value))
        for name in ("COLUMNS", "PET_BENCH_RESULTS"):  # as wide as what is printed
            patch.delenv(name, raising=False)
        patch.chdir(work)
        patch.setattr(features, "clip_encoder", lambda *_, **__: features.Encoder(cells, ORIGIN))  # no weights are here
        yield settle(home, work)


@pytest.fixture(scope="module")
def done():
    """Commands that have been executed, by what they were rehearsed as."""
    return set()


class Hub(test_hub_fetch.Hub):
    """The hub, with one file of every data set that is known by name."""

    def do_GET(self):
        known = next((known for known in KNOWN.values() if f"/{known.repository}" in self.path), None)
        if known is None:
            self.as_json(None, "RepoNotFound")
        elif "/tree/" in self.path:
            files = [pattern.replace("*", "x") for one in KNOWN.values() for pattern in one.files]
            self.as_json([{"type": "file", "path": path, "size": 9, "oid": "c" * 40} for path in files])
        else:
            self.as_json({"id": known.repository, "sha": "a" * 40, "siblings": []})


@pytest.fixture(scope="module")
def network():
    """All that there is of it: an address that answers as the hub does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Server", (Hub,), {"asked": []}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
    server.shutdown()
    server.server_close()
    thread.join()


def in_process(words):
    """Exit code, output and errors of a command of pet-bench."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors), pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", words[:2] != ["data", "fetch"])
        with pytest.raises(SystemExit) as end:
            main(words)
    return end.value.code or 0, output.getvalue(), errors.getvalue()


def execute(command, shown=""):
    """What a command prints, which must succeed or be refused as is foreseen."""
    program, *words = [re.sub("^~", os.environ["HOME"], word) for word in shlex.split(command)]
    if program == "make":
        run = subprocess.run([program, *words], cwd=ROOT, capture_output=True, text=True)
        code, output, errors = run.returncode, run.stdout, run.stderr
    else:
        assert program == "pet-bench", f"no way to execute {command}"
        code, output, errors = in_process(words)
    refusal = found(command, REFUSED) or "pet-bench: error: " * (shown.startswith("pet-bench: error: "))
    assert code == (2 if refusal else 0), f"{command}\n{output}{errors}"
    assert refusal in errors
    return output + errors if refusal else output


def same(shown, printed):
    """Whether what is shown is what was printed: … stands for anything, alone on a line for any lines."""
    lines = (line.rstrip() for line in shown.splitlines())
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n" for line in lines)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines()))


@pytest.mark.parametrize("page", EXECUTED)
def test_what_the_page_has_is_executed(page, reader, done, network):
    names = {"__name__": "__main__", "__file__": str(reader.work / "page.py")}
    for language, text in steps(page):
        if language == "python":
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("error")
                exec(compile(rehearsed_python(text, reader), page, "exec", dont_inherit=True), names)
            plt.close("all")
        for line, shown in typed(language, text) if language in SHELLS else ():
            for command in line.split(" && "):
                if found(command.strip(), UNTRIED):
                    assert not shown
                    continue
                rehearsal = rehearsed(command, reader)
                if shown or rehearsal not in done:
                    printed = execute(rehearsal, shown)
                    done.add(rehearsal)
                    assert not shown or same(shown, printed), f"{page}: {rehearsal} prints\n{printed}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_tried(page):
    """What is only to be read, `text`, begins with no command."""
    for language, text in steps(page):
        assert language in TRIED, f"{page}: a block of the kind {language!r}: {text[:60]}"
        assert language != "text" or not re.match(r"(?:\$ |pet-bench |make |pip |import |from )", text), text[:60]


def test_no_rehearsal_is_left_over():
    """Each pattern of what is refused or not tried is of some command."""
    lines = [
        line
        for page in PAGES
        for language, text in steps(page)
        if language in SHELLS
        for line, _ in typed(language, text)
    ]
    for pattern, _ in [*REFUSED, *UNTRIED]:
        assert any(re.search(pattern, line) for line in lines), pattern
