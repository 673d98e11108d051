"""Code of others that results were made with: which, of what version, and where it differs.

pet-bench's own code is known by its commit. Of all else that made a trial what it is, its method, tasks, metrics,
backbone and the parts of its design, a result has the module, its distribution with the version, and the SHA-256 of the
module's source; of a loose file the name in place of module and distribution.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from pathlib import Path
from typing import Any

from pet_bench.errors import text_of
from pet_bench.registry import FILES, REGISTRIES, is_loose, title
from pet_bench.results.schema import Plugin

OURS = "pet_bench"
Codes = tuple[tuple[str, str], ...]  # (`method "mine"`, `mine.py 1a2b3c4`) of each plug-in of a trial


def code(used: Mapping[str, Any]) -> list[Plugin]:
    """What others wrote of what a trial used: classes and objects by what messages call them, `method "mine"`.

    To be asked when a trial begins: a file that is edited while it runs is not what ran.
    """
    provides: dict[str, list[str]] = defaultdict(list)
    for name, thing in used.items():
        for module in _modules(thing):
            provides[module].append(name)
    of = [_plugin(module).model_copy(update={"provides": names}) for module, names in provides.items()]
    return sorted(of, key=lambda one: one.module)


def _modules(thing: Any) -> list[str]:
    """The modules, or loose files, that define a class and what it extends of the same package, or an object."""
    if not isinstance(thing, type):
        registry = REGISTRIES.get(getattr(thing, "plugin_kind", ""))
        name = getattr(thing, "name", "")
        places = [registry.origin(name).rpartition(":")[0]] if registry is not None and name in registry else []
        return [place for place in places if place.split(".")[0] != OURS]
    home = _package(thing.__module__)
    modules = dict.fromkeys(cls.__module__ for cls in thing.__mro__)
    return [name for name in modules if _package(name) in {home, ""} - {OURS}]


def _package(module: str) -> str:
    """The top-level package of a module; nothing for a loose file."""
    return "" if is_loose(module) else module.split(".")[0]


@cache
def _plugin(module: str) -> Plugin:
    """A module as it is when it is first asked for."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    file = Path(module if module.endswith(FILES) else loaded or "")
    loose = is_loose(module) or module.endswith(FILES)
    distribution, release = (None, None) if loose else _distribution(module.split(".")[0])
    try:
        digest = sha256(file.read_bytes()).hexdigest()
    except OSError:
        digest = None
    shown = file.name if loose else module
    return Plugin(module=shown, distribution=distribution, version=release, digest=digest, provides=[])


@cache
def _distribution(package: str) -> tuple[str | None, str | None]:
    """Name and version of the distribution that a top-level package came with."""
    for registry in REGISTRIES.values():
        for entry in entry_points(group=registry.group):
            if entry.dist is not None and entry.module.split(".")[0] == package:
                return entry.dist.name, entry.dist.version
    names = packages_distributions().get(package)
    return (names[0], version(names[0])) if names else (None, None)


def codes(plugins: Iterable[Plugin]) -> Codes:
    """What a frame holds of a trial's plug-ins: each with its code in a few words, `mine.py 1a2b3c4`."""
    of: dict[str, list[str]] = defaultdict(list)
    for plugin in plugins:
        for name in plugin.provides:
            of[name].append(str(plugin))
    return tuple((name, " and ".join(sorted(texts))) for name, texts in sorted(of.items()))


def running() -> dict[str, str]:
    """The code of the plug-ins that have been loaded here, by what messages call them."""
    loaded = [entry for registry in REGISTRIES.values() for entry in registry.entries.values()]
    return dict(codes(code({_called(one): one for one in loaded if not isinstance(one, EntryPoint)})))


def _called(plugin: Any) -> str:
    return title(plugin) if hasattr(plugin, "name") else text_of(plugin)


def differences(trials: Iterable[Codes | Any], here: Mapping[str, str] | None = None) -> list[str]:
    """A line for each plug-in of which the trials of one table used several versions, or one that is not the code here.

    trials: the column `plugins` of a frame with a row per trial; trials without any hold nothing. here: `running()`.
    """
    here = here or {}
    made: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials:
        for name, which in trial if isinstance(trial, tuple) else ():
            made[name][which] += 1
    return [line for name, versions in made.items() for line in _told(name, versions, here.get(name))]


def _told(name: str, versions: Counter[str], here: str | None) -> Iterator[str]:
    if len(versions) > 1:
        which = (f"{one} ({n} trial{'s' * (n != 1)}{', the code here' * (one == here)})" for one, n in versions.items())
        yield f"caution: made with {len(versions)} different versions of {name}: {', '.join(which)}"
    elif here and here not in versions:
        yield f"made with another version of {name} ({next(iter(versions))}) than the code here ({here})"
