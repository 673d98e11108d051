"""Flickr30k captions on the Karpathy splits (Young et al. 2014; Karpathy and Fei-Fei 2015, arXiv:1412.2306).

Files, as published: `flickr30k/dataset_flickr30k.json`; pictures in `flickr30k/images/`, in folders or archives. An
image is known by the number that its file is named after. Splits of 29,000, 1,014 and 1,000 images, five captions each.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.data.karpathy import KarpathyTask
from pet_bench.data.task import OptionalSplit
from pet_bench.spec import STRICT


@dataclass(frozen=True, config=STRICT)
class Flickr30kCaption(KarpathyTask):
    """Read, learned and scored as COCO's captions are."""

    name: ClassVar = "flickr30k-caption"
    hub: ClassVar = ("image-to-text", "flickr30k", "Flickr30k")
    folder: ClassVar = "flickr30k"
    file: ClassVar = "dataset_flickr30k.json"
    origins: ClassVar = {
        "flickr30k/dataset_flickr30k.json": "Karpathy's caption_datasets.zip",
        "flickr30k/images": "the Flickr30k download page (shannon.cs.illinois.edu/DenotationGraph), flickr30k-images",
        "flickr30k/clip_features": "`pet-bench data features` of the images; none are published",
    }

    train: str = "train"
    valid: OptionalSplit = "val"
    test: str = "test"
