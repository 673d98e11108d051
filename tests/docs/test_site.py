"""What the site's reference says is what there is, and its links lead into it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import fields
from importlib import import_module
from operator import attrgetter

import pytest
import yaml

from pet_bench.pet import Delta, Door, Gate
from pet_bench.results.schema import Record
from tests.conftest import ROOT
from tests.docs.pages import PAGES, links, text_of
from tests.docs.test_readme import TOP, below

MODULES = ("command_line", "dialect", "grammar", "python_api", "repository", "result_schema")
pytestmark = pytest.mark.xdist_group("pages")


@pytest.fixture(scope="module")
def site():
    """The modules of docs/site/ but for those that need mkdocs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs/site"))
        yield {name: import_module(name) for name in MODULES}


def section(text, heading):
    """From a heading to the next of its level."""
    level = heading.split(" ")[0]
    start = text.index(f"\n{heading}\n")
    end = re.search(rf"^{level} ", text[start + len(heading) + 2 :], re.MULTILINE)
    return text[start : start + len(heading) + 2 + end.start()] if end else text[start:]


def leaves(command, path="pet-bench"):
    if not below(command):
        yield path, command
    for name, inner in below(command).items():
        yield from leaves(inner, f"{path} {name}")


def test_every_command_is_there_with_every_option(site):
    text = site["command_line"].page()
    for path, command in leaves(TOP):
        about = section(text, f"## {path}")
        for param in command.params:
            for name in (*param.opts, *param.secondary_opts) if param.param_type_name == "option" else ():
                assert f"`{name}`" in (text if name == "--traceback" else about), (path, name)


def test_every_part_is_there_with_every_field(site):
    text = site["grammar"].page()
    for base in (Delta, Gate, Door):
        ours = {kind: cls for kind, cls in base.kinds.items() if cls.__module__.startswith("pet_bench.")}
        assert len(ours) > 5
        for kind, cls in ours.items():
            about = section(text, f"### `{kind}`")
            assert all(f"| `{name}` |" in about for name in map(attrgetter("name"), fields(cls))), kind


def records(cls):
    for inner in cls.__subclasses__():
        yield inner
        yield from records(inner)


def test_every_key_of_a_result_is_there(site):
    text = site["result_schema"].page()
    ours = [record for record in records(Record) if record.__module__.startswith("pet_bench.results.")]
    assert len(ours) > 15
    for record in ours:
        found = re.search(rf"^##+ {record.__name__}(?=\n|: )", text, re.MULTILINE)
        assert found, record
        about = text[found.end() :].partition("\n##")[0]
        assert all(f"| `{key}` |" in about for key in record.model_fields), record


def test_what_packages_offer_is_there(site):
    api = site["python_api"]
    text = api.page()
    offering = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in ROOT.glob("pet_bench/**/__init__.py")
        if re.search(r"^__all__ =", path.read_text(), re.MULTILINE)
    }
    assert {*api.PACKAGES} == offering
    for name in api.PACKAGES:
        about = section(text, f"## {name}")
        assert all(re.search(rf"(heading:|###) {offered}\n", about) for offered in import_module(name).__all__)


def test_links_of_the_pages_lead_to_addresses_of_the_site(site):
    repository = site["repository"]
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    pages = ["pages.md" if page == "README.md" else page for page in pages]
    there = {*pages, "index.md", *map(repository.address, repository.beside(pages))}
    for page in (page for page in PAGES if repository.address(page) in there):
        address = repository.address(page)
        assert repository.home(address) == page
        expected = [repository.address(posixpath.normpath(posixpath.join(posixpath.dirname(page), path)))
                    for path, _ in links(page) if path]  # fmt: skip
        assert {*expected} <= there, page
        text = repository.relinked(text_of(page), address)
        found = [target for _, target in re.findall(r"(\]\()([^)\s#]+)", text) if "://" not in target]
        resolved = {posixpath.normpath(posixpath.join(posixpath.dirname(address), target)) for target in found}
        assert {*expected} <= resolved, page


def test_every_page_is_in_the_navigation():
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text())
    listed = set(re.findall(r"[\w/.-]+\.md", str(yaml.safe_load(text)["nav"])))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - {"README.md"} <= listed


LISTS = """\
Text:
* one
  goes on

  | a | b |
  |---|---|
* two

  ```yaml
  - x
  ```
1. first
   1. inner
"""
MOVED = """\
Text:

* one
    goes on

    | a | b |
    |---|---|

* two

    ```yaml
    - x
    ```
1. first
    1. inner
"""


def test_lists_are_moved_to_four_columns(site):
    assert site["dialect"].for_python_markdown(LISTS) == MOVED
    assert site["dialect"].for_python_markdown("a [b](c)\n[BUG] d\n") == "a [b](c)\n\\[BUG] d\n"
