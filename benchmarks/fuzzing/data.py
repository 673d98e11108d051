"""Data folders: annotations, features, packed features, and the official downloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fuzzing import mutations
from fuzzing.case import Case, Mutation, Reader, product, sound
from fuzzing.models import metrics
from fuzzing.mutations import Rule

KIND, DOWNLOADS, PACKED = "data", "downloads", "packed"
CHECKED = frozenset({1, 2})  # `data check` and `data convert` count faults with 1
FEATURES = "COCO/clip_features/data_clip_RN101_att/COCO_train2014_000000000001.h5"

# what the readers do not need, or may read in several ways: of these no change is known to matter
FREE = (
    "filepath",
    "imgid",
    "sentids*",
    "*tokens*",
    "*sentid",
    "*.imgid",
    "dataset",
    "uid",
    "answer_type",
    "question_type",
    "image_id",
    "*multiple_choice_answer",
    "*answer_confidence",
    "*answer_id",
    "data_type",
    "data_subtype",
    "info*",
    "license*",
    "*answer_type",
    "*question_type",
    "*image_id",
    "types*",
    "*fullAnswer",
    "*isBalanced",
    "*types*",
    "*semantic*",
    "left_url",
    "synset",
    "ts*",
    "type",
    "duration",
    "*desc_id",
    "*.type",
    "*from_retrieval",
    "clip_id",
    "show_name",
    "*filepath",
    "*sentids*",
    "*dataset",
    "*start",
    "*end",
    "question_id",
    "*question_id",
    "qid",
    "cocoid",
    "*cocoid",
)
RULES = [
    *(Rule(place, "*", "either") for place in FREE),
    Rule("*", "junk", "either"),
    Rule("*", "again", "either"),
    Rule("*", "empty", "either"),
    Rule("*", "renamed", "either"),  # an answer's or an image's name, or a key: the latter is what dropped tells
    Rule("*label", "either", "either"),
    Rule("*filename", "dropped", "either"),  # told by the folder and the id
    Rule("*label.*", "dropped", "either"),
    Rule("*answers.*", "dropped", "either"),
    Rule("*", "l[oi]n[ge]*", "either"),
    Rule("*sent", "slash", "either"),
    Rule("*raw", "slash", "either"),
    Rule("*question", "slash", "either"),
    Rule("*answer", "slash", "either"),
    Rule("*text", "slash", "either"),
    Rule("*desc", "slash", "either"),
    Rule("*q", "slash", "either"),
    Rule("*a[0-9]", "slash", "either"),
    Rule("*sentence", "slash", "either"),
    Rule("label.*", "numeral", "either"),
    Rule("[0-9]*", "dropped", "either"),
    Rule("*descs*", "dropped", "either"),
    Rule("sub*", "dropped", "either"),
]


def cases(base: Path) -> Iterator[Case]:
    images, clips = ("--suite", "mini-image-text"), ("--suite", "mini-video-text")
    run = (
        "run",
        "--method",
        "lora",
        "--executor",
        "inline",
        "--device",
        "cpu",
        "--set",
        "recipe.max_steps=2",
        "--set",
        "recipe.batch_size=8",
        "--set",
        "recipe.lr=1e-3",
        "--out",
        "WORK/out",
    )
    dry = ("run", "--method", "lora", "--out", "WORK/out", "--dry-run", "--estimate", "earlier")
    for folder, suite, files in (("data", images, _image_files(base)), ("clips", clips, _clip_files(base))):
        root = ("--data", f"WORK/{folder}")
        backbone = ("--backbone", "mini-bart" if folder == "data" else "mini-bart-clips")
        readers = [
            Reader(
                f"check-{folder}",
                ("data", "check", f"WORK/{folder}", *suite, "--all"),
                codes=CHECKED,
                said=("✗", "not found"),
                understood=nothing_said,
            ),
            Reader(
                f"pack-{folder}",
                ("data", "pack", f"WORK/{folder}", *suite, "--out", "WORK/packed"),
                writes=("packed",),
                understood=nothing_said,
            ),
            Reader(f"dry-run-{folder}", (*dry, *suite, *backbone, *root)),
            Reader(f"run-{folder}", (*run, *suite, *backbone, *root), writes=("out",), cost=5, understood=metrics),
        ]
        yield from sound(KIND, [folder], readers)
        for name, changes in files:
            yield from product(KIND, [folder], f"{folder}/{name}", changes, readers)
    yield from _packed()
    convert = Reader(
        "convert",
        ("data", "convert", "WORK/downloads", "WORK/root"),
        codes=CHECKED,
        said=("✗", "not found"),
        writes=("root",),
        understood=_converted,
    )
    yield from sound(DOWNLOADS, ["downloads"], [convert])
    for path in sorted((base / "downloads").rglob("*.json*")):
        name = path.relative_to(base / "downloads")
        spare = path.name == "trainval_ans2label.json"  # made from the annotations where there is no such file
        changes = [
            replace(change, expect="either") if spare and change.name in ("folder", "dangling", "circular") else change
            for change in _changes(path)
        ]
        yield from product(DOWNLOADS, ["downloads"], f"downloads/{name}", changes, [convert])


def nothing_said(work: Path, out: str) -> str:
    """What is taken for the same whatever it says: it names digests and sizes of files."""
    return ""


def _converted(work: Path, out: str) -> str:
    return "".join(str(path.read_text()) for path in sorted((work / "root").rglob("*.json*")))


def _changes(path: Path) -> Iterator[Mutation]:
    """Of an annotation file: of the file, and of its first row."""
    yield from [*mutations.text(), mutations.missing("either")]
    text = path.read_text()
    try:
        content = json.loads(text)
    except ValueError:
        yield from mutations.rows([json.loads(line) for line in text.splitlines()], 0, RULES)
        return
    if isinstance(content, list) and content and isinstance(content[0], dict):
        yield from _first_of(content, lambda row: [row, *content[1:]])
    elif isinstance(content, dict) and (
        key := next((key for key in ("images", "annotations", "questions") if key in content), None)
    ):
        yield from _first_of(content[key], lambda row: content | {key: [row, *content[key][1:]]})
        for name, value in {"null": None, "mapping": {}, "text": "x"}.items():
            yield Mutation(f"{key}={name}", mutations.written(mutations.emit(content | {key: value})))
    elif isinstance(content, dict) and content and isinstance(next(iter(content.values())), dict):
        first = next(iter(content))
        yield from _first_of([content[first]], lambda row: content | {first: row})


def _first_of(rows: list, around: Callable[[Any], Any]) -> Iterator[Mutation]:
    for name, changed, expect in mutations.tree_changes(rows[0], RULES):
        yield Mutation(name, mutations.written(lambda changed=changed: mutations.emit(around(changed()))), expect)
    for name, row in {"null": None, "number": 5, "list": [], "text": "x"}.items():
        yield Mutation(f"row={name}", mutations.written(partial(mutations.emit, around(row))))


def _features(read: Callable, write: Callable) -> list[Mutation]:
    """Of a file of features, given how to read and to write its array."""
    import numpy as np

    def changed(change: Callable) -> Callable[[Path], None]:
        return lambda path: write(path, change(read(path)))

    def spoilt(value: float) -> Callable:
        def change(array: Any) -> Any:
            array = array.copy()
            array.flat[3] = value
            return array

        return change

    return [
        *mutations.whole(),
        mutations.missing(),
        *mutations.flipped("either"),
        Mutation("not a number", changed(spoilt(float("nan")))),
        Mutation("infinite", changed(spoilt(float("inf")))),
        Mutation("a row more", changed(lambda array: np.concatenate([array, array[:1]])), "either"),
        Mutation("narrower", changed(lambda array: array[:, :-1])),
        Mutation("flat", changed(lambda array: array.reshape(-1))),
        Mutation("no rows", changed(lambda array: array[:0])),
        Mutation("one more axis", changed(lambda array: array[None])),
        Mutation("text", changed(lambda array: array.astype("S8"))),
        Mutation("complex", changed(lambda array: array.astype("complex64"))),
        Mutation("whole numbers", changed(lambda array: array.astype("int32")), "either"),
        Mutation("doubles", changed(lambda array: array.astype("float64")), "accept"),
    ]


def _read_h5(path: Path) -> Any:
    import h5py

    with h5py.File(path) as file:
        return file[f"{path.stem}/features"][()]


def _write_h5(path: Path, array: Any, key: str = "") -> None:
    import h5py

    path.unlink()
    with h5py.File(path, "w") as file:
        file[key or f"{path.stem}/features"] = array


def _read_npz(path: Path) -> Any:
    import numpy as np

    with np.load(path) as file:
        return file["features"]


def _write_npz(path: Path, array: Any, key: str = "features") -> None:
    import numpy as np

    np.savez(path, **{key: array})


def _image_files(base: Path) -> Iterator[tuple[str, list[Mutation]]]:
    named = (
        "vqa/karpathy_train.json",
        "vqa/karpathy_test.json",
        "vqa/v2_mscoco_val2014_annotations.json",
        "GQA/train.json",
        "GQA/testdev.json",
        "nlvr/train.json",
        "nlvr/test.json",
        "COCO/dataset_coco.json",
    )
    for name in named:
        yield name, list(_changes(base / "data" / name))
    keys = Mutation("another key", lambda path: _write_h5(path, _read_h5(path), "x/features"))
    yield FEATURES, [*_features(_read_h5, _write_h5), keys]


def _clip_files(base: Path) -> Iterator[tuple[str, list[Mutation]]]:
    home = base / "clips"
    for path in sorted(home.glob("video/ann/**/*.jsonl")):
        if path.stat().st_size and "test" not in path.name:
            yield str(path.relative_to(home)), list(_changes(path))
    file = min(home.glob("video/vis_features/tv/clip-vit/*.npz"))
    keys = Mutation("another key", lambda path: _write_npz(path, _read_npz(path), "x"))

    def pickled(path: Path) -> None:
        import numpy as np

        np.savez(path, features=np.array([{"x": 1}], dtype=object))

    yield str(file.relative_to(home)), [*_features(_read_npz, _write_npz), keys, Mutation("objects", pickled)]


def _packed() -> Iterator[Case]:
    """A packed store that is damaged is packed anew, or said to be damaged: never other numbers."""
    run = (
        "run",
        "--method",
        "lora",
        "--suite",
        "mini-image-text/nlvr2",
        "--backbone",
        "mini-bart",
        "--data",
        "WORK/data",
        "--executor",
        "inline",
        "--device",
        "cpu",
        "--set",
        "recipe.max_steps=2",
        "--set",
        "recipe.batch_size=8",
        "--set",
        "recipe.lr=1e-3",
        "--out",
        "WORK/out",
    )
    env = {"PET_BENCH_CACHE": "WORK/store"}
    readers = [
        Reader("run", run, writes=("out", "store"), cost=4, understood=metrics, env=env),
        Reader(
            "check",
            ("data", "check", "WORK/data", "--suite", "mini-image-text/nlvr2", "--packed"),
            codes=CHECKED,
            said=("✗", "not found"),
            understood=nothing_said,
            env=env,
        ),
    ]
    yield from sound(PACKED, ["data", "store"], readers)

    def of(name: str, mutation: Mutation) -> Mutation:
        return Mutation(
            mutation.name, lambda folder: mutation.change(next(folder.glob(f"features/*/{name}"))), mutation.expect
        )

    for name in ("features.npy", "index.json", "manifest.json"):
        changes = [*mutations.whole("accept"), mutations.missing("accept")]
        if name.endswith("json"):
            changes = [
                *mutations.text("accept"),
                mutations.missing("accept"),
                *mutations.flipped("accept", (0.1, 0.5, 0.9)),
            ]
        else:
            changes += mutations.flipped("either", (0.0, 0.01))
        for case in product(
            PACKED, ["data", "store"], "store", [of(name, change) for change in changes], readers, place=name
        ):
            yield replace(case, expect="either") if case.reader.name == "check" else case
