"""One registry for methods, tasks, suites, backbones and metrics.

A plug-in is a class or an object with a `name`. Installed packages (ours included) offer theirs through the
entry-point groups `pet_bench.methods`, `pet_bench.tasks`, `pet_bench.suites`, `pet_bench.backbones` and
`pet_bench.metrics`; a loose file or module is added with `load_plugin` (`--plugin` on the command line). Entry
points are imported when asked for, so that listing names costs nothing.

A name that ends with a colon is a *family*: a class whose `variant("x")` makes the plug-in `<family>:x`. Families stand
for more than can be listed: they are no plug-ins themselves, and neither `names` nor iterating goes through them.

Plug-ins are other people's code. Each is checked when it is loaded, and what it does when it is called costs what was
asked of it, nothing else: a PluginError says in one line what it was (`errors.foreign`, `ask`).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from inspect import isroutine
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any, Generic, TypeVar, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pet_bench.errors import Faults, PluginError, UserError, foreign, shortened, text_of, unknown
from pet_bench.files import is_file

T = TypeVar("T")
_LOOSE = "pet_bench_plugin_"
DESCRIBED = (".yaml", ".yml")  # a task without code
FILES = (".py", *DESCRIBED)  # of loose plug-ins
# what a grid file, `--set NAME.OPTION` and a file's name can hold, in a table too
NAME = re.compile(r"[^\W_][\w.+-]{0,63}")
RESERVED = ("recipe",)  # `--set recipe.KEY`


def place_of(entry: Any) -> str:
    if isinstance(entry, EntryPoint):
        return entry.value
    name = getattr(entry, "__module__", type(entry).__module__)
    place = getattr(sys.modules.get(name), "__file__", name) if is_loose(name) else name
    return f"{place}:{getattr(entry, '__qualname__', type(entry).__name__)}"


def title(plugin: Any) -> str:
    """`method "lora"`, as messages call it."""
    return f'{plugin.plugin_kind} "{plugin.name}"'


def ask(plugin: Any, hook: str, *arguments: Any, returns: Any, of: str | None = None) -> Any:
    """What a plug-in's method `hook` gives, which must be `returns`: a class, or any type that pydantic knows.

    of: how messages call the plug-in. Raises PluginError where the hook raises or gives anything else.
    """
    of = of or title(plugin)
    with foreign(f"{of}: {hook} raised"):
        value = getattr(plugin, hook)(*arguments)
        if reason := _misfit(value, returns):
            raise PluginError(f"{of}: {hook} gave {text_of(value)}: {reason}")
    return value


def _misfit(value: Any, expected: Any) -> str:
    """Why a value is not of the type `expected`, taken strictly; nothing where it is."""
    if isinstance(expected, type) and get_origin(expected) is None and expected not in (int, float):
        package = expected.__module__.split(".")[0]
        return "" if isinstance(value, expected) else f"expected a {expected.__qualname__} of {package}"
    try:
        _adapter(expected).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return ""


@lru_cache
def _adapter(expected: Any) -> TypeAdapter:
    return TypeAdapter(expected, config=ConfigDict(arbitrary_types_allowed=True))


def hook_faults(cls: type) -> Iterator[str]:
    """What a plug-in's class lacks of what it is asked: methods that its base leaves open, or makes something else."""
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        yield f"{', '.join(missing)} is missing: the class is abstract"
    for name in {name: None for base in cls.__mro__[:-1] for name in vars(base)}:
        if name == "variant":  # a family is asked for it; of its variants it may be the name of an option
            continue
        found, *inherited = [vars(base)[name] for base in cls.__mro__[:-1] if name in vars(base)]
        if any(map(isroutine, inherited)) and not isroutine(found):
            yield f"{name} has to be a method, found {text_of(found)}"


def attribute_faults(plugin: Any, expected: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a plug-in's attributes, by name and type. A class's properties and options may be anything."""
    options = getattr(plugin, "__pydantic_fields__", {}) if isinstance(plugin, type) else {}
    for name, kind in expected.items():
        if name in options:
            continue
        if not hasattr(plugin, name):
            yield f"{name} is missing"
        elif not isinstance(value := getattr(plugin, name), property) and (reason := _misfit(value, kind)):
            yield f"{name} is {text_of(value)}: {reason}"


class Registry(Generic[T]):
    """Names → plug-ins of one kind.

    `kind` is the word used in messages, and names the entry-point group `pet_bench.<kind>s`. Plug-ins are classes
    where `classes` is true (methods, tasks, metrics), otherwise objects (suites, backbones). check: `module:function`,
    what says in a line each what keeps a class or an object from being such a plug-in.
    """

    def __init__(self, kind: str, *, classes: bool, check: str | None = None):
        plural = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"
        self.kind, self.group, self.classes, self.check = kind, f"pet_bench.{plural}", classes, check
        self._entries: dict[str, Any] | None = None
        self._places: dict[str, str] = {}  # of what was registered: its module does not tell where an object is
        self._members: dict[str, T] = {}  # of families
        self._lock = RLock()
        REGISTRIES[kind] = self

    @property
    def entries(self) -> dict[str, Any]:
        with self._lock:
            if self._entries is None:
                self._entries = {}
                try:
                    for entry in entry_points(group=self.group):
                        self._add(entry.name, entry, entry.value)
                except PluginError:
                    self._entries = None  # a clash is said to everybody who asks
                    raise
            return self._entries

    def _add(self, name: str, entry: Any, place: str) -> None:
        existing = self.entries.get(name)
        # the same distribution can be seen twice (a checkout beside its install): the same target is no clash
        if existing is not None and self.origin(name) != place and self._loaded(existing) is not entry:
            raise PluginError(f'{self.kind} "{name}" registered twice: {self.origin(name)} and {place}')
        if existing is None:
            self.entries[name], self._places[name] = entry, place

    @staticmethod
    def _loaded(entry: Any) -> Any:
        """What an entry stands for, where it has been imported."""
        if isinstance(entry, EntryPoint):
            return getattr(sys.modules.get(entry.module), entry.attr, None) if entry.attr else None
        return entry

    def register(self, plugin: T, place: str | None = None) -> T:
        """Add a class or object under its `name`; `place` says where it is, if it does not tell.

        Raises PluginError where another plug-in holds that name and where this one may not be a plug-in.
        """
        place = place or place_of(plugin)
        with self._lock:
            self._check(plugin, place)
            self._add(getattr(plugin, "name", ""), plugin, place)
        return plugin

    def _check(self, plugin: T, place: str, family: str = "") -> None:
        """Raises PluginError with all that keeps it from being a plug-in, of that family if any."""
        name = getattr(plugin, "name", None)
        plain = isinstance(name, str) and NAME.fullmatch(name.replace(":", ""))
        what = f'{self.kind} "{name}" ({place})' if plain else f"{self.kind} {text_of(name)} ({place})"
        faults = Faults()
        with faults, foreign(f"{what}: its check raised"):
            for fault in self._faults(plugin, name, family):
                faults.add(PluginError(f"{what}: {fault}"))
        faults.check()

    def _faults(self, plugin: T, name: Any, family: str) -> Iterator[str]:
        if not isinstance(name, str):
            yield "its name is no text"
            return
        stem = name.removeprefix(family) if family else name.removesuffix(":")
        if ":" in stem:
            yield "a name with a colon is a family's to give"
        elif not NAME.fullmatch(stem):
            yield "a name is 1 to 64 letters, digits and the signs . + - _, a letter or a digit first"
        elif name in RESERVED:
            yield f"the name is taken by --set {name}.KEY"
        if name.endswith(":"):
            if not callable(getattr(plugin, "variant", None)):
                yield "a name that ends with a colon is a family's, which has a variant(name)"
        elif self.check:
            module, function = self.check.split(":")
            yield from getattr(importlib.import_module(module), function)(plugin)

    def names(self) -> list[str]:
        return sorted(name for name in self.entries if not name.endswith(":"))

    def families(self) -> list[str]:
        """Names of the families, with their colon."""
        return sorted(name for name in self.entries if name.endswith(":"))

    def __contains__(self, name: str) -> bool:
        """Whether a plug-in has that name; of a family's members, whether there is such a family."""
        family, _, member = name.partition(":")
        entries = self.entries
        return (name in entries and not name.endswith(":")) or (bool(member) and f"{family}:" in entries)

    def __iter__(self) -> Iterator[T]:
        """Those that can be loaded."""
        for name in self.names():
            with Faults():
                yield self.get(name)

    def get(self, name: str) -> T:
        """The plug-in of that name, imported if need be.

        Raises UserError for an unknown name (with the nearest one), for an import that fails, for a plug-in whose own
        `name` is another and for one that is none.
        """
        if name not in self:
            raise unknown(self.kind, name, [*self.names(), *(f"{family}<type>" for family in self.families())])
        family, _, member = name.partition(":")
        return self._member(f"{family}:", member) if member else self._load(name)

    def _member(self, family: str, member: str) -> T:
        name = f"{family}{member}"
        if name not in self._members:
            with foreign(f'{self.kind} family "{family}": variant raised'):
                plugin = getattr(self._load(family), "variant")(member)  # noqa: B009  a family's, as `_check` saw
            self._check(plugin, self.origin(family), family)
            self._members[name] = plugin
        return self._members[name]

    def _load(self, name: str) -> T:
        entry = self.entries[name]
        if isinstance(entry, EntryPoint):
            where = f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown package'}"
            with foreign(f'{self.kind} "{name}" ({where}) failed on import:'):
                plugin = entry.load()
                if plugin.name != name:
                    raise PluginError(f'{self.kind} "{name}": {entry.value} calls itself "{plugin.name}"')
            self._check(plugin, where)
            self.entries[name] = entry = plugin
        return entry

    def load(self) -> list[UserError]:
        """Import every plug-in and every family; what is wrong with those that cannot be."""
        faults = Faults()
        for name in list(self.entries):
            with faults:
                self._load(name)
        return [UserError.many([fault]) if isinstance(fault, str) else fault for fault in faults.found]

    def origin(self, name: str) -> str:
        """Where a plug-in or a family comes from, as `module:object`."""
        entry = self.entries[name]
        return entry.value if isinstance(entry, EntryPoint) else self._places.get(name) or place_of(entry)


REGISTRIES: dict[str, Registry] = {}
# what a plug-in is, `check` says, above: imports point down
METHODS: Registry[Any] = Registry("method", classes=True, check="pet_bench.pet.method:faults")
TASKS: Registry[Any] = Registry("task", classes=True, check="pet_bench.data.task:faults")
METRICS: Registry[Any] = Registry("metric", classes=True, check="pet_bench.metrics.scores:faults")
SUITES: Registry[Any] = Registry("suite", classes=False, check="pet_bench.data.suite:faults")
FAMILIES: Registry[Any] = Registry("family", classes=True, check="pet_bench.backbone.family:faults")
BACKBONES: Registry[Any] = Registry("backbone", classes=False, check="pet_bench.backbone.known:faults")
STYLES: Registry[Any] = Registry("style", classes=False, check="pet_bench.report.tables.style:faults")


def load_plugin(source: str) -> list[str]:
    """Import a loose plug-in (`file.py`, `package.module` or `task.yaml`, see `data.described`) and register what
    it defines.

    A class or object counts when its attribute `plugin_kind` is one of the registries' and it was defined in that
    module, with a `name` of its own. Returns the names registered, as `kind name`. Raises UserError where the file
    is missing, fails on import or defines no plug-in, and for all that may not be one, or whose name is taken, after
    the others have been registered.
    """
    module = _import(source)
    registered, nameless, faults = [], [], Faults()
    with foreign(f'plug-in "{source}" cannot be read:'):
        defined = list(_defined(module))
        nameless = [key for _, key, value in defined if _nameless(value)]
    for registry, key, value in defined:
        if key not in nameless:
            with faults:
                registry.register(value, f"{module.__file__ if is_loose(module.__name__) else module.__name__}:{key}")
                registered.append(f"{registry.kind} {value.name}")
    if not registered and not faults.found:
        hint = f" ({', '.join(nameless)}: without a name)" if nameless else ""
        raise PluginError(f'plug-in "{source}" defines no {", no ".join(REGISTRIES)}{hint}')
    faults.check()
    return registered


def _defined(module: Any) -> Iterator[tuple[Registry, str, Any]]:
    for key, value in vars(module).items():
        kind = getattr(value, "plugin_kind", None)
        registry = REGISTRIES.get(kind) if isinstance(kind, str) else None
        if registry is None or key.startswith("_") or registry.classes != isinstance(value, type):
            continue
        if not registry.classes or value.__module__ == module.__name__:
            yield registry, key, value


def _nameless(value: Any) -> bool:
    """Whether it is a class for others to extend: no name, or its base's empty one."""
    name = getattr(value, "name", None)
    return name is None or (name == "" and isinstance(value, type) and "name" not in vars(value))


def is_loose(module: str) -> bool:
    """Whether a module is a loose file's."""
    return module.startswith(_LOOSE)


def _import(source: str) -> ModuleType:
    path = Path(source)
    if path.suffix in FILES and not is_file(path):
        raise UserError(f'plug-in "{shortened(source)}": no such file')
    with foreign(f'plug-in "{source}" failed on import:'):
        if path.suffix not in FILES:
            return importlib.import_module(source)
        path = path.resolve()
        name = f"{_LOOSE}{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
        module = sys.modules[name] = _empty(name, path)
        try:
            if module.__spec__ is None:
                importlib.import_module("pet_bench.data.described").define(module, path, source)
            else:
                assert module.__spec__.loader is not None  # it ends with .py
                module.__spec__.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, UserError) and path.suffix not in DESCRIBED:
                raise error.within(f'plug-in "{source}"') from error
            raise
        return module


def _empty(name: str, path: Path) -> ModuleType:
    """The module of a loose file, before it has run or been read."""
    if path.suffix in DESCRIBED:
        module = ModuleType(name)
        module.__file__ = str(path)
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # it ends with .py
    return importlib.util.module_from_spec(spec)
