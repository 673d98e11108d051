"""VL-Adapter's data set as the hub has it, made of a root in the layout of a workspace."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.roots import FEATURES

GRIDS = "data_clip_RN101_att"
FOLDERS = ("COCO", "GQA", "VG", "nlvr")


def table(ids, features: np.ndarray) -> pa.Table:
    """Columns and types of a shard; features (rows, 49, 2048) float16."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel(), pa.float16()), features.shape[2])
    grids = pa.FixedSizeListArray.from_arrays(vectors, features.shape[1])
    return pa.table({"id": pa.array(ids, pa.string()), "features": grids})


def write(path: Path, content: pa.Table, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parts[-3]
    about = {"source": f"vlt5_dataset/{folder}/clip_features/{GRIDS}", "shape": "(49, 2048)", "dtype": "float16"}
    pq.write_table(content.replace_schema_metadata(about), path, compression="zstd", compression_level=9, **options)
    return path


def shard(root: Path, folder: str, number: int) -> Path:
    return root / "features" / folder / GRIDS / f"part-{number:05d}.parquet"


def shards(root: Path) -> list[Path]:
    return sorted(root.glob(f"features/*/{GRIDS}/*.parquet"))


def hub(workspace: Path, root: Path, rows: int = 5) -> Path:
    """Shards of `rows` images in the order of an archive, which is no alphabetical one; annotations; the manifest."""
    files = []
    for folder in FOLDERS:
        images = sorted((workspace / folder / FEATURES).glob("*.h5"), key=lambda path: path.stem[::-1])
        for number, start in enumerate(range(0, len(images), rows)):
            some, path = images[start : start + rows], shard(root, folder, number)
            write(path, table([image.stem for image in some], np.stack([of(image) for image in some])))
            files += [entry(workspace, image, path.relative_to(root)) for image in some]
    for path in sorted(workspace.rglob("*.json")):
        target = root / "annotations" / path.relative_to(workspace)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        files.append(entry(workspace, path, target.relative_to(root)))
    files.append({"path": "nlvr/images/x.png", "size": 9, "crc": 9, "shard": "images/nlvr/part-00000.parquet"})
    manifest(root, files)
    return root


def of(image: Path) -> np.ndarray:
    with h5py.File(image) as file:
        return file[f"{image.stem}/features"][:]


def entry(workspace: Path, file: Path, shard: Path) -> dict:
    content = file.read_bytes()
    return {
        "path": file.relative_to(workspace).as_posix(),
        "size": len(content),
        "crc": zlib.crc32(content),
        "shard": shard.as_posix(),
    }


def manifest(root: Path, files: list[dict]) -> None:
    with gzip.open(root / "manifest.json.gz", "wt") as stream:
        json.dump({"root": "vlt5_dataset/", "files": files}, stream)


def listed(root: Path) -> list[dict]:
    with gzip.open(root / "manifest.json.gz", "rt") as stream:
        return json.load(stream)["files"]
