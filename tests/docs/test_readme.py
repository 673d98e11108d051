"""What the pages tell a reader to type works, and their links lead somewhere."""

from __future__ import annotations

import re

import pytest
import typer

from pet_bench.cli import app
from pet_bench.registry import METHODS
from tests.conftest import ROOT
from tests.docs.pages import PAGES, blocks, commands, folder, headings, links, options, text_of

TOP = typer.main.get_command(app)
OF_OTHERS = {"--help", "--only"}  # every command's; benchmarks/fuzz.py's


def test_a_newcomer_reads_two_hundred_lines_at_most():
    assert len(text_of("README.md").splitlines()) <= 200


def test_the_readme_counts_the_methods():
    """Every registered method is in its table, once, and the numbers are right."""
    text = text_of("README.md").partition("## The methods")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (.+) \|$", text, re.M)
    listed: list[str] = []
    for kind, count, cells in rows:
        gates = ("small", "middle-x", "middle-y", "large")
        names = [
            f"{name.partition('{')[0]}{gate}" if "{" in name else name
            for name in re.findall(r"`([^`]+)`", cells)
            for gate in (gates if "{" in name else ("",))
        ]
        assert len(names) == int(count), kind
        listed += names
    ours = [name for name in METHODS.names() if METHODS.origin(name).startswith("pet_bench.")]
    assert sorted(listed) == sorted(ours)
    assert text.strip().startswith(f"{len(ours)}, and")


def test_the_readme_begins_with_two_commands_that_the_makefile_has():
    first, *_ = blocks("README.md", "sh")
    targets = [line.split()[1] for line in first.splitlines()]
    assert targets == ["demo", "test"]
    assert all(f"\n{target}: " in (ROOT / "Makefile").read_text() for target in targets)


def test_the_index_has_every_page():
    listed = {(ROOT / "docs" / path).resolve() for path, _ in links("docs/README.md")}
    assert {path.resolve() for path in ROOT.glob("docs/*.md")} - {ROOT / "docs/README.md"} <= listed


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page, generator):
    missing = []
    for path, anchor in links(page):
        target = folder(page).joinpath(path).resolve() if path else ROOT / page
        if not target.exists() or (anchor and anchor not in map(generator.anchor, headings_of(target))):
            missing.append(f"{path}#{anchor}")
    assert not missing


def headings_of(path):
    return headings(str(path.relative_to(ROOT)))


def below(command):
    """The commands of a group by name, as a call would get them."""
    return {name: command.get_command(None, name) for name in getattr(command, "commands", {})}


def options_of(command):
    """Its options, and those of the commands below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options_of, below(command).values()))


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))])
def test_there_is_every_command_with_its_options(page):
    for words in commands(page):
        command, rest = TOP, list(words)
        while below(command) and rest and not rest[0].startswith("-"):
            assert rest[0] in below(command), words
            command = below(command)[rest.pop(0)]
        given = {word.split("=")[0] for word in rest if word.startswith("-")}
        assert given <= options_of(command) | OF_OTHERS, words


@pytest.mark.parametrize("page", [page for page in PAGES if options(page) and "/reference/" not in page])
def test_there_is_every_option_that_a_sentence_names(page):
    """But for the reference material, which has the options of published scripts."""
    assert options(page) <= options_of(TOP) | OF_OTHERS
