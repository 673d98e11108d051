"""Data sets as the hub has them: files, columns and types as published, a few rows."""

from __future__ import annotations

import io
import json
import tarfile
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


CONFIDENCE = pa.struct([("answer", S), ("answer_confidence", S), ("answer_id", I64)])
VQA = pa.schema(
    {
        "question_type": S, "multiple_choice_answer": S, "answers": pa.list_(CONFIDENCE), "image_id": I64,
        "answer_type": S, "question_id": I64, "question": S, "image": IMAGE,
    }
)  # fmt: skip
TURN = pa.struct([("user", S), ("assistant", S), ("source", S)])
CAULDRON = pa.schema({"images": pa.list_(IMAGE), "texts": pa.list_(TURN)})
FINEVISION = pa.schema(
    {
        "images": pa.list_(IMAGE), "texts": pa.list_(pa.struct([("user", S), ("assistant", S)])), "source": S,
        "relevance_ratings": pa.list_(I64), "relevance_min": I64,
    }
)  # fmt: skip


def vqa_rows(images=(3, 4, 5)) -> list[dict]:
    """Two questions an image of val2014, so that every picture is there twice; test's rows have no annotations."""
    return [
        {
            "question_type": "is the" if k else "what colour",
            "multiple_choice_answer": "yes" if k else "red",
            "answers": [
                {"answer": "yes" if k else ("red", "blue")[n > 6], "answer_confidence": "yes", "answer_id": n + 1}
                for n in range(10)
            ],
            "image_id": image,
            "answer_type": "yes/no" if k else "other",
            "question_id": 10 * image + k,
            "question": "is the cat red" if k else "what colour is the cat",
            "image": picture(image),
        }
        for image in images
        for k in range(2)
    ]


def vqa(folder: Path) -> None:
    """lmms-lab(-encoder)/VQAv2"""
    shards(folder / "data", "validation", VQA, vqa_rows(), 2)
    bare = [row | {"answers": None, "multiple_choice_answer": None} for row in vqa_rows((7,))]
    shards(folder / "data", "test", VQA, bare)
    shards(folder / "data", "testdev", VQA, bare[:1])


def vqa_cauldron(folder: Path, schema: pa.Schema = CAULDRON) -> None:
    """HuggingFaceM4/the_cauldron, vqav2; or FineVision's"""
    rows = []
    for i in range(4):
        texts = [
            {"user": "What colour is the cat?\nOffer a terse response.", "assistant": "Red.", "source": "VQAv2"},
            {"user": "Is the dog blue?\nKeep it short and to the point.", "assistant": "Yes.", "source": "VQAv2"},
        ]
        texts = texts if "source" not in schema.names else [{k: t[k] for k in ("user", "assistant")} for t in texts]
        more = {"source": "vqav2", "relevance_ratings": [5, 4], "relevance_min": 4} if "source" in schema.names else {}
        rows.append({"images": [picture(20 + i)], "texts": texts} | more)
    shards(folder / "vqav2", "train", schema, rows, 2, "-0123456789abcdef")


TYPES = pa.struct([("structural", S), ("semantic", S), ("detailed", S)])
GQA = pa.schema(
    {
        "id": S, "imageId": S, "question": S, "answer": S, "fullAnswer": S, "isBalanced": pa.bool_(), "groups": S,
        "entailed": S, "equivalent": S, "types": TYPES, "annotations": S, "semantic": S, "semanticStr": S,
    }
)  # fmt: skip
GQA_IMAGES = pa.schema({"id": S, "image": IMAGE})


def gqa(folder: Path) -> None:
    """lmms-lab(-encoder)/GQA: two questions an image"""
    for first, split in ((1, "train"), (4, "val"), (7, "testdev")):
        images = [f"n{i}" if split == "testdev" else str(i) for i in range(first, first + 3)]
        rows = [
            {
                "id": f"{image}{k}", "imageId": image, "question": "is the dog blue" if k else "what colour is the cat",
                "answer": "yes" if k else "red", "fullAnswer": "Yes.", "isBalanced": True, "semanticStr": "",
                "types": {"structural": "verify" if k else "query", "semantic": "attr", "detailed": "verifyAttr"},
            }
            for image in images
            for k in range(2)
        ]  # fmt: skip
        pictures = [{"id": image, "image": picture(30 + i)} for i, image in enumerate(images)]
        shards(folder / f"{split}_balanced_instructions", split, GQA, rows, 2 if split == "train" else 1)
        shards(folder / f"{split}_balanced_images", split, GQA_IMAGES, pictures)


def nlvr2_cauldron(folder: Path) -> None:
    """HuggingFaceM4/the_cauldron, nlvr2: two pictures and one statement a row"""
    asked = (
        "The first image is the image on the left, the second image is the image on the right. Given the left and "
        'right images, does the statement "{}" hold true? Answer yes or no.'
    )
    rows = [
        {
            "images": [picture(40 + 2 * i), picture(41 + 2 * i)],
            "texts": [
                {"user": asked.format("the cat is on the mat"), "assistant": ("Yes.", "No.")[i % 2], "source": "NLVR2"}
            ],
        }
        for i in range(4)
    ]
    shards(folder / "nlvr2", "train", CAULDRON, rows, 2, "-0123456789abcdef")


NLVR2 = pa.schema({"identifier": S, "label": S, "sentence": S, "left_url": S, "right_url": S, "directory": I64})


def nlvr2_official(folder: Path) -> None:
    """A table of the official rows."""
    for split in ("train", "dev", "test1"):
        rows = [
            {
                "identifier": f"{split}-{i}-{i}-0", "label": ("True", "False")[i], "sentence": "the cat is on the mat",
                "left_url": "http://x/1.jpg", "right_url": "http://x/2.jpg", "directory": i,
            }
            for i in range(2)
        ]  # fmt: skip
        shards(folder / "data", split, NLVR2, rows)


KARPATHY = pa.schema(
    {
        "filepath": S, "sentids": pa.list_(I64), "filename": S, "imgid": I64, "split": S, "sentences": pa.list_(S),
        "cocoid": I64, "url": S,
    }
)  # fmt: skip
PLACES = {"train": ("train2014", (1, 2)), "restval": ("val2014", (3,)), "val": ("val2014", (4,)),
          "test": ("val2014", (5,))}  # fmt: skip


def karpathy(folder: Path) -> None:
    """yerevann/coco-karpathy: a table for each of the four splits, the third called validation"""
    for split, (part, images) in PLACES.items():
        rows = [
            {
                "filepath": part, "sentids": [1, 2], "filename": f"COCO_{part}_{image:012d}.jpg", "imgid": image,
                "split": split, "sentences": [f"a {'cat' if image < 5 else 'dog'} on a mat", "a red dog"],
                "cocoid": image, "url": f"http://images.cocodataset.org/{image}.jpg",
            }
            for image in images
        ]  # fmt: skip
        shards(folder / "data", "validation" if split == "val" else split, KARPATHY, rows)


CAPTIONED = pa.schema(
    {
        "question_id": S, "image": IMAGE, "question": S, "answer": pa.list_(S), "id": I64, "license": I8,
        "file_name": S, "coco_url": S, "height": I32, "width": I32, "date_captured": S,
    }
)  # fmt: skip


def coco_caption(folder: Path) -> None:
    """lmms-lab(-encoder)/COCO-Caption"""
    rows = [
        {
            "question_id": f"{image}.jpg", "image": picture(image), "question": "Describe it.",
            "answer": [f"a {'cat' if image < 5 else 'dog'} on a mat", "a red dog"], "id": image, "license": 3,
            "file_name": f"COCO_val2014_{image:012d}.jpg", "coco_url": "http://x/1.jpg", "height": 12, "width": 12,
            "date_captured": "2013-11-14 17:02:52",
        }
        for image in (3, 4, 5)
    ]  # fmt: skip
    shards(folder / "data", "val", CAPTIONED, rows)
    shards(folder / "data", "test", CAPTIONED, [row | {"answer": None} for row in rows])


YOUCOOK2 = pa.schema(
    {
        "id": S, "video_url": S, "recipe_type": S, "segment": pa.list_(pa.float32()), "sentence": S, "video_path": S,
        "youtube_id": S,
    }
)  # fmt: skip


def youcook2(folder: Path) -> None:
    """lmms-eval/YouCook2: segments in no order, sentences in val alone"""
    for split, videos in (("val", ("ljyO7IaGWLY", "xHr8X2Wpmno")), ("test", ("GLd3aX16zBg",))):
        rows = [
            {
                "id": f"{video}_{k}", "video_url": f"https://x/{video}", "recipe_type": "113", "youtube_id": video,
                "segment": [90.0 - 30 * k, 110.5 - 30 * k], "video_path": f"validation/113/{video}.mp4",
                "sentence": f"add the {'cat' if k else 'dog'} to a mat" if split == "val" else None,
            }
            for video in videos
            for k in range(3)
        ]  # fmt: skip
        shards(folder / "data", split, YOUCOOK2, rows)


def edited(path: Path, change) -> None:
    """A table with its rows changed in place, under the same schema."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path, row_group_size=2)


def webdataset(folder: Path) -> None:
    """undefined443/coco-karpathy-wds: tar archives of pictures and their captions"""
    for split, images in (("train", (1, 2, 3)), ("val", (4,)), ("test", (5,))):
        for number, part in enumerate((images[:2], images[2:]) if images[2:] else (images,)):
            samples = []
            for image in part:
                captions = [f"a {'cat' if image < 5 else 'dog'} on a mat", "a red dog"]
                samples.append((f"{image:09d}.jpg", picture(image)["bytes"]))
                samples.append((f"{image:09d}.json", json.dumps({"captions": captions, "cocoid": image}).encode()))
            tarred(folder / split / f"{number:05d}.tar", samples)


def tarred(path: Path, files: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
