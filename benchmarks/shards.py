"""Packing from parquet shards: how much memory it takes, and how fast it is against reading rows as Python lists.

    python benchmarks/shards.py --rows 20000

Writes random features in the layout of VL-Adapter's shards on the hub (49 × 2048 half precision, half of them zero as
after a ReLU, 4,096 rows a shard, zstd 9) to a temporary folder, with questions about every image. `FeatureStore.pack`
packs them, by turns with a part of them whose rows are read as `restore_datasets.py` of VL-Adapter reads them, through
Python lists, and are packed by the same code; each time in a fresh process. Prints the time a row of both ways, by the
clock and of processors, which count where other programs keep these busy, and the medians of the paired ratios; then,
for all rows, the peak of resident memory (VmHWM of Linux: anonymous and of mapped files) above what the process had
before, with all imports done. At the end every packed feature is compared with its shard, to the bit. Shards are in the
page cache: this shows the cost of the format, not of the disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pet_bench.data import shards
from pet_bench.data.store import FeatureStore
from pet_bench.data.task import Example
from pet_bench.spec import Visual
from pet_bench.tasks.vqa import VQA

VISUAL = Visual(width=2048, tokens=49, pooled=36, images=1)
SHARD = 4096


class Turn(NamedTuple):
    """cpu: seconds of all threads. bytes: of memory at the peak, above those before."""

    rows: int
    wall: float
    cpu: float
    bytes: int


def write(root: Path, rows: int, folder: str) -> list[Example]:
    """A shard is drawn from a few hundred images in another order and with other signs of zero: drawing takes long."""
    rng, examples = np.random.default_rng(0), []
    drawn = np.maximum(rng.standard_normal((256, 49, 2048), np.float32), 0).astype(np.float16)
    home = root / "features" / folder / shards.GRIDS
    home.mkdir(parents=True)
    kind = pa.list_(pa.list_(pa.float16(), 2048), 49)
    schema = pa.schema({"id": pa.string(), "features": kind})
    for number, start in enumerate(range(0, rows, SHARD)):
        ids = [f"COCO_train2014_{i * 7919 % 1_000_003:012d}" for i in range(start, min(rows, start + SHARD))]
        grids = np.concatenate([rng.permutation(drawn) for _ in range(-(-len(ids) // len(drawn)))])[: len(ids)]
        grids[:, 0, 0] = np.arange(start, start + len(ids)) % 2048  # no two rows alike
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(grids.ravel(), pa.float16()), 2048)
        content = pa.table([pa.array(ids), pa.FixedSizeListArray.from_arrays(vectors, 49)], schema)
        pq.write_table(content, home / f"part-{number:05d}.parquet", compression="zstd", compression_level=9)
        examples += [Example(id, "", (f"{folder}/{id}",)) for id in ids]
    return examples


def lists(group: shards.Group, wanted: dict[int, str]) -> Iterator[tuple[str, np.ndarray]]:
    """The rows of a row group, as the restoring script reads them."""
    column = pq.read_table(group.path, columns=["features"]).column(0)
    for row, key in wanted.items():
        yield key, np.asarray(column[group.row + row].as_py(), np.float16).reshape(group.shape)


def pack(root: Path, cache: Path, examples: list[Example], read: Callable[..., Any] | None) -> Turn:
    if read is not None:
        shards._rows = read
    FeatureStore.faults(root, [(VQA(), examples[:1])], VISUAL, cache)  # all that is imported late
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    store = FeatureStore.pack(root, [(VQA(), examples)], VISUAL, cache=cache)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Turn(len(store.index), wall, cpu, resident("VmHWM") - before)


def resident(what: str) -> int:
    """Bytes of resident memory, anonymous and of mapped files, now or at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024


def fresh(*arguments: Any) -> Turn:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(pack, arguments)


def equal(root: Path, cache: Path, examples: list[Example]) -> bool:
    store = FeatureStore.pack(root, [(VQA(), examples)], VISUAL, cache=cache)
    found = shards.Shards(root, shards._listing(root)).read(store.index, (49, 2048))
    pairs = ((store.array[store.index[key]], one) for key, one in found if isinstance(one, np.ndarray))
    return sum(np.array_equal(ours.view(np.int16), one.view(np.int16)) for ours, one in pairs) == len(examples)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--part", type=int, default=256, help="rows that are read through lists too")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "hub"), Path(folder, "cache")
        start = time.perf_counter()
        part, examples = write(root, options.part, "VG"), write(root, options.rows, "COCO")
        size = sum(path.stat().st_size for path in root.rglob("*.parquet")) / 1e9
        print(f"wrote {len(part) + len(examples)} rows, {size:.1f} GB, in {time.perf_counter() - start:.0f} s")
        ratios = []
        for number in range(options.rounds):
            ways = (lists, None) if number % 2 else (None, lists)
            turns = {way: fresh(root, cache / f"{number} {way}", part, way) for way in ways}
            slow, fast = turns[lists], turns[None]
            ratios.append((slow.wall / fast.wall, slow.cpu / fast.cpu))
            print(f"round {number + 1}: through lists {said(slow)}, through arrays {said(fast)}", flush=True)
        wall, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"median of the paired ratios: {wall:.1f} times faster, {cpu:.1f} times less of a processor")
        whole = fresh(root, cache / "whole", examples, None)
        print(f"packed {whole.rows} rows in {whole.wall:.0f} s, {said(whole)}")
        print(f"memory: {whole.bytes / 1e6:.0f} MB above what there was before", flush=True)
        print(f"equal to the shards to the bit: {equal(root, cache / 'whole', examples)}")


def said(turn: Turn) -> str:
    return f"{turn.wall / turn.rows * 1e3:.2f} ms a row ({turn.cpu / turn.rows * 1e3:.2f} of a processor)"


if __name__ == "__main__":
    main()
