"""WebDataset shards, as tables: tar archives of samples, the files of which have one name and an ending for a column.

`000000042.jpg` and `000000042.json` make a row with the columns `__key__`, `jpg` and `json`. Archives are read from
beginning to end and never unpacked.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from pet_bench.errors import UserError
from pet_bench.files import decode_json

NAME = re.compile(r"(?:.*/)?(\d+)\.(jpg|json)")
TEXT = 1 << 20  # bytes of a sample's JSON at most
KINDS = {"jpg": "image", "json": "struct"}


def columns(path: Path) -> dict[str, str]:
    """The columns of an archive, told by its first files; none where it holds no samples."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = [NAME.fullmatch(member.name) for member in islice(archive, 2)]
    except (tarfile.TarError, OSError, EOFError):
        return {}
    found = {name[2] for name in names if name}
    return dict(KINDS) if len(names) == 2 and found == {*KINDS} else {}


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(the picture's member, row) of every sample. Raises UserError where the archive cannot be read to its end."""
    try:
        with tarfile.open(path, "r:") as archive:
            for number, (key, members) in enumerate(groupby(archive, _key)):
                files = {member.name.rpartition(".")[2]: member for member in members if member.isfile()}
                if {*files} != {*KINDS}:
                    raise UserError(f"{path}: row {number}: sample {key} has {sorted(files)}, expected {sorted(KINDS)}")
                if files["json"].size > TEXT:
                    raise UserError(f"{path}: row {number}: {files['json'].name} has more than {TEXT:,} bytes")
                text = archive.extractfile(files["json"])
                assert text is not None  # of a file there is one
                try:
                    content = decode_json(text.read().decode("utf-8"))
                except ValueError as error:
                    raise UserError(f"{path}: row {number}: {files['json'].name} is not valid JSON: {error}") from None
                picture = files["jpg"].name
                yield picture, {"__key__": key.rpartition("/")[2], "jpg": {"path": picture}, "json": content}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read (cut off?): {error}") from None


def _key(member: tarfile.TarInfo) -> str:
    return member.name.rpartition(".")[0]
