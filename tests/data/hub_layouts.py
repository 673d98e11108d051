"""Data sets as the hub has them: files, columns and types as published, a few rows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
S, I8, I32, I64 = pa.string(), pa.int8(), pa.int32(), pa.int64()


def picture(seed: int, side: int = 12) -> dict:
    """One picture as an Image column has it."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + seed % 3, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return {"bytes": file.getvalue(), "path": None}


def shards(folder: Path, split: str, schema: pa.Schema, rows: list[dict], count: int = 1, digits: str = "") -> None:
    """`<split>-<number>-of-<count>.parquet`, in row groups of two."""
    folder.mkdir(parents=True, exist_ok=True)
    each = -(-len(rows) // count)
    for number in range(count):
        table = pa.Table.from_pylist(rows[number * each : (number + 1) * each], schema)
        pq.write_table(table, folder / f"{split}-{number:05d}-of-{count:05d}{digits}.parquet", row_group_size=2)


def in_cache(folder: Path, repository: str, snapshot: Path, commit: str = "d138bef" + "0" * 33) -> Path:
    """The same files as `huggingface_hub` keeps them: blobs by their hashes, and a snapshot of links to them."""
    home = folder / f"datasets--{repository.replace('/', '--')}"
    (home / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(snapshot.rglob("*.parquet"))):
        blob = home / "blobs" / f"{number:064x}"
        blob.write_bytes(path.read_bytes())
        link = home / "snapshots" / commit / path.relative_to(snapshot)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * len(link.relative_to(home).parent.parts), "blobs", blob.name))
    return home
