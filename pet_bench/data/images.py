"""All pictures that a run needs, packed once into one memory-mapped array of pixels."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pet_bench.data.albums import Albums
from pet_bench.data.packing import MANIFEST, PackedFolder, Progress, check_space, digest
from pet_bench.data.pictures import Contents, look
from pet_bench.data.pieces import growing, read_pieces
from pet_bench.data.places import Place
from pet_bench.data.rows import shown
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError, foreign
from pet_bench.packed import Rows
from pet_bench.registry import title
from pet_bench.spec import Control

FORMAT = 2
PIXELS, INDEX = "pixels.bin", "index.jsonl"
Wanted = Iterable[tuple[Task, Sequence[Example]]]


class Source(NamedTuple):
    """Where the picture of a key is, and a task that reads it."""

    task: Task
    place: Place


Sources = dict[str, Source]


class ImageStore(PackedFolder):
    """Pictures of any size as one flat array of uint8, and where each begins.

    `pack` makes or finds it; nothing after that opens the source files. A folder holds `pixels.bin`, `index.jsonl` (a
    `Piece` a picture, with height, width, stamp of its place and digest of its pixels) and `manifest.json`. Rows are
    those of the keys that are wanted, in alphabetical order. digests: of the pictures, by row.
    """

    what, checked = "images", (PIXELS, INDEX)

    def __init__(self, folder: Path, keys: Iterable[str] | None = None):
        manifest, size = self.read(folder / MANIFEST), (folder / PIXELS).stat().st_size
        pieces = {piece.name: piece for piece in read_pieces(folder / INDEX, size)}
        if manifest["format"] != FORMAT or manifest["bytes"] != size or manifest["images"] != len(pieces):
            raise ValueError("pixels, index and manifest disagree")
        self.folder, self.flat = folder, np.memmap(folder / PIXELS, np.uint8, "r")
        self.index = {key: row for row, key in enumerate(sorted(pieces if keys is None else keys))}
        wanted = [pieces[key] for key in self.index]
        self.places = [(piece.start, *piece.about[:2]) for piece in wanted]
        self.digests = [piece.about[-1] for piece in wanted]
        self.fingerprint = digest(list(zip(self.index, self.digests, strict=True)))

    @classmethod
    def pack(
        cls,
        root: Path | str,
        wanted: Wanted,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        albums: Albums | None = None,
    ) -> ImageStore:
        """The store of all pictures of these examples, from the cache if it is there.

        As `FeatureStore.pack`: a store that holds more serves too, packing that was stopped goes on where it was, and
        several processes may pack at once. albums: where pictures have been looked for already.

        Raises UserError for every fault together: a picture that is missing, there twice, unreadable or too large, an
        archive that cannot be read, a cache that cannot be written.
        """
        root = Path(root)
        looked = look_for(root, wanted, albums or Albums())
        if looked.said:
            raise shown([*looked.said, *damage(looked.sources)], cls.what)
        sources = looked.sources
        folder = packed_in(sources, cache)
        if store := cls.open(folder, sources):
            return store
        if faults := list(damage(sources)):
            raise shown(faults, cls.what)
        return cls.written(folder, lambda draft: _pack(draft, root.name, sources, progress))

    @classmethod
    def faults(cls, root: Path, wanted: Wanted, albums: Albums, cache: Path | None = None) -> list[str]:
        """What `pack` would raise, but for what is found only in reading all of a picture, or of an archive."""
        looked = look_for(root, wanted, albums)
        whole = not looked.said and cls.open(packed_in(looked.sources, cache), looked.sources)
        return [] if whole else [*looked.said, *damage(looked.sources)]

    def rows(self, examples: Sequence[Example]) -> np.ndarray:
        """Row numbers (examples, I) of examples that each have I images."""
        return np.array([[self.index[key] for key in example.images] for example in examples], np.int64)

    def to(self, device: torch.device | str) -> ImageStore:
        """Pictures stay where they are: a processor reads them."""
        return self

    @property
    def bytes_wanted(self) -> int:
        """What the pictures that are wanted take."""
        return sum(3 * height * width for _, height, width in self.places)

    @property
    def bytes_on_device(self) -> int:
        return 0

    def gather(self, rows: np.ndarray, *, control: Control = "none") -> list[list[np.ndarray]]:
        """The pictures (height, width, 3) of row numbers (B, I); black ones for "text-only", and for "noise" noise that
        depends on the picture's place among those that are wanted."""
        return [[self._shown(row, control) for row in example] for example in rows]

    def named(self, rows: np.ndarray, *, control: Control = "none") -> dict[str, Rows]:
        """What a model is told of which pictures it sees: their rows, or nothing where it sees none of them."""
        return {"pictures": torch.from_numpy(rows)} if control == "none" else {}

    def picture(self, row: int) -> np.ndarray:
        """(height, width, 3) uint8, memory-mapped."""
        offset, height, width = self.places[row]
        return self.flat[offset : offset + 3 * height * width].reshape(height, width, 3)

    def _shown(self, row: int, control: Control) -> np.ndarray:
        shape = (*self.places[row][1:], 3)
        if control == "text-only":
            return np.zeros(shape, np.uint8)
        if control == "noise":
            return np.random.default_rng(row).integers(0, 256, shape, np.uint8)
        return self.picture(row)


class Looked(NamedTuple):
    """sources: the pictures of some examples, by key in the order of their places. lacking: a task that reads each of
    the others, and what is wrong. faults: what else is."""

    sources: Sources
    lacking: dict[str, tuple[Task, Sequence[str]]]
    faults: list[str]

    @property
    def said(self) -> list[str]:
        return [*self.faults, *(line for task, lines in self.lacking.values() for line in lines)]


def look_for(root: Path, wanted: Wanted, albums: Albums) -> Looked:
    """Where the pictures of these examples are."""
    sources: Sources = {}
    lacking: dict[str, tuple[Task, Sequence[str]]] = {}
    faults: list[str] = []
    for task, examples in wanted:
        uneven = {len(example.images) for example in examples}
        if len(uneven) > 1:
            faults.append(f"{task.name}: examples have {sorted(uneven)} images; every one must have as many")
        for key in dict.fromkeys(key for example in examples for key in example.images):
            with foreign(f"{title(task)}: picture raised"):
                folder, name = task.picture(root, key)
            try:
                place = albums.find(folder, name)
            except UserError as error:
                lacking[key] = task, [f"{task.name}: {fault}" for fault in error.faults]
                continue
            other = sources.setdefault(key, Source(task, place))
            if other.place != place:
                faults.append(f"{task.name}: image {key!r} is another picture in task {other.task.name}")
    ordered = sorted(sources.items(), key=lambda one: (*one[1].place[:2], one[0]))
    return Looked(dict(ordered), lacking, [*albums.faults, *faults])


def damage(sources: Sources) -> Iterator[str]:
    """A line for every picture in a file of its own that is none by its first bytes."""
    for source in sources.values():
        try:
            check_picture(source)
        except UserError as error:
            yield from error.faults


def check_picture(source: Source) -> None:
    """Raises UserError where the file of a picture is none by its first bytes; those in archives are not looked at."""
    try:
        look(source.place)
    except UserError as error:
        raise UserError(f"{source.task.name}: {error}") from None


def read_picture(contents: Contents, key: str, source: Source) -> np.ndarray:
    """What a key means, (height, width, 3) uint8; raises UserError for all that can be wrong with it."""
    try:
        picture = contents.picture(source.place)
        with foreign(f"{title(source.task)}: seen raised"):
            return np.asarray(_seen(source, picture, key))
    except UserError as error:
        raise UserError(*(f"{source.task.name}: {fault}" for fault in error.faults)) from None


def _seen(source: Source, picture: Any, key: str) -> Any:
    try:
        return source.task.seen(picture, key)
    except ValueError as error:
        raise UserError(f"picture {source.place} of {key!r}: {error}") from None


def packed_in(sources: Sources, cache: Path | None = None) -> Path:
    """The folder of the store that holds exactly these pictures, or of one that holds them among others."""
    stamps = {key: list(source.place.stamp) for key, source in sources.items()}

    def holds(folder: Path) -> bool:
        manifest = ImageStore.read(folder / MANIFEST)
        if manifest["format"] != FORMAT or manifest["images"] < len(stamps):
            return False
        pieces = {piece.name: piece for piece in read_pieces(folder / INDEX, manifest["bytes"])}
        return all(key in pieces and pieces[key].about[2:4] == stamp for key, stamp in stamps.items())

    return ImageStore.place(_listing(sources), cache, holds)


def _listing(sources: Sources) -> str:
    return digest([FORMAT, *sorted((key, *source.place.stamp) for key, source in sources.items())])


def _pack(draft: Path, name: str, sources: Sources, progress: Progress | None) -> dict[str, Any]:
    """Write all pictures into the draft, behind those that are there; returns what the manifest says of them."""
    faults: list[str] = []
    with growing(draft / PIXELS, draft / INDEX) as pieces, Contents() as contents:
        done = {piece.name for piece in pieces.there}
        for number, (key, source) in enumerate(sources.items(), start=1):
            if key in done:
                continue
            try:
                picture = read_picture(contents, key, source)
            except UserError as error:
                faults += error.faults
            else:
                if not faults:
                    check_space("images", draft, picture.nbytes)
                    content, shape = picture.tobytes(), picture.shape[:2]
                    seal = sha256(repr(shape).encode() + content).hexdigest()[:24]
                    pieces.add(key, content, *shape, *source.place.stamp, seal)
            if progress:
                progress(number, len(sources))
    if faults:
        shutil.rmtree(draft, ignore_errors=True)  # a mended file will make it another folder
        raise shown(faults, "images")
    return {
        "format": FORMAT,
        "source": name,
        "listing": _listing(sources),
        "images": len(sources),
        "bytes": (draft / PIXELS).stat().st_size,
    }
