"""Tiny data sets in the layout and with the schemas of the official files of the suites `vqa-zoo` and `science` and of
Flickr30k: features and pictures of every image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.roots import dump, grid

RAW = {"race": "races", "ride": "riding"}
OCR_BOX = {"width": 0.1, "height": 0.05, "rotation": 0.0, "top_left_x": 0.2, "top_left_y": 0.3}


def picture(path: Path, grey: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), grey, np.uint8)).save(path)
    return path


def answers(*given: tuple[str, int]) -> list[str]:
    """`("red", 6), ("blue", 4)` → ten answers"""
    return [answer for answer, count in given for _ in range(count)]


def okvqa(root: Path) -> Path:
    for part, first in (("train2014", 10), ("val2014", 20)):
        questions, annotations = [], []
        for i in range(first, first + 3):
            image = f"COCO_{part}_{i:012d}"
            grid(root, "COCO", image, float(i))
            picture(root / "COCO" / "images" / part / f"{image}.jpg", i)
            questions.append({"image_id": i, "question": "What sport is this cat for?", "question_id": 10 * i + 5})
            said = answers(("racing", 4), ("race", 2), ("ride", 2), ("jump", 2))
            annotations.append(
                {
                    "image_id": i,
                    "question_type": "four" if i % 2 else "other",
                    "answer_type": "other",
                    "question_id": 10 * i + 5,
                    "confidence": 3,
                    "answers": [
                        {"answer_id": n, "raw_answer": RAW.get(stem, stem), "answer_confidence": "yes", "answer": stem}
                        for n, stem in enumerate(said, start=1)
                    ],
                }
            )
        about = {"info": {"version": "1.0", "year": 2019}, "license": {}, "data_type": "mscoco", "data_subtype": part}
        asked = {**about, "task_type": "Open-Ended", "questions": questions}
        dump(root / "okvqa" / f"OpenEnded_mscoco_{part}_questions.json", asked)
        kinds = {"four": "Sports and Recreation", "other": "Other"}
        said = {**about, "annotations": annotations, "question_types": kinds}
        dump(root / "okvqa" / f"mscoco_{part}_annotations.json", said)
    return root


def textvqa(root: Path) -> Path:
    """The test file has no answers, as the published one."""
    for split, first in (("train", 0), ("val", 10), ("test", 20)):
        rows, words = [], []
        for i in range(first, first + 3):
            image = f"{i:016x}"
            grid(root, "textvqa", image, float(i))
            folder = "test_images" if split == "test" else "train_images"
            picture(root / "textvqa" / "images" / folder / f"{image}.jpg", i)
            row = {
                "question": "what brand of Beer is this?",
                "image_id": image,
                "image_classes": ["Beer", "Drink"],
                "flickr_original_url": "",
                "flickr_300k_url": "",
                "image_width": 8,
                "image_height": 6,
                "question_tokens": ["what", "brand", "of", "beer", "is", "this"],
                "question_id": 34602 + i,
                "set_name": split,
            }
            if split != "test":
                row["answers"] = answers(("Ale", 5), ("the ale", 3), ("Stella's", 2))
            rows.append(row)
            boxes = [{"word": word, "bounding_box": OCR_BOX} for word in ("ALE", "1924")]
            words.append({"image_id": image, "ocr_tokens": ["ALE", "1924"], "ocr_info": boxes, "set_name": split})
        about = {"dataset_type": split, "dataset_name": "textvqa"}
        dump(root / "textvqa" / f"TextVQA_0.5.1_{split}.json", {**about, "dataset_version": "0.5.1", "data": rows})
        read = {**about, "dataset_version": "0.2", "data": words}
        dump(root / "textvqa" / f"TextVQA_Rosetta_OCR_v0.2_{split}.json", read)
    return root


def vizwiz(root: Path) -> Path:
    """The test file has images and questions alone, as the published one."""
    for split in ("train", "val", "test"):
        rows = []
        for i in range(4):
            name = f"VizWiz_{split}_{i:08d}"
            grid(root, "vizwiz", name, float(i))
            picture(root / "vizwiz" / "images" / split / f"{name}.jpg", i)
            row = {"image": f"{name}.jpg", "question": "Can you tell me what is in this can please?"}
            if split != "test":
                said = answers(("unanswerable", 8), ("cat", 2)) if i % 2 else answers(("soup", 9), ("tomato soup", 1))
                row["answers"] = [{"answer_confidence": "yes", "answer": answer} for answer in said]
                row |= {"answer_type": "unanswerable" if i % 2 else "other", "answerable": 1 - i % 2}
            rows.append(row)
        dump(root / "vizwiz" / f"{split}.json", rows)
    return root


def scienceqa(root: Path) -> Path:
    """Of each split's five questions the last two have no image; of all, every second has a hint."""
    subjects = ("natural science", "social science", "language science")
    problems, splits = {}, {"train": [], "val": [], "test": [], "trainval": [], "minitrain": []}
    for first, split in ((1, "train"), (6, "val"), (11, "test")):
        for i in range(first, first + 5):
            image = i < first + 3
            problems[str(i)] = {
                "question": "Which of these is red?",
                "choices": ["a cat", "a dog", "a mat"][: 2 + i % 2],
                "answer": i % 2,
                "hint": "" if i % 2 else "The cat is on the mat.",
                "image": "image.png" if image else None,
                "task": "closed choice",
                "grade": f"grade{2 + (i - first) * 2}",
                "subject": subjects[i % 3],
                "topic": "colours",
                "category": "Colours",
                "skill": "Tell colours apart",
                "lecture": "Red is a colour.",
                "solution": "The cat is red.",
                "split": split,
            }
            splits[split].append(str(i))
            if image:
                grid(root, "scienceqa", str(i), float(i))
                picture(root / "scienceqa" / "images" / split / str(i) / "image.png", i)
    splits["trainval"] = splits["train"] + splits["val"]
    splits["minitrain"] = splits["train"][:2]
    dump(root / "scienceqa" / "problems.json", problems)
    dump(root / "scienceqa" / "pid_splits.json", splits)
    dump(root / "scienceqa" / "captions.json", {"captions": {"1": "a red cat", "11": "a mat"}})
    return root


def flickr30k(root: Path) -> Path:
    images = []
    for number, split in enumerate(("train", "train", "val", "test", "val", "test"), start=1000092795):
        grid(root, "flickr30k", str(number), 1.0)
        picture(root / "flickr30k" / "images" / "flickr30k-images" / f"{number}.jpg", number % 256)
        animal = "cat" if len(images) < 4 else "dog"  # CIDEr needs items that differ
        sentences = [
            {"tokens": raw.lower().split(), "raw": f"{raw} .", "imgid": len(images), "sentid": n}
            for n, raw in enumerate((f"A {animal} on a mat", f"Two red {animal}s", "A cat", "A dog", "A mat"))
        ]
        images.append(
            {
                "sentids": [0, 1, 2, 3, 4],
                "imgid": len(images),
                "sentences": sentences,
                "split": split,
                "filename": f"{number}.jpg",
            }
        )
    dump(root / "flickr30k" / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return root


def everything(root: Path) -> Path:
    for write in (okvqa, textvqa, vizwiz, scienceqa, flickr30k):
        write(root)
    return root
