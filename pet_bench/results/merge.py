"""Folders of results made one: what several machines have trained, say."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pet_bench.errors import UserError
from pet_bench.files import read_text, replacing, write_text
from pet_bench.results import aliases
from pet_bench.results.schema import TrialResult
from pet_bench.results.store import CHECKPOINT, check_writable, difference, load_all, rank, save, scan

Preference = Literal["first", "newest"]


@dataclass(frozen=True)
class Merged:
    """What a merge did. copied: id → the folder it came from. present: ids whose results were there, no lesser ones.

    grid: whether the folder's `grid.yaml` is that of every source; None: it has none, for theirs are not all the same.
    """

    copied: dict[str, Path]
    present: tuple[str, ...]
    grid: bool | None


def merge(sources: Iterable[Path], out: Path, prefer: Preference | None = None) -> Merged:
    """Copy the results of several folders, and what belongs to them but for checkpoints, into one.

    Of several results of a trial the one of the highest rank is kept, of equals the one that is there, has scores and
    comes first, or else the newer. A trial's folder comes before its result, so that a merge that was cut off is
    completed by repeating it. prefer: which of those of one rank that scored differently.

    Raises UserError, with nothing copied, for invalid files, for sources that are not there, have no results or are
    `out`, and without `prefer` where results of a trial have different scores.
    """
    sources, out = [Path(source) for source in sources], Path(out)
    chosen = _Choice(out, prefer, dict(load_all(out)) if out.is_dir() else {})
    for source in sources:
        chosen.look(source)
    if chosen.faults:
        raise UserError.many(chosen.faults)
    rows = aliases.joined([*sources, out])
    check_writable(out)
    try:
        for id, source in chosen.copies.items():
            _copy_folder(source / id, out / id)
            save(chosen.known[id], out)
        aliases.write(out, rows)
        present = tuple(sorted(chosen.present - chosen.copies.keys()))
        return Merged(chosen.copies, present, _merge_grids(sources, out))
    except OSError as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
        raise UserError(f'results cannot be copied to "{out}": {reason}') from error


@dataclass
class _Choice:
    """Which results of the folders seen so far belong into `out`, and what is wrong with them."""

    out: Path
    prefer: Preference | None
    known: dict[str, TrialResult]
    copies: dict[str, Path] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    faults: list[UserError | str] = field(default_factory=list)

    def look(self, source: Path) -> None:
        results, unreadable = scan(source)
        self.faults += unreadable
        if not source.is_dir():
            self.faults.append(f'results folder "{source}" does not exist')
        elif self.out.is_dir() and source.samefile(self.out):
            self.faults.append(f'"{source}" is the folder to copy to: name others')
        elif not results and not unreadable:
            self.faults.append(f'"{source}" has no results')
        for id, result in results.items():
            self.weigh(id, result, source)

    def weigh(self, id: str, result: TrialResult, source: Path) -> None:
        """A result in `source` against the best one so far."""
        held, place = self.known.get(id), self.copies.get(id, self.out)
        odd = difference(held, result) if held and held.metrics and result.metrics else ""
        if odd and not self.prefer:
            pair = f'in "{place / id}.json" and in "{source / id}.json"'
            self.faults.append(f"trial {id} scored differently {pair} ({odd}): take one away, or give --prefer")
        elif held is None or _better(result, held, newest=bool(odd) and self.prefer == "newest"):
            self.known[id], self.copies[id] = result, source
        elif place is self.out:
            self.present.add(id)


def _better(result: TrialResult, held: TrialResult, *, newest: bool) -> bool:
    if rank(result) != rank(held):
        return rank(result) > rank(held)
    if held.metrics and not newest:
        return False
    return result.provenance.finished > held.provenance.finished


def _copy_folder(source: Path, target: Path) -> None:
    """Put a copy of `source` in the place of `target`; either may not be there. Cut off, it can be repeated."""
    staged, replaced = (target.with_name(f".{target.name}.{what}") for what in ("merging", "replaced"))
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    _clear_up(target)
    try:
        if source.is_dir():
            left_out = shutil.ignore_patterns(f"{CHECKPOINT}*", "*.lock", ".*")
            shutil.copytree(source, staged, ignore=left_out, copy_function=_copy_file)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    if target.exists():
        target.rename(replaced)
    if staged.exists():
        staged.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _clear_up(target: Path) -> None:
    """Remove what an earlier merge or write of `target` left beside it when it was cut off."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _copy_file(source: str, target: str) -> None:
    with replacing(Path(target)) as temporary:
        shutil.copyfile(source, temporary)


def _merge_grids(sources: list[Path], out: Path) -> bool | None:
    texts = {_read(source / "grid.yaml") for source in sources}
    common = texts.pop() if len(texts) == 1 else None
    if common and not (out / "grid.yaml").exists():
        _clear_up(out / "grid.yaml")
        write_text(out / "grid.yaml", common)
    kept = _read(out / "grid.yaml")
    return None if kept is None else kept == common


def _read(file: Path) -> str | None:
    return read_text(file, f'grid file "{file}"') if file.is_file() else None
