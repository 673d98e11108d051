"""docs/architecture.md is true: imports point down its floors, nothing goes in circles, and what it names is there."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

import pytest

from pet_bench.registry import REGISTRIES
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PLUGINS = {"methods": "methods", "tasks": "tasks", "published": "results/published"}  # below pet_bench when imported
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]


def rows(heading):
    """The rows of the table with that first column head: each a list of its cells."""
    table = re.search(rf"^ *\| {heading} \|.*\n *\|[ :|-]+\n((?: *\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table[1].splitlines()]


def ticked(cell):
    return re.findall(r"`([^`]+)`", cell)


FLOORS = [ticked(floor) for floor, *_ in rows("floor")]  # the highest first
LEVEL = {name: -i for i, names in enumerate(FLOORS) for name in names}
DOORS = {ticked(plugin)[0]: set(ticked(allowed)) for plugin, allowed in rows("plug-in")}


class Import(NamedTuple):
    """A module that another imports, and where; run: whether it ever is, and not for types alone."""

    module: str
    line: int
    run: bool


def modules(name, folder):
    """Every module of a package with its file: `pet_bench.methods.lora` of methods/lora.py."""
    for path in (ROOT / folder).rglob("*.py"):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        yield ".".join((name, *parts)).removesuffix(".__init__"), path


PATHS = dict(modules("pet_bench", "pet_bench"))
for plugin, folder in PLUGINS.items():
    PATHS |= modules(f"pet_bench.{plugin}", folder)
PACKAGES = sorted({module.split(".")[1] for module in PATHS if "." in module})


@cache
def imports(module):
    """All imports of pet-bench's own modules in a file, wherever they stand."""
    return list(_imports(module, ast.parse(PATHS[module].read_text(encoding="utf-8")), run=True))


def _imports(module, node, run):
    for name in _names(node):
        assert name.split(".")[0] not in PLUGINS, f"{module}:{node.lineno} imports the bare name {name}"
        if name in PATHS and name not in (module, "pet_bench"):
            yield Import(name, node.lineno, run)
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node):
        yield from _imports(module, child, run and not for_types)


def _names(node):
    """Modules that an import statement names: of `from x import y`, x.y where that is one, or else x."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: a relative import"
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in PATHS else str(node.module) for name in below]
    return []


def package(module):
    return module.split(".")[1]


def modules_of(name):
    return [module for module in PATHS if "." in module and package(module) == name]


def why_not(name, other):
    if other not in LEVEL:
        return f"{other} is on no floor"
    if LEVEL[other] > LEVEL[name]:
        return f"up, from {name} to {other}"
    if LEVEL[other] == LEVEL[name]:
        return f"from {name} to its neighbour {other}"
    return f"{other} is found by entry point" if other in DOORS else f"no door of {name} ({', '.join(DOORS[name])})"


@pytest.mark.parametrize("name", [name for name in PACKAGES if name in LEVEL])
def test_imports_only_point_down(name):
    """Lazy ones and those for types too; those of plug-ins to what the page lists for them."""
    wrong = []
    for module in modules_of(name):
        for target in imports(module):
            other = package(target.module)
            if other == name:
                continue
            allowed = DOORS.get(name) or {lower for lower in LEVEL if LEVEL[lower] < LEVEL[name]} - DOORS.keys()
            if other not in allowed:
                wrong.append(f"{module}:{target.line} imports {target.module}: {why_not(name, other)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PACKAGES)
def test_there_is_no_circle_in_a_package(name):
    """Between packages there is none where imports only point down."""
    modules = modules_of(name)
    graph = {module: {i.module for i in imports(module) if i.run and i.module in modules} for module in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        lines = {(a, i.module): i.line for a in modules for i in imports(a)}
        steps = [f"{b}:{lines[b, a]} imports {a}" for a, b in pairwise(circle)]
        pytest.fail("a circle:\n" + "\n".join(steps), pytrace=False)


def test_the_door_for_python_imports_nothing_before_it_is_asked():
    body = ast.parse(PATHS["pet_bench"].read_text(encoding="utf-8")).body
    names = {alias.name.split(".")[0] for node in body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.split(".")[0] for node in body if isinstance(node, ast.ImportFrom)}
    assert names <= {"sys", "typing", "importlib", "__future__"}


def same(page, code):
    """What the page lists is what there is."""
    page, code = set(page), set(code)
    faults = [f"on the page, but not in the code: {name}" for name in sorted(page - code)]
    faults += [f"in the code, but not on the page: {name}" for name in sorted(code - page)]
    assert not faults, "\n".join(faults)


def test_every_package_is_on_one_floor_and_every_floor_is_there():
    listed = [name for floor in FLOORS for name in floor]
    assert len(listed) == len(set(listed))
    same(listed, PACKAGES)


def test_every_group_of_plugins_is_on_the_page():
    listed = {name for _, _, group, *_ in rows("new") for name in ticked(group) if name.startswith("pet_bench.")}
    ours = {group for group in GROUPS if group.startswith("pet_bench.")}
    ours |= {registry.group for registry in REGISTRIES.values()}
    same(listed, ours)


ROOMS = {
    ticked(name)[0]: [room for room in ticked(text) if room.endswith((".py", "/"))] for name, text in rows("package")
}


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_is_there(name):
    missing = [room for room in ROOMS[name] if not (ROOT / "pet_bench" / name / room).exists()]
    assert not missing, f"not in pet_bench/{name}/: {', '.join(missing)}"


def test_every_path_is_there():
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    paths = {code for code in ticked(text) if re.fullmatch(r"[\w.-]+/[\w./-]*", code)}
    paths -= {room for names in ROOMS.values() for room in names}
    missing = {path for path in paths if not (ROOT / path).exists() and not (ROOT / "pet_bench" / path).exists()}
    assert not missing, f"neither here nor in pet_bench/: {', '.join(sorted(missing))}"
