"""A trial's predictions, `<id>/predictions.<task>.jsonl.gz`: a line per example, with what it scored.

Zipped those in `results/` are a twelfth of the size, and `zcat`, `zgrep` and `pandas.read_json(lines=True)` read
them. Plain `predictions.<task>.jsonl`, as earlier versions wrote them, are read all the same.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pet_bench.errors import UserError
from pet_bench.files import BOM, parse_json, read_bytes, replacing
from pet_bench.metrics.scores import bounds, possible

ROW = ("id", "prediction", "score")
NO_ROW = "not a JSON object with id, prediction and score"
MOST = 1 << 28  # bytes of a task's predictions, unzipped: of a million examples
# a line as `write` writes it, of texts without escapes
_TEXT, _SCORE = r'"([^"\\\x00-\x1f]*+)"', r"(-?(?:0|[1-9][0-9]{0,15}+)\.[0-9]{1,25}+)"
PLAIN = re.compile(rf'^{{"id": {_TEXT}, "prediction": {_TEXT}, "score": {_SCORE}}}$', re.MULTILINE)


def name(id: str, task: str) -> str:
    """Where they are written, relative to the folder of results."""
    return f"{id}/predictions.{task}.jsonl.gz"


def find(id: str, task: str, folders: Iterable[Path]) -> Path | None:
    """A trial's predictions for a task in the first of some folders that has them, be it as a link that leads nowhere,
    of which their reader complains."""
    places = (folder / name(id, task) for folder in folders)
    return next((file for zipped in places for file in (zipped, zipped.with_suffix("")) if os.path.lexists(file)), None)


def write(file: Path, predictions: Mapping[str, str], scores: Mapping[str, float]) -> None:
    """Write id → prediction with the score of the primary metric, null where it is not known yet."""
    rows = ({"id": id, "prediction": text, "score": scores.get(id)} for id, text in predictions.items())
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(file) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # equal predictions are equal files


def read(file: Path, metric: str | None = None) -> dict[str, tuple[str, float | None]]:
    """id → (prediction, score); metric: what scored them, where they were scored.

    Raises UserError, with the line, for what is not a file of whole predictions, each id once, and with `metric` for a
    score that is missing or that it cannot be.
    """
    content = _content(file)
    if (plain := _plain(content, metric)) is not None:
        return plain
    rows = {}
    for number, line in enumerate(content.splitlines(), start=1):
        where = f'predictions "{file}", line {number}'
        try:
            row = parse_json(line, where)
        except UserError as error:
            raise UserError(f"{where}: {NO_ROW} ({error.faults[0].removeprefix(where).strip()})") from None
        whole = isinstance(row, dict) and row.keys() >= {*ROW}
        id, text, score = (row[key] for key in ROW) if whole else (None, None, None)
        if not (isinstance(id, str) and isinstance(text, str) and type(score) in (int, float, type(None))):
            raise UserError(f"{where}: {NO_ROW}")
        if id in rows:
            raise UserError(f"{where}: id {id!r} for the second time")
        if score is None and metric:
            raise UserError(f'"{file}" has predictions without a score, the first in line {number}')
        if score is not None and not possible(metric or "", score):
            low, high = bounds(metric or "")
            raise UserError(f"{where}: score {score}, which {metric} cannot be (possible: {low:g} to {high:g})")
        rows[id] = text, score
    return rows


def _plain(content: bytes, metric: str | None) -> dict[str, tuple[str, float | None]] | None:
    """What `read` gives of a faultless file of plain lines; None for any other."""
    try:
        lines = PLAIN.findall(content.decode())
    except UnicodeDecodeError:
        return None
    if not lines or len(lines) != content.count(b"\n") or not content.endswith(b"\n"):
        return None
    ids, texts, numbers = zip(*lines, strict=True)
    scores: list[float] = [*map(float, numbers)]
    rows: dict[str, tuple[str, float | None]] = dict(zip(ids, zip(texts, scores, strict=True), strict=True))
    whole = len(rows) == len(lines) and all(possible(metric or "", end) for end in (min(scores), max(scores)))
    return rows if whole else None


def _content(file: Path) -> bytes:
    what = f'predictions "{file}"'
    content = read_bytes(file, what)
    if file.suffix != ".gz":
        return content
    try:
        text = _unzipped(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{what} cannot be read: {error}") from error
    if len(text) > MOST:
        raise UserError(f"{what} unzips to more than {MOST >> 20} MiB")
    return text.removeprefix(BOM)


def _unzipped(content: bytes) -> bytes:
    """The first `MOST` bytes and one; raises as `GzipFile`, which also reads what is not one whole member."""
    with suppress(zlib.error):
        member = zlib.decompressobj(wbits=31)
        text = member.decompress(content, MOST + 1)
        if member.eof and not member.unused_data:
            return text
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as zipped:
        return zipped.read(MOST + 1)
