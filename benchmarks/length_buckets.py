"""Training on batches of like length (`recipe.bucket`) against batches as drawn, in one run on the same examples.

    python benchmarks/length_buckets.py --examples 600 --rounds 3

Texts are as long as log-normal draws around a third of the 600 tokens that a video task reads, which is a guess: the
real subtitles could not be counted. The model is a BART of random weights, 2 + 2 layers of width 128. Prints the share
of padding among text tokens, each round's examples per second, and the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BartConfig, BartForConditionalGeneration

from pet_bench.backbone import EncoderDecoder, Reader, find_backbone
from pet_bench.backbone.bart import Bart
from pet_bench.backbone.loading import load
from pet_bench.data.batches import Batch, Shuffle, TaskBatches
from pet_bench.data.store import FeatureStore
from pet_bench.data.task import Example
from pet_bench.spec import Visual
from pet_bench.tasks.tvqa import TVQA
from pet_bench.trial.train import loss_of

VISUAL = Visual(width=512, tokens=64, pooled=64, images=1)
TASK = TVQA()


def write(root: Path, count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    path = TASK.feature_path(root, "tv/clip")
    path.parent.mkdir(parents=True)
    np.savez(path, features=rng.random((64, VISUAL.width), np.float32).astype(np.float16))
    lengths = np.exp(rng.normal(np.log(200), 0.7, count)).clip(20, 600).astype(int)
    return [Example(str(i), "is " * length, ("tv/clip",), (("a1", 1.0),)) for i, length in enumerate(lengths)]


def model_of(vocabulary: int) -> EncoderDecoder:
    width, layers, heads = 128, 2, 4
    config = BartConfig(
        vocab_size=vocabulary, d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, max_position_embeddings=1024,
    )  # fmt: skip
    return Bart.model(BartForConditionalGeneration(config), Bart.anatomy("random", config), VISUAL)


def rate(model: EncoderDecoder, batches: list[Batch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        loss_of(model, batch, TASK.loss, "float32").backward()
        model.zero_grad()
    return sum(map(len, batches)) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--bucket", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        examples = write(Path(folder), options.examples)
        store = FeatureStore.pack(Path(folder), [(TASK, examples)], VISUAL, cache=Path(folder, "cache"))
        _, tokenizer = load(find_backbone("mini-bart"), VISUAL)
        tokenised, model, rates = TaskBatches(TASK, examples, Reader(tokenizer), store), model_of(len(tokenizer)), []
        for number in range(options.rounds):
            ways = [
                list(tokenised.train_batches(number, options.batch, 0, shuffle=Shuffle(bucket=bucket)))
                for bucket in (1, options.bucket)
            ]
            if not number:
                for name, batches in zip(("as drawn", "bucketed"), ways, strict=True):
                    ids = [(batch.tensors["text"] == tokenised.reader.pad) for batch in batches]
                    padding = sum(i.sum().item() for i in ids) / sum(i.numel() for i in ids)
                    print(f"{name}: {100 * padding:.0f} % of the text tokens are padding")
            found = [0.0, 0.0]
            for way in (0, 1) if number % 2 else (1, 0):
                found[way] = rate(model, ways[way])
            rates.append(found)
            print(f"round {number + 1}: as drawn {found[0]:6.1f}, bucketed {found[1]:6.1f} examples/s")
        print(f"paired ratio, median: {statistics.median(b / a for a, b in rates):.2f}")


if __name__ == "__main__":
    main()
