"""One registry for methods, tasks, suites, backbones and metrics.

A plug-in is a class or an object with a `name`. Installed packages (ours included) offer theirs through the
entry-point groups `pet_bench.methods`, `pet_bench.tasks`, `pet_bench.suites`, `pet_bench.backbones` and
`pet_bench.metrics`; a loose file or module is added with `load_plugin` (`--plugin` on the command line). Entry
points are imported when asked for, so that listing names costs nothing.

A name that ends with a colon is a *family*: a class whose `variant("x")` makes the plug-in `<family>:x`. Families stand
for more than can be listed: they are no plug-ins themselves, and neither `names` nor iterating goes through them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

from pet_bench.errors import UserError, shortened, unknown
from pet_bench.files import is_file

T = TypeVar("T")
_LOOSE = "pet_bench_plugin_"


def _origin(entry: Any) -> str:
    if isinstance(entry, EntryPoint):
        return entry.value
    module = sys.modules[getattr(entry, "__module__", type(entry).__module__)]
    place = module.__file__ if module.__name__.startswith(_LOOSE) else module.__name__
    return f"{place}:{getattr(entry, '__qualname__', entry.name)}"


class Registry(Generic[T]):
    """Names → plug-ins of one kind.

    `kind` is the word used in messages, and names the entry-point group `pet_bench.<kind>s`. Plug-ins are classes
    where `classes` is true (methods, tasks, metrics), otherwise objects (suites, backbones).
    """

    def __init__(self, kind: str, *, classes: bool):
        self.kind, self.group, self.classes = kind, f"pet_bench.{kind}s", classes
        self._entries: dict[str, Any] | None = None
        self._lock = RLock()
        REGISTRIES[kind] = self

    @property
    def entries(self) -> dict[str, Any]:
        with self._lock:
            if self._entries is None:
                self._entries = {}
                for entry in entry_points(group=self.group):
                    self._add(entry.name, entry)
            return self._entries

    def _add(self, name: str, entry: Any) -> None:
        existing = self._entries.get(name)
        # the same distribution can be seen twice (a checkout beside its install): the same target is no clash
        if existing is not None and _origin(existing) != _origin(entry):
            raise UserError(f'{self.kind} "{name}" registered twice: {_origin(existing)} and {_origin(entry)}')
        if existing is None:
            self._entries[name] = entry

    def register(self, plugin: T) -> T:
        """Add a class or object under its `name`; raises UserError where another plug-in holds that name."""
        with self._lock:
            self.entries  # noqa: B018  entry points come first, so that a clash names both
            self._add(plugin.name, plugin)
        return plugin

    def names(self) -> list[str]:
        return sorted(name for name in self.entries if not name.endswith(":"))

    def families(self) -> list[str]:
        """Names of the families, with their colon."""
        return sorted(name for name in self.entries if name.endswith(":"))

    def __contains__(self, name: str) -> bool:
        """Whether a plug-in has that name; of a family's members, whether there is such a family."""
        family, _, member = name.partition(":")
        return name in self.names() or (bool(member) and f"{family}:" in self.entries)

    def __iter__(self) -> Iterator[T]:
        return (self.get(name) for name in self.names())

    def get(self, name: str) -> T:
        """The plug-in of that name, imported if need be.

        Raises UserError for an unknown name (with the nearest one), for an import that fails and for a plug-in
        whose own `name` is another.
        """
        if name not in self:
            raise unknown(self.kind, name, [*self.names(), *(f"{family}<type>" for family in self.families())])
        family, _, member = name.partition(":")
        return self._load(f"{family}:").variant(member) if member else self._load(name)

    def _load(self, name: str) -> T:
        entry = self.entries[name]
        if isinstance(entry, EntryPoint):
            try:
                plugin = entry.load()
            except Exception as error:
                where = f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown package'}"
                raise UserError(
                    f'{self.kind} "{name}" ({where}) failed on import: {type(error).__name__}: {error}'
                ) from error
            if plugin.name != name:
                raise UserError(f'{self.kind} "{name}": {entry.value} calls itself "{plugin.name}"')
            self._entries[name] = entry = plugin
        return entry

    def load(self) -> None:
        """Import every plug-in and every family; raises UserError where one fails."""
        for name in self.entries:
            self._load(name)

    def origin(self, name: str) -> str:
        """Where a plug-in or a family comes from, as `module:object`."""
        return _origin(self.entries[name])


REGISTRIES: dict[str, Registry] = {}
METHODS = Registry("method", classes=True)
TASKS = Registry("task", classes=True)
METRICS = Registry("metric", classes=True)
SUITES = Registry("suite", classes=False)
BACKBONES = Registry("backbone", classes=False)


def load_plugin(source: str) -> list[str]:
    """Import a loose plug-in (`path/to/file.py` or `package.module`) and register what it defines.

    A class or object counts when its attribute `plugin_kind` is one of the registries' and it was defined in that
    module, with a `name` of its own. Returns the names registered, as `kind name`. Raises UserError where the file
    is missing, fails on import or defines no plug-in, and where a name is taken.
    """
    module = _import(source)
    found = []
    for key, value in vars(module).items():
        registry = REGISTRIES.get(getattr(value, "plugin_kind", None))
        if registry is None or key.startswith("_") or not getattr(value, "name", None):
            continue
        if registry.classes != isinstance(value, type) or (registry.classes and value.__module__ != module.__name__):
            continue
        registry.register(value)
        found.append(f"{registry.kind} {value.name}")
    if not found:
        raise UserError(f'plug-in "{source}" defines no {", no ".join(REGISTRIES)}')
    return found


def _import(source: str):
    path = Path(source)
    try:
        if path.suffix != ".py":
            return importlib.import_module(source)
        if not is_file(path):
            raise UserError(f'plug-in "{shortened(source)}": no such file')
        path = path.resolve()
        name = f"{_LOOSE}{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'plug-in "{source}" failed on import: {type(error).__name__}: {error}') from error
