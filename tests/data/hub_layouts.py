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
