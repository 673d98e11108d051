"""Diagrams drawn while the site is built: drawn by a reader's browser, they would need a network."""

from __future__ import annotations

import re

import mermaidx

BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def drawn(markdown: str) -> str:
    return BLOCK.sub(lambda block: f'<div class="diagram">{_svg(block[1])}</div>\n', markdown)


def _svg(text: str) -> str:
    return re.sub(r"\n\s*\n", "\n", mermaidx.render(text).svg())
