"""The sound inputs, small and of every kind, that cases are made from."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE = {"lr": 1e-3, "max_steps": 4, "batch_size": 8, "valid_every": 1}


def apart(make: Callable[[], None]) -> None:
    """Call it in a process of its own, so that this one stays without threads and can be forked."""
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            make()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("the sound inputs cannot be made")


def make(base: Path) -> None:
    """Write all of them."""
    base.mkdir(parents=True, exist_ok=True)
    os.environ["PET_BENCH_CACHE"] = str(base.parent / "cache")
    for part in (_data, _store, _results, _adapter, _checkpoint, _backbones, _downloads, _submissions, _rest):
        part(base)


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def lines(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _done(*arguments: str) -> None:
    from pet_bench.cli import main

    try:
        main([*arguments])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{arguments[0]}: exit status {end.code}") from end


def _data(base: Path) -> None:
    from pet_bench.mini.write import Sizes, write_image_text
    from pet_bench.mini.write_clips import ClipSizes, write_video_text

    sizes = Sizes(
        coco_train=8,
        coco_restval=2,
        coco_val=2,
        coco_test=4,
        vg_train=8,
        vg_valid=2,
        gqa_testdev=4,
        nlvr_train=2,
        nlvr_valid=1,
        nlvr_test=2,
    )
    write_image_text(base / "data", sizes=sizes)
    clips = ClipSizes(tv_train=4, tv_val=2, how2_train=4, how2_val=2, yc2_train=4, yc2_val=2, per_clip=2)
    write_video_text(base / "clips", sizes=clips)
    for extra in ("COCO/images", "VG/images", "GQA/images", "nlvr/images"):  # of the html page's pictures alone
        shutil.rmtree(base / "data" / extra)
    shutil.rmtree(base / "clips/video/frames")


def _store(base: Path) -> None:
    """Packed features, as a run leaves them in its cache."""
    _done("data", "pack", str(base / "data"), "--suite", "mini-image-text/nlvr2", "--out", str(base / "store"))


def _run(base: Path, grid: dict, out: str, *options: str) -> None:
    file = base / f"{out}.yaml"
    dump(file, grid)
    where = ("--data", str(base / "data"), "--out", str(base / out), "--executor", "inline", "--device", "cpu")
    _done("run", str(file), *where, *options)
    file.unlink()


def _grid(name: str, suite: str, *methods: str, seeds: tuple[int, ...] = (0, 1)) -> dict:
    return {
        "name": name,
        "suites": [suite],
        "backbones": ["mini-bart"],
        "methods": [*methods],
        "seeds": [*seeds],
        "recipe": RECIPE,
    }


def _results(base: Path) -> None:
    """Two methods, two seeds: of trials as short as these some are suspect, which is not the point here."""
    _run(base, _grid("results", "mini-image-text/vqa+nlvr2+coco-caption", "lora", "vl-pet-large"), "results")
    for file in (base / "results").glob("*.json"):
        result = json.loads(file.read_text())
        file.write_text(json.dumps(result | {"status": "done", "error": None}, indent=1, ensure_ascii=False) + "\n")


def _adapter(base: Path) -> None:
    """One of the trials in peft's format."""
    paths = sorted((base / "results").glob("*.json"))
    trained = next(path for path in paths if json.loads(path.read_text())["spec"]["method"]["name"] == "lora")
    _done("export", str(trained), "--format", "peft-adapter", "--out", str(base / "exported"))
    (folder,) = (base / "exported").iterdir()
    folder.rename(base / "adapter")
    folder.parent.rmdir()


def _checkpoint(base: Path) -> None:
    """A trial that was cut off after its second update."""
    from pet_bench.grid.plan.spec import parse
    from pet_bench.spec import Runtime
    from pet_bench.trial.run import run_trial

    grid = _grid("cut", "mini-image-text/nlvr2", "lora", seeds=(0,))
    (base / "cut").mkdir()
    dump(base / "cut" / "grid.yaml", grid)
    (trial,) = parse(grid).trials()

    def cut(progress: Any) -> None:
        if progress.phase == "train" and progress.step >= 3:
            raise KeyboardInterrupt

    runtime = Runtime(out=base / "cut", data=base / "data", device="cpu", threads=1, checkpoint_steps=1)
    try:
        run_trial(trial, runtime, cut)
    except KeyboardInterrupt:
        return
    raise RuntimeError("the trial was not cut off")


def _backbones(base: Path) -> None:
    import pet_bench

    home = Path(pet_bench.__file__).parent / "mini" / "backbones"
    for name in ("mini-bart", "mini-t5"):
        shutil.copytree(home / name, base / name, ignore=shutil.ignore_patterns("COMMAND", "*.csv"))


def _rest(base: Path) -> None:
    from fuzzing.grids import GRID, SEARCH

    (base / "empty").mkdir()
    (base / "plain.txt").write_text("what is this?\n")
    dump(base / "grid.yaml", GRID)
    dump(base / "search.yaml", SEARCH)


MINE = ("red", "Red.", "the red", "red", "blue", "blue", "2", "two", "a", "green")  # of one question
SAID = [{"text": " Castle : Hello? ", "start": 0.1, "end": 2.0}, {"text": "Yes.", "start": 2, "end": 3.5}]
IMAGES = {"train2014": {1: "train", 2: "train"}, "val2014": {3: "restval", 4: "val", 5: "test"}}


def _downloads(base: Path) -> None:
    """The official downloads of all eight tasks."""
    folder = base / "downloads"
    images = []
    for part, splits in IMAGES.items():
        asked, answered = [], []
        for image, split in splits.items():
            name = f"COCO_{part}_{image:012d}.jpg"
            said = [{"raw": " a cat \n", "tokens": ["a", "cat"], "imgid": image, "sentid": image}]
            images.append(
                {
                    "filepath": part,
                    "filename": name,
                    "cocoid": image,
                    "imgid": image,
                    "split": split,
                    "sentids": [image],
                    "sentences": said,
                }
            )
            for key, given in ((10 * image, MINE), (10 * image + 1, ("yes",) * 10)):
                asked.append({"image_id": image, "question": f"what is this {key}?", "question_id": key})
                answers = [
                    {"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(given, 1)
                ]
                answered.append(
                    {
                        "question_id": key,
                        "image_id": image,
                        "answers": answers,
                        "question_type": "what is",
                        "answer_type": "other",
                        "multiple_choice_answer": given[0],
                    }
                )
        head = {"info": {"description": "x"}, "data_type": "mscoco", "license": {}, "data_subtype": part}
        dump(folder / f"v2_OpenEnded_mscoco_{part}_questions.json", head | {"questions": asked})
        dump(folder / f"v2_mscoco_{part}_annotations.json", head | {"annotations": answered})
    dump(folder / "lxmert/vqa/trainval_ans2label.json", {"": 0, "red": 1, "2": 2, "yes": 3})
    dump(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    for first, split in enumerate(("train", "val", "testdev"), start=1):
        types = {"structural": "choose", "semantic": "attr", "detailed": "chooseAttr"}
        dump(
            folder / f"{split}_balanced_questions.json",
            {
                f"{first}{i:07d}": {
                    "imageId": f"n{i}" if split == "testdev" else str(i),
                    "question": "Is the dog blue?",
                    "answer": "yes",
                    "fullAnswer": "It is.",
                    "isBalanced": True,
                    "types": types,
                }
                for i in range(3)
            },
        )
    for split in ("train", "dev", "test1"):
        lines(
            folder / "nlvr2" / f"{split}.json",
            [
                {
                    "identifier": f"{split}-{i}-{i}-0",
                    "sentence": "There is a dog.",
                    "label": ("True", "False")[i],
                    "left_url": "http://x/1.jpg",
                    "synset": "dog",
                }
                for i in range(2)
            ],
        )
    for i, split in enumerate(("train", "val", "test")):
        clip, hidden = {"vid_name": f"clip_{i}"}, split == "test"
        question = {"ts": "20.16-25.12", "q": "Who?", "a0": "Beckett.", "a1": "Castle", "a2": "Ryan", "a3": "nobody"}
        asked = clip | question | {"qid": i} | ({} if hidden else {"answer_idx": 2})
        public = "test_public" if hidden else split
        lines(folder / f"tvqa_{public}.jsonl", [asked | {"a4": "Gina", "show_name": "Castle"}])
        lines(folder / f"how2qa_{public}_release.jsonl", [asked])
        descs = [{"desc": "He calls.", "desc_id": 2 * i + n, "type": "vt"} for n in range(2)]
        told = {} if hidden else {"descs": descs}
        lines(folder / f"tvc_{split}_release.jsonl", [clip | {"clip_id": i, "ts": [1.5, 4], "duration": 9.5} | told])
        lines(folder / f"yc2c_{split}_release.jsonl", [clip | {"clip_id": i, "duration": 9} | told])
    for name in ("tvqa_preprocessed", "how2", "yc2"):
        lines(folder / f"{name}_subtitles.jsonl", [{"vid_name": f"clip_{i}", "sub": SAID} for i in range(3)])


def _submissions(base: Path) -> None:
    """Predictions in the official formats and what they are scored against."""
    folder = base / "scored"
    dump(
        folder / "captions.json",
        [
            {"id": 1, "prediction": "a cat on a mat", "references": ["a cat sits on a mat", "the cat"]},
            {"id": "2", "prediction": "a dog runs", "references": ["a dog runs far"]},
            {"id": 3, "prediction": "two birds", "references": ["two birds in a tree", "birds"]},
        ],
    )
    dump(folder / "vqa.json", [{"question_id": 1, "answer": "red"}, {"question_id": 2, "answer": "yes"}])
    dump(
        folder / "vqa_truth.json",
        {
            "annotations": [
                {
                    "question_id": i,
                    "question_type": "what is",
                    "answer_type": "other",
                    "image_id": i,
                    "answers": [
                        {"answer": answer, "answer_id": n, "answer_confidence": "yes"} for n, answer in enumerate(MINE)
                    ],
                }
                for i in (1, 2)
            ]
        },
    )
    dump(folder / "gqa.json", [{"questionId": "01", "prediction": "yes"}, {"questionId": "02", "prediction": "blue"}])
    types = {"structural": "choose", "semantic": "attr"}
    dump(
        folder / "gqa_truth.json",
        {
            key: {"answer": answer, "question": "is it?", "isBalanced": True, "types": types}
            for key, answer in (("01", "yes"), ("02", "red"))
        },
    )
    with (folder / "nlvr.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("dev-1-0-0", "True"), ("dev-1-0-1", "False")])
    lines(
        folder / "nlvr_truth.json",
        [{"identifier": f"dev-1-0-{i}", "label": "True", "sentence": "There is a dog."} for i in range(2)],
    )
    dump(folder / "choices.json", {"1": 0, "2": "a3"})
    dump(folder / "choices_truth.json", {"1": 0, "2": 1})
    lines(
        folder / "choices_truth.jsonl",
        [{"qid": i, "answer_idx": i, "q": "Who?", "show_name": "Castle"} for i in (1, 2)],
    )
