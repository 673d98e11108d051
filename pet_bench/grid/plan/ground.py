"""What plans and counts are made from, as a digest: our code, what is installed, and the files that are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path
from typing import TYPE_CHECKING, Any

from pet_bench.errors import UserError
from pet_bench.registry import REGISTRIES

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Grid

OURS = ("pet_bench", "pet_bench.methods", "pet_bench.tasks")  # packages; the checkout has the last two beside the first
CODE = (".py", ".json", ".yaml", ".toml", ".csv")  # endings of what they may read when a trial is resolved
NOT_OF_THE_PLAN = ("resources", "out")  # keys of a grid that change no trial
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")  # endings of what no plan reads


def canonical(data: Any) -> str:
    """As JSON, in its own order: that of a search's values, say, is the order of a table's columns."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _sha(data: str | bytes) -> str:
    return sha256(data if isinstance(data, bytes) else data.encode(errors="surrogateescape")).hexdigest()


def digest_of(content: Any) -> str:
    """Of plain data."""
    return _sha(canonical(content))


def content_of(grid: Grid) -> dict[str, Any]:
    """What of a grid its plan depends on."""
    return {key: value for key, value in grid.to_dict().items() if key not in NOT_OF_THE_PLAN}


@dataclass(frozen=True)
class Ground:
    """digest: of our own code, what is installed where, the plug-ins, Python, and the folder in which relative paths,
    of backbones say, mean what they do.
    """

    digest: str

    @classmethod
    def now(cls) -> Ground | None:
        """None where it cannot be told, as of plug-ins that were loaded from files."""
        try:
            if (plugins := _plugins()) is None:
                return None
            return cls(digest_of([str(Path.cwd()), sys.version, plugins, sorted(_installed()), dict(_code())]))
        except (OSError, ValueError, UserError):
            return None

    @staticmethod
    def files_read(backbones: Iterable[str]) -> dict[str, str] | None:
        """By path, digests of what else is read: loaded modules that no package holds, and the folders of backbones.
        None where a backbone was looked up elsewhere, on a hub say.
        """
        from pet_bench.backbone.known import find_backbone

        paths = list(_loose_modules())
        for name in backbones:
            backbone = find_backbone(name)
            folder = Path(backbone.source)
            if folder.is_dir():
                paths += [path for path in folder.iterdir() if path.is_file() and path.suffix not in WEIGHTS]
            elif not backbone.config:
                return None
        try:
            return {str(path.absolute()): _sha(path.read_bytes()) for path in paths}
        except OSError:
            return None


def unchanged(read: dict[str, str]) -> bool:
    """Whether the files are what they were; raises OSError for one that is gone."""
    return all(_sha(Path(path).read_bytes()) == digest for path, digest in read.items())


def _plugins() -> list[tuple[str, str, str]] | None:
    """Group, name and origin of all plug-ins; None where any but those that packages bring is registered."""
    kinds = REGISTRIES.values()
    origins = {(kind.group, name, kind.origin(name)) for kind in kinds for name in kind.entries}
    every = entry_points()  # a look through all that is installed
    brought = {(entry.group, entry.name, entry.value) for kind in kinds for entry in every.select(group=kind.group)}
    return sorted(origins) if origins == brought else None


def _installed() -> Iterator[tuple[str, str, int]]:
    """Packages that are installed: names with versions, and when, for a version may be installed again."""
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError):
            for path in Path(folder).iterdir():
                if path.suffix in (".dist-info", ".egg-info"):
                    yield folder, path.name, path.stat().st_mtime_ns


def _code() -> Iterator[tuple[str, str]]:
    """Our own files: names and digests, however they were installed."""
    for package in OURS:
        for folder in _folders(package):
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix in CODE and "__pycache__" not in path.parts:
                    yield f"{package}/{path.relative_to(folder).as_posix()}", _sha(path.read_bytes())


def _loose_modules() -> Iterator[Path]:
    """Files of the modules that are loaded and that neither Python nor a package nor we ourselves bring: those of
    plug-ins that are installed as links to where they are written, and what they import."""
    homes = tuple(_homes())
    for module in list(sys.modules.values()):
        name = getattr(module, "__dict__", {}).get("__file__")  # asked for as an attribute, a lazy one may load itself
        if isinstance(name, str) and Path(name).is_file() and not any(Path(name).is_relative_to(one) for one in homes):
            yield Path(name)


def _homes() -> Iterator[str]:
    """Folders whose files are accounted for: Python's own, those of installed packages, ours."""
    yield from (get_path("stdlib"), get_path("platstdlib"))
    yield from (folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages"))
    for package in OURS:
        yield from _folders(package)


def _folders(package: str) -> Iterable[str]:
    spec = find_spec(package)
    return (spec.submodule_search_locations if spec else None) or ()
