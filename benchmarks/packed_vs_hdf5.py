"""Samples per second from the packed store against reading HDF5 per sample, in one run on the same images.

    python benchmarks/packed_vs_hdf5.py --images 2000 --rounds 5

Writes random features in the real layout (49 × 2048 half precision, one file an image) to a temporary folder, packs
them in a process of its own, whose peak memory is reported, and reads the same shuffled batches both ways by turns.
Prints each round's rates, their medians and the median of the paired ratios. Both ways have the files in the page
cache, so this shows the cost of the format, not of the disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from pet_bench.data.store import FeatureStore
from pet_bench.data.task import FEATURES, Example
from pet_bench.spec import Visual
from pet_bench.tasks.vqa import VQA

VISUAL = Visual(width=2048, tokens=49, pooled=36, images=1)
TASK = VQA()


def write(root: Path, count: int) -> list[Example]:
    folder = root / "COCO" / FEATURES
    folder.mkdir(parents=True)
    rng, examples = np.random.default_rng(0), []
    for number in range(count):
        image = f"COCO_train2014_{number:012d}"
        with h5py.File(folder / f"{image}.h5", "w") as file:
            file[f"{image}/features"] = rng.random((VISUAL.tokens, VISUAL.width), np.float32).astype(np.float16)
        examples.append(Example(str(number), "", (f"COCO/{image}",)))
    return examples


def pack(root: Path, cache: Path, examples: list[Example]) -> tuple[float, int, int]:
    """Seconds, and bytes of memory before packing and at its peak."""
    unit, start = 1 if sys.platform == "darwin" else 1024, time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    FeatureStore.pack(root, [(TASK, examples)], VISUAL, cache=cache)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return time.perf_counter() - start, before, peak


def from_hdf5(root: Path, batch: list[Example]) -> torch.Tensor:
    features = [[TASK.feature(root, key) for key in example.images] for example in batch]
    return torch.from_numpy(np.array(features).astype(np.float32))


def rate(read, batches: list) -> float:
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    return sum(map(len, batches)) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "datasets"), Path(folder, "cache")
        examples = write(root, options.images)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, before, peak = pool.apply(pack, (root, cache, examples))
        print(f"packed {len(examples)} images in {seconds:.1f} s ({len(examples) / seconds:.0f} a second)")
        print(f"memory: {before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at the peak")

        store = FeatureStore.pack(root, [(TASK, examples)], VISUAL, cache=cache)
        rows, rng, rates = store.rows(examples), np.random.default_rng(1), []
        for number in range(options.rounds):
            order = rng.permutation(len(examples))
            parts = [order[at : at + options.batch] for at in range(0, len(order), options.batch)]
            ways = [
                (lambda part: from_hdf5(root, [examples[i] for i in part]), 0),
                (lambda part: store.gather(rows[part]), 1),
            ]
            found = [0.0, 0.0]
            for read, way in ways if number % 2 else reversed(ways):
                found[way] = rate(read, parts)
            rates.append(found)
            print(f"round {number + 1}: HDF5 {found[0]:8.0f}, packed {found[1]:8.0f} samples/s")
        hdf5, packed = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(b / a for a, b in rates)
        print(f"median : HDF5 {hdf5:8.0f}, packed {packed:8.0f} samples/s; paired ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
