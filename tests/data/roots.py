"""Tiny data sets in the layout and with the schemas and sizes of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pet_bench.spec import Visual

VISUAL = Visual(width=2048, tokens=49, pooled=36, images=2)
FEATURES = "clip_features/data_clip_RN101_att"
WORDS = (
    *("vqa", ":", "gpa", "nlvr", "caption", "what", "colour", "is", "the", "cat", "dog", "red", "blue", "green"),
    *("yes", "no", "a", "on", "mat", "true", "false", "how", "many"),
)


def tokenizer(words=WORDS) -> PreTrainedTokenizerFast:
    """One token a word, `<s> … </s>` around a text; letter case counts."""
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=model, **special)


def dump(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def grid(root: Path, folder: str, image: str, value: float | np.ndarray = 0.0, *, key: str | None = None) -> Path:
    """One HDF5 feature file; a number fills the whole grid."""
    path = root / folder / FEATURES / f"{image}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    feature = value if isinstance(value, np.ndarray) else np.full((49, 2048), value, np.float16)
    with h5py.File(path, "w") as file:
        file[f"{key or image}/features"] = feature
    return path


def vqa(root: Path) -> Path:
    for split, part, first in (("train", "train2014", 10), ("val", "val2014", 20), ("test", "val2014", 30)):
        rows = []
        for i in range(4):
            image = f"COCO_{part}_{first + i:012d}"
            grid(root, "COCO", image, float(first + i))
            rows.append(
                {
                    "question_id": first + i,
                    "img_id": image,
                    "sent": "what colour is the cat" if i % 2 else "is the cat red",
                    "label": {"red": 1.0, "blue": 0.3} if i % 2 else {"yes": 0.9},
                    "answer_type": "other" if i % 2 else "yes/no",
                    "question_type": "what colour" if i % 2 else "is the",
                }
            )
        dump(root / "vqa" / f"karpathy_{split}.json", rows)
    for part, ids in (("train2014", range(10, 14)), ("val2014", [*range(20, 24), *range(30, 34)])):
        annotations = [
            {
                "question_id": i,
                "image_id": i,
                "question_type": "what colour" if i % 2 else "is the",
                "answer_type": "other" if i % 2 else "yes/no",
                "multiple_choice_answer": "red" if i % 2 else "yes",
                "answers": [
                    {"answer": "red" if i % 2 else "yes", "answer_confidence": "yes", "answer_id": n + 1}
                    for n in range(10)
                ],
            }
            for i in ids
        ]
        dump(root / "vqa" / f"v2_mscoco_{part}_annotations.json", {"annotations": annotations})
    return root


def gqa(root: Path) -> Path:
    for split, folder, first in (("train", "VG", 1), ("valid", "VG", 4), ("testdev", "GQA", 7)):
        rows = []
        for i in range(first, first + 3):
            image = f"n{i}" if folder == "GQA" else str(i)
            grid(root, folder, image, float(i))
            label = {"yes": 1.0} if i % 3 else {"no": 1.0}
            rows.append({"question_id": f"{i:08d}", "img_id": image, "sent": "is the dog blue", "label": label})
        dump(root / "GQA" / f"{split}.json", rows)
    return root


def nlvr2(root: Path) -> Path:
    for split, prefix in (("train", "train"), ("valid", "dev"), ("test", "test1")):
        rows = []
        for pair in range(2):
            stem = f"{prefix}-7-{pair}"
            for k in range(2):
                grid(root, "nlvr", f"{stem}-img{k}", float(2 * pair + k))
            rows.append(
                {
                    "identifier": f"{stem}-0",
                    "img0": f"{stem}-img0",
                    "img1": f"{stem}-img1",
                    "label": pair,
                    "sent": "the cat is on the mat " * 12,
                    "uid": f"nlvr2_{split}_{pair}",
                }
            )
        dump(root / "nlvr" / f"{split}.json", rows)
    return root


def coco_caption(root: Path) -> Path:
    images = []
    for number, split in enumerate(("train", "train", "restval", "val", "test", "val", "test"), start=50):
        name = f"COCO_{'train' if split == 'train' else 'val'}2014_{number:012d}"
        grid(root, "COCO", name, float(number))
        animal = "cat" if number < 55 else "dog"  # CIDEr needs items that differ
        images.append(
            {
                "filepath": "val2014",
                "filename": f"{name}.jpg",
                "imgid": number,
                "cocoid": number,
                "split": split,
                "sentids": [1, 2],
                "sentences": [
                    {"raw": f" a {animal} on a mat \n", "tokens": [], "imgid": number, "sentid": 1},
                    {"raw": f"a red {animal}", "tokens": [], "imgid": number, "sentid": 2},
                ],
            }
        )
    dump(root / "COCO" / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return root


def nlvr_v1(root: Path, splits=("train", "dev", "test"), permutations=(0, 1)) -> Path:
    """Boxes of one grey value each: 0, 100 and 200 in permutation 0."""
    for split in splits:
        folder = root / "nlvr" / split
        rows = []
        for i in range(3):
            rows.append(
                {
                    "sentence": "there is a red box",
                    "label": "true" if i else "false",
                    "identifier": f"12-{i}",
                    "directory": str(i),
                    "structured_rep": [[], [], []],
                }
            )
            (folder / "images" / str(i)).mkdir(parents=True)
            for permutation in permutations:
                pixels = np.full((100, 400, 3), 128, np.uint8)
                for box in range(3):
                    pixels[:, 150 * box : 150 * box + 100] = 100 * ((box + permutation) % 3)
                Image.fromarray(pixels).convert("RGBA").save(
                    folder / "images" / str(i) / f"{split}-12-{i}-{permutation}.png"
                )
        (folder / f"{split}.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root


def lines(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


CLIPS = {  # two of training, two of validation
    "tv": [f"castle_s01e0{i}_seg02_clip_00" for i in range(4)],
    "how2": [str(40 + i) for i in range(4)],
    "yc2": [f"ljyO7IaGWLY_{i}" for i in range(4)],
}


def clip(root: Path, folder: str, name: str, frames: int, value: float = 0.0) -> Path:
    """One NPZ feature file; a number fills all frames."""
    path = root / "video" / "vis_features" / folder / "clip-vit" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, features=np.full((frames, 512), value, np.float16))
    return path


def video(root: Path) -> Path:
    """The four video-text tasks, on clips of fewer frames than 64, of as many and of more.

    The one question of How2QA's validation has more subtitles than fit a text. The test files have no labels.
    """
    home = root / "video" / "ann"
    said = [{"text": " Castle : Hello? ", "start": 0.1, "end": 2.0}, {"text": "is the cat red", "start": 2, "end": 3.5}]
    for folder, names in CLIPS.items():
        for i, name in enumerate(names):
            clip(root, folder, name, (40, 64, 65, 130)[i], float(i))
        long = names[2] if folder == "how2" else None
        spoken = [{"vid_name": name, "sub": said * (120 if name == long else 1)} for name in names]
        lines(home / f"{folder}_subtitles.jsonl", spoken)
    for split, used, words in (("train", (0, 1), ("red", "blue")), ("val", (2, 3), ("red", "blue", "green", "dark"))):
        files = {"tvqa": [], "how2qa": [], "tvc": [], "yc2c": []}
        for i in used:
            tv, how2, yc2 = ({"vid_name": names[i]} for names in CLIPS.values())
            question = {"qid": i, "q": "what is on the mat", "a0": "a cat.", "a1": " a dog", "a2": "red", "a3": "no. "}
            answer = {"ts": "20.16-25.12", "answer_idx": i % 3}
            descs = [{"desc": f"the {word} cat is on a mat", "desc_id": 10 * i + n} for n, word in enumerate(words)]
            kinds = [row | {"type": "vt", "from_retrieval": False} for row in descs]
            files["tvqa"].append(tv | question | {"a4": "blue", "show_name": "Castle"} | answer)
            files["how2qa"].append(how2 | question | answer)
            files["tvc"].append(tv | {"clip_id": 100 + i, "duration": 60.02, "ts": [35.73, 40.9], "descs": kinds})
            files["yc2c"].append(yc2 | {"clip_id": 100 + i, "duration": 7, "descs": descs[i % 2 : i % 2 + 1]})
        for name, rows in files.items():
            rows = rows[:1] if name == "how2qa" or (name, split) == ("tvc", "val") else rows
            lines(home / name / f"{name}_{split}{'' if name == 'tvqa' else '_release'}.jsonl", rows)
            bare = [{key: value for key, value in row.items() if key not in ("answer_idx", "descs")} for row in rows]
            lines(home / name / f"{name}_test{'_public' if name.endswith('qa') else ''}_release.jsonl", bare)
    return root
