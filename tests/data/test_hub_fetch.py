"""`data fetch` from a small server of one's own that answers as the hub does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from pet_bench.cli import main
from tests.data import hub_layouts as hub

COMMIT, OLDER = "a" * 40, "b" * 40
REPOSITORY = "lmms-lab-encoder/GQA"


class Hub(BaseHTTPRequestHandler):
    """The answers of the hub that the library asks for: a revision, the tree of one, and its files.

    changed: what is sent in place of some files; dying: files of which the first half is sent.
    """

    folder: Path
    changed: dict[str, bytes]
    dying: set[str]
    asked: list[str]

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/"
        commit = next((commit for commit in (COMMIT, OLDER) if f"/{commit}" in path), COMMIT)
        if path == api or path.startswith(f"{api}/revision/"):
            known = path.rpartition("/")[2] in ("main", "GQA", COMMIT, OLDER)
            self.as_json({"id": REPOSITORY, "sha": commit, "siblings": []} if known else None, "RevisionNotFound")
        elif path.startswith(f"{api}/tree/"):
            self.as_json(self.tree())
        elif path.startswith(files):
            self.file(path.removeprefix(files).partition("/")[2], commit)
        else:
            self.as_json(None, "RepoNotFound")

    def as_json(self, value, code=""):
        body = json.dumps(value if value is not None else {"error": code}).encode()
        more = {"Content_Type": "application/json"} | ({"X-Error-Code": code} if value is None else {})
        self.answer(200 if value is not None else 404, body, **more)

    def tree(self):
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file", "path": path.relative_to(self.folder).as_posix(), "size": path.stat().st_size,
                "oid": "c" * 40, "lfs": {"oid": digest(path), "size": path.stat().st_size, "pointerSize": 1},
            }
            for path in paths
        ]  # fmt: skip

    def file(self, name, commit):
        path = self.folder / name
        whole = self.changed.get(name, path.read_bytes())
        tags = {"ETag": f'"{digest(path)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0] or 0)
        if start:
            tags["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        if self.command == "GET" and name in self.dying:
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        else:
            self.answer(206 if start else 200, whole[start:], **tags)


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path):
    """The class of what answers, to be told how; GQA's layout and a file that is not wanted."""
    hub.gqa(tmp_path / "there")
    (tmp_path / "there" / "challenge.zip").write_bytes(b"x" * 1000)
    kind = type("Server", (Hub,), {"folder": tmp_path / "there", "changed": {}, "dying": set(), "asked": []})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.address = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield kind
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def fetch(monkeypatch, capsys):
    """Exit code, output and errors."""

    def run(address, *arguments, offline=False):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(SystemExit) as stopped:
            main(["data", "fetch", *map(str, arguments)])
        return (stopped.value.code or 0, *capsys.readouterr())

    return run


def in_a_process(address, *arguments):
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "pet_bench.cli", "data", "fetch", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def record(folder):
    return json.loads((folder / "fetched.json").read_text())


def test_fetched_at_one_revision_and_written_down(server, fetch, tmp_path):
    folder = tmp_path / "gqa"
    code, out, err = in_a_process(server.address, "gqa-testdev", "--to", folder)
    assert code == 0, err
    assert f"from {server.address}/datasets/{REPOSITORY} at {COMMIT}: 2 files" in out
    content = record(folder)
    assert (content["repository"], content["revision"]) == (REPOSITORY, COMMIT)
    names = [f"testdev_balanced_{what}/testdev-00000-of-00001.parquet" for what in ("images", "instructions")]
    assert [file["path"] for file in content["files"]] == names
    for file in content["files"]:
        there = server.folder / file["path"]
        assert (file["size"], file["sha256"]) == (there.stat().st_size, digest(there))
        assert digest(folder / file["path"]) == file["sha256"]
    server.asked.clear()
    assert fetch(server.address, "gqa-testdev", "--to", folder)[0] == 0  # it has all: nothing is asked for but the list
    assert not any("/resolve/" in asked for asked in server.asked)
    code, out, err = fetch(server.address, "gqa-testdev", "--to", folder, "--revision", OLDER)
    assert code == 2 and f"holds {REPOSITORY} at {COMMIT}, not at {OLDER}" in err


def test_only_what_is_asked_for(server, fetch, tmp_path):
    code, out, err = fetch(server.address, REPOSITORY, "--to", tmp_path / "gqa")
    assert (code, err.count("\n")) == (2, 1) and "which files of lmms-lab-encoder/GQA?" in err
    code, out, _ = fetch(server.address, REPOSITORY, "--files", "val_*/*", "--to", tmp_path / "gqa", "--dry-run")
    assert code == 0 and "2 files" in out and not (tmp_path / "gqa").exists()


def test_interrupted_it_goes_on_at_the_same_revision(server, fetch, tmp_path):
    folder, name = tmp_path / "gqa", "testdev_balanced_images/testdev-00000-of-00001.parquet"
    server.dying.add(name)
    code, _, err = fetch(server.address, "gqa-testdev", "--to", folder, "--revision", OLDER)
    assert code == 2 and err.strip().splitlines()[-1].startswith("pet-bench: error: ")
    server.dying.clear()
    code, _, err = fetch(server.address, "gqa-testdev", "--to", folder)
    assert code == 0, err
    assert record(folder)["revision"] == OLDER
    assert digest(folder / name) == digest(server.folder / name)


def test_what_is_not_what_the_hub_says(server, fetch, tmp_path):
    name = "testdev_balanced_images/testdev-00000-of-00001.parquet"
    server.changed[name] = b"y" * (server.folder / name).stat().st_size
    code, _, err = fetch(server.address, "gqa-testdev", "--to", tmp_path / "gqa")
    assert code == 2
    assert f"pet-bench: error: {tmp_path / 'gqa' / name} is not what {REPOSITORY} has: fetch it again" in err
    assert not (tmp_path / "gqa" / name).exists()


@pytest.mark.parametrize("kind", ["nobody there", "offline", "no such data set", "no such revision", "no such file"])
def test_what_cannot_be_had_is_one_line(kind, server, fetch, tmp_path):
    folder, more, address, offline = tmp_path / "gqa", [], server.address, False
    name = "gqa-testdev"
    if kind == "nobody there":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
    elif kind == "offline":
        offline = True
    elif kind == "no such data set":
        name, more = "somebody/Nothing", ["--files", "*"]
    elif kind == "no such revision":
        more = ["--revision", "other"]
    else:
        more = ["--files", "nothing/*"]
    code, out, err = fetch(address, name, "--to", folder, *more, offline=offline)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    expected = "has no such files" if kind == "no such file" else f"cannot be fetched from {address}"
    assert line.startswith("pet-bench: error: ") and expected in line
    assert not folder.exists()


def test_what_was_there_stays(server, fetch, tmp_path):
    folder = tmp_path / "gqa"
    assert fetch(server.address, "gqa-testdev", "--to", folder)[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert fetch("http://127.0.0.1:9", "gqa-testdev", "--to", folder)[0] == 2
    assert fetch(server.address, "coco-karpathy", "--to", folder)[0] == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    code, _, err = fetch(server.address, "gqa-testdev", "--to", tmp_path / "other")
    assert code == 2 and "holds something that was not fetched" in err


def test_an_unknown_name_is_told_what_there_is(fetch):
    code, _, err = fetch("http://127.0.0.1:9", "gqa-testdec")
    assert code == 2 and 'did you mean "gqa-testdev"?' in err
