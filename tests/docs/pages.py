"""The pages that are read by people, and what stands in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

FOLDERS = ("*.md", "docs/**/*.md", "examples/*.md", "notebooks/*.md", "results/*.md", "results/published/*.md")
PAGES = sorted(str(path.relative_to(ROOT)) for pattern in FOLDERS for path in ROOT.glob(pattern))
TYPED = "docs/yours.md"  # as it stands, in its order, by test_path
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language ("": of none)."""
    return [textwrap.dedent(block["text"]) for block in FENCE.finditer(text_of(page)) if block["language"] == language]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def links(page: str) -> Iterator[tuple[str, str]]:
    """(path, anchor) of every link that stays here; the path of a link within the page is empty."""
    for target in re.findall(r"\]\(([^)\s]+)\)", INLINE.sub("", prose(page))):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield path, anchor


def steps(page: str) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block, in their order."""
    for block in FENCE.finditer(text_of(page)):
        yield block["language"], textwrap.dedent(block["text"])


def typed(language: str, text: str) -> list[tuple[str, str]]:
    """(command, what it is said to print) of a block of commands; of a session, `console`, its prompts are "$ "."""
    if language == "sh":
        return [(line, "") for line in text.replace("\\\n", "").splitlines() if line.strip()]
    found = re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n?)*)", text, re.MULTILINE)
    return [(command, printed.rstrip("\n")) for command, printed in found]


def commands(page: str) -> Iterator[list[str]]:
    """The words of every `pet-bench …` that a page tells to type, in blocks and in its sentences."""
    shells = ((language, text) for language, text in steps(page) if language in ("sh", "console"))
    lines = [command for language, text in shells for command, _ in typed(language, text)]
    lines += [" ".join(code.split()) for code in INLINE.findall(prose(page))]
    for line in lines:
        for command in line.split(" && "):
            first, _, rest = command.strip().removeprefix(".venv/bin/").partition(" ")
            if first == "pet-bench":
                yield shlex.split(rest, comments=True)


def options(page: str) -> set[str]:
    """Every `--option` in a page's sentences that is not part of another program's command."""
    code = (code for code in INLINE.findall(prose(page)) if code.startswith(("--", "pet-bench")))
    return {option for text in code for option in re.findall(r"(?<!\S)--[a-z][\w-]*", text)}


def folder(page: str) -> Path:
    return (ROOT / page).parent
