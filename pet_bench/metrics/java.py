"""The official scorers' Java programs, through the optional package `pycocoevalcap` (extra `captions`)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.util import find_spec

from pet_bench.errors import UserError


def check(what: str) -> None:
    """Raises UserError where the package or a Java that starts is missing. Cheap: to be called before training."""
    missing = [] if find_spec("pycocoevalcap") else ["the package pycocoevalcap (pip install 'pet-bench[captions]')"]
    try:
        subprocess.run(["java", "-version"], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        missing.append("a Java that starts (the command java)")
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}")


def tokenize(texts: Sequence[str]) -> list[str]:
    """Captions as the official scorer tokenises them, in one run of its tokeniser."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer  # pyright: ignore[reportMissingImports]  optional

    lines = [" ".join(text.splitlines()) for text in texts]  # the program gives a line for a line
    tokenized = PTBTokenizer().tokenize({0: [{"caption": line} for line in lines]})[0]
    if len(tokenized) != len(lines):
        raise UserError(f"the Java tokeniser gave {len(tokenized)} lines for {len(lines)} captions")
    return tokenized


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR 1.5 of tokenised text, 0 to 1: of all items together, and of each."""
    from pycocoevalcap.meteor.meteor import Meteor  # pyright: ignore[reportMissingImports]  optional

    total, each = Meteor().compute_score(
        dict(enumerate(map(list, references))), {i: [p] for i, p in enumerate(predictions)}
    )
    return total, list(each)
