"""Files of the repository that pages link to, as parts of the site.

A path is of the repository, with slashes; an address is a page's source or a file in the site. Everything below docs/
is at the top of the site, the README is its first page and docs/README.md the list of all pages.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(
    r"(?P<code>^(?P<fence> *`{3,})[^`\n]*\n.*?^(?P=fence)$|`[^`]+`)|(?<=\]\()(?P<target>[^)\s]+)(?=\))",
    re.DOTALL | re.MULTILINE,
)
ANCHOR = re.compile(r"\]\(#[^)]+\)")  # of a notebook, where it keeps its capitals
MOVED = {"README.md": "index.md", "docs/README.md": "pages.md"}
AS_THEY_ARE = {".png", ".svg", ".html", ".csv"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".toml": "toml"}
FILE = "---\nsearch:\n  exclude: true\n---\n"


def address(path: str) -> str:
    """Where a file or folder of the repository is in the site."""
    if (ROOT / path).is_dir():
        return f"{path}/index.md"
    if path in MOVED:
        return MOVED[path]
    path = path.removeprefix("docs/")
    suffix = posixpath.splitext(path)[1]
    return path if suffix == ".md" or suffix in AS_THEY_ARE else f"{path}.md"


def home(page: str) -> str:
    """The path of a page that is a file of the repository."""
    back = {new: old for old, new in MOVED.items()}
    if page in back:
        return back[page]
    inside = f"docs/{page}"
    path = inside if (ROOT / inside).is_file() else page
    return path if (ROOT / path).is_file() else path.removesuffix(".md").removesuffix("/index")


def targets(path: str) -> Iterator[str]:
    """What a page of the repository links to in it."""
    if path.endswith((".md", ".ipynb")):
        for link in LINK.finditer(text_of(path)):
            if found := _target(path, link["target"]):
                yield found[0]
    elif (ROOT / path).is_dir():
        yield from files_in(path)


def _target(path: str, link: str | None) -> tuple[str, str] | None:
    """(path, anchor) of a link that stays in the repository and leaves its page."""
    if not link or "://" in link or link.startswith(("#", "mailto:")):
        return None
    name, sharp, anchor = link.partition("#")
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    found = posixpath.normpath(posixpath.join(folder, name))
    if not (ROOT / found).exists():
        raise FileNotFoundError(f"{path} links to {link}, which is not there")
    return found, sharp + anchor


def beside(pages: list[str]) -> list[str]:
    """The paths that have to be in the site for all links of those pages, and theirs, to lead somewhere."""
    seen = {home(page): None for page in pages}
    for path in (todo := list(seen)):
        for target in targets(path):
            if target not in seen:
                seen[target] = None
                todo.append(target)
    return [path for path in seen if path not in {home(page) for page in pages}]


def files_in(folder: str) -> list[str]:
    hidden = ("__pycache__", ".egg-info", "build")
    files = (path for path in sorted((ROOT / folder).rglob("*")) if path.is_file())
    return [str(path.relative_to(ROOT)) for path in files if not any(part.endswith(hidden) for part in path.parts)]


def relinked(text: str, page: str) -> str:
    """A page's text with links by the addresses of the site."""

    def change(link: re.Match[str]) -> str:
        found = _target(home(page), link["target"])
        if link["code"] or not found:
            return link[0]
        path, anchor = found
        return posixpath.relpath(address(path), posixpath.dirname(page) or ".") + anchor

    return LINK.sub(change, text)


def text_of(path: str) -> str:
    """A file as a page's Markdown."""
    if (ROOT / path).is_dir():
        entries = (f"* [`{posixpath.relpath(file, path)}`]({posixpath.relpath(file, path)})" for file in files_in(path))
        return f"{FILE}# {path}/\n\n" + "\n".join(entries)
    text = (ROOT / path).read_text(encoding="utf-8")
    suffix = posixpath.splitext(path)[1]
    if suffix == ".ipynb":
        return "\n\n".join(_cells(text))
    return text if suffix == ".md" else f"{FILE}# {path}\n\n{_fenced(text, LANGUAGES.get(suffix, 'text'))}"


def _cells(text: str) -> Iterator[str]:
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield ANCHOR.sub(lambda link: link[0].lower(), source)
        else:
            yield _fenced(source, "python")


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````\n"
