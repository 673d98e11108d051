"""What a project has beside its code: one version, a changelog, templates and workflows that can be read."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml

import pet_bench
from pet_bench.cli import main
from pet_bench.results.provenance import commit
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(set((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"})
YAMLS = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])


def test_the_version_is_said_with_its_commit(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert not stopped.value.code
    said, (revision, changed) = capsys.readouterr().out.strip(), commit()
    expected = f" (commit {revision[:12]}{', changed since' if changed else ''})" if revision else ""
    assert said == f"pet-bench {pet_bench.__version__}{expected}"


def test_the_version_stands_in_one_place():
    """And in the citation, which no tool fills in."""
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == pet_bench.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project and project["dynamic"] == ["version"]


def test_the_changelog_has_a_place_for_what_comes():
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) and day for version, day in headings[1:])


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_it_is_yaml(path):
    assert yaml.safe_load(path.read_text("utf-8"))


def test_actions_are_pinned_to_commits():
    """With the version behind them, for people."""
    used = [
        line
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    assert not [line for line in used if not re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+$", line)]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_template_asks_for_what_is_needed(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert all(part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_what_workflows_call_is_there():
    made = (ROOT / "Makefile").read_text()
    said = " ".join(path.read_text() for path in WORKFLOWS)
    for target in re.findall(r"make ([\w-]+)", said):
        assert re.search(rf"^{target}:", made, re.MULTILINE), target
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", ".github"], capture_output=True, text=True, check=True)
    assert "workflows/test.yml" in tracked.stdout
