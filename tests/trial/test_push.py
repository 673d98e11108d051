"""`push` to a small server of one's own that answers as the hub does; the library's own client talks to it."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

import pet_bench
from pet_bench.cli import main

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories that are made and what is committed to them; each request with its token."""

    made: dict[str, dict]
    files: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    refusing: bool

    def log_message(self, *_):
        pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        self.asked.append((path, self.headers.get("Authorization")))
        place = f"http://{self.headers['Host']}"
        if self.refusing:
            self.answer({"error": "You don't have the rights\nto create a model"}, 403)
        elif path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            self.made[name] = asked
            self.answer({"url": f"{place}/{'spaces/' * (asked['type'] == 'space')}{name}"})
        elif path == "/api/validate-yaml":
            head = json.loads(content)["content"].split("---\n")[1]
            self.answer({"errors": [], "warnings": [], "read": str(yaml.safe_load(head))})
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(content)["files"]]
            self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif path.endswith("/commit/main"):
            lines = [json.loads(line) for line in content.splitlines()]
            for line in lines:
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            kind, owner, name = path.split("/")[2:5]
            where = f"{'' if kind == 'models' else f'{kind}/'}{owner}/{name}"
            self.answer({"commitUrl": f"{place}/{where}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": "not found"}, 404)


@pytest.fixture
def hub(monkeypatch):
    kind = type("Server", (Hub,), {"made": {}, "files": {}, "asked": [], "refusing": False})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield kind
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def call(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["push", *map(str, arguments)])
        return (stopped.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def trial(world, tmp_path_factory):
    """A trained trial's result."""
    out = tmp_path_factory.mktemp("trials")
    result = pet_bench.run_trial(
        backbone="mini-bart", method="lora", suite="mini-image-text/vqa", recipe={"max_steps": 1, "valid_every": 0},
        protocol={"vqa": {"test": "karpathy_test[:5%]"}}, out=out, data=world, device="cpu", threads=1,
    )  # fmt: skip
    return out / f"{result.id}.json"


def test_a_trial_comes_back_as_it_is(hub, call, trial, tmp_path, monkeypatch):
    """What is at the hub is what `load_trial` needs, and its card's code finds it there."""
    code, out, err = call(trial, "somebody/my-lora")
    assert code == 0, err
    assert COMMIT in out and hub.made["somebody/my-lora"]["visibility"] == "private"
    assert {token for _, token in hub.asked} == {"Bearer hf_of_a_test"}
    tensors = {f"{trial.stem}/{path.name}" for path in trial.with_suffix("").glob("*.safetensors")}
    assert hub.files.keys() == {"README.md", trial.name, *tensors}
    for name, content in hub.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    text = (tmp_path / "README.md").read_text()
    assert f'load_trial("{trial.name}")' in text and "in which the result" in text
    monkeypatch.chdir(tmp_path)
    theirs, ours = (pet_bench.load_trial(path).model.state_dict() for path in (Path(trial.name), trial))
    assert all(theirs[name].equal(one) for name, one in ours.items())


def test_a_folder(hub, call, tmp_path):
    (tmp_path / "page" / "inner").mkdir(parents=True)
    (tmp_path / "page" / "index.html").write_text("<p>")
    (tmp_path / "page" / "inner" / "x.csv").write_text("1")
    (tmp_path / "page" / ".git").write_text("mine")
    code, _, err = call(tmp_path / "page", "somebody/page", "--type", "space", "--public", "--message", "first")
    assert code == 0, err
    assert hub.files == {"index.html": b"<p>", "inner/x.csv": b"1"}
    assert (hub.made["somebody/page"]["visibility"], hub.made["somebody/page"]["sdk"]) == ("public", "static")


def test_a_dry_run_reaches_for_nothing(hub, call, trial):
    code, out, _ = call(trial, "somebody/my-lora", "--dry-run")
    assert code == 0 and "would go to model somebody/my-lora" in out and "adapter.safetensors" in out
    assert not hub.asked


def test_what_cannot_be_pushed_is_one_line(hub, call, trial, tmp_path, monkeypatch):
    def fault(*arguments):
        code, _, err = call(*arguments)
        assert code == 2 and err.count("\n") == 1, err
        return err

    (tmp_path / "empty").mkdir()
    assert "holds no files" in fault(tmp_path / "empty", "somebody/x")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "name.txt").symlink_to("/etc/hostname")
    assert "is a link" in fault(tmp_path / "linked", "somebody/x")
    for name in ("my-lora", "", "a/b/c", "../x/y", "a/-b", "a/b.git", f"a/{'x' * 100}", f"a/{'x' * 10_000}"):
        assert "a repository is OWNER/NAME" in (said := fault(trial, name)) and len(said) < 300
    assert "is no trial" in fault("0123456789ab", "somebody/x")
    bare = shutil.copy(trial, tmp_path / trial.name)
    assert "adapter.safetensors is missing" in fault(bare, "somebody/x")
    assert not hub.asked
    hub.refusing = True
    assert "was not pushed to" in (said := fault(trial, "somebody/x")) and "rights" in said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "was not pushed to" in fault(trial, "somebody/x")
