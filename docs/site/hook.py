"""What mkdocs asks while it builds the site: which pages there are beside those of docs/, and where links lead.

Pages link to files of the repository by relative paths, so that they can be read on a repository host. Here what they
link to is in the site too: pages as pages, other text as a page that shows it, pictures as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import command_line
import diagram
import grammar
import leaderboard
import python_api
import repository
import result_schema
from dialect import for_python_markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import BuildError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

MADE = {
    "reference/command-line.md": command_line.page,
    "reference/python.md": python_api.page,
    "reference/results.md": result_schema.page,
    "reference/grammar.md": grammar.page,
    f"{leaderboard.FOLDER}.md": lambda: leaderboard.PAGE,
}
ASSETS = ("assets/site.css", "assets/iframe-worker.js")


def anchor(title: str, separator: str = "-") -> str:
    """As repository hosts make it of a heading."""
    return "".join(c for c in title.lower().replace(" ", separator) if c.isalnum() or c in "-_")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, make in MADE.items():
        files.append(File.generated(config, name, content=make()))
    for name in ASSETS:
        files.append(File.generated(config, name, abs_src_path=str(repository.ROOT / "docs/site" / name)))
    for address, content in leaderboard.files():
        files.append(File.generated(config, address, content=content))
    first = files.get_file_from_path("README.md")
    assert first is not None
    files.remove(first)
    files.append(_beside(config, "README.md"))
    files.append(_beside(config, "docs/README.md"))
    pages = [file.src_uri for file in files.documentation_pages() if file.src_uri not in MADE]
    in_nav = set(_leaves(config.nav))
    for path in repository.beside(pages):
        file = _beside(config, path)
        if file.src_uri not in in_nav:
            file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raises BuildError where a page would load something from elsewhere when it is read."""
    loaded = re.findall(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s\"'>]+|<link\b[^>]*//[^>]+>", output
    )
    if outside := [tag for tag in loaded if 'rel="canonical"' not in tag]:
        raise BuildError(f"{page.file.src_uri} loads {outside[0]}")
    return output


def _beside(config: MkDocsConfig, path: str) -> File:
    """A file of the repository that lies beside docs/."""
    address = repository.address(path)
    if address.endswith(".md"):
        return File.generated(config, address, content=repository.text_of(path))
    return File.generated(config, address, abs_src_path=str(repository.ROOT / path))


def _leaves(nav: Any) -> Iterator[str]:
    """The pages that a navigation names."""
    if isinstance(nav, str):
        yield nav
    for entry in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from _leaves(entry)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri not in MADE:
        markdown = repository.relinked(markdown, page.file.src_uri)
    return diagram.drawn(for_python_markdown(markdown))
