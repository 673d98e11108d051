"""CLIP features of images, videos and extracted frames, as the files that tasks read.

Image grids: the last convolutional stage of CLIP RN101 after its ReLU, before attention pooling; images are resized to
224 × 224 without keeping their aspect ratio. Frame features: projected image embeddings of CLIP ViT-B/32, not
normalised, one every 1.5 s; the short side is resized to 224, then the centre is cut out. Networks, means and
deviations are those of Radford et al. (ICML 2021). Computed in single precision and stored in half; the published ones
were computed in half as well.

The networks come from `open_clip`, an optional package (extra `features`), and videos are read by PyAV. OpenAI's
weights are for QuickGELU, which open_clip's `RN101-quickgelu` and `ViT-B-32-quickgelu` have. Its `ViT-B-32` takes the
tag `openai` too, but computes another activation, and so other features. The registry says which of the two a tag's
weights are for; that one is built. RN101 has the activation in its text encoder alone: its grids are the same in both.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from math import floor
from operator import itemgetter
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, Literal
from zipfile import BadZipFile

import h5py
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from pet_bench.data.pictures import FORMATS, Contents
from pet_bench.data.places import OtherColumns, Place, stem, table
from pet_bench.data.rows import shown
from pet_bench.data.task import open_hdf5
from pet_bench.errors import UserError
from pet_bench.files import impostor_at
from pet_bench.registry import TASKS

Kind = Literal["images", "videos", "frames"]
Progress = Callable[[int, int], None]
Picture = np.ndarray  # (224, 224, 3) uint8
Shot = tuple[str, Callable[[], Picture]]  # an item's name, and what reads one picture of it
Origin = dict[str, str]

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
INTERVAL = Fraction(3, 2)  # seconds from one encoded frame to the next
IMAGES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
SUFFIXES: dict[Kind, tuple[str, ...]] = {"images": IMAGES, "videos": VIDEOS, "frames": IMAGES}
MODELS: dict[Kind, str] = {"images": "RN101", "videos": "ViT-B-32", "frames": "ViT-B-32"}
UNCOUNTED = "num_batches_tracked"  # a buffer that inference does not read and some files leave out


@dataclass(frozen=True)
class Encoder:
    """encode: normalised pixels (B, 3, 224, 224) float32 → features (B, …). origin: kept with all that it makes."""

    encode: Callable[[torch.Tensor], torch.Tensor]
    origin: Origin
    device: torch.device | str = "cpu"

    def __call__(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Features (B, …) float16, infinite where they are beyond half precision."""
        mean, deviation = (torch.tensor(value, device=self.device).view(3, 1, 1) for value in (MEAN, DEVIATION))
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2) / 255
            return self.encode((pixels - mean) / deviation).half().cpu().numpy()


@dataclass
class Source:
    """What there is to extract features of.

    items: image or video, or folder of frames, by the name of its features; images of parquet tables by their place.
    others: files beside them that are no images (videos) by their names; first: one of them.
    """

    kind: Kind
    items: dict[str, Path | Place] = field(default_factory=dict)
    others: int = 0
    first: Path | None = None


@dataclass
class Report:
    """Counts of files. unsigned: those kept that do not say what made them, as other extractors' do not.

    faults: a line for each image or clip that has no features now.
    """

    written: int = 0
    kept: int = 0
    unsigned: int = 0
    faults: list[str] = field(default_factory=list)


def find(folder: Path, kind: Kind) -> Source:
    """What is in a folder and those below it; with "frames", each folder that holds images is a clip.

    Images may also be in parquet tables, with the columns id and image, and in those that an index names
    (`places.table`). Hidden files do not count. Raises UserError where two have one name, where there is nothing, or
    where a folder or table cannot be looked into; for videos also where PyAV is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder" if folder.exists() else f"folder {folder} does not exist")
    if kind == "videos":
        _need("av")
    source, twice = Source(kind), []
    named = [task.picture_name for task in TASKS if task.picture_name]
    tables: list[Path] = []
    for at, below, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        visible = [Path(at, name) for name in sorted(files) if not name.startswith(".")]
        fitting = [path for path in visible if path.suffix.lower() in SUFFIXES[kind]]
        if kind == "images":
            tables += [path for path in visible if path.suffix.lower() == ".parquet" and path.exists()]
        _aside(source, {*visible} - {*fitting, *tables})
        if kind == "frames":
            fitting = [Path(at)] if fitting else []
        for path in fitting:
            name = path.absolute().name if kind == "frames" else _name(path, path.stem, named)
            if source.items.setdefault(name, path) != path:
                twice.append(f"{source.items[name]} and {path} have one name, so their features would be one file")
    twice += _tabled(source, tables, named)
    if twice:
        raise shown(twice, str(folder))
    if not source.items:
        what = "folder with images" if kind == "frames" else kind
        raise UserError(f"{folder} holds no {what}" + (f", but {source.others} other files" if source.others else ""))
    return source


def _name(path: PurePath, stem: str, named: Sequence[re.Pattern[str]]) -> str:
    """Of an image or video: its file's, or as a task says that it calls its pictures."""
    found = (pattern.fullmatch(f"{path.parent.name}/{stem}") for pattern in named)
    return next((match["name"] for match in found if match), stem)


def _aside(source: Source, others: set[Path]) -> None:
    source.others += len(others)
    source.first = source.first or min(others, default=None)


def _tabled(source: Source, paths: Sequence[Path], named: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """Add the images of tables; a line for each name that another has. What several indexes name is one image."""
    indexed: dict[str, Place] = {}
    unread, elsewhere = set(), set()
    for path in paths:
        try:
            pictures = table(path)
        except OtherColumns:
            unread.add(path)
            continue
        except UserError as error:
            yield from error.faults
            continue
        except Exception as error:  # a damaged file can fail in any way its format knows
            yield f"pictures {path} cannot be read: {error}"
            continue
        for key, place in pictures:
            name = _name(key, stem(key.name), named)
            if place.file != path:
                elsewhere.add(place.file)
                indexed.setdefault(name, place)
            elif source.items.setdefault(name, place) is not place:
                other = source.items[name]
                yield f"{other} and {place} have one name, so their features would be one file"
    for name, place in indexed.items():
        source.items.setdefault(name, place)
    _aside(source, unread - elsewhere)


def extract(
    source: Source,
    target: Path,
    encoder: Encoder,
    *,
    batch: int = 64,
    fps: float = 3.0,
    progress: Progress | None = None,
) -> Report:
    """Write the features of everything in `source` to the folder `target`, one file each.

    images: `<image>.h5` with `<image>/features`, (49, 2048) float16. videos, frames: `<clip>.npz` with `features`,
    (T, 512) float16; extracted frames are taken at `fps` and numbered without gaps. Whole files are kept, so an
    interrupted call can be made again; a file is there entirely or not at all. Memory does not grow with the number
    of files, nor with the length of a video but for its features.

    What cannot be read is in the report, after everything else is done. Raises UserError, before any work, where
    `target` holds something else under a name or features of another origin; and where it cannot be written to.
    """
    report, kind = Report(), source.kind
    suffix = ".h5" if kind == "images" else ".npz"
    todo = _missing(source, target, suffix, encoder.origin, report)
    done, total = report.kept, len(source.items)
    try:
        target.mkdir(parents=True, exist_ok=True)
        workers = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        with workers, closing(_encoded(_shots(todo, kind, Fraction(fps)), encoder, batch, workers)) as stream:
            for name, group in groupby(stream, key=itemgetter(0)):
                encoded = [feature for _, feature in group]
                features = [feature for feature in encoded if isinstance(feature, np.ndarray)]
                wrong = next((error for error in encoded if isinstance(error, BaseException)), None)
                if wrong is None and not all(np.isfinite(feature).all() for feature in features):
                    wrong = ValueError("they are NaN, infinite or beyond half precision")
                if wrong is None:
                    content = features[0] if kind == "images" else np.stack(features)
                    _write(target / f"{name}{suffix}", content, encoder.origin)
                    report.written += 1
                else:
                    report.faults.append(f"{todo[name]} has no features: {str(wrong) or type(wrong).__name__}")
                done += 1
                if progress:
                    progress(done, total)
    except OSError as error:
        raise UserError(f"cannot write to {target}: {error.strerror or error}") from None
    return report


# networks -------------------------------------------------------------------------------------------------------------


def clip_encoder(
    kind: Kind, weights: str | None = None, *, seed: int | None = None, device: torch.device | str = "cpu"
) -> Encoder:
    """The network for one kind of features.

    weights: a file with the state of a whole model under open_clip's names, which are OpenAI's, as safetensors or as a
    torch file without code, taken to be for QuickGELU; or a tag of open_clip's registry, which may download it. seed:
    of random weights instead, for tests. The origin holds the model's name, the SHA-256 of the image encoder's weights
    in single precision, whatever file they were in, and open_clip's version.
    """
    if (weights is None) == (seed is None):
        raise UserError("features need weights or a seed of random ones; the published features are of the tag openai")
    open_clip = _need("open_clip")
    model, path = f"{MODELS[kind]}-quickgelu", None
    if weights is not None:
        model, path = _weights_file(open_clip, MODELS[kind], weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        visual = open_clip.CLIP(**open_clip.get_model_config(model)).visual
    made = f"random, seed {seed}"
    if path:
        _load(visual, model, path)
        made = f"sha256:{_digest(visual)}"
    visual = visual.eval().requires_grad_(False).to(device)
    encode = partial(_grid, visual) if kind == "images" else visual
    return Encoder(encode, {"model": model, "weights": made, "open_clip": open_clip.__version__}, device)


def _grid(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, 224, 224) → (B, 49, 2048), cells row by row."""
    stages = visual.forward_intermediates(pixels, indices=1, intermediates_only=True)
    return stages["image_intermediates"][-1].flatten(2).transpose(1, 2)


def _need(package: str) -> ModuleType:
    install = "pip install 'pet-bench[features]'"
    if find_spec(package) is None:
        raise UserError(f"feature extraction needs the package {package}: {install}")
    try:
        return import_module(package)
    except (ImportError, RuntimeError) as error:  # the latter from torchvision beside another build of torch
        raise UserError(f"feature extraction needs {package}, which does not start: {error} ({install})") from None


def _weights_file(open_clip: ModuleType, model: str, weights: str) -> tuple[str, Path]:
    """The model that these weights are for, and their file."""
    if Path(weights).is_file():
        return f"{model}-quickgelu", Path(weights)
    entry = open_clip.get_pretrained_cfg(model, weights)
    if not entry:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise UserError(f'weights "{weights}" are neither a file nor a tag of open_clip for {model} (tags: {tags})')
    try:
        path = Path(open_clip.download_pretrained(entry))
    except Exception as error:  # the hub's client and the network below it fail in many ways
        raise UserError(f'weights "{weights}" of {model} cannot be fetched: {error}') from None
    return (f"{model}-quickgelu" if entry.get("quick_gelu") else model), path


def _load(visual: torch.nn.Module, model: str, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is a TorchScript archive, which is refused below
                state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
    except Exception as error:  # every format fails in ways of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if "TorchScript" in str(error):
            reason = "it is a TorchScript program, which is not run; save its state_dict() to a file, or give a tag"
        raise UserError(f"weights {path} {impostor_at(path) or f'cannot be read: {reason}'}") from None
    state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    expected = {key: value.shape for key, value in visual.state_dict().items() if not key.endswith(UNCOUNTED)}
    found = {key: value.shape for key, value in state.items() if not key.endswith(UNCOUNTED)}
    wrong = [key for key in (expected | found) if expected.get(key) != found.get(key)]
    if wrong:
        key, here = wrong[0], found.get(wrong[0])
        there = f"is {tuple(here)}" if here is not None else "is missing"
        raise UserError(f"weights {path} are not those of {model}: visual.{key} {there} ({len(wrong)} differ)")
    visual.load_state_dict(state, strict=False)


def _digest(visual: torch.nn.Module) -> str:
    digest = sha256()
    for key, value in visual.state_dict().items():
        if not key.endswith(UNCOUNTED):
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


# pictures -------------------------------------------------------------------------------------------------------------


def squashed(image: Image.Image) -> Picture:
    """Bicubic, aspect ratio not kept."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def cropped(image: Image.Image) -> Picture:
    """The short side resized to 224 (bicubic; the long one rounded down), then the centre."""
    short = min(image.size)
    width, height = (side * SIDE // short for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


def sampled(shots: Iterable[tuple[Fraction, Fraction, Any]]) -> Iterator[Any]:
    """Of shots with start and end in seconds, one every 1.5 s and at least one.

    The k-th is the last that starts before (k + ½) · 1.5 s; there are round(end / 1.5 s). This is what FFmpeg's filter
    `fps` keeps, through which the published features were made; that one keeps nothing of a clip below 0.75 s, and the
    published extractor took clips below 1.6 s at 2 frames a second.
    """
    stream = iter(shots)
    try:
        begin, end, held = next(stream)
    except StopIteration:
        raise ValueError("it holds no frames") from None
    first = slot = _slot(begin)
    last = _slot(end)
    for begin, end, shot in stream:
        now, last = _slot(begin), _slot(end)
        for _ in range(slot, now):
            yield held
        slot, held = max(slot, now), shot
    for _ in range(slot, max(last, first + 1)):
        yield held


def _slot(time: Fraction) -> int:
    return floor(time / INTERVAL + Fraction(1, 2))


def _shots(items: dict[str, Path | Place], kind: Kind, fps: Fraction) -> Iterator[Shot]:
    """Every picture to encode, those of one item together. Reading one may raise anything, but iterating does not."""
    contents = Contents()
    for name, path in items.items():
        if isinstance(path, Place):  # tables are read here, in order; what they hold is decoded in parallel
            try:
                yield name, partial(_decoded, contents.content(path), squashed)
            except UserError as error:
                yield name, partial(_raise, error)
            continue
        if kind == "images":
            yield name, partial(_open, path, squashed)
            continue
        try:
            if kind == "frames":
                for frame in sampled(_frames(path, fps)):
                    yield name, partial(_open, frame, cropped)
            else:
                for picture in _video(path):
                    yield name, partial(np.asarray, picture)
        except Exception as error:  # a damaged file can fail in any way its format knows
            yield name, partial(_raise, error)


def _open(path: Path, cut: Callable[[Image.Image], Picture]) -> Picture:
    try:
        with Image.open(path) as image:
            return cut(image)
    except UnidentifiedImageError:
        raise ValueError(f"{path.name} is no image") from None
    except Exception as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None


def _decoded(content: bytes, cut: Callable[[Image.Image], Picture]) -> Picture:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return cut(image)
    except UnidentifiedImageError:
        raise ValueError("it is no image") from None
    except Exception as error:
        raise ValueError(f"it cannot be read: {error}") from None


def _raise(error: Exception) -> Picture:
    raise error


def _frames(folder: Path, fps: Fraction) -> Iterator[tuple[Fraction, Fraction, Path]]:
    """Extracted frames in the order of their numbers. A gap is refused: it would shift all that follows it."""
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGES and not path.name.startswith("."):
            digits = re.findall(r"\d+", path.stem)
            if not digits:
                raise ValueError(f"frame {path.name} has no number")
            other = numbered.setdefault(int(digits[-1]), path)
            if other != path:
                raise ValueError(f"frames {other.name} and {path.name} have one number")
    for index, number in enumerate(sorted(numbered)):
        if index and number - 1 not in numbered:
            raise ValueError(f"the frame before {numbered[number].name} is missing")
        yield index / fps, (index + 1) / fps, numbered[number]


def _video(path: Path) -> Iterator[Picture]:
    """What is sampled of a video. Raises ValueError where it ends before the file says it does, as if it is cut off."""
    import av

    end = Fraction(0)
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise ValueError("it holds no video")
        stream.thread_type = "AUTO"
        start = Fraction(container.start_time or 0, av.time_base)

        def timed() -> Iterator[tuple[Fraction, Fraction, av.VideoFrame]]:
            nonlocal end
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    raise ValueError("it holds frames without times")
                unit = frame.time_base
                begin = frame.pts * unit - start
                end = begin + (frame.duration * unit if frame.duration else Fraction(1) / (stream.average_rate or 0))
                yield begin, end, frame

        for frame in sampled(timed()):
            yield cropped(frame.to_image())
        length = (stream.duration or 0) * (stream.time_base or 0)
        if length > end + INTERVAL:
            raise ValueError(f"it ends after {float(end):.1f} of {float(length):.1f} s")


def _encoded(
    shots: Iterable[Shot], encoder: Encoder, batch: int, workers: ThreadPoolExecutor
) -> Generator[tuple[str, np.ndarray | BaseException]]:
    """The features of every picture, or why there are none, in order; reads at most a batch ahead."""
    waiting: deque[tuple[str, Future[Picture]]] = deque()
    try:
        for name, read in shots:
            waiting.append((name, workers.submit(read)))
            if len(waiting) == 2 * batch:
                yield from _batch([waiting.popleft() for _ in range(batch)], encoder)
        while waiting:
            yield from _batch([waiting.popleft() for _ in range(min(batch, len(waiting)))], encoder)
    finally:
        for _, future in waiting:
            future.cancel()


def _batch(
    chunk: Sequence[tuple[str, Future[Picture]]], encoder: Encoder
) -> Iterator[tuple[str, np.ndarray | BaseException]]:
    errors = [future.exception() for _, future in chunk]
    pictures = [future.result() for (_, future), error in zip(chunk, errors, strict=True) if error is None]
    try:
        features = iter(encoder(pictures) if pictures else ())
    except torch.OutOfMemoryError:
        raise UserError(f"{len(pictures)} pictures at once do not fit on {encoder.device}: give fewer") from None
    for (name, _), error in zip(chunk, errors, strict=True):
        yield name, next(features) if error is None else error


# files ----------------------------------------------------------------------------------------------------------------


def _unreadable(error: OSError) -> None:
    raise UserError(f"folder {error.filename} cannot be read: {error.strerror}")


def _missing(source: Source, target: Path, suffix: str, origin: Origin, report: Report) -> dict[str, Path | Place]:
    """The items that have no whole file yet. Raises UserError where a file is whole, but not what would be there."""
    todo, faults = {}, []
    for name, path in source.items.items():
        file = target / f"{name}{suffix}"
        try:
            shape, made = _header(file, name)
        except (OSError, EOFError, BadZipFile, zlib.error):  # not there, or cut off
            todo[name] = path
            continue
        except Exception:
            shape, made = (), {}
        whole = shape == (49, 2048) if source.kind == "images" else len(shape) == 2 and shape[0] and shape[1] == 512
        if not whole:
            faults.append(f"{file} holds something else than CLIP features of {source.kind}; it is not overwritten")
        elif made and any(made.get(key) != origin[key] for key in ("model", "weights")):
            was = f"{made.get('model')} with weights {made.get('weights')}"
            faults.append(f"{file} is of {was}, not {origin['model']} with {origin['weights']}; give another folder")
        report.kept += 1
        report.unsigned += not made
    if faults:
        raise shown(faults, str(target))
    return todo


def _header(file: Path, name: str) -> tuple[tuple[int, ...], Origin]:
    """Shape and origin in a feature file; the shape is () where the numbers are not floating-point ones."""
    if file.suffix == ".h5":
        with open_hdf5(file) as content:
            features = content[f"{name}/features"]
            assert isinstance(features, h5py.Dataset)
            return _shape(features), {key: str(value) for key, value in features.attrs.items()}
    with np.load(file, allow_pickle=False) as content:
        return _shape(content["features"]), json.loads(str(content["origin"])) if "origin" in content else {}


def _shape(features: h5py.Dataset | np.ndarray) -> tuple[int, ...]:
    return features.shape if features.dtype.kind == "f" else ()


def _write(path: Path, features: np.ndarray, origin: Origin) -> None:
    content = io.BytesIO()
    if path.suffix == ".h5":
        with h5py.File(content, "w") as file:
            file.create_dataset(f"{path.stem}/features", data=features).attrs.update(origin)
    else:
        np.savez(content, features=features, origin=json.dumps(origin))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.getbuffer())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
