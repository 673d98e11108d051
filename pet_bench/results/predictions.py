"""A trial's predictions, `<id>/predictions.<task>.jsonl.gz`: a line per example, with what it scored.

Zipped those in `results/` are a twelfth of the size, and `zcat`, `zgrep` and `pandas.read_json(lines=True)` read
them. Plain `predictions.<task>.jsonl`, as earlier versions wrote them, are read all the same.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from zlib import error as ZlibError

from pet_bench.errors import UserError
from pet_bench.files import replacing


def name(id: str, task: str) -> str:
    """Where they are written, relative to the folder of results."""
    return f"{id}/predictions.{task}.jsonl.gz"


def find(id: str, task: str, folders: Iterable[Path]) -> Path | None:
    """A trial's predictions for a task in the first of some folders that has them."""
    places = (folder / name(id, task) for folder in folders)
    return next((file for zipped in places for file in (zipped, zipped.with_suffix("")) if file.is_file()), None)


def write(file: Path, predictions: Mapping[str, str], scores: Mapping[str, float]) -> None:
    """Write id → prediction with the score of the primary metric, null where it is not known yet."""
    rows = ({"id": id, "prediction": text, "score": scores.get(id)} for id, text in predictions.items())
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(file) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # equal predictions are equal files


def read(file: Path) -> dict[str, tuple[str, float | None]]:
    """id → (prediction, score); raises UserError for what is not a file of whole predictions, each id once."""
    try:
        content = file.read_bytes()
        lines = (gzip.decompress(content) if file.suffix == ".gz" else content).splitlines()
    except (OSError, EOFError, ZlibError) as error:
        raise UserError(f'predictions "{file}" cannot be read: {error}') from error
    found = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            id, text, score = row["id"], row["prediction"], row["score"]
            if not (isinstance(id, str) and isinstance(text, str) and type(score) in (int, float, type(None))):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            what = "not a JSON object with id, prediction and score"
            raise UserError(f'predictions "{file}", line {number}: {what}') from None
        if id in found:
            raise UserError(f'predictions "{file}", line {number}: id {id!r} for the second time')
        found[id] = text, score
    return found
