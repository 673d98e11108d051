"""The data sets that `pet-bench data fetch` knows by name.

Imports nothing that is slow: the command's help lists them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A data set on the hub, and which of its files are wanted. note: what it has and lacks."""

    repository: str
    files: tuple[str, ...]
    note: str


KNOWN = {
    "vqa": Known("lmms-lab-encoder/VQAv2", ("data/validation-*.parquet",), "VQAv2's val2014; there is no train"),
    "vqa-train": Known("HuggingFaceM4/the_cauldron", ("vqav2/*.parquet",), "VQAv2's train2014, one answer a question"),
    "gqa": Known(
        "lmms-lab-encoder/GQA",
        tuple(f"{split}_balanced_*/*.parquet" for split in ("train", "val", "testdev")),
        "GQA's balanced questions with their images",
    ),
    "gqa-testdev": Known("lmms-lab-encoder/GQA", ("testdev_balanced_*/*.parquet",), "GQA's testdev alone"),
    "nlvr2-train": Known("HuggingFaceM4/the_cauldron", ("nlvr2/*.parquet",), "NLVR2's train; no dev, no test"),
    "coco-karpathy": Known("yerevann/coco-karpathy", ("*.parquet",), "Karpathy's splits of COCO captions; no images"),
    "coco-caption": Known("lmms-lab-encoder/COCO-Caption", ("data/val-*.parquet",), "COCO's val2014 with images"),
    "youcook2": Known("lmms-eval/YouCook2", ("*.parquet",), "YouCook2's val and test; no videos"),
    "okvqa": Known("lmms-lab-encoder/OK-VQA", ("*.parquet",), "OK-VQA's val2014; there is no train"),
    "textvqa": Known("lmms-lab-encoder/textvqa", ("*.parquet",), "TextVQA's train, validation and test"),
    "vizwiz": Known("lmms-lab-encoder/VizWiz-VQA", ("*.parquet",), "VizWiz's val and test; there is no train"),
    "scienceqa": Known("derek-thomas/ScienceQA", ("*.parquet",), "ScienceQA's train, validation and test"),
    "flickr30k": Known("lmms-lab-encoder/flickr30k", ("*.parquet",), "Flickr30k, all images in one split"),
    "vl-adapter": Known(
        "ylsung/VL-Adapter-datasets",
        ("manifest.json.gz", "annotations/*", "features/*"),
        "VL-Adapter's annotations and features",
    ),
}
