"""COCO captions on the Karpathy splits (Chen et al. 2015, arXiv:1504.00325; Karpathy and Fei-Fei 2015).

Files, as in a VL-Adapter workspace: `COCO/dataset_coco.json`, `COCO/clip_features/…/<image>.h5`. Of an image's id and
its file's name one is enough: each is in the other.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.data.karpathy import KarpathyTask
from pet_bench.data.task import OptionalSplit
from pet_bench.spec import STRICT


@dataclass(frozen=True, config=STRICT)
class CocoCaption(KarpathyTask):
    """Scored by CIDEr-D. As published, restval is trained on too."""

    name: ClassVar = "coco-caption"
    hub: ClassVar = ("image-to-text", "coco-captions", "COCO captions")
    folder: ClassVar = "COCO"
    file: ClassVar = "dataset_coco.json"
    origins: ClassVar = {
        "COCO/dataset_coco.json": "VL-Adapter's data package, folder COCO; or Karpathy's caption_datasets.zip",
        "COCO/coco_karpathy_*.json": "BLIP's annotations of COCO captions, a file for each of Karpathy's splits",
        "COCO/clip_features": "VL-Adapter's data package, folder COCO; CLIP RN101 grids of COCO train2014 and val2014",
    }

    train: str = "train+restval"
    valid: OptionalSplit = "val"
    test: str = "test"
