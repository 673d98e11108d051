"""What a download of VL-Adapter's data set says of itself, compared with what is there.

`manifest.json.gz` lists the files of the data set that the hub's copy was made of: `path`, `size`, `crc` (CRC-32) and
`shard`, the file of the copy that holds it. Annotations are copied as they were, so that their size, and with
`contents` their checksum, is compared. Features were HDF5 files of their own, whose sizes and checksums are not those
of anything in a shard: of these it is compared which image is in which shard, no more.

What the hub knows of each file that it sent is its SHA-256, or git's SHA-1. In the hub's cache that is the name of the
file behind the link; in a folder of `hf download --local-dir` it is noted in `.cache/huggingface`. With `contents` that
is compared as well, and covers every byte of a shard. Photographs are listed and not published: they are not missed.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha1, sha256
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from pet_bench.data.rows import conforming, shown
from pet_bench.data.shards import GRIDS, MANIFEST, Shards
from pet_bench.data.stream import members
from pet_bench.errors import UserError

MOST = 1 << 30  # bytes of the manifest, unpacked; the published one has about 100 MB
HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CHUNK = 1 << 20


class Entry(TypedDict):
    path: str
    size: Annotated[int, Field(ge=0)]
    crc: Annotated[int, Field(ge=0, lt=1 << 32)]
    shard: str


def differences(
    shards: Shards, folders: Collection[str], annotations: Iterable[Path], *, contents: bool = False
) -> list[str]:
    """A line for everything in which these folders' shards, and these annotation files, are not what was sent.

    contents: read all of them too.
    """
    annotations = sorted({*annotations})
    used = [path for folder in folders for path, stamp in shards.files.get(folder, ()) if stamp is not None]
    faults = [*_listed(shards, folders, annotations, contents), *_revisions(shards.root, [*annotations, *used])]
    for path in [*annotations, *used] if contents else ():
        faults += _sent(shards.root, path)
    return faults


def _listed(shards: Shards, folders: Collection[str], annotations: Iterable[Path], contents: bool) -> Iterator[str]:
    path = shards.root / MANIFEST
    if not path.exists():
        return
    known = {f"annotations/{file.relative_to(shards.root / 'annotations').as_posix()}": file for file in annotations}
    catalogues = {f"features/{folder}/{GRIDS}": shards.catalogue(folder) for folder in folders}
    listed, lost, first = Counter[str](), Counter[str](), dict[str, str]()
    try:
        for entry in _entries(path):
            home, _, name = entry["shard"].rpartition("/")
            if file := known.get(entry["shard"]):
                yield from _same(file, entry, contents)
            elif catalogue := catalogues.get(home):
                image = entry["path"].rpartition("/")[2].removesuffix(".h5")
                listed[entry["shard"]] += 1
                if image not in catalogue.rows or catalogue.find(image)[0].path.name != name:
                    lost[entry["shard"]] += 1
                    first.setdefault(entry["shard"], image)
    except UserError as error:
        yield from error.faults
        return
    for home, catalogue in catalogues.items():
        for name, count in catalogue.counts.items():
            there, place = f"{home}/{name}", catalogue.home / name
            if not listed[there]:
                yield f"{place} is none of the shards that {path} lists"
            elif lost[there]:
                yield f"{place} lacks {lost[there]:,} images that {path} lists, the first is {first[there]!r}"
            elif listed[there] != count:
                yield f"{place} has {count:,} rows, {path} lists {listed[there]:,}"


def _same(file: Path, entry: Entry, contents: bool) -> Iterator[str]:
    """Nothing where a file is missing, which its reader says."""
    try:
        size = file.stat().st_size
        crc = 0
        for block in _blocks(file) if contents else ():
            crc = zlib.crc32(block, crc)
    except OSError:
        return
    if size != entry["size"]:
        yield (
            f"{file} has {size:,} bytes, expected {entry['size']:,} as {MANIFEST} says: download it again, or remove "
            f"{MANIFEST} if it was changed on purpose"
        )
    elif contents and crc != entry["crc"]:
        yield f"{file} has the CRC-32 {crc:#010x}, expected {entry['crc']:#010x} as {MANIFEST} says: download it again"


class _Bounded(io.RawIOBase):
    """What is unpacked, to a limit."""

    def __init__(self, stream: gzip.GzipFile):
        self.stream, self.left = stream, MOST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.stream.read(len(buffer))
        self.left -= len(block)
        if self.left < 0:
            raise ValueError(f"it has more than {MOST:,} bytes unpacked")
        buffer[: len(block)] = block
        return len(block)


def _entries(path: Path) -> Iterator[Entry]:
    """Raises UserError with the first fault of form, or after the last entry with all faults of entries."""
    adapter, faults = TypeAdapter(Entry), []
    try:
        with gzip.open(path, "rb") as stream:
            for place, value in members(io.BufferedReader(_Bounded(stream), CHUNK), "files"):
                said, entry = conforming(f"{path}: {place}", value, adapter)
                if not said:
                    for key in ("path", "shard"):
                        parts = PurePosixPath(entry[key])
                        if parts.is_absolute() or ".." in parts.parts:
                            said.append(f"{path}: {place}: {key} leaves its folder, found {entry[key]!r}")
                faults += said
                if not said:
                    yield entry
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if faults:
        raise shown(faults, str(path))


def _revisions(root: Path, files: Iterable[Path]) -> Iterator[str]:
    found: dict[str, Path] = {}
    for file in files:
        if note := _note(root, file):
            found.setdefault(note[0], file)
    if len(found) > 1:
        some = ", ".join(f"{file.relative_to(root)} of {revision[:12]}" for revision, file in sorted(found.items()))
        yield f"{root} holds files of {len(found)} revisions, {some}: run the download again to its end"


def _sent(root: Path, file: Path) -> Iterator[str]:
    expected = _sum(root, file)
    if expected is None:
        return
    try:
        whole = sha256() if len(expected) == 64 else sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        for block in _blocks(file):
            whole.update(block)
    except OSError:
        return
    if whole.hexdigest() != expected:
        kind = "SHA-256" if len(expected) == 64 else "SHA-1"
        yield f"{file} has another {kind} than the file that the hub sent, {expected[:12]}…: download it again"


def _sum(root: Path, file: Path) -> str | None:
    """The checksum that the hub names a file by."""
    if file.is_symlink():
        target = file.readlink()
        return target.name if target.parent.name == "blobs" and HEX.fullmatch(target.name) else None
    note = _note(root, file)
    return note[1] if note and HEX.fullmatch(note[1]) else None


def _note(root: Path, file: Path) -> tuple[str, str] | None:
    """Revision and checksum of a file that `hf download --local-dir` brought."""
    note = root / ".cache" / "huggingface" / "download" / f"{file.relative_to(root).as_posix()}.metadata"
    try:
        revision, checksum = note.read_text("utf-8").split()[:2]
    except (OSError, ValueError):
        return None
    return revision, checksum


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(CHUNK):
            yield block
