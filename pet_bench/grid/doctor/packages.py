"""What is installed on a machine and can be imported. As `machine`, it goes as code to nodes."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, distributions, entry_points, version
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "ray", "numpy")
OURS = "pet-bench"


def packages(plugins: tuple[str, ...]) -> dict[str, Any]:
    """The fields of `facts.Packages`. plugins: as `--plugin` names them."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    versions[OURS], commit = ours()
    entries, broken = installed()
    return {"versions": versions, "commit": commit, "entries": entries, "broken": broken | loose(plugins)}


def ours() -> tuple[str | None, str | None]:
    """The version of pet-bench and, in a checkout, its commit."""
    try:
        import pet_bench
    except Exception:
        return None, None
    try:
        commit = importlib.import_module("pet_bench.results.provenance").commit()[0]
    except Exception:  # of another version
        commit = None
    return getattr(pet_bench, "__version__", None), commit


def installed() -> tuple[dict[str, str], dict[str, str]]:
    """By kind and name, the packages that plug-ins come from, and why those of others cannot be imported."""
    entries, broken = {}, {}
    groups = {entry.group for package in distributions() for entry in package.entry_points}
    ours = sorted(group for group in groups if group.startswith("pet_bench."))
    for entry in (entry for group in ours for entry in entry_points(group=group)):
        what = f"{entry.group.removeprefix('pet_bench.')} {entry.name}"
        entries[what] = origin = entry.dist.name if entry.dist else "an unknown package"
        if origin != OURS:
            try:
                entry.load()
            except BaseException as error:
                broken[f"{what} of {origin}"] = reason(error)
    return entries, broken


def loose(plugins: tuple[str, ...]) -> dict[str, str]:
    """Why those that are named cannot be loaded."""
    broken = {}
    for plugin in plugins:
        try:
            importlib.import_module("pet_bench.registry").load_plugin(plugin)
        except BaseException as error:
            broken[plugin] = reason(error)
    return broken


def reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if type(error).__name__ in ("UserError", "PluginError") else f"{type(error).__name__}: {text}"
