"""The wheel holds what the checkout holds, plug-ins are importable only under pet_bench, imports only point down."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FLOORS = [
    {"registry", "spec", "files", "errors"},
    {"backbone"},
    {"pet"},
    {"metrics"},
    {"data", "mini"},
    {"results"},
    {"trial"},
    {"grid"},
    {"report"},
    {"grids"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
ALLOWED = {
    "methods": {"pet", "registry", "spec", "files", "errors"},
    "tasks": {"data", "mini", "metrics", "registry", "spec", "files", "errors"},
}
SOURCES = sorted(
    path.relative_to(ROOT) for folder in ("pet_bench", "methods", "tasks") for path in (ROOT / folder).rglob("*.py")
)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def tracked():
    """Files of the checkout: in git, or new and not ignored; all files where this is no checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout, so that nothing stale is in it and nothing is left behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in tracked():
        data = path.parts[:2] == ("results", "published")
        if path.parts[0] in ("pet_bench", "methods", "tasks") or data or len(path.parts) == 1:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "--wheel-dir", out, source], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's contents and nothing of the checkout."""
    target = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def run(installed, code):
    """Run code where only the wheel and its dependencies can be imported."""
    script = (
        "import sys\n"
        f"sys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', repr(f))]\n"
        f"sys.path[:] = [{str(installed)!r}] + [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n" + code
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=installed, env=ENVIRONMENT
    )


def test_the_wheel_holds_every_source_file_and_every_shipped_grid(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path) if path.parts[0] == "pet_bench" else f"pet_bench/{path}" for path in SOURCES}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "pet_bench/grid/grids").glob("*.yaml")}
    expected |= {
        str(path.relative_to(ROOT)) for path in (ROOT / "pet_bench/mini/backbones").rglob("*") if path.is_file()
    }
    published = [path for path in (ROOT / "results/published").iterdir() if path.suffix in (".py", ".csv")]
    expected |= {f"pet_bench/published/{path.name}" for path in published}
    expected |= {f"pet_bench/report/page.{suffix}" for suffix in ("html", "css", "js")}
    assert {name for name in held if name.startswith("pet_bench/")} == expected
    assert not [name for name in held if name.split("/")[0] in ("methods", "tasks", "tests", "results")]


@pytest.mark.parametrize("kind", ["methods", "tasks"])
def test_the_wheel_offers_the_plugins_of_the_checkout(installed, kind):
    code = "from importlib.metadata import distribution\n"
    code += f"d = next(iter(__import__('importlib.metadata').metadata.distributions(path=[{str(installed)!r}])))\n"
    code += f"print(sorted(e.value for e in d.entry_points if e.group == 'pet_bench.{kind}'))"
    found = run(installed, code)
    assert found.returncode == 0, found.stderr
    offered = ast.literal_eval(found.stdout)
    assert offered == sorted(PROJECT["project"]["entry-points"][f"pet_bench.{kind}"].values())
    files = {path.stem for path in (ROOT / kind).glob("*.py")} - {"__init__", "suites"}
    assert {value.split(":")[0].removeprefix(f"pet_bench.{kind}.") for value in offered} == files


@pytest.mark.parametrize("name", ["methods", "tasks"])
def test_the_bare_names_cannot_be_imported_from_a_wheel(installed, name):
    found = run(installed, f"import {name}")
    assert found.returncode != 0
    assert "ModuleNotFoundError" in found.stderr


def test_a_plugin_can_be_imported_from_a_wheel(installed):
    found = run(installed, "import pet_bench.methods.lora as lora; print(lora.__file__)")
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(installed / "pet_bench/methods/lora.py")


def test_the_published_numbers_are_read_from_a_wheel(installed):
    found = run(
        installed, "from pet_bench.report import published; print(len(published.load('vlpet_table9_transfer')))"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "10"


def imports(path):
    """Absolute names of the modules that a source file imports, wherever it does so."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "pet_bench":
                yield from (f"pet_bench.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_an_import_only_points_down(path):
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in ("methods", "tasks"), f"{path} imports {name}"
        if top != "pet_bench" or not rest or rest[0] == "__version__":
            continue
        if path.parts[0] in ALLOWED:
            assert rest[0] in ALLOWED[path.parts[0]] | {path.parts[0]}, f"{path} imports {name}"
        elif path.name != "__init__.py" or len(path.parts) > 2:
            own = path.parts[1].removesuffix(".py")
            assert rest[0] not in ALLOWED, f"{path} imports {name}"
            assert LEVEL[rest[0]] <= LEVEL[own], f"{path} imports {name}"


def test_every_package_is_on_a_floor():
    packages = {path.parts[1].removesuffix(".py") for path in SOURCES if path.parts[0] == "pet_bench"}
    assert packages - {"__init__"} == LEVEL.keys()


def test_no_test_imports_the_bare_names():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        assert not {name.split(".")[0] for name in imports(path.relative_to(ROOT))} & {"methods", "tasks"}, path


def test_no_large_file_is_in_the_repository():
    large = [path for path in tracked() if (ROOT / path).stat().st_size > 2_000_000]
    assert [path for path in large if path.parts[:3] != ("pet_bench", "mini", "backbones")] == []


def test_the_pinned_versions_satisfy_the_dependencies():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = version
    needed = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    for requirement in map(Requirement, needed + PROJECT["build-system"]["requires"]):
        name = canonicalize_name(requirement.name)
        if name in pins:
            assert pins[name] in requirement.specifier, requirement
    direct = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    assert direct <= pins.keys()
