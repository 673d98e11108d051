"""SECURITY.md is true where the source can tell: no code comes from data, no shell runs, no archive unpacks blindly."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

SOURCES = sorted(path for folder in ("pet_bench", "methods", "tasks") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "pickle.load", "yaml.load", "extractall", "pd.read_pickle"}
MUST = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
MUST_NOT = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "weights_only": False}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {one.arg: one.value for one in node.keywords}, node.lineno


def faults(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        yield from (f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS)
    for name, keywords, line in calls(path):
        if name in FORBIDDEN_CALLS or name.endswith(".extractall"):
            yield f"{line}: calls {name}"
        if name in MUST:
            key, value = MUST[name]
            if not isinstance(said := keywords.get(key), ast.Constant) or said.value is not value:
                yield f"{line}: {name} without {key}={value}"
        for key, value in MUST_NOT.items():
            if isinstance(said := keywords.get(key), ast.Constant) and said.value is value:
                yield f"{line}: {key}={value}"


def test_no_source_does_what_it_rules_out():
    assert len(SOURCES) > 200
    found = [f"{path.relative_to(ROOT)}:{fault}" for path in SOURCES for fault in faults(path)]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import load", "eval(text)", "torch.load(path)", "np.load(path)",
        "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)", "archive.extractall(folder)", "os.system(text)",
    ],
)  # fmt: skip
def test_it_would_be_seen(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert [*faults(tmp_path / "a.py")]


def test_the_page_names_tests_that_are_there():
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 8
    assert not [path for path in named if not (ROOT / path).is_file()]
